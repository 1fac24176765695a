"""The network: shapes, size, norms, and that every part of it takes part."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetal_jax import heatmaps, losses
from fetal_jax.models.resunet3d import Conv3D, Norm, ResidualBlock, ResUNet3D, bound_logits

SMALL = {"landmarks": 3, "widths": (4, 6, 8)}
VOLUME = (2, 8, 4, 12, 1)  # batch of two, sides that differ


def random_volumes(shape=VOLUME, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def shapes(model, shape=VOLUME):
    volumes = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), volumes)


def random_parameters(model, shape=VOLUME):
    """Every parameter random, so that no bias of 0 hides a fault; unit gain of a convolution."""
    rng = np.random.default_rng(0)

    def draw(leaf):
        fan_in = math.prod(leaf.shape[:-1])
        return np.float32(rng.normal(size=leaf.shape) * fan_in**-0.5)

    return jax.tree.map(draw, shapes(model, shape))


TINY = ResUNet3D(landmarks=3, widths=(4, 6))  # all kinds of parts, quick to compile
WEIGHTS = np.random.default_rng(1).normal(size=(2, 3, 8, 4, 12)).astype(np.float32)


class Ran(NamedTuple):
    """What came of TINY."""

    logits: jax.Array
    bounded: jax.Array  # with a cap
    gradient: dict  # in the parameters, of WEIGHTS · logits


@jax.jit
def run_tiny(params, volumes):
    """All that is asked of it in one program, for it is slow to compile."""

    def weigh(params):
        logits = TINY.apply(params, volumes).logits
        return jnp.sum(WEIGHTS * logits), logits

    gradient, logits = jax.grad(weigh, has_aux=True)(params)
    bounded = TINY.clone(logits_cap=0.75).apply(params, volumes).logits
    return Ran(logits, bounded, gradient)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="group norm"),
        pytest.param({"groups": 0}, id="instance norm"),
        pytest.param({"shortcut_size": 1}, id="shortcut of one voxel"),
        pytest.param({"shortcut_size": 0}, id="identity where it fits"),
        pytest.param({"widths": (4,)}, id="one level"),
        pytest.param({"dtype": jnp.bfloat16}, id="bfloat16"),
    ],
)
def test_output_is_one_float32_map_for_each_landmark(settings):
    model = ResUNet3D(**SMALL | settings)
    (logits,), variables = jax.eval_shape(
        model.init_with_output, jax.random.key(0), jax.ShapeDtypeStruct(VOLUME, jnp.float32)
    )
    assert logits.shape == (2, 3, 8, 4, 12) and logits.dtype == jnp.float32
    assert {p.dtype for p in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def count_parameters(model, shape):
    return sum(math.prod(p.shape) for p in jax.tree.leaves(shapes(model, shape)))


def parameters_by_hand(widths, landmarks, shortcut):
    """Convolutions k³ · C · F, the second of a block with F biases; a norm has 2 C."""

    def block(c, f, activate_first=True):
        norms = (2 * c if activate_first else 0) + 2 * f
        taps = shortcut**3 if shortcut else int(c != f)
        return norms + 27 * c * f + 27 * f * f + f + taps * c * f

    down = block(1, widths[0], activate_first=False)
    down += sum(block(c, f) for c, f in zip(widths, widths[1:], strict=False))
    up = sum(8 * c * f + block(2 * f, f) for f, c in zip(widths, widths[1:], strict=False))
    return down + up + 2 * widths[0] + (widths[0] + 1) * landmarks


STUDY = (32, 64, 128, 256, 512)


@pytest.mark.parametrize(
    ("widths", "landmarks", "shortcut", "millions"),
    [
        pytest.param(STUDY, 19, 3, 32.0, id="study"),
        pytest.param(STUDY, 19, 1, 22.9, id="study with a shortcut of one voxel"),
        pytest.param((4, 6, 8), 3, 0, None, id="small, identity where it fits"),
    ],
)
def test_parameter_count(widths, landmarks, shortcut, millions):
    model = ResUNet3D(landmarks, widths=widths, shortcut_size=shortcut)
    expected = parameters_by_hand(widths, landmarks, shortcut)
    assert count_parameters(model, (1, 16, 16, 16, 1)) == expected
    if millions:
        assert abs(expected / 1e6 - millions) < 0.1, f"{expected / 1e6:.2f} M parameters"


def test_parameter_count_does_not_depend_on_the_volume():
    model = ResUNet3D(**SMALL)
    assert count_parameters(model, VOLUME) == count_parameters(model, (1, 4, 4, 4, 1))


def test_examples_do_not_influence_one_another():
    params, volumes = random_parameters(TINY), random_volumes()
    together = np.asarray(run_tiny(params, volumes).logits)
    changed = np.asarray(run_tiny(params, np.stack([volumes[0], 9 * volumes[1] - 4])).logits)
    np.testing.assert_allclose(changed[0], together[0], rtol=1e-5, atol=1e-5)
    assert np.abs(changed[1] - together[1]).max() > 0.01
    swapped = np.asarray(run_tiny(params, volumes[::-1]).logits)
    np.testing.assert_allclose(swapped, together[::-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 0], ids=["one group", "two groups", "instance"])
@pytest.mark.parametrize("jitted", [False, True], ids=["plain", "jit"])
def test_norm_against_numpy(groups, jitted):
    shape, count = (2, 3, 4, 5, 6), groups or 6
    rng = np.random.default_rng(0)
    x = (3 + 2 * rng.normal(size=shape)).astype(np.float32)
    scale, bias = rng.normal(size=(2, 6)).astype(np.float32)
    # neighbouring channels make a group
    grouped = x.astype(np.float64).reshape(2, 60, count, 6 // count)
    mean = grouped.mean(axis=(1, 3), keepdims=True)
    variance = grouped.var(axis=(1, 3), keepdims=True)
    expected = ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(shape) * scale + bias
    norm = Norm(groups)
    apply = jax.jit(norm.apply) if jitted else norm.apply
    found = apply({"params": {"scale": scale, "bias": bias}}, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_norm_of_a_constant_is_its_bias():
    params = {"scale": np.ones(2, np.float32), "bias": np.float32([0.5, -1.0])}
    found = jax.jit(Norm(1).apply)({"params": params}, np.zeros((1, 3, 3, 3, 2), np.float32))
    np.testing.assert_allclose(found, np.broadcast_to([0.5, -1.0], found.shape), atol=1e-6)


@pytest.mark.parametrize("features", [2, 3], ids=["same width", "wider"])
def test_residual_block_passes_its_input_on(features):
    """With the second convolution at 0 only the shortcut is left."""
    block = ResidualBlock(features, groups=1, shortcut_size=0)
    x = random_volumes((1, 3, 4, 5, 2))
    params = random_parameters(block, x.shape)["params"]
    params["Conv3D_1"] = jax.tree.map(np.zeros_like, params["Conv3D_1"])
    expected = x
    if features != 2:
        expected = x @ params["Conv3D_2"]["kernel"][0, 0, 0]
    found = jax.jit(block.apply)({"params": params}, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_convolution_adds_its_bias():
    kernel = np.zeros((3, 3, 3, 1, 2), np.float32)
    kernel[1, 1, 1, 0] = [1.0, -2.0]
    x = random_volumes()
    params = {"kernel": kernel, "bias": np.float32([0.5, 3.0])}
    found = jax.jit(Conv3D(2).apply)({"params": params}, x)
    np.testing.assert_allclose(found, x * [1.0, -2.0] + [0.5, 3.0], rtol=1e-5, atol=1e-6)


def test_every_parameter_has_a_gradient():
    gradient = run_tiny(random_parameters(TINY), random_volumes()).gradient
    for path, leaf in jax.tree.leaves_with_path(gradient):
        leaf = np.asarray(leaf)
        assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)
        assert np.abs(leaf).min() > 0, jax.tree_util.keystr(path)


def test_bfloat16_activations_stay_near_float32():
    params, volumes = random_parameters(TINY), random_volumes()
    exact = np.asarray(run_tiny(params, volumes).logits)
    found = jax.jit(TINY.clone(dtype=jnp.bfloat16).apply)(params, volumes).logits
    assert found.dtype == jnp.float32
    difference = np.asarray(found) - exact
    assert 0 < difference.std() < 0.03 * exact.std()  # 8 bits: rounded, and no more than that


@pytest.mark.parametrize("layer", [Norm(0), Conv3D(4, 1)], ids=["norm", "convolution"])
def test_bfloat16_sums_over_voxels_in_float32(layer):
    """A sum of 32,768 values in bfloat16 stops growing at 256 times what is added."""
    x = random_volumes((1, 32, 32, 32, 4)).astype(jnp.bfloat16)
    weights = x.astype(jnp.float32)  # so that no sum cancels
    params = jax.tree.map(jnp.ones_like, layer.init(jax.random.key(0), x))

    def gradient(x):
        def measure(params):
            return jnp.vdot(layer.apply(params, x).astype(jnp.float32), weights)

        return jax.jit(jax.grad(measure))(params)

    expected, found = gradient(x.astype(jnp.float32)), gradient(x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=0.02), expected, found)


def test_remat_computes_each_block_again():
    """The same parameters; of three blocks the gradient keeps what goes in."""
    volumes = jnp.asarray(random_volumes())

    def count_blocks(model):
        gradient = jax.grad(lambda p: jnp.sum(model.apply(p, volumes).logits))
        return str(jax.make_jaxpr(gradient)(shapes(model))).count("differentiated=True")

    again = TINY.clone(remat=True)
    assert shapes(again) == shapes(TINY)
    assert (count_blocks(again), count_blocks(TINY)) == (3, 0)


MISUSES = {
    "sides that do not divide": ((1, 8, 8, 6, 1), r"multiple of 4, got \(1, 8, 8, 6, 1\)"),
    "no channel": ((1, 8, 8, 8), r"\[B, D, H, W, 1\].*got \(1, 8, 8, 8\)"),
    "two channels": ((1, 8, 8, 8, 2), r"got \(1, 8, 8, 8, 2\)"),
}


@pytest.mark.parametrize("case", MISUSES.values(), ids=MISUSES.keys())
def test_misuse(case):
    shape, message = case
    with pytest.raises(ValueError, match=message):
        shapes(ResUNet3D(**SMALL), shape)


def test_groups_must_divide_the_channels():
    with pytest.raises(ValueError, match="divides 6 channels, got 4"):
        shapes(Norm(4), (1, 2, 2, 2, 6))


def test_convolution_of_another_size():
    with pytest.raises(ValueError, match="1x1x1 or 3x3x3"):
        shapes(Conv3D(2, size=2), (1, 2, 2, 2, 6))


# ---- bounded logits ----


def test_bounded_logits_by_hand():
    """c = 0.75 ln 64; far beyond it a logit is c, far below it is itself."""
    cap = 0.75 * math.log(64)
    z = np.zeros((2, 4, 4, 4), np.float32)
    z[0, 0, 0] = [1e-2, cap, -1e4, 0.0]
    bounded = np.asarray(jax.jit(bound_logits, static_argnums=1)(z, 0.75))
    np.testing.assert_allclose(
        bounded[0, 0, 0], [1e-2, cap * np.tanh(1.0), -cap, 0.0], rtol=1e-5, atol=1e-7
    )
    assert bound_logits(z, 0.0) is z


def test_the_network_bounds_its_maps():
    """By the number of voxels of the volume, whatever it is."""
    params = random_parameters(TINY)
    loud = params | {"params": params["params"] | {}}
    loud["params"]["logits_kernel"] = 50.0 * params["params"]["logits_kernel"]
    free, bounded, _ = jax.device_get(run_tiny(loud, random_volumes()))
    cap = 0.75 * math.log(8 * 4 * 12)
    assert np.abs(free).max() > 3 * cap
    np.testing.assert_allclose(bounded, cap * np.tanh(free / cap), rtol=1e-4, atol=1e-4)


@jax.jit
def train_two_voices(capped, steps=600, rate=0.3):
    """What a network has at its start, in a few numbers, trained with Σ p r² on sixteen scans.

    A voice of the scan, a blob round the point, that is nearly still (its gain is a product, as
    that of two layers), and a loud one of the place, the same in every scan, with one voxel that
    stands out. Returns the mean error of the peaks in voxels, the mean of the largest p, the gain.
    """
    side, place_rate = 10, 5.0
    points = jax.random.uniform(jax.random.key(1), (16, 3), minval=2.0, maxval=side - 3.0)
    distance = jax.vmap(lambda p: heatmaps.compute_distances((side,) * 3, p, 1.0))(points)
    blobs = jnp.exp(-jnp.square(distance) / 8.0)
    place = 0.63 * jax.random.normal(jax.random.key(5), (side,) * 3)
    place = place.at[4, 5, 5].set(3.3)
    settings = dict(name="distance", omega=2.0, kind="gaussian", width_mm=1.5, spacing_mm=1.0)

    def paint(params):
        gain = params["first"] * params["second"]
        logits = gain * blobs + place_rate * params["place"][None]
        return jnp.where(capped, bound_logits(logits, 0.75), logits)

    def measure(params):
        return jnp.mean(losses.compute_losses(paint(params)[:, None], points[:, None], **settings))

    def step(_, params):
        return jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(measure)(params))

    params = {"first": jnp.float32(0.2), "second": jnp.float32(0.2), "place": place / place_rate}
    params = jax.lax.fori_loop(0, steps, step, params)
    logits = paint(params)
    peaks = jax.vmap(heatmaps.decode_argmax)(logits)
    largest = jnp.max(jax.nn.softmax(logits.reshape(16, -1)), axis=1)
    return (
        jnp.linalg.norm(peaks - points, axis=1).mean(),
        largest.mean(),
        params["first"] * params["second"],
    )


def test_a_cap_saves_the_distance_penalty():
    """It rewards what holds mass: one voxel takes every map, and then there is no gradient left."""
    error, largest, gain = map(float, train_two_voices(False))
    assert largest > 0.99 and gain < 1.0  # the scan was never listened to
    assert error > 2.0  # what a guess has; half a voxel's diagonal would be 0.5
    error, largest, gain = map(float, train_two_voices(True))
    assert error < 0.7 and largest < 0.2 and gain > 8.0
