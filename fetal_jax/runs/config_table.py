"""Which values a config may hold, checked before anything is read or written."""

from collections.abc import Callable

import ml_collections

from fetal_jax.errors import InputError


def _is_ascending_pair(value) -> bool:
    return len(value) == 2 and 0 <= value[0] < value[1] <= 100


RULES: dict[str, tuple[Callable, str]] = {
    "data.test_folds": (lambda v: v >= 2, "2 or more"),
    "data.validation_share": (lambda v: 0 <= v < 1, "a share from 0 to below 1"),
    "crossval.folds": (lambda v: v >= 2, "2 or more"),
    "phantom.cases": (lambda v: v > 0, "at least one case"),
    "phantom.spacing_mm": (lambda v: 0.3 <= v <= 5, "0.3 to 5 mm"),
    "phantom.annotators": (lambda v: v >= 0, "0 or more annotators"),
    "grid.side": (lambda v: v >= 0, "0 or more voxels"),
    "grid.spacing_mm": (lambda v: v >= 0, "0 or more mm"),
    "grid.percentiles": (_is_ascending_pair, "two percentiles, the lower one first"),
    "model.widths": (lambda v: v and min(v) > 0, "at least one number of channels"),
    "model.groups": (lambda v: v >= 0, "0 or more groups"),
    "model.shortcut_size": (lambda v: v in (0, 1, 3), "0, 1 or 3"),
    "target.width_vox": (lambda v: v > 0, "more than 0 voxels"),
    "optim.lr": (lambda v: v > 0, "more than 0"),
    "optim.warmup_steps": (lambda v: v >= 0, "0 or more steps"),
    "optim.clip_norm": (lambda v: v >= 0, "0 (no clipping) or more"),
    "train.batch": (lambda v: v > 0, "at least one example"),
    "train.epochs": (lambda v: v >= 0, "0 or more epochs"),
    "evaluation.batch": (lambda v: v > 0, "at least one example"),
    "evaluation.radii_mm": (lambda v: v and min(v) > 0, "at least one radius above 0 mm"),
    "evaluation.confidence_radius_mm": (lambda v: v > 0, "more than 0 mm"),
    "evaluation.min_confidence": (lambda v: 0 <= v <= 1, "a probability"),
    "evaluation.ela_radius_mm": (lambda v: v > 0, "more than 0 mm"),
    "evaluation.age_groups_weeks": (
        lambda v: v and list(v) == sorted(set(v)),
        "at least one age, ascending",
    ),
    "report.on": (lambda v: isinstance(v, bool), "True or False"),
    "report.surfaces": (lambda v: isinstance(v, bool), "True or False"),
    "log.every": (lambda v: v > 0, "at least one step"),
    "log.save_every": (lambda v: v > 0, "at least one step"),
}


def check_values(config: ml_collections.ConfigDict) -> None:
    """Raise an InputError with a line for each value that no run could use."""
    problems, missing = [], []
    for key, (is_good, expected) in RULES.items():
        section, name = key.split(".")
        if name not in config.get(section, {}):
            missing.append(f"config.{key}: expected {expected}, got none, as in an older run")
            continue
        value = config[section][name]
        if not is_good(value):
            problems.append(f"config.{key}: expected {expected}, got {value}")
    if missing:
        raise InputError(*missing)
    if not config.train.epochs and config.train.steps <= 0:
        problems.append(f"config.train.steps: expected at least one, got {config.train.steps}")
    groups, widths = config.model.groups, tuple(config.model.widths)
    if groups > 0 and any(width % groups for width in widths):
        problems.append(
            f"config.model.groups: expected 0 or a number that divides each of {widths}, "
            f"got {groups}"
        )
    if problems:
        raise InputError(*problems)
