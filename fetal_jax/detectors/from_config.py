"""From the values of a config to a detector."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from fetal_jax import boxes
from fetal_jax.detectors.box_detector import TITLE as BOX_TITLE
from fetal_jax.detectors.box_detector import box_detector
from fetal_jax.detectors.detector import Detector
from fetal_jax.detectors.heatmap_detector import heatmap_detector
from fetal_jax.losses import Target, format_title
from fetal_jax.models.resunet3d import ResUNet3D
from fetal_jax.models.rpn3d import RPN3D

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
ELA_STEPS = 80  # radii of the expected local accuracy


def build_detector(
    config: ConfigDict,
    landmarks: int,
    training_points: tuple[np.ndarray, np.ndarray] | None = None,
    expected_vox: np.ndarray | None = None,
) -> Detector:
    """The detector of config.model, whose grid is resolved.

    Args:
      landmarks: L.
      training_points: (points_vox [N, L, 3], present [N, L]) of the training cases, which a
        detector may draw on when it trains; None to use a trained one.
      expected_vox: [L, 3], where each landmark is expected, for a detector that can also say what
        speaks for its being visible; None: it does not say.
    """
    return MODELS[config.model.name][0](config, landmarks, training_points, expected_vox)


def find_title(config: Mapping) -> str:
    """What tables call the detector of a config, as a mapping of sections; nothing is built."""
    title = MODELS[config["model"]["name"]][1](config)
    twice = config.get("aligned", {}).get("on")  # an older run has none
    return f"{title}, two looks" if twice else title


def ela_radii(config: ConfigDict) -> np.ndarray:
    """Radii [80] in mm of the expected local accuracy, evenly up to the largest."""
    largest = config.evaluation.ela_radius_mm
    return np.linspace(largest / ELA_STEPS, largest, ELA_STEPS)


def build_resunet3d(config: ConfigDict, landmarks: int) -> ResUNet3D:
    """The network of a detector by heatmaps, without a loss."""
    return ResUNet3D(
        **_read_network(config, landmarks),
        logits_bias=config.model.logits_bias,
        logits_cap=config.model.logits_cap,
    )


def build_target(config: ConfigDict) -> Target:
    """What a heatmap should look like, its width in mm."""
    spacing_mm = config.grid.spacing_mm
    return Target(config.target.kind, config.target.width_vox * spacing_mm, spacing_mm)


def _build_heatmaps(config, landmarks, training_points, expected_vox) -> Detector:
    factors = config.loss.to_dict()
    return heatmap_detector(
        build_resunet3d(config, landmarks),
        loss=factors.pop("name"),
        factors=factors,
        target=build_target(config),
        on_completed=config.data.train_on_completed,
        confidence_radius_mm=config.evaluation.confidence_radius_mm,
        radii_mm=jnp.asarray(ela_radii(config), jnp.float32),
        expected_vox=expected_vox,
    )


def _build_boxes(config, landmarks, training_points, expected_vox) -> Detector:
    stride = config.rpn.stride_vox
    return box_detector(
        RPN3D(**_read_network(config, landmarks), stride=stride),
        anchors=boxes.make_anchors((config.grid.side,) * 3, stride),
        side_vox=config.rpn.anchor_mm / config.grid.spacing_mm,
        distances_vox=training_points and boxes.mean_distances(*training_points),
        prior_weight=config.rpn.prior_weight,
        on_completed=config.data.train_on_completed,
        radii_mm=jnp.asarray(ela_radii(config), jnp.float32),
        spacing_mm=config.grid.spacing_mm,
    )


def _read_network(config, landmarks) -> dict:
    return dict(
        landmarks=landmarks,
        widths=tuple(config.model.widths),
        groups=config.model.groups,
        shortcut_size=config.model.shortcut_size,
        remat=config.model.remat,
        dtype=DTYPES[config.model.dtype],
    )


def _find_loss_title(config) -> str:
    factors = dict(config["loss"])
    return format_title(factors.pop("name"), **factors)


# config.model.name -> what builds it, and what its tables call it
MODELS = {
    "resunet3d": (_build_heatmaps, _find_loss_title),
    "rpn3d": (_build_boxes, lambda config: BOX_TITLE),
}
