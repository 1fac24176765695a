"""Names that are one to the eye are found, and told apart where they are named."""

import pytest

from fetal_jax.data.spelling import fold_spelling, quote_alike

CYRILLIC_A = "\N{CYRILLIC SMALL LETTER A}"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("enL", "ENL"),
        ("pa", f"p{CYRILLIC_A}"),
        ("\N{CYRILLIC CAPITAL LETTER ES}H", "CH"),
        ("go", "g\N{GREEK SMALL LETTER OMICRON}"),
        ("sn", "s\N{ZERO WIDTH SPACE}n"),
        ("ﬁ1", "fi1"),
        ("e\N{COMBINING ACUTE ACCENT}", "é"),
    ],
)
def test_what_looks_alike_is_alike(one, other):
    assert fold_spelling(one) == fold_spelling(other)


@pytest.mark.parametrize(("one", "other"), [("enL", "enR"), ("é", "e"), ("нос", "hoc1"), ("", "a")])
def test_what_does_not_is_not(one, other):
    assert fold_spelling(one) != fold_spelling(other)


def test_names_are_told_apart():
    assert quote_alike(["enL", "ENL"]) == "'enL' and 'ENL'"
    assert quote_alike(["Näse", "näse"]) == "'Näse' and 'näse'"
    assert quote_alike(["pa", f"p{CYRILLIC_A}"]) == r"'pa' and 'p\u0430'"
