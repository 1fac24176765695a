"""NRRD and MetaImage through SimpleITK, which is an optional install.

ITK works in LPS and returns arrays as (z, y, x); both are converted here, once. Where a file does
not state its orientation, spacing, origin or unit, ITK assumes them without a warning, so the text
header is read first. Nor does it look at the checksum of compressed voxels.
"""

import gzip
import zlib
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
META_ORIGINS = ("offset", "position", "origin")
META_SPACINGS = ("elementspacing", "elementsize")
NRRD_KINDS = ("domain", "space", "none", "???")  # of an axis that lies in the body


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
    fields, header_bytes = _read_text_header(path)
    _check_text_header(path, fields, trust_missing_affine)
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
        _check_stream(path, fields, header_bytes)
        try:
            return sitk.GetArrayFromImage(reader.Execute()).T
        except RuntimeError as error:
            raise _unreadable(path, error) from None

    return shape, affine, load


def _is_nrrd(path: Path) -> bool:
    return path.suffix.lower() in (".nrrd", ".nhdr")


def _check_text_header(path: Path, fields: dict[str, str], trust_missing_affine: bool) -> None:
    check = _check_nrrd if _is_nrrd(path) else _check_meta
    missing = check(path, {key: value.lower() for key, value in fields.items()})
    if missing and not trust_missing_affine:
        raise InputError(f"{path}: expected {missing}")


def _check_nrrd(path: Path, fields: dict[str, str]) -> str:
    """What the file leaves open of how it lies in the body, in words; '' if nothing.

    The fields are those of teem.sourceforge.net/nrrd/format.html.
    """
    units = fields.get("space units", "").replace('"', "").split()
    if any(unit not in ("mm", "millimeter", "millimeters") for unit in units):
        raise InputError(f"{path}: expected space units mm, got {fields['space units']}")
    kinds = fields.get("kinds", "").split()
    if others := [kind for kind in kinds if kind not in NRRD_KINDS]:
        raise InputError(f"{path}: expected axes in the body, got kinds {', '.join(others)}")
    space = fields.get("space")
    if space not in NRRD_SPACES or "space directions" not in fields:
        wanted = "a space of LPS, LAS or RAS with space directions"
        return f"{wanted} that says how the volume lies in the body, got {space or 'none'}"
    for key in ("space directions", "space origin"):
        if "nan" in fields.get(key, "") or "none" in fields.get(key, ""):
            return f"numbers as {key}, got {fields[key]}"
    return "" if "space origin" in fields else "a space origin, got none"


def _check_meta(path: Path, fields: dict[str, str]) -> str:
    """As `_check_nrrd`; itk.org/Wiki/MetaIO/Documentation has the fields."""
    units = fields.get("distanceunits", "mm")
    if units not in ("mm", "?"):
        raise InputError(f"{path}: expected DistanceUnits mm, got {units}")
    # a tracked recording of 2D images, as the PLUS toolkit saves it: each has a pose of its own
    if frames := [key for key in fields if key.startswith("seq_frame")]:
        raise InputError(f"{path}: expected one volume, got a recording of frames ({frames[0]})")
    if not any(key in fields for key in META_MATRICES):
        return "a TransformMatrix that says how the volume lies in the body, got none"
    if not any(key in fields for key in META_SPACINGS):
        return "an ElementSpacing, got none"
    return "" if any(key in fields for key in META_ORIGINS) else "an Offset, got none"


def _read_text_header(path: Path) -> tuple[dict[str, str], int]:
    """The `key: value` or `key = value` lines before the voxels, and how many bytes they take.

    Keys are in lower case.
    """
    nrrd = _is_nrrd(path)
    with path.open("rb") as file:
        text = file.read(HEADER_BYTES)
    fields, start = {}, 0
    while start < len(text):
        end = text.find(b"\n", start)
        end = len(text) if end < 0 else end
        line, start = text[start:end].decode("latin-1").rstrip("\r"), end + 1
        if not line.strip():  # NRRD's voxels follow an empty line
            break
        key, found, value = line.partition(":" if nrrd else "=")
        if found:
            # `key:=value` is a note of whoever wrote the NRRD
            fields[key.strip().lower()] = value.strip()
        if key.strip() == "ElementDataFile":  # MetaImage's last line
            break
    return fields, start


def _check_stream(path: Path, fields: dict[str, str], header_bytes: int) -> None:
    """Unpack compressed voxels to their end, where the checksum is; ITK does not.

    Raises:
      InputError: they are damaged.
    """
    if _is_nrrd(path):
        packed = fields.get("encoding", "").lower() in ("gz", "gzip")
    else:
        packed = fields.get("compresseddata", "").lower() == "true"
    where = _name_voxel_file(path, fields)
    source = path.parent / where if where else path
    if not packed or not source.is_file():  # several files, or none: ITK says so
        return
    try:
        with source.open("rb") as file:
            file.seek(0 if where else header_bytes)
            if _is_nrrd(path):
                _skip(gzip.GzipFile(fileobj=file))
            else:
                unpacker = zlib.decompressobj()
                while not unpacker.eof and (chunk := file.read(2**20)):
                    unpacker.decompress(chunk)
                if not unpacker.eof:
                    raise EOFError("compressed voxels end too soon")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: expected a whole image, got one that cannot be read ({error})"
        ) from None


def _name_voxel_file(path: Path, fields: dict[str, str]) -> str:
    """The file beside a header that has its voxels; '' where they are in the header's own."""
    if _is_nrrd(path):
        return fields.get("data file", fields.get("datafile", ""))
    where = fields.get("elementdatafile", "")
    return "" if where.upper() == "LOCAL" else where


def find_voxel_file(path: Path) -> list[Path]:
    """The file beside a .nhdr or .mhd that has its voxels, if it is one file and there."""
    if path.suffix.lower() not in (".nhdr", ".mhd"):
        return []
    where = _name_voxel_file(path, _read_text_header(path)[0])
    return [path.parent / where] if where and (path.parent / where).is_file() else []


def _skip(stream: gzip.GzipFile) -> None:
    while stream.read(2**20):
        pass


def _unreadable(path: Path, error: RuntimeError) -> InputError:
    # ITK's first line names its own source file; the reason comes last.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    came = " ".join(lines[1:])[-160:] or "no reason given"
    return InputError(f"{path}: expected a whole image, got one that cannot be read ({came})")
