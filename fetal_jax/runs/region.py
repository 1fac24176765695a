"""Whether the radii of a run hold the truth as often as they say, as results.json has it."""

from collections.abc import Sequence

import numpy as np

from fetal_jax import statistics
from fetal_jax.conformal import enough_subjects
from fetal_jax.data.cases import PreparedCases


def summarise_region(
    radius_mm: np.ndarray,
    error_mm: np.ndarray,
    cases: PreparedCases,
    labels: Sequence[str],
    share: float,
) -> dict | None:
    """How many points lie within their radius, with an interval over subjects; and how large it is.

    Of several models the mean of their shares and the median of all their radii.

    Args:
      radius_mm, error_mm: [K, N, L] of K models in N cases, as of `Predictions`.
      labels: L names.
      share: of points that the radii are to hold.

    Returns:
      None of a run without radii; where too few subjects could tell them, only what was asked for.
    """
    if np.isnan(radius_mm).any():
        return None
    asked = {"share": share, "enough_subjects": enough_subjects(share)}
    if np.isinf(radius_mm).any():
        return asked | {"all": None}
    within = (error_mm <= radius_mm).mean(axis=0)
    present, visible, subjects = cases.present, cases.visible, cases.subjects

    def describe(counted: np.ndarray, columns=slice(None)) -> dict:
        held, radii = within[:, columns], radius_mm[..., columns][:, counted]
        return {
            "n": int(counted.sum()),
            "within": float(held[counted].mean()) if counted.any() else None,
            "within_ci": statistics.share_interval(held, counted, subjects),
            "radius_median_mm": float(np.median(radii)) if counted.any() else None,
        }

    return asked | {
        "all": describe(present),
        "visible": describe(visible),
        "completed": describe(present & ~visible),
        "per_landmark": {
            label: describe(present[:, i : i + 1], slice(i, i + 1))
            for i, label in enumerate(labels)
        },
    }


def format_region(region: dict) -> str:
    """Of `summarise_region`, in a sentence without its end."""
    share = f"{100 * region['share']:g} %"
    found = region["all"]
    if found is None:
        return (
            f"no radius that holds {share} of the points: there were too few subjects to learn it "
            f"from, {region['enough_subjects']} are enough"
        )
    if not found["n"]:
        return f"a radius that is to hold {share} of the points, and no point to test it"
    interval, between = found["within_ci"], ""
    if interval is not None:
        between = f" (95 % interval {100 * interval[0]:.0f} to {100 * interval[1]:.0f})"
    return (
        f"{100 * found['within']:.0f} % of all points within their own radius{between}, which is "
        f"to hold {share}; its median is {found['radius_median_mm']:.2f} mm"
    )
