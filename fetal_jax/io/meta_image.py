"""MetaImage, as ITK saves volumes: itk.org/Wiki/ITK/MetaIO/Documentation."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from fetal_jax.geometry import LPS_TO_RAS
from fetal_jax.io.files import mismatch
from fetal_jax.io.text_header import (
    Fields,
    Stored,
    add_field,
    build_affine,
    check_unpacked,
    load_voxels,
    name_voxel_file,
    parse_numbers,
    parse_sizes,
    read_lines,
    unreadable,
)

# Each may have several names.
MATRIX = ("transformmatrix", "rotation", "orientation")
ORIGIN = ("offset", "position", "origin")
BYTE_ORDER = ("binarydatabyteordermsb", "elementbyteordermsb")
DATA_FILE = "elementdatafile"
# MET_LONG is left out: its width was the machine's.
DTYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
UNIT_TOLERANCE = 1e-3  # of the length of a row of the matrix


def open_meta_image(
    path: Path, trust_missing_affine: bool
) -> tuple[tuple[int, ...], np.ndarray, Callable[[], np.ndarray]]:
    """Open a .mha or .mhd without reading its voxels; as `nrrd.open_nrrd`."""
    fields, end = _read_fields(path)
    if fields.get("objecttype", "").lower() != "image":
        raise mismatch(path, "ObjectType Image", fields.get("objecttype") or "none")
    (rank,) = parse_sizes(path, "NDims", fields.get("ndims", ""), 1)
    if not 1 <= rank <= 16:
        raise mismatch(path, "three axes", f"NDims {rank}")
    shape = parse_sizes(path, "DimSize", fields.get("dimsize", ""), rank)
    affine = _read_affine(path, fields, rank, trust_missing_affine)
    stored = _find_voxels(path, fields, end, shape)
    check_unpacked(path, stored)
    return shape, affine, partial(load_voxels, path, stored)


def find_voxel_file(path: Path) -> Path | None:
    """As `nrrd.find_voxel_file`."""
    where = _read_fields(path)[0][DATA_FILE]
    return None if where.upper() == "LOCAL" else name_voxel_file(path, where)


def _read_fields(path: Path) -> tuple[Fields, int]:
    lines, end = read_lines(path, r"(?i)\s*ElementDataFile\s*=")
    fields: Fields = {}
    for line in lines:
        key, found, value = line.partition("=")
        if found:
            add_field(path, fields, key, value)
        elif line.strip():
            raise unreadable(path, f"{line[:40]!r} is no 'field = value'")
    if not fields.get(DATA_FILE):
        raise unreadable(path, "no ElementDataFile")
    return fields, end


def _choose(path: Path, fields: Fields, names: tuple[str, ...]) -> str | None:
    """The value under one of several names."""
    values = {" ".join(fields[name].lower().split()) for name in names if name in fields}
    if len(values) > 1:
        raise mismatch(path, f"one {names[0]}", " and ".join(sorted(values)))
    return values.pop() if values else None


def _read_affine(path: Path, fields: Fields, rank: int, trust_missing_affine: bool) -> np.ndarray:
    units = fields.get("distanceunits", "mm").lower()
    if units not in ("mm", "?"):
        raise mismatch(path, "DistanceUnits mm", units)
    # a tracked recording of 2D images, as the PLUS toolkit saves it: each has a pose of its own
    if frames := [key for key in fields if key.startswith("seq_frame")]:
        raise mismatch(path, "one volume", f"a recording of frames ({frames[0]})")
    if rank < 3:
        return np.eye(4)  # refused by the caller, for its shape
    # ElementSize is how large a voxel is, and stands for a spacing that is not there
    spacing = ("elementspacing",) if "elementspacing" in fields else ("elementsize",)
    stated = {"TransformMatrix": MATRIX, "ElementSpacing": spacing, "Offset": ORIGIN}
    if not trust_missing_affine:
        for name, names in stated.items():
            if _choose(path, fields, names) is None:
                says = " that says how the volume lies in the body" if names is MATRIX else ""
                article = "an" if name[0] in "EO" else "a"
                raise mismatch(path, f"{article} {name}{says}", "none")

    def read(name: str, default: np.ndarray) -> np.ndarray:
        text = _choose(path, fields, stated[name])
        if text is None:
            return default
        return np.array(parse_numbers(path, name, text, default.size)).reshape(default.shape)

    rows = read("TransformMatrix", np.eye(rank))[:3, :3]
    if abs(np.linalg.norm(rows, axis=1) - 1).max() > UNIT_TOLERANCE:
        raise mismatch(path, "a TransformMatrix with rows of length 1", str(rows.tolist()))
    steps = rows * read("ElementSpacing", np.ones(rank))[:3, None]
    return build_affine(steps, read("Offset", np.zeros(rank))[:3], LPS_TO_RAS)


def _find_voxels(path: Path, fields: Fields, end: int, shape: tuple[int, ...]) -> Stored:
    kind = fields.get("elementtype", "")
    channels = fields.get("elementnumberofchannels", "1")
    if channels != "1":
        raise mismatch(path, "one real number a voxel", f"{channels} of type {kind}")
    if kind.upper() not in DTYPES:
        raise unreadable(path, f"ElementType {kind or 'missing'}")
    dtype = DTYPES[kind.upper()]
    for key, plain in (("slope", 1.0), ("offset", 0.0)):
        key = f"elementtointensityfunction{key}"
        if key in fields and parse_numbers(path, key, fields[key], 1) != [plain]:
            raise mismatch(path, f"{key} {plain:g}", fields[key])
    as_text = not _parse_flag(path, "BinaryData", fields.get("binarydata", ""))
    packed = _parse_flag(path, "CompressedData", fields.get("compresseddata", "False"))
    swapped = _choose(path, fields, BYTE_ORDER)
    if swapped is None and dtype[1] != "1" and not as_text:
        raise mismatch(path, "a BinaryDataByteOrderMSB", "none")
    order = ">" if _parse_flag(path, "BinaryDataByteOrderMSB", swapped or "False") else "<"
    where = fields[DATA_FILE]
    local = where.upper() == "LOCAL"
    source, start = (path, end) if local else (name_voxel_file(path, where), 0)
    skipped = fields.get("headersize", "0")
    if skipped == "-1" and not packed and not as_text:
        start = None
    elif not local or skipped != "0":
        start += parse_sizes(path, "HeaderSize", skipped, 1)[0]
    size = fields.get("compresseddatasize") if packed else None
    size = parse_sizes(path, "CompressedDataSize", size, 1)[0] if size else None
    packing = "text" if as_text else "zlib" if packed else ""
    return Stored(source, start, packing, np.dtype(order + dtype), shape, size or None)


def _parse_flag(path: Path, key: str, text: str) -> bool:
    if not re.fullmatch(r"true|false|1|0", text.lower()):
        raise mismatch(path, f"{key} True or False", text or "none")
    return text.lower() in ("true", "1")
