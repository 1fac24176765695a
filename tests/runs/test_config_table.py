"""The one door: every key has its row, and every value that no run could use is refused by name."""

import math

import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import FrozenConfigDict

from configs import any_pose, ce, distance, dsnt, emd, fetal_mri, fine, mouse_ct, rpn, sse
from fetal_jax.errors import InputError
from fetal_jax.runs.config_table import KEYS, check_config, format_help

INF, NAN = math.inf, math.nan
# for each key: the values just beyond those that are allowed, and some of another kind
BAD = {
    "seed": [-1, 0.5, "0", True],
    "data.root": [None, 3],
    "data.split": [None],
    "data.labels": [("n", "n"), (1, 2), "nose"],
    "data.coordinate_system": ["XYZ", "lps", None],
    "data.trust_missing_affine": ["yes", 1],
    "data.cache_grids": ["no", 0],
    "data.grid_dtype": ["float32", "", None],
    "data.train_on_completed": ["no", 1],
    "data.test_folds": [1, 0, -4, 2.5],
    "data.validation_share": [-0.1, 1, 1.5, NAN],
    "phantom.cases": [0, -1, 1.5],
    "phantom.seed": [-1, 0.5],
    "phantom.test_seed": [-1, 0.5],
    "phantom.spacing_mm": [0.2, 0, 5.1, INF, NAN],
    "phantom.annotators": [-1, 1.5],
    "phantom.face": ["chin", "", None],
    "crossval.folds": [1, 0, 2.5],
    "crossval.external_site": [None, 1],
    "crossval.split": [None],
    "crossval.tuning_share": [-0.1, 1, NAN],
    "grid.side": [-8, 8.0, None],
    "grid.spacing_mm": [-1.0, INF, NAN, "1"],
    "grid.percentiles": [
        *((99.5, 0.5), (1, 1), (-1, 99), (0, 101), (0.5,), (1, 2, 3), ("a", "b")),
        *(50, (NAN, 99.0)),
    ],
    "model.name": ["vit", "", None],
    "model.widths": [(), (4, 0), (4, -8), (4.5,), "48", 16, (4, INF)],
    "model.groups": [-1, 0.5],
    "model.shortcut_size": [2, 5, -1],
    "model.logits_bias": [1e3, -INF, NAN, "0"],
    "model.logits_cap": [-0.1, 0.5, 2.1, NAN, "0"],
    "model.remat": [1, "False"],
    "model.dtype": ["half", "float16"],
    "devices.depth": [0, -1, 1.5],
    "loss.name": ["mse", "EMD"],
    "loss.omega": [0, -0.5, INF, NAN],
    "loss.lambda1": [-0.1, INF],
    "loss.lambda2": [-0.1, NAN],
    "target.kind": ["box"],
    "target.width_vox": [0, -1.5, INF],
    "augment.on": [1, "True"],
    "augment.max_degrees": [-1, 181, NAN],
    "augment.max_scale": [-0.1, 1.0],
    "augment.max_shift_vox": [-1, INF],
    "augment.max_gamma": [-0.1, NAN],
    "augment.max_gain": [-0.1],
    "augment.max_noise": [-0.1],
    "augment.max_strain": [-0.1, 0.91, NAN],
    "augment.max_speckle": [-0.1, 1.1],
    "augment.max_attenuation_db": [-1.0, INF],
    "augment.max_shadow_db": [-1.0, NAN],
    "augment.max_dropout_degrees": [-1.0, 91.0],
    "augment.flip": [0],
    "aligned.on": [1, "True"],
    "aligned.spacing_mm": [-1.0, INF, "1"],
    "aligned.margin_mm": [-1.0, NAN],
    "aligned.widths": [(), (4, 0), (4.5,), 16],
    "aligned.steps": [0, 1.5],
    "aligned.poses": [0, 2, 23, True],
    "aligned.passes": [0, 1.5],
    "aligned.max_degrees": [-1, 181, NAN],
    "aligned.max_scale": [-0.1, 1.0],
    "aligned.max_shift_vox": [-1, INF],
    "aligned.min_visible": [-0.1, 1.1, "1"],
    "optim.lr": [0, -1, INF, NAN, "1e-3"],
    "optim.warmup_steps": [-1, 1.5],
    "optim.decay": ["linear"],
    "optim.clip_norm": [-1.0, NAN],
    "optim.weight_decay": [-1e-4],
    "train.batch": [0, -1, 1.5],
    "train.steps": [-1, 1.5],
    "train.epochs": [-1, 1.5],
    "train.balance_age": [1, "yes"],
    "evaluation.batch": [0, 1.5],
    "evaluation.radii_mm": [(), (2.0, -1.0), (0,), (2.0, INF), 2.0],
    "evaluation.confidence_radius_mm": [0, -4.0, INF],
    "evaluation.min_confidence": [-0.1, 1.1, NAN],
    "evaluation.region_share": [-0.1, 1.0, NAN],
    "evaluation.ela_radius_mm": [0, INF],
    "evaluation.age_groups_weeks": [(), (28.0, 24.0), (24.0, 24.0), (NAN,), 24],
    "report.on": [1],
    "report.surfaces": ["off"],
    "log.every": [0, 1.5],
    "log.save_every": [0, -2],
    "rpn.stride_vox": [0, 1.5],
    "rpn.anchor_mm": [0, INF],
    "init.run": [None, 3],
    "init.lr_share": [-0.1, NAN, "x"],
    "rpn.prior_weight": [-0.1, NAN],
}


def change(config, **changes):
    """A config as plain dicts, with other values as {"train.steps": 2}."""
    return unflatten_dict(flatten_dict(config.to_dict(), sep=".") | changes, sep=".")


def find_problems(config):
    with pytest.raises(InputError) as caught:
        check_config(config)
    return caught.value.problems


def test_each_key_of_a_config_has_its_row_and_no_row_is_left_over():
    keys = [flatten_dict(module.get_config().to_dict(), sep=".").keys() for module in (emd, rpn)]
    assert KEYS.keys() == keys[0] | keys[1]
    assert BAD.keys() == KEYS.keys()


@pytest.mark.parametrize("recipe", ["", "paper"])
@pytest.mark.parametrize(
    "module", [emd, ce, distance, sse, dsnt, rpn, fine, any_pose, mouse_ct, fetal_mri]
)
def test_every_config_passes_as_it_is(module, recipe):
    config = module.get_config(recipe)
    assert check_config(config).to_dict() == config.to_dict()
    assert check_config(config.to_dict()) == check_config(check_config(config))


@pytest.mark.parametrize(
    ("key", "value"),
    [pytest.param(k, v, id=f"{k}={v!r}") for k, values in BAD.items() for v in values],
)
def test_a_bad_value_is_one_line_with_key_and_value(key, value):
    (line,) = find_problems(change(rpn.get_config(), **{key: value}))
    assert line == f"config.{key}: expected {KEYS[key].expected}, got {value!r}"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        pytest.param(
            {"train.steps": 0}, "config.train.steps: expected at least one, got 0", id="no steps"
        ),
        pytest.param(
            {"model.widths": (8, 12), "model.groups": 8},
            "config.model.groups: expected 0 or a number that divides each of (8, 12), got 8",
            id="groups",
        ),
        pytest.param(
            {"grid.side": 20, "model.widths": (2, 4, 8, 16)},
            "config.grid.side: expected a multiple of 8, for 4 levels, got 20",
            id="side",
        ),
        pytest.param(
            {"grid.side": 0, "model.widths": (2,) * 6},
            "config.grid.side: expected a multiple of 32, for 6 levels, got 0",
            id="the side that 0 stands for",
        ),
        pytest.param(
            {"rpn.stride_vox": 3},
            "config.rpn.stride_vox: expected one of 1, 2, 4, 8, got 3",
            id="no level has that stride",
        ),
        pytest.param(
            {"rpn.stride_vox": 16},
            "config.rpn.stride_vox: expected one of 1, 2, 4, 8, got 16",
            id="deeper than the network",
        ),
    ],
)
def test_values_that_contradict_each_other(changes, line):
    assert find_problems(change(rpn.get_config(), **changes)) == [line]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"train.steps": 0, "train.epochs": 2}, id="epochs instead of steps"),
        pytest.param({"grid.side": 0, "model.widths": (2,) * 5}, id="48 has four halves"),
        pytest.param({"model.widths": (3,), "grid.side": 7}, id="one level takes any side"),
        pytest.param({"grid.percentiles": (0, 100)}, id="all intensities"),
        pytest.param({"grid.percentiles": [1, 99.0]}, id="a list, as in config.json"),
        pytest.param({"optim.lr": 1}, id="a whole number is a number"),
    ],
)
def test_values_that_can_be(changes):
    found = flatten_dict(check_config(change(emd.get_config(), **changes)).to_dict(), sep=".")
    assert {key: found[key] for key in changes} == {
        key: tuple(value) if isinstance(value, list) else value for key, value in changes.items()
    }


def test_the_box_detector_needs_its_own_config():
    (line,) = find_problems(change(emd.get_config(), **{"model.name": "rpn3d"}))
    assert line == "config.model.name: expected configs/rpn.py for rpn3d, got another config"


def test_all_bad_values_are_listed_at_once():
    changes = {"optim.lr": -1.0, "train.batch": 0, "loss.name": "mse", "log.every": 0}
    lines = find_problems(change(emd.get_config(), **changes))
    assert sorted(line.split(":")[0] for line in lines) == sorted(f"config.{k}" for k in changes)


def test_contradictions_are_listed_at_once_too():
    changes = {"train.steps": 0, "grid.side": 17, "model.groups": 7}
    assert len(find_problems(change(emd.get_config(), **changes))) == 3


def test_a_key_that_nothing_reads_is_refused_with_its_nearest():
    (line,) = find_problems(change(emd.get_config(), **{"optim.warm_steps": 3}))
    assert line == (
        "config.optim.warm_steps: expected a key that is read, the nearest is "
        "config.optim.warmup_steps"
    )


def test_missing_keys_are_one_line_that_says_what_to_do():
    config = flatten_dict(emd.get_config().to_dict(), sep=".")
    del config["report.surfaces"], config["evaluation.min_confidence"]
    (line,) = find_problems(unflatten_dict(config, sep="."))
    assert line == (
        "config: expected all keys of this version, got none named evaluation.min_confidence, "
        "report.surfaces: begin with configs/emd.py; a run of another version is trained anew"
    )


def test_a_config_older_than_a_key_does_what_was_done_before():
    config = flatten_dict(emd.get_config().to_dict(), sep=".")
    del config["train.balance_age"]
    assert check_config(unflatten_dict(config, sep=".")).train.balance_age is False


@pytest.mark.parametrize("config", [{}, {"train": 3}, {"seed": 0, "train": {}}])
def test_what_is_hardly_a_config_is_refused(config):
    assert "got none named" in find_problems(config)[-1]


def test_beyond_the_door_nothing_changes():
    config = emd.get_config()
    checked = check_config(config)
    assert isinstance(checked, FrozenConfigDict)
    with pytest.raises(AttributeError, match="immutable|locked"):
        checked.seed = 1
    with pytest.raises(AttributeError, match="immutable|locked"):
        checked.train.steps = 1
    with pytest.raises((AttributeError, TypeError)):
        checked.train["steps"] = 1
    config.train.steps = 7  # nor by whoever still has the config of before
    assert checked.train.steps == 400


def test_the_table_for_a_person_has_every_key():
    lines = format_help().splitlines()
    assert [line.split()[0] for line in lines] == [f"--config.{name}" for name in KEYS]
    columns = {line.index(key.meaning) for line, key in zip(lines, KEYS.values(), strict=True)}
    assert len(columns) == 1
    assert all(line.endswith(key.expected) for line, key in zip(lines, KEYS.values(), strict=True))
