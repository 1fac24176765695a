"""Volumes on disk: voxels and the affine that carries a voxel's index to RAS+ mm.

NIfTI is read with nibabel; NRRD and MetaImage by `fetal_jax.io.nrrd` and `meta_image`. A file whose
orientation is missing, contradicts itself or is read differently by other programs is refused:
nobody notices a mirrored face.
"""

import gzip
import logging
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from fetal_jax.errors import InputError
from fetal_jax.geometry import voxel_sizes
from fetal_jax.io import meta_image, nrrd
from fetal_jax.io.files import (
    VOLUME_SUFFIXES,
    FilePath,
    describe_link,
    mismatch,
    split_suffix,
    write_atomically,
)

# sform and qform agree if no corner of the volume moves by more than this. The quaternion is stored
# in float32: near a half turn it is off by up to 5e-4 rad.
FORM_TOLERANCE_VOX = 0.25
# No more bytes come out of one byte of deflate (zlib.net/zlib_tech.html).
MOST_PACKED = 1032
SHEAR_TOLERANCE = 1e-3  # cosine between two array axes
UNITS = {0: "unknown", 1: "metre", 2: "mm", 3: "micron"}
UNREADABLE = (
    ImageFileError,
    HeaderDataError,
    OSError,
    EOFError,
    zlib.error,
    ValueError,
    OverflowError,
    MemoryError,
)

logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # what it says, the error says

# a damaged number, as a signalling NaN or one too large for float32, is refused, not warned of
_no_warnings = np.errstate(invalid="ignore", over="ignore")

# shape (I, J, K), affine [4, 4], and a function that reads the voxels
_Opened = tuple[tuple[int, ...], np.ndarray, Callable[[], np.ndarray]]


@dataclass(frozen=True)
class Volume:
    """voxels [I, J, K] in the file's own axes; affine [4, 4] float64, voxel centre -> RAS+ mm."""

    voxels: np.ndarray
    affine: np.ndarray
    path: Path


@_no_warnings
def read_volume(path: FilePath, *, trust_missing_affine: bool = False) -> Volume:
    """Read a volume; the voxels keep the stored type, or are float32 where the file scales them.

    Args:
      path: .nii, .nii.gz, .nrrd, .nhdr, .mha or .mhd.
      trust_missing_affine: take the format's own default where the file states no orientation.

    Raises:
      InputError: one line that names the file, what was expected and what came.
    """
    path = Path(path)
    shape, affine, load = _open(path, trust_missing_affine)
    try:
        voxels = load().reshape(shape)
    except OSError as error:
        raise mismatch(path, "a volume that can be read", error.strerror or str(error)) from None
    voxels = np.ascontiguousarray(voxels.astype(voxels.dtype.newbyteorder("="), copy=False))
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        bad = int(voxels.size - np.isfinite(voxels).sum())
        raise InputError(f"{path}: expected finite voxels, got {bad} that are NaN or infinite")
    return Volume(voxels, affine, path)


def read_header(
    path: FilePath, *, trust_missing_affine: bool = False
) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape (I, J, K) and affine [4, 4] of a volume, with every check that needs no voxels.

    Raises:
      InputError: as `read_volume` does.
    """
    shape, affine, _ = _open(Path(path), trust_missing_affine)
    return shape, affine


def write_nifti(path: FilePath, voxels: np.ndarray, affine: np.ndarray) -> None:
    """Write voxels [I, J, K] with their affine [4, 4] (RAS+ mm) as .nii or .nii.gz, in one step.

    sform and qform agree (a sheared affine has no qform). The same volume gives the same bytes:
    the gzip header carries no time.

    Raises:
      ValueError: another ending of the name, or other shapes.
    """
    suffix = split_suffix(path, (".nii.gz", ".nii"))[1]
    if not suffix:
        raise ValueError(f"expected a name that ends in .nii or .nii.gz, got {str(path)!r}")
    voxels, affine = np.asarray(voxels), np.asarray(affine, np.float64)
    if voxels.ndim != 3 or affine.shape != (4, 4):
        raise ValueError(f"expected [I, J, K] and [4, 4], got {voxels.shape} and {affine.shape}")
    if voxels.dtype == bool:
        voxels = voxels.astype(np.uint8)
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    if _largest_cosine(affine) <= SHEAR_TOLERANCE:
        image.set_qform(affine, code=1)
    else:
        image.set_qform(None, code=0)
    data = image.to_bytes()
    if suffix == ".nii.gz":
        data = gzip.compress(data, compresslevel=1, mtime=0)
    write_atomically(path, data)


@_no_warnings
def _open(path: Path, trust_missing_affine: bool) -> _Opened:
    """Return (shape, affine, load) after the checks that both kinds of file share."""
    suffix = split_suffix(path, VOLUME_SUFFIXES)[1]
    if not suffix:
        known = ", ".join(VOLUME_SUFFIXES)
        raise InputError(f"{path}: expected a name that ends in {known}, got {path.name!r}")
    if not path.is_file():
        came = describe_link(path) or "no such file"
        raise InputError(f"{path}: expected a volume, got {came}")
    openers = dict.fromkeys((".nrrd", ".nhdr"), nrrd.open_nrrd)
    openers |= dict.fromkeys((".mha", ".mhd"), meta_image.open_meta_image)
    try:
        shape, affine, load = openers.get(suffix, _open_nifti)(path, trust_missing_affine)
    except OSError as error:
        raise mismatch(path, "a volume that can be read", error.strerror or str(error)) from None
    _check_affine(path, affine)
    return _check_shape(path, shape), affine, load


def _open_nifti(path: Path, trust_missing_affine: bool) -> _Opened:
    try:
        _check_header(path)
        image = nib.load(path, mmap=False)
    except UNREADABLE as error:
        raise _unreadable(path, error) from None
    if not isinstance(image, nib.Nifti1Image):
        raise InputError(f"{path}: expected a NIfTI file, got {type(image).__name__}")
    header = image.header
    dtype = header.get_data_dtype()
    if dtype.kind not in "uif":
        came = "RGB" if dtype.fields else str(dtype)
        raise InputError(f"{path}: expected one real number a voxel, got {came}")
    code = int(header["xyzt_units"]) & 7
    if code not in (0, 2):
        raise InputError(f"{path}: expected xyzt_units mm, got {UNITS.get(code, code)}")
    shape = _check_shape(path, image.shape)
    # a header that is damaged must not ask for more memory than its file can fill
    size, packed = path.stat().st_size, path.suffix.lower() == ".gz"
    if math.prod(shape) * dtype.itemsize > (MOST_PACKED if packed else 1) * size:
        raise InputError(
            f"{path}: expected a file that holds its {' × '.join(map(str, shape))} voxels, got one "
            f"of {size} bytes"
        )
    affine = _choose_affine(path, header, shape, trust_missing_affine)

    def load() -> np.ndarray:
        try:
            voxels = _read_voxels(path, image)
        except UNREADABLE as error:
            raise _unreadable(path, error) from None
        scaled = voxels.dtype != dtype
        return voxels.astype(np.float32) if scaled else voxels

    return shape, affine, load


def _check_header(path: Path) -> None:
    """Refuse what nibabel would mend: a length that is none, voxels within the header, a spacing
    that is not stated.
    """
    with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as file:
        block = file.read(nib.Nifti2Header.sizeof_hdr)
    lengths = {int.from_bytes(block[:4], order) for order in ("little", "big")}
    kinds = [k for k in (nib.Nifti1Header, nib.Nifti2Header) if k.sizeof_hdr in lengths]
    if not kinds:
        raise _unreadable(path, ValueError(f"a header of {min(lengths)} bytes"))
    (kind,) = kinds
    try:
        header = kind(block[: kind.sizeof_hdr], check=False)
    except WrapStructError as error:
        raise _unreadable(path, error) from None
    spacing, by_sform = header["pixdim"][1:4], header["sform_code"] > 0 >= header["qform_code"]
    if not by_sform and not (np.isfinite(spacing) & (spacing > 0)).all():
        came = " ".join(f"{x:g}" for x in spacing)
        raise InputError(f"{path}: expected positive numbers as pixdim 1 to 3, got {came}")
    if not by_sform and header["pixdim"][0] not in (-1, 0, 1):
        came = f"{header['pixdim'][0]:g}"
        raise InputError(
            f"{path}: expected 1 or -1 as pixdim 0, which mirrors the qform, got {came}"
        )
    first, least = float(header["vox_offset"]), kind.single_vox_offset
    if header["magic"].item().startswith(b"n+") and not least <= first < math.inf:
        raise InputError(
            f"{path}: expected voxels behind the header, from byte {least} on, got vox_offset "
            f"{first:g}"
        )


def _read_voxels(path: Path, image: nib.Nifti1Image) -> np.ndarray:
    """The voxels, and of a compressed file all that follows: its checksum is the last of it."""
    header = image.header
    wanted = header.get_data_dtype().itemsize * math.prod(header.get_data_shape())
    # nibabel keeps where it reads from in the array, not in the header
    end = image.dataobj.offset + wanted
    if split_suffix(path, VOLUME_SUFFIXES)[1] != ".nii.gz":
        voxels, length = np.asanyarray(image.dataobj), path.stat().st_size
    else:
        with gzip.open(path) as stream:
            voxels = np.asanyarray(type(image).from_stream(stream).dataobj)
            length = stream.tell()
            while more := stream.read(2**20):
                length += len(more)
    if length > end:
        raise ValueError(f"{length - end} bytes more than the voxels of its header")
    return voxels


def _choose_affine(
    path: Path, header: nib.Nifti1Header, shape: Sequence[int], trust_missing_affine: bool
) -> np.ndarray:
    """The affine of sform and qform, which must agree, or of the only one that is there."""
    sform = header.get_sform(coded=True)[0]
    try:
        qform = header.get_qform(coded=True)[0]
    except UNREADABLE as error:
        raise InputError(f"{path}: expected a qform that is a rotation, got {error}") from None
    if sform is None and qform is None:
        if not trust_missing_affine:
            raise InputError(
                f"{path}: expected a sform or a qform that says how the volume lies in the body, "
                "got code 0 for both"
            )
        return header.get_best_affine().astype(np.float64)
    if sform is None or qform is None:
        return np.asarray(qform if sform is None else sform, np.float64)
    for form in (sform, qform):
        _check_affine(path, form)
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in shape))])
    gap_mm = np.linalg.norm(corners @ (sform - qform).T, axis=1).max()
    if gap_mm > FORM_TOLERANCE_VOX * voxel_sizes(sform).min():
        raise InputError(
            f"{path}: expected sform and qform to agree, got sform {_describe(sform)} "
            f"but qform {_describe(qform)}, up to {gap_mm:.3g} mm apart"
        )
    return np.asarray(sform, np.float64)


def _check_shape(path: Path, shape: Sequence[int]) -> tuple[int, ...]:
    """Drop trailing axes of length 1 beyond the third; refuse anything but one 3D volume."""
    shape = tuple(int(n) for n in shape)
    if len(shape) < 3:
        raise InputError(f"{path}: expected three axes, got shape {shape}")
    if any(n != 1 for n in shape[3:]):
        raise InputError(f"{path}: expected one volume, got {len(shape)} axes of shape {shape}")
    if 0 in shape:
        raise InputError(f"{path}: expected voxels, got an empty volume of shape {shape}")
    return shape[:3]


def find_voxel_file(path: Path) -> list[Path]:
    """The file beside a header of text that has its voxels, if it is one file and there."""
    find = dict.fromkeys((".nrrd", ".nhdr"), nrrd.find_voxel_file)
    find |= dict.fromkeys((".mha", ".mhd"), meta_image.find_voxel_file)
    try:
        found = find.get(path.suffix.lower(), lambda _: None)(path)
    except InputError:
        return []  # which is said by who reads it
    return [found] if found else []


def _check_affine(path: Path, affine: np.ndarray) -> None:
    rows = "; ".join(" ".join(f"{x:.6g}" for x in row) for row in affine[:3])
    singular = not np.isfinite(affine).all() or voxel_sizes(affine).min() < 1e-9
    if singular or abs(np.linalg.det(affine[:3, :3] / voxel_sizes(affine))) < 1e-6:
        raise InputError(f"{path}: expected an affine that can be inverted, got [{rows}]")
    if _largest_cosine(affine) > SHEAR_TOLERANCE:
        raise InputError(
            f"{path}: expected an affine with axes at right angles, got a sheared one [{rows}], "
            "which ITK and Slicer do not open; resample the volume first"
        )


def _largest_cosine(affine: np.ndarray) -> float:
    axes = affine[:3, :3] / voxel_sizes(affine)
    return float(np.abs(axes.T @ axes - np.eye(3)).max())


def _describe(affine: np.ndarray) -> str:
    codes = "".join(nib.aff2axcodes(affine))
    spacing = " ".join(f"{x:.4g}" for x in voxel_sizes(affine))
    return f"{codes} spacing ({spacing}) origin ({' '.join(f'{x:.4g}' for x in affine[:3, 3])})"


def _unreadable(path: Path, error: BaseException) -> InputError:
    came = " ".join(str(error).split())[:160] or type(error).__name__
    return InputError(f"{path}: expected a whole NIfTI file, got one that cannot be read ({came})")
