"""From a config's values to the network, the step and the decoder."""

from functools import partial

import jax
import numpy as np
import pytest

from configs import emd, rpn
from fetal_jax.detectors import from_config as network
from fetal_jax.detectors.detector import Trained
from fetal_jax.errors import InputError
from fetal_jax.training import fit as train
from fetal_jax.training import parallel

DEVICE = jax.local_devices()[:1]


def make_config(**changes):
    config = emd.get_config()
    config.grid.side, config.grid.spacing_mm = 8, 2.5
    config.model.widths = (4, 8)
    config.update_from_flattened_dict(changes)
    return config


def test_model_of_a_config():
    model = network.build_model(make_config(**{"model.dtype": "bfloat16"}), 3)
    assert (model.landmarks, model.widths, model.groups) == (3, (4, 8), 0)
    assert model.dtype == network.DTYPES["bfloat16"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        pytest.param(
            {"grid.side": 10, "model.widths": (4, 8, 16)},
            "config.grid.side: expected a multiple of 4, for 3 levels, got 10",
            id="side",
        ),
        pytest.param(
            {"model.dtype": "float16"},
            "config.model.dtype: expected one of float32, bfloat16, got 'float16'",
            id="dtype",
        ),
    ],
)
def test_a_model_that_cannot_be_is_one_line(changes, line):
    with pytest.raises(InputError) as caught:
        network.build_model(make_config(**changes), 3)
    assert caught.value.problems == [line]


def test_target_in_mm():
    found = network.target_settings(make_config(**{"target.width_vox": 1.5}))
    assert found == {"kind": "gaussian", "width_mm": 3.75, "spacing_mm": 2.5}
    with pytest.raises(InputError, match="config.target.kind: expected one of gaussian, expon"):
        network.target_settings(make_config(**{"target.kind": "box"}))


@pytest.mark.parametrize(
    ("changes", "mirror", "expected"),
    [
        pytest.param({}, np.array([1, 0]), (1, 0), id="pairs"),
        pytest.param({}, None, None, id="no pairs"),
        pytest.param({"augment.flip": False}, np.array([1, 0]), None, id="flips not wanted"),
    ],
)
def test_flips_need_pairs(changes, mirror, expected):
    config = make_config(**changes)
    step = network.build_step(config, network.build_model(config, 2), None, mirror)
    assert step.keywords["augmentation"]["mirror"] == expected
    assert "on" not in step.keywords["augmentation"]
    assert step.keywords["sum_losses"].keywords == {
        "name": "emd",
        "omega": 0.5,
        "lambda1": 1.0,
        "lambda2": 0.2,
        "kind": "gaussian",
        "width_mm": 3.75,
        "spacing_mm": 2.5,
    }


def test_augmentation_off():
    config = make_config(**{"augment.on": False})
    step = network.build_step(config, network.build_model(config, 2), None, np.array([1, 0]))
    assert step.keywords["augmentation"] is None


class FakeModel:
    """Finds the brightest voxel, whatever its parameters."""

    def apply(self, params, x):
        return params * x[..., 0][:, None]


def test_finder_takes_any_number_of_volumes():
    volumes = np.zeros((6, 8, 8, 8), np.float32)
    expected = np.random.default_rng(0).integers(2, 6, (6, 3))
    volumes[(np.arange(6), *expected.T)] = 1.0
    find = network.build_finder(make_config(**{"evaluation.batch": 4}), FakeModel())
    found = find(Trained(np.float32(40.0)), {"volumes": volumes})
    np.testing.assert_allclose(found.points_vox[:, 0], expected, atol=1e-5)
    np.testing.assert_allclose(found.confidence, np.ones((6, 1)), atol=1e-5)
    assert all(isinstance(array, np.ndarray) for array in found[:3])
    assert found.local_mm is None


def test_a_detector_s_step_learns_one_box():
    """The real network, loss and decoder together: one cube, found within a voxel."""
    config = rpn.get_config()
    config.grid.side, config.grid.spacing_mm = 16, 2.0
    config.model.widths = (4, 8)
    config.rpn.anchor_mm = 10.0
    config.augment.on = False
    config.optim.lr = 1e-2
    model = network.build_model(config, 1)
    optimizer, _ = train.build_optimizer(**config.optim, steps=60)
    step = parallel.map_step(network.build_step(config, model, optimizer, None), DEVICE)
    create = partial(train.create_state, model=model, optimizer=optimizer, side=4)
    state = jax.jit(create)(jax.random.key(0))
    rng = np.random.default_rng(0)
    points = rng.uniform(4, 11, (40, 1, 3)).astype(np.float32)
    index = np.stack(np.meshgrid(*[np.arange(16)] * 3, indexing="ij"), -1)
    volumes = np.exp(-((index - points[:, None, None]) ** 2).sum(-1) / 8).astype(np.float32)
    for i in range(60):
        chosen = slice(4 * (i % 8), 4 * (i % 8) + 4)
        batch = {
            "volumes": volumes[chosen],
            "points_vox": points[chosen],
            "counted": np.ones((4, 1), bool),
            "places": np.arange(4, dtype=np.int32),
        }
        state, found = step(state, jax.random.key(1), batch)
    find = network.build_finder(config, model)
    found = find(Trained(state.params), {"volumes": volumes[32:], "points_vox": points[32:]})
    errors = np.linalg.norm(found.points_vox - points[32:], axis=-1)
    assert np.median(errors) < 1.0
    np.testing.assert_allclose(found.local_mm[..., -1], 2.0 * errors, rtol=1e-4)


@pytest.mark.parametrize("stride", [3, 4])
def test_a_stride_that_the_levels_do_not_have_is_one_line(stride):
    config = rpn.get_config()
    config.model.widths = (4, 8)
    config.rpn.stride_vox = stride
    with pytest.raises(InputError, match=f"stride_vox: expected one of 1, 2, got {stride}"):
        network.build_model(config, 1)


def test_a_detector_needs_its_own_settings():
    with pytest.raises(InputError, match="config.model.name: expected configs/rpn.py for rpn3d"):
        network.build_model(make_config(**{"model.name": "rpn3d"}), 1)


def test_count_parameters():
    shapes = {"a": jax.ShapeDtypeStruct((3, 4), np.float32), "b": np.zeros(5)}
    assert network.count_parameters(shapes) == 17
