"""Any bytes as a volume: what an independent reader finds, or one line that names the file."""

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from independent_readers import Unreadable, read_meta, read_nifti, read_nrrd
from mutations import damage, edit_text, flip_bits
from volumes import OBLIQUE

from fetal_jax.errors import InputError
from fetal_jax.io.volumes import read_header, read_volume, write_nifti

VOXELS = np.random.default_rng(0).integers(-99, 999, (5, 6, 7)).astype(np.int16)
HEADER = 352


def write_image(path, voxels, affine, packed):
    """By SimpleITK: LPS, axes the other way round."""
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(voxels.T)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(path), packed)


def write_whole(folder, suffix, packed=False):
    path = folder / f"whole{suffix}"
    if suffix.startswith(".nii"):
        write_nifti(path, VOXELS, OBLIQUE)
    else:
        write_image(path, VOXELS, OBLIQUE, packed=packed)
    return path.read_bytes()


def check(path, data, read_independently):
    """Read `data` as a file of that name, and compare; True if it could be read."""
    path.write_bytes(data)
    try:
        volume = read_volume(path)
    except InputError as error:
        for line in error.problems:
            assert line.startswith(f"{path}: expected ") and "\n" not in line
            assert "MemoryError" not in line
        return False
    shape, affine = read_header(path)
    try:
        voxels, expected = read_independently(data)
    except Unreadable:
        raise AssertionError(f"{path} was read, which is no file of this format") from None
    assert volume.voxels.shape == shape == voxels.shape
    atol = 1e-5 * max(1.0, np.abs(voxels).max())
    np.testing.assert_allclose(volume.voxels, voxels, rtol=1e-5, atol=atol)
    # quaternions and offsets are float32 in the file
    np.testing.assert_allclose(affine, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(volume.affine, affine)
    return True


def unpack_nifti(data):
    try:
        return read_nifti(gzip.decompress(data))
    except (OSError, EOFError, gzip.zlib.error) as error:
        raise Unreadable from error


WHOLE = [
    (".nii", False, read_nifti),
    (".nrrd", False, read_nrrd),
    (".nrrd", True, read_nrrd),
    (".mha", False, read_meta),
    (".mha", True, read_meta),
]


@pytest.mark.parametrize(("suffix", "packed", "read"), [*WHOLE, (".nii.gz", True, unpack_nifti)])
def test_the_readers_agree_on_whole_files(tmp_path, suffix, packed, read):
    assert check(tmp_path / f"case{suffix}", write_whole(tmp_path, suffix, packed), read)


@given(st.data())
@pytest.mark.parametrize(("suffix", "packed", "read"), WHOLE)
def test_damaged_headers(tmp_path, suffix, packed, read, data):
    whole = write_whole(tmp_path, suffix, packed)
    end = HEADER if suffix == ".nii" else whole.index(b"\n\n" if suffix == ".nrrd" else b"LOCAL\n")
    check(tmp_path / f"case{suffix}", data.draw(damage(whole, end) | damage(whole)), read)


@given(st.data())
@pytest.mark.parametrize(("suffix", "packed", "read"), WHOLE[1:])
def test_edited_text_headers(tmp_path, suffix, packed, read, data):
    whole = write_whole(tmp_path, suffix, packed)
    mark = b"\n\n" if suffix == ".nrrd" else b"LOCAL\n"
    head, mark, body = whole.partition(mark)
    text = data.draw(edit_text(head.decode(), " \n:=,()"))
    check(tmp_path / f"case{suffix}", text.encode() + mark + body, read)


@given(st.data())
def test_a_nifti_header_with_other_values(tmp_path, data):
    """Whole fields are others, which single bytes rarely make."""
    whole = bytearray(write_whole(tmp_path, ".nii"))
    shorts = [*range(40, 56, 2), 70, 72, 252, 254]
    floats = [*range(76, 108, 4), 108, 112, 116, *range(256, 328, 4)]
    for _ in range(data.draw(st.integers(1, 4))):
        if data.draw(st.booleans()):
            at, value = data.draw(st.sampled_from(shorts)), data.draw(st.integers(-2, 2000))
            whole[at : at + 2] = np.int16(value).tobytes()
        else:
            at, value = data.draw(st.sampled_from(floats)), data.draw(st.floats(width=32))
            whole[at : at + 4] = np.float32(value).tobytes()
    check(tmp_path / "case.nii", bytes(whole), read_nifti)


@given(st.data())
def test_a_packed_file_with_flipped_bits_is_refused_or_the_same(tmp_path, data):
    """Bits of gzip's own header (a time, a system) change nothing."""
    whole = write_whole(tmp_path, ".nii.gz")
    path = tmp_path / "case.nii.gz"
    if check(path, data.draw(flip_bits(whole)), unpack_nifti):
        np.testing.assert_array_equal(read_volume(path).voxels, VOXELS)


@given(data=st.binary(max_size=600), suffix=st.sampled_from([".nii", ".nii.gz", ".nrrd", ".mha"]))
def test_any_bytes(tmp_path, data, suffix):
    def read_none(data):
        raise Unreadable

    starts = {".nrrd": b"NRRD0004\n", ".nii.gz": b"\x1f\x8b\x08\0", ".mha": b"NDims = 3\n"}
    check(tmp_path / f"case{suffix}", starts.get(suffix, b"") + data, read_none)
