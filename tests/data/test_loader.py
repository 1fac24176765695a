"""Batches: every case once an epoch, and a function of the step alone."""

import numpy as np
import pytest

from fetal_jax.data.loader import load_examples, prefetch, sample_indices
from fetal_jax.geometry import Grid, apply_affine


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 10, 23])
def test_every_case_once_an_epoch(batch):
    n = 10
    steps = range(-(-3 * n // batch))
    drawn = np.concatenate([sample_indices(n, step, batch=batch, seed=4) for step in steps])
    for epoch in range(3):
        assert sorted(drawn[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_weights_say_how_often_a_case_is_in_an_epoch():
    """In each one a whole number next to its weight, in the mean over epochs the weight itself."""
    weights = np.array([0.25, 2.0, 1.5, 0.25])
    epochs = [sample_indices(4, e, batch=4, seed=1, weights=weights) for e in range(600)]
    counts = np.stack([np.bincount(epoch, minlength=4) for epoch in epochs])
    assert (counts >= np.floor(weights)).all() and (counts <= np.ceil(weights)).all()
    np.testing.assert_allclose(counts.mean(axis=0), weights, atol=0.08)
    assert len({tuple(epoch) for epoch in map(tuple, epochs)}) > 20  # the order is another, too
    in_parts = [sample_indices(4, step, batch=1, seed=1, weights=weights)[0] for step in range(8)]
    np.testing.assert_array_equal(in_parts, np.concatenate(epochs[:2]))


def test_equal_weights_take_every_case_once():
    drawn = sample_indices(7, 3, batch=7, seed=2, weights=np.ones(7))
    assert sorted(drawn) == list(range(7))


def test_epochs_and_seeds_are_shuffled_apart():
    def draw(epoch, seed):
        return sample_indices(50, epoch, batch=50, seed=seed).tolist()

    orders = [draw(0, 0), draw(1, 0), draw(0, 1), list(range(50))]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


def test_a_batch_spans_two_epochs():
    # steps of 4 from 6 cases: step 1 takes the last two of epoch 0 and the first two of epoch 1
    whole = [sample_indices(6, epoch, batch=6, seed=0) for epoch in (0, 1)]
    found = sample_indices(6, 1, batch=4, seed=0)
    np.testing.assert_array_equal(found, [*whole[0][4:], *whole[1][:2]])


def test_steps_do_not_depend_on_what_was_drawn_before():
    in_order = [sample_indices(7, step, batch=3, seed=9) for step in range(40)]
    np.testing.assert_array_equal(sample_indices(7, 39, batch=3, seed=9), in_order[39])
    np.testing.assert_array_equal(sample_indices(7, 2, batch=3, seed=9), in_order[2])


@pytest.fixture
def prepared(make_prepared):
    """Five cases of two landmarks, the first of case 1 absent, the second of case 3 completed."""
    points = np.random.default_rng(0).uniform(1, 6, (5, 2, 3))
    points[1, 0] = np.nan
    return make_prepared(points, completed=[(3, 1)])


def test_examples_are_those_of_the_cases(prepared):
    seen = []
    for step in range(5):
        examples = load_examples(prepared, step, batch=3, seed=2)
        chosen = sample_indices(5, step, batch=3, seed=2)
        seen += chosen.tolist()
        assert examples.volumes.dtype == examples.points_vox.dtype == np.float32
        assert examples.affines.dtype == np.float32 and examples.places.dtype == np.int32
        assert examples.shown is None
        for name in ("volumes", "points_vox", "present", "visible"):
            np.testing.assert_array_equal(
                getattr(examples, name), getattr(prepared, name)[chosen], err_msg=name
            )
        np.testing.assert_array_equal(examples.present[:, 0], chosen != 1)
        np.testing.assert_array_equal(examples.visible[:, 1], chosen != 3)
        np.testing.assert_array_equal(examples.places, [0, 1, 2])
    assert sorted(seen) == sorted(list(range(5)) * 3)


def test_affines_carry_voxels_to_mm(prepared):
    examples = load_examples(prepared, 0, batch=5, seed=0)
    for case, affine, points, there in zip(
        sample_indices(5, 0, batch=5, seed=0),
        examples.affines,
        examples.points_vox,
        examples.present,
        strict=True,
    ):
        found = apply_affine(affine.astype(np.float64), points)[there]
        np.testing.assert_allclose(found, prepared.points_mm[case][there], atol=1e-5)


def test_shares_are_parts_of_one_batch(prepared):
    """Two processes load what one would, each example at its place in the whole batch."""
    whole = load_examples(prepared, 3, batch=4, seed=1)
    shares = [load_examples(prepared, 3, batch=4, seed=1, share=s) for s in (slice(2), slice(2, 4))]
    for name, array in whole._asdict().items():
        if array is not None:
            joined = np.concatenate([getattr(share, name) for share in shares])
            np.testing.assert_array_equal(joined, array, err_msg=name)


def jitter(prepared):
    """As `cases.place_anew`: a volume that says which case it is, on a grid of its own."""

    def place(index, rng):
        affine = prepared.grids[index].affine.copy()
        affine[:3, 3] += rng.uniform(-4, 4, 3)
        return np.full((8, 8, 8), index, np.float32), Grid((8, 8, 8), affine)

    return place


def test_with_a_placement_that_varies_points_follow_the_grid(prepared):
    examples = load_examples(prepared, 2, batch=5, seed=0, place=jitter(prepared))
    chosen = sample_indices(5, 2, batch=5, seed=0)
    np.testing.assert_array_equal(examples.volumes[:, 0, 0, 0], chosen)
    for row, case in enumerate(chosen):
        there = np.isfinite(prepared.points_mm[case]).all(axis=-1)
        affine = examples.affines[row].astype(np.float64)
        found = apply_affine(affine, examples.points_vox[row])
        np.testing.assert_allclose(found[there], prepared.points_mm[case][there], atol=1e-5)
        inside = ((examples.points_vox[row] > -0.5) & (examples.points_vox[row] < 7.5)).all(axis=-1)
        np.testing.assert_array_equal(examples.present[row], there & inside)
        np.testing.assert_array_equal(examples.visible[row], prepared.visible[case] & inside)
    assert np.isfinite(examples.points_vox).all()


def test_a_placement_that_varies_is_a_function_of_step_and_place(prepared):
    """Another grid at each step and place; the same again for a resumed run, or in a share."""

    def load(step, share=slice(None)):
        return load_examples(
            prepared, step, batch=4, seed=0, share=share, place=jitter(prepared)
        ).affines

    affines = load(7)
    np.testing.assert_array_equal(load(7), affines)
    np.testing.assert_array_equal(load(7, slice(2, 4)), affines[2:])
    chosen = sample_indices(5, 7, batch=4, seed=0), sample_indices(5, 8, batch=4, seed=0)
    origins = [
        np.stack([g.affine[:3, 3] for g in map(prepared.grids.__getitem__, c)]) for c in chosen
    ]
    shifts = np.concatenate([load(7)[:, :3, 3] - origins[0], load(8)[:, :3, 3] - origins[1]])
    assert len(np.unique(shifts.round(3), axis=0)) == 8


def test_prefetch_gives_every_step_in_order_and_loads_one_ahead():
    loaded = []

    def load(step):
        loaded.append(step)
        return {"step": step}

    seen = []
    for step, data in prefetch(load, range(3, 7)):
        assert data == {"step": step}
        seen.append(step)
        assert max(loaded) <= step + 1
    assert seen == loaded == [3, 4, 5, 6]
    assert list(prefetch(load, range(5, 5))) == []


def test_what_goes_wrong_in_loading_is_raised():
    def load(step):
        raise ValueError(f"step {step}")

    with pytest.raises(ValueError, match="step 2"):
        list(prefetch(load, range(2, 4)))
