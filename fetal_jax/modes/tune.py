"""`--mode=tune`: the same few trials for each setting, on children that are in no fold and no test.

Every combination of --vary is trained for SHORT of the steps on some of the children that
`crossval.tuning_share` keeps out of the folds, and judged on the others; the best of them are
trained to the end, and the best of those is chosen. WORKDIR/plan.json fixes the trials before the
first one runs; tuning.csv has all of them, chosen.txt what is to be put on a command line.
"""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict, FrozenConfigDict

from fetal_jax.data import folds
from fetal_jax.data.dataset import Dataset
from fetal_jax.data.from_config import prepare_cases, resolve_grid
from fetal_jax.errors import Diverged, InputError
from fetal_jax.io.files import write_atomically
from fetal_jax.io.tables import write_table
from fetal_jax.modes.crossval import assign_folds
from fetal_jax.modes.train import open_run_data, train_split
from fetal_jax.runs import aligned, folder
from fetal_jax.runs.finished import read_finished
from fetal_jax.runs.variations import list_combinations, parse_vary
from fetal_jax.training.from_config import check_devices, count_steps
from fetal_jax.training.processes import from_first

SHORT = 0.25  # of the steps
KEPT_SHARE = 1 / 3  # of the trials, rounded up: those that are trained to the end
STAGES = ("short", "full")


def run_tune(config: ConfigDict, workdir: Path, vary: Sequence[str]) -> None:
    """Run every trial that is not finished; write what was tried and what is chosen.

    Raises:
      InputError: nothing to vary, nobody to tune on, other trials than those that were planned, or
        none that ends with a number.
    """
    if not vary:
        raise InputError("--mode=tune: expected --vary, as --vary=optim.lr=1e-3,4e-3, got none")
    trials = list_combinations(config, vary)
    for trial in trials.values():
        check_devices(trial)
    config, dataset = open_run_data(config)
    if config.crossval.tuning_share <= 0 and not config.crossval.split:
        raise InputError(
            "config.crossval.tuning_share: expected a share of the subjects to tune on, got "
            f"{config.crossval.tuning_share:g}"
        )
    assigned = assign_folds(config, dataset)
    inside = [i for i, fold in enumerate(assigned) if fold != folds.EXTERNAL]
    config = resolve_grid(config, dataset, inside)
    tuned = [case for case, f in zip(dataset.cases, assigned, strict=True) if f == folds.TUNING]
    try:
        splits = folds.split_tuning(tuned)
    except ValueError as error:
        raise InputError(f"config.crossval.tuning_share: {error}") from None
    dataset = Dataset(dataset.root, tuple(tuned), dataset.landmarks, dataset.assumptions)
    from_first(lambda: _claim_plan(workdir, list(trials)))

    def judge(name: str, stage: str) -> float:
        share = SHORT if stage == "short" else 1.0
        return _run_trial(trials[name], config, workdir / stage / name, dataset, splits, share)

    short = {name: judge(name, "short") for name in trials}
    best = sorted(short, key=short.get)[: math.ceil(KEPT_SHARE * len(short))]
    full = {name: judge(name, "full") for name in best}
    chosen = min(full, key=full.get)
    if not math.isfinite(full[chosen]):
        raise InputError(f"{workdir}: expected a trial that ends with a number, got none")
    keys = [parse_vary(config, text)[0] for text in vary]
    from_first(lambda: _write_tuning(workdir, keys, trials, short, full, chosen))
    print(format_tuning(short, full, chosen))
    print(f"{workdir / 'chosen.txt'} has its flags, {workdir / 'tuning.csv'} all trials")


def _claim_plan(workdir: Path, names: list[str]) -> None:
    """What is tried is fixed before anything is known of it."""
    path = workdir / "plan.json"
    plan = {"trials": names, "short": SHORT, "kept": math.ceil(KEPT_SHARE * len(names))}
    if path.exists() and folder.read_json(path) != plan:
        raise InputError(
            f"{path}: expected the trials that were planned, got others; give another --workdir"
        )
    workdir.mkdir(parents=True, exist_ok=True)
    folder.write_json(path, plan)


def _run_trial(
    trial: FrozenConfigDict,
    resolved: FrozenConfigDict,
    workdir: Path,
    dataset: Dataset,
    splits: dict[str, list[int]],
    share: float,
) -> float:
    """d-mean in mm of the judged cases after a share of the steps; infinite where it diverged."""
    config = ConfigDict(trial.to_dict())
    if not trial.grid.side or not trial.grid.spacing_mm:
        config.grid = ConfigDict(resolved.grid.to_dict())
    steps = count_steps(trial, len(splits["train"]))
    config.train.steps, config.train.epochs = max(1, round(share * steps)), 0
    if aligned.is_on(trial):
        config.aligned.steps = max(1, round(share * trial.aligned.steps))
    config = FrozenConfigDict(config)

    def claim() -> dict | None:
        folder.claim_folder(workdir, config)
        return read_finished(workdir, config.train.steps, aligned.count_steps(config))

    results = from_first(claim)
    if results is None:
        print(f"== {workdir}")
        prepared = prepare_cases(config, dataset, splits["test"])
        try:
            results = train_split(config, workdir, dataset, prepared, splits, report=False)
        except Diverged as error:
            print(f"note: {workdir}: {error}")
            return math.inf
    found = results["d_mean_mm"]
    print(f"{workdir}: {'not measured' if found is None else f'{found:.2f} mm'}")
    return math.inf if found is None else found


def _write_tuning(
    workdir: Path,
    keys: Sequence[str],
    trials: dict[str, FrozenConfigDict],
    short: dict[str, float],
    full: dict[str, float],
    chosen: str,
) -> None:
    values = {name: flatten_dict(trial.to_dict(), sep=".") for name, trial in trials.items()}
    rows = [
        [
            *(values[name][key] for key in keys),
            *(_format(each.get(name)) for each in (short, full)),
            "yes" if name == chosen else "",
        ]
        for name in trials
    ]
    heads = [*keys, *(f"{stage}_d_mean_mm" for stage in STAGES), "chosen"]
    write_table(workdir / "tuning.csv", heads, rows)
    flags = shlex.join(f"--config.{key}={values[chosen][key]}" for key in keys)
    write_atomically(workdir / "chosen.txt", f"{flags}\n".encode())


def format_tuning(short: dict[str, float], full: dict[str, float], chosen: str) -> str:
    """All trials, best first, as a table for a person."""
    width = max(map(len, short))
    lines = [f"{'trial':{width}}  short, mm  full, mm"]
    for name in sorted(short, key=lambda name: (full.get(name, math.inf), short[name])):
        mark = "  chosen" if name == chosen else ""
        told = _format(full.get(name))
        lines.append(f"{name:{width}}  {_format(short[name]):>9}  {told:>8}{mark}".rstrip())
    return "\n".join(lines)


def _format(value: float | None) -> str:
    return "" if value is None else "diverged" if math.isinf(value) else f"{value:.3f}"
