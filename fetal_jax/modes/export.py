"""A run as one file that JAX alone can use: voxels and an affine in, landmarks in RAS+ mm out.

What `preprocess` does with numpy and scipy stands here again in jax.numpy, for volumes whose size
is known only when the file is used.
"""

import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from fetal_jax.data.preprocess import Preprocessing
from fetal_jax.detectors import from_config as network
from fetal_jax.errors import InputError
from fetal_jax.io.files import write_atomically
from fetal_jax.modes import predict

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
    config, record, model, models = predict.open_models(workdir)
    began = time.monotonic()
    find = build_function(
        network.bind_finder(config, model), models, record.labels, record.preprocessing
    )
    content = export_function(find)
    write_atomically(output, content)
    together = f", the mean of {len(models)} models" if len(models) > 1 else ""
    print(
        f"{output}: {len(content) / 2**20:.1f} MB{together}, for {', '.join(PLATFORMS)}, "
        f"in {time.monotonic() - began:.0f} s. To use it:\n\n{USAGE.format(path=str(output))}"
    )


def export_function(find: Callable) -> bytes:
    """`build_function`'s function for voxels of any size, on every platform, as bytes."""
    voxels = jax.ShapeDtypeStruct(jax.export.symbolic_shape("x, y, z"), jnp.float32)
    affine = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    exported = jax.export.export(jax.jit(find), platforms=PLATFORMS)(voxels, affine)
    return bytes(exported.serialize())


def build_function(
    find: Callable, models: list, labels: list[str], preprocessing: Preprocessing
) -> Callable:
    """find(voxels [X, Y, Z], affine [4, 4]) -> {label: {"position_mm": [3], "confidence": []}}.

    Positions are RAS+ mm, as the affine's; all is NaN where `predict` would refuse the voxels.

    Args:
      find: of `network.bind_finder`.
      models: `inference.Trained` of each model; the result is their mean.
      labels: of the L landmarks.
      preprocessing: as the models were trained with.
    """
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *models)

    def find_mm(voxels, affine):
        grid = prepare_volume(voxels, affine, preprocessing)
        # a loop, so that the network is compiled once and not for each model
        found = jax.lax.map(lambda one: find(one, {"volumes": grid[None]}), stacked)
        points_vox = jnp.mean(found.points_vox[:, 0], axis=0)
        confidence = jnp.mean(found.confidence[:, 0], axis=0)
        centre_mm = jnp.sum(affine[:3, :3] * _centre(voxels)[None], axis=1) + affine[:3, 3]
        from_centre_vox = points_vox - (preprocessing.side - 1) / 2
        points_mm = centre_mm[None] + preprocessing.spacing_mm * from_centre_vox
        usable = jnp.isfinite(grid).all()
        points_mm, confidence = (jnp.where(usable, a, jnp.nan) for a in (points_mm, confidence))
        return {
            label: {"position_mm": points_mm[i], "confidence": confidence[i]}
            for i, label in enumerate(labels)
        }

    return find_mm


def prepare_volume(voxels: jax.Array, affine: jax.Array, preprocessing: Preprocessing) -> jax.Array:
    """`preprocess.prepare_volume`'s grid [D, H, W] of voxels [X, Y, Z] and their affine [4, 4].

    NaN throughout where the voxels have no contrast or are not finite, or the affine is singular.
    """
    low, high = (compute_percentile(voxels, p) for p in preprocessing.percentiles)
    scaled = jnp.clip((voxels - low) / (high - low), 0.0, 1.0)
    axes = affine[:3, :3]
    sizes_mm = jnp.sqrt(jnp.sum(axes * axes, axis=0))
    ratio = preprocessing.spacing_mm / sizes_mm
    sigmas = jnp.sqrt(jnp.maximum(ratio**2 - 1, 0)) / (2 * np.sqrt(2 * np.log(2)))
    for size, sigma in zip(voxels.shape, sigmas, strict=True):
        matrix = smoothing_matrix(size, sigma)
        # the axis goes last, so that after three all are where they were
        scaled = jnp.tensordot(scaled, matrix, axes=(0, 1), precision="highest")
    # cofactors, and from the centre: no cancellation however far the origin is
    a, b, c = axes.T
    volume = jnp.sum(a * jnp.cross(b, c))
    to_file = jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)]) / volume
    side = preprocessing.side
    offset = preprocessing.spacing_mm * (jnp.arange(side) - (side - 1) / 2)
    right, anterior, superior = jnp.meshgrid(offset, offset, offset, indexing="ij")
    places = [
        centre + row[0] * right + row[1] * anterior + row[2] * superior
        for centre, row in zip(_centre(voxels), to_file, strict=True)
    ]
    grid = map_coordinates(scaled, places, order=1, mode="constant", cval=0.0)
    grid = jax.lax.reduce_precision(grid, exponent_bits=5, mantissa_bits=10)  # float16, as trained
    usable = jnp.isfinite(voxels).all() & (high > low)
    usable &= jnp.isfinite(affine).all() & (jnp.abs(volume) > 1e-6 * jnp.prod(sizes_mm))
    return jnp.where(usable, grid, jnp.nan)


def _centre(voxels):
    """[3], the centre of a volume in its own voxels."""
    return (jnp.array(voxels.shape, jnp.float32) - 1) / 2


def compute_percentile(values: jax.Array, percent: float) -> jax.Array:
    """`np.percentile`, linear between neighbours, with no sort: XLA's is slow on a CPU."""
    share = Fraction(percent / 100).limit_denominator(10_000)
    last = jnp.array(values.size, jnp.int32) - 1
    # in whole numbers: float32 has no digits for a part of the place among millions
    rest = last % share.denominator * share.numerator
    place = last // share.denominator * share.numerator + rest // share.denominator
    weight = (rest % share.denominator) / share.denominator
    low = select_value(values, place)
    above = jnp.min(jnp.where(values > low, values, jnp.inf))
    high = jnp.where(jnp.sum(values <= low) > place + 1, low, above)
    return jnp.where(weight > 0, low + weight * (high - low), low)


def select_value(values: jax.Array, place: jax.Array) -> jax.Array:
    """The value at `place` of the sorted values, by bisection of its 32 bits."""

    def flip(bits):  # floats' bits are in order as integers once the negative ones are reversed
        return jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)

    keys = flip(jax.lax.bitcast_convert_type(values, jnp.int32))

    def halve(_, bounds):
        low, high = bounds
        middle = (low & high) + ((low ^ high) >> 1)  # (low + high) // 2 would overflow
        enough = jnp.sum(keys <= middle) > place
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    limits = np.iinfo(np.int32)
    key, _ = jax.lax.fori_loop(0, 32, halve, (jnp.int32(limits.min), jnp.int32(limits.max)))
    return jax.lax.bitcast_convert_type(flip(key), jnp.float32)


def smoothing_matrix(size: int, sigma: jax.Array) -> jax.Array:
    """`ndimage.gaussian_filter1d` with its defaults as a matrix [N, N]; the identity for σ = 0.

    A matrix needs no bound on σ, and its product is what every platform is fast at.
    """
    places = jnp.arange(size)
    radius = (4 * sigma + 0.5).astype(jnp.int32)
    width = jnp.maximum(sigma, 1e-6)

    def add_tap(tap, matrix):
        source = (places + tap) % (2 * size)  # mirrored at its ends, the line has period 2 N
        source = jnp.minimum(source, 2 * size - 1 - source)
        hit = source[:, None] == places[None, :]
        return matrix + jnp.exp(-0.5 * jnp.square(tap / width)) * hit

    matrix = jax.lax.fori_loop(-radius, radius + 1, add_tap, jnp.zeros((size, size)))
    return matrix / jnp.sum(matrix, axis=1, keepdims=True)
