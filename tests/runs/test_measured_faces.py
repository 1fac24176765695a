"""Measurements of predicted faces: their gaps, what their errors come to, by hand."""

import numpy as np
import pytest

from fetal_jax.runs import measured_faces


def test_truth_and_prediction(faces, measure_part):
    measured = measure_part(faces, np.full((3, 4), 0.9)).faces
    assert [m.key for m in measured.measurements] == ["inner_canthal", "philtrum_length"]
    np.testing.assert_allclose(measured.truth, [[10, 4], [12, 6], [14, np.nan]])
    np.testing.assert_allclose(measured.predicted, [[11, 4], [14, 6], [17, np.nan]])
    assert measured.gaps == [["", ""], ["", ""], ["", "ls absent"]]


def test_no_number_from_what_is_not_seen_and_not_sure(faces, measure_part):
    confidence = np.full((3, 4), 0.2)  # of visible points that does not matter
    measured = measure_part(faces, confidence).faces
    assert measured.gaps[1] == ["enL not visible, confidence 0.20", ""]
    np.testing.assert_allclose(measured.truth[:, 0], [10, 12, 14])
    np.testing.assert_allclose(measured.predicted[:, 0], [11, np.nan, 17])
    assert measure_part(faces, confidence, min_confidence=0.2).faces.gaps[1] == ["", ""]


def test_a_new_scan_has_no_truth(measure_new_scan):
    predicted_mm = np.zeros((1, 4, 3))
    predicted_mm[0, 1, 0] = 9.0
    measured = measure_new_scan(predicted_mm)
    assert np.isnan(measured.truth).all()
    assert measured.gaps == [["", "ls uncertain, confidence 0.10"]]
    np.testing.assert_array_equal(measured.predicted, [[9.0, np.nan]])


def test_summary_by_hand(faces, measure_part):
    measured = measure_part(faces, np.full((3, 4), 0.9)).faces
    summary = measured_faces.summarise_measurements(measured, faces.subjects)
    inner, philtrum = summary["inner_canthal"], summary["philtrum_length"]
    assert inner["n"] == 3 and inner["gaps"] == 0 and inner["unit"] == "mm"
    assert (inner["true_mean"], inner["bias"], inner["mean_abs_error"]) == (12.0, 2.0, 2.0)
    assert inner["error_sd"] == pytest.approx(1.0)
    assert inner["limits"] == pytest.approx([2 - 1.96, 2 + 1.96])
    assert inner["mean_abs_error_ci"] == pytest.approx([1.0, 3.0])  # one child drawn thrice
    assert (philtrum["n"], philtrum["gaps"], philtrum["bias"]) == (2, 1, 0.0)


def test_faces_of_two_folds(faces, measure_part):
    sure, unsure = (measure_part(faces, np.full((3, 4), c)).faces for c in (0.9, 0.2))
    joined = measured_faces.join_faces([sure, unsure])
    assert joined.truth.shape == (6, 2) and joined.measurements == sure.measurements
    np.testing.assert_allclose(joined.predicted[:, 0], [11, 14, 17, 11, np.nan, 17])
    assert [row[0] for row in joined.gaps] == [""] * 4 + ["enL not visible, confidence 0.20", ""]
