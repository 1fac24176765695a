"""From a config's values to the network, the loss and the decoder."""

import jax
import numpy as np
import pytest

from configs import ce, distance, emd, rpn, sse
from fetal_jax import boxes, losses
from fetal_jax.detectors.from_config import DTYPES, build_detector, ela_radii, find_title
from fetal_jax.losses import Loss, Target, from_maps


def make_config(module=emd, **changes):
    config = module.get_config()
    config.grid.side, config.grid.spacing_mm = 8, 2.5
    config.model.widths = (4, 8)
    config.update_from_flattened_dict(changes)
    return config


@pytest.mark.parametrize("module", [emd, rpn])
def test_the_network_of_a_config(module):
    config = make_config(module, **{"model.dtype": "bfloat16", "model.remat": True})
    model = build_detector(config, 3).init.keywords["model"]
    assert (model.landmarks, model.widths, model.groups) == (3, (4, 8), 0)
    assert (model.shortcut_size, model.remat, model.dtype) == (1, True, DTYPES["bfloat16"])


def test_the_maps_of_a_config():
    """Widths in mm, however the grid; where the logits start."""
    changes = {"target.width_vox": 1.5, "model.logits_bias": -4.0, "model.logits_cap": 0.75}
    detector = build_detector(make_config(sse, **changes), 3)
    settings = detector.sum_losses.keywords
    assert settings["target"] == detector.find.keywords["target"]
    assert settings["target"] == Target("gaussian", 3.75, 2.5)
    assert settings["loss"] == "sse" and settings["on_completed"]
    assert settings["factors"] == {"omega": 0.5, "lambda1": 1.0, "lambda2": 0.2}
    assert detector.find.keywords["log_weights"] is losses.LOSSES["sse"].log_weights
    assert detector.find.keywords["confidence_radius_mm"] == 4.0
    params = jax.eval_shape(detector.init, jax.random.key(0))["params"]
    assert params["logits_bias"].shape == (3,)
    assert detector.init.keywords["model"].logits_bias == -4.0
    assert detector.init.keywords["model"].logits_cap == 0.75


def test_the_boxes_of_a_config():
    """The prior's shape is that of the training cases; to use a trained one none is asked for."""
    points = np.random.default_rng(0).uniform(0, 8, (5, 3, 3))
    present = np.ones((5, 3), bool)
    changes = {"rpn.anchor_mm": 10.0, "rpn.prior_weight": 0.7, "data.train_on_completed": False}
    config = make_config(rpn, **changes)
    settings = build_detector(config, 3, (points, present)).sum_losses.keywords
    assert settings["anchors"].shape == (4**3, 3) and settings["side_vox"] == 4.0
    assert settings["prior_weight"] == 0.7 and not settings["on_completed"]
    expected = boxes.mean_distances(points, present)
    np.testing.assert_allclose(settings["distances_vox"], expected, rtol=1e-6)
    without = build_detector(config, 3).sum_losses.keywords["distances_vox"]
    np.testing.assert_array_equal(without, np.zeros((3, 3)))


@pytest.mark.parametrize(
    ("module", "title"),
    [
        (emd, "EMD-regularised, ω 0.5"),
        (distance, "Distance penalty, ω 0.5"),
        (ce, "Softmax CE"),
        (sse, "Sum of squared errors"),
        (rpn, "RPN-style detector (our reconstruction)"),
    ],
)
def test_a_title_is_known_without_a_detector(module, title):
    config = make_config(module)
    assert find_title(config.to_dict()) == title
    assert build_detector(config, 2).title == title


def test_a_loss_of_one_s_own_is_reached_by_its_name(monkeypatch):
    """As an entry of the table, with a key of the config as its factor."""
    entry = Loss("Own, β {beta:g}", from_maps(lambda z, maps, *, beta: beta * z.sum()), ("beta",))
    monkeypatch.setitem(losses.LOSSES, "own", entry)
    config = make_config()
    config.loss.name, config.loss.beta = "own", 3.0
    assert find_title(config.to_dict()) == build_detector(config, 2).title == "Own, β 3"


def test_radii_go_evenly_to_the_largest():
    radii = ela_radii(make_config(**{"evaluation.ela_radius_mm": 20.0}))
    assert radii.shape == (80,) and radii[-1] == 20.0
    np.testing.assert_allclose(np.diff(radii), np.full(79, 0.25))
    assert radii[0] == pytest.approx(0.25)
