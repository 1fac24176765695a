"""The cohort on disk: what is in the files, where things lie, and going on after a stop."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from fetal_jax.errors import InputError
from fetal_jax.io import phantom_files
from fetal_jax.phantom import anatomy

ASKED = {"subjects": 3, "seed": 5, "side": 24, "spacing_mm": 4.0}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("cohort")
    phantom_files.write_cohort(root, **ASKED)
    return root


def read_bytes(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def read_rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_files_of_a_cohort(root):
    assert sorted(read_bytes(root)) == [
        "cases.csv",
        "landmarks.csv",
        *(f"landmarks/phantom-000{i}.mrk.json" for i in (1, 2, 3)),
        "phantom.json",
        *(f"volumes/phantom-000{i}.nii.gz" for i in (1, 2, 3)),
    ]


def test_tables(root):
    cases = read_rows(root / "cases.csv")
    assert [row["case"] for row in cases] == ["phantom-0001", "phantom-0002", "phantom-0003"]
    assert [row["subject"] for row in cases] == ["s0001", "s0002", "s0003"]
    assert all(20 <= float(row["gestational_age_weeks"]) <= 38 for row in cases)
    assert all(set(row["visible"].split()) <= set(anatomy.LABELS) for row in cases)
    marks = read_rows(root / "landmarks.csv")
    assert tuple(row["label"] for row in marks) == anatomy.LABELS
    assert {row["label"]: row["mirror"] for row in marks}["alL"] == "alR"
    assert all(row["name"] and row["definition"] for row in marks)


def test_volume_is_stored_as_scanners_do(root):
    image = nib.load(root / "volumes" / "phantom-0001.nii.gz")
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    assert image.get_data_dtype() == np.uint8 and image.shape == (24, 24, 24)
    assert image.header["sform_code"] == image.header["qform_code"] == 1
    np.testing.assert_allclose(image.get_sform(), image.get_qform(), atol=1e-5)
    assert image.header.get_xyzt_units()[0] == "mm"
    # The world's origin is the middle of the volume.
    np.testing.assert_allclose(image.affine @ [11.5, 11.5, 11.5, 1.0], [0, 0, 0, 1], atol=1e-5)


def test_oriented_volume_puts_a_voxel_where_it_belongs():
    volume = np.zeros((5, 6, 7), np.float32)
    volume[4, 1, 2] = 1.0  # right of, behind, and below the centre (2, 2.5, 3)
    stored, affine = phantom_files.orient_volume(volume, 2.0)
    (voxel,) = np.argwhere(stored == 255)
    np.testing.assert_allclose((affine @ [*voxel, 1.0])[:3], [4.0, -3.0, -2.0])


def test_landmarks_lie_at_the_face_in_the_volume(root):
    """Read back by the affine alone: darker a step ahead of the nose than a step behind."""
    for i in (1, 2, 3):
        image = nib.load(root / "volumes" / f"phantom-000{i}.nii.gz")
        markup = json.loads((root / "landmarks" / f"phantom-000{i}.mrk.json").read_text())
        points = {
            p["label"]: np.array(p["position"]) for p in markup["markups"][0]["controlPoints"]
        }
        assert set(points) == set(anatomy.LABELS)
        assert markup["markups"][0]["coordinateSystem"] == "LPS"
        prn = points["prn"] * [-1, -1, 1]

        def brightness(ahead_mm, prn=prn, image=image):
            at = np.linalg.inv(image.affine) @ [*(prn + [0, ahead_mm, 0]), 1.0]
            i, j, k = np.rint(at[:3]).astype(int)
            return np.asarray(image.dataobj)[i, j, k]

        assert max(brightness(0), brightness(-4)) > brightness(10) + 40


def test_resumed_cohort_is_the_same_to_the_byte(root, tmp_path):
    class Stop(Exception):
        pass

    def stop_after_one(done, total):
        assert total == 3
        if done == 1:
            raise Stop

    with pytest.raises(Stop):
        phantom_files.write_cohort(tmp_path, **ASKED, progress=stop_after_one)
    assert not (tmp_path / "cases.csv").exists()
    first = tmp_path / "volumes" / "phantom-0001.nii.gz"
    written = first.stat().st_mtime_ns
    done = []
    phantom_files.write_cohort(tmp_path, **ASKED, progress=lambda i, n: done.append((i, n)))
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert first.stat().st_mtime_ns == written
    assert read_bytes(tmp_path) == read_bytes(root)


def test_another_cohort_is_refused(root):
    with pytest.raises(InputError, match='"seed": 6.*"seed": 5'):
        phantom_files.write_cohort(root, **(ASKED | {"seed": 6}))


def test_folder_with_other_data_is_refused(tmp_path):
    (tmp_path / "volumes").mkdir()
    with pytest.raises(InputError, match="expected an empty folder"):
        phantom_files.write_cohort(tmp_path, **ASKED)
