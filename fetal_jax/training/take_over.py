"""Parameters of one network as the beginning of another: whatever has the same shape, and the layer
that speaks of landmarks one landmark at a time.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict


class LandmarkAxis(NamedTuple):
    """Where a parameter has `each` numbers for each landmark, one landmark after the other."""

    axis: int
    each: int


class TakenOver(NamedTuple):
    """params: of the new network. taken: names of those that are the old ones throughout."""

    params: dict
    taken: list[str]


def find_landmark_axes(
    shapes: Callable[[int], dict], landmarks: int
) -> dict[str, LandmarkAxis | None]:
    """name of a parameter -> its axis of landmarks, None where it has none.

    Args:
      shapes: number of landmarks -> the network's parameters, or their shapes.
      landmarks: some number.
    """
    few, more = (flatten_dict(shapes(n), sep="/") for n in (landmarks, landmarks + 1))
    axes: dict[str, LandmarkAxis | None] = {}
    for name, leaf in few.items():
        grown = [
            LandmarkAxis(axis, large - small)
            for axis, (small, large) in enumerate(zip(leaf.shape, more[name].shape, strict=True))
            if small != large
        ]
        if len(grown) > 1 or any(leaf.shape[axis] != each * landmarks for axis, each in grown):
            raise ValueError(f"expected one axis of landmarks in {name}, got shape {leaf.shape}")
        axes[name] = grown[0] if grown else None
    return axes


def take_over(
    fresh: dict,
    before: dict,
    axes: dict[str, LandmarkAxis | None],
    index: Sequence[int | None],
) -> TakenOver:
    """`fresh` parameters with those of `before` in their place.

    Args:
      fresh, before: trees of arrays; their numbers of landmarks may differ.
      axes: of `find_landmark_axes`.
      index: for each landmark of `fresh` which one of `before` it is; None: it stays fresh.

    Raises:
      ValueError: the networks are not the same; one parameter in which they differ is named.
    """
    ours, theirs = (flatten_dict(tree, sep="/") for tree in (fresh, before))
    if missing := sorted(ours.keys() ^ theirs.keys()):
        here = "here" if missing[0] in ours else "there"
        raise ValueError(f"{missing[0]} is only {here}")
    known = [(i, j) for i, j in enumerate(index) if j is not None]
    params, taken = {}, []
    for name, leaf in ours.items():
        old, place = np.asarray(theirs[name]), axes[name]
        if place is None:
            if old.shape != leaf.shape:
                raise ValueError(f"{name} is {leaf.shape} here, {old.shape} there")
            params[name], whole = old, True
        else:
            params[name], whole = _take_landmarks(name, np.array(leaf), old, place, known)
        if whole:
            taken.append(name)
    return TakenOver(unflatten_dict(params, sep="/"), taken)


def _take_landmarks(
    name: str, leaf: np.ndarray, old: np.ndarray, place: LandmarkAxis, known: list[tuple[int, int]]
) -> tuple[np.ndarray, bool]:
    """A parameter with the known landmarks' numbers in place, and whether all are known."""
    rows, old_rows = (
        np.moveaxis(one, place.axis, 0).reshape(-1, place.each, *np.delete(one.shape, place.axis))
        for one in (leaf, old)
    )
    if rows.shape[1:] != old_rows.shape[1:]:
        raise ValueError(f"{name} is {leaf.shape} here, {old.shape} there")
    for ours, theirs in known:
        rows[ours] = old_rows[theirs]
    flat = rows.reshape(leaf.shape[place.axis], *np.delete(leaf.shape, place.axis))
    return np.moveaxis(flat, 0, place.axis), len(known) == len(rows)
