"""Checkpoints: the latest, to go on from, and the best on validation, to use."""

import atexit
import hashlib
import json
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from fetal_jax.errors import InputError
from fetal_jax.io.files import write_atomically

# The validation error where there are no validation cases: later is then better.
METRIC = "d_mean_mm"
DIGESTS = "sha256.json"  # in a step's folder


def open_checkpoints(folder: Path | str) -> ocp.CheckpointManager:
    """The manager of a run's checkpoints, for the first process alone; close it when done.

    Saves are synchronous: the state's buffers are donated to the next step.

    Raises:
      InputError: a checkpoint that is not as it was saved, or that cannot be read.
    """
    for step in Path(folder).glob("[0-9]*"):
        _check_digests(step)

    def rank(metrics):
        return metrics[METRIC]

    # not max_to_keep with best_fn, which would delete the latest
    keep = AnyPreservationPolicy([LatestN(1), BestN(n=1, get_metric_fn=rank, reverse=True)])
    options = ocp.CheckpointManagerOptions(
        best_fn=rank,
        best_mode="min",
        preservation_policy=keep,
        enable_async_checkpointing=False,
        **_of_one_process(),
    )
    handler = ocp.StandardCheckpointHandler()  # named here, so that it can describe what is saved
    with _one_line(folder):
        return ocp.CheckpointManager(_name_plainly(folder), item_handlers=handler, options=options)


@contextmanager
def _one_line(folder: Path | str):
    """What orbax says of damaged files, which takes pages, as a line that names them."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        came = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(f"{folder}: expected a checkpoint that can be read, got {came}") from error


def _name_plainly(folder: Path | str) -> Path:
    """The folder, by a link of a plain name where its own is more than a name to those who read it.

    Orbax takes brackets for a pattern and `gs:` for a cloud, tensorstore a backslash for a slash.
    """
    folder = Path(folder).absolute()
    if not set(str(folder)) & set("[]\\*?:"):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    links = tempfile.mkdtemp(prefix="fetal_jax-")
    atexit.register(shutil.rmtree, links, ignore_errors=True)
    link = Path(links) / "checkpoints"
    link.symlink_to(folder, target_is_directory=True)
    return link


def _of_one_process() -> dict:
    """Orbax would wait for the other processes; the folder need not be on their disks."""
    if jax.process_count() == 1:
        return {}
    alone = ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix="first"
    )
    return {"multiprocessing_options": alone, "create": False}


def save_checkpoint(
    manager: ocp.CheckpointManager, step: int, state: Any, d_mean_mm: float
) -> None:
    """Save a state with its validation error, and beside it the digest of each file."""
    manager.save(step, args=ocp.args.StandardSave(state), metrics={METRIC: float(d_mean_mm)})
    manager.wait_until_finished()
    folder = Path(manager.directory) / str(step)
    digests = {str(path.relative_to(folder)): _digest(path) for path in _list_files(folder)}
    write_atomically(folder / DIGESTS, json.dumps(digests, indent=1).encode())


def _list_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != DIGESTS)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_digests(step: Path) -> None:
    """Raise InputError for a step whose files are not those that were saved.

    Of one without digests, as an older version left it, nothing is known.
    """
    path = step / DIGESTS
    if not path.exists():
        return
    try:
        digests = json.loads(path.read_bytes())
        known = dict(digests)
    except ValueError as error:
        raise InputError(f"{path}: expected digests of a checkpoint, got {error}") from None
    found = {str(file.relative_to(step)): file for file in _list_files(step)}
    for name in sorted(known.keys() | found.keys()):
        if name not in found or _digest(found[name]) != known.get(name):
            came = f"other bytes than {DIGESTS} says" if name in found else "no such file"
            raise InputError(
                f"{step / name}: expected the checkpoint as it was saved, got {came}: without "
                f"{step}, training goes on from an earlier one or anew"
            )


def restore_checkpoint(manager: ocp.CheckpointManager, step: int, like: Any) -> Any:
    """The state of a step, in the tree of `like` (arrays, or shapes: then on the first device).

    Raises:
      InputError: the checkpoint holds arrays of other names or shapes, as of another network.
    """
    # without a place orbax asks for the devices that saved it, which a laptop may not have
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or here), like
    )
    with _one_line(Path(manager.directory) / str(step)):
        _check_shapes(manager, step, like, manager.item_metadata(step))
        return manager.restore(step, args=ocp.args.StandardRestore(like))


def restore_params(manager: ocp.CheckpointManager, step: int, like: dict) -> dict:
    """The parameters alone of a step, in the tree of `like` (shapes), on the first device.

    Raises:
      InputError: the checkpoint holds the parameters of another network.
    """
    with _one_line(Path(manager.directory) / str(step)):
        return _restore_params(manager, step, like)


def _restore_params(manager: ocp.CheckpointManager, step: int, like: dict) -> dict:
    state = manager.item_metadata(step)
    _check_shapes(manager, step, {"params": like}, {"params": state["params"]})
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    place = ocp.ArrayRestoreArgs(sharding=here)
    item = {"params": like}
    alone = _of_one_process().get("multiprocessing_options")
    options = {"multiprocessing_options": alone} if alone else {}
    checkpointer = ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options), **options)
    restored = checkpointer.restore(
        Path(manager.directory) / str(step) / "default",
        args=ocp.args.PyTreeRestore(
            item=item, restore_args=jax.tree.map(lambda _: place, item), partial_restore=True
        ),
    )
    return restored["params"]


def _check_shapes(manager, step, expected, found) -> None:
    expected, found = _name_shapes(expected), _name_shapes(found)
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise InputError(
                f"{manager.directory}/{step}: expected the network of this config, with "
                f"{name} of shape {expected.get(name)}, got {found.get(name)}"
            )


def _name_shapes(tree) -> dict[str, tuple[int, ...]]:
    named, _ = jax.tree_util.tree_flatten_with_path(tree)
    # dicts on disk, tuples in memory: compare the bare names
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(
            getattr(leaf, "shape", np.shape(leaf))
        )
        for path, leaf in named
    }
