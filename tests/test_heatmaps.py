"""Heatmaps against numpy; decoding of perfect maps, whose true point is known."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetal_jax import heatmaps, losses

SHAPE = (6, 7, 8)
POSITIONS = {
    "on a voxel": (2.0, 3.0, 4.0),
    "between voxels": (2.3, 3.45, 1.9),
    "outside": (-4.5, 3.2, 20.0),
}
# name: kind, width_mm
TARGETS = {
    "exponential 3 mm": ("exponential", 3.0),
    "gaussian 1.5 mm": ("gaussian", 1.5),
    "gaussian 3 mm": ("gaussian", 3.0),
}


compute_distances = jax.jit(heatmaps.compute_distances, static_argnums=0)
log_heatmap = jax.jit(heatmaps.log_heatmap, static_argnames="kind")
render_heatmap = jax.jit(heatmaps.render_heatmap, static_argnames="kind")
log_target = jax.jit(heatmaps.log_target, static_argnames="kind")
decode_argmax = jax.jit(heatmaps.decode_argmax)
decode_landmark = jax.jit(heatmaps.decode_landmark, static_argnames="radius_vox")
compute_confidence = jax.jit(heatmaps.compute_confidence)


def named(cases):
    return pytest.mark.parametrize("case", cases.values(), ids=cases.keys())


def numpy_distances(shape, position, spacing=1.0):
    offsets = np.indices(shape) - np.reshape(np.asarray(position, np.float64), (3, 1, 1, 1))
    return spacing * np.sqrt((offsets**2).sum(axis=0))


def numpy_log_heatmap(distance, kind, width):
    return {"exponential": -distance, "gaussian": -(distance**2)}[kind] / (2 * width**2)


@named(POSITIONS)
@pytest.mark.parametrize("jitted", [False, True], ids=["plain", "jit"])
def test_distances(case, jitted):
    compute = compute_distances if jitted else heatmaps.compute_distances
    found = compute(SHAPE, np.float32(case), 0.7)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, numpy_distances(SHAPE, case, 0.7), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "width", "distance", "expected"),
    [
        ("exponential", 3.0, 0.0, 1.0),
        ("exponential", 3.0, 18 * np.log(2), 0.5),  # the half-height at 12.5 mm
        ("exponential", 1.0, 4.0, np.exp(-2.0)),
        ("gaussian", 3.0, 0.0, 1.0),
        ("gaussian", 3.0, 3.0, np.exp(-0.5)),
        ("gaussian", 2.0, 4.0, np.exp(-2.0)),
    ],
)
@pytest.mark.parametrize("jitted", [False, True], ids=["plain", "jit"])
def test_heatmap_by_hand(kind, width, distance, expected, jitted):
    render, log = (
        (render_heatmap, log_heatmap) if jitted else (heatmaps.render_heatmap, heatmaps.log_heatmap)
    )
    for function, value in ((render, expected), (log, np.log(expected))):
        found = function(np.float32(distance), kind=kind, width_mm=width)
        np.testing.assert_allclose(found, value, rtol=1e-6, atol=1e-7)


@named(TARGETS)
@pytest.mark.parametrize("position", POSITIONS.values(), ids=POSITIONS.keys())
def test_maps_against_numpy(case, position):
    kind, width = case
    distance = numpy_distances(SHAPE, position)
    log_h = numpy_log_heatmap(distance, kind, width)
    q = np.exp(log_h) / np.exp(log_h).sum()
    settings = {"kind": kind, "width_mm": width}
    given = compute_distances(SHAPE, np.float32(position), 1.0)
    found = log_heatmap(given, **settings)
    np.testing.assert_allclose(found, log_h, rtol=1e-5, atol=1e-6)
    found = render_heatmap(given, **settings)
    np.testing.assert_allclose(found, np.exp(log_h), rtol=1e-4, atol=1e-35)  # denormals are 0
    found = np.exp(log_target(given, **settings))
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-5)
    np.testing.assert_allclose(found, q, rtol=1e-4, atol=1e-35)


@named(TARGETS)
@pytest.mark.parametrize("jitted", [False, True], ids=["plain", "jit"])
def test_target_of_a_landmark_a_metre_outside(case, jitted):
    kind, width = case
    distance = compute_distances(SHAPE, np.float32([1000.0, 2.0, 3.0]), 1.0)
    target = log_target if jitted else heatmaps.log_target
    log_q = np.asarray(target(distance, kind=kind, width_mm=width))
    assert np.isfinite(log_q).all()
    np.testing.assert_allclose(np.exp(log_q).sum(), 1, rtol=1e-4)
    assert np.unravel_index(log_q.argmax(), SHAPE) == (5, 2, 3)  # the nearest voxel


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        pytest.param((2.25, -3.5, 9.0), (2.25, -3.5, 9.0), id="near"),
        pytest.param((-1000.0, 1006.0, 4.0), (-1000.0, 1006.0, 4.0), id="just as far"),
        pytest.param((1e3 + 5.5, -1e6, 4.0), (1005.0, -1000.0, 4.0), id="farther"),
        pytest.param((1e12, -np.inf, 1e38), (1005.0, -1000.0, 1007.0), id="anywhere"),
    ],
)
def test_a_target_is_clipped_beyond_a_thousand_voxels(position, expected):
    found = heatmaps.clip_target(np.float32(position), SHAPE)
    assert tuple(found.tolist()) == expected


@pytest.mark.parametrize(
    ("voxels", "expected"),
    [
        pytest.param([(3, 2, 1)], (3, 2, 1), id="one peak"),
        pytest.param([(3, 2, 1), (1, 6, 7)], (1, 6, 7), id="two equal peaks"),
        pytest.param([(3, 2, 1), (3, 2, 0)], (3, 2, 0), id="neighbours"),
        pytest.param([], (0, 0, 0), id="constant"),
    ],
)
@pytest.mark.parametrize("jitted", [False, True], ids=["plain", "jit"])
def test_argmax_takes_the_lowest_flat_index(voxels, expected, jitted):
    logits = np.full(SHAPE, -2.0, np.float32)
    for voxel in voxels:
        logits[voxel] = 5.0
    found = (decode_argmax if jitted else heatmaps.decode_argmax)(logits)
    assert found.dtype == jnp.float32 and tuple(found.tolist()) == expected


def draw_one_peak(voxel, seed=0):
    """[*SHAPE], random, lower the farther away: nothing but one peak, and without symmetry."""
    distance = numpy_distances(SHAPE, voxel)
    steps = np.random.default_rng(seed).uniform(0.1, 2.0, distance.size)
    ranked = np.empty(distance.size)
    ranked[np.argsort(distance.ravel(), kind="stable")] = 9.0 - np.cumsum(steps) / 20
    return ranked.reshape(SHAPE).astype(np.float32)


def test_decoder_is_the_weighted_mean_in_the_ball():
    logits, weights = draw_one_peak((3, 3, 4)), draw_one_peak((3, 3, 4), seed=1)
    w = np.exp(1.7 * weights.astype(np.float64)) * (numpy_distances(SHAPE, (3, 3, 4)) <= 2.3)
    expected = (np.indices(SHAPE) * w).sum(axis=(1, 2, 3)) / w.sum()
    for decode in (heatmaps.decode_landmark, decode_landmark):
        found = decode(logits, weights, sharpness=1.7, radius_vox=2.3)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_ball_at_the_border_is_cut_off_alike_on_both_sides():
    logits = draw_one_peak((1, 6, 4))  # one voxel below it along D, none above it along H
    near = np.zeros(SHAPE, bool)
    near[0:3, 6, 1:8] = True
    near &= numpy_distances(SHAPE, (1, 6, 4)) <= 3.0
    w = np.exp(0.4 * logits.astype(np.float64)) * near
    expected = (np.indices(SHAPE) * w).sum(axis=(1, 2, 3)) / w.sum()
    found = decode_landmark(logits, logits, sharpness=0.4, radius_vox=3.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def decode_ball(logits, *, sharpness, radius_vox):
    """The mean in the whole ball, in float64."""
    peak = np.unravel_index(np.argmax(logits), logits.shape)
    w = np.exp(sharpness * (logits - logits.max()).astype(np.float64))
    w = w * (numpy_distances(logits.shape, peak) <= radius_vox)
    return (np.indices(logits.shape) * w).sum(axis=(1, 2, 3)) / w.sum()


@named(TARGETS)
def test_of_one_peak_nothing_is_left_out(case):
    """Whatever its width and wherever between the voxels: the mean in the whole ball."""
    kind, width = case
    settings = heatmaps.decoder_settings(kind=kind, width_mm=width, spacing_mm=1.0)
    for target in np.random.default_rng(4).uniform(8, 12, (20, 3)):
        for wider in (0.7, 1.0, 1.6):
            logits = numpy_log_heatmap(numpy_distances((21,) * 3, target), kind, wider * width)
            logits = logits.astype(np.float32)
            found = decode_landmark(logits, logits, **settings)
            np.testing.assert_allclose(found, decode_ball(logits, **settings), atol=1e-4)


def draw_two_peaks(apart, height, turn):
    """Two gaussians of 1.5 voxels, the lower one so many voxels off in a direction."""
    first = np.array([12.2, 11.7, 12.4])
    off = np.array([np.cos(turn), np.sin(turn) * 0.8, np.sin(turn) * 0.6])
    both = [
        np.exp(-(numpy_distances((25,) * 3, place) ** 2) / (2 * 1.5**2))
        for place in (first, first + apart * off)
    ]
    return first, np.log(both[0] + height * both[1] + 1e-9).astype(np.float32)


@pytest.mark.parametrize(
    ("apart", "height"),
    # nearer or lower ones make a shoulder and no peak
    [(4.0, 0.9), (4.5, 0.7), (4.5, 0.9), *itertools.product((5.0, 6.0), (0.4, 0.7, 0.9))],
)
def test_of_two_peaks_the_stronger_is_found_and_not_their_middle(apart, height):
    settings = heatmaps.decoder_settings(kind="gaussian", width_mm=1.5, spacing_mm=1.0)
    for turn in np.linspace(0, 3, 7):
        first, logits = draw_two_peaks(apart, height, turn)
        error = np.linalg.norm(np.asarray(decode_landmark(logits, logits, **settings)) - first)
        blended = np.linalg.norm(decode_ball(logits, **settings) - first)
        assert error < 0.25 and error < 0.25 * blended


def test_a_ripple_is_no_peak():
    """A voxel that stands out, over a dip of 4 %: the mean is that of the whole."""
    ripple = numpy_log_heatmap(numpy_distances((21,) * 3, (10.0, 10.0, 10.0)), "gaussian", 3.6)
    ripple[8, 10, 10] += 0.24  # to just above the middle
    settings = {"sharpness": 1.0, "radius_vox": 6.0}
    ripple = ripple.astype(np.float32)
    found = decode_landmark(ripple, ripple, **settings)
    np.testing.assert_allclose(found, decode_ball(ripple, **settings), atol=1e-3)


@pytest.mark.parametrize("spacing", [0.5, 1.0, 2.0])
@named(TARGETS)
def test_decoder_settings_bring_the_peak_to_a_small_ball(case, spacing):
    kind, width = case
    found = heatmaps.decoder_settings(kind=kind, width_mm=width, spacing_mm=spacing)
    r = 1.3  # mm, where the sharpened map can be read off
    log_h = found["sharpness"] * numpy_log_heatmap(np.float64(r), kind, width)
    if kind == "exponential":
        np.testing.assert_allclose(log_h, -r / (0.75 * spacing))
        assert found["radius_vox"] == 6
    else:
        sigma = min(width, 1.5 * spacing)
        np.testing.assert_allclose(log_h, -(r**2) / (2 * sigma**2))
        np.testing.assert_allclose(found["radius_vox"], 4 * sigma / spacing)


# what the network's logits are for a perfect map: up to a constant, or exactly
FORMS = {
    "softmax": ("ce", lambda log_h: log_h + 3.0),
    "sigmoid": ("sse", lambda log_h: log_h - jnp.log(-jnp.expm1(log_h))),
}
LOOKS = list(itertools.product(heatmaps.KINDS, FORMS))
SIDE = 28


def paint(distance, width, *, kind, form):
    """Logits and log weights of a perfect map."""
    name, make_logits = FORMS[form]
    logits = make_logits(heatmaps.log_heatmap(distance, kind=kind, width_mm=width))
    return logits, losses.LOSSES[name].log_weights(logits)


@partial(jax.jit, static_argnames="radius_vox")
def decode_perfect_maps(targets, width, look, *, sharpness, radius_vox):
    """[N, 3] voxels decoded and by the argmax; `look` is an index, so that it is compiled once."""
    painters = [partial(paint, kind=kind, form=form) for kind, form in LOOKS]

    def decode(target):
        distance = heatmaps.compute_distances((SIDE,) * 3, target, 1.0)
        logits, weights = jax.lax.switch(look, painters, distance, width)
        settings = {"sharpness": sharpness, "radius_vox": radius_vox}
        found = heatmaps.decode_landmark(logits, weights, **settings)
        return found, heatmaps.decode_argmax(logits)

    return jax.lax.map(decode, targets, batch_size=20)


def measure_errors(targets, *, form, kind, width):
    """[N] voxels that the decoder and the argmax are off, of maps without a fault."""
    settings = heatmaps.decoder_settings(kind=kind, width_mm=width, spacing_mm=1.0)
    errors = []
    for some in targets.astype(np.float32).reshape(-1, 100, 3):
        found = decode_perfect_maps(some, width, LOOKS.index((kind, form)), **settings)
        errors.append([np.linalg.norm(f - some, axis=-1) for f in found])
    return np.concatenate(errors, axis=1)


@named(TARGETS)
@pytest.mark.parametrize("form", FORMS)
def test_decoding_between_voxels(case, form):
    kind, width = case
    targets = np.random.default_rng(1).uniform(8, SIDE - 9, (1000, 3))
    error, error_argmax = measure_errors(targets, form=form, kind=kind, width=width)
    assert error.mean() <= 0.2, f"mean error {error.mean():.3f} voxel"
    # the mean distance of a uniform point in a voxel from its centre
    np.testing.assert_allclose(error_argmax.mean(), 0.4803, rtol=0.05)


@named({"exponential 3 mm": ("exponential", 3.0), "gaussian 1.5 mm": ("gaussian", 1.5)})
@pytest.mark.parametrize(
    ("low", "high", "limit"),
    [
        # ball cut off on up to three sides
        pytest.param((0.5,) * 3, (6,) * 3, 0.2, id="corner"),
        pytest.param((SIDE - 7,) * 3, (SIDE - 1.5,) * 3, 0.2, id="opposite corner"),
        pytest.param((0.5, 8, 8), (1.5, 19, 19), 0.2, id="second layer"),
        # one coordinate is read off the argmax: a mean of 1/4 voxel and nothing else
        pytest.param((-0.5, 8, 8), (0.5, 19, 19), 0.26, id="outermost layer"),
    ],
)
def test_decoding_near_the_border(case, low, high, limit):
    kind, width = case
    targets = np.random.default_rng(2).uniform(low, high, (300, 3))
    error, error_argmax = measure_errors(targets, form="softmax", kind=kind, width=width)
    assert error.mean() <= limit, f"mean error {error.mean():.3f} voxel"
    assert error.mean() < 0.6 * error_argmax.mean()


@named(TARGETS)
def test_confidence_against_numpy(case):
    kind, width = case
    position, spacing, radius = (2.3, 3.45, 1.9), 0.8, 1.7
    weights = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    weights += numpy_log_heatmap(numpy_distances(SHAPE, position), kind, width)
    p = np.exp(weights.astype(np.float64))
    near = numpy_distances(SHAPE, position, spacing) <= radius
    for compute in (heatmaps.compute_confidence, compute_confidence):
        found = compute(weights, np.float32(position), radius_mm=radius, spacing_mm=spacing)
        np.testing.assert_allclose(found, (p * near).sum() / p.sum(), rtol=1e-5)


@pytest.mark.parametrize(
    ("radius", "expected"), [(0.5, 1 / 125), (1.0, 7 / 125), (9.0, 1.0)], ids=str
)
def test_confidence_of_a_flat_map_is_the_share_of_voxels(radius, expected):
    flat, middle = np.full((5, 5, 5), 80.0, np.float32), np.full(3, 2.0, np.float32)
    found = compute_confidence(flat, middle, radius_mm=radius, spacing_mm=1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


MISUSES = {
    "positions": (
        lambda: heatmaps.compute_distances(SHAPE, np.zeros((4, 3)), 1.0),
        r"expected one position \[3\], got \(4, 3\)",
    ),
    "kind of log_heatmap": (
        lambda: heatmaps.log_heatmap(np.ones(3), kind="cone", width_mm=1.0),
        "gaussian.*exponential.*got 'cone'",
    ),
    "kind of render_heatmap": (
        lambda: heatmaps.render_heatmap(np.ones(3), kind="cone", width_mm=1.0),
        "gaussian.*exponential.*got 'cone'",
    ),
    "kind of log_target": (
        lambda: heatmaps.log_target(np.ones(3), kind="cone", width_mm=1.0),
        "gaussian.*exponential.*got 'cone'",
    ),
    "kind of decoder_settings": (
        lambda: heatmaps.decoder_settings(kind="cone", width_mm=1.0, spacing_mm=1.0),
        "gaussian.*exponential.*got 'cone'",
    ),
    "confidence of many positions": (
        lambda: heatmaps.compute_confidence(
            np.ones(SHAPE), np.zeros((2, 3)), radius_mm=1.0, spacing_mm=1.0
        ),
        r"got \(2, 3\)",
    ),
}


@named(MISUSES)
def test_misuse(case):
    call, message = case
    with pytest.raises(ValueError, match=message):
        call()
