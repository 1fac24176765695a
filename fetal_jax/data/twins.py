"""One scan under two names: in two parts of a data set it would be learned and then tested on."""

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

from fetal_jax.data.cases import PreparedCases
from fetal_jax.data.lazy_volumes import list_volumes
from fetal_jax.errors import InputError

# Of intensities in [0, 1]: a copy in 8 bits, or with its axes stored the other way, stays below;
# speckle and noise of two scans do not, in some voxel.
TOLERANCE = 0.02
TELLING = 16  # voxels that are compared first


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
    volumes = list_volumes(prepared.volumes)
    few = volumes.thin_out().astype(np.float32).reshape(len(prepared), -1)
    pairs = [
        (int(i), int(j))
        for i, j in _find_candidates(few)
        if None not in (parts[i], parts[j]) and parts[i] != parts[j]
        if _is_near(few[i], few[j]) and _is_near(volumes[i], volumes[j])
    ]
    paths = [case.volume_path for case in prepared.cases]
    return [
        f"expected each scan in one {kind}, got the same as {paths[i]} in {parts[i]} and as "
        f"{paths[j]} in {parts[j]}"
        for i, j in sorted(pairs)
    ]


def _find_candidates(few: np.ndarray) -> np.ndarray:
    """[K, 2], i < j: of some voxels [N, V] of each scan, those that are alike where scans differ
    most. All pairs of thousands would take minutes.
    """
    telling = np.argsort(-few.std(axis=0), kind="stable")[:TELLING]
    # float32 subtracts with an error of its own
    return cKDTree(few[:, telling]).query_pairs(TOLERANCE + 1e-6, p=np.inf, output_type="ndarray")


def _is_near(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether no value is further than TOLERANCE from that of the other."""
    return bool(np.all(np.abs(one.astype(np.float32) - other.astype(np.float32)) <= TOLERANCE))
