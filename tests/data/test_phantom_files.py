"""The cohort on disk: what is in the files, where things lie, and going on after a stop."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from fetal_jax.data import phantom_files
from fetal_jax.data.dataset import read_dataset, read_readings
from fetal_jax.errors import InputError
from fetal_jax.io.markups import read_landmarks
from fetal_jax.landmarks import LABELS
from fetal_jax.phantom import anatomy, cohort

ASKED = {"cases": 3, "seed": 5, "spacing_mm": 4.0, "annotators": 2}
ENDS = ("a1.mrk.json", "a2.mrk.json", "mrk.json")


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
        *(f"landmarks/phantom-000{i}.{end}" for i in (1, 2, 3) for end in ENDS),
        "phantom.json",
        *(f"truth/phantom-000{i}.mrk.json" for i in (1, 2, 3)),
        *(f"volumes/phantom-000{i}.nii.gz" for i in (1, 2, 3)),
    ]


def test_tables(root):
    cases = read_rows(root / "cases.csv")
    assert [row["case"] for row in cases] == ["phantom-0001", "phantom-0002", "phantom-0003"]
    subjects = [int(row["subject"][1:]) for row in cases]
    assert subjects[0] == 1
    assert all(b - a in (0, 1) for a, b in zip(subjects[:-1], subjects[1:], strict=True))
    for row in cases:
        assert (row["site"], row["split"]) in {("north", "train"), ("south", "test")}
    assert all(20 <= float(row["gestational_age_weeks"]) <= 38 for row in cases)
    assert all(set(row["visible"].split()) <= set(LABELS) for row in cases)
    marks = read_rows(root / "landmarks.csv")
    assert tuple(row["label"] for row in marks) == LABELS
    assert {row["label"]: row["mirror"] for row in marks}["alL"] == "alR"
    assert all(row["name"] and row["definition"] for row in marks)


def test_the_second_site_has_a_seed_of_its_own(root, tmp_path):
    """Another test seed: other scans of the second site, the same of the first."""
    phantom_files.write_cohort(tmp_path, **ASKED, test_seed=6)
    before, after = read_bytes(root), read_bytes(tmp_path)
    sites = [row["site"] for row in read_rows(tmp_path / "cases.csv")]
    assert sites == ["south", "north", "north"]
    for i, site in enumerate(sites, start=1):
        for name in (f"volumes/phantom-000{i}.nii.gz", f"truth/phantom-000{i}.mrk.json"):
            assert (before[name] == after[name]) == (site == "north"), name


def test_volumes_are_stored_as_scanners_do(root):
    for path in sorted((root / "volumes").iterdir()):
        image = nib.load(path)
        orders = sum(phantom_files.AXIS_ORDERS, ())
        assert "".join(nib.aff2axcodes(image.affine)) in orders
        assert image.get_data_dtype() == np.uint8 and all(14 <= n <= 30 for n in image.shape)
        assert image.header["sform_code"] == image.header["qform_code"] == 1
        np.testing.assert_allclose(image.get_sform(), image.get_qform(), atol=1e-5)
        assert image.header.get_xyzt_units()[0] == "mm"
        spacing = image.header.get_zooms()
        assert max(spacing) > 1.1 * min(spacing)  # no cubes


@pytest.mark.parametrize("site", [0, 1])
def test_stored_volume_keeps_every_voxel_in_its_place(site):
    spacing, origin = np.array([1.0, 2.0, 3.0]), np.array([-10.0, 5.0, 7.0])
    volume = np.random.default_rng(0).random((9, 10, 11))
    for seed in range(8):
        rng = np.random.default_rng(seed)
        stored, affine = phantom_files.store_volume(volume, spacing, origin, site, rng)
        index = np.stack(np.meshgrid(*map(np.arange, stored.shape), indexing="ij"), -1)
        world = index @ affine[:3, :3].T + affine[:3, 3]
        source = np.rint((world - origin) / spacing).astype(int)
        np.testing.assert_allclose(source * spacing + origin, world, atol=1e-9)
        expected = np.rint(255 * volume[tuple(np.moveaxis(source, -1, 0))])
        np.testing.assert_array_equal(stored, expected)
        assert (source.max((0, 1, 2)) + 1 >= np.array([9, 10, 11]) - phantom_files.CROP_VOX).all()


def test_sites_have_their_own_grids_and_cover_the_landmarks():
    for site in (0, 1):
        shapes = set()
        for seed in range(20):
            spacing, shape = phantom_files.choose_grid(site, 1.0, np.random.default_rng(seed))
            shapes.add(shape)
            half = 0.5 * spacing * (np.array(shape) - 1) - phantom_files.CROP_VOX * spacing
            assert half.min() > cohort.ROOM_MM
        assert len(shapes) == 1


def test_cohort_is_read_as_a_data_set(root):
    dataset = read_dataset(root)
    assert len(dataset.cases) == 3 and dataset.labels == LABELS
    assert any("3 cases have readings by single annotators" in t for t in dataset.assumptions)
    readings = read_readings(dataset.cases[0], dataset.labels)
    assert readings.shape == (2, 19, 3) and np.isfinite(readings).all()


def test_truth_keeps_what_annotators_did_not_see(root):
    rows = {row["case"]: row["visible"].split() for row in read_rows(root / "cases.csv")}
    for case, visible in rows.items():
        truth, annotated, first = (
            read_landmarks(root / folder / f"{case}{end}.mrk.json")
            for folder, end in (("truth", ""), ("landmarks", ""), ("landmarks", ".a1"))
        )
        assert tuple(truth) == anatomy.POINTS and tuple(annotated) == LABELS
        for label in LABELS:
            off = np.linalg.norm(truth[label] - annotated[label])
            assert 1e-3 < off < (5.0 if label in visible else 15.0), label
            assert np.linalg.norm(first[label] - truth[label]) < 15.0
            # another annotator, with other habits and slips
            assert np.linalg.norm(first[label] - annotated[label]) > 1e-3


def test_floor_is_what_annotations_are_worth(root):
    rows = {row["case"]: row for row in read_rows(root / "cases.csv")}
    floor = phantom_files.measure_floor(root)
    assert set(floor) == {row["site"] for row in rows.values()}
    for site, found in floor.items():
        off = [
            np.linalg.norm(truth[label] - annotated[label])
            for case, row in rows.items()
            if row["site"] == site
            for truth, annotated in [
                [read_landmarks(root / f / f"{case}.mrk.json") for f in ("truth", "landmarks")]
            ]
            for label in row["visible"].split()
        ]
        assert found.visible_mm == pytest.approx(np.mean(off)) and 0.5 < found.visible_mm < 2.0


def test_landmarks_lie_at_the_face_in_the_volume(root):
    """Read back by the affine alone: darker a step ahead of the nose than a step behind."""
    for i in (1, 2, 3):
        image = nib.load(root / "volumes" / f"phantom-000{i}.nii.gz")
        markup = json.loads((root / "landmarks" / f"phantom-000{i}.mrk.json").read_text())
        points = {
            p["label"]: np.array(p["position"]) for p in markup["markups"][0]["controlPoints"]
        }
        assert set(points) == set(LABELS)
        assert markup["markups"][0]["coordinateSystem"] == "LPS"
        prn = points["prn"] * [-1, -1, 1]

        def brightness(ahead_mm, prn=prn, image=image):
            at = np.linalg.inv(image.affine) @ [*(prn + [0, ahead_mm, 0]), 1.0]
            i, j, k = np.rint(at[:3]).astype(int)
            return np.asarray(image.dataobj)[i, j, k].astype(int)

        assert max(brightness(0), brightness(-4)) > brightness(6) + 30


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
    assert done == [(1, 3), (2, 3), (3, 3)]  # in any order of the cases
    assert first.stat().st_mtime_ns == written
    assert read_bytes(tmp_path) == read_bytes(root)


def test_another_cohort_is_refused(root):
    with pytest.raises(InputError, match='"seed": 6.*"seed": 5'):
        phantom_files.write_cohort(root, **(ASKED | {"seed": 6}))


def test_cohort_of_another_kind_of_face_is_refused(root):
    with pytest.raises(InputError, match='"face": "cleft".*"face": "healthy"'):
        phantom_files.write_cohort(root, **ASKED, face="cleft")


@pytest.mark.parametrize("version", [{}, {"version": 1}])
def test_cohort_of_an_older_phantom_is_refused(tmp_path, version):
    card = version | {"seed": 5, "spacing_mm": 4.0, "annotators": 2}
    (tmp_path / phantom_files.CARD).write_text(json.dumps(card))
    with pytest.raises(InputError, match="got one of version 1: delete it or write into another"):
        phantom_files.write_cohort(tmp_path, **ASKED)


def test_folder_with_other_data_is_refused(tmp_path):
    (tmp_path / "volumes").mkdir()
    with pytest.raises(InputError, match="expected an empty folder"):
        phantom_files.write_cohort(tmp_path, **ASKED)
