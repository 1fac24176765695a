"""Sweep: each combination once, and values of the config's own type."""

import json
import shutil

import pytest
from noise_runs import make_config

from configs import emd
from fetal_jax.errors import InputError
from fetal_jax.modes import sweep


def test_a_sweep_runs_each_combination_once_and_compares(noise_root, tmp_path, capsys):
    config = make_config(noise_root, **{"train.steps": 2, "crossval.external_site": ""})
    vary = ["loss.lambda2=0.1,0.4", "config.loss.omega=1"]
    sweep.run_sweep(config, tmp_path, vary, "train")
    names = sorted(path.name for path in tmp_path.iterdir())
    first, second = "loss.lambda2=0.1,loss.omega=1", "loss.lambda2=0.4,loss.omega=1"
    assert names == ["comparison", first, second]
    assert json.loads((tmp_path / second / "config.json").read_text())["loss"]["lambda2"] == 0.4
    assert config.loss.lambda2 == 0.2
    table = json.loads((tmp_path / "comparison" / "comparison.json").read_text())
    assert [row["differs"] for row in table["rows"]] == [{}, {"loss.lambda2": 0.4}]
    shutil.rmtree(tmp_path / first)
    capsys.readouterr()
    sweep.run_sweep(config, tmp_path, vary, "train")
    assert capsys.readouterr().out.count("is finished") == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loss.omega=0.5,2", ("loss.omega", [0.5, 2.0])),
        ("train.batch=1,2", ("train.batch", [1, 2])),
        ("loss.name=ce, emd", ("loss.name", ["ce", "emd"])),
        ("config.model.widths=(4,8),(8,16)", ("model.widths", [(4, 8), (8, 16)])),
        ("augment.on=True,False", ("augment.on", [True, False])),
        ("seed=0,1,2", ("seed", [0, 1, 2])),
    ],
)
def test_values_have_the_config_s_type(text, expected):
    assert sweep.parse_vary(emd.get_config(), text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("loss.omga=1", "expected a key of the config, got 'loss.omga'"),
        ("loss.omega", "expected values of type float"),
        ("loss.omega=a,b", "expected values of type float"),
        ("train.batch=1.5", "expected values of type int"),
        ("augment.on=1", "expected values of type bool"),
    ],
)
def test_values_that_cannot_be_are_refused(text, words):
    with pytest.raises(InputError, match=words):
        sweep.parse_vary(emd.get_config(), text)


def test_a_sweep_of_nothing_is_refused(noise_root, tmp_path):
    with pytest.raises(InputError, match="expected --vary"):
        sweep.run_sweep(make_config(noise_root), tmp_path, [], "train")
