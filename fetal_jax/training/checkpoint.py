"""Checkpoints: the latest, to go on from, and the best on validation, to use."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from fetal_jax.errors import InputError

# The validation error where there are no validation cases: later is then better.
METRIC = "d_mean_mm"


def open_checkpoints(folder: Path | str) -> ocp.CheckpointManager:
    """The manager of a run's checkpoints, for the first process alone; close it when done.

    Saves are synchronous: the state's buffers are donated to the next step.
    """

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
    return ocp.CheckpointManager(Path(folder).absolute(), item_handlers=handler, options=options)


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
    """Save a state with its validation error."""
    manager.save(step, args=ocp.args.StandardSave(state), metrics={METRIC: float(d_mean_mm)})
    manager.wait_until_finished()


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
    _check_shapes(manager, step, like, manager.item_metadata(step))
    return manager.restore(step, args=ocp.args.StandardRestore(like))


def restore_params(manager: ocp.CheckpointManager, step: int, like: dict) -> dict:
    """The parameters alone of a step, in the tree of `like` (shapes), on the first device.

    Raises:
      InputError: the checkpoint holds the parameters of another network.
    """
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
