"""The split: whole subjects, what the data set names first, and the same for the same seed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fetal_jax.data.case_table import Case
from fetal_jax.data.folds import (
    EXTERNAL,
    SPLITS,
    TUNING,
    assign_folds,
    assign_splits,
    split_fold,
    split_tuning,
)
from fetal_jax.errors import InputError


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


@pytest.mark.parametrize("split", ["validation", "test"])
def test_those_that_are_drawn_are_of_all_ages(split):
    """Of 40 subjects 10 test and, of the other 30, 3 validate: one of each run of neighbours."""
    cases = tuple(replace(case, age_weeks=20 + int(case.subject[1:]) * 0.5) for case in TWINS)
    drawn = set()
    for seed in range(12):
        splits = assign(cases, seed=seed)
        ages = {s: sorted({cases[i].age_weeks for i in splits[s]}) for s in SPLITS}
        if split == "test":
            pool = sorted(ages["train"] + ages["validation"] + ages["test"])
        else:
            pool = sorted(ages["train"] + ages["validation"])
        runs = np.array_split(pool, len(ages[split]))
        assert all(low[0] <= age <= low[-1] for age, low in zip(ages[split], runs, strict=True))
        drawn.update(ages[split])
    assert len(drawn) > 12  # the seed decides which of a run


def test_the_few_oldest_are_not_left_out():
    """Of 130 children 4 are of 32 weeks or more: one of them tests, and one validates."""
    cases = make_scans([*np.linspace(20, 30, 126), 32.0, 33.0, 35.0, 38.0])
    for seed in range(20):
        splits = assign(cases, seed=seed)  # the test takes its own
        left = [cases[i].age_weeks for i in splits["train"] + splits["validation"]]
        held = {cases[i].subject for i in splits["validation"] if cases[i].age_weeks >= 32}
        assert len(held) == 1 and sum(age >= 32 for age in left) >= 4


# ---- cross-validation ----


def make_scans(ages, sites=None):
    """Two scans of each subject, a week apart."""
    return tuple(
        Case(
            f"c{2 * s + n}",
            Path("v"),
            Path("p"),
            subject=f"s{s}",
            site=sites[s] if sites else "",
            age_weeks=age + n,
        )
        for s, age in enumerate(ages)
        for n in range(2)
    )


AGES = [20 + 0.3 * (7 * s % 60) for s in range(60)]


@pytest.mark.parametrize("k", [2, 4, 5])
def test_folds_hold_whole_subjects_and_all_ages(k):
    cases = make_scans(AGES)
    found = assign_folds(cases, k=k, seed=1)
    names = [str(f + 1) for f in range(k)]
    assert set(found) == set(names)
    by_subject = {}
    for case, fold in zip(cases, found, strict=True):
        assert by_subject.setdefault(case.subject, fold) == fold
    sizes = [list(by_subject.values()).count(name) for name in names]
    assert max(sizes) - min(sizes) <= 1
    means = [
        np.mean([c.age_weeks for c, f in zip(cases, found, strict=True) if f == name])
        for name in names
    ]
    # a plain draw would give an sd of 5.2 / sqrt(60 / k) weeks
    assert max(means) - min(means) < 1.0


def test_validation_subjects_of_a_fold_are_of_all_ages():
    """Also those of unknown age, which come last: one of each run of neighbours."""
    cases = make_scans([*AGES[:52], *[np.nan] * 8])
    found = assign_folds(cases, k=4, seed=3)
    for seed in range(6):
        for fold in "1234":
            splits = split_fold(cases, found, fold, seed=seed, validation_share=0.2)
            ages = {
                split: {cases[i].subject: cases[i].age_weeks for i in splits[split]}
                for split in ("train", "validation")
            }
            assert len(ages["validation"]) == 9  # a fifth of 45
            pool = np.sort(list((ages["train"] | ages["validation"]).values()))
            held = np.sort(list(ages["validation"].values()))
            runs = np.array_split(pool, 9)
            known = [(a, run) for a, run in zip(held, runs, strict=True) if np.isfinite(run).all()]
            assert len(known) >= 6 and all(run[0] <= age <= run[-1] for age, run in known)


def test_the_same_seed_gives_the_same_folds():
    cases = make_scans(AGES)
    assert assign_folds(cases, k=4, seed=1) == assign_folds(cases, k=4, seed=1)
    assert assign_folds(cases, k=4, seed=1) != assign_folds(cases, k=4, seed=2)


def test_a_site_is_held_out():
    sites = ["north"] * 40 + ["south"] * 20
    cases = make_scans(AGES, sites)
    found = assign_folds(cases, k=4, seed=0, external_site="south")
    assert all((f == EXTERNAL) == (c.site == "south") for c, f in zip(cases, found, strict=True))
    with pytest.raises(ValueError, match="expected a site of 'north', 'south', got"):
        assign_folds(cases, k=4, seed=0, external_site="west")


def test_without_a_site_the_test_cases_are_held_out():
    cases = make_cases(*((f"s{i}", "test" if i > 9 else "") for i in range(14)))
    found = assign_folds(cases, k=2, seed=0)
    assert [f == EXTERNAL for f in found] == [i > 9 for i in range(14)]


def test_more_folds_than_subjects_are_refused():
    with pytest.raises(ValueError, match="at most one fold for each of the 3 subjects .* got 4"):
        assign_folds(make_cases(*((f"s{i}", "") for i in range(3))), k=4, seed=0)


def test_splits_of_a_fold():
    cases = make_scans(AGES, ["north"] * 40 + ["south"] * 20)
    found = assign_folds(cases, k=4, seed=0, external_site="south")
    tested = []
    for fold in "1234":
        splits = split_fold(cases, found, fold, seed=0, validation_share=0.1)
        assert all(found[i] == fold for i in splits["test"])
        assert sorted(i for part in splits.values() for i in part) == list(range(80))
        subjects = {s: {cases[i].subject for i in part} for s, part in splits.items()}
        assert not subjects["train"] & subjects["validation"] and len(subjects["validation"]) == 3
        tested += splits["test"]
    assert sorted(tested) == list(range(80))
    assert not split_fold(cases, found, "1", seed=0, validation_share=0.0)["validation"]


def test_tuning_subjects_are_in_no_fold_and_the_same_for_every_seed():
    each = [assign_folds(TWINS, k=4, seed=seed, tuning_share=0.2) for seed in (0, 1)]
    tuned = [[i for i, fold in enumerate(one) if fold == TUNING] for one in each]
    assert tuned[0] == tuned[1] and len(tuned[0]) == 16 and each[0] != each[1]
    assert len({TWINS[i].subject for i in tuned[0]}) == 8  # whole
    splits = split_fold(TWINS, each[0], "2", seed=0, validation_share=0.2)
    used = sorted(i for split in splits.values() for i in split)
    assert used == [i for i, fold in enumerate(each[0]) if fold != TUNING]
    apart = split_tuning([TWINS[i] for i in tuned[0]])
    assert [len(apart[split]) for split in SPLITS] == [12, 0, 4]
    with pytest.raises(ValueError, match="expected four subjects or more to tune on, got 3"):
        split_tuning(TWINS[:6])


def test_the_only_child_that_there_is_to_train_on_trains():
    """Two subjects in two folds, and two cases whose splits are named."""
    cases = make_cases(("a", ""), ("b", ""))
    assigned = assign_folds(cases, k=2, seed=0)
    for fold in "12":
        splits = split_fold(cases, assigned, fold, seed=0, validation_share=0.1)
        assert [len(splits[split]) for split in SPLITS] == [1, 0, 1]
    splits = assign(make_cases(("a", "train"), ("b", "test")))
    assert splits == {"train": [0], "validation": [], "test": [1]}
    splits = assign(make_cases(("a", "train"), ("c", "train"), ("b", "test")))
    assert [len(splits[split]) for split in SPLITS] == [1, 1, 1]
