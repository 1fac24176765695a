"""Volumes: the same place in mm however a file is stored, and a line for each file that is not."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from fetal_jax.errors import InputError
from fetal_jax.io.volumes import read_header, read_volume, write_nifti

SHAPE = (4, 5, 6)
VOXELS = np.arange(120, dtype=np.int16).reshape(SHAPE)
AFFINE = np.array([[0.5, 0, 0, -10], [0, 0.6, 0, 20], [0, 0, 0.7, -30], [0, 0, 0, 1]])


def turn(affine, angle):
    """The affine turned about z by an angle in degrees: an oblique volume."""
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ affine


def make_image(voxels=VOXELS, sform=AFFINE, qform=AFFINE, units="mm"):
    image = nib.Nifti1Image(voxels, None)
    image.header.set_xyzt_units(units)
    image.set_sform(sform, code=0 if sform is None else 1)
    image.set_qform(qform, code=0 if qform is None else 1)
    return image


def save(folder, image, name="case.nii.gz"):
    path = folder / name
    nib.save(image, path)
    return path


def save_raw(folder, image):
    """Write the header as it stands; nibabel's own writer would put some of it right."""
    header = image.header.copy()
    header["vox_offset"] = 352
    path = folder / "case.nii"
    path.write_bytes(header.binaryblock + bytes(4) + VOXELS.tobytes(order="F"))
    return path


def check_refusal(path, *parts, read=read_volume, **kwargs):
    with pytest.raises(InputError) as caught:
        read(path, **kwargs)
    (message,) = caught.value.problems
    assert message.startswith(f"{path}: expected ")
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("name", ["case.nii.gz", "case.nii", "CASE.v1.NII.GZ"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64])
def test_round_trip(tmp_path, name, dtype):
    path = tmp_path / name
    write_nifti(path, VOXELS.astype(dtype), turn(AFFINE, 20))
    volume = read_volume(path)
    assert volume.voxels.dtype == dtype
    assert volume.affine.dtype == np.float64
    assert volume.path == path
    np.testing.assert_array_equal(volume.voxels, VOXELS)
    np.testing.assert_allclose(volume.affine, turn(AFFINE, 20), atol=1e-5)
    shape, affine = read_header(path)
    assert shape == SHAPE
    np.testing.assert_array_equal(affine, volume.affine)


def test_written_files_state_their_place_twice_and_their_unit(tmp_path):
    write_nifti(tmp_path / "case.nii.gz", VOXELS > 3, AFFINE)
    header = nib.load(tmp_path / "case.nii.gz").header
    assert int(header["sform_code"]) == int(header["qform_code"]) == 1
    assert header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(header.get_qform(), AFFINE, atol=1e-5)
    np.testing.assert_allclose(header.get_sform(), AFFINE, atol=1e-5)
    assert header.get_data_dtype() == np.uint8


def test_the_same_volume_gives_the_same_bytes(tmp_path):
    write_nifti(tmp_path / "1.nii.gz", VOXELS, AFFINE)
    write_nifti(tmp_path / "2.nii.gz", VOXELS.copy(), AFFINE.tolist())
    data = (tmp_path / "1.nii.gz").read_bytes()
    assert data == (tmp_path / "2.nii.gz").read_bytes()
    assert data[4:8] == bytes(4)  # gzip's time
    assert len(list(tmp_path.iterdir())) == 2


def test_writing_refuses_what_is_no_volume(tmp_path):
    with pytest.raises(ValueError, match=r"ends in .nii or .nii.gz, got .*case.mha"):
        write_nifti(tmp_path / "case.mha", VOXELS, AFFINE)
    with pytest.raises(ValueError, match=r"expected \[I, J, K\] and \[4, 4\], got \(4, 5\)"):
        write_nifti(tmp_path / "case.nii", VOXELS[..., 0], AFFINE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PIR", "SAL"])
@pytest.mark.parametrize("angle", [0, 20, 179.9])
def test_a_voxel_is_at_the_same_place_in_every_orientation(tmp_path, axes, angle):
    image = make_image(sform=turn(AFFINE, angle), qform=None)
    turned = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes)
    )
    stored = image.as_reoriented(turned)
    path = tmp_path / "case.nii.gz"
    write_nifti(path, np.asarray(stored.dataobj), stored.affine)
    volume = read_volume(path)
    assert "".join(nib.aff2axcodes(volume.affine)) == axes
    for value in (0, 17, 119):
        ((index,), (truth,)) = (np.argwhere(v == value) for v in (volume.voxels, VOXELS))
        there = (volume.affine @ [*index, 1])[:3]
        np.testing.assert_allclose(there, (turn(AFFINE, angle) @ [*truth, 1])[:3], atol=2e-5)


@pytest.mark.parametrize(
    ("sform", "qform"),
    [
        pytest.param(AFFINE, None, id="sform only"),
        pytest.param(None, AFFINE, id="qform only"),
        pytest.param(AFFINE, turn(AFFINE, 0.01), id="differ by rounding"),
    ],
)
def test_one_of_the_two_forms_is_enough(tmp_path, sform, qform):
    volume = read_volume(save(tmp_path, make_image(sform=sform, qform=qform)))
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)


@pytest.mark.parametrize("extra", [(1,), (1, 1)])
def test_trailing_axes_of_length_one_are_dropped(tmp_path, extra):
    path = save(tmp_path, make_image(VOXELS.reshape(SHAPE + extra)))
    assert read_header(path)[0] == SHAPE
    np.testing.assert_array_equal(read_volume(path).voxels, VOXELS)


def test_scaled_voxels_come_as_float32(tmp_path):
    image = make_image()
    image.header.set_slope_inter(0.5, 10)
    volume = read_volume(save_raw(tmp_path, image))
    assert volume.voxels.dtype == np.float32
    np.testing.assert_array_equal(volume.voxels, VOXELS * 0.5 + 10)


def test_other_byte_orders_come_in_the_machine_s_own(tmp_path):
    header = make_image().header.as_byteswapped(">")
    image = nib.Nifti1Image(VOXELS.astype(">i2"), None, header)
    volume = read_volume(save(tmp_path, image, "case.nii"))
    assert volume.voxels.dtype == np.int16 and volume.voxels.dtype.isnative
    np.testing.assert_array_equal(volume.voxels, VOXELS)


def test_unknown_units_are_mm(tmp_path):
    path = save(tmp_path, make_image(units="unknown"))
    np.testing.assert_allclose(read_volume(path).affine, AFFINE, atol=1e-5)


def with_value(value):
    voxels = VOXELS.astype(np.float32)
    voxels[1, 2, 3] = value
    return voxels


def shear(affine):
    return affine @ np.array([[1, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


RGB = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
FLAT = AFFINE * [1, 1, 0, 1]
FLIPPED = np.diag([-1.0, -1.0, 1.0, 1.0]) @ AFFINE
MOVED = AFFINE + np.outer([1, 0, 0, 0], [0, 0, 0, 1])
# name -> (image, parts of the message; does the header alone tell?)
BAD_IMAGES = {
    "two frames": (
        lambda: make_image(np.stack([VOXELS, VOXELS], -1)),
        ("one volume", "(4, 5, 6, 2)"),
        True,
    ),
    "vectors": (
        lambda: make_image(np.zeros((*SHAPE, 1, 3), np.float32)),
        ("one volume", "(4, 5, 6, 1, 3)"),
        True,
    ),
    "flat": (lambda: make_image(VOXELS[..., 0]), ("three axes", "(4, 5)"), True),
    "empty": (lambda: make_image(VOXELS[:0]), ("voxels", "empty", "(0, 5, 6)"), True),
    "NaN": (lambda: make_image(with_value(np.nan)), ("finite voxels", "got 1 "), False),
    "infinite": (lambda: make_image(with_value(-np.inf)), ("finite voxels", "got 1 "), False),
    "no orientation": (
        lambda: make_image(sform=None, qform=None),
        ("a sform or a qform", "code 0 for both"),
        True,
    ),
    "singular": (
        lambda: make_image(sform=FLAT, qform=None),
        ("can be inverted", "got [0.5 0 0 -10; 0 0.6 0 20; 0 0 0 -30]"),
        True,
    ),
    "two axes alike": (
        lambda: make_image(sform=AFFINE[[0, 0, 2, 3]], qform=None),
        ("can be inverted", "0.5 0 0"),
        True,
    ),
    "sheared": (
        lambda: make_image(sform=shear(AFFINE), qform=None),
        ("right angles", "got a sheared one [0.5 0.05 0"),
        True,
    ),
    "forms mirror each other": (
        lambda: make_image(sform=AFFINE, qform=FLIPPED),
        ("agree", "sform RAS spacing (0.5 0.6 0.7)", "qform LPS", "mm apart"),
        True,
    ),
    "forms a millimetre apart": (
        lambda: make_image(sform=AFFINE, qform=MOVED),
        ("agree", "origin (-10 20 -30)", "origin (-9 20 -30)", "up to 1 mm apart"),
        True,
    ),
    "metres": (lambda: make_image(units="meter"), ("xyzt_units mm", "got metre"), True),
    "microns": (lambda: make_image(units="micron"), ("xyzt_units mm", "got micron"), True),
    "colours": (lambda: make_image(RGB), ("one real number a voxel", "got RGB"), True),
    "complex": (
        lambda: make_image(VOXELS.astype(np.complex64)),
        ("one real number a voxel", "got complex64"),
        True,
    ),
}


@pytest.mark.parametrize(
    ("make", "parts", "by_header"),
    [pytest.param(*values, id=name) for name, values in BAD_IMAGES.items()],
)
@pytest.mark.parametrize("name", ["case.nii.gz", "case.nii"])
def test_volumes_that_cannot_be_trusted(tmp_path, name, make, parts, by_header):
    path = save(tmp_path, make(), name)
    check_refusal(path, *parts)
    if by_header:
        check_refusal(path, *parts, read=read_header)
    else:
        assert read_header(path)[0] == SHAPE


def test_a_missing_orientation_can_be_trusted_on_demand(tmp_path):
    path = save(tmp_path, make_image(sform=None, qform=None))
    volume = read_volume(path, trust_missing_affine=True)
    np.testing.assert_array_equal(volume.voxels, VOXELS)
    np.testing.assert_array_equal(np.linalg.norm(volume.affine[:3, :3], axis=0), [1, 1, 1])


@pytest.mark.parametrize("field", ["srow_y", "qoffset_y"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_affine_that_is_not_finite(tmp_path, field, value):
    image = make_image()
    image.header[field] = value
    check_refusal(save_raw(tmp_path, image), "can be inverted", "got [", str(value))


def test_a_signalling_nan_is_refused_without_a_warning(tmp_path):
    """Made of bytes: a number of numpy's own is a quiet one."""
    data = bytearray(save_raw(tmp_path, make_image()).read_bytes())
    data[296:300] = b"\1\0\x80\x7f"  # srow_y
    path = tmp_path / "signalling.nii"
    path.write_bytes(data)
    check_refusal(path, "can be inverted", "got [", "nan")


def test_a_qform_that_is_no_rotation(tmp_path):
    image = make_image()
    image.header["quatern_b"] = 2.0
    check_refusal(save_raw(tmp_path, image), "a qform that is a rotation", "got ")


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        pytest.param("case.nii.gz", lambda data: data[: len(data) // 2], id="half a gzip"),
        pytest.param("case.nii.gz", lambda data: data[:5], id="five bytes of gzip"),
        pytest.param("case.nii.gz", lambda data: gzip.decompress(data), id="not gzip at all"),
        pytest.param(
            "case.nii.gz", lambda data: data[:80] + bytes(40) + data[120:], id="corrupted gzip"
        ),
        pytest.param("case.nii", lambda data: gzip.decompress(data)[:-9], id="plain, cut"),
        pytest.param("case.nii", lambda data: gzip.decompress(data)[:100], id="half a header"),
        pytest.param("case.nii", lambda data: b"", id="empty file"),
        pytest.param("case.nii", lambda data: b"hello, world" * 99, id="text"),
    ],
)
def test_broken_files(tmp_path, name, cut):
    voxels = np.random.default_rng(0).integers(0, 999, SHAPE).astype(np.int16)
    write_nifti(tmp_path / "whole.nii.gz", voxels, AFFINE)
    (tmp_path / name).write_bytes(cut((tmp_path / "whole.nii.gz").read_bytes()))
    check_refusal(tmp_path / name, "a whole NIfTI file", "cannot be read (")


@pytest.mark.parametrize("offset", [0, 16, 351])
def test_voxels_that_would_be_bytes_of_the_header(tmp_path, offset):
    path = save_raw(tmp_path, make_image())
    data = bytearray(path.read_bytes())
    data[108:112] = np.float32(offset).tobytes()  # vox_offset
    path.write_bytes(data)
    check_refusal(path, "voxels behind the header, from byte 352 on", f"got vox_offset {offset}")


def test_a_compressed_file_with_a_flipped_bit_is_never_other_voxels(tmp_path):
    """Deflate itself notices few of them: the checksum is at the end of the stream."""
    voxels = np.random.default_rng(0).integers(0, 256, (12, 12, 12), dtype=np.uint8)
    path = tmp_path / "case.nii.gz"
    write_nifti(path, voxels, AFFINE)
    whole, rng, refused = path.read_bytes(), np.random.default_rng(1), 0
    for bit in rng.choice(np.arange(8 * 10, 8 * len(whole)), 150, replace=False):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(data)
        with pytest.raises(InputError, match=str(path)):
            read_volume(path)
        refused += 1
    for cut in (1, 8, 9, 40):  # in the checksum and before it
        path.write_bytes(whole[:-cut])
        check_refusal(path, "a whole NIfTI file")
    assert refused == 150


def test_files_that_are_none(tmp_path):
    check_refusal(tmp_path / "no.nii.gz", "a volume", "no such file")
    check_refusal(tmp_path / "case.dcm", "ends in .nii.gz, .nii, .nrrd", "got 'case.dcm'")
    check_refusal(tmp_path / ".nii", "ends in", "got '.nii'")


def edit_header(path, at, value):
    data = bytearray(path.read_bytes())
    data[at : at + value.nbytes] = value.tobytes()
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["case.nii", "case.nii.gz"])
def test_a_header_that_is_smaller_than_its_file(tmp_path, name):
    """Each row would begin within the one before."""
    path = edit_header(save_raw(tmp_path, make_image()), 42, np.int16(SHAPE[0] - 1))
    if name.endswith(".gz"):
        packed = tmp_path / name
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path = packed
    check_refusal(path, "60 bytes more than the voxels of its header")


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (76, np.float32(5), "1 or -1 as pixdim 0"),
        (80, np.float32(0), "positive numbers as pixdim 1 to 3"),
        (84, np.float32(-1), "positive numbers as pixdim 1 to 3"),
        (108, np.float32(np.inf), "voxels behind the header"),
        (0, np.int32(256), "a header of 256 bytes"),
        (40, np.array([3, 2000, 2000, 2000], np.int16), "holds its 2000 × 2000 × 2000 voxels"),
    ],
)
def test_headers_that_nibabel_would_mend(tmp_path, at, value, words):
    check_refusal(edit_header(save_raw(tmp_path, make_image()), at, value), words)
