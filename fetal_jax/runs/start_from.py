"""`config.init`: another run's networks as the beginning of this one's.

WORKDIR/init.json says what a network began from; a run that goes on needs no more than that.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import FrozenConfigDict

from fetal_jax.data.file_digests import Digests
from fetal_jax.detectors.detector import Detector
from fetal_jax.errors import InputError
from fetal_jax.io.tables import shorten
from fetal_jax.runs import aligned, finished, folder
from fetal_jax.training.take_over import find_landmark_axes, take_over

INIT_JSON = "init.json"


class Start(NamedTuple):
    """What a network begins with.

    params: None where it goes on from a checkpoint of its own, or has nothing to take over.
    taken: names of the parameters that are another run's throughout.
    """

    params: dict | None = None
    taken: tuple[str, ...] = ()


def find_run(config: FrozenConfigDict) -> Path | None:
    """The run to start from; a config of before that was possible names none."""
    name = config.init.run if "init" in config else ""
    return Path(name).expanduser() if name else None


def check_run(
    config: FrozenConfigDict, workdir: Path, digests: Digests, tested: Iterable[str]
) -> None:
    """Refuse a run to start from that is none, or that has learned from what is to test this one.

    Args:
      workdir: of this run; once it has a checkpoint the other one is not needed.
      digests: of the files of this run's cases; tested: names of those that test.

    Raises:
      InputError: in one line.
    """
    run = find_run(config)
    if run is None or folder.has_begun(workdir):
        return
    if (run / folder.FOLDS_CSV).exists():
        raise InputError(
            f"config.init.run: expected a run, got the cross-validation {run}: name one of its "
            "folds, as fold1"
        )
    record = folder.read_data_record(run)
    learned = {*record.splits["train"], *record.splits["validation"]}
    seen = {d["volume"] for name, d in (record.digests or {}).items() if name in learned}
    if leaked := [name for name in tested if digests[name]["volume"] in seen]:
        raise InputError(
            f"config.init.run: expected a run that has not learned from this one's test cases, got "
            f"{run}, which has from {shorten(leaked)}"
        )


def begin(
    config: FrozenConfigDict,
    workdir: Path,
    build: Callable[[int], Detector],
    fresh: dict,
    labels: Sequence[str],
    *,
    second: bool,
) -> Start:
    """What a network takes over from `config.init.run`; read, printed and written down.

    Args:
      workdir: the network's own folder.
      build: number of landmarks -> this network's detector.
      fresh: its parameters, as they are without.
      labels: its landmarks.
      second: whether it is a run's second network.

    Raises:
      InputError: the run is not finished, or its network is another one.
    """
    run = find_run(config)
    if run is None:
        return Start()
    path = workdir / INIT_JSON
    if folder.has_begun(workdir) and path.exists():
        return Start(taken=tuple(folder.read_json(path)["taken"]))
    of_run, record = finished.open_config(run), folder.read_data_record(run)
    if second and not aligned.is_on(of_run):
        print(f"  {run} looks once: the second network starts anew")
        return Start()
    before, step = _restore(of_run, run, record, second)
    axes = find_landmark_axes(
        lambda n: jax.eval_shape(build(n).init, jax.random.key(0)), len(labels)
    )
    index = [record.labels.index(label) if label in record.labels else None for label in labels]
    try:
        params, taken = take_over(fresh, before, axes, index)
    except ValueError as error:
        key = "aligned.widths" if second else "model"
        raise InputError(
            f"config.{key}: expected the network of {run}, to start from it, got another: {error}"
        ) from None
    anew = [label for label, i in zip(labels, index, strict=True) if i is None]
    said = f"{len(anew)} of {len(labels)} landmarks anew: {shorten(anew)}" if anew else "all of it"
    print(f"  starts from {run}, step {step}; {said}")
    content = {"run": str(run), "step": step, "taken": taken, "landmarks_anew": anew}
    folder.write_json(path, content)
    return Start(params, tuple(taken))


def describe(workdir: Path) -> dict:
    """What results.json says of it: {"started_from": {"run", "step"}}, or nothing."""
    path = workdir / INIT_JSON
    if not path.exists():
        return {}
    content = folder.read_json(path)
    return {"started_from": {key: content[key] for key in ("run", "step")}}


def _restore(config, run: Path, record: folder.DataRecord, second: bool) -> tuple[dict, int]:
    """Parameters of one of a run's best checkpoints, and its step."""
    if second:
        found = finished.open_second(config, run, record)
        return found.params, finished.restore_best(run / aligned.FOLDER, found.detector).best_step
    detector = finished.build_detector(config, len(record.labels))
    best = finished.restore_best(run, detector)
    return best.params, best.best_step
