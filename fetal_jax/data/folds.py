"""Which cases train, which choose the checkpoint, which test: all cases of a subject together."""

from collections.abc import Sequence, Set

import numpy as np

from fetal_jax.data.case_table import SPLITS, Case
from fetal_jax.errors import InputError

# instead of a fold: of cases that all folds' models are tested on, and that settings are tuned on
EXTERNAL, TUNING = "external", "tuning"
JUDGED_SHARE = 0.25  # of the tuning subjects


def assign_folds(
    cases: Sequence[Case],
    *,
    k: int,
    seed: int,
    external_site: str = "",
    tuning_share: float = 0.0,
) -> list[str]:
    """The fold of each case, '1' to 'k', 'external' or 'tuning', stratified by gestational age.

    All cases of a subject are in one fold. Subjects are sorted by mean age; of each k in a row, one
    goes to each fold at random.

    Args:
      cases: of the data set.
      k: number of folds.
      seed: of the assignment.
      external_site: the site that is held out; with none, the cases of the data set's test split.
      tuning_share: of the other subjects, to tune on; the same whatever the seed, for what is tuned
        with one seed is used with another.

    Raises:
      ValueError: no such site, or fewer than k subjects.
    """
    if external_site:
        sites = sorted({case.site for case in cases})
        if external_site not in sites:
            known = ", ".join(map(repr, sites))
            raise ValueError(f"expected a site of {known}, got {external_site!r}")
        outside = {case.subject for case in cases if case.site == external_site}
    else:
        outside = {case.subject for case in cases if case.split == "test"}
    inside = {case.subject for case in cases} - outside
    count = round(tuning_share * len(inside))
    tuned = _sample_ages(cases, inside, count, np.random.default_rng([0, 8]))
    inside -= tuned
    if len(inside) < k:
        raise ValueError(
            f"expected at most one fold for each of the {len(inside)} subjects that are neither "
            f"external nor tuned on, got {k}"
        )
    rng = np.random.default_rng([seed, 4])
    names = _sort_by_age(cases, inside, rng)
    fold = dict.fromkeys(outside, EXTERNAL) | dict.fromkeys(tuned, TUNING)
    for start in range(0, len(names), k):
        group = names[start : start + k]
        dealt = rng.permutation(k)[: len(group)]
        fold |= {name: str(f + 1) for name, f in zip(group, dealt, strict=True)}
    return [fold[case.subject] for case in cases]


def split_fold(
    cases: Sequence[Case], assigned: Sequence[str], fold: str, *, seed: int, validation_share: float
) -> dict[str, list[int]]:
    """Indices of the cases of each split when `fold` is tested; those of no fold are in none.

    The validation subjects are of all ages: one is drawn of each run of neighbours in age.

    Args:
      cases: of the data set.
      assigned: the fold of each, as of `assign_folds`.
      fold: '1' to 'k'.
      seed: of the choice of validation subjects.
      validation_share: of the training subjects, at least one if above 0 and there are two.
    """
    training = {
        c.subject for c, f in zip(cases, assigned, strict=True) if f not in (fold, EXTERNAL, TUNING)
    }
    count = _count_validation(len(training), validation_share)
    held = _sample_ages(cases, training, count, np.random.default_rng([seed, 2, int(fold)]))
    splits: dict[str, list[int]] = {split: [] for split in SPLITS}
    for i, (case, f) in enumerate(zip(cases, assigned, strict=True)):
        if f == fold:
            splits["test"].append(i)
        elif f not in (EXTERNAL, TUNING):
            splits["validation" if case.subject in held else "train"].append(i)
    return splits


def split_tuning(cases: Sequence[Case]) -> dict[str, list[int]]:
    """Indices of the cases of each split of tuning cases: some train, the others are the test.

    The last checkpoint is judged, for none validate.

    Raises:
      ValueError: fewer than four subjects.
    """
    subjects = {case.subject for case in cases}
    if len(subjects) < 4:
        raise ValueError(f"expected four subjects or more to tune on, got {len(subjects)}")
    count = max(1, round(JUDGED_SHARE * len(subjects)))
    judged = _sample_ages(cases, subjects, count, np.random.default_rng([0, 9]))
    splits: dict[str, list[int]] = {split: [] for split in SPLITS}
    for i, case in enumerate(cases):
        splits["test" if case.subject in judged else "train"].append(i)
    return splits


def assign_splits(
    cases: Sequence[Case], *, seed: int, test_folds: int, validation_share: float
) -> dict[str, list[int]]:
    """Indices of the cases of each split.

    A split that the data set names is kept, for all cases of the subject. If it names no test
    case, one of `test_folds` folds of the other subjects is the test; if it names no validation
    case, `validation_share` of the training subjects validate (if above 0 at least one, and never
    the only one). Those that are drawn are of all gestational ages: one of each run of neighbours
    in age.

    Raises:
      InputError: nothing is left to train on, or nothing to test on.
    """
    named = {case.subject: case.split for case in cases if case.split}
    free = {case.subject for case in cases} - named.keys()
    if "test" not in named.values():
        count = max(1, round(len(free) / test_folds)) if free else 0
        tested = _sample_ages(cases, free, count, np.random.default_rng([seed, 1]))
        named |= dict.fromkeys(tested, "test")
        free = free - tested
    named |= dict.fromkeys(free, "train")
    if "validation" not in named.values() and validation_share > 0:
        train = {subject for subject, split in named.items() if split == "train"}
        count = _count_validation(len(train), validation_share)
        held = _sample_ages(cases, train, count, np.random.default_rng([seed, 2]))
        named |= dict.fromkeys(held, "validation")
    splits = {
        split: [i for i, case in enumerate(cases) if named[case.subject] == split]
        for split in SPLITS
    }
    for split in ("train", "test"):
        if not splits[split]:
            raise InputError(
                f"expected at least one subject in the {split} split, got none of {len(named)}: "
                "add cases, or name the splits in cases.csv"
            )
    return splits


def _count_validation(subjects: int, share: float) -> int:
    """At least one if any are wanted, and never the only one that there is to train on."""
    return min(max(1, round(share * subjects)), max(subjects - 1, 0)) if share > 0 else 0


def _sort_by_age(cases: Sequence[Case], subjects: Set[str], rng: np.random.Generator) -> list[str]:
    """Subjects by mean age, those of unknown age last; at random among equals."""
    ages: dict[str, list[float]] = {subject: [] for subject in subjects}
    for case in cases:
        if case.subject in ages:
            ages[case.subject].append(case.age_weeks)
    names = sorted(ages)
    # a random order first: the sort keeps it where ages are equal or unknown
    names = [names[i] for i in rng.permutation(len(names))]
    names.sort(key=lambda s: np.nan_to_num(np.mean(ages[s]), nan=np.inf))
    return names


def _sample_ages(
    cases: Sequence[Case], subjects: Set[str], count: int, rng: np.random.Generator
) -> set[str]:
    """So many of the subjects (all, if there are fewer): one of each run of neighbours in age.

    Of the first and the last run it is one of the outer third: few children are very old, and else
    none of them might be among those that are drawn.
    """
    names = _sort_by_age(cases, subjects, rng)
    runs = np.array_split(np.arange(len(names)), count) if count else []
    if count > 1:
        runs[0] = runs[0][: max(1, len(runs[0]) // 3)]
        runs[-1] = runs[-1][-max(1, len(runs[-1]) // 3) :]
    return {names[rng.choice(run)] for run in runs if len(run)}
