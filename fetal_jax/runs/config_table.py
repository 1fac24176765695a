"""The one door for a config: each key's meaning and what it may be, checked before anything else.

Behind it are a frozen config whose values can be used, and no more questions about them.
`python launch.py --helpconfig` prints the table.
"""

import difflib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict, FrozenConfigDict

from fetal_jax import heatmaps, losses
from fetal_jax.data import lazy_volumes
from fetal_jax.data.placement import DEFAULT_SIDE
from fetal_jax.detectors.from_config import DTYPES, MODELS
from fetal_jax.elastic import MAX_STRAIN
from fetal_jax.errors import InputError
from fetal_jax.phantom import anatomy


class Key(NamedTuple):
    """What a key may hold: a test, the same in words, and what the key is for.

    before: what all runs did that are older than the key; None: it is as old as they are.
    """

    allows: Callable[[Any], bool]
    expected: str
    meaning: str
    before: Any = None


def _is_number(value) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and not isinstance(value, bool)


def _is_whole(value) -> bool:
    return _is_number(value) and isinstance(value, int)


def _number(
    allows: Callable[[float], bool], expected: str, meaning: str, before: float | None = None
) -> Key:
    return Key(lambda v: _is_number(v) and allows(v), expected, meaning, before)


def _at_least(least: float, what: str, meaning: str, before: float | None = None) -> Key:
    return _number(lambda v: v >= least, what, meaning, before)


def _above_zero(what: str, meaning: str) -> Key:
    return _number(lambda v: v > 0, f"more than 0{what and ' '}{what}", meaning)


def _count(least: int, what: str, meaning: str) -> Key:
    """A whole number."""
    return Key(lambda v: _is_whole(v) and v >= least, what, meaning)


def _numbers(allows: Callable[[Any], bool], expected: str, meaning: str, each=_is_number) -> Key:
    """At least one number."""
    return Key(lambda v: len(v) > 0 and all(map(each, v)) and allows(v), expected, meaning)


def _widths(meaning: str) -> Key:
    allows, expected = lambda v: min(v) > 0, "at least one number of channels"
    return _numbers(allows, expected, meaning, each=_is_whole)


def _one_of(known, meaning: str, before: str | None = None) -> Key:
    names = tuple(known)
    kinds = {type(name) for name in names}  # True is no 1
    return Key(
        lambda v: v in names and type(v) in kinds,
        "one of " + ", ".join(map(str, names)),
        meaning,
        before,
    )


def _flag(meaning: str, before: bool | None = None) -> Key:
    return Key(lambda v: isinstance(v, bool), "True or False", meaning, before)


def _text(meaning: str) -> Key:
    return Key(lambda v: isinstance(v, str), "text", meaning)


def _is_percentile_pair(value) -> bool:
    return len(value) == 2 and 0 <= value[0] < value[1] <= 100


KEYS: dict[str, Key] = {
    "seed": _count(0, "a whole number, 0 or more", "decides all that is random"),
    "data.root": _text("folder of the data set, or phantom"),
    "data.split": _text("a table case,split instead of the column of cases.csv"),
    "data.labels": Key(
        lambda v: (
            not isinstance(v, str)
            and all(isinstance(label, str) for label in v)
            and len(set(v)) == len(v)
        ),
        "labels, each once",
        "a choice of the landmarks, in the channels' order; empty: all",
    ),
    "data.coordinate_system": _one_of(("", "LPS", "RAS"), "of .fcsv files that name none"),
    "data.trust_missing_affine": _flag("take a volume whose orientation is missing as it is"),
    "data.cache_grids": _flag("keep resampled volumes in ~/.cache/fetal_jax/grids"),
    "data.grid_dtype": _one_of(
        lazy_volumes.DTYPES, "of resampled volumes; uint8: half the disk", before="float16"
    ),
    "data.train_on_completed": _flag("train on landmarks that an annotator completed"),
    "data.test_folds": _count(2, "2 or more folds", "one of so many folds of subjects is the test"),
    "data.validation_share": _number(
        lambda v: 0 <= v < 1, "a share from 0 to below 1", "of training subjects, to validate on"
    ),
    "phantom.cases": _count(1, "at least one case", "how many scans to simulate"),
    "phantom.seed": _count(0, "a whole number, 0 or more", "of the phantom cohort"),
    "phantom.test_seed": _count(0, "a whole number, 0 or more", "of its second site, which tests"),
    "phantom.spacing_mm": _number(
        lambda v: 0.3 <= v <= 5, "0.3 to 5 mm", "about; each case differs"
    ),
    "phantom.annotators": _count(0, "0 or more annotators", "readings to write of each case"),
    "phantom.face": _one_of(anatomy.FACES, "what all its children have"),
    "crossval.folds": _count(2, "2 or more folds", "into which the subjects are dealt"),
    "crossval.external_site": _text("held out of every fold; empty: the cases called test"),
    "crossval.split": _text("a table case,fold instead of a draw"),
    "crossval.tuning_share": _number(
        lambda v: 0 <= v < 1,
        "a share from 0 to below 1",
        "of the subjects that are not external, in no fold, for --mode=tune",
        before=0.0,
    ),
    "grid.side": _count(0, "0 or more voxels", f"of the cube; 0: {DEFAULT_SIDE}"),
    "grid.spacing_mm": _at_least(0, "0 or more mm", "0: so that every volume fits"),
    "grid.percentiles": _numbers(
        _is_percentile_pair, "two percentiles, the lower one first", "that become 0 and 1"
    ),
    "model.name": _one_of(MODELS, "the network"),
    "model.widths": _widths("channels of each level, finest first"),
    "model.groups": _count(0, "0 or more groups", "of the group norm; 0: one a channel"),
    "model.shortcut_size": _one_of((0, 1, 3), "kernel of the residual path; 0: identity"),
    "model.logits_bias": _number(
        lambda v: abs(v) < 1e3, "-1000 to 1000", "initial bias of the logits"
    ),
    "model.logits_cap": _number(
        lambda v: v == 0 or 0.5 < v <= 2,
        "0, or more than 0.5 and at most 2",
        "bounds the logits by this share of ln(voxels), 0.75 or so; 0: no bound",
    ),
    "model.remat": _flag("less memory for a third more time"),
    "model.dtype": _one_of(DTYPES, "of the activations"),
    "devices.depth": _count(
        1, "1 or more devices", "devices per volume; more when one runs out of memory"
    ),
    "loss.name": _one_of(losses.LOSSES, "what is trained with"),
    "loss.omega": _above_zero("", "power of the distance in the penalty"),
    "loss.lambda1": _at_least(
        0, "0 or more", "weight of the cross-entropy in emd, of the divergence in dsnt"
    ),
    "loss.lambda2": _at_least(
        0, "0 or more", "weight of the penalty in emd, of the distance in dsnt"
    ),
    "target.kind": _one_of(heatmaps.KINDS, "shape of the target"),
    "target.width_vox": _above_zero("voxels", "σ or α, in voxels of the grid"),
    "augment.on": _flag("whether training moves and changes the volumes"),
    "augment.max_degrees": _number(lambda v: 0 <= v <= 180, "0 to 180 degrees", "largest rotation"),
    "augment.max_scale": _number(lambda v: 0 <= v < 1, "a share from 0 to below 1", "of the size"),
    "augment.max_shift_vox": _at_least(0, "0 or more voxels", "along each axis"),
    "augment.max_gamma": _at_least(0, "0 or more", "exponent of the intensity, 1/(1+g) to 1+g"),
    "augment.max_gain": _at_least(0, "0 or more", "factor of the intensity, 1/(1+g) to 1+g"),
    "augment.max_noise": _at_least(0, "0 or more", "largest sd of the noise"),
    "augment.max_strain": _number(
        lambda v: 0 <= v <= MAX_STRAIN,
        f"a share from 0 to {MAX_STRAIN}",
        "by which an elastic deformation changes lengths; 0: none",
        before=0.0,
    ),
    "augment.max_speckle": _number(
        lambda v: 0 <= v <= 1,
        "a share from 0 to 1",
        "of fully developed speckle's contrast; 0: none",
        before=0.0,
    ),
    "augment.max_attenuation_db": _at_least(
        0, "0 or more dB", "wrong time-gain along a volume's side; 0: none", before=0.0
    ),
    "augment.max_shadow_db": _at_least(
        0, "0 or more dB", "lost in an acoustic shadow; 0: none", before=0.0
    ),
    "augment.max_dropout_degrees": _number(
        lambda v: 0 <= v <= 90, "0 to 90 degrees", "of a sector that goes to 0; 0: none", before=0.0
    ),
    "augment.flip": _flag("reflect, where landmarks.csv says which landmark mirrors which"),
    "aligned.on": _flag("a second network looks in the face's own frame"),
    "aligned.spacing_mm": _at_least(
        0, "0 or more mm", "of a face of mean size; 0: as many voxels as the first grid"
    ),
    "aligned.margin_mm": _at_least(
        0, "0 or more mm", "round the mean shape; 0: 0.15 of its length"
    ),
    "aligned.widths": _widths("as model.widths, of the second network"),
    "aligned.steps": _count(1, "at least one step", "how long to train the second network"),
    "aligned.poses": _one_of((1, 24), "in which the first network looks at a scan"),
    "aligned.passes": _count(
        1, "at least one pass", "how often it looks, each time better aligned"
    ),
    "aligned.max_degrees": _number(
        lambda v: 0 <= v <= 180, "0 to 180 degrees", "how far a frame may be turned in training"
    ),
    "aligned.max_scale": _number(lambda v: 0 <= v < 1, "a share from 0 to below 1", "or too large"),
    "aligned.max_shift_vox": _at_least(0, "0 or more voxels", "or shifted, along each axis"),
    "aligned.min_visible": _number(
        lambda v: 0 <= v <= 1, "a probability", "with less a point is written as undefined"
    ),
    "optim.lr": _above_zero("", "learning rate of Adam"),
    "optim.warmup_steps": _count(0, "0 or more steps", "while the rate rises"),
    "optim.decay": _one_of(("cosine", "constant"), "of the learning rate"),
    "optim.clip_norm": _at_least(0, "0 (no clipping) or more", "of the gradient"),
    "optim.weight_decay": _at_least(0, "0 or more", "of AdamW"),
    "train.batch": _count(1, "at least one example", "over all devices"),
    "train.steps": _count(0, "0 or more steps", "how long to train"),
    "train.epochs": _count(0, "0 or more epochs", "above 0: instead of steps"),
    "train.balance_age": _flag(
        "ages of which there are few train as often as others", before=False
    ),
    "evaluation.batch": _count(1, "at least one example", "volumes at a time"),
    "evaluation.radii_mm": _numbers(
        lambda v: min(v) > 0,
        "at least one radius above 0 mm",
        "of the success rates",
    ),
    "evaluation.confidence_radius_mm": _above_zero("mm", "a confidence is the chance to be within"),
    "evaluation.min_confidence": _number(
        lambda v: 0 <= v <= 1, "a probability", "less, and not visible: nothing is measured from it"
    ),
    "evaluation.region_share": _number(
        lambda v: 0 <= v < 1,
        "a share from 0 to below 1",
        "of the points that are to lie within their radius; 0: no radius",
        before=0.0,
    ),
    "evaluation.ela_radius_mm": _above_zero("mm", "the largest of the expected local accuracy"),
    "evaluation.age_groups_weeks": _numbers(
        lambda v: list(v) == sorted(set(v)),
        "at least one age, ascending",
        "where one group ends",
    ),
    "report.on": _flag("False: only --mode=report writes one"),
    "report.surfaces": _flag("pictures of the face, where PyVista is"),
    "log.every": _count(1, "at least one step", "between two lines of the log"),
    "log.save_every": _count(1, "at least one step", "between two checkpoints"),
    "init.run": _text("folder of a finished run whose networks these begin as; empty: anew"),
    "init.lr_share": _at_least(0, "0 or more", "of the rate, for what is taken over from it"),
    # of configs/rpn.py alone
    "rpn.stride_vox": _count(1, "1 or more voxels", "between cells"),
    "rpn.anchor_mm": _above_zero("mm", "side of a box"),
    "rpn.prior_weight": _at_least(0, "0 or more", "of the shape prior"),
}
OPTIONAL = ("rpn.", "aligned.", "init.")  # sections that a config may lack


def complete_config(values: Mapping) -> dict:
    """A config with the keys that are newer than it, of the sections that it has."""
    given = flatten_dict(dict(values), sep=".")
    sections = {name.split(".")[0] for name in given if "." in name}
    newer = {
        name: key.before
        for name, key in KEYS.items()
        if key.before is not None and name not in given and name.split(".")[0] in sections
    }
    return unflatten_dict(given | newer, sep=".")


def check_config(config: ConfigDict | Mapping) -> FrozenConfigDict:
    """The config, frozen, if a run can use every value of it; completed by `complete_config`.

    Raises:
      InputError: a line for each value that no run could use and for each key that nothing reads;
        or one for all keys that are missing, as in a run of an older version.
    """
    values = complete_config(config.to_dict() if isinstance(config, ConfigDict) else config)
    given = flatten_dict(values, sep=".")
    problems = [
        _describe_problem(name, value)
        for name, value in given.items()
        if name not in KEYS or not _allows(KEYS[name], value)
    ]
    lacking = tuple(s for s in OPTIONAL if not any(name.startswith(s) for name in given))
    missing = [name for name in KEYS if name not in given and not name.startswith(lacking)]
    if missing:
        problems.append(
            f"config: expected all keys of this version, got none named {', '.join(missing)}: "
            "begin with configs/emd.py; a run of another version is trained anew"
        )
    problems = problems or list(_find_contradictions(values))
    if problems:
        raise InputError(*problems)
    return FrozenConfigDict(values)


def _describe_problem(name: str, value) -> str:
    if name in KEYS:
        return f"config.{name}: expected {KEYS[name].expected}, got {value!r}"
    nearest = difflib.get_close_matches(name, KEYS, n=1, cutoff=0)[0]
    return f"config.{name}: expected a key that is read, the nearest is config.{nearest}"


def _allows(key: Key, value) -> bool:
    try:
        return bool(key.allows(value))
    except TypeError:  # text where a number is expected
        return False


def _find_contradictions(values: dict) -> Iterator[str]:
    """What no single key shows."""
    train, model, grid = values["train"], values["model"], values["grid"]
    if not train["epochs"] and not train["steps"]:
        yield f"config.train.steps: expected at least one, got {train['steps']}"
    groups, widths = model["groups"], tuple(model["widths"])
    if groups and any(width % groups for width in widths):
        yield (
            f"config.model.groups: expected 0 or a number that divides each of {widths}, "
            f"got {groups}"
        )
    factor = 2 ** (len(widths) - 1)
    if (grid["side"] or DEFAULT_SIDE) % factor:
        yield (
            f"config.grid.side: expected a multiple of {factor}, for {len(widths)} levels, "
            f"got {grid['side']}"
        )
    second = values.get("aligned", {"on": False})
    if second["on"] and groups and any(width % groups for width in second["widths"]):
        yield (
            f"config.aligned.widths: expected numbers that config.model.groups = {groups} divides, "
            f"got {tuple(second['widths'])}"
        )
    if second["on"] and model["name"] == "rpn3d":
        yield "config.aligned.on: expected a network of heatmaps, got config.model.name rpn3d"
    if model["name"] == "rpn3d":
        strides = [2**level for level in range(len(widths))]
        if "rpn" not in values:
            yield "config.model.name: expected configs/rpn.py for rpn3d, got another config"
        elif values["rpn"]["stride_vox"] not in strides:
            yield (
                f"config.rpn.stride_vox: expected one of {', '.join(map(str, strides))}, "
                f"got {values['rpn']['stride_vox']}"
            )


def format_help() -> str:
    """The table for a person: each key, what it is for and what it may be."""
    width = max(len(name) for name in KEYS)
    return "\n".join(
        f"--config.{name:{width}}  {key.meaning}: {key.expected}" for name, key in KEYS.items()
    )
