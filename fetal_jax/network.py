"""From the values of a config to the network, its training step and its decoder."""

from functools import partial

import jax
import jax.numpy as jnp
import ml_collections

from fetal_jax import heatmaps, inference, losses, parallel, train
from fetal_jax.errors import InputError
from fetal_jax.models.resunet3d import ResUNet3D

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def build_model(config: ml_collections.ConfigDict, landmarks: int) -> ResUNet3D:
    """The network of config.model, for a grid of config.grid.side."""
    factor = 2 ** (len(config.model.widths) - 1)
    if config.grid.side % factor:
        raise InputError(
            f"config.grid.side: expected a multiple of {factor}, for {len(config.model.widths)} "
            f"levels, got {config.grid.side}"
        )
    if config.model.dtype not in DTYPES:
        raise InputError(
            f"config.model.dtype: expected one of {', '.join(DTYPES)}, got {config.model.dtype!r}"
        )
    return ResUNet3D(
        landmarks,
        tuple(config.model.widths),
        groups=config.model.groups,
        shortcut_size=config.model.shortcut_size,
        dtype=DTYPES[config.model.dtype],
    )


def target_settings(config: ml_collections.ConfigDict) -> dict:
    """Kind and width of the target in mm, and the grid's spacing."""
    if config.loss.name not in losses.NAMES:
        raise InputError(
            f"config.loss.name: expected one of {', '.join(losses.NAMES)}, got {config.loss.name!r}"
        )
    if config.target.kind not in heatmaps.KINDS:
        raise InputError(
            f"config.target.kind: expected one of {', '.join(heatmaps.KINDS)}, "
            f"got {config.target.kind!r}"
        )
    spacing_mm = config.grid.spacing_mm
    width_mm = config.target.width_vox * spacing_mm
    return {"kind": config.target.kind, "width_mm": width_mm, "spacing_mm": spacing_mm}


def build_step(config: ml_collections.ConfigDict, model, optimizer, mirror):
    """`train.train_step` with everything but its arrays bound.

    Args:
      mirror: for each landmark the index of the one on the other side, or None.
    """
    augmentation = None
    if config.augment.on:
        augmentation = config.augment.to_dict()
        del augmentation["on"]
        flip = augmentation.pop("flip") and mirror is not None
        augmentation["mirror"] = tuple(int(i) for i in mirror) if flip else None
    return partial(
        train.train_step,
        apply=model.apply,
        optimizer=optimizer,
        loss=config.loss.to_dict() | target_settings(config),
        augmentation=augmentation,
    )


def build_finder(config: ml_collections.ConfigDict, model):
    """find(params, volumes [N, D, H, W]) -> `inference.Found` of numpy arrays, on all devices."""
    find = partial(
        inference.find_landmarks,
        apply=model.apply,
        loss_name=config.loss.name,
        confidence_radius_mm=config.evaluation.confidence_radius_mm,
        spacing_mm=config.grid.spacing_mm,
        **heatmaps.decoder_settings(**target_settings(config)),
    )
    mapped = parallel.map_batches(find)
    return partial(mapped, batch=config.evaluation.batch)


def count_parameters(params) -> int:
    """Number of scalars in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
