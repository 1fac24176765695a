"""What `config.aligned` asks for, and the folder of the second network.

RUN/aligned/ has checkpoints and a log as a run's folder, frame.json (`face_frame`), and
visibility.json with what tells what can be seen; its config follows from the run's.
"""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from fetal_jax.data.placement import Jitter
from fetal_jax.errors import InputError
from fetal_jax.geometry import Grid
from fetal_jax.runs import folder
from fetal_jax.visibility_model import VisibilityModel

FOLDER = "aligned"


def is_on(config: FrozenConfigDict) -> bool:
    """Whether a run looks twice; one of before that was possible does not."""
    return "aligned" in config and config.aligned.on


def count_steps(config: FrozenConfigDict) -> int:
    """For how many steps the second network is to be trained; 0 where there is none."""
    return config.aligned.steps if is_on(config) else 0


def read_min_visible(config: FrozenConfigDict) -> float:
    """From what chance on a landmark counts as visible; 0 where nothing says such chances."""
    return config.aligned.min_visible if is_on(config) else 0.0


def derive_config(config: FrozenConfigDict, box: Grid) -> FrozenConfigDict:
    """The config of the second network, as that of a run: another grid, width and length."""
    derived = ConfigDict(config.to_dict())
    chosen = config.aligned
    derived.grid.spacing_mm = box.spacing_mm
    derived.model.widths = chosen.widths
    derived.train.steps, derived.train.epochs = chosen.steps, 0
    # the placement moves the box instead; what bends a face or hides part of it stays
    derived.augment.max_degrees = derived.augment.max_scale = derived.augment.max_shift_vox = 0.0
    return FrozenConfigDict(derived)


def read_jitter(config: FrozenConfigDict) -> Jitter:
    chosen = config.aligned
    return Jitter(chosen.max_degrees, chosen.max_scale, chosen.max_shift_vox)


def write_visibility(workdir: Path, model: VisibilityModel) -> None:
    """WORKDIR/aligned/visibility.json."""
    content = {name: np.asarray(value).tolist() for name, value in model._asdict().items()}
    folder.write_json(workdir / FOLDER / "visibility.json", content)


def read_visibility(workdir: Path) -> VisibilityModel | None:
    """None where the run does not say what can be seen, or is not yet trained."""
    path = workdir / FOLDER / "visibility.json"
    if not path.exists():
        return None
    content = folder.read_json(path)
    try:
        offsets, weights = (np.array(content[name], np.float32) for name in VisibilityModel._fields)
        if weights.shape[:1] != offsets.shape or weights.ndim != 2:
            raise ValueError(f"weights {weights.shape} and offsets {offsets.shape}")
        return VisibilityModel(offsets, weights)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: expected what a run learned of what can be seen, got {error!r}"
        ) from None
