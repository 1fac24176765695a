"""Batches: every case once an epoch, and a function of the step alone."""

import numpy as np
import pytest

from fetal_jax.data.loader import draw_indices, load_batch, prefetch


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 10, 23])
def test_every_case_once_an_epoch(batch):
    n = 10
    steps = range(-(-3 * n // batch))
    drawn = np.concatenate([draw_indices(n, step, batch=batch, seed=4) for step in steps])
    for epoch in range(3):
        assert sorted(drawn[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_epochs_and_seeds_are_shuffled_apart():
    def draw(epoch, seed):
        return draw_indices(50, epoch, batch=50, seed=seed).tolist()

    orders = [draw(0, 0), draw(1, 0), draw(0, 1), list(range(50))]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


def test_a_batch_spans_two_epochs():
    # steps of 4 from 6 cases: step 1 takes the last two of epoch 0 and the first two of epoch 1
    whole = [draw_indices(6, epoch, batch=6, seed=0) for epoch in (0, 1)]
    found = draw_indices(6, 1, batch=4, seed=0)
    np.testing.assert_array_equal(found, [*whole[0][4:], *whole[1][:2]])


def test_steps_do_not_depend_on_what_was_drawn_before():
    in_order = [draw_indices(7, step, batch=3, seed=9) for step in range(40)]
    np.testing.assert_array_equal(draw_indices(7, 39, batch=3, seed=9), in_order[39])
    np.testing.assert_array_equal(draw_indices(7, 2, batch=3, seed=9), in_order[2])


@pytest.mark.parametrize("with_completed", [True, False])
def test_load_batch(make_prepared, with_completed):
    points = np.random.default_rng(0).uniform(1, 6, (5, 2, 3))
    points[1, 0] = np.nan
    prepared = make_prepared(points, completed=[(3, 1)])
    seen = []
    for step in range(5):
        batch = load_batch(prepared, step, batch=3, seed=2, with_completed=with_completed)
        cases = draw_indices(5, step, batch=3, seed=2)
        seen += cases.tolist()
        assert batch["volumes"].dtype == batch["points_vox"].dtype == np.float32
        np.testing.assert_array_equal(batch["volumes"], prepared.volumes[cases].astype(np.float32))
        np.testing.assert_array_equal(batch["places"], [0, 1, 2])
        for row, case in enumerate(cases):
            expected = [case != 1, with_completed or case != 3]
            np.testing.assert_array_equal(batch["counted"][row], expected)
            where = points[case] if case != 1 else [[0, 0, 0], points[1, 1]]
            np.testing.assert_allclose(batch["points_vox"][row], where, rtol=1e-6)
    assert sorted(seen) == sorted(list(range(5)) * 3)


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
