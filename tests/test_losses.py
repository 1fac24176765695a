"""Losses: the formulas against numpy in float64, their closed forms, and the study's facts."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compilation import AS_USERS
from scipy import optimize, special

from fetal_jax import losses

SHAPE = (6, 7, 8)
SPACING = 0.8
TARGETS = {
    "on a voxel": (2.0, 3.0, 4.0),
    "between voxels": (2.3, 3.45, 1.9),
    "outside": (-3.4, 3.2, 11.0),
}
KINDS = {"exponential": ("exponential", 1.5), "gaussian": ("gaussian", 2.0)}
# name: keywords of `landmark_loss`
LOSSES = {
    "ce": {"name": "ce"},
    "distance, omega 0.5": {"name": "distance", "omega": 0.5},
    "distance, omega 2": {"name": "distance", "omega": 2.0},
    "emd, omega 0.5": {"name": "emd", "omega": 0.5},
    "emd, omega 1": {"name": "emd", "omega": 1.0, "lambda1": 0.7, "lambda2": 0.4},
    "emd, omega 2": {"name": "emd", "omega": 2.0},
    "sse": {"name": "sse"},
}


def named(argument, cases):
    return pytest.mark.parametrize(argument, cases.values(), ids=cases.keys())


def numpy_distances(shape, target, spacing):
    offsets = np.indices(shape) - np.reshape(np.asarray(target, np.float64), (3, 1, 1, 1))
    return spacing * np.sqrt((offsets**2).sum(axis=0))


def numpy_log_heatmap(distance, kind, width):
    return {"exponential": -distance, "gaussian": -(distance**2)}[kind] / (2 * width**2)


def numpy_maps(shape, target, spacing, kind, width):
    """Distance, H and log q in float64."""
    distance = numpy_distances(shape, target, spacing)
    log_h = numpy_log_heatmap(distance, kind, width)
    return distance, np.exp(log_h), log_h - special.logsumexp(log_h)


def numpy_soft_argmax(p, target, spacing):
    """Distance of the mean position in mm, and its gradient in the logits."""
    away = np.indices(p.shape) - np.reshape(np.asarray(target, np.float64), (3, 1, 1, 1))
    mean = (p * away).sum(axis=(1, 2, 3))
    distance = np.linalg.norm(mean)
    along = np.tensordot(mean / distance, away, axes=1)
    return spacing * distance, spacing * p * (along - distance)


def numpy_divergence(p, q):
    """Jensen-Shannon, and its gradient in the logits."""
    m = (p + q) / 2
    value = 0.5 * (special.rel_entr(p, m).sum() + special.rel_entr(q, m).sum())
    slope = 0.5 * np.log(p / m)
    return value, p * (slope - (p * slope).sum())


def numpy_loss(logits, distance, h, log_q, *, name, omega=0.5, lambda1=1.0, lambda2=0.2):
    """Value and gradient in the logits, both in closed form."""
    z = np.asarray(logits, np.float64)
    if name == "sse":
        s = special.expit(z)
        return ((s - h) ** 2).sum(), 2 * (s - h) * s * (1 - s)
    weights = {"ce": (1, 0), "distance": (0, 1), "emd": (lambda1, lambda2)}[name]
    p, q, cost = special.softmax(z), np.exp(log_q), distance**omega
    cross_entropy, penalty = -(q * (z - special.logsumexp(z))).sum(), (p * cost).sum()
    value = weights[0] * cross_entropy + weights[1] * penalty
    return value, weights[0] * (p - q) + weights[1] * p * (cost - penalty)


def random_logits(shape=SHAPE, scale=3.0, seed=0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def as_float32(*maps):
    return [np.asarray(m, np.float32) for m in maps]


STATIC = ("name", "spacing_mm", "kind", "width_mm", "omega", "lambda1", "lambda2")
PLAIN = {
    function.__name__: function
    for function in (
        losses.softmax_cross_entropy,
        losses.distance_penalty,
        losses.emd_regularised,
        losses.sum_squared_error,
        losses.entropy,
    )
}
# compiled once for all cases
JITTED = {
    name: jax.jit(
        function, static_argnames=[p for p in STATIC if p in inspect.signature(function).parameters]
    )
    for name, function in PLAIN.items()
}
# float32 as a user's programs round it: some bounds are a few of its last digits
jit = partial(jax.jit, static_argnames=STATIC, compiler_options=AS_USERS)
value_and_gradient = jit(jax.value_and_grad(losses.landmark_loss))


@partial(jax.jit, static_argnames=STATIC)
def batch_and_gradient(logits, targets, counted, **settings):
    """Losses [B, L], and the gradient of the mean of those that are counted."""

    def mean(logits):
        found = losses.compute_losses(logits, targets, **settings)
        count = jnp.sum(counted, dtype=jnp.float32)
        return jnp.sum(jnp.where(counted, found, 0.0)) / count, found

    gradient, found = jax.grad(mean, has_aux=True)(logits)
    return found, gradient


@named("target", TARGETS)
@named("target_kind", KINDS)
@pytest.mark.parametrize("form", [PLAIN, JITTED], ids=["plain", "jit"])
def test_plain_losses_against_numpy(target, target_kind, form):
    distance, h, log_q = numpy_maps(SHAPE, target, SPACING, *target_kind)
    z = random_logits()
    r, heatmap, log_target = as_float32(distance, h, log_q)

    def check(found, **settings):
        expected, _ = numpy_loss(z, distance, h, log_q, **settings)
        np.testing.assert_allclose(found, expected, rtol=1e-5)

    check(form["softmax_cross_entropy"](z, log_target), name="ce")
    check(form["sum_squared_error"](z, heatmap), name="sse")
    for omega in (0.5, 1.0, 2.0):
        check(form["distance_penalty"](z, r, omega=omega), name="distance", omega=omega)
        settings = {"omega": omega, "lambda1": 0.7, "lambda2": 0.4}
        check(form["emd_regularised"](z, log_target, r, **settings), name="emd", **settings)
    found = form["entropy"](log_target)
    np.testing.assert_allclose(found, -(np.exp(log_q) * log_q).sum(), rtol=1e-5, atol=1e-6)


def test_losses_by_hand():
    """Two voxels, p = (1/4, 3/4), q = (1/2, 1/2), r = (0, 4) mm."""
    z = np.float32([0.0, np.log(3)]).reshape(2, 1, 1)
    log_q = np.full((2, 1, 1), np.log(0.5), np.float32)
    r = np.float32([0.0, 4.0]).reshape(2, 1, 1)
    cross_entropy = -0.5 * np.log(0.25) - 0.5 * np.log(0.75)
    found = JITTED["softmax_cross_entropy"](z, log_q)
    np.testing.assert_allclose(found, cross_entropy, rtol=1e-6)
    np.testing.assert_allclose(JITTED["entropy"](log_q), np.log(2), rtol=1e-6)
    for omega, penalty in ((0.5, 1.5), (1.0, 3.0), (2.0, 12.0)):
        found = JITTED["distance_penalty"](z, r, omega=omega)
        np.testing.assert_allclose(found, penalty, rtol=1e-6)
        found = JITTED["emd_regularised"](z, log_q, r, omega=omega)
        np.testing.assert_allclose(found, cross_entropy + 0.2 * penalty, rtol=1e-6)
    # sigmoids 1/2 and 3/4
    found = JITTED["sum_squared_error"](z, np.float32([1.0, 0.5]).reshape(2, 1, 1))
    np.testing.assert_allclose(found, 0.25 + 0.0625, rtol=1e-6)


@named("target_kind", KINDS)
def test_cross_entropy_above_its_floor_is_0_at_the_target(target_kind):
    _, _, log_q = numpy_maps(SHAPE, TARGETS["between voxels"], SPACING, *target_kind)
    (log_target,) = as_float32(log_q)
    cross_entropy, entropy = JITTED["softmax_cross_entropy"], JITTED["entropy"](log_target)
    np.testing.assert_allclose(cross_entropy(log_target, log_target) - entropy, 0, atol=2e-6)
    moved = log_target + np.float32(0.1) * random_logits(scale=1.0)
    assert cross_entropy(moved, log_target) - entropy > 1e-3


@named("settings", {k: v for k, v in LOSSES.items() if k != "sse"})
@pytest.mark.parametrize("constant", [-50.0, 200.0])
def test_a_constant_in_the_logits_changes_nothing(settings, constant):
    both = partial(
        value_and_gradient, spacing_mm=SPACING, kind="gaussian", width_mm=2.0, **settings
    )
    target = np.float32(TARGETS["between voxels"])
    z = np.round(random_logits() * 64) / 64  # so that the sum with the constant is exact
    value, gradient = both(z, target)
    value_moved, gradient_moved = both(z + np.float32(constant), target)
    np.testing.assert_allclose(value_moved, value, rtol=2e-5)
    np.testing.assert_allclose(gradient_moved, gradient, atol=1e-6 * np.abs(gradient).max())


@jit
def plain_value_and_gradient(z, r, h, log_q, *, name, **factors):
    plain = {
        "ce": lambda z: losses.softmax_cross_entropy(z, log_q),
        "distance": lambda z: losses.distance_penalty(z, r, **factors),
        "emd": lambda z: losses.emd_regularised(z, log_q, r, **factors),
        "sse": lambda z: losses.sum_squared_error(z, h),
    }[name]
    return jax.value_and_grad(plain)(z)


@named("settings", LOSSES)
@named("target", TARGETS)
@named("target_kind", KINDS)
def test_landmark_loss_value_and_gradient(settings, target, target_kind):
    kind, width = target_kind
    z = random_logits(seed=3)
    maps = numpy_maps(SHAPE, target, SPACING, kind, width)
    value, gradient = value_and_gradient(
        z, np.float32(target), spacing_mm=SPACING, kind=kind, width_mm=width, **settings
    )
    expected, expected_gradient = numpy_loss(z, *maps, **settings)
    scale = np.abs(expected_gradient).max()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-5 * scale)

    r, h, log_q = as_float32(*maps)
    value_plain, gradient_plain = plain_value_and_gradient(z, r, h, log_q, **settings)
    np.testing.assert_allclose(value, value_plain, rtol=1e-5)
    np.testing.assert_allclose(gradient, gradient_plain, rtol=0, atol=1e-5 * scale)


@named("settings", LOSSES)
@named("target_kind", KINDS)
def test_landmark_loss_of_a_target_far_outside(settings, target_kind):
    """720 mm off, float32 holds r to 6e-5 mm and r² / (2 σ²) to 0.004: fewer digits, no NaN."""
    kind, width = target_kind
    z, target = random_logits(seed=3), (2.0, -900.0, 4.0)
    value, gradient = value_and_gradient(
        z, np.float32(target), spacing_mm=SPACING, kind=kind, width_mm=width, **settings
    )
    maps = numpy_maps(SHAPE, target, SPACING, kind, width)
    expected, expected_gradient = numpy_loss(z, *maps, **settings)
    np.testing.assert_allclose(value, expected, rtol=1e-3)
    scale = np.abs(expected_gradient).max()
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=5e-3 * scale)


# each loss as one who brings a formula of his own would write it
FORMULAS = {
    "ce": lambda z, maps: losses.softmax_cross_entropy(z, maps.log_q),
    "distance": lambda z, maps, omega: losses.distance_penalty(z, maps.distance_mm, omega=omega),
    "emd": lambda z, maps, **factors: losses.emd_regularised(
        z, maps.log_q, maps.distance_mm, **factors
    ),
    "sse": lambda z, maps: losses.sum_squared_error(z, maps.heatmap),
}


@jit
def written_value_and_gradient(logits, target, *, name, omega=0.5, **settings):
    """As `value_and_gradient`, of a formula that was put into the table; it has no default ω."""
    written = losses.Loss("Written", losses.from_maps(FORMULAS[name]), losses.LOSSES[name].factors)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(losses.LOSSES, "written", written)
        loss = partial(losses.landmark_loss, name="written", omega=omega, **settings)
        return jax.value_and_grad(loss)(logits, target)


@named("settings", LOSSES)
@named("target_kind", KINDS)
@pytest.mark.parametrize(
    "form", [value_and_gradient, written_value_and_gradient], ids=["closed", "from_maps"]
)
@pytest.mark.parametrize("far", [1e3, 1e6, 1e12], ids="{:g}".format)
@pytest.mark.parametrize("sign", [-1, 1], ids=["below", "above"])
def test_a_target_anywhere_pulls_to_its_nearest_voxel(settings, target_kind, form, far, sign):
    """As from 1000 voxels outside, in numpy: float32 knows no places beyond."""
    kind, width = target_kind
    z, target = random_logits(seed=3), np.float32([2.0, sign * far, 4.0])
    value, gradient = form(z, target, spacing_mm=SPACING, kind=kind, width_mm=width, **settings)
    edge = {-1: -1000.0, 1: 1000.0 if far == 1e3 else 1006.0}[sign]
    maps = numpy_maps(SHAPE, (2.0, edge, 4.0), SPACING, kind, width)
    expected, expected_gradient = numpy_loss(z, *maps, **settings)
    np.testing.assert_allclose(value, expected, rtol=2e-3)
    scale = np.abs(expected_gradient).max()
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-2 * scale)
    if settings["name"] == "ce":  # p - q: the most is wanted of the nearest voxel
        pulled = np.unravel_index(np.argmin(gradient), SHAPE)
        assert pulled == (2, 0 if sign < 0 else 6, 4) or kind == "exponential"


def test_landmark_loss_scales_the_incoming_gradient():
    loss = partial(
        losses.landmark_loss, spacing_mm=SPACING, kind="gaussian", width_mm=2.0, name="emd"
    )
    z, target = random_logits(), np.float32(TARGETS["between voxels"])
    once = jax.jit(jax.grad(loss))(z, target)
    thrice = jax.jit(jax.grad(lambda z: 3 * loss(z, target)))(z)
    np.testing.assert_allclose(thrice, 3 * np.asarray(once), rtol=1e-5)


@named("settings", LOSSES)
@named("target_kind", KINDS)
@pytest.mark.parametrize("target", [(1e5, 2.0, 3.0), (2.0, 3.0, 4.0)], ids=["100 km", "inside"])
@pytest.mark.parametrize("peak", [-1e4, 1e4], ids=["hole", "spike"])
def test_nothing_is_nan(settings, target_kind, target, peak):
    kind, width = target_kind
    z = random_logits()
    z[1, 2, 3] = peak
    value, gradient = value_and_gradient(
        z, np.float32(target), spacing_mm=SPACING, kind=kind, width_mm=width, **settings
    )
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_a_peak_that_nears_the_target():
    """The study's figure, A to C: the transport shrinks, the squared error is blind to it."""
    shape, target = (49, 5, 5), (2.0, 2.0, 2.0)
    settings = {"spacing_mm": 1.0, "kind": "gaussian", "width_mm": 0.2}  # a target of 1 voxel
    loss = jax.jit(partial(losses.landmark_loss, **settings), static_argnames=("name", "omega"))
    squared, transport = [], []
    for offset in (40, 30, 20):
        z = np.full(shape, -30.0, np.float32)
        z[2 + offset, 2, 2] = 30.0
        squared.append(float(loss(z, np.float32(target), name="sse")))
        transport.append(float(loss(z, np.float32(target), name="distance", omega=1.0)))
    np.testing.assert_allclose(transport, [40, 30, 20], rtol=1e-5)
    np.testing.assert_allclose(squared, [2, 2, 2], rtol=1e-4)  # one peak missing, one too many


def test_penalties_of_a_flat_map_at_full_size():
    """128³ at 1 mm, target in the volume's centre, which lies between voxels."""
    z, target = np.zeros((128,) * 3, np.float32), np.full(3, 63.5, np.float32)
    loss = jax.jit(
        partial(
            losses.landmark_loss, name="distance", spacing_mm=1.0, kind="gaussian", width_mm=3.0
        ),
        static_argnames="omega",
    )
    # three times the variance of 128 equal steps; 4096 is that of the continuous cube
    found = loss(z, target, omega=2.0)
    np.testing.assert_allclose(found, 3 * (128**2 - 1) / 12, rtol=1e-5)
    np.testing.assert_allclose(found, 4096, rtol=1e-4)
    np.testing.assert_allclose(loss(z, target, omega=0.5), 7.745, atol=6e-4)


def closed_form_minimiser(distance, log_q, omega, lambda2):
    """p* = q / (μ + λ2 r^ω) with Σ p* = 1."""
    q, cost = np.exp(log_q), lambda2 * distance**omega

    def excess(shift):  # μ from its lower end, where p* has a pole
        return (q / (shift + (cost - cost.min()))).sum() - 1

    shift = optimize.brentq(excess, 1e-12, 1 + cost.min(), xtol=1e-15, rtol=1e-14)
    p = q / (shift + (cost - cost.min()))
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-9)
    mu = shift - cost.min()
    np.testing.assert_allclose(mu, 1 - (p * cost).sum(), atol=1e-9)
    return p


@pytest.mark.parametrize("omega", [0.5, 2.0])
@pytest.mark.parametrize(
    ("kind", "width"), [("exponential", 1.0), ("gaussian", 1.5)], ids=["exponential", "gaussian"]
)
def test_descent_reaches_the_closed_form_minimiser(omega, kind, width):
    shape, target = (7, 8, 9), (3.3, 3.4, 4.15)
    distance, _, log_q = numpy_maps(shape, target, 1.0, kind, width)
    expected = closed_form_minimiser(distance, log_q, omega, 0.2)
    loss = partial(
        losses.landmark_loss,
        name="emd",
        spacing_mm=1.0,
        kind=kind,
        width_mm=width,
        omega=omega,
    )
    steps = 20_000
    optimiser = optax.adam(optax.cosine_decay_schedule(0.05, steps))

    def step(_, carry):
        z, state = carry
        gradient = jax.grad(loss)(z, np.float32(target))
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(z, updates), state

    @jax.jit
    def descend(z):
        z, _ = jax.lax.fori_loop(0, steps, step, (z, optimiser.init(z)))
        return jax.nn.softmax(z.reshape(-1)).reshape(shape)

    found = np.asarray(descend(np.zeros(shape, np.float32)))
    error = np.abs(found - expected).max() / expected.max()
    assert error <= 1e-3, f"largest error {error:.2e} of the peak"
    # the peak is the voxel nearest the target, and sharper than that of q
    assert np.unravel_index(found.argmax(), shape) == (3, 3, 4)
    assert found.max() > np.exp(log_q).max()


@named("settings", LOSSES)
def test_batch_is_every_landmark_alone(settings):
    z = random_logits((2, 3, *SHAPE))
    targets = np.random.default_rng(1).uniform(-1, 7, (2, 3, 3))
    common = {"spacing_mm": SPACING, "kind": "gaussian", "width_mm": 2.0}
    every = np.ones((2, 3), bool)

    def one(z, target):
        return numpy_loss(z, *numpy_maps(SHAPE, target, SPACING, "gaussian", 2.0), **settings)[0]

    expected = [[one(z[b, k], targets[b, k]) for k in range(3)] for b in range(2)]
    found, _ = batch_and_gradient(z, np.float32(targets), every, **common, **settings)
    assert found.shape == (2, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@named("settings", LOSSES)
def test_an_absent_landmark_has_no_gradient_under_the_callers_mask(settings):
    z = random_logits((2, 3, *SHAPE))
    there = np.array([[True, False, True], [True, True, False]])
    targets = np.where(there[..., None], np.full((2, 3, 3), 2.3, np.float32), np.float32(-1e6))
    common = {"spacing_mm": SPACING, "kind": "gaussian", "width_mm": 2.0}
    _, gradient = batch_and_gradient(z, targets, there, **common, **settings)
    gradient = np.asarray(gradient)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[~there], 0)
    assert np.abs(gradient[there]).max(axis=(1, 2, 3)).min() > 0


@pytest.mark.parametrize("name", losses.LOSSES)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_log_weights(name, wrap):
    """What a map stands for: the softmax of its logits, or their sigmoids."""
    z = np.array([-200.0, -3.0, 0.0, 2.0, 90.0], np.float32)
    expected = special.log_expit(z.astype(np.float64)) if name == "sse" else z
    found = wrap(partial(losses.log_weights, name=name))(z)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-35)


# 720 mm off, float32 has fewer digits of the target
@named("target", {k: (v, 1e-5) for k, v in TARGETS.items()} | {"far": ((2.0, -900.0, 4.0), 1e-3)})
@named("target_kind", KINDS)
@named("weights", {"both": (0.7, 0.4), "divergence": (1.0, 0.0), "distance": (0.0, 1.0)})
def test_soft_argmax_loss_value_and_gradient(target, target_kind, weights):
    z, (target, rtol) = random_logits(seed=3), target
    p = special.softmax(z.astype(np.float64))
    _, _, log_q = numpy_maps(SHAPE, target, SPACING, *target_kind)
    parts = numpy_divergence(p, np.exp(log_q)), numpy_soft_argmax(p, target, SPACING)
    expected, expected_gradient = (
        sum(w * part for w, part in zip(weights, each, strict=True))
        for each in zip(*parts, strict=True)
    )
    kind, width = target_kind
    settings = {"lambda1": weights[0], "lambda2": weights[1], "kind": kind, "width_mm": width}
    value, gradient = value_and_gradient(
        z, np.float32(target), name="dsnt", spacing_mm=SPACING, **settings
    )
    np.testing.assert_allclose(value, expected, rtol=rtol)
    scale = np.abs(expected_gradient).max()
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=2 * rtol * scale)


def test_soft_argmax_loss_is_0_at_the_target_and_stays_finite_there():
    """A map that is the target, of a landmark in the middle of a map with an odd side."""
    target = np.float32([4.0, 4.0, 4.0])
    _, _, log_q = numpy_maps((9, 9, 9), target, SPACING, "gaussian", 1.0)
    value, gradient = value_and_gradient(
        *as_float32(log_q, target), name="dsnt", spacing_mm=SPACING, kind="gaussian", width_mm=1.0
    )
    assert abs(value) < 1e-5 and np.abs(gradient).max() < 1e-5


# ---- a formula as a loss ----


@named("settings", LOSSES)
def test_a_formula_on_maps_equals_the_fused_loss(settings):
    """Value and gradient, as an entry of the table beside that of the study's loss."""
    given = random_logits(seed=3), np.float32(TARGETS["between voxels"])
    settings = settings | {"spacing_mm": SPACING, "kind": "gaussian", "width_mm": 2.0}
    value, gradient = value_and_gradient(*given, **settings)
    found, found_gradient = written_value_and_gradient(*given, **settings)
    np.testing.assert_allclose(found, value, rtol=1e-5)
    scale = np.abs(gradient).max()
    np.testing.assert_allclose(found_gradient, gradient, rtol=0, atol=1e-5 * scale)


def test_a_formula_gets_the_maps_of_its_target():
    """H and q of a landmark at 0, 0, 0, and 2 mm beside it; σ² is 2."""
    measure = losses.from_maps(lambda z, maps, *, scale: (scale * jnp.sum(z), maps))
    target = losses.Target("gaussian", width_mm=2**0.5, spacing_mm=2.0)
    given = np.ones((2, 1, 1), np.float32), np.zeros(3, np.float32)
    value, maps = jax.jit(measure, static_argnums=2)(*given, target, scale=3.0)
    assert value == 6.0
    h = [1.0, np.exp(-1.0)]
    np.testing.assert_allclose(maps.distance_mm[:, 0, 0], [0.0, 2.0])
    np.testing.assert_allclose(maps.heatmap[:, 0, 0], h, rtol=1e-6)
    np.testing.assert_allclose(maps.log_q[:, 0, 0], np.log(h / np.sum(h)), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "factors", "expected"),
    [
        ("ce", {"omega": 2.0}, "Softmax CE"),
        ("emd", {"omega": 0.5, "lambda2": 0.2}, "EMD-regularised, ω 0.5"),
        ("distance", {"omega": 1.0}, "Distance penalty, ω 1"),
        ("sse", {}, "Sum of squared errors"),
        ("dsnt", {"lambda1": 1.0, "lambda2": 0.02}, "Soft-argmax (DSNT)"),
    ],
)
def test_titles(name, factors, expected):
    assert losses.format_title(name, **factors) == expected


def test_a_factor_of_another_loss_is_left_aside():
    """One config has the factors of all losses."""
    z, target = random_logits(), np.float32(TARGETS["between voxels"])
    alone, _ = value_and_gradient(z, target, **_landmark(name="ce"))
    beside, _ = value_and_gradient(z, target, **_landmark(name="ce", omega=2.0, lambda1=9.0))
    assert float(alone) == float(beside)


def _landmark(**changed):
    settings = {"name": "emd", "spacing_mm": SPACING, "kind": "gaussian", "width_mm": 2.0}
    return settings | changed


ONES, OTHER = np.ones(SHAPE, np.float32), np.ones((6, 7, 9), np.float32)
BOTH_SHAPES = r"\(6, 7, 8\) and \(6, 7, 9\)"
MISUSES = {
    "cross-entropy of two shapes": (
        lambda: losses.softmax_cross_entropy(ONES, OTHER),
        BOTH_SHAPES,
    ),
    "penalty of two shapes": (
        lambda: losses.distance_penalty(ONES, OTHER, omega=1.0),
        BOTH_SHAPES,
    ),
    "emd of two shapes": (
        lambda: losses.emd_regularised(ONES, ONES, OTHER, omega=1.0),
        BOTH_SHAPES,
    ),
    "squared error of two shapes": (
        lambda: losses.sum_squared_error(ONES, OTHER),
        BOTH_SHAPES,
    ),
    "unknown loss": (
        lambda: losses.landmark_loss(ONES, np.zeros(3), **_landmark(name="dice")),
        "expected a loss of .*'ce'.*got 'dice'",
    ),
    "unknown kind": (
        lambda: losses.landmark_loss(ONES, np.zeros(3), **_landmark(kind="cone")),
        "gaussian.*got 'cone'",
    ),
    "unknown factor": (
        lambda: losses.landmark_loss(ONES, np.zeros(3), **_landmark(lambda3=1.0)),
        r"factors of \['lambda1', 'lambda2', 'omega'\], got \['lambda3'\]",
    ),
    "many targets for one map": (
        lambda: losses.landmark_loss(ONES, np.zeros((2, 3)), **_landmark()),
        r"expected one position \[3\], got \(2, 3\)",
    ),
    "batch without landmarks": (
        lambda: losses.compute_losses(np.ones((2, *SHAPE)), np.zeros((2, 1, 3)), **_landmark()),
        r"\[B, L, D, H, W\].*\(2, 6, 7, 8\) and \(2, 1, 3\)",
    ),
    "landmarks first": (
        lambda: losses.compute_losses(np.ones((2, 3, *SHAPE)), np.zeros((3, 2, 3)), **_landmark()),
        r"\(2, 3, 6, 7, 8\) and \(3, 2, 3\)",
    ),
}


@named("case", MISUSES)
def test_misuse(case):
    call, message = case
    with pytest.raises(ValueError, match=message):
        call()


@partial(jax.jit, static_argnames=("limit", *STATIC))
def in_slabs(logits, target, *, limit, **settings):
    """Value, gradient and the number of rows, where a slab has at most so many voxels."""
    with pytest.MonkeyPatch.context() as patch:  # read while it is traced, once for each limit
        patch.setattr(losses, "_SLAB_VOXELS", limit)
        rows = losses._count_rows(logits.shape)
        return *jax.value_and_grad(losses.landmark_loss)(logits, target, **settings), rows


@named("settings", {name: LOSSES[name] for name in ("emd, omega 0.5", "distance, omega 2", "sse")})
@named("target", TARGETS)
@pytest.mark.parametrize(("voxels", "rows"), [(1, 1), (130, 2)])
def test_slabs_add_up(settings, target, voxels, rows):
    """A map of 6 x 10 x 8 in one piece, and in slabs of one row and of two."""
    given = random_logits((6, 10, 8)), np.float32(target)
    settings = settings | {"spacing_mm": SPACING, "kind": "gaussian", "width_mm": 2.0}
    value, gradient, whole = in_slabs(*given, limit=480, **settings)
    value_slabs, gradient_slabs, slab = in_slabs(*given, limit=voxels, **settings)
    assert whole == 10 and slab == rows
    np.testing.assert_allclose(value_slabs, value, rtol=1e-5)
    scale = np.abs(gradient).max()
    np.testing.assert_allclose(gradient_slabs, gradient, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("name", ["emd", "sse"])
def test_neither_targets_nor_distances_are_kept(name):
    """19 maps of 64³ are 19 MiB; the gradient is one such array, and the only one."""
    settings = {"name": name, "kind": "gaussian", "width_mm": 2.0, "spacing_mm": 1.0}

    def mean(logits, targets):
        return jnp.mean(losses.compute_losses(logits, targets, **settings))

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1, 19, 64, 64, 64), (1, 19, 3))]
    memory = jax.jit(jax.value_and_grad(mean)).lower(*shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 10 * 2**20
