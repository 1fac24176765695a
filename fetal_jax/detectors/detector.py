"""From volumes to landmarks: the one decoder of validation, test and prediction."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fetal_jax import boxes, heatmaps, losses, metrics
from fetal_jax.calibration import Calibration, calibrate


class Trained(NamedTuple):
    """A network's parameters, and what its confidence is worth."""

    params: dict
    calibration: Calibration = Calibration()


class Found(NamedTuple):
    """Landmarks in voxels of the grid, and how sure the network is of each.

    Where the true positions were given, also what `metrics.local_accuracy` says of each, and where
    a landmark was asked for, its map.
    """

    points_vox: jax.Array  # [B, L, 3]
    argmax_vox: jax.Array  # [B, L, 3]
    confidence: jax.Array  # [B, L], calibrated
    local_mm: jax.Array | None = None  # [B, L, R]
    local_guess_mm: jax.Array | None = None  # [B, L, R]
    map: jax.Array | None = None  # [B, D, H, W], its highest value is 1


def find_landmarks(
    trained: Trained,
    examples: dict[str, jax.Array],
    *,
    apply: Callable,
    loss_name: str,
    sharpness: float,
    radius_vox: float,
    confidence_radius_mm: float,
    radii_mm: jax.Array,
    spacing_mm: float,
) -> Found:
    """Run the network on volumes and decode each of its maps.

    Args:
      examples: volumes [B, D, H, W]; to measure the local accuracy also points_vox [B, L, 3]; to
        see one landmark's map, shown [B], its index.
      apply: apply(params, [B, D, H, W, 1]) -> logits [B, L, D, H, W].
      loss_name: what the network was trained with, which says how its logits make a map.
      sharpness, radius_vox: of `heatmaps.decode_landmark`.
      confidence_radius_mm: of `heatmaps.compute_confidence`.
      radii_mm: [R], of `metrics.local_accuracy`.
      spacing_mm: side of a voxel.
    """
    logits = apply(trained.params, examples["volumes"][..., None])
    confide = partial(
        heatmaps.compute_confidence, radius_mm=confidence_radius_mm, spacing_mm=spacing_mm
    )

    def find_one(z):  # [D, H, W]
        log_weights = losses.log_weights(z, name=loss_name)
        point = heatmaps.decode_landmark(z, log_weights, sharpness=sharpness, radius_vox=radius_vox)
        confidence = calibrate(confide(log_weights, point), trained.calibration)
        return Found(point, heatmaps.decode_argmax(z), confidence)

    def measure_one(z, target):
        distance_mm = heatmaps.compute_distances(z.shape, target, spacing_mm)
        return metrics.local_accuracy(z.reshape(-1), distance_mm.reshape(-1), radii_mm)

    def show_one(z, index):  # [L, D, H, W]
        log_weights = losses.log_weights(z[index], name=loss_name)
        return jnp.exp(log_weights - jnp.max(log_weights))

    found = jax.vmap(jax.vmap(find_one))(logits)
    return _add_asked(found, jax.vmap(measure_one), show_one, logits, examples)


def find_boxes(
    trained: Trained,
    examples: dict[str, jax.Array],
    *,
    apply: Callable,
    anchors: jax.Array,
    side_vox: float,
    radii_mm: jax.Array,
    spacing_mm: float,
) -> Found:
    """`find_landmarks` for a detector: the centre of the best-scoring box, its score as confidence.

    Args:
      apply: apply(params, [B, D, H, W, 1]) -> outputs [B, L, M, 5].
      anchors: [M, 3] voxels; side_vox: theirs.
    """
    outputs = apply(trained.params, examples["volumes"][..., None])

    def find_one(out):
        found = boxes.decode_boxes(out, anchors, side_vox)
        best = jnp.argmax(found.score)
        confidence = calibrate(jax.nn.sigmoid(found.score[best]), trained.calibration)
        return Found(found.centre[best], found.centre[best], confidence)

    def measure_one(out, target):
        found = boxes.decode_boxes(out, anchors, side_vox)
        distance_mm = spacing_mm * jnp.linalg.norm(found.centre - target[None], axis=-1)
        return metrics.local_accuracy(found.score, distance_mm, radii_mm)

    def show_one(out, index):  # [L, M, 5]; a cell's score over its whole cell
        score = jax.nn.sigmoid(boxes.decode_boxes(out[index], anchors, side_vox).score)
        cells = round(score.size ** (1 / 3))
        repeats = examples["volumes"].shape[1] // cells
        map_ = (score / jnp.max(score)).reshape(cells, cells, cells)
        for axis in range(3):
            map_ = jnp.repeat(map_, repeats, axis=axis)
        return map_

    found = jax.vmap(jax.vmap(find_one))(outputs)
    return _add_asked(found, jax.vmap(measure_one), show_one, outputs, examples)


def _add_asked(found: Found, measure, show, outputs, examples) -> Found:
    if "points_vox" in examples:
        local_mm, guess_mm = jax.vmap(measure)(outputs, examples["points_vox"])
        found = found._replace(local_mm=local_mm, local_guess_mm=guess_mm)
    if "shown" in examples:
        shown = examples["shown"].astype(jnp.int32)
        found = found._replace(map=jax.vmap(show)(outputs, shown))
    return found
