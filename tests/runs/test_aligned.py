"""The second look: frames in the world, looks by a network that knows where things are."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from configs import emd
from fetal_jax.detectors.detector import Found
from fetal_jax.errors import InputError
from fetal_jax.geometry import Grid, align_grid, turn_grid
from fetal_jax.runs import aligned
from fetal_jax.runs.config_table import check_config
from fetal_jax.visibility_model import VisibilityModel

MIRROR = np.array([0, 2, 1, 4, 3, 5, 6, 7])
SHAPE = np.array(
    [[0, 0, 0], [22.0, -9, -2], [-22, -9, -2], [9, 2, -14], [-9, 2, -14]]
    + [[0, 10, -12], [0, 5, -28], [0, 2, -38]]
)


def make_cases(n, *, noise_mm=0.5, far_mm=300.0):
    """Faces in any pose and of any size, far from the world's origin."""
    rng = np.random.default_rng(0)
    turns = Rotation.random(n, random_state=1).as_matrix()
    sizes = np.exp(rng.normal(0, 0.15, n))
    cases = SHAPE + rng.normal(0, noise_mm, (n, *SHAPE.shape))
    moved = sizes[:, None, None] * np.einsum("nij,nlj->nli", turns, cases)
    return moved + rng.uniform(-far_mm, far_mm, (n, 1, 3))


def make_config(**changes):
    config = emd.get_config()
    config.update_from_flattened_dict(
        {"grid.side": 32, "grid.spacing_mm": 3.0, "aligned.on": True} | changes
    )
    return check_config(config)


@pytest.fixture(scope="module")
def fitted():
    points = make_cases(20)
    seen = np.ones(points.shape[:2], bool)
    return *aligned.fit_training_frame(make_config(), points, seen, MIRROR), points


def test_each_training_case_lies_in_its_frame(fitted):
    frame, matrices, points = fitted
    np.testing.assert_allclose(frame.shape_mm[MIRROR] * [-1, 1, 1], frame.shape_mm, atol=1e-6)
    back = np.stack(
        [
            np.linalg.solve(m[:3, :3], (p - m[:3, 3]).T).T
            for m, p in zip(matrices, points, strict=True)
        ]
    )
    off = np.linalg.norm(back - frame.shape_mm, axis=-1)
    assert off.mean() < 1.0  # three coordinates of noise of 0.5 mm
    assert frame.box.contains(back).all()
    assert all(side % 8 == 0 for side in frame.box.shape)  # four levels
    assert 0.7 * 32**3 < np.prod(frame.box.shape) < 1.5 * 32**3


def test_found_points_have_the_frame_of_the_true_ones(fitted):
    """Also where a third of them is elsewhere; the share that agrees says so."""
    frame, matrices, points = fitted
    rng = np.random.default_rng(2)
    found = points + rng.normal(0, 0.3, points.shape)
    found[:, :3] += rng.normal(0, 60, (len(points), 3, 3))
    weights = np.full(points.shape[:2], 0.8)
    placed, agreeing, _ = aligned.fit_frames(frame, found, weights)
    there, expected = (
        np.einsum("nij,lj->nli", m[:, :3, :3], frame.shape_mm) + m[:, None, :3, 3]
        for m in (placed, matrices)
    )
    assert np.linalg.norm(there - expected, axis=-1).mean() < 1.5
    assert 0.6 < agreeing.mean() < 0.7
    _, agreeing, _ = aligned.fit_frames(frame, rng.normal(0, 60, points.shape), weights)
    assert agreeing.mean() < aligned.LEAST_AGREEING


def test_each_look_begins_where_the_one_before_ended(fitted):
    """A network that takes a point half of the way from its place in the box to the truth."""
    frame, _, points = fitted
    rng = np.random.default_rng(3)
    rough = points + rng.normal(0, 3.0, points.shape)
    seen = []

    def find(examples):
        places = frame.box.to_voxels(frame.shape_mm)[None]
        seen.append(examples.volumes)
        half = 0.5 * (places + examples.points_vox)
        local = np.ones((*half.shape[:2], 2))
        return Found(half, half, np.full(half.shape[:2], 0.9), local, 2 * local)

    def sample(index, grid: Grid):
        assert grid.shape == frame.box.shape
        return np.full(grid.shape, index, np.float16)

    looks = aligned.look_again(
        frame, find, sample, rough, np.full(points.shape[:2], 0.5), passes=3, truth_mm=points
    )
    errors = [
        np.linalg.norm(p - points, axis=-1).mean() for p in (rough, *(k.points_mm for k in looks))
    ]
    assert errors[1] < 0.5 * errors[0] and errors[3] <= errors[2] < errors[1]
    assert [volumes[:, 0, 0, 0].tolist() for volumes in seen] == [list(range(20))] * 3
    # a millimetre of the frame is as much larger as the face is
    extent = np.linalg.norm(points[:, 1] - points[:, 2], axis=1)
    size = extent / np.linalg.norm(frame.shape_mm[1] - frame.shape_mm[2])
    np.testing.assert_allclose(looks[-1].local_mm[:, 0, 0], size, rtol=0.15)
    np.testing.assert_allclose(looks[-1].local_guess_mm, 2 * looks[-1].local_mm)
    assert looks[-1].shape_mm.shape == points.shape


def test_poses_are_the_rotations_of_a_cube():
    assert np.array_equal(aligned.list_turns(1), np.eye(3)[None])
    turns = aligned.list_turns(24)
    assert len({turn.round(6).tobytes() for turn in turns + 0.0}) == len(turns) == 24
    np.testing.assert_allclose(turns[0], np.eye(3), atol=1e-12)
    np.testing.assert_allclose(turns, turns.round(), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turns), 1.0)
    drawn = Rotation.random(4000, random_state=0).as_matrix()
    cosines = (np.einsum("kij,nij->nk", turns, drawn) - 1) / 2
    nearest = np.rad2deg(np.arccos(np.clip(cosines.max(axis=1), -1, 1)))
    assert 55 < nearest.max() < 62.8


def test_a_turned_grid_has_its_middle_where_it_was():
    turn = aligned.list_turns(24)[7]
    grid = align_grid((4, 6, 8), 2.0, np.array([10.0, -20, 30]))
    turned = turn_grid(grid, turn)
    middle = grid.to_world(np.array([1.5, 2.5, 3.5]))
    np.testing.assert_allclose(turned.to_world(np.array([1.5, 2.5, 3.5])), middle)
    step = turned.to_world(np.array([1.5, 2.5, 4.5])) - middle
    np.testing.assert_allclose(step, turn @ [0, 0, 2.0], atol=1e-9)


def test_the_second_network_chooses_the_pose(fitted):
    """One that is surest where the frame is right chooses it, however the first one is disposed.

    In the first pose the found points agree, but are a face that lies askew.
    """
    frame, matrices, points = fitted
    rng = np.random.default_rng(5)
    looked = 0
    for case in range(6):
        hypotheses = np.stack([rng.normal(0, 60, points[case].shape) for _ in range(24)])
        askew = Rotation.random(random_state=case).apply(frame.shape_mm)
        hypotheses[0] = askew + points[case].mean(axis=0)
        hypotheses[17] = points[case] + rng.normal(0, 2.0, points[case].shape)

        def sample(grid):
            off = np.abs(grid.affine - matrices[case] @ frame.box.affine).max()  # noqa: B023
            return np.full(grid.shape, off, np.float32)

        def find(examples):
            nonlocal looked
            looked += len(examples.volumes)
            places = np.stack([frame.box.to_voxels(frame.shape_mm)] * len(examples.volumes))
            sure = np.exp(-examples.volumes[:, 0, 0, 0] / 20)
            return Found(places, places, np.repeat(sure[:, None], places.shape[1], axis=1))

        weights = np.ones(hypotheses.shape[:2])
        chosen, *start = aligned.choose_pose(frame, find, sample, hypotheses, weights)
        assert chosen == 17 and [array.shape for array in start] == [(8, 3), (8,)]
        (matrix,), *_ = aligned.fit_frames(frame, *(array[None] for array in start))
        np.testing.assert_allclose(matrix, matrices[case], atol=2.0)
    assert looked == 6 * (24 + sum(aligned.KEPT_POSES[:-1]))


def test_the_frame_s_file_and_back(fitted, tmp_path):
    frame, _, _ = fitted
    aligned.write_frame(tmp_path, frame)
    found = aligned.read_frame(tmp_path)
    np.testing.assert_array_equal(found.shape_mm, frame.shape_mm)
    assert found.box.shape == frame.box.shape
    np.testing.assert_array_equal(found.box.affine, frame.box.affine)
    path = tmp_path / "aligned" / "frame.json"
    np.testing.assert_array_equal(found.shape.modes_mm, frame.shape.modes_mm)
    assert found.shape.noise_mm == frame.shape.noise_mm
    path.write_text('{"shape_mm": []}')
    with pytest.raises(InputError, match="frame.json: expected the frame of a run, got KeyError"):
        aligned.read_frame(tmp_path)


def test_the_second_network_s_config_is_one_of_a_run(fitted):
    frame, _, _ = fitted
    config = make_config(**{"aligned.steps": 7, "aligned.widths": (4, 8), "train.epochs": 3})
    derived = check_config(aligned.derive_config(config, frame))
    assert derived.grid.spacing_mm == frame.box.spacing_mm
    assert (derived.train.steps, derived.train.epochs) == (7, 0)
    assert derived.model.widths == (4, 8) and derived.augment.max_degrees == 0.0
    assert derived.augment.max_gamma == config.augment.max_gamma


def test_a_case_of_two_landmarks_lies_in_no_frame():
    points = make_cases(4)
    points[1, 2:], points[3] = np.nan, np.nan
    np.testing.assert_array_equal(aligned.find_posed(points), [0, 2])
    _, matrices = aligned.fit_training_frame(
        make_config(), points[[0, 2]], np.isfinite(points[[0, 2]]).all(axis=-1), MIRROR
    )
    assert np.isfinite(matrices).all()


def test_two_landmarks_make_no_frame():
    with pytest.raises(InputError, match="config.aligned.on: expected three landmarks or more"):
        aligned.fit_training_frame(make_config(), make_cases(4)[:, :2], np.ones((4, 2), bool), None)


def test_a_run_of_before_looks_once():
    config = emd.get_config()
    del config.aligned
    assert not aligned.is_on(check_config(config))


def test_a_hidden_point_is_put_where_the_others_expect_it(fitted):
    """In any pose: to the noise of the shapes, and far nearer than what was found in its place."""
    frame, _, points = fitted
    found = points.copy()
    found[:, 1] += 40.0
    weights = np.ones(points.shape[:2])
    weights[:, 1] = 0.0
    completed = aligned.complete_points(frame, found, weights)
    errors = np.linalg.norm(completed - points, axis=-1)
    assert errors[:, 1].mean() < 2.0
    assert errors[:, [0, 2, 3]].mean() < 1.2


def test_only_a_data_set_that_says_what_is_hidden_is_judged(fitted):
    frame, _, _ = fitted
    assert aligned.expect_landmarks(None, frame) is None
    expected = aligned.expect_landmarks([0.9] * len(SHAPE), frame)
    np.testing.assert_allclose(frame.box.to_world(expected), frame.shape_mm, atol=1e-9)


def test_what_tells_what_can_be_seen_is_kept(tmp_path):
    (tmp_path / aligned.FOLDER).mkdir()
    assert aligned.read_visibility(tmp_path) is None
    rng = np.random.default_rng(0)
    model = VisibilityModel(rng.normal(size=3), rng.normal(size=(3, 9)))
    aligned.write_visibility(tmp_path, model)
    for one, other in zip(aligned.read_visibility(tmp_path), model, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    path = tmp_path / aligned.FOLDER / "visibility.json"
    for content in ("{}", "[]", '{"offsets": [1], "weights": [[1], [2]]}'):
        path.write_text(content)
        with pytest.raises(InputError, match=r"visibility.json: expected what a run learned"):
            aligned.read_visibility(tmp_path)
