"""Measurements of predicted faces: their gaps, what their errors come to, by hand."""

from dataclasses import replace

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
    summary = measured_faces.summarise_measurements([measured], faces.subjects)
    inner, philtrum = summary["inner_canthal"], summary["philtrum_length"]
    assert inner["n"] == 3 and inner["gaps"] == 0 and inner["unit"] == "mm"
    assert (inner["true_mean"], inner["bias"], inner["mean_abs_error"]) == (12.0, 2.0, 2.0)
    assert inner["error_sd"] == pytest.approx(1.0)
    assert inner["limits"] == pytest.approx([2 - 1.96, 2 + 1.96])
    assert inner["bias_ci"] == pytest.approx([1.0, 3.0]) and inner["noise_floor"] is None
    assert inner["mean_abs_error_ci"] == pytest.approx([1.0, 3.0])  # one child drawn thrice
    assert (philtrum["n"], philtrum["gaps"], philtrum["bias"]) == (2, 1, 0.0)


def test_a_bias_of_the_annotators_is_told_from_the_program_s(faces, measure_part):
    """True 8, 11 and 12 mm, annotated 10, 12 and 14, found 11, 14 and 17; the second unknown."""
    true_mm = faces.points_mm.copy()
    wide = np.array([8.0, 11.0, 12.0])
    inner = np.linalg.norm(true_mm[:, 0] - true_mm[:, 1], axis=1)
    true_mm[:, :2] *= (wide / inner)[:, None, None]
    true_mm[1] = np.nan
    measured = measure_part(replace(faces, true_mm=true_mm), np.full((3, 4), 0.9)).faces
    summary = measured_faces.summarise_measurements([measured], faces.subjects)
    exact = summary["inner_canthal"]["exact"]
    assert exact["n"] == 2 and exact["bias"] == pytest.approx(4.0)
    assert exact["annotated_bias"] == pytest.approx(2.0)
    assert exact["bias_ci"] == pytest.approx([3.0, 5.0])
    plain = measure_part(faces, np.full((3, 4), 0.9)).faces
    summary = measured_faces.summarise_measurements([plain], faces.subjects)
    assert summary["inner_canthal"]["exact"] is None


def test_two_scans_of_a_child_are_not_independent(faces, measure_part):
    """Differences 1, 2 and 3 mm; the last two are one child's."""
    measured = measure_part(faces, np.full((3, 4), 0.9)).faces
    inner = measured_faces.summarise_measurements([measured], ["a", "b", "b"])["inner_canthal"]
    # within: 2 (1/2)² / 1; between: 1 (2 - 1)² + 2 (2.5 - 2)² = 1.5, less within, over m0 = 4/3
    assert inner["error_sd"] == pytest.approx(np.sqrt(0.5 + (1.5 - 0.5) / (4 / 3)))
    assert inner["limits"] == pytest.approx([2 - 1.96 * np.sqrt(1.25), 2 + 1.96 * np.sqrt(1.25)])
    assert inner["n"] == 3 and inner["bias"] == 2.0
    assert inner["bias_ci"] == pytest.approx([1.0, 2.5])  # either child drawn twice
    one = measured_faces.summarise_measurements([measured], ["a", "a", "a"])["inner_canthal"]
    assert one["error_sd"] is one["limits"] is one["bias_ci"] is None and one["bias"] == 2.0


def test_a_case_is_measured_once_by_several_models(faces, measure_part):
    """Differences 1, 2, 3 and -3, none, -1 mm: a gap is what no model measured."""
    first = measure_part(faces, np.full((3, 4), 0.9)).faces
    predicted = first.truth - [[3.0, 0.0], [np.nan, 0.0], [1.0, 0.0]]
    models = [first, first._replace(predicted=predicted)]
    summary = measured_faces.summarise_measurements(models, faces.subjects)
    inner, philtrum = summary["inner_canthal"], summary["philtrum_length"]
    assert (inner["n"], inner["gaps"]) == (3, 0) and (philtrum["n"], philtrum["gaps"]) == (2, 1)
    assert inner["bias"] == pytest.approx((-1 + 2 + 1) / 3)
    assert inner["mean_abs_error"] == pytest.approx((2 + 2 + 2) / 3)
    # of one model's difference, as wide as they are, and not of the means -1, 2, 1
    assert inner["error_sd"] > 2.0


SIDES = ["enL", "enR", "exL", "exR", "alL", "alR", "chL", "chR", "n", "prn", "sn", "pg"]


def make_sides(n, shift_mm=0.0):
    """[n, 12, 3]: symmetric faces but for the left side, moved up."""
    half = {"en": (9, -4, -3), "ex": (22, -10, -3), "al": (8, 1, -14), "ch": (10, 0, -28)}
    points = [(x * side, y, z) for x, y, z in half.values() for side in (-1, 1)]
    points += [(0, 0, 0), (0, 9, -13), (0, 4, -17), (0, 2, -38)]
    face = np.array(points, float)
    face[[0, 2, 4, 6], 2] += shift_mm
    return np.repeat(face[None], n, axis=0)


@pytest.mark.parametrize("shift_mm", [0.0, 4.0], ids=["symmetric", "lopsided"])
def test_the_floor_of_an_asymmetry_is_what_noise_makes_of_a_symmetric_face(shift_mm):
    """Errors of 2.5 mm on average make 3 mm and more of nothing; the face itself plays no part."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(300, 12, 3)) * 2.5 / np.sqrt(8 / np.pi)
    sure = np.ones((300, 12))

    def measure(truth):
        return measured_faces.measure_predictions(
            truth + noise, sure, SIDES, min_confidence=0.5, truth_mm=truth, visible=sure > 0
        )

    plain = measured_faces.summarise_measurements([measure(make_sides(300))], range(300))
    found = measured_faces.summarise_measurements([measure(make_sides(300, shift_mm))], range(300))
    assert plain["asymmetry_en"]["true_mean"] == pytest.approx(0.0, abs=1e-9)
    for key in ("asymmetry_en", "asymmetry_ch"):
        # of a symmetric face the bias is nothing but noise
        assert 2.8 < plain[key]["bias"] < 3.6
        assert found[key]["noise_floor"] == pytest.approx(plain[key]["bias"], rel=0.05)
    assert found["inner_canthal"]["noise_floor"] is None


def test_no_error_no_floor_and_none_of_what_is_not_measured():
    truth = make_sides(2, 3.0)
    confidence = np.array([[1.0] * 12, [0.0, *[1.0] * 11]])
    measured = measured_faces.measure_predictions(
        truth, confidence, SIDES, min_confidence=0.5, truth_mm=truth, visible=confidence > 0
    )
    keys = [one.key for one in measured.measurements]
    floor = measured.noise_floor[:, keys.index("asymmetry_en")]
    assert floor[0] == pytest.approx(0.0, abs=1e-9) and np.isnan(floor[1])
    assert np.isnan(measured.noise_floor[:, keys.index("inner_canthal")]).all()


def test_faces_of_two_folds(faces, measure_part):
    sure, unsure = (measure_part(faces, np.full((3, 4), c)).faces for c in (0.9, 0.2))
    joined = measured_faces.join_faces([sure, unsure])
    assert joined.truth.shape == (6, 2) and joined.measurements == sure.measurements
    np.testing.assert_allclose(joined.predicted[:, 0], [11, 14, 17, 11, np.nan, 17])
    assert [row[0] for row in joined.gaps] == [""] * 4 + ["enL not visible, confidence 0.20", ""]
