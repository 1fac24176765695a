"""The phantom cohort as a data set of real files, so that it goes the way of a hospital's data."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from fetal_jax.errors import InputError
from fetal_jax.io.files import write_atomically
from fetal_jax.io.markups import write_mrk_json
from fetal_jax.io.volumes import write_nifti
from fetal_jax.phantom import anatomy, cohort

CARD = "phantom.json"  # what was asked for, so that two cohorts never mix in one folder


def write_cohort(
    root,
    *,
    subjects: int,
    seed: int,
    side: int,
    spacing_mm: float,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `subjects` cases of `side`³ voxels under `root`; go on where an earlier call stopped.

    A case depends on the seed and its own number only, so a cohort can be made larger later.
    `cases.csv` comes last: where it is, all the files it lists are there.

    Args:
      root: the data set's folder: volumes/, landmarks/, cases.csv, landmarks.csv.
      progress: called as progress(done, subjects) after each case.

    Raises:
      InputError: the folder holds other data, or a cohort of another seed, size or spacing.
    """
    root = Path(root)
    _claim_folder(root, {"seed": seed, "side": side, "spacing_mm": float(spacing_mm)})
    age_key, case_key = jax.random.split(jax.random.key(seed))
    ages = cohort.draw_ages(age_key, subjects)
    draw = jax.jit(cohort.draw_scene)
    render = jax.jit(cohort.render_scene, static_argnames=("side", "spacing_mm"))

    rows = []
    for i in range(subjects):
        name = f"phantom-{i + 1:04d}"
        volume_path = root / "volumes" / f"{name}.nii.gz"
        landmarks_path = root / "landmarks" / f"{name}.mrk.json"
        scene = draw(jax.random.fold_in(case_key, i), ages[i])
        if not volume_path.exists():
            volume = render(scene, side=side, spacing_mm=spacing_mm)
            write_nifti(volume_path, *orient_volume(np.asarray(volume), spacing_mm))
        if not landmarks_path.exists():
            points = np.asarray(scene.landmarks, np.float64)
            write_mrk_json(landmarks_path, dict(zip(anatomy.LABELS, points, strict=True)))
        seen = np.asarray(scene.visible)
        visible = [label for label, s in zip(anatomy.LABELS, seen, strict=True) if s]
        rows.append([name, f"s{i + 1:04d}", "phantom", f"{float(ages[i]):g}", " ".join(visible)])
        if progress is not None:
            progress(i + 1, subjects)

    marks = [
        [label, anatomy.NAMES[label], other if other != label else "", anatomy.DEFINITIONS[label]]
        for label, other in anatomy.MIRROR.items()
    ]
    _write_table(root / "landmarks.csv", ["label", "name", "mirror", "definition"], marks)
    columns = ["case", "subject", "site", "gestational_age_weeks", "visible"]
    _write_table(root / "cases.csv", columns, rows)


def orient_volume(volume: np.ndarray, spacing_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """`volume` [D, H, W] in [0, 1], axes R, A, S, as uint8 in the L, P, S order of scanners.

    Returns:
      The voxels, and the affine [4, 4] that puts the world's origin at the volume's centre.
    """
    stored = np.rint(255.0 * volume[::-1, ::-1, :]).astype(np.uint8)
    toward = np.array([-spacing_mm, -spacing_mm, spacing_mm])
    affine = np.diag([*toward, 1.0])
    affine[:3, 3] = -toward * (np.array(volume.shape) - 1) / 2.0
    return stored, affine


def _claim_folder(root: Path, card: dict) -> None:
    path = root / CARD
    if path.exists():
        found = json.loads(path.read_text())
        if found != card:
            raise InputError(f"{path}: expected {json.dumps(card)}, got {json.dumps(found)}")
    elif root.exists() and any(root.iterdir()):
        raise InputError(f"{root}: expected an empty folder or one with {CARD}, got other files")
    else:
        write_atomically(path, (json.dumps(card) + "\n").encode())


def _write_table(path: Path, columns: list[str], rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_atomically(path, text.getvalue().encode())
