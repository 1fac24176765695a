"""The examples that every contender trains on, and the settings that they share. No jax, no torch.

What a voxel holds costs nothing: the volumes are noise. The landmarks lie well inside, so that
augmentation does not carry them out and every contender counts them all.
"""

import numpy as np

from configs import emd

CASES = 8
# of config.augment, what the peer does too
AUGMENTED = ("max_degrees", "max_scale", "max_shift_vox", "max_gamma", "max_gain", "max_noise")


def make_config(side: int, *, dtype: str = "float32", remat: bool = False, recipe: str = ""):
    """configs/emd.py, or its recipe "paper", at a side.

    The phantom at 48³ has about the spacing that is taken without a recipe.
    """
    config = emd.get_config(recipe)
    config.grid.side = side
    if not recipe:
        config.grid.spacing_mm = 2.0
    config.model.dtype, config.model.remat = dtype, remat
    config.model.logits_cap = 0.0  # the other contenders' networks bound nothing
    return config


def read_augmentation(config) -> dict:
    """What `peer_torch.augment` takes of config.augment; raises if anything else is on."""
    chosen = config.augment.to_dict()
    others = {name for name, value in chosen.items() if value} - {*AUGMENTED, "on", "flip"}
    if others:
        raise ValueError(f"expected an augmentation that the peer has, got {', '.join(others)} too")
    return {name: chosen[name] for name in AUGMENTED}


def make_arrays(side: int, landmarks: int) -> tuple[np.ndarray, np.ndarray]:
    """volumes [N, D, H, W] float16 in [0, 1], as prepared cases hold them; points [N, L, 3] vox."""
    rng = np.random.default_rng(0)
    volumes = rng.random((CASES, side, side, side), np.float32).astype(np.float16)
    points = rng.uniform(0.3 * side, 0.7 * side, (CASES, landmarks, 3)).astype(np.float32)
    return volumes, points


def make_mirror(landmarks: int) -> np.ndarray:
    """[L], pairs that swap with left and right, as the phantom has; an odd first one is its own."""
    mirror = np.arange(landmarks)
    first = landmarks % 2
    mirror[first:] = mirror[first:].reshape(-1, 2)[:, ::-1].ravel()
    return mirror
