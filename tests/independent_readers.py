"""What a file says, by readers that share nothing with the project's: strict, small, slow.

Each returns what it finds, or raises `Unreadable`. Capitals, spaces and quotes count for nothing
where the format, or a spreadsheet that saved it, says so.
"""

import csv
import gzip
import json
import math
import re
import struct
import zlib

import numpy as np

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])


class Unreadable(Exception):
    pass


def read_nifti(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(voxels, affine) of a NIfTI-1 file of one scalar volume: nifti.nimh.nih.gov, nifti1.h."""
    if len(data) < 352:
        raise Unreadable
    order = {348: "<", 1543569408: ">"}.get(struct.unpack_from("<i", data)[0])
    if not order or data[344:348] != b"n+1\0":
        raise Unreadable

    def get(form, at):
        values = struct.unpack_from(order + form, data, at)
        return values[0] if len(values) == 1 else values

    rank, *sizes = get("8h", 40)
    if not 3 <= rank <= 7:
        raise Unreadable
    sizes = sizes[:rank]
    if min(sizes) < 1 or max(sizes[3:], default=1) != 1:
        raise Unreadable
    types = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}
    types |= {1024: "i8", 1280: "u8"}
    kind = types.get(get("h", 70))
    start = get("f", 108)
    if not kind or not math.isfinite(start) or start < 352:
        raise Unreadable
    count, item = math.prod(sizes), np.dtype(kind).itemsize
    if int(start) + count * item > len(data):
        raise Unreadable
    stored = np.frombuffer(data, order + kind, count, int(start))
    voxels = stored.reshape(sizes[:3], order="F").astype(np.float64)
    slope, inter = get("f", 112), get("f", 116)
    if math.isfinite(slope) and slope != 0:
        if not math.isfinite(inter):
            raise Unreadable
        voxels = voxels * slope + inter
    spacing = get("8f", 76)
    forms = []
    known = range(1, 6)  # codes of a space; of another one nothing is known
    if get("h", 254) in known:
        rows = np.array(get("12f", 280), float).reshape(3, 4)
        forms.append(np.vstack([rows, [0, 0, 0, 1]]))
    if get("h", 252) in known:
        b, c, d = get("3f", 256)
        rest = 1 - b * b - c * c - d * d
        if rest < -1e-6 or math.isnan(rest):
            raise Unreadable
        a = math.sqrt(max(rest, 0))
        rotation = [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
        sizes_mm = np.array(spacing[1:4]) * [1, 1, -1 if spacing[0] < 0 else 1]
        form = np.eye(4)
        form[:3, :3], form[:3, 3] = rotation * sizes_mm, get("3f", 268)
        forms.append(form)
    if not forms:
        raise Unreadable
    return voxels, forms[0]


def read_nrrd(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(voxels, affine) of an attached NRRD: teem.sourceforge.net/nrrd/format.html."""
    blank = re.search(rb"\n[ \t\r\f\v]*\n", data)
    if not blank:
        raise Unreadable
    lines = data[: blank.start()].decode("latin-1").replace("\r", "").split("\n")
    body = data[blank.end() :]
    if not re.fullmatch(r"NRRD000[1-5]", lines[0]):
        raise Unreadable
    fields = {}
    for line in lines[1:]:
        key, colon, value = line.partition(":")
        if line.startswith("#") or value.startswith("="):
            continue
        key = " ".join(key.lower().split())
        if not colon or key in fields:
            raise Unreadable
        fields[key] = value.strip()
    try:
        sizes = [int(n) for n in fields["sizes"].split()]
        directions = [_vector(v) for v in re.findall(r"\([^()]*\)", fields["space directions"])]
        origin = _vector(fields["space origin"])
        if int(fields["dimension"]) != len(sizes) or len(sizes) != 3:
            raise Unreadable
        signs = {"left-posterior-superior": (-1, -1), "right-anterior-superior": (1, 1)}
        signs |= {"left-anterior-superior": (-1, 1)}
        signs |= {"lps": (-1, -1), "ras": (1, 1), "las": (-1, 1)}
        flip = np.diag([*signs[fields["space"].lower()], 1, 1])
        kind = {"short": "i2", "float": "f4", "unsigned char": "u1"}[fields["type"].lower()]
        order = {"little": "<", "big": ">"}[fields["endian"].lower()] if kind != "u1" else ""
        packed = fields["encoding"].lower()
    except (KeyError, ValueError) as error:
        raise Unreadable from error
    if packed in ("gzip", "gz"):
        body = _unpack(body, gzip.decompress)
    elif packed != "raw":
        raise Unreadable
    return _build(body, order + kind, sizes, flip, np.array(directions).T, origin)


def read_meta(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(voxels, affine) of a .mha: itk.org/Wiki/ITK/MetaIO/Documentation."""
    mark = re.search(rb"(?im)^[ \t]*ElementDataFile[ \t]*=[ \t]*LOCAL[ \t\r]*\n", data)
    if not mark:
        raise Unreadable
    head, body = data[: mark.start()], data[mark.end() :]
    fields = {}
    for line in filter(str.strip, head.decode("latin-1").split("\n")):
        key, equals, value = map(str.strip, line.partition("="))
        key = key.lower()
        if not equals or key in fields:
            raise Unreadable
        fields[key] = value
    flags = {"true": True, "1": True, "false": False, "0": False}
    try:
        sizes = [int(n) for n in fields["dimsize"].split()]
        if int(fields["ndims"]) != 3 or len(sizes) != 3 or fields["objecttype"].lower() != "image":
            raise Unreadable
        rows = np.array([float(x) for x in fields["transformmatrix"].split()]).reshape(3, 3)
        spacing = [float(x) for x in fields["elementspacing"].split()]
        origin = [float(x) for x in fields["offset"].split()]
        types = {"MET_SHORT": "i2", "MET_FLOAT": "f4", "MET_UCHAR": "u1"}
        kind = types[fields["elementtype"].upper()]
        order = ">" if flags[fields["binarydatabyteordermsb"].lower()] else "<"
        if not flags[fields["binarydata"].lower()] or len(spacing) != 3 or len(origin) != 3:
            raise Unreadable
        packed = flags[fields.get("compresseddata", "False").lower()]
    except (KeyError, ValueError) as error:
        raise Unreadable from error
    if packed:
        body = _unpack(body, zlib.decompress)
    return _build(body, order + kind, sizes, FLIP, rows.T * spacing, origin)


def _vector(text: str) -> list[float]:
    values = [float(x) for x in text.strip("()").split(",")]
    if len(values) != 3:
        raise ValueError(text)
    return values


def _unpack(body: bytes, unpack) -> bytes:
    try:
        return unpack(body)
    except (OSError, EOFError, zlib.error) as error:
        raise Unreadable from error


def _build(body, dtype, sizes, flip, axes, origin):
    count = math.prod(sizes)
    if min(sizes) < 1 or axes.shape != (3, 3) or len(body) < count * np.dtype(dtype).itemsize:
        raise Unreadable
    voxels = np.frombuffer(body, dtype, count).reshape(sizes, order="F").astype(np.float64)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, origin
    return voxels, flip @ affine


def read_mrk_json(text: str) -> dict[str, list[float] | None]:
    """Label -> RAS mm, None where no position is set, of a Slicer markups file."""
    try:
        content = json.loads(text)
        points: dict[str, list[float] | None] = {}
        for markup in content["markups"]:
            system = markup.get("coordinateSystem", "LPS")
            signs = {"LPS": (-1, -1, 1), "RAS": (1, 1, 1)}[system]
            for point in markup.get("controlPoints", []):
                position = point.get("position")
                if point.get("positionStatus", "defined") != "defined" or not position:
                    position = None
                elif all(isinstance(x, float) and math.isnan(x) for x in position):
                    position = None
                else:
                    position = [s * float(x) for s, x in zip(signs, position, strict=True)]
                points[point["label"].strip()] = position
        return points
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable from error


def read_fcsv(text: str) -> dict[str, list[float] | None]:
    """Label -> RAS mm, None where no position is set, of a Slicer 4.11 or 5.2 table with a header.

    14 fields a row; or 16, whose 15th is 2 for a point that is set.
    """
    signs, points = None, {}
    lines = [line for line in re.split("\r\n|\r|\n", text) if line.strip()]
    # as a spreadsheet saves a comment that has commas
    lines = [line.strip(' ,"') if line.lstrip().startswith('"#') else line for line in lines]
    padded = any(line.startswith("#") and line.rstrip().endswith(",") for line in lines)
    for line in lines:
        key, _, value = (part.strip() for part in line.lstrip("#").partition("="))
        if line.startswith("#") and key.lower() == "coordinatesystem":
            known = {"LPS": (-1, -1, 1), "1": (-1, -1, 1), "RAS": (1, 1, 1), "0": (1, 1, 1)}
            signs = known.get(value.rstrip(", ").upper())
    for line in lines:
        if line.startswith("#"):
            continue
        row = next(csv.reader([line]))
        while padded and len(row) > 14 and not row[-1].strip():
            row.pop()
        if len(row) not in (12, 13, 14, 16) or signs is None:
            raise Unreadable
        texts = [cell.strip().lower() for cell in row[1:4]]
        unset = {"", "na", "n/a", "nan"}.issuperset(texts)
        if unset or (len(row) == 16 and row[14].strip() != "2"):
            points[row[11].strip()] = None
            continue
        try:
            points[row[11].strip()] = [s * float(x) for s, x in zip(signs, texts, strict=True)]
        except ValueError as error:
            raise Unreadable from error
    return points
