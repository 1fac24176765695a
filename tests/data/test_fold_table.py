"""folds.csv: what is written is read again, and each mistake is named."""

from pathlib import Path

import pytest

from fetal_jax.data.case_table import Case
from fetal_jax.data.fold_table import read_folds, write_folds
from fetal_jax.errors import InputError

KNOWN = ("1", "2"), ("external",)
CASES = tuple(
    Case(f"c{i}", Path("v"), Path("p"), subject=subject)
    for i, subject in enumerate(("a", "b", "b", "d"))
)


def test_round_trip(tmp_path):
    folds = ["1", "2", "2", "external"]
    write_folds(tmp_path / "folds.csv", CASES, folds)
    assert read_folds(tmp_path / "folds.csv", CASES, *KNOWN) == folds


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["c0,1", "c1,2", "c2,2", "c3,1", "c9,1"], "line 6: expected a case of this data set"),
        (
            ["c0,1", "c1,2", "c2,2", "c3,1", "c0,1"],
            "line 6: expected each case once, got 'c0' again",
        ),
        (["c0,1", "c1,2", "c2,2", "c3,3"], "line 5: expected a fold of 1, 2, external, got '3'"),
        (["c0,1", "c1,2", "c2,2"], "expected a fold for each case, got none for c3"),
        (
            ["c0,1", "c1,2", "c2,1", "c3,2"],
            "all cases of subject 'b' in one fold, got c1 in 2 and c2 in 1",
        ),
        (["c0,1", "c1,1", "c2,1", "c3,external"], "expected cases in fold 2, got none"),
    ],
)
def test_mistakes_are_named(tmp_path, rows, words):
    path = tmp_path / "folds.csv"
    path.write_text("\n".join(["case,fold", *rows]) + "\n")
    with pytest.raises(InputError) as caught:
        read_folds(path, CASES, *KNOWN)
    assert len(caught.value.problems) == 1 and words in caught.value.problems[0]
