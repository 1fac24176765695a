"""NRRD and MetaImage: at the same place as a NIfTI, and refused where the place is not stated."""

import bz2
import gzip

import numpy as np
import pytest
import SimpleITK as sitk

from fetal_jax.errors import InputError
from fetal_jax.io.volumes import read_header, read_volume, write_nifti

SHAPE = (4, 5, 6)
VOXELS = np.arange(120, dtype=np.int16).reshape(SHAPE)
AFFINE = np.array([[0.5, 0, 0, -10], [0, 0.6, 0, 20], [0, 0, 0.7, -30], [0, 0, 0, 1]])
FLIPPED = np.diag([-1.0, -1.0, 1.0, 1.0]) @ AFFINE
C, S = np.cos(np.deg2rad(33)), np.sin(np.deg2rad(33))
OBLIQUE = np.array([[C, -S, 0, 0], [S, C, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ AFFINE


def check_refusal(path, *parts, **kwargs):
    with pytest.raises(InputError) as caught:
        read_volume(path, **kwargs)
    (message,) = caught.value.problems
    assert message.startswith(f"{path}: expected ")
    assert "\n" not in message
    for part in parts:
        assert part in message


def save_itk(path, voxels=VOXELS, affine=AFFINE, **kwargs):
    """Write [I, J, K] voxels and a RAS+ affine by ITK's own rules: (z, y, x) and LPS."""
    image = sitk.GetImageFromArray(voxels.transpose(2, 1, 0), **kwargs)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(path), True)
    return path


@pytest.mark.parametrize("name", ["case.nrrd", "case.nhdr", "case.mha", "case.mhd"])
@pytest.mark.parametrize(
    "affine",
    [
        pytest.param(AFFINE, id="RAS"),
        pytest.param(FLIPPED, id="LPS"),
        pytest.param(OBLIQUE, id="oblique"),
        pytest.param(AFFINE[:, [2, 0, 1, 3]], id="axes swapped"),
    ],
)
def test_itk_files_are_at_the_same_place(tmp_path, name, affine):
    path = save_itk(tmp_path / name, affine=affine)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.voxels, VOXELS)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-6)
    shape, from_header = read_header(path)
    assert shape == SHAPE
    np.testing.assert_array_equal(from_header, volume.affine)


def test_itk_and_nibabel_read_one_nifti_alike(tmp_path):
    write_nifti(tmp_path / "case.nii.gz", VOXELS, OBLIQUE)
    image = sitk.ReadImage(str(tmp_path / "case.nii.gz"))
    sitk.WriteImage(image, str(tmp_path / "case.mha"))
    ours, theirs = (read_volume(tmp_path / f"case.{end}") for end in ("nii.gz", "mha"))
    np.testing.assert_allclose(theirs.affine, ours.affine, atol=1e-5)
    np.testing.assert_array_equal(theirs.voxels, ours.voxels)


@pytest.mark.parametrize(
    ("name", "old", "new", "parts"),
    [
        pytest.param(
            "case.nrrd",
            b"space: left-posterior-superior",
            b"space dimension: 3",
            ("LPS, LAS or RAS", "got none"),
            id="nrrd without a space",
        ),
        pytest.param(
            "case.nrrd",
            b"space: left-posterior-superior",
            b"space: scanner-xyz",
            ("LPS, LAS or RAS", "got scanner-xyz"),
            id="nrrd in scanner axes",
        ),
        pytest.param(
            "case.nrrd",
            b"encoding:",
            b'space units: "um" "um" "um"\nencoding:',
            ("space units mm", '"um"'),
            id="nrrd in microns",
        ),
        pytest.param(
            "case.mha",
            b"TransformMatrix = ",
            b"Comment = ",
            ("a TransformMatrix", "got none"),
            id="mha without a matrix",
        ),
        pytest.param(
            "case.mha",
            b"ElementSpacing",
            b"Comment",
            ("an ElementSpacing, got none",),
            id="no spacing",
        ),
        pytest.param("case.mha", b"Offset", b"Commen", ("an Offset, got none",), id="no origin"),
        pytest.param(
            "case.mha",
            b"ElementSpacing",
            b"DistanceUnits = um\nElementSpacing",
            ("DistanceUnits mm, got um",),
            id="mha in microns",
        ),
        pytest.param(
            "case.mha",
            b"ElementSpacing",
            b"DistanceUnits = CM\nElementSpacing",
            ("DistanceUnits mm, got cm",),
            id="mha in centimetres",
        ),
        pytest.param(
            "case.mha",
            b"ElementSpacing",
            b"Seq_Frame0000_ProbeToTrackerTransform = 1 0 0 0\nElementSpacing",
            ("one volume, got a recording of frames (seq_frame0000_probe",),
            id="frames of a tracked probe",
        ),
        pytest.param(
            "case.nrrd",
            b"space origin:",
            b"content:",
            ("a space origin, got none",),
            id="nrrd origin",
        ),
        pytest.param(
            "case.nrrd",
            b"kinds: domain domain domain",
            b"kinds: domain domain time",
            ("axes in the body, got kinds time",),
            id="nrrd over time",
        ),
        pytest.param("case.nrrd", b"NRRD", b"nope", ("a whole image",), id="not an nrrd"),
        pytest.param("case.mha", b"MET_SHORT", b"MET_LONGISH", ("a whole image",), id="no mha"),
    ],
)
def test_itk_files_that_cannot_be_trusted(tmp_path, name, old, new, parts):
    path = save_itk(tmp_path / name)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))
    check_refusal(path, *parts, trust_missing_affine="whole image" in parts[0])


def test_an_nrrd_axis_without_a_direction(tmp_path):
    path = save_itk(tmp_path / "case.nrrd")
    text = path.read_bytes()
    start = text.index(b"space directions:")
    line = text[start : text.index(b"\n", start)]
    path.write_bytes(text.replace(line, b"space directions: (1,0,0) (0,1,0) (nan,nan,nan)"))
    check_refusal(path, "3 numbers as space directions, got nan nan nan")


@pytest.mark.parametrize("name", ["case.nrrd", "case.nhdr", "case.mha", "case.mhd"])
def test_compressed_voxels_with_a_flipped_bit_are_never_others(tmp_path, name):
    """Of a MetaImage ITK reads them without a word."""
    voxels = np.random.default_rng(0).integers(0, 999, SHAPE).astype(np.int16)
    path = save_itk(tmp_path / name, voxels)
    packed = next(p for p in (tmp_path / "case.raw.gz", tmp_path / "case.zraw", path) if p.exists())
    whole, rng = packed.read_bytes(), np.random.default_rng(1)
    refused = 0
    for bit in rng.choice(np.arange(8 * (len(whole) - 150), 8 * len(whole)), 60, replace=False):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << (bit % 8)
        packed.write_bytes(data)
        try:  # a last byte may have bits that nothing reads
            np.testing.assert_array_equal(read_volume(path).voxels, voxels)
        except InputError as error:
            assert "expected a whole image" in str(error)
            refused += 1
    assert refused > 55
    packed.write_bytes(whole)
    np.testing.assert_array_equal(read_volume(path).voxels, voxels)


@pytest.mark.parametrize("name", ["case.nrrd", "case.mha"])
def test_itk_files_cut_short(tmp_path, name):
    path = save_itk(tmp_path / name)
    path.write_bytes(path.read_bytes()[:-20])
    check_refusal(path, "a whole image", "cannot be read (")


def test_itk_colours_and_values_that_are_not_finite(tmp_path):
    image = sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True)
    sitk.WriteImage(image, str(tmp_path / "colour.mha"))
    check_refusal(tmp_path / "colour.mha", "one real number a voxel", "got 3 of type")
    voxels = VOXELS.astype(np.float32)
    voxels[1, 2, 3] = np.nan
    path = save_itk(tmp_path / "nan.nrrd", voxels)
    check_refusal(path, "finite voxels", "got 1 ")


@pytest.mark.parametrize("name", ["case.nrrd", "case.mha"])
def test_a_missing_orientation_can_be_trusted_on_demand(tmp_path, name):
    path = save_itk(tmp_path / name)
    stated = {"case.nrrd": b"space: left-posterior-superior", "case.mha": b"TransformMatrix = "}
    other = {"case.nrrd": b"space dimension: 3", "case.mha": b"Comment = "}
    path.write_bytes(path.read_bytes().replace(stated[name], other[name], 1))
    check_refusal(path, "how the volume lies in the body")
    volume = read_volume(path, trust_missing_affine=True)
    np.testing.assert_array_equal(volume.voxels, VOXELS)
    assert np.isfinite(volume.affine).all()


def test_flat_images_and_sequences_are_refused(tmp_path):
    flat = sitk.GetImageFromArray(np.zeros((4, 5), np.uint8))
    sitk.WriteImage(flat, str(tmp_path / "flat.mha"))
    check_refusal(tmp_path / "flat.mha", "three axes", "(5, 4)")
    sequence = sitk.GetImageFromArray(np.zeros((2, 4, 5, 6), np.uint8), isVector=False)
    sitk.WriteImage(sequence, str(tmp_path / "sequence.mha"))
    check_refusal(tmp_path / "sequence.mha", "one volume", "(6, 5, 4, 2)")


def save_text(folder, name, text, voxels=b""):
    path = folder / name
    path.write_bytes(text.encode() + voxels)
    return path


NRRD = (
    "NRRD0004\ntype: short\ndimension: 3\nspace: LPS\nsizes: 2 2 3\nspace origin: (0,0,0)\n"
    "space directions: (1,0,0) (0,1,0) (0,0,1)\nendian: little\nencoding: raw\n"
)
META = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
    "CompressedData = False\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
    "ElementSpacing = 1 1 1\nDimSize = 2 2 3\nElementType = MET_SHORT\nElementDataFile = "
)
TWELVE = np.arange(12, dtype="<i2")


@pytest.mark.parametrize(
    ("name", "text", "voxels"),
    [
        ("c.nrrd", NRRD + "note:=" + 90_000 * "x" + "\n\n", TWELVE.tobytes()),
        ("c.nrrd", NRRD.replace("raw", "text") + "\n", b" ".join(b"%d" % n for n in range(12))),
        (
            "c.nrrd",
            NRRD.replace("raw", "gzip") + "byte skip: 4\n\n",
            gzip.compress(b"skip" + TWELVE.tobytes(), mtime=0),
        ),
        ("c.nrrd", NRRD.replace("raw", "bzip2") + "\n", bz2.compress(TWELVE.tobytes())),
        (
            "c.nrrd",
            NRRD.replace("dimension: 3", "dimension: 4")
            .replace("2 2 3", "1 2 2 3")
            .replace("directions:", "directions: none")
            + "kinds: list domain domain domain\n\n",
            TWELVE.tobytes(),
        ),
        ("c.nhdr", NRRD + "data file: dét ä 100%.raw\n\n", b""),
        ("c.mhd", META + "dét ä 100%.raw\n", b""),
        ("c.mha", "\n" + META + "LOCAL\n", TWELVE.tobytes()),
        (
            "c.mha",
            META.replace("ElementSp", "ElementSize = 0.5 0.5 0.5\nElementSp")
            .replace("Binary", "ElementByteOrderMSB = false\nBinary", 1)
            .replace("\n", "\r\n")
            + "LOCAL\r\n",
            TWELVE.tobytes(),
        ),
    ],
)
def test_forms_that_a_header_may_have(tmp_path, name, text, voxels):
    (tmp_path / "dét ä 100%.raw").write_bytes(TWELVE.tobytes())
    volume = read_volume(save_text(tmp_path, name, text, voxels))
    np.testing.assert_array_equal(volume.voxels, TWELVE.reshape((2, 2, 3), order="F"))
    np.testing.assert_array_equal(volume.affine, np.diag([-1.0, -1, 1, 1]))


@pytest.mark.parametrize(
    ("name", "text", "voxels", "words"),
    [
        ("c.nrrd", NRRD.replace("raw", "text"), b"70000 " * 12, "numbers that are no int16"),
        ("c.nrrd", NRRD.replace("raw", "text"), b"1.5 " * 12, "numbers that are no int16"),
        ("c.nrrd", NRRD.replace("raw", "text"), b"nan " * 12, "not finite"),
        ("c.nrrd", NRRD.replace("raw", "text"), b"1_0 " * 12, "cannot be read"),
        ("c.nrrd", NRRD + 'units: "um" "um" "um"\n', TWELVE.tobytes(), "no units beside"),
        ("c.nrrd", NRRD + "spacings: 2 2 2\n", TWELVE.tobytes(), "no spacings beside"),
        ("c.nrrd", NRRD + "axis mins: 5 5 5\n", TWELVE.tobytes(), "no axis mins beside"),
        (
            "c.nrrd",
            NRRD.replace("raw", "bzip2"),
            bz2.compress(TWELVE.tobytes()) + b"more",
            "bytes behind the packed voxels",
        ),
        ("c.nrrd", NRRD, TWELVE.tobytes() + b"12", "26 bytes of voxels for 24"),
        ("c.nrrd", NRRD + f"data file: {300 * 'x'}\n", b"", "no such file"),
        ("c.mhd", META + 300 * "n" + "\n", b"", "no such file"),
        ("c.nhdr", NRRD + "data file: f%03d.raw 1 3 1\n", b"", "its voxels in one file"),
    ],
)
def test_voxels_that_are_not_what_the_header_says(tmp_path, name, text, voxels, words):
    text += "\n" if name != "c.mhd" else ""
    check_refusal(save_text(tmp_path, name, text, voxels), words)
