"""From a config's values to an optimizer, an augmentation, a step and a finder."""

from functools import partial

import jax
import numpy as np
import optax
import pytest

from configs import emd, rpn
from fetal_jax import augment, elastic
from fetal_jax.data.lazy_volumes import Volumes
from fetal_jax.detectors.detector import Detector, Found
from fetal_jax.detectors.from_config import build_detector
from fetal_jax.errors import InputError
from fetal_jax.examples import Examples
from fetal_jax.training import from_config, parallel
from fetal_jax.training.step import create_state


def make_config(**changes):
    config = emd.get_config()
    config.update_from_flattened_dict(changes)
    return config


# ---- devices and steps ----


@pytest.mark.parametrize(
    ("batch", "depth", "devices"),
    [(4, 1, 4), (8, 1, 4), (3, 1, 1), (4, 1, None), (2, 2, 4), (1, 4, 4), (6, 4, None)],
)
def test_a_batch_that_divides(batch, depth, devices):
    config = make_config(**{"train.batch": batch, "devices.depth": depth})
    from_config.check_devices(config, devices)


@pytest.mark.parametrize(
    ("batch", "depth", "line"),
    [
        (6, 1, "config.train.batch: expected a multiple of the 4 devices, got 6"),
        (2, 1, "config.train.batch: expected a multiple of the 4 devices, got 2"),
        (3, 2, "config.train.batch: expected a multiple of the 2 groups of 2 devices, got 3"),
        (4, 3, "config.devices.depth: expected a divisor of the 4 devices of a process, got 3"),
        (4, 8, "config.devices.depth: expected a divisor of the 4 devices of a process, got 8"),
        (4, 0, "config.devices.depth: expected a divisor of the 4 devices of a process, got 0"),
    ],
)
def test_devices_that_cannot_share_a_batch_are_one_line(batch, depth, line):
    config = make_config(**{"train.batch": batch, "devices.depth": depth})
    with pytest.raises(InputError) as caught:
        from_config.check_devices(config)
    assert caught.value.problems == [line]


@pytest.mark.parametrize(
    ("steps", "epochs", "batch", "expected"),
    [
        pytest.param(70, 0, 4, 70, id="steps"),
        pytest.param(70, 3, 4, 8, id="epochs instead, the last batch begun"),
        pytest.param(70, 2, 5, 4, id="epochs that divide"),
    ],
)
def test_how_many_steps(steps, epochs, batch, expected):
    config = make_config(**{"train.steps": steps, "train.epochs": epochs, "train.batch": batch})
    assert from_config.count_steps(config, 10) == expected


def test_the_optimizer_of_a_config():
    changes = {"optim.lr": 0.5, "optim.warmup_steps": 4, "optim.decay": "constant"}
    _, schedule = from_config.build_optimizer(make_config(**changes), 100)
    assert [float(schedule(step)) for step in (0, 2, 4, 99)] == [0.0, 0.25, 0.5, 0.5]


# ---- augmentation ----


@pytest.fixture
def named(monkeypatch):
    """Members by their name and arguments, and a chain as a tuple of them."""
    for name in ("random_motion", "random_intensity", "random_flip"):
        monkeypatch.setattr(augment, name, lambda *a, name=name, **k: (name, *a, k))
    monkeypatch.setattr(elastic, "random_elastic", lambda **k: ("random_elastic", k))
    members = {
        key: lambda build=build, **k: (build.__name__, k)
        for key, build in from_config.ARTEFACTS.items()
    }
    monkeypatch.setattr(from_config, "ARTEFACTS", members)
    monkeypatch.setattr(augment, "chain", lambda *members: members)


MOTION = ("random_motion", {"max_degrees": 20.0, "max_scale": 0.1, "max_shift_vox": 2.0})
INTENSITY = ("random_intensity", {"max_gamma": 0.3, "max_gain": 0.2, "max_noise": 0.05})


@pytest.mark.parametrize(
    ("changes", "mirror", "flips"),
    [
        pytest.param({}, np.array([1, 0]), [(1, 0)], id="pairs"),
        pytest.param({}, None, [], id="no pairs"),
        pytest.param({"augment.flip": False}, np.array([1, 0]), [], id="flips not wanted"),
    ],
)
def test_what_is_chained(named, changes, mirror, flips):
    """The last acts first: reflected, then moved; the flip's key comes after the others'."""
    assert from_config.build_augmentation(make_config(**changes), mirror) == (
        MOTION,
        INTENSITY,
        *[("random_flip", pairs, {}) for pairs in flips],
    )


def test_all_that_is_off_chained(named):
    """Deformed after all motions; what the tissue does before what the machine does."""
    limits = {
        "max_strain": 0.6,
        "max_speckle": 0.5,
        "max_attenuation_db": 20.0,
        "max_shadow_db": 30.0,
        "max_dropout_degrees": 15.0,
    }
    config = make_config(**{f"augment.{name}": limit for name, limit in limits.items()})
    builders = ("elastic", "speckle", "attenuation", "shadow", "dropout")
    extra = [
        (f"random_{builder}", {name: limit})
        for builder, (name, limit) in zip(builders, limits.items(), strict=True)
    ]
    found = from_config.build_augmentation(config, None)
    assert found == (extra[0], MOTION, *extra[1:], INTENSITY)


def test_augmentation_off():
    config = make_config(**{"augment.on": False})
    assert from_config.build_augmentation(config, np.array([1, 0])) is None


# ---- a step and a finder ----


def find_brightest(params, examples):
    """Stands for a detector's: the brightest voxel, whatever its parameters."""
    shape = examples.volumes.shape[1:]
    at = jax.vmap(lambda v: jax.numpy.argmax(v.reshape(-1)))(examples.volumes)
    point = jax.numpy.stack(jax.numpy.unravel_index(at, shape), axis=-1)[:, None]
    return Found(point, point, params * jax.numpy.ones(point.shape[:2]))


@pytest.mark.parametrize("depth", [1, 2])
def test_a_finder_takes_any_number_of_volumes(depth):
    volumes = np.zeros((6, 8, 8, 8), np.float16)
    expected = np.random.default_rng(0).integers(2, 6, (6, 3))
    volumes[(np.arange(6), *expected.T)] = 1.0
    config = make_config(**{"evaluation.batch": 4, "devices.depth": depth})
    find = from_config.build_finder(config, Detector(None, None, find_brightest, "Brightest"))
    found = find(np.float32(0.5), Examples(volumes=volumes))
    np.testing.assert_array_equal(found.points_vox[:, 0], expected)
    np.testing.assert_array_equal(found.mass, np.full((6, 1), 0.5))
    assert all(isinstance(array, np.ndarray) for array in found[:3])
    assert found.local_mm is None and found.map is None


def test_a_finder_fetches_no_more_volumes_than_it_looks_at_at_once(monkeypatch):
    volumes = np.random.default_rng(0).random((7, 8, 8, 8)).astype(np.float16)
    fetched, stacked, whole = [], [], Volumes.__array__

    def fetch(i):
        fetched.append(i)
        return volumes[i]

    def stack(some, *args, **options):
        stacked.append(len(some))
        return whole(some, *args, **options)

    monkeypatch.setattr(Volumes, "__array__", stack)
    config = make_config(**{"evaluation.batch": 4})
    find = from_config.build_finder(config, Detector(None, None, find_brightest, "Brightest"))
    lazy = Volumes([partial(fetch, i) for i in range(7)], volumes.shape[1:])
    found = find(np.float32(0.5), Examples(volumes=lazy))
    assert stacked == [4, 4] and fetched == list(range(7))
    expected = find(np.float32(0.5), Examples(volumes=volumes))
    np.testing.assert_array_equal(found.points_vox, expected.points_vox)


def test_the_depth_of_a_step_s_volumes_is_split():
    config = make_config(**{"devices.depth": 4, "augment.on": False})
    seen = []

    def sum_losses(params, examples):
        seen.append(examples)
        raise StopIteration

    step = from_config.build_step(
        config, Detector(None, sum_losses, None, ""), optax.sgd(0.1), None
    )
    examples = Examples(volumes=jax.numpy.zeros((1, 8, 8, 8)))
    state = create_state(jax.random.key(0), init=lambda key: {}, optimizer=optax.sgd(0.1))
    with pytest.raises(StopIteration):
        step(state, jax.random.key(0), examples)
    assert {shard.data.shape for shard in seen[0].volumes.addressable_shards} == {(1, 2, 8, 8)}


def test_a_detector_of_boxes_learns_one_box():
    """The real network, loss and decoder together: one cube, found within a voxel."""
    config = rpn.get_config()
    config.update_from_flattened_dict(
        {
            "grid.side": 16,
            "grid.spacing_mm": 2.0,
            "model.widths": (4, 8),
            "rpn.anchor_mm": 10.0,
            "augment.on": False,
            "optim.lr": 1e-2,
        }
    )
    detector = build_detector(config, 1)
    optimizer, _ = from_config.build_optimizer(config, 60)
    devices = jax.local_devices()[:1]
    step = parallel.map_step(
        from_config.build_step(config, detector, optimizer, None, devices), devices
    )
    key = jax.random.key(0, impl="rbg")  # compiles in a tenth of the time
    params = jax.jit(detector.init)(key)
    state = create_state(key, init=lambda key: params, optimizer=optimizer)
    rng = np.random.default_rng(0)
    points = rng.uniform(4, 11, (40, 1, 3)).astype(np.float32)
    index = np.stack(np.meshgrid(*[np.arange(16)] * 3, indexing="ij"), -1)
    volumes = np.exp(-((index - points[:, None, None]) ** 2).sum(-1) / 8).astype(np.float32)
    there = np.ones((4, 1), bool)
    for i in range(60):
        chosen = slice(4 * (i % 8), 4 * (i % 8) + 4)
        examples = Examples(
            volumes=volumes[chosen],
            points_vox=points[chosen],
            present=there,
            visible=there,
            places=np.arange(4, dtype=np.int32),
        )
        state, measured = step(state, jax.random.key(1), examples)
    assert measured.keys() == {"loss", "grad_norm", "loss/boxes", "loss/prior"}
    find = from_config.build_finder(config, detector)
    examples = Examples(volumes=volumes[32:], points_vox=points[32:])
    found = find(state.params, examples)
    errors = np.linalg.norm(found.points_vox - points[32:], axis=-1)
    assert np.median(errors) < 1.0
    np.testing.assert_allclose(found.local_mm[..., -1], 2.0 * errors, rtol=1e-4)


def test_count_parameters():
    shapes = {"a": jax.ShapeDtypeStruct((3, 4), np.float32), "b": np.zeros(5)}
    assert from_config.count_parameters(shapes) == 17
