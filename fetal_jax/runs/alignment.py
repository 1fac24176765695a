"""What a run's error comes to when faces are turned and shifted further than they were."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from fetal_jax import statistics
from fetal_jax.io.tables import write_table

TURNS_DEG = (0, 10, 20, 30, 45, 60, 90, 120, 150, 180)
SHIFTS_MM = (0, 5, 10, 15, 20)
KINDS = {"turned": ("degrees", TURNS_DEG), "shifted": ("mm", SHIFTS_MM)}
ALIGNMENT_JSON, ALIGNMENT_CSV = "alignment.json", "alignment.csv"


class Moved(NamedTuple):
    """Errors of N cases at K amounts of one kind of motion.

    error_mm: [K, N, L]; inside: [K, N, L] bool, whether the moved landmark lies in the grid.
    counted: [N, L] bool, the landmarks that can be seen.
    """

    error_mm: np.ndarray
    inside: np.ndarray
    counted: np.ndarray


def sample_directions(cases: int, seed: int) -> dict[str, np.ndarray]:
    """Kind -> unit vectors [N, 3], evenly over the sphere: the turns' axes, the shifts' ways."""
    drawn = np.random.default_rng([seed, 5]).normal(size=(len(KINDS), cases, 3))
    drawn /= np.linalg.norm(drawn, axis=-1, keepdims=True)
    return dict(zip(KINDS, drawn, strict=True))


def make_motion(
    kind: str, direction: np.ndarray, amount: float, centre_mm: np.ndarray
) -> np.ndarray:
    """A motion of the world, [4, 4]: a turn about an axis through the centre, or a shift.

    Args:
      kind: a key of KINDS.
      direction: [3] unit vector, RAS+.
      amount: degrees or mm.
      centre_mm: [3] of the turn.
    """
    motion = np.eye(4)
    if kind == "shifted":
        motion[:3, 3] = amount * direction
    elif kind == "turned":
        turn = Rotation.from_rotvec(amount * direction, degrees=True).as_matrix()
        motion[:3, :3], motion[:3, 3] = turn, centre_mm - turn @ centre_mm
    else:
        raise ValueError(f"expected a motion of {tuple(KINDS)}, got {kind!r}")
    return motion


def find_centre(points_mm: np.ndarray) -> np.ndarray:
    """The middle [3] of a face: the mean of its landmarks [L, 3] that are there, NaN if none is."""
    there = np.isfinite(points_mm).all(axis=-1)
    return points_mm[there].mean(axis=0) if there.any() else np.full(3, np.nan)


def summarise_alignment(moved: dict[str, Moved], subjects: Sequence[str]) -> dict[str, list[dict]]:
    """Kind -> a row for each amount, for alignment.json.

    d_mean_mm and its interval over subjects; ratio: to the same scans unmoved, with an interval in
    which they stay pairs; outside: the share of the landmarks that left the grid.
    """
    rows = {}
    for kind, one in moved.items():
        unit, amounts = KINDS[kind]
        at_rest = one.error_mm[0]
        rows[kind] = [
            {
                unit: amount,
                "n": int(one.counted.sum()),
                "d_mean_mm": float(error_mm[one.counted].mean()),
                "d_mean_ci_mm": statistics.bootstrap_interval(error_mm, one.counted, subjects),
                "ratio": float(error_mm[one.counted].sum() / at_rest[one.counted].sum()),
                "ratio_ci": statistics.bootstrap_ratio(error_mm, at_rest, one.counted, subjects),
                "outside": float(1.0 - inside[one.counted].mean()),
            }
            for amount, error_mm, inside in zip(amounts, one.error_mm, one.inside, strict=True)
        ]
    return rows


def write_moved(path: Path, names: Sequence[str], moved: dict[str, Moved]) -> None:
    """alignment.csv: a row for each case, kind and amount, with the mean error of its landmarks."""

    def list_rows():
        for kind, one in moved.items():
            unit, amounts = KINDS[kind]
            for k, amount in enumerate(amounts):
                for n, name in enumerate(names):
                    counted = one.counted[n]
                    mean = f"{one.error_mm[k, n, counted].mean():.3f}" if counted.any() else ""
                    yield [name, kind, amount, unit, int(counted.sum()), mean]

    write_table(path, ["case", "motion", "amount", "unit", "points", "error_mm"], list_rows())
