"""What a run's networks find: as it was saved, from every pose, and which answer stands."""

import numpy as np
import pytest

from fetal_jax.detectors.detector import Found
from fetal_jax.geometry import align_grid, turn_grid
from fetal_jax.runs import finished, search, second_look
from fetal_jax.runs import folder as run_folder
from fetal_jax.runs.calibrations import Calibrations
from fetal_jax.runs.face_frame import Frame
from fetal_jax.runs.predictions import make_predictions, read_predictions
from fetal_jax.runs.second_look import Look
from fetal_jax.shape_model import ShapeModel

SHAPE_MM = np.array([[-6.0, 1, 0], [6, 1, 0], [0, 5, -4], [0, -3, 5], [0, -4, -1.0]])
BOX = align_grid((6, 8, 10), 1.5, np.array([-4.0, -5.5, -7.0]))
FRAME = Frame(ShapeModel(SHAPE_MM, np.zeros((0, 5, 3)), 0.4), BOX)


def test_what_is_found_is_what_was_saved(noise_crossval):
    fold = noise_crossval / "fold1"
    config, record = finished.open_config(fold), run_folder.read_data_record(fold)
    cases = finished.open_tested(config, fold, record)
    assert [case.name for case in cases.cases] == record.splits["test"]
    found, restored, stages = search.predict_cases(config, fold, record, cases)
    assert stages is None
    for name, array in read_predictions(fold / "predictions.npz")._asdict().items():
        np.testing.assert_array_equal(getattr(found, name), array, err_msg=name)
    assert restored.last_step == 4


def make_looks(agreeing, points_mm):
    n, count, _ = points_mm.shape
    mass = np.full((n, count), 0.9)
    looks = [
        Look(points_mm, points_mm, mass, None, None, points_mm, np.array(share), np.ones(n))
        for share in (agreeing, [1.0] * n)
    ]
    nothing = np.full((n, count, 1), np.nan)
    return [look._replace(local_mm=nothing, local_guess_mm=nothing) for look in looks]


def test_the_first_network_s_answer_stands_where_its_points_make_no_frame():
    """By the share before the first look, whatever agrees with a frame that is wrong."""
    rough, fine = np.zeros((2, 5, 3)), np.ones((2, 5, 3))
    coarse = make_predictions(rough, rough, np.full((2, 5), 0.3))
    least = second_look.LEAST_AGREEING
    looks = make_looks([least, least - 0.01], fine)
    chosen = search.choose_look(coarse, FRAME, looks, Calibrations())
    np.testing.assert_array_equal(chosen.points_mm, np.stack([fine[0], rough[1]]))
    np.testing.assert_array_equal(chosen.mass[:, 0], [0.9, 0.3])
    assert np.isnan(chosen.seen).all()  # no look said what can be seen


@pytest.mark.parametrize("poses", [1, 24])
def test_each_pose_is_a_turn_of_the_same_voxels_about_the_middle(poses):
    """The first network says where the brightest voxel is: in the world it is always the same."""
    grid = align_grid((9, 9, 9), 2.0, np.array([3.0, -5.0, 11.0]))
    volume = np.zeros((9, 9, 9), np.float32)
    volume[1, 6, 3] = 1.0
    seen = []

    def find(examples):
        places = [np.unravel_index(v.argmax(), v.shape) for v in np.asarray(examples.volumes)]
        points = np.repeat(np.array(places, np.float32)[:, None], 5, axis=1)
        seen.append(points[:, 0])
        return Found(points, points, np.full(points.shape[:2], 0.8, np.float32))

    def find_again(examples):
        n = len(examples.volumes)
        points = np.tile(np.float32(BOX.to_voxels(SHAPE_MM)), (n, 1, 1))
        return Found(points, points, np.full((n, 5), 0.8, np.float32))

    posed = search.search_poses(
        find, FRAME, find_again, volume[None], [grid], lambda n, g: np.zeros(g.shape), poses=poses
    )
    assert len(seen[0]) == poses and len({tuple(at) for at in seen[0].tolist()}) == poses
    turns = second_look.list_turns(poses)
    for at, turn in zip(seen[0], turns, strict=True):
        there = turn_grid(grid, turn).to_world(at)
        np.testing.assert_allclose(there, grid.to_world([1.0, 6.0, 3.0]), atol=1e-5)
    np.testing.assert_allclose(
        posed.grids[0].to_world(posed.found.points_vox[0, 0]), grid.to_world([1.0, 6, 3]), atol=1e-5
    )
