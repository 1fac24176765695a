"""`--mode=sweep`: a run for each combination of values, one after another, then one table."""

import ast
import itertools
from pathlib import Path

from ml_collections import ConfigDict

from fetal_jax.errors import InputError
from fetal_jax.modes.compare import run_compare
from fetal_jax.modes.crossval import run_crossval
from fetal_jax.modes.train import run_train
from fetal_jax.runs.config_table import check_config
from fetal_jax.training.from_config import check_devices
from fetal_jax.training.processes import from_first

EACH = {"train": run_train, "crossval": run_crossval}


def parse_vary(config: ConfigDict, text: str) -> tuple[str, list]:
    """'loss.omega=0.5,2' to ('loss.omega', [0.5, 2.0]), of the type that the config has there.

    Raises:
      InputError: no such key, no values, or values of another type.
    """
    key, _, values = text.partition("=")
    key = key.removeprefix("config.")
    try:
        before = _look_up(config, key)
    except (KeyError, TypeError):
        raise InputError(f"--vary={text}: expected a key of the config, got {key!r}") from None
    if isinstance(before, str):
        return key, [value.strip() for value in values.split(",")]
    try:
        found = list(ast.literal_eval(f"[{values}]"))
    except (SyntaxError, ValueError):
        found = []
    if isinstance(before, float):
        found = [float(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in found]
    if not found or any(type(value) is not type(before) for value in found):
        kind = type(before).__name__
        raise InputError(
            f"--vary={text}: expected values of type {kind}, comma-separated, got {values!r}"
        )
    return key, found


def run_sweep(config: ConfigDict, workdir: Path, vary: list[str], each: str) -> None:
    """Run every combination that is not finished, in WORKDIR/KEY=VALUE,...; compare them all.

    All combinations are checked before the first one runs.
    """
    if not vary:
        raise InputError("--mode=sweep: expected --vary, as --vary=loss.lambda2=0.1,0.2, got none")
    axes = [parse_vary(config, text) for text in vary]
    keys = [key for key, _ in axes]
    if len(set(keys)) < len(keys):
        raise InputError(f"--vary: expected each key once, got {', '.join(keys)}")
    chosen = {}
    for values in itertools.product(*(values for _, values in axes)):
        changes = dict(zip(keys, values, strict=True))
        changed = ConfigDict(config.to_dict())
        changed.update_from_flattened_dict(changes)
        name = ",".join(f"{k}={_name(v)}" for k, v in changes.items())
        if workdir / name in chosen:
            raise InputError(f"--vary: expected values that differ, got {name} twice")
        chosen[workdir / name] = check_config(changed)
        check_devices(changed)
    for folder, changed in chosen.items():
        print(f"== {folder}")
        EACH[each](changed, folder)
    print(f"== all {len(chosen)} runs")
    from_first(lambda: run_compare([str(folder) for folder in chosen], workdir / "comparison"))


def _look_up(config, key):
    for part in key.split("."):
        config = config[part]
    return config


def _name(value) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace("/", "_").replace(" ", "")
