"""NRRD, as Slicer saves volumes: teem.sourceforge.net/nrrd/format.html."""

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

# Signs of R, A, S in each space that is the body's.
SPACES = {
    ("right-anterior-superior", "ras"): (1.0, 1.0, 1.0),
    ("left-anterior-superior", "las"): (-1.0, 1.0, 1.0),
    ("left-posterior-superior", "lps"): tuple(LPS_TO_RAS),
}
SIGNS = {name: signs for names, signs in SPACES.items() for name in names}
TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, "
    "int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
DTYPES = {name: dtype for dtype, names in TYPES.items() for name in names.split(", ")}
PACKINGS = {"raw": "", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
PACKINGS |= dict.fromkeys(("txt", "text", "ascii"), "text")
ORDERS = {"little": "<", "big": ">"}
ENDS = ("mins", "maxs")
KINDS = ("domain", "space", "none", "???")  # of an axis that lies in the body
UNITS = ("mm", "millimeter", "millimeters")
# All that the format has; a name beside them is a damaged one, perhaps of a field that is missed.
KNOWN = """content, number, type, block size, blocksize, dimension, space, space dimension, sizes,
    spacings, thicknesses, axis mins, axismins, axis maxs, axismaxs, centers, centerings, labels,
    units, min, max, old min, oldmin, old max, oldmax, endian, encoding, line skip, lineskip,
    byte skip, byteskip, sample units, sampleunits, space units, space origin, measurement frame,
    data file, datafile, kinds, space directions"""
KNOWN = {" ".join(name.split()) for name in KNOWN.split(",")}
_VECTOR = re.compile(r"none|\([^()]*\)", re.IGNORECASE)


def open_nrrd(
    path: Path, trust_missing_affine: bool
) -> tuple[tuple[int, ...], np.ndarray, Callable[[], np.ndarray]]:
    """Open a .nrrd or .nhdr without reading its voxels.

    Args:
      trust_missing_affine: take LPS where the file does not say how it lies in the body.

    Returns:
      The shape, the affine [4, 4] from voxel to RAS+ mm, and a function that reads the voxels.

    Raises:
      InputError: a header that is damaged, leaves something open, or is of another kind of image.
    """
    fields, end = _read_fields(path)
    (rank,) = parse_sizes(path, "dimension", fields.get("dimension", ""), 1)
    if not 1 <= rank <= 16:
        raise mismatch(path, "three axes", f"dimension {rank}")
    shape = parse_sizes(path, "sizes", fields.get("sizes", ""), rank)
    stored = _find_voxels(path, fields, end, shape)
    check_unpacked(path, stored)
    load = partial(load_voxels, path, stored)
    fields, shape = _drop_single_axes(fields, shape)
    affine = _read_affine(path, fields, len(shape), trust_missing_affine)
    return shape, affine, load


def find_voxel_file(path: Path) -> Path | None:
    """The file beside a header that has its voxels, if its header says so and it is there.

    Raises:
      InputError: as of `open_nrrd`.
    """
    where = _name_data_file(_read_fields(path)[0])
    return name_voxel_file(path, where) if where else None


def _read_fields(path: Path) -> tuple[Fields, int]:
    lines, end = read_lines(path, r"\s*$")
    if not re.fullmatch(r"NRRD000[1-5]", lines[0] if lines else ""):
        raise unreadable(path, "no NRRD")
    fields: Fields = {}
    for line in lines[1:]:
        key, found, value = line.partition(":")
        if line.startswith("#") or not line.strip() or value.startswith("="):
            continue  # a comment, or `key:=value`, a note
        if not found:
            raise mismatch(path, "'field: value' in the header", repr(line[:80]))
        add_field(path, fields, key, value)
    if unknown := [key for key in fields if key not in KNOWN]:
        raise mismatch(path, "fields of NRRD", ", ".join(map(repr, unknown)))
    return fields, end


def _drop_single_axes(fields: Fields, shape: tuple[int, ...]) -> tuple[Fields, tuple[int, ...]]:
    """Without the axes of one element that have no direction, as that of a list of one volume."""
    vectors = _VECTOR.findall(fields.get("space directions", ""))
    kinds = fields.get("kinds", "").split()
    if len(vectors) != len(shape):
        return fields, shape
    kept = [i for i, n in enumerate(shape) if n > 1 or vectors[i].lower() != "none"]
    fields = fields | {"space directions": " ".join(vectors[i] for i in kept)}
    if len(kinds) == len(shape):
        fields |= {"kinds": " ".join(kinds[i] for i in kept)}
    return fields, tuple(shape[i] for i in kept)


def _read_affine(path: Path, fields: Fields, rank: int, trust_missing_affine: bool) -> np.ndarray:
    units = re.findall(r'"[^"]*"|\S+', fields.get("space units", ""))
    if any(unit.strip('"').lower() not in UNITS for unit in units):
        raise mismatch(path, "space units mm", fields["space units"])
    kinds = fields.get("kinds", "").lower().split()
    if others := [kind for kind in kinds if kind not in KINDS]:
        raise mismatch(path, "axes in the body", f"kinds {', '.join(others)}")
    if rank < 3:
        return np.eye(4)  # refused by the caller, for its shape
    signs = SIGNS.get(fields.get("space", "").lower())
    if signs is None or "space directions" not in fields:
        if not trust_missing_affine:
            wanted = "a space of LPS, LAS or RAS with space directions"
            raise mismatch(
                path,
                f"{wanted} that says how the volume lies in the body",
                fields.get("space") or "none",
            )
        spacings = fields.get("spacings", " ".join("1" * rank)).split()
        steps = parse_numbers(path, "spacings", " ".join(spacings[:3]), 3)
        return build_affine(np.diag(steps), np.zeros(3), LPS_TO_RAS)
    # teem allows none of these beside directions (they are per axis, and of another unit perhaps)
    for key in ("spacings", "units", *(f"axis{gap}{end}" for gap in ("", " ") for end in ENDS)):
        if set(fields.get(key, "").replace('"', "").lower().split()) - {"nan"}:
            raise mismatch(path, f"no {key} beside space directions", fields[key])
    axes = _parse_vectors(path, "space directions", fields["space directions"], rank)
    if any(axis is None for axis in axes[:3]) or any(axis is not None for axis in axes[3:]):
        raise mismatch(path, "numbers as space directions", fields["space directions"])
    if "space origin" in fields:
        (origin,) = _parse_vectors(path, "space origin", fields["space origin"], 1)
    else:
        origin = [0.0] * 3 if trust_missing_affine else None
    if origin is None:
        raise mismatch(path, "a space origin", fields.get("space origin", "none"))
    return build_affine(axes[:3], origin, signs)


def _parse_vectors(path: Path, key: str, text: str, count: int) -> list[list[float] | None]:
    """`(a,b,c) (d,e,f) none` -> three numbers each, None for none."""
    vectors = _VECTOR.findall(text)
    if len(vectors) != count or _VECTOR.sub("", text).strip():
        raise mismatch(path, f"{count} vectors as {key}", text)
    return [
        None if vector.lower() == "none" else parse_numbers(path, key, _separate(vector), 3)
        for vector in vectors
    ]


def _separate(vector: str) -> str:
    """`(a,b,c)` -> `a b c`; what lies between two commas without a number stays one."""
    return " ".join(part.strip() or "," for part in vector[1:-1].split(","))


def _find_voxels(path: Path, fields: Fields, end: int, shape: tuple[int, ...]) -> Stored:
    stated = fields.get("type", "")
    dtype = DTYPES.get(" ".join(stated.lower().split()))
    if dtype is None:
        raise mismatch(path, "a type of voxels, as short or float", stated or "none")
    packing = PACKINGS.get(fields.get("encoding", "").lower())
    if packing is None:
        known = ", ".join(PACKINGS)
        raise mismatch(path, f"an encoding of {known}", fields.get("encoding") or "none")
    order = ORDERS.get(fields.get("endian", "").lower(), "")
    if not order and dtype[1] != "1" and packing != "text":
        raise mismatch(path, "an endian, little or big", fields.get("endian") or "none")
    where = _name_data_file(fields)
    source, start = (name_voxel_file(path, where), 0) if where else (path, end)
    skipped = fields.get("byte skip", fields.get("byteskip", "0"))
    if fields.get("line skip", fields.get("lineskip", "0")) != "0":
        raise mismatch(path, "no line skip", fields.get("line skip", fields.get("lineskip")))
    if skipped == "-1" and not packing:
        return Stored(source, None, packing, np.dtype(order + dtype), shape)
    (skip,) = parse_sizes(path, "byte skip", skipped, 1)
    if packing in ("gzip", "bzip2"):  # of what comes out
        return Stored(source, start, packing, np.dtype(order + dtype), shape, skipped=skip)
    return Stored(source, start + skip, packing, np.dtype(order + dtype), shape)


def _name_data_file(fields: Fields) -> str:
    return fields.get("data file", fields.get("datafile", ""))
