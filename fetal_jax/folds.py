"""Which cases train, which choose the checkpoint, which test: by subject, never one in two."""

import numpy as np

from fetal_jax.errors import InputError
from fetal_jax.io.case_table import Case

SPLITS = ("train", "validation", "test")


def assign_splits(
    cases: tuple[Case, ...], *, seed: int, test_folds: int, validation_share: float
) -> dict[str, list[int]]:
    """Indices of the cases of each split.

    What the data set names stands, for all cases of the subject. If it names no test case, one of
    `test_folds` folds of the other subjects is the test; if it names no validation case,
    `validation_share` of the training subjects (at least one if above 0) validate.

    Raises:
      InputError: nothing is left to train on, or nothing to test on.
    """
    named = {case.subject: case.split for case in cases if case.split}
    free = sorted({case.subject for case in cases} - named.keys())
    free = [free[i] for i in np.random.default_rng([seed, 1]).permutation(len(free))]
    if "test" not in named.values():
        count = max(1, round(len(free) / test_folds)) if free else 0
        named |= dict.fromkeys(free[:count], "test")
        free = free[count:]
    named |= dict.fromkeys(free, "train")
    if "validation" not in named.values() and validation_share > 0:
        train = sorted(subject for subject, split in named.items() if split == "train")
        count = max(1, round(validation_share * len(train)))
        order = np.random.default_rng([seed, 2]).permutation(len(train))
        named |= dict.fromkeys([train[i] for i in order[:count]], "validation")
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
