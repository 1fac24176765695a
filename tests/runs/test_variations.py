"""`--vary`: values of the config's own type."""

import pytest

from configs import emd
from fetal_jax.errors import InputError
from fetal_jax.runs import variations


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
    assert variations.parse_vary(emd.get_config(), text) == expected


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
        variations.parse_vary(emd.get_config(), text)
