"""A cohort of simple heads with the landmarks of a face: runs whose pages have all their parts."""

import numpy as np
from noise_runs import make_config as make_noise_config

from fetal_jax.io.markups import write_landmarks
from fetal_jax.io.volumes import write_nifti

SHAPE, SPACING_MM = (24, 24, 24), 4.0
# right half of a face in mm: right, anterior, superior of the nasion
RIGHT = {
    "n": (0, 0, 0), "prn": (0, 9, -13), "sn": (0, 4, -17), "ls": (0, 5, -25), "li": (0, 4, -30),
    "sl": (0, 2, -34), "pg": (0, 2, -38), "enR": (9, -4, -3), "exR": (22, -10, -3),
    "alR": (8, 1, -14), "acR": (7, -1, -16), "cphR": (3, 5, -24), "chR": (10, 0, -28),
}  # fmt: skip
FACE = RIGHT | {f"{k[:-1]}L": (-x, y, z) for k, (x, y, z) in RIGHT.items() if k[-1] == "R"}
CASES, OUTSIDE = 10, 2  # the last ones are of another site


def write_cohort(root):
    """Heads c0, c1, ... of children of 20 and more weeks; one landmark of each cannot be seen."""
    rng = np.random.default_rng(0)
    affine = np.diag([SPACING_MM] * 3 + [1.0])
    affine[:3, 3] = -SPACING_MM * (np.array(SHAPE) - 1) / 2
    where = np.stack(np.indices(SHAPE), axis=-1) * SPACING_MM + affine[:3, 3]
    rows = ["case,subject,site,gestational_age_weeks,split,visible"]
    for i in range(CASES):
        size = 0.8 + 0.03 * i
        nasion = np.array([0.0, 22, 14]) + rng.normal(size=3)
        parts = [((0, -24, -16), 28.0), ((0, 4, -13), 6.0)]
        depths = [r - np.linalg.norm((where - nasion) / size - c, axis=-1) for c, r in parts]
        level = 0.15 + 0.6 * np.clip(0.5 + np.max(depths, axis=0) / 4, 0, 1)
        voxels = np.rint(255 * np.clip(level + rng.normal(0, 0.03, SHAPE), 0, 1)).astype(np.uint8)
        write_nifti(root / "volumes" / f"c{i}.nii.gz", voxels, affine)
        points = {label: nasion + size * np.array(p, float) for label, p in FACE.items()}
        write_landmarks(root / "landmarks" / f"c{i}.mrk.json", points)
        inside = i < CASES - OUTSIDE
        hidden = list(FACE)[i]
        seen = " ".join(label for label in FACE if label != hidden)
        site, split = ("north", "") if inside else ("south", "test")
        rows.append(f"c{i},s{i},{site},{20 + i},{split},{seen}")
    (root / "cases.csv").write_text("\n".join(rows) + "\n")


def make_config(root, **changes):
    return make_noise_config(
        root,
        **{
            "crossval.external_site": "south",
            "grid.side": 16,
            "train.steps": 2,
            "report.on": True,
            "report.surfaces": False,
        }
        | changes,
    )
