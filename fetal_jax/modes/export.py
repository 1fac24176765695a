"""`--mode=export`: a run as one file that JAX alone can use.

Voxels and an affine in, landmarks in RAS+ mm out.
"""

import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from fetal_jax.calibration import Calibration, calibrate
from fetal_jax.data.preprocess import Preprocessing
from fetal_jax.data.preprocess_jax import centre_voxel, prepare_volume
from fetal_jax.detectors.detector import Found
from fetal_jax.errors import InputError
from fetal_jax.examples import Examples
from fetal_jax.io.files import write_atomically
from fetal_jax.runs.finished import open_models

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
    models = open_models(workdir)
    began = time.monotonic()
    find = build_function(
        models.detector.find,
        models.params,
        models.calibration,
        models.record.labels,
        models.record.preprocessing,
    )
    content = export_function(find)
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
    exported = jax.export.export(jax.jit(find), platforms=PLATFORMS)(voxels, affine)
    return bytes(exported.serialize())


def build_function(
    find: Callable[[dict, Examples], Found],
    params: list[dict],
    calibration: Calibration,
    labels: list[str],
    preprocessing: Preprocessing,
) -> Callable:
    """find(voxels [X, Y, Z], affine [4, 4]) -> {label: {"position_mm": [3], "confidence": []}}.

    Positions are RAS+ mm, as the affine's; all is NaN where `predict` would refuse the voxels.

    Args:
      find: of a detector.
      params: each model's; the result is their mean.
      calibration: of the mean of their masses.
      labels: of the L landmarks.
      preprocessing: as the models were trained with.
    """
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *params)

    def find_mm(voxels, affine):
        volume = prepare_volume(voxels, affine, preprocessing)
        # a loop, so that the network is compiled once and not for each model
        found = jax.lax.map(lambda one: find(one, Examples(volumes=volume[None])), stacked)
        points_vox = jnp.mean(found.points_vox[:, 0], axis=0)
        confidence = calibrate(jnp.mean(found.mass[:, 0], axis=0), calibration)
        centre_mm = jnp.sum(affine[:3, :3] * centre_voxel(voxels)[None], axis=1) + affine[:3, 3]
        from_centre_vox = points_vox - (preprocessing.side - 1) / 2
        points_mm = centre_mm[None] + preprocessing.spacing_mm * from_centre_vox
        usable = jnp.isfinite(volume).all()
        points_mm, confidence = (jnp.where(usable, a, jnp.nan) for a in (points_mm, confidence))
        return {
            label: {"position_mm": points_mm[i], "confidence": confidence[i]}
            for i, label in enumerate(labels)
        }

    return find_mm
