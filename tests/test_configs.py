"""The configs load, differ only in what they say they do, and hold the study's numbers."""

import pytest

from configs import any_pose, ce, distance, emd, fetal_mri, fine, mouse_ct, rpn, sse


def flatten(config, prefix=""):
    flat = {}
    for key, value in config.to_dict().items():
        flat |= (
            {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
        )
    return flat


def find_differences(a, b):
    a, b = flatten(a), flatten(b)
    assert a.keys() == b.keys()
    return {key: b[key] for key in a if a[key] != b[key]}


@pytest.mark.parametrize("recipe", ["", "paper"])
@pytest.mark.parametrize(("module", "name"), [(ce, "ce"), (distance, "distance"), (sse, "sse")])
def test_a_row_of_the_study_differs_in_the_loss_alone(module, name, recipe):
    found = find_differences(emd.get_config(recipe), module.get_config(recipe))
    needed = (
        {"target.width_vox": 2.5, "model.logits_bias": -4.0, "model.logits_cap": 0.0}
        if (name, recipe)
        == (
            "sse",
            "",
        )
        else {}
    )
    assert found == {"loss.name": name} | needed


@pytest.mark.parametrize("recipe", ["", "paper"])
def test_the_detector_differs_in_the_network_alone(recipe):
    config = rpn.get_config(recipe)
    assert 16 <= config.rpn.anchor_mm <= 24
    del config.rpn
    assert find_differences(emd.get_config(recipe), config) == {
        "model.name": "rpn3d",
        "data.labels": ("n", "prn", "sn", "chL", "chR"),
    }


def test_the_study_s_numbers():
    config = emd.get_config("paper")
    assert (config.grid.side, config.grid.spacing_mm) == (128, 1.0)
    assert config.model.widths == (32, 64, 128, 256, 512)
    assert (config.loss.name, config.loss.omega, config.loss.lambda2) == ("emd", 0.5, 0.2)
    assert (config.target.kind, config.target.width_vox) == ("exponential", 3.0)
    assert (config.optim.lr, config.optim.decay, config.optim.clip_norm) == (1e-4, "constant", 0)
    assert (config.train.batch, config.train.epochs) == (2, 50)
    assert not config.augment.on
    assert config.data.train_on_completed and config.data.test_folds == 4
    assert tuple(config.evaluation.radii_mm) == (2.0, 2.5, 3.0, 4.0)


def test_the_paper_s_recipe_leaves_data_and_evaluation_alone():
    changed = find_differences(emd.get_config(), emd.get_config("paper"))
    assert {key.split(".")[0] for key in changed} == {
        "grid",
        "model",
        "target",
        "augment",
        "optim",
        "train",
    }


def test_the_default_is_the_study_s_loss_on_a_narrow_target():
    config = emd.get_config()
    assert (config.loss.name, config.loss.omega, config.loss.lambda2) == ("emd", 0.5, 0.2)
    assert (config.target.kind, config.target.width_vox) == ("gaussian", 1.5)


def test_mouse_heads_train_on_all_of_them():
    config = mouse_ct.get_config()
    assert config.grid.side == 48
    assert config.data.validation_share == 0.0
    assert config.augment.max_degrees > emd.get_config().augment.max_degrees  # in any pose
    changed = find_differences(emd.get_config(), config)
    assert {key.split(".")[0] for key in changed}.isdisjoint({"loss", "phantom", "seed"})


@pytest.mark.parametrize(
    "module", [emd, ce, distance, sse, rpn, fine, any_pose, mouse_ct, fetal_mri]
)
def test_every_side_suits_its_network(module):
    for recipe in ("", "paper"):
        config = module.get_config(recipe)
        assert config.grid.side % 2 ** (len(config.model.widths) - 1) == 0


@pytest.mark.parametrize(
    "module", [emd, ce, distance, sse, rpn, fine, any_pose, mouse_ct, fetal_mri]
)
def test_an_unknown_recipe_is_refused(module):
    with pytest.raises(ValueError, match=r"expected configs/NAME.py or .*:paper, got :papr"):
        module.get_config("papr")
