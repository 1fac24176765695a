"""Results from fake predictions, so that each number is arithmetic."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from fetal_jax.errors import InputError
from fetal_jax.io.markups import read_landmarks
from fetal_jax.runs import predictions as evaluate

LABELS = ["L", "R", "nose"]
RADII = [2.0, 3.0]
# offsets of the predictions: errors of 5, 1, 2 mm; 3, -, 7 mm; 1, 4, 100 mm
OFFSETS = np.zeros((3, 3, 3))
OFFSETS[0] = [[3, 4, 0], [0, 0, 1], [0, 2, 0]]
OFFSETS[1] = [[0, 0, -3], [9, 9, 9], [2, 3, 6]]
OFFSETS[2] = [[1, 0, 0], [0, -4, 0], [60, 80, 0]]


@pytest.fixture
def prepared(make_prepared):
    points = np.full((3, 3, 3), 3.0)
    points[1, 1] = np.nan
    points[2, 2] = [4.0, 3.0, 3.0]
    # two cases of one subject; the nose of the last was completed
    return make_prepared(points, completed=[(2, 2)], subjects=["s0", "s1", "s1"])


@pytest.fixture
def found_mm(prepared):
    return np.where(prepared.present[..., None], prepared.points_mm, 50.0) + OFFSETS


ELA_RADII = np.array([1.0, 20.0])


def measure(prepared, found_mm, confidence=None):
    """Peaks 1 mm off along each axis; a local accuracy of 0.5 mm, then of 1 to 9 mm."""
    local = np.stack([np.full((3, 3), 0.5), np.arange(1.0, 10).reshape(3, 3)], axis=-1)
    confidence = np.full((3, 3), 0.5) if confidence is None else confidence
    return evaluate.Measured(found_mm, prepared.points_mm + 1.0, confidence, local, 2 * local)


def summarise(prepared, found_mm, confidence=None):
    guess_mm = 2.0 * np.array([[3.0, 3, 3], [3, 3, 5], [2, 3, 3]])  # off by 0, 2 and 1 voxels
    return evaluate.summarise(
        prepared,
        LABELS,
        measure(prepared, found_mm, confidence),
        evaluate.guess_errors(prepared, guess_mm),
        radii_mm=RADII,
        ela_radii_mm=ELA_RADII,
        age_groups_weeks=[24.0, 28.0],
        confidence_radius_mm=3.0,
        min_confidence=0.5,
    )


def test_summary_by_hand(prepared, found_mm):
    results = summarise(prepared, found_mm)
    assert results["cases"] == 3 and results["landmarks"] == 7  # 5 1 2 3 7 1 4
    assert results["d_mean_mm"] == pytest.approx(23 / 7)
    assert results["d_median_mm"] == pytest.approx(3.0)
    deviations = [(e - 23 / 7) ** 2 for e in (5, 1, 2, 3, 7, 1, 4)]
    assert results["d_sd_mm"] == pytest.approx(math.sqrt(sum(deviations) / 6))
    assert results["success_rate"] == pytest.approx({"2.0": 3 / 7, "3.0": 4 / 7})
    # subjects have means of 8 / 3 and 15 / 4, each drawn twice in a quarter of the resamples
    assert results["d_mean_ci_mm"] == pytest.approx([8 / 3, 15 / 4])
    assert results["argmax_d_mean_mm"] == pytest.approx(math.sqrt(3))
    # 0 + 4 + 2, 0 + 2, 0 + 4 mm
    assert results["guess_d_mean_mm"] == pytest.approx(12 / 7)


def test_landmarks_apart(prepared, found_mm):
    per = summarise(prepared, found_mm)["per_landmark"]
    assert list(per) == LABELS
    assert [per[label]["n"] for label in LABELS] == [3, 2, 2]
    means = [per[label]["d_mean_mm"] for label in LABELS]
    assert means == pytest.approx([3.0, 2.5, 4.5])
    assert per["R"]["success_rate"] == {"2.0": 0.5, "3.0": 0.5}


def test_completed_landmarks_are_apart(prepared, found_mm):
    completed = summarise(prepared, found_mm)["completed"]
    assert completed["n"] == 1 and completed["d_mean_mm"] == pytest.approx(100.0)
    assert completed["d_sd_mm"] is None


def test_nothing_visible_gives_nulls(prepared, found_mm):
    prepared.visible[:] = False
    results = summarise(prepared, found_mm)
    assert results["landmarks"] == 0 and results["d_mean_mm"] is None
    assert results["d_mean_ci_mm"] is results["guess_d_mean_mm"] is None
    assert results["completed"]["n"] == 8
    json.dumps(results, allow_nan=False)
    text = evaluate.format_results(results)
    assert text == "3 test cases, none with a visible landmark: nothing measured"


def test_files(tmp_path, prepared, found_mm):
    confidence = np.linspace(0.1, 0.9, 9).reshape(3, 3)
    results = summarise(prepared, found_mm)
    measured = measure(prepared, found_mm, confidence)
    evaluate.write_results(tmp_path, results, prepared, LABELS, measured, min_confidence=0.5)
    assert not (tmp_path / "measurements.csv").exists()  # of no face
    for saved, array in zip(
        evaluate.read_measured(tmp_path / "predictions.npz"), measured, strict=True
    ):
        np.testing.assert_array_equal(saved, array)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert ",".join(rows[0]) == (
        "case,label,truth_x,truth_y,truth_z,prediction_x,prediction_y,prediction_z,"
        "error_mm,visible,confidence,subject,site,gestational_age_weeks,fold"
    )
    assert [row["subject"] for row in rows] == ["s0"] * 3 + ["s1"] * 6
    assert [(row["case"], row["label"]) for row in rows] == [
        (f"c{i}", label) for i in range(3) for label in LABELS
    ]
    errors = [row["error_mm"] for row in rows]
    assert errors == [f"{e:.4f}" if e else "" for e in (5, 1, 2, 3, 0, 7, 1, 4, 100)]
    absent, completed = rows[4], rows[8]
    assert absent["truth_x"] == absent["truth_y"] == absent["truth_z"] == ""
    assert [float(absent[f"prediction_{axis}"]) for axis in "xyz"] == [59.0, 59.0, 59.0]
    assert [row["visible"] for row in rows] == list("111101110")
    # voxel (4, 3, 3) of 2 mm from (20, 0, -5)
    assert [float(completed[f"truth_{axis}"]) for axis in "xyz"] == [28.0, 6.0, 1.0]
    assert [row["confidence"] for row in rows] == [f"{c:.4f}" for c in confidence.ravel()]
    written = sorted(path.name for path in (tmp_path / "predictions").iterdir())
    assert written == ["c0.mrk.json", "c1.mrk.json", "c2.mrk.json"]
    for i in range(3):
        path = tmp_path / "predictions" / f"c{i}.mrk.json"
        points = read_landmarks(path)
        assert list(points) == LABELS
        np.testing.assert_allclose(list(points.values()), found_mm[i], atol=1e-9)
        assert f'"confidence {confidence[i, 1]:.3f}"' in path.read_text()


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\x03\x04 cut off"])
def test_what_a_run_found_is_missing_or_broken(tmp_path, content):
    path = tmp_path / "predictions.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="predictions.npz: expected what a run found, got"):
        evaluate.read_measured(path)


def test_result_for_a_person(prepared, found_mm):
    assert evaluate.format_results(summarise(prepared, found_mm)).splitlines() == [
        "3 test cases, 7 visible landmarks",
        "  d-mean 3.29 mm (95 % interval 2.67 to 3.75), median 3.00 mm",
        "  43 % within 2 mm, 57 % within 3 mm",
        "  best R 2.50 mm, worst nose 4.50 mm",
        "  a guess that ignores the image: 1.71 mm",
    ]


def test_sites_and_ages_apart(prepared, found_mm):
    """Errors 5 1 2 | 3 7 | 1 4 of three cases."""
    sites, ages = ("a", "b", ""), (23.9, 24.0, math.nan)
    cases = [
        replace(case, site=site, age_weeks=age)
        for case, site, age in zip(prepared.cases, sites, ages, strict=True)
    ]
    results = summarise(replace(prepared, cases=tuple(cases)), found_mm)
    assert {k: v["d_mean_mm"] for k, v in results["per_site"].items()} == pytest.approx(
        {"a": 8 / 3, "b": 5.0, "unknown": 2.5}
    )
    assert {k: v["n"] for k, v in results["per_age_group"].items()} == {
        "<24": 3,
        "24-28": 2,
        "unknown": 2,
    }


def test_local_accuracy_is_a_mean_of_the_landmarks_means(prepared, found_mm):
    ela = summarise(prepared, found_mm)["ela"]
    assert ela["radii_mm"] == [1.0, 20.0]
    # at 20 mm the cases have 1 2 3, 4 5 6, 7 8 9; R is absent in the second, nose not visible last
    each = {"L": 4.0, "R": 5.0, "nose": 4.5}
    assert {label: curve[1] for label, curve in ela["per_landmark"].items()} == each
    assert ela["overall"] == [0.5, 4.5] and ela["guess"] == [1.0, 9.0]


def test_an_ensemble_is_the_mean_point(prepared, found_mm):
    a = measure(prepared, found_mm)
    mean = evaluate.average_measured([a, a._replace(found_mm=found_mm + 2.0)])
    np.testing.assert_allclose(mean.found_mm, found_mm + 1.0)
    assert np.isnan(mean.local_mm).all()


def test_annotators_apart(prepared, found_mm):
    prepared.spread_mm[:2, 0] = [1.0, 2.0]
    prepared.spread_mm[2, 2] = 50.0  # not visible
    results = summarise(prepared, found_mm)
    assert results["annotators"] == {"n": 2, "apart_mm": 1.5}
    assert "two annotators are 1.50 mm apart" in evaluate.format_results(results)


def test_which_landmarks_can_be_trusted(prepared, found_mm):
    """Within 3 mm: of L the second and third, of R the first, of the nose the first."""
    per = summarise(prepared, found_mm, np.arange(9.0).reshape(3, 3) / 10)["per_landmark"]
    assert {k: v["within_radius"] for k, v in per.items()} == {"L": 2 / 3, "R": 0.5, "nose": 0.5}
    assert {k: v["confidence_mean"] for k, v in per.items()} == pytest.approx(
        {"L": 0.3, "R": 0.4, "nose": 0.35}
    )
    # Wilson's interval of 2 in 3, z = 1.96, by hand
    z2 = 1.959964**2
    middle, half = (2 + z2 / 2) / (3 + z2), math.sqrt(z2) / (3 + z2) * math.sqrt(2 / 3 + z2 / 4)
    assert per["L"]["within_radius_ci"] == pytest.approx([middle - half, middle + half], rel=1e-5)


def test_what_a_confidence_was_worth(prepared, found_mm):
    """Visible: 0.0 0.1 0.2 | 0.3 - 0.5 | 0.6 0.7 -, of which 0.1 0.2 0.3 0.6 were within 3 mm."""
    confidence = np.arange(9.0).reshape(3, 3) / 10
    found = summarise(prepared, found_mm, confidence)["confidence"]
    assert found["radius_mm"] == 3.0 and sum(b["n"] for b in found["bins"]) == 7
    squares = [0.0, 0.9**2, 0.8**2, 0.7**2, 0.5**2, 0.4**2, 0.7**2]
    assert found["brier"] == pytest.approx(sum(squares) / 7)
    right = sum(b["n"] * b["share"] for b in found["bins"])
    promised = sum(b["n"] * b["confidence"] for b in found["bins"])
    assert right == pytest.approx(4) and promised == pytest.approx(2.4)
    means = [b["confidence"] for b in found["bins"]]
    assert means == sorted(means)
