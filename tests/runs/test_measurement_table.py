"""Measurements of cases: their rows, their gaps, and what their errors come to, by hand."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from fetal_jax.runs import measurement_table

LABELS = ["enL", "enR", "sn", "ls"]


@pytest.fixture
def prepared(make_prepared):
    """Three children; en-en 10, 12 and 14 mm, sn-ls 4, 6 mm and absent; 2 mm a voxel."""
    points = np.zeros((3, 4, 3))
    points[:, 0, 0] = [1.0, 0.5, 0.0]
    points[:, 1, 0] = [6.0, 6.5, 7.0]
    points[:, 3, 2] = [2.0, 3.0, np.nan]
    found = make_prepared(points, completed=[(1, 0)], subjects=["s0", "s1", "s2"])
    cases = [replace(c, site="north", age_weeks=20.0 + i) for i, c in enumerate(found.cases)]
    return replace(found, cases=tuple(cases))


def measure(prepared, confidence, min_confidence=0.5):
    found_mm = np.where(prepared.present[..., None], prepared.points_mm, 0.0)
    found_mm[:, 1, 0] += [1.0, 2.0, 3.0]  # en-en comes out wider
    return measurement_table.measure_cases(
        prepared, found_mm, confidence, LABELS, min_confidence=min_confidence
    )


def test_true_and_found(prepared):
    faces = measure(prepared, np.full((3, 4), 0.9))
    assert [m.key for m in faces.measurements] == ["inner_canthal", "philtrum_length"]
    np.testing.assert_allclose(faces.true, [[10, 4], [12, 6], [14, np.nan]])
    np.testing.assert_allclose(faces.found, [[11, 4], [14, 6], [17, np.nan]])
    assert faces.gaps == [["", ""], ["", ""], ["", "ls absent"]]


def test_no_number_from_what_is_not_seen_and_not_sure(prepared):
    confidence = np.full((3, 4), 0.2)  # of visible points that does not matter
    faces = measure(prepared, confidence)
    assert faces.gaps[1] == ["enL not visible, confidence 0.20", ""]
    np.testing.assert_allclose(faces.true[:, 0], [10, 12, 14])
    np.testing.assert_allclose(faces.found[:, 0], [11, np.nan, 17])
    assert measure(prepared, confidence, min_confidence=0.2).gaps[1] == ["", ""]


def test_a_new_scan_has_no_truth():
    found_mm = np.zeros((1, 4, 3))
    found_mm[0, 1, 0] = 9.0
    faces = measurement_table.measure_predictions(
        found_mm, np.array([[0.9, 0.9, 0.9, 0.1]]), LABELS, min_confidence=0.5
    )
    assert np.isnan(faces.true).all() and faces.gaps == [["", "ls uncertain, confidence 0.10"]]
    np.testing.assert_array_equal(faces.found, [[9.0, np.nan]])


def test_summary_by_hand(prepared):
    faces = measure(prepared, np.full((3, 4), 0.9))
    found = measurement_table.summarise_measurements(faces, prepared.subjects)
    inner, philtrum = found["inner_canthal"], found["philtrum_length"]
    assert inner["n"] == 3 and inner["gaps"] == 0 and inner["unit"] == "mm"
    assert (inner["true_mean"], inner["bias"], inner["mean_abs_error"]) == (12.0, 2.0, 2.0)
    assert inner["error_sd"] == pytest.approx(1.0)
    assert inner["limits"] == pytest.approx([2 - 1.96, 2 + 1.96])
    assert inner["mean_abs_error_ci"] == pytest.approx([1.0, 3.0])  # one child drawn thrice
    assert (philtrum["n"], philtrum["gaps"], philtrum["bias"]) == (2, 1, 0.0)


def test_a_table_of_cases(prepared, tmp_path):
    faces = measure(prepared, np.full((3, 4), 0.2))
    measurement_table.write_measurements(tmp_path / "m.csv", [("2", prepared, faces)])
    with (tmp_path / "m.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == measurement_table.COLUMNS and len(rows) == 6
    assert [row["error"] for row in rows] == ["1.000", "0.000", "", "0.000", "3.000", ""]
    blank = rows[2]
    assert (blank["case"], blank["measurement"], blank["prediction"]) == ("c1", "inner_canthal", "")
    assert blank["truth"] == "12.000" and blank["note"] == "enL not visible, confidence 0.20"
    assert (blank["site"], blank["gestational_age_weeks"], blank["fold"]) == ("north", "21", "2")


def test_a_table_of_new_scans(tmp_path):
    faces = measurement_table.measure_predictions(
        np.zeros((1, 4, 3)), np.array([[0.9, 0.9, 0.9, 0.1]]), LABELS, min_confidence=0.5
    )
    measurement_table.write_new_measurements(tmp_path / "m.csv", ["scan"], faces)
    with (tmp_path / "m.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["case"], r["measurement"], r["value"], r["note"]) for r in rows] == [
        ("scan", "inner_canthal", "0.000", ""),
        ("scan", "philtrum_length", "", "ls uncertain, confidence 0.10"),
    ]
