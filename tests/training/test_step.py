"""One step: the optimizer's numbers by hand, and a gradient that is what arithmetic says."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy_detector as toy

from fetal_jax.detectors.detector import LossSum
from fetal_jax.training import parallel
from fetal_jax.training.step import create_state, make_optimizer, train_step

OPTIM = {
    "lr": 0.1,
    "steps": 110,
    "warmup_steps": 10,
    "clip_norm": 0.0,
    "weight_decay": 0.0,
    "decay": "cosine",
}


@pytest.mark.parametrize(
    ("step", "share"),
    [(0, 0.0), (5, 0.5), (10, 1.0), (60, 0.505), (110, 0.01), (35, 0.01 + 0.99 * 0.853553)],
)
def test_cosine_schedule(step, share):
    _, schedule = make_optimizer(**OPTIM)
    assert float(schedule(step)) == pytest.approx(0.1 * share, rel=1e-5)


@pytest.mark.parametrize(("step", "share"), [(0, 0.0), (5, 0.5), (10, 1.0), (110, 1.0)])
def test_constant_schedule(step, share):
    _, schedule = make_optimizer(**OPTIM | {"decay": "constant"})
    assert float(schedule(step)) == pytest.approx(0.1 * share)


def test_without_warm_up_the_first_step_counts():
    _, schedule = make_optimizer(**OPTIM | {"decay": "constant", "warmup_steps": 0})
    assert float(schedule(0)) == pytest.approx(0.1)


def test_a_short_run_warms_up_for_half_of_it():
    _, schedule = make_optimizer(**OPTIM | {"steps": 8})
    assert [float(schedule(i)) for i in (2, 4)] == pytest.approx([0.05, 0.1])


def test_an_unknown_decay_is_refused():
    with pytest.raises(ValueError, match="expected a decay 'cosine' or 'constant', got 'linear'"):
        make_optimizer(**OPTIM | {"decay": "linear"})


def update(optimizer, params, gradient):
    with jax.numpy_dtype_promotion("standard"):  # optax's own
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    return optax.apply_updates(params, updates)


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_first_step_of_adam_by_hand(clip_norm):
    optimizer, _ = make_optimizer(
        **OPTIM | {"warmup_steps": 0, "weight_decay": 0.2, "clip_norm": clip_norm}
    )
    params, gradient = np.array([1.0, -2.0], np.float32), np.array([3e-8, -4e-8], np.float32)
    # m / (sqrt(v) + 1e-8) of the first step; far too small to be clipped
    expected = params - 0.1 * (gradient / (np.abs(gradient) + 1e-8) + 0.2 * params)
    np.testing.assert_allclose(update(optimizer, params, gradient), expected, rtol=1e-5)


def test_clipping_by_hand():
    optimizer, _ = make_optimizer(
        **OPTIM | {"warmup_steps": 0, "clip_norm": 1e-8, "decay": "constant"}
    )
    params, gradient = np.zeros(2, np.float32), np.array([3.0, -4.0], np.float32)
    clipped = np.array([0.6e-8, -0.8e-8])
    expected = -0.1 * clipped / (np.abs(clipped) + 1e-8)
    np.testing.assert_allclose(update(optimizer, params, gradient), expected, rtol=1e-4)


def test_a_fresh_state():
    def init(key):
        return {"weight": jax.random.normal(key, (3,))}

    state = create_state(jax.random.key(7), init=init, optimizer=toy.ADAM)
    assert state.step.dtype == jnp.int32 and int(state.step) == 0
    np.testing.assert_array_equal(state.params["weight"], init(jax.random.key(7))["weight"])
    assert {leaf.shape for leaf in jax.tree.leaves(state.opt_state)} == {(), (3,)}


# ---- two losses, each a mean over what it counts in the whole batch ----


@pytest.fixture(scope="module")
def alone():
    """Of each of the four examples: both totals [4, 2], and their gradients [4, 2, P]."""

    def measure(params, example):
        sums = toy.sum_losses(params, jax.tree.map(lambda leaf: leaf[None], example))
        totals = {name: each.total for name, each in sums.items()}
        return totals, totals

    params = toy.make_state(toy.SGD).params
    both = jax.vmap(jax.jacrev(measure, has_aux=True), in_axes=(None, 0))
    gradients, totals = jax.jit(both)(params, toy.make_examples(0))
    names = ("maps", "seen")
    flat = [
        [toy.flatten(jax.tree.map(lambda g: g[i], gradients[n])) for n in names]  # noqa: B023
        for i in range(4)
    ]
    return np.stack([totals[name] for name in names], axis=-1), np.array(flat)


@pytest.fixture(scope="module")
def stepped():
    """What a step of four devices measured, and the gradient [P] that it went down."""
    start = toy.make_state(toy.SGD)
    before = toy.flatten(start.params)
    step = toy.make_step(toy.SGD, 4)
    state, measured = jax.device_get(step(start, jax.random.key(5), toy.make_examples(0)))
    assert int(state.step) == 1
    return measured, (before - toy.flatten(state.params)) / 0.1


COUNTS = np.array([toy.VISIBLE.sum(), toy.PRESENT.sum()])
WEIGHTS = np.array([1.0, toy.SEEN_WEIGHT])


def test_each_loss_is_divided_by_its_own_count_and_then_weighted(alone, stepped):
    assert COUNTS.tolist() == [5, 7]
    (totals, gradients), (measured, gradient) = alone, stepped
    means = totals.sum(axis=0) / COUNTS
    expected = np.einsum("n,bnp->p", WEIGHTS / COUNTS, gradients)
    np.testing.assert_allclose(measured["loss/maps"], means[0], rtol=1e-5)
    np.testing.assert_allclose(measured["loss/seen"], means[1], rtol=1e-5)
    np.testing.assert_allclose(measured["loss"], means @ WEIGHTS, rtol=1e-5)
    np.testing.assert_allclose(measured["grad_norm"], np.linalg.norm(expected), rtol=1e-5)
    # read off parameters of up to 4, which float32 holds to 2e-7, a tenth of the gradient apart
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=4e-6)
    assert np.abs(expected).max() > 0.05


def test_another_way_to_divide_would_show(alone, stepped):
    """The test above could fail: one count for both, or a mean of the devices' means."""
    (totals, gradients), (measured, gradient) = alone, stepped
    scale = np.linalg.norm(gradient)
    one_count = np.einsum("n,bnp->p", WEIGHTS / COUNTS[0], gradients)
    assert np.linalg.norm(one_count - gradient) > 0.02 * scale
    unweighted = np.einsum("n,bnp->p", 1 / COUNTS, gradients)
    assert np.linalg.norm(unweighted - gradient) > 0.02 * scale

    own = np.maximum(np.stack([toy.VISIBLE.sum(axis=1), toy.PRESENT.sum(axis=1)], axis=-1), 1)
    averaged = np.mean(np.einsum("bn,bnp->bp", WEIGHTS / own, gradients), axis=0)
    assert abs(np.linalg.norm(averaged) / scale - 1) > 0.02
    assert abs(np.mean((totals / own) @ WEIGHTS) / float(measured["loss"]) - 1) > 0.02


def test_a_single_loss_is_measured_once():
    def sum_losses(params, examples):
        return {"only": LossSum(jnp.sum(params["field"]), jnp.int32(1))}

    step = partial(train_step, sum_losses=sum_losses, augment=None, optimizer=toy.SGD)
    mapped = jax.vmap(step, in_axes=(None, None, 0), axis_name=parallel.AXIS)
    examples = parallel.split_batch(toy.make_examples(0), 1)
    _, measured = jax.eval_shape(mapped, toy.make_state(toy.SGD), jax.random.key(0), examples)
    assert measured.keys() == {"loss", "grad_norm"}


def test_nothing_counted_changes_nothing():
    before = toy.flatten(toy.make_state(toy.SGD).params)
    nothing = np.zeros_like(toy.VISIBLE)
    examples = toy.make_examples(0)._replace(visible=nothing, present=nothing)
    step = toy.make_step(toy.SGD, 4)
    state, measured = step(toy.make_state(toy.SGD), jax.random.key(0), examples)
    assert float(measured["loss"]) == float(measured["grad_norm"]) == 0.0
    np.testing.assert_array_equal(toy.flatten(state.params), before)


def test_an_example_does_not_depend_on_the_others():
    """What is drawn for it comes from the key, the step and its place."""
    only = np.arange(4)[:, None] == [1, 1]
    step, found = toy.make_step(toy.SGD, 4, augmented=True), []
    for seed, key in ((0, 5), (1, 5), (1, 6)):
        examples = toy.make_examples(seed)
        for name in ("volumes", "points_vox"):
            getattr(examples, name)[1] = getattr(toy.make_examples(0), name)[1]
        examples = examples._replace(visible=only, present=only)
        _, measured = step(toy.make_state(toy.SGD), jax.random.key(key), examples)
        found.append(float(measured["loss"]))
    assert found[0] == found[1] > 0
    assert found[2] != found[1]


def test_a_place_and_a_step_draw_anew():
    examples = toy.make_examples(0)
    same = jax.tree.map(lambda leaf: np.stack([leaf[0]] * 4), examples)
    step, found = toy.make_step(toy.SGD, 4, augmented=True), []
    for places, done in ((range(4), 0), (range(4), 0), (range(4, 8), 0), (range(4), 1)):
        start = toy.make_state(toy.SGD)._replace(step=jnp.int32(done))
        places = np.array(places, np.int32)
        _, measured = step(start, jax.random.key(5), same._replace(places=places))
        found.append(float(measured["loss"]))
    assert found[0] == found[1] and len(set(found)) == 3
