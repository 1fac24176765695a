"""A detector that proposes boxes: our reconstruction of the study's baseline, see `boxes`."""

import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fetal_jax import boxes, metrics
from fetal_jax.detectors.detector import (
    Detector,
    Found,
    LossSum,
    bind_model,
    choose_counted,
    find_each,
)
from fetal_jax.examples import Examples

TITLE = "RPN-style detector (our reconstruction)"


def box_detector(
    model: nn.Module,
    *,
    anchors: jax.Array,
    side_vox: float,
    distances_vox: np.ndarray | None,
    prior_weight: float,
    on_completed: bool,
    radii_mm: jax.Array,
    spacing_mm: float,
) -> Detector:
    """The detector of a network whose outputs have `cells` [B, L, M, 5].

    Args:
      model: as `models.rpn3d.RPN3D`.
      anchors: [M, 3] voxels, their `side_vox`.
      distances_vox: [L, L] of `boxes.mean_distances`; None for no shape prior.
      prior_weight: of `boxes.shape_prior`, taken of the expected centres.
      on_completed: whether landmarks that cannot be seen are trained on too.
      radii_mm: [R], of `metrics.local_accuracy`.
      spacing_mm: side of a voxel.
    """
    if distances_vox is None:
        distances_vox = np.zeros((model.landmarks,) * 2)
    init, apply = bind_model(model)
    where = dict(apply=apply, anchors=anchors, side_vox=side_vox)
    return Detector(
        init,
        partial(
            sum_box_losses,
            distances_vox=jnp.asarray(distances_vox, jnp.float32),
            prior_weight=prior_weight,
            on_completed=on_completed,
            **where,
        ),
        partial(find_boxes, radii_mm=radii_mm, spacing_mm=spacing_mm, **where),
        TITLE,
    )


def sum_box_losses(
    params: dict,
    examples: Examples,
    *,
    apply: Callable,
    anchors: jax.Array,
    side_vox: float,
    distances_vox: jax.Array,
    prior_weight: float,
    on_completed: bool,
) -> dict[str, LossSum]:
    """The loss of each landmark's boxes, and the shape prior of each example's, a landmark's."""
    counted = choose_counted(examples, on_completed=on_completed)

    def one(out, target):
        found = boxes.decode_boxes(out, anchors, side_vox)
        loss = boxes.box_loss(out, anchors, target, side_vox=side_vox)
        return loss, boxes.expect_centre(found)

    cells = apply(params, examples.volumes).cells
    each, centres = jax.vmap(jax.vmap(one))(cells, examples.points_vox)
    prior = jax.vmap(lambda c, there: boxes.shape_prior(c, distances_vox, there))(centres, counted)
    count = jnp.sum(counted)
    return {
        "boxes": LossSum(jnp.sum(jnp.where(counted, each, 0.0)), count),
        "prior": LossSum(jnp.sum(prior), count, prior_weight),
    }


def find_boxes(
    params: dict,
    examples: Examples,
    *,
    apply: Callable,
    anchors: jax.Array,
    side_vox: float,
    radii_mm: jax.Array,
    spacing_mm: float,
) -> Found:
    """The centre of the best-scoring box of each landmark, its score as mass."""

    def find_one(out):  # [M, 5]
        found = boxes.decode_boxes(out, anchors, side_vox)
        best = jnp.argmax(found.score)
        return Found(found.centre[best], found.centre[best], jax.nn.sigmoid(found.score[best]))

    def score_one(out, target_vox):
        found = boxes.decode_boxes(out, anchors, side_vox)
        distance_mm = spacing_mm * jnp.linalg.norm(found.centre - target_vox[None], axis=-1)
        return metrics.local_accuracy(found.score, distance_mm, radii_mm)

    def show_one(out):  # a cell's score over its whole cell
        score = jax.nn.sigmoid(boxes.decode_boxes(out, anchors, side_vox).score)
        shape = examples.volumes.shape[1:]
        stride = round((math.prod(shape) / score.size) ** (1 / 3))
        map_ = (score / jnp.max(score)).reshape([n // stride for n in shape])
        for axis in range(3):
            map_ = jnp.repeat(map_, stride, axis=axis)
        return map_

    cells = apply(params, examples.volumes).cells
    return find_each(cells, examples, find_one=find_one, score_one=score_one, show_one=show_one)
