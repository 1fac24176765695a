"""Measurements of predicted faces: their rows, their gaps, what their errors come to, by hand."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from fetal_jax.errors import InputError
from fetal_jax.runs import measurement_table
from fetal_jax.runs.predictions import Predictions
from fetal_jax.runs.summary import Part, make_part

LABELS = ["enL", "enR", "sn", "ls"]


@pytest.fixture
def faces(make_prepared):
    """Three children; en-en 10, 12 and 14 mm, sn-ls 4, 6 mm and absent; 2 mm a voxel."""
    points = np.zeros((3, 4, 3))
    points[:, 0, 0] = [1.0, 0.5, 0.0]
    points[:, 1, 0] = [6.0, 6.5, 7.0]
    points[:, 3, 2] = [2.0, 3.0, np.nan]
    made = make_prepared(points, completed=[(1, 0)], subjects=["s0", "s1", "s2"])
    cases = [replace(c, site="north", age_weeks=20.0 + i) for i, c in enumerate(made.cases)]
    return replace(made, cases=tuple(cases))


def make(faces, confidence, *, min_confidence=0.5, fold="") -> Part:
    """en-en comes out wider by 1, 2 and 3 mm."""
    predicted_mm = np.where(faces.present[..., None], faces.points_mm, 0.0)
    predicted_mm[:, 1, 0] += [1.0, 2.0, 3.0]
    predictions = Predictions(predicted_mm, predicted_mm, confidence, predicted_mm, predicted_mm)
    unknown = np.zeros((3, 4))
    return make_part(fold, faces, predictions, LABELS, unknown, min_confidence=min_confidence)


def test_truth_and_prediction(faces):
    measured = make(faces, np.full((3, 4), 0.9)).faces
    assert [m.key for m in measured.measurements] == ["inner_canthal", "philtrum_length"]
    np.testing.assert_allclose(measured.truth, [[10, 4], [12, 6], [14, np.nan]])
    np.testing.assert_allclose(measured.predicted, [[11, 4], [14, 6], [17, np.nan]])
    assert measured.gaps == [["", ""], ["", ""], ["", "ls absent"]]


def test_no_number_from_what_is_not_seen_and_not_sure(faces):
    confidence = np.full((3, 4), 0.2)  # of visible points that does not matter
    measured = make(faces, confidence).faces
    assert measured.gaps[1] == ["enL not visible, confidence 0.20", ""]
    np.testing.assert_allclose(measured.truth[:, 0], [10, 12, 14])
    np.testing.assert_allclose(measured.predicted[:, 0], [11, np.nan, 17])
    assert make(faces, confidence, min_confidence=0.2).faces.gaps[1] == ["", ""]


def measure_new_scan(predicted_mm):
    return measurement_table.measure_predictions(
        predicted_mm, np.array([[0.9, 0.9, 0.9, 0.1]]), LABELS, min_confidence=0.5
    )


def test_a_new_scan_has_no_truth():
    predicted_mm = np.zeros((1, 4, 3))
    predicted_mm[0, 1, 0] = 9.0
    measured = measure_new_scan(predicted_mm)
    assert np.isnan(measured.truth).all()
    assert measured.gaps == [["", "ls uncertain, confidence 0.10"]]
    np.testing.assert_array_equal(measured.predicted, [[9.0, np.nan]])


def test_summary_by_hand(faces):
    measured = make(faces, np.full((3, 4), 0.9)).faces
    summary = measurement_table.summarise_measurements(measured, faces.subjects)
    inner, philtrum = summary["inner_canthal"], summary["philtrum_length"]
    assert inner["n"] == 3 and inner["gaps"] == 0 and inner["unit"] == "mm"
    assert (inner["true_mean"], inner["bias"], inner["mean_abs_error"]) == (12.0, 2.0, 2.0)
    assert inner["error_sd"] == pytest.approx(1.0)
    assert inner["limits"] == pytest.approx([2 - 1.96, 2 + 1.96])
    assert inner["mean_abs_error_ci"] == pytest.approx([1.0, 3.0])  # one child drawn thrice
    assert (philtrum["n"], philtrum["gaps"], philtrum["bias"]) == (2, 1, 0.0)


def test_faces_of_two_folds(faces):
    sure, unsure = (make(faces, np.full((3, 4), c)).faces for c in (0.9, 0.2))
    joined = measurement_table.join_faces([sure, unsure])
    assert joined.truth.shape == (6, 2) and joined.measurements == sure.measurements
    np.testing.assert_allclose(joined.predicted[:, 0], [11, 14, 17, 11, np.nan, 17])
    assert [row[0] for row in joined.gaps] == [""] * 4 + ["enL not visible, confidence 0.20", ""]


def test_a_table_of_cases(faces, tmp_path):
    part = make(faces, np.full((3, 4), 0.2), fold="2")
    measurement_table.write_tested_measurements(tmp_path / "m.csv", [part])
    with (tmp_path / "m.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert ",".join(rows[0]) == (
        "case,measurement,name,unit,truth,prediction,error,note,"
        "subject,site,gestational_age_weeks,fold"
    )
    assert [row["error"] for row in rows] == ["1.000", "0.000", "", "0.000", "3.000", ""]
    blank = rows[2]
    assert (blank["case"], blank["measurement"], blank["prediction"]) == ("c1", "inner_canthal", "")
    assert blank["truth"] == "12.000" and blank["note"] == "enL not visible, confidence 0.20"
    assert (blank["site"], blank["gestational_age_weeks"], blank["fold"]) == ("north", "21", "2")
    read = measurement_table.read_measurement_rows(tmp_path / "m.csv")
    assert read.measurement.tolist() == ["inner_canthal", "philtrum_length"] * 3
    np.testing.assert_array_equal(read.truth, [10, 4, 12, 6, 14, np.nan])
    np.testing.assert_array_equal(read.predicted, [11, 4, np.nan, 6, 17, np.nan])
    assert read.age_weeks.tolist() == [20, 20, 21, 21, 22, 22]


def test_what_is_no_table_of_measurements_is_refused(tmp_path):
    (tmp_path / "m.csv").write_text("case,measurement\n")
    with pytest.raises(InputError, match="m.csv: expected a column 'truth'"):
        measurement_table.read_measurement_rows(tmp_path / "m.csv")


def test_a_table_of_new_scans(tmp_path):
    measured = measure_new_scan(np.zeros((1, 4, 3)))
    measurement_table.write_new_measurements(tmp_path / "m.csv", ["scan"], measured)
    with (tmp_path / "m.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["case"], r["measurement"], r["value"], r["note"]) for r in rows] == [
        ("scan", "inner_canthal", "0.000", ""),
        ("scan", "philtrum_length", "", "ls uncertain, confidence 0.10"),
    ]
