"""NRRD and MetaImage through SimpleITK, which is an optional install.

ITK works in LPS and returns arrays as (z, y, x); both are converted here, once. Where a file does
not state its orientation or unit, ITK assumes identity and mm without a warning, so the text header
is read first.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fetal_jax.errors import InputError
from fetal_jax.geometry import LPS_TO_RAS

HEADER_BYTES = 65536
# What states the orientation in each format, in lower case.
NRRD_SPACES = ("right-anterior-superior", "left-anterior-superior", "left-posterior-superior")
NRRD_SPACES += ("ras", "las", "lps")
META_MATRICES = ("transformmatrix", "rotation", "orientation")


def open_image(
    path: Path, trust_missing_affine: bool
) -> tuple[tuple[int, ...], np.ndarray, Callable[[], np.ndarray]]:
    """Open a volume without reading its voxels.

    Args:
      path: a .nrrd, .nhdr, .mha or .mhd file.
      trust_missing_affine: take identity where the file states no orientation.

    Returns:
      The shape, the affine [4, 4] from index to RAS+ mm, and a function that reads the voxels
      [I, J, K].

    Raises:
      InputError: SimpleITK is missing, or the file is not a scalar volume that it can read.
    """
    try:
        import SimpleITK as sitk
    except ImportError:
        raise InputError(
            f"{path}: expected SimpleITK for {path.suffix} files, got none; pip install SimpleITK"
        ) from None
    _check_text_header(path, trust_missing_affine)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path, error) from None
    components = reader.GetNumberOfComponents()
    pixel = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    if components != 1 or "complex" in pixel:
        came = f"{components} of type {pixel}"
        raise InputError(f"{path}: expected one real number a voxel, got {came}")
    shape = reader.GetSize()
    affine = np.eye(4)
    if len(shape) >= 3:  # fewer axes are refused by the caller, which checks the shape
        direction = np.reshape(reader.GetDirection(), (len(shape), len(shape)))[:3, :3]
        affine[:3, :3] = LPS_TO_RAS[:, None] * direction * np.array(reader.GetSpacing()[:3])
        affine[:3, 3] = LPS_TO_RAS * reader.GetOrigin()[:3]

    def load() -> np.ndarray:
        try:
            return sitk.GetArrayFromImage(reader.Execute()).T
        except RuntimeError as error:
            raise _unreadable(path, error) from None

    return shape, affine, load


def _check_text_header(path: Path, trust_missing_affine: bool) -> None:
    nrrd = path.suffix.lower() in (".nrrd", ".nhdr")
    fields = _read_text_header(path, ":" if nrrd else "=")
    if nrrd:
        stated = fields.get("space") in NRRD_SPACES and "space directions" in fields
        expected, came = "a space of LPS, LAS or RAS with space directions", fields.get("space")
        units = fields.get("space units", "").replace('"', "").split()
        if any(unit not in ("mm", "millimeter", "millimeters") for unit in units):
            came = fields["space units"]
            raise InputError(f"{path}: expected space units mm, got {came}")
    else:
        stated = any(key in fields for key in META_MATRICES)
        expected, came = "a TransformMatrix", None
    if not stated and not trust_missing_affine:
        raise InputError(
            f"{path}: expected {expected} that says how the volume lies in the body, "
            f"got {came or 'none'}"
        )


def _read_text_header(path: Path, separator: str) -> dict[str, str]:
    """The `key: value` or `key = value` lines before the voxels; keys and values in lower case."""
    with path.open("rb") as file:
        text = file.read(HEADER_BYTES).decode("latin-1")
    fields = {}
    for line in text.splitlines():
        if not line.strip():  # NRRD's voxels follow an empty line
            break
        key, found, value = line.partition(separator)
        if found:
            fields[key.strip().lower()] = value.strip().lower()
        if key.strip() == "ElementDataFile":  # MetaImage's last line
            break
    return fields


def _unreadable(path: Path, error: RuntimeError) -> InputError:
    # ITK's first line names its own source file; the reason comes last.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    came = " ".join(lines[1:])[-160:] or "no reason given"
    return InputError(f"{path}: expected a whole image, got one that cannot be read ({came})")
