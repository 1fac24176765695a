"""The split: whole subjects, what the data set names first, and the same for the same seed."""

from pathlib import Path

import pytest

from fetal_jax.errors import InputError
from fetal_jax.folds import SPLITS, assign_splits
from fetal_jax.io.case_table import Case


def make_cases(*rows):
    """Cases from (subject, split)."""
    return tuple(
        Case(f"c{i}", Path(f"c{i}.nii"), Path(f"c{i}.fcsv"), subject=subject, split=split)
        for i, (subject, split) in enumerate(rows)
    )


def assign(cases, seed=0, test_folds=4, validation_share=0.1):
    return assign_splits(cases, seed=seed, test_folds=test_folds, validation_share=validation_share)


TWINS = make_cases(*((f"s{i // 2}", "") for i in range(80)))  # 40 subjects, two cases each


def test_every_case_once_and_subjects_whole():
    splits = assign(TWINS)
    assert list(splits) == list(SPLITS)
    assert sorted(i for split in splits.values() for i in split) == list(range(80))
    # 40 / 4 subjects test, 10 % of the other 30 validate
    assert [len(splits[s]) for s in SPLITS] == [54, 6, 20]
    subjects = [{TWINS[i].subject for i in splits[s]} for s in SPLITS]
    assert [len(s) for s in subjects] == [27, 3, 10]
    assert not subjects[0] & subjects[1] and not subjects[0] & subjects[2]


def test_not_one_in_four():
    tested = assign(TWINS)["test"]
    assert len({later - sooner for sooner, later in zip(tested, tested[2:], strict=False)}) > 1


def test_the_seed_decides():
    assert assign(TWINS) == assign(TWINS)
    assert assign(TWINS) != assign(TWINS, seed=1)


def test_order_of_the_cases_does_not_matter():
    expected = {TWINS[i].name for i in assign(TWINS)["test"]}
    turned = TWINS[::-1]
    assert {turned[i].name for i in assign(turned)["test"]} == expected


def test_what_the_data_set_names_stands():
    rows = [(f"s{i}", "test" if i in (3, 8) else "") for i in range(20)]
    splits = assign(make_cases(*rows), validation_share=0.25)
    assert splits["test"] == [3, 8]
    assert len(splits["validation"]) == 4  # a quarter of 18, to the even 4
    rows[5] = ("s5", "validation")
    rows[6] = ("s6", "train")
    splits = assign(make_cases(*rows), validation_share=0.25)
    assert splits["validation"] == [5] and splits["test"] == [3, 8]


def test_a_named_training_subject_is_never_tested():
    cases = make_cases(*((f"s{i}", "train" if i < 15 else "") for i in range(20)))
    for seed in range(5):
        splits = assign(cases, seed=seed)
        assert len(splits["test"]) == 1 and splits["test"][0] >= 15  # 5 / 4 subjects


def test_a_name_holds_for_all_cases_of_the_subject():
    cases = make_cases(("a", ""), ("a", "test"), ("b", ""), ("c", ""))
    assert assign(cases, validation_share=0)["test"] == [0, 1]


@pytest.mark.parametrize(
    ("share", "count"),
    [
        pytest.param(0.0, 0, id="none"),
        pytest.param(0.001, 2, id="at least one subject"),
        pytest.param(0.5, 30, id="half"),
    ],
)
def test_validation_share(share, count):
    assert len(assign(TWINS, validation_share=share)["validation"]) == count


@pytest.mark.parametrize(
    ("rows", "split"),
    [
        pytest.param([("a", "")], "train", id="one subject"),
        pytest.param([("a", "train"), ("b", "train")], "test", id="all train"),
        pytest.param([("a", "test"), ("b", "validation")], "train", id="none trains"),
    ],
)
def test_a_split_without_subjects_is_refused(rows, split):
    expected = f"expected at least one subject in the {split} split, got none of {len(set(rows))}"
    with pytest.raises(InputError, match=expected):
        assign(make_cases(*rows))
