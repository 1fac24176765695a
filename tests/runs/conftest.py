"""Three cases with fake predictions, so that each number of a result is arithmetic."""

from dataclasses import replace

import numpy as np
import pytest

from fetal_jax.runs import measured_faces, predictions
from fetal_jax.runs.summary import Part, guess_errors, make_part, summarise_parts

LABELS = ["L", "R", "nose"]
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
def predicted_mm(prepared):
    return np.where(prepared.present[..., None], prepared.points_mm, 50.0) + OFFSETS


@pytest.fixture
def make_predictions(prepared, predicted_mm):
    """Peaks 1 mm off along each axis; a local accuracy of 0.5 mm, then of 1 to 9 mm."""

    def make(confidence=None):
        local = np.stack([np.full((3, 3), 0.5), np.arange(1.0, 10).reshape(3, 3)], axis=-1)
        confidence = np.full((3, 3), 0.5) if confidence is None else confidence
        return predictions.make_predictions(
            predicted_mm, prepared.points_mm + 1.0, confidence, local, 2 * local
        )

    return make


@pytest.fixture
def make_tested(make_predictions):
    """The part of a run; the guess is off by 0, 2 and 1 voxels of 2 mm."""

    def make(cases, confidence=None, fold=""):
        guess_mm = 2.0 * np.array([[3.0, 3, 3], [3, 3, 5], [2, 3, 3]])
        return make_part(
            fold,
            cases,
            make_predictions(confidence),
            LABELS,
            guess_errors(cases, guess_mm),
            min_confidence=0.5,
        )

    return make


@pytest.fixture
def summarise(make_tested):
    """Numbers of parts, or of the cases as one part."""

    def make(cases, confidence=None):
        parts = cases if isinstance(cases, list) else [make_tested(cases, confidence)]
        return summarise_parts(
            parts,
            LABELS,
            radii_mm=[2.0, 3.0],
            ela_radii_mm=np.array([1.0, 20.0]),
            age_groups_weeks=[24.0, 28.0],
            confidence_radius_mm=3.0,
        )

    return make


FACE_LABELS = ["enL", "enR", "sn", "ls"]


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


@pytest.fixture
def measure_part():
    return _measure_part


def _measure_part(faces, confidence, *, min_confidence=0.5, fold="") -> Part:
    """en-en comes out wider by 1, 2 and 3 mm."""
    predicted_mm = np.where(faces.present[..., None], faces.points_mm, 0.0)
    predicted_mm[:, 1, 0] += [1.0, 2.0, 3.0]
    found = predictions.make_predictions(
        predicted_mm, predicted_mm, confidence, predicted_mm, predicted_mm
    )
    unknown = np.zeros((3, 4))
    return make_part(fold, faces, found, FACE_LABELS, unknown, min_confidence=min_confidence)


@pytest.fixture
def measure_new_scan():
    """(predicted_mm [1, 4, 3]) -> its faces; of ls the network is not sure."""

    def measure(predicted_mm):
        return measured_faces.measure_predictions(
            predicted_mm, np.array([[0.9, 0.9, 0.9, 0.1]]), FACE_LABELS, min_confidence=0.5
        )

    return measure
