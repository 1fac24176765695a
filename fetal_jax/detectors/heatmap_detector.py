"""A detector that paints one map for each landmark: the study's."""

from collections.abc import Callable, Mapping
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fetal_jax import heatmaps, losses, metrics, visibility_model
from fetal_jax.detectors.detector import (
    Detector,
    Found,
    LossSum,
    bind_model,
    choose_counted,
    find_each,
)
from fetal_jax.examples import Examples
from fetal_jax.losses import Target


def heatmap_detector(
    model: nn.Module,
    *,
    loss: str,
    factors: Mapping[str, float],
    target: Target,
    on_completed: bool,
    confidence_radius_mm: float,
    radii_mm: jax.Array,
    expected_vox: np.ndarray | None = None,
) -> Detector:
    """The detector of a network whose outputs have `logits` [B, L, D, H, W].

    Args:
      model: as `models.resunet3d.ResUNet3D`.
      loss: a key of `losses.LOSSES`; `factors` are its settings.
      target: what a map should look like, on which grid.
      on_completed: whether landmarks that cannot be seen are trained on too.
      confidence_radius_mm: of `heatmaps.compute_confidence`.
      radii_mm: [R], of `metrics.local_accuracy`.
      expected_vox: [L, 3], where each landmark is expected; with it `Found` has `evidence`.
    """
    init, apply = bind_model(model)
    return Detector(
        init,
        partial(
            sum_map_losses,
            apply=apply,
            loss=loss,
            factors=dict(factors),
            target=target,
            on_completed=on_completed,
        ),
        partial(
            find_peaks,
            apply=apply,
            log_weights=losses.LOSSES[loss].log_weights,
            target=target,
            confidence_radius_mm=confidence_radius_mm,
            radii_mm=radii_mm,
            expected_vox=expected_vox,
        ),
        losses.format_title(loss, **factors),
    )


def sum_map_losses(
    params: dict,
    examples: Examples,
    *,
    apply: Callable,
    loss: str,
    factors: dict[str, float],
    target: Target,
    on_completed: bool,
) -> dict[str, LossSum]:
    """The loss of each map, summed over the landmarks that are counted."""
    counted = choose_counted(examples, on_completed=on_completed)
    outputs = apply(params, examples.volumes)
    total = losses.sum_losses(
        outputs.logits, examples.points_vox, counted, name=loss, **target._asdict(), **factors
    )
    return {"maps": LossSum(total, jnp.sum(counted))}


def find_peaks(
    params: dict,
    examples: Examples,
    *,
    apply: Callable,
    log_weights: Callable,
    target: Target,
    confidence_radius_mm: float,
    radii_mm: jax.Array,
    expected_vox: np.ndarray | None,
) -> Found:
    """Run the network on volumes and decode each of its maps.

    Args:
      log_weights: of the loss that the network was trained with: how its logits make a map.
    """
    decoder = heatmaps.decoder_settings(**target._asdict())
    spacing_mm = target.spacing_mm

    def find_one(z):  # [D, H, W]
        weights = log_weights(z)
        point = heatmaps.decode_landmark(z, weights, **decoder)
        mass = heatmaps.compute_confidence(
            weights, point, radius_mm=confidence_radius_mm, spacing_mm=spacing_mm
        )
        return Found(point, heatmaps.decode_argmax(z), mass)

    def score_one(z, target_vox):
        distance_mm = heatmaps.compute_distances(z.shape, target_vox, spacing_mm)
        return metrics.local_accuracy(z.reshape(-1), distance_mm.reshape(-1), radii_mm)

    def show_one(z):
        weights = log_weights(z)
        return jnp.exp(weights - jnp.max(weights))

    outputs = apply(params, examples.volumes)
    found = find_each(
        outputs.logits, examples, find_one=find_one, score_one=score_one, show_one=show_one
    )
    if expected_vox is None:
        return found
    gather = jax.vmap(visibility_model.gather_evidence, in_axes=(0, None, 0))
    expected = jnp.asarray(expected_vox, jnp.float32)
    return found._replace(
        evidence=jax.vmap(gather, in_axes=(0, 0, None))(outputs.logits, examples.volumes, expected)
    )
