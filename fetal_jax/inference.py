"""From volumes to landmarks: the one decoder of validation, test and prediction."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax

from fetal_jax import heatmaps, losses


class Found(NamedTuple):
    """Landmarks in voxels of the grid, and the share of the map near each."""

    points_vox: jax.Array  # [B, L, 3]
    argmax_vox: jax.Array  # [B, L, 3]
    confidence: jax.Array  # [B, L]


def find_landmarks(
    params,
    volumes: jax.Array,
    *,
    apply: Callable,
    loss_name: str,
    sharpness: float,
    radius_vox: float,
    confidence_radius_mm: float,
    spacing_mm: float,
) -> Found:
    """Run the network on volumes [B, D, H, W] and decode each of its maps.

    Args:
      apply: apply(params, [B, D, H, W, 1]) -> logits [B, L, D, H, W].
      loss_name: what the network was trained with, which says how its logits make a map.
      sharpness, radius_vox: of `heatmaps.decode_landmark`.
      confidence_radius_mm: of `heatmaps.compute_confidence`.
      spacing_mm: side of a voxel.
    """
    logits = apply(params, volumes[..., None])
    confide = partial(
        heatmaps.compute_confidence, radius_mm=confidence_radius_mm, spacing_mm=spacing_mm
    )

    def find_one(z):  # [D, H, W]
        log_weights = losses.log_weights(z, name=loss_name)
        point = heatmaps.decode_landmark(z, log_weights, sharpness=sharpness, radius_vox=radius_vox)
        return Found(point, heatmaps.decode_argmax(z), confide(log_weights, point))

    return jax.vmap(jax.vmap(find_one))(logits)
