"""One scan under two names: in two parts of a data set it would be learned and then tested on."""

from collections.abc import Sequence

import numpy as np

from fetal_jax.data.cases import PreparedCases
from fetal_jax.errors import InputError

# Of intensities in [0, 1]: a copy in 8 bits, or with its axes stored the other way, stays below;
# speckle and noise of two scans do not, in some voxel.
TOLERANCE = 0.02
SAMPLES = 8  # along each axis, that are compared first


def check_splits(prepared: PreparedCases, splits: dict[str, list[int]]) -> None:
    """Raise an InputError for scans that are in two splits, of `folds.assign_splits`."""
    split_of = {i: split for split, indices in splits.items() for i in indices}
    if problems := find_twins(prepared, [split_of.get(i) for i in range(len(prepared))], "split"):
        raise InputError(*problems)


def find_twins(prepared: PreparedCases, parts: Sequence[str | None], kind: str) -> list[str]:
    """A problem for each scan that is there as two files in two parts.

    Grids are compared and not files: a copy may be packed, or in another format.

    Args:
      parts: of each case its split or fold; None where it is in none.
      kind: what a part is called.
    """
    step = max(1, prepared.volumes.shape[1] // SAMPLES)
    few = prepared.volumes[:, ::step, ::step, ::step].astype(np.float32).reshape(len(prepared), -1)
    means = few.mean(axis=1)
    order = np.argsort(means, kind="stable")
    ends = np.searchsorted(means[order], means[order] + TOLERANCE, side="right")
    pairs = [
        tuple(sorted((int(i), int(j))))
        for at, (i, end) in enumerate(zip(order, ends, strict=True))
        for j in order[at + 1 : end][_is_near(few[order[at + 1 : end]], few[i])]
        if None not in (parts[i], parts[j]) and parts[i] != parts[j]
        if _is_near(prepared.volumes[[j]], prepared.volumes[i]).all()
    ]
    paths = [case.volume_path for case in prepared.cases]
    return [
        f"expected each scan in one {kind}, got the same as {paths[i]} in {parts[i]} and as "
        f"{paths[j]} in {parts[j]}"
        for i, j in sorted(pairs)
    ]


def _is_near(some: np.ndarray, one: np.ndarray) -> np.ndarray:
    """[N], of some [N, ...], whether no value is further than TOLERANCE from that of the one."""
    far = np.abs(some.astype(np.float32) - one.astype(np.float32)) > TOLERANCE
    return ~far.any(axis=tuple(range(1, far.ndim)))
