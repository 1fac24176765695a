"""From the values of a config to the network, its training step and its decoder."""

from functools import partial

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from fetal_jax import boxes, heatmaps, losses
from fetal_jax.detectors import detector as inference
from fetal_jax.errors import InputError
from fetal_jax.models.resunet3d import ResUNet3D
from fetal_jax.models.rpn3d import RPN3D
from fetal_jax.training import fit as train
from fetal_jax.training import parallel

MODELS = ("resunet3d", "rpn3d")
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
ELA_STEPS = 80  # radii of the expected local accuracy


def build_model(config: ml_collections.ConfigDict, landmarks: int) -> ResUNet3D | RPN3D:
    """The network of config.model, for a grid of config.grid.side."""
    factor = 2 ** (len(config.model.widths) - 1)
    if config.grid.side % factor:
        raise InputError(
            f"config.grid.side: expected a multiple of {factor}, for {len(config.model.widths)} "
            f"levels, got {config.grid.side}"
        )
    for key, known in (("name", MODELS), ("dtype", tuple(DTYPES))):
        if config.model[key] not in known:
            raise InputError(
                f"config.model.{key}: expected one of {', '.join(known)}, got {config.model[key]!r}"
            )
    common = dict(
        landmarks=landmarks,
        widths=tuple(config.model.widths),
        groups=config.model.groups,
        shortcut_size=config.model.shortcut_size,
        remat=config.model.remat,
        dtype=DTYPES[config.model.dtype],
    )
    if config.model.name == "resunet3d":
        return ResUNet3D(**common, logits_bias=config.model.logits_bias)
    if "rpn" not in config:
        raise InputError("config.model.name: expected configs/rpn.py for rpn3d, got another config")
    strides = [2**level for level in range(len(config.model.widths))]
    if config.rpn.stride_vox not in strides:
        raise InputError(
            f"config.rpn.stride_vox: expected one of {', '.join(map(str, strides))}, "
            f"got {config.rpn.stride_vox}"
        )
    return RPN3D(**common, stride=config.rpn.stride_vox)


def target_settings(config: ml_collections.ConfigDict) -> dict:
    """Kind and width of the target in mm, and the grid's spacing."""
    for key, value, known in (
        ("loss.name", config.loss.name, losses.NAMES),
        ("target.kind", config.target.kind, heatmaps.KINDS),
    ):
        if value not in known:
            raise InputError(f"config.{key}: expected one of {', '.join(known)}, got {value!r}")
    spacing_mm = config.grid.spacing_mm
    width_mm = config.target.width_vox * spacing_mm
    return {"kind": config.target.kind, "width_mm": width_mm, "spacing_mm": spacing_mm}


def anchor_settings(config: ml_collections.ConfigDict) -> dict:
    """Anchors [M, 3] and their side, in voxels of the grid."""
    return {
        "anchors": boxes.make_anchors((config.grid.side,) * 3, config.rpn.stride_vox),
        "side_vox": config.rpn.anchor_mm / config.grid.spacing_mm,
    }


def build_step(
    config: ml_collections.ConfigDict, model, optimizer, mirror, distances_vox=None, devices=None
):
    """`train.train_step` with everything but its arrays bound.

    Args:
      mirror: for each landmark the index of the one on the other side, or None.
      distances_vox: [L, L] of `boxes.mean_distances`, for a detector; None for no shape prior.
      devices: that it will be mapped over; None for all.
    """
    augmentation = None
    if config.augment.on:
        augmentation = config.augment.to_dict()
        del augmentation["on"]
        flip = augmentation.pop("flip") and mirror is not None
        augmentation["mirror"] = tuple(int(i) for i in mirror) if flip else None
    if config.model.name == "rpn3d":
        if distances_vox is None:
            distances_vox = np.zeros((model.landmarks,) * 2)
        sum_losses = partial(
            boxes.sum_box_losses,
            distances_vox=jnp.asarray(distances_vox, jnp.float32),
            prior_weight=config.rpn.prior_weight,
            **anchor_settings(config),
        )
    else:
        settings = config.loss.to_dict() | target_settings(config)
        sum_losses = partial(losses.sum_losses, **settings)
    return partial(
        train.train_step,
        apply=_split_input(model.apply, parallel.make_mesh(config.devices.depth, devices)),
        optimizer=optimizer,
        sum_losses=sum_losses,
        augmentation=augmentation,
    )


def _split_input(apply, mesh):
    """apply(params, volumes), with the depth of the volumes split over the mesh's devices."""
    return lambda params, volumes: apply(params, parallel.split_depth(volumes, mesh))


def ela_radii(config: ml_collections.ConfigDict) -> np.ndarray:
    """Radii [80] in mm of the expected local accuracy, evenly up to the largest."""
    largest = config.evaluation.ela_radius_mm
    return np.linspace(largest / ELA_STEPS, largest, ELA_STEPS)


def bind_finder(config: ml_collections.ConfigDict, model, apply=None):
    """`inference.find_landmarks` or `find_boxes` with everything but its arrays bound."""
    common = dict(
        apply=apply or model.apply,
        radii_mm=jnp.asarray(ela_radii(config), jnp.float32),
        spacing_mm=config.grid.spacing_mm,
    )
    if config.model.name == "rpn3d":
        return partial(inference.find_boxes, **common, **anchor_settings(config))
    return partial(
        inference.find_landmarks,
        **common,
        loss_name=config.loss.name,
        confidence_radius_mm=config.evaluation.confidence_radius_mm,
        **heatmaps.decoder_settings(**target_settings(config)),
    )


def build_finder(config: ml_collections.ConfigDict, model):
    """find(trained, examples) -> `inference.Found` of numpy arrays, on all devices.

    trained, examples: of `inference.find_landmarks`, for N cases.
    """
    depth = config.devices.depth
    mesh = parallel.make_mesh(depth, jax.local_devices())
    find = bind_finder(config, model, _split_input(model.apply, mesh))
    mapped = parallel.map_batches(find, depth=depth)

    def run(trained, examples):
        examples = {name: np.asarray(a, np.float32) for name, a in examples.items()}
        return mapped(trained, examples, batch=config.evaluation.batch)

    return run


def count_parameters(params) -> int:
    """Number of scalars in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
