"""`--mode=export`: a run as one file that JAX alone can use.

Voxels and an affine in, landmarks in RAS+ mm out.
"""

import time
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from fetal_jax import frames
from fetal_jax.calibration import calibrate
from fetal_jax.data.preprocess_jax import (
    IDENTITY,
    Scaled,
    centre_box,
    centre_voxel,
    sample_box,
    scale_volume,
)
from fetal_jax.errors import InputError
from fetal_jax.examples import Examples
from fetal_jax.geometry import Grid, turn_cube
from fetal_jax.io.files import write_atomically
from fetal_jax.runs import second_look
from fetal_jax.runs.finished import OpenedModels, SecondLook, open_models
from fetal_jax.visibility_model import judge_visibility

SUFFIX = ".jax_export"
PLATFORMS = ("cpu", "cuda", "tpu")
USAGE = """\
import jax.export, nibabel, numpy as np

with open("{path}", "rb") as file:
    find = jax.export.deserialize(bytearray(file.read())).call
scan = nibabel.load("scan.nii.gz")
for label, found in find(np.float32(scan.dataobj), np.float32(scan.affine)).items():
    print(label, found["position_mm"], found["confidence"])"""


def run_export(workdir: Path, output: Path) -> None:
    """Write the network, its preprocessing and its decoder, best checkpoint included.

    With a cross-validation's folder a landmark is the mean of what its folds' models find.

    Raises:
      InputError: there is no such run, or the output is a folder.
    """
    if output.is_dir():
        raise InputError(f"--output={output}: expected a file to write, got a folder")
    if output.exists() and output.suffix != SUFFIX:
        raise InputError(
            f"--output={output}: expected a new file, or one that ends in {SUFFIX} to write anew, "
            "got a file that is there"
        )
    models = open_models(workdir)
    began = time.monotonic()
    content = export_function(build_function(models))
    write_atomically(output, content)
    together = f", the mean of {len(models.params)} models" if len(models.params) > 1 else ""
    print(
        f"{output}: {len(content) / 2**20:.1f} MB{together}, for {', '.join(PLATFORMS)}, "
        f"in {time.monotonic() - began:.0f} s. To use it:\n\n{USAGE.format(path=str(output))}"
    )


def export_function(find: Callable) -> bytes:
    """`build_function`'s function for voxels of any size, on every platform, as bytes."""
    voxels = jax.ShapeDtypeStruct(jax.export.symbolic_shape("x, y, z"), jnp.float32)
    affine = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    # no source lines: they are this machine's paths, and not the same in each export
    limit = jax.config.jax_traceback_in_locations_limit
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        exported = jax.export.export(jax.jit(find), platforms=PLATFORMS)(voxels, affine)
        return bytes(exported.serialize())
    finally:
        jax.config.update("jax_traceback_in_locations_limit", limit)


def build_function(models: OpenedModels) -> Callable:
    """find(voxels [X, Y, Z], affine [4, 4]) -> {label: {"position_mm": [3], "confidence": []}}.

    Of a run that judges what can be seen also "visible" [], the chance that it can, and
    "expected_mm" [3], where the shape of a face expects it. Positions are RAS+ mm, as the affine's;
    all is NaN where `predict` would refuse the voxels. The result is the mean of all models.
    """
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *models.params)
    asked, calibrations = models.record.preprocessing, models.calibrations
    box = centre_box(asked.side, asked.spacing_mm)
    twice = bool(models.seconds)
    turns = second_look.list_turns(models.config.aligned.poses if twice else 1).astype(np.float32)
    passes = models.config.aligned.passes if twice else 0

    def look(params, posed):
        """In mm from the middle of the scan."""
        volume, turn = posed
        found = models.detector.find(params, Examples(volumes=volume[None]))
        pose = IDENTITY._replace(rotation=turn)
        return _Said(frames.carry_points(pose, _to_mm(box, found.points_vox[0])), found.mass[0])

    def find_mm(voxels, affine):
        scaled = scale_volume(voxels, affine, asked.percentiles)
        volume = sample_box(scaled, box, IDENTITY)
        posed = jnp.stack([turn_cube(volume, turn) for turn in turns]), jnp.asarray(turns)
        # a loop, so that the network is compiled once and not for each model and pose
        each = jax.lax.map(lambda params: jax.lax.map(partial(look, params), posed), stacked)
        if models.seconds:
            looked = [
                _look_again(second, scaled, jax.tree.map(itemgetter(i), each), passes)
                for i, second in enumerate(models.seconds)
            ]
            each = jax.tree.map(lambda *parts: jnp.stack(parts), *looked)
        else:
            each = jax.tree.map(itemgetter((slice(None), 0)), each)
        mean = jax.tree.map(partial(jnp.mean, axis=0), each)
        centre_mm = jnp.sum(affine[:3, :3] * centre_voxel(voxels)[None], axis=1) + affine[:3, 3]
        said = {
            "position_mm": centre_mm[None] + mean.points,
            "confidence": calibrate(mean.mass, calibrations.confidence),
        }
        if mean.seen is not None:
            said["visible"] = calibrate(mean.seen, calibrations.visibility)
            said["expected_mm"] = centre_mm[None] + mean.completed
        said = jax.tree.map(lambda a: jnp.where(scaled.usable, a, jnp.nan), said)
        return {
            label: {name: values[i] for name, values in said.items()}
            for i, label in enumerate(models.record.labels)
        }

    return find_mm


class _Said(NamedTuple):
    """What a model says of a scan, in mm from its middle; the last two where it judges that."""

    points: jax.Array  # [L, 3]
    mass: jax.Array  # [L]
    seen: jax.Array | None = None  # [L]
    completed: jax.Array | None = None  # [L, 3]


def _to_mm(box: Grid, points_vox: jax.Array) -> jax.Array:
    """Voxels [..., 3] of a box along the axes to mm."""
    origin = jnp.asarray(box.affine[:3, 3], jnp.float32)
    return jnp.broadcast_to(origin, points_vox.shape) + box.spacing_mm * points_vox


def _look_again(second: SecondLook, scaled: Scaled, found: _Said, passes: int) -> _Said:
    """`second_look.choose_pose` and `second_look.look_again` of one scan.

    Args:
      found: by the first network in K poses, each field with K in front.
    """
    frame = second.frame
    shape = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), frame.shape)

    def fit(points, mass):
        return frames.fit_frame(shape.mean_mm, points, mass, tolerance_mm=frame.tolerance_mm)

    @jax.jit  # so that the network is in the file once
    def look(points, mass):
        placed = fit(points, mass)
        volume = sample_box(scaled, frame.box, placed.similarity)
        again = second.detector.find(second.params, Examples(volumes=volume[None]))
        at = frames.carry_points(placed.similarity, _to_mm(frame.box, again.points_vox[0]))
        model = second.visibility
        seen = None if model is None else judge_visibility(model, again.evidence[0])
        return _Said(at, again.mass[0], seen)

    def look_often(points, mass, times):
        def go_on(_, found):
            return look(found.points, found.mass)

        return jax.lax.fori_loop(1, times, go_on, look(points, mass))

    left, tried = jnp.arange(len(found.mass)), (found.points, found.mass)
    for count in second_look.KEPT_POSES if len(left) > 1 else ():
        looked = jax.lax.map(lambda each: look(*each), tried)
        likeness = jax.vmap(fit)(looked.points, looked.mass).likeness
        _, best = jax.lax.top_k(likeness, count)
        left, tried = left[best], (looked.points[best], looked.mass[best])
    first = jax.tree.map(itemgetter(left[0]), found)
    start = (tried[0][0], tried[1][0])
    later = look_often(*start, passes)
    trusted = fit(*start).agreeing >= second_look.LEAST_AGREEING
    if later.seen is None:
        return jax.tree.map(partial(jnp.where, trusted), later, first)
    completed = second_look.complete_one(
        shape, later.points, later.seen, jnp.float32(frame.tolerance_mm)
    )
    nothing = jnp.full_like(first.points, jnp.nan)
    unknown = first._replace(seen=nothing[:, 0], completed=nothing)
    return jax.tree.map(partial(jnp.where, trusted), later._replace(completed=completed), unknown)
