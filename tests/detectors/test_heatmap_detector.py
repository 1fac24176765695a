"""Maps that are known: every position that is decoded and every loss is arithmetic."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetal_jax import losses
from fetal_jax.detectors.detector import init_params
from fetal_jax.detectors.heatmap_detector import heatmap_detector
from fetal_jax.examples import Examples
from fetal_jax.losses import Target
from fetal_jax.models.resunet3d import MapOutputs
from fetal_jax.visibility_model import gather_evidence

SIDE, SPACING_MM = 11, 2.0
RADII_MM = np.array([1.0, 4.0, 50.0], np.float32)
POINTS = np.array([[[5.3, 4.6, 5.0], [4.0, 6.25, 5.75]], [[5.5, 5.1, 4.9], [6.2, 5.0, 4.4]]])


class Painter:
    """A network whose parameters are its maps, the same for every volume."""

    widths = (1,)

    def init(self, key, x):
        return np.zeros((2, SIDE, SIDE, SIDE), np.float32)

    def apply(self, params, x):
        assert x.shape[1:] == (SIDE, SIDE, SIDE, 1)
        return MapOutputs(jnp.broadcast_to(params, (x.shape[0], 2, SIDE, SIDE, SIDE)))


def build(
    loss="ce",
    *,
    target=None,
    on_completed=True,
    confidence_radius_mm=4.0,
    expected_vox=None,
    **factors,
):
    return heatmap_detector(
        Painter(),
        loss=loss,
        factors=factors,
        target=target or WIDEST_BALL,
        on_completed=on_completed,
        confidence_radius_mm=confidence_radius_mm,
        radii_mm=RADII_MM,
        expected_vox=expected_vox,
    )


# of small peaks, whose decoders look 2 voxels and 6 far and leave the map as it is
SMALL_BALL = Target("gaussian", 1.0, SPACING_MM)
WIDEST_BALL = Target("gaussian", 3.0, SPACING_MM)


def find(logits, loss="ce", *, points=0.0, shown=(0, 0), target=None, confidence_radius_mm=4.0):
    """Everything is asked for, so that tests share what is compiled."""
    examples = make_volumes()._replace(
        points_vox=np.full((2, 2, 3), points, np.float32), shown=np.array(shown, np.int32)
    )
    logits = np.asarray(logits, np.float32)
    return jax.device_get(_find(logits, examples, confidence_radius_mm, loss, target))


@partial(jax.jit, static_argnames=("loss", "target"))
def _find(logits, examples, confidence_radius_mm, loss, target):
    detector = build(loss, target=target, confidence_radius_mm=confidence_radius_mm)
    return detector.find(logits, examples)


def make_volumes():
    return Examples(volumes=np.zeros((2, SIDE, SIDE, SIDE), np.float32))


def squared_distance(points):
    """[..., D, H, W], in voxels, from points [..., 3]."""
    index = np.stack(np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij"), axis=-1)
    return ((index - points[..., None, None, None, :]) ** 2).sum(axis=-1)


def two_voxels(first, second):
    """Logits of two neighbours, in a map that is dark."""
    logits = np.full((2, 2, SIDE, SIDE, SIDE), -50.0, np.float32)
    logits[..., 5, 5, 5], logits[..., 6, 5, 5] = first, second
    return logits


# ---- what is found ----


def test_gaussian_maps_give_back_their_centres():
    found = find(-squared_distance(POINTS) / (2 * 0.8**2))
    np.testing.assert_allclose(found.points_vox, POINTS, atol=0.01)
    np.testing.assert_array_equal(found.argmax_vox, np.round(POINTS - 1e-6))


def test_two_voxels_in_a_ball():
    """Weights 3 : 1 on neighbours: a quarter of the way; and a far voxel counts for nothing."""
    logits = two_voxels(np.log(3.0), 0.0)
    logits[..., 5, 5, 9] = 0.5
    found = find(logits, target=SMALL_BALL, confidence_radius_mm=2.5)
    np.testing.assert_allclose(found.points_vox, np.full((2, 2, 3), [5.25, 5, 5]), atol=1e-6)
    np.testing.assert_array_equal(found.argmax_vox, np.full((2, 2, 3), 5.0))
    # the two lie 0.5 and 1.5 mm from the point, the third 8 mm
    share = 4 / (4 + np.exp(0.5))
    np.testing.assert_allclose(found.mass, np.full((2, 2), share), rtol=1e-5)
    found = find(logits, target=SMALL_BALL, confidence_radius_mm=1.0)
    np.testing.assert_allclose(found.mass, np.full((2, 2), 0.75 * share), rtol=1e-5)


def test_a_wide_target_is_sharpened():
    """σ is twice the 1.5 voxels of a ball's peak, so the map is raised to the 4th: 81 : 1."""
    wide = Target("gaussian", 2 * 1.5 * SPACING_MM, SPACING_MM)
    found = find(two_voxels(np.log(3.0), 0.0), target=wide)
    np.testing.assert_allclose(found.points_vox[..., 0], np.full((2, 2), 5 + 1 / 82), atol=1e-6)


def test_sigmoid_maps_are_weighted_by_the_sigmoid():
    logits = two_voxels(30.0, 20.0)  # both 1 to float32, where a softmax would see e^10 : 1
    found = find(logits, "sse", target=SMALL_BALL)
    np.testing.assert_allclose(found.points_vox[..., 0], np.full((2, 2), 5.5), atol=1e-6)
    found = find(logits, "ce", target=SMALL_BALL)
    np.testing.assert_allclose(found.points_vox[..., 0], np.full((2, 2), 5.0), atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "width_mm"), [("gaussian", 3.0), ("gaussian", 6.0), ("exponential", 3.0)]
)
def test_a_network_that_learnt_its_target(kind, width_mm):
    """Off by no more than the grid's asymmetry makes it."""
    distance_mm = SPACING_MM * np.sqrt(squared_distance(POINTS))
    if kind == "gaussian":
        logits = -(distance_mm**2) / (2 * width_mm**2)
    else:
        logits = -distance_mm / (2 * width_mm**2)
    found = find(logits, target=Target(kind, width_mm, SPACING_MM))
    np.testing.assert_allclose(found.points_vox, POINTS, atol=0.15)


def test_local_accuracy_comes_with_the_true_positions():
    """A false peak 8 mm off is seen from a radius of 50 mm, and not from 4."""
    logits = np.zeros((2, 2, SIDE, SIDE, SIDE), np.float32)
    logits[..., 5, 5, 5], logits[..., 5, 5, 9] = 2.0, 3.0
    found = find(logits, points=5.0)
    np.testing.assert_allclose(found.local_mm, np.full((2, 2, 3), [0.0, 0.0, 8.0]), atol=1e-5)
    np.testing.assert_array_equal(found.argmax_vox, np.full((2, 2, 3), [5.0, 5, 9]))
    assert found.local_guess_mm.shape == (2, 2, 3) and (found.local_guess_mm[..., 0] == 0).all()


def test_what_is_not_asked_for_is_not_there():
    found = jax.eval_shape(build().find, np.zeros((2, SIDE, SIDE, SIDE)), make_volumes())
    assert found.points_vox.shape == (2, 2, 3)
    assert found.local_mm is None and found.local_guess_mm is None and found.map is None


@pytest.mark.parametrize("loss", ["ce", "sse"])
def test_the_map_that_is_asked_for(loss):
    logits = np.full((2, 2, SIDE, SIDE, SIDE), -50.0, np.float32)
    logits[0, 1, 5, 5, 5], logits[0, 1, 5, 5, 9] = 1.0, 0.0
    logits[1, 0, 2, 3, 4] = 7.0
    maps = find(logits, loss, target=SMALL_BALL, shown=(1, 0)).map
    assert maps.shape == (2, SIDE, SIDE, SIDE) and maps.max(axis=(1, 2, 3)).tolist() == [1.0, 1.0]
    second = np.exp(-1.0) if loss == "ce" else (1 + np.exp(-1.0)) / 2
    np.testing.assert_allclose(maps[0, 5, 5, 9], second, rtol=1e-5)
    assert np.unravel_index(maps[1].argmax(), maps[1].shape) == (2, 3, 4)


# ---- what is trained with ----


def make_examples(points=POINTS):
    """Two examples; one landmark is completed, another absent."""
    return Examples(
        volumes=np.zeros((2, SIDE, SIDE, SIDE), np.float32),
        points_vox=np.asarray(points, np.float32),
        present=np.array([[True, True], [True, False]]),
        visible=np.array([[True, False], [True, False]]),
    )


@pytest.mark.parametrize(("on_completed", "count"), [(True, 3), (False, 2)])
def test_the_loss_is_summed_over_what_is_counted(on_completed, count):
    """A flat map has the cross-entropy of log N, whatever its target."""
    detector = build(on_completed=on_completed)
    maps = np.zeros((2, SIDE, SIDE, SIDE), np.float32)
    sums = jax.jit(detector.sum_losses)(maps, make_examples())
    assert sums.keys() == {"maps"}
    assert int(sums["maps"].count) == count and sums["maps"].weight == 1.0
    np.testing.assert_allclose(sums["maps"].total, count * 3 * np.log(SIDE), rtol=1e-6)


def test_an_absent_landmark_pulls_at_nothing():
    detector, examples = build("emd", omega=0.5), make_examples()
    examples.points_vox[1, 1] = -1e6
    gradient = jax.grad(lambda maps: detector.sum_losses(maps, examples)["maps"].total)
    found = jax.jit(gradient)(np.zeros((2, 2, SIDE, SIDE, SIDE), np.float32))
    assert np.isfinite(found).all()
    assert (np.abs(found).max(axis=(2, 3, 4)) > 0).tolist() == [[True, True], [True, False]]


def soft_dice(logits, maps, *, gamma):
    """1 - 2 Σ sH / (Σ s^γ + Σ H^γ)."""
    s = jax.nn.sigmoid(logits)
    return 1 - 2 * jnp.sum(s * maps.heatmap) / jnp.sum(s**gamma + maps.heatmap**gamma)


def test_a_loss_that_is_put_into_the_table_trains(monkeypatch):
    """Its value, its factor, its title, its decoder: nothing else has to know of it."""
    entry = losses.Loss(
        "Soft Dice, γ {gamma:g}",
        losses.from_maps(soft_dice),
        ("gamma",),
        log_weights=jax.nn.log_sigmoid,
    )
    monkeypatch.setitem(losses.LOSSES, "dice", entry)
    target = Target("gaussian", 3.0, SPACING_MM)
    detector = build("dice", target=target, gamma=2.0, omega=0.5)
    assert detector.title == "Soft Dice, γ 2"
    points = np.stack([POINTS[0]] * 2)
    examples = make_examples(points)

    @jax.jit
    def mean(maps):
        total, count, _ = detector.sum_losses(maps, examples)["maps"]
        return total / count.astype(jnp.float32)

    maps = np.full((2, SIDE, SIDE, SIDE), -3.0, np.float32)
    h = np.exp(-squared_distance(POINTS[0]) * SPACING_MM**2 / (2 * 3.0**2))
    s = 1 / (1 + np.exp(3.0))
    dice = 1 - 2 * (s * h).sum(axis=(1, 2, 3)) / (s**2 * SIDE**3 + (h**2).sum(axis=(1, 2, 3)))
    np.testing.assert_allclose(mean(maps), dice @ [2 / 3, 1 / 3], rtol=1e-5)

    def descend(_, maps):
        return maps - 300 * jax.grad(mean)(maps)

    maps = jax.lax.fori_loop(0, 200, descend, maps)
    assert float(mean(maps)) < 0.05
    found = jax.jit(detector.find)(maps, make_volumes())
    np.testing.assert_allclose(found.points_vox, points, atol=0.1)


def test_an_unknown_loss_is_refused():
    with pytest.raises(KeyError, match="dice"):
        build("dice")


def test_fresh_parameters_are_the_network_s():
    found = build().init(jax.random.key(0))
    expected = partial(init_params, model=Painter())(jax.random.key(0))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("loss", "factors", "title"),
    [("ce", {"omega": 1.0}, "Softmax CE"), ("emd", {"omega": 1.0}, "EMD-regularised, ω 1")],
)
def test_a_title_is_that_of_its_loss(loss, factors, title):
    assert build(loss, **factors).title == title


def test_what_speaks_for_a_landmark_is_gathered_for_each_scan():
    """From its own map and its own volume; without a place where it is expected there is none."""
    rng = np.random.default_rng(0)
    maps = rng.normal(0, 1, (2, SIDE, SIDE, SIDE)).astype(np.float32)
    volumes = make_volumes()._replace(volumes=rng.random((2, SIDE, SIDE, SIDE), np.float32))
    expected = np.array([[1.0, 2.0, 3.0], [9.0, 8.0, 2.0]])
    assert jax.jit(build().find)(maps, volumes).evidence is None
    found = jax.jit(build(expected_vox=expected).find)(maps, volumes).evidence
    for b in range(2):
        for i in range(2):
            wanted = gather_evidence(maps[i], volumes.volumes[b], np.float32(expected[i]))
            np.testing.assert_allclose(found[b, i], wanted, rtol=1e-4, atol=1e-5)
