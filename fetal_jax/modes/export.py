"""`--mode=export`: a run as one file that JAX alone can use, or a runtime of ONNX.

Voxels and an affine in, landmarks in RAS+ mm out.
"""

import json
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
from fetal_jax.conformal import find_radius
from fetal_jax.data.preprocess_jax import (
    IDENTITY,
    Scaled,
    centre_box,
    centre_voxel,
    sample_box,
    scale_volume,
    sort_value,
)
from fetal_jax.errors import InputError
from fetal_jax.examples import Examples
from fetal_jax.geometry import Grid, turn_cube
from fetal_jax.io.files import write_atomically
from fetal_jax.modes.report import write_run_card
from fetal_jax.runs import second_look
from fetal_jax.runs.finished import OpenedModels, SecondLook, open_models
from fetal_jax.visibility_model import judge_visibility

PLATFORMS = ("cpu", "cuda", "tpu")
PRODUCER = "fetal_jax"
USAGE = """\
import jax.export, nibabel, numpy as np

with open("{path}", "rb") as file:
    find = jax.export.deserialize(bytearray(file.read())).call
scan = nibabel.load("scan.nii.gz")
for label, found in find(np.float32(scan.dataobj), np.float32(scan.affine)).items():
    print(label, found["position_mm"], found["confidence"])"""
ONNX_USAGE = """\
import json, nibabel, numpy as np, onnxruntime

session = onnxruntime.InferenceSession("{path}")
labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
scan = nibabel.load("scan.nii.gz")
given = {{"voxels": np.float32(scan.dataobj), "affine": np.float32(scan.affine)}}
positions_mm, confidences = session.run(["position_mm", "confidence"], given)
for label, position_mm, confidence in zip(labels, positions_mm, confidences):
    print(label, position_mm, confidence)"""
LEFT_OUT = (
    "reading a scan's file, whether its orientation can be trusted, and which landmarks predict "
    "writes as undefined"
)


def run_export(workdir: Path, output: Path, file_format: str = "jax_export") -> None:
    """Write the network, its preprocessing and its decoder, best checkpoint included; and its card.

    With a cross-validation's folder a landmark is the mean of what its folds' models find.

    Args:
      file_format: a key of WRITERS.

    Raises:
      InputError: there is no such run, the output is a folder or not this program's to replace, or
        a package is missing.
    """
    writer, suffix = WRITERS[file_format], f".{file_format}"
    if output.is_dir():
        raise InputError(f"--output={output}: expected a file to write, got a folder")
    if output.exists() and output.suffix != suffix:
        raise InputError(
            f"--output={output}: expected a new file, or one that ends in {suffix} to write anew, "
            "got a file that is there"
        )
    writer.check(output)
    models = open_models(workdir)
    began = time.monotonic()
    try:
        content = writer.make(models)
    except NotImplementedError as error:  # a network of one's own may do what ONNX does not
        raise InputError(f"{output}: expected a run that {suffix} can hold, got: {error}") from None
    write_atomically(output, content)
    write_run_card(workdir, output.with_name(f"{output.name.removesuffix(suffix)}.card.md"))
    together = f", the mean of {len(models.params)} models" if len(models.params) > 1 else ""
    print(
        f"{output}: {len(content) / 2**20:.1f} MB{together}, for {writer.runs_on}, "
        f"in {time.monotonic() - began:.0f} s.\nLeft out: {LEFT_OUT}. To use it:\n\n"
        f"{writer.usage.format(path=str(output))}"
    )


class Writer(NamedTuple):
    """A kind of file.

    check: raises InputError where a file cannot be written there.
    make: the file of opened models.
    """

    check: Callable[[Path], None]
    make: Callable[[OpenedModels], bytes]
    runs_on: str
    usage: str


def _check_onnx(output: Path) -> None:
    """The package is there, and so is no other program's model."""
    try:
        import onnx
    except ImportError:
        raise InputError(
            '--format=onnx: expected the package onnx, got none: pip install "onnx>=1.20,<2"'
        ) from None
    if not output.exists():
        return
    try:
        producer = onnx.load_model(output, load_external_data=False).producer_name
    except Exception:  # whatever protobuf says of a file that is none
        producer = ""
    if producer != PRODUCER:
        raise InputError(
            f"--output={output}: expected a new file, or one that this program wrote, got another"
        )


def export_onnx(models: OpenedModels) -> bytes:
    """`build_finder`'s function for voxels of any size as an ONNX file."""
    from fetal_jax.to_onnx.convert import convert

    sizes = jax.export.symbolic_shape("x, y, z")
    return convert(
        build_finder(models, select=sort_value),
        {
            "voxels": jax.ShapeDtypeStruct(sizes, jnp.float32),
            "affine": jax.ShapeDtypeStruct((4, 4), jnp.float32),
        },
        title="find_landmarks",
        producer=PRODUCER,
        about={
            "labels": json.dumps(list(models.record.labels), ensure_ascii=False),
            "inputs": "voxels [x, y, z] as the file has them; affine [4, 4], voxels to RAS+ mm",
            "outputs": "a row a label: position_mm, RAS+; confidence; of some runs radius_mm, "
            "which holds the truth as often as the run's card says; visible, the chance that it "
            "can be seen, and expected_mm, where the shape of a face expects it",
            "left_out": LEFT_OUT,
        },
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

    All that `build_finder`'s function says, landmark by landmark.
    """
    find = build_finder(models)

    def find_each(voxels, affine):
        said = find(voxels, affine)
        return {
            label: {name: values[i] for name, values in said.items()}
            for i, label in enumerate(models.record.labels)
        }

    return find_each


def build_finder(models: OpenedModels, *, select: Callable | None = None) -> Callable:
    """find(voxels [X, Y, Z], affine [4, 4]) -> {"position_mm": [L, 3], "confidence": [L]}.

    Of a run that has radii also "radius_mm" [L], infinite where too few subjects could tell. Of a
    run that judges what can be seen also "visible" [L], the chance that it can, and "expected_mm"
    [L, 3], where the shape of a face expects it. Positions are RAS+ mm, as the
    affine's; all is NaN where `predict` would refuse the voxels. The result is the mean of all
    models.

    Args:
      select: of `scale_volume`.
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
        scaled = scale_volume(voxels, affine, asked.percentiles, select=select)
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
        if calibrations.region is not None:
            said["radius_mm"] = find_radius(mean.mass, calibrations.region)
        if mean.seen is not None:
            said["visible"] = calibrate(mean.seen, calibrations.visibility)
            said["expected_mm"] = centre_mm[None] + mean.completed
        return jax.tree.map(lambda a: jnp.where(scaled.usable, a, jnp.nan), said)

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


WRITERS = {
    "jax_export": Writer(
        lambda output: None,
        lambda models: export_function(build_function(models)),
        ", ".join(PLATFORMS),
        USAGE,
    ),
    "onnx": Writer(_check_onnx, export_onnx, "any runtime of ONNX", ONNX_USAGE),
}
