"""Where looking at predictions pays: what looks wrong with them, in words, and in which order.

A point that others contradict may be right, if the network is sure of it, and one of which it is
not sure may lie where the others expect it. How far a point is from there, times the chance that
it is wrong, orders points by what a correction saves.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fetal_jax import plausibility
from fetal_jax.io.tables import shorten
from fetal_jax.plausibility import Usual

UNSURE = "confidence"
MOST_SAID = 4  # of what is wrong with a case, in one line


class Review(NamedTuple):
    """A point to look at, or a scan as a whole, whose label is ''.

    gain_mm: about so much a correction is expected to save; of a scan, of all its points together.
    why: what looks wrong, in words; '' where nothing does.
    """

    case: str
    label: str
    gain_mm: float
    why: str


def list_reviews(
    cases: Sequence[str],
    labels: Sequence[str],
    points_mm: np.ndarray,
    confidence: np.ndarray,
    usual: Usual | None,
    *,
    min_confidence: float,
    radius_mm: float,
    notes: Mapping[str, Mapping[str, str]] | None = None,
) -> list[Review]:
    """A row for each point of N cases, and one for each case with something wrong as a whole.

    Args:
      points_mm: [N, L, 3] RAS+, NaN where there is none, or it counts as hidden.
      confidence: [N, L], the chance to lie within `radius_mm`.
      usual: of the run; None: nothing is known of how landmarks lie to each other.
      min_confidence: with less a point is to be looked at.
      notes: case -> label -> what else is wrong with the point; with the scan, of label ''.

    Returns:
      The rows in the order in which looking pays most.
    """
    gain_mm = (1.0 - confidence) * radius_mm
    every = [[] for _ in cases]
    if usual is not None:
        deviations = plausibility.measure_deviations(usual, points_mm, confidence)
        every = plausibility.find_doubts(usual, deviations, points_mm)
        away_mm = np.linalg.norm(points_mm - deviations.expected_mm, axis=-1)
        gain_mm = np.where(np.isfinite(away_mm), (1.0 - confidence) * away_mm, gain_mm)
    rows = []
    for n, case in enumerate(cases):
        there = np.isfinite(points_mm[n]).all(axis=-1)
        why: dict[str, list[str]] = {}
        for doubt in every[n]:
            said = plausibility.describe_doubt(doubt, labels)
            for label in [labels[k] for k in doubt.landmarks] or [""]:
                why.setdefault(label, []).append(said)
        for label, said in (notes or {}).get(case, {}).items():
            why.setdefault(label, []).append(said)
        for k in np.flatnonzero(there & (confidence[n] < min_confidence)):
            why.setdefault(labels[k], []).append(f"{UNSURE} {confidence[n, k]:.2f}")
        gains = {labels[k]: float(gain_mm[n, k]) for k in np.flatnonzero(there)}
        if "" in why:
            gains = {"": sum(gains.values())} | gains
        rows += [Review(case, *one, "; ".join(why.get(one[0], ()))) for one in gains.items()]
    return sort_reviews(rows)


def sort_reviews(rows: Sequence[Review]) -> list[Review]:
    """The largest gain first."""
    return sorted(rows, key=lambda row: -row.gain_mm)


def describe_cases(rows: Sequence[Review]) -> dict[str, str]:
    """Case -> what looks wrong with it, in words; those with most to gain first, others left out.

    Args:
      rows: sorted, of `list_reviews`.
    """
    gains: dict[str, float] = {}
    said: dict[str, list[str]] = {}
    unsure: dict[str, list[str]] = {}
    for row in rows:
        gains[row.case] = gains.get(row.case, 0.0) + (row.gain_mm if row.label else 0.0)
        if row.why.startswith(UNSURE):
            unsure.setdefault(row.case, []).append(row.label)
        elif row.why:
            said.setdefault(row.case, []).append(row.why)
    for case, labels in unsure.items():
        said.setdefault(case, []).append(f"low confidence: {shorten(labels)}")
    worst = sorted(said, key=lambda case: -gains[case])
    return {case: shorten(list(dict.fromkeys(said[case])), MOST_SAID, "; ") for case in worst}
