"""Pictures are written, of a size to look at, and show what they are given."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from fetal_jax.report import cases, pictures

LABELS = ["L", "nose"]


@pytest.fixture
def prepared(make_prepared):
    points = np.array([[[2.0, 3, 4], [5, 3, 4]], [[1.0, 6, 2], [np.nan] * 3]])
    return make_prepared(points)


def draw(path, *args, **kwargs):
    pictures.save(pictures.draw_cases(*args, **kwargs), path)
    return imread(path)[..., :3]


def count(image, colour):
    return int((np.abs(image - np.array(to_rgb(colour))).max(axis=-1) < 0.02).sum())


def test_a_row_a_case_with_truth_and_prediction(tmp_path, prepared):
    truth = draw(tmp_path / "new" / "a.png", prepared, LABELS)
    assert truth.shape == (924, 1320, 3)  # 12 x 4.2 inches a row, at 110 dots an inch
    assert count(truth, pictures.TRUTH) > 100 and count(truth, pictures.PREDICTED) == 0
    both = draw(tmp_path / "b.png", prepared, LABELS, prepared.points_vox + 1.5)
    assert both.shape == truth.shape
    assert count(both, pictures.TRUTH) > 100 and count(both, pictures.PREDICTED) > 100
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["b.png", "new"]


def test_a_case_without_landmarks_is_drawn(tmp_path, make_prepared):
    image = draw(tmp_path / "a.png", make_prepared(np.full((1, 2, 3), np.nan)), LABELS)
    assert image.shape == (462, 1320, 3)
    assert count(image, pictures.TRUTH) == 0


def test_a_small_one_for_tensorboard(prepared):
    image = pictures.to_array(pictures.draw_cases(prepared.select([0]), LABELS), dpi=50)
    assert image.shape == (210, 600, 3) and image.dtype == np.uint8 and np.ptp(image) > 100


def test_slices_through_a_landmark_with_its_map(prepared):
    """The map's glow is where the map is: beside it the picture stays grey."""
    map_ = np.zeros((8, 8, 8), np.float32)
    map_[2:4, 2:4, 3:5] = 1.0
    shown = cases.show_case(
        prepared, 0, title="worst case", labels=LABELS, predicted_mm=prepared.points_mm[0] + 3.0,
        confidence=np.array([0.2, 0.9]), radius_mm=np.ones(2), landmark=0, grid=prepared.grids[0],
        volume=prepared.volumes[0], map_=map_,
    )  # fmt: skip
    figure = pictures.draw_landmark(shown)
    assert "worst case: c0, L, error 5.2 mm, confidence 0.20" in figure.get_suptitle()
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == [f"{v[0]}, prediction 3.0 mm off the slice" for v in pictures.VIEWS]
    image = pictures.to_array(figure).astype(int)
    coloured = np.ptp(image, axis=-1) > 60
    assert 200 < coloured.sum() < 0.1 * coloured.size
