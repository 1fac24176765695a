"""How well a run tells which landmarks can be seen, and where it puts those that cannot."""

import jax
import numpy as np

from fetal_jax import frames, metrics, statistics
from fetal_jax.data.cases import PreparedCases


def summarise_visibility(
    chance: np.ndarray,
    base: np.ndarray | None,
    error_mm: np.ndarray,
    cases: PreparedCases,
    *,
    min_visible: float,
) -> dict | None:
    """What results.json says of chances to be seen; None where there are none, or of one kind only.

    auc: how often a visible point has a higher chance than a hidden one; auc_within: its mean over
    the landmarks that have both, None where none has; auc_base: of a program that knows each
    landmark's share in training and no image. auc_ci, auc_within_ci and, of auc less auc_base,
    auc_gain_ci: intervals over subjects.
    brier, brier_base: mean squared error of the chances. false_present: share of the hidden points
    that count as visible; false_absent: of the visible ones that do not. called_present and
    called_absent: n and mean error of the points that are there, by what they count as.

    Args:
      chance: [N, L] in [0, 1], NaN where unknown.
      base: [N, L], each landmark's share in training; None where unknown.
      error_mm: [N, L], NaN where absent.
      min_visible: from this chance on a point counts as visible.
    """
    visible, subjects = cases.visible, cases.subjects
    counted = cases.judged & np.isfinite(chance)
    if not (counted & visible).any() or not (counted & ~visible).any():
        return None

    def measure(scores):
        def pooled(rows):
            chosen = counted[rows]
            return metrics.area_under_curve(scores[rows][chosen], visible[rows][chosen])

        return pooled

    def measure_within(rows):
        each = [
            metrics.area_under_curve(chance[rows, i][chosen], visible[rows, i][chosen])
            for i, chosen in enumerate(counted[rows].T)
        ]
        known = [value for value in each if np.isfinite(value)]
        return float(np.mean(known)) if known else float("nan")

    every, whole = np.arange(len(cases)), measure(chance)
    within = measure_within(every)
    called = chance >= min_visible

    def share(points, of):
        rates = statistics.share_interval(points & of, of, subjects)
        return {"share": float(points[of].mean()), "ci": rates}

    def describe_error(points):
        errors = error_mm[points & np.isfinite(error_mm) & counted]
        return {"n": int(errors.size), "d_mean_mm": float(errors.mean()) if errors.size else None}

    def interval(function):
        return statistics.bootstrap_subjects(function, subjects)

    summary = {
        "n": int(counted.sum()),
        "hidden": int((counted & ~visible).sum()),
        "min_visible": min_visible,
        "auc": whole(every),
        "auc_ci": interval(whole),
        "auc_within": within if np.isfinite(within) else None,
        "auc_within_ci": interval(measure_within),
        "brier": float(np.mean((chance - visible)[counted] ** 2)),
        "false_present": share(called, counted & ~visible),
        "false_absent": share(~called, counted & visible),
        "called_present": describe_error(called),
        "called_absent": describe_error(~called),
        "bins": statistics.bin_chances(chance, visible, counted, subjects),
    }
    if base is not None:
        known = measure(base)
        summary["auc_base"] = known(every)
        summary["auc_gain_ci"] = interval(lambda rows: whole(rows) - known(rows))
        summary["brier_base"] = float(np.mean((base - visible)[counted] ** 2))
    return summary


def summarise_completion(
    points_mm: np.ndarray,
    completed_mm: np.ndarray,
    chance: np.ndarray,
    cases: PreparedCases,
    mirror_index: np.ndarray | None,
) -> dict | None:
    """Three ways to say where a hidden point lies, on the same points; None where there are none.

    found: what the network itself says; mirrored: the reflection of the other side's landmark;
    shape: where the shape of a face expects it. On all hidden points, and on those of which a
    mirror image can be made. From the true points where a phantom has them, else from those that
    an annotator completed.

    Args:
      points_mm, completed_mm: [N, L, 3], of `Predictions`.
      chance: [N, L], that a point can be seen: what a reflection is made from.
      mirror_index: [L], or None where there are no pairs.
    """
    true_mm = np.where(np.isfinite(cases.true_mm), cases.true_mm, cases.points_mm)
    hidden = cases.judged & ~cases.visible & np.isfinite(true_mm).all(axis=-1)
    hidden &= np.isfinite(completed_mm).all(axis=-1)
    if not hidden.any():
        return None
    mirrored_mm = np.full(points_mm.shape, np.nan)
    if mirror_index is not None:
        mirrored_mm = mirror_points(points_mm, chance, mirror_index)
    ways = {"found": points_mm, "mirrored": mirrored_mm, "shape": completed_mm}
    errors = {way: metrics.radial_errors(there, true_mm) for way, there in ways.items()}

    def describe(counted):
        return {
            way: {
                "d_mean_mm": float(each[counted].mean()),
                "ci": statistics.bootstrap_interval(each, counted, cases.subjects),
            }
            for way, each in errors.items()
            if counted.any() and np.isfinite(each[counted]).all()
        } | {"n": int(counted.sum())}

    paired = hidden & np.isfinite(mirrored_mm).all(axis=-1)
    return {
        "from": "true" if np.isfinite(cases.true_mm[hidden]).all() else "annotated",
        "hidden": describe(hidden),
        "paired": describe(paired),
    }


def mirror_points(
    points_mm: np.ndarray, chance: np.ndarray, mirror_index: np.ndarray
) -> np.ndarray:
    """The reflection of each landmark's partner, [N, L, 3]; NaN where that cannot be seen.

    The mirror is the one that carries what can be seen of a face best onto itself.

    Args:
      points_mm: [N, L, 3]; chance: [N, L], that each can be seen; below a half it counts as hidden.
    """
    seen = (chance >= 0.5) & np.isfinite(points_mm).all(axis=-1)
    middles = np.nanmedian(points_mm, axis=1, keepdims=True)
    near = np.where(seen[..., None], points_mm - middles, 0.0).astype(np.float32)
    there = near[:, mirror_index] * frames.MIRROR.astype(np.float32)
    weights = (seen & seen[:, mirror_index]).astype(np.float32)
    carried = np.asarray(_reflect(there, near, weights), np.float64) + middles
    usable = seen[:, mirror_index] & (mirror_index != np.arange(len(mirror_index)))
    usable &= weights.sum(axis=1, keepdims=True) >= 3
    return np.where(usable[..., None], carried, np.nan)


@jax.jit
def _reflect(there, near, weights):
    fits = jax.vmap(frames.fit_similarity)(there, near, weights)
    return jax.vmap(frames.carry_points)(fits, there)
