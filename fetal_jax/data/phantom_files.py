"""The phantom cohort as a data set of real files, so that it goes the way of a hospital's data."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np

from fetal_jax.errors import InputError
from fetal_jax.io.files import write_atomically
from fetal_jax.io.markups import write_mrk_json
from fetal_jax.io.tables import write_table
from fetal_jax.io.volumes import write_nifti
from fetal_jax.phantom import anatomy, annotation, cohort, ultrasound

CARD = "phantom.json"  # what was asked for, so that two cohorts never mix in one folder
# How each site's machines store a volume: array axes run towards these.
AXIS_ORDERS = (("LPS", "RAS", "LAS"), ("PIL", "ASL", "SAR"))
CROP_VOX = 3  # a volume's sides differ by up to so many voxels at each end
WORKERS = 2  # cases at a time: one is compressed while another is rendered


def write_cohort(
    root,
    *,
    cases: int,
    seed: int,
    spacing_mm: float,
    annotators: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `cases` volumes of about `spacing_mm` under `root`, or what is missing of them.

    A case depends on the seed and its own number only, so a cohort can be made larger later.
    `cases.csv` comes last: where it is, all the files it lists are there. The second site's cases
    are its test split.

    Args:
      root: the data set's folder: volumes/, landmarks/ as annotated, truth/ with the true points
        and gnathion, cases.csv, landmarks.csv.
      annotators: so many readings of each case beside its own file, landmarks/CASE.aN.mrk.json.
      progress: called as progress(done, cases) after each case.

    Raises:
      InputError: the folder holds other data, or a cohort of another seed, spacing or readings.
    """
    root = Path(root)
    _claim_folder(root, {"seed": seed, "spacing_mm": float(spacing_mm), "annotators": annotators})
    plan_key, subject_key, scan_key, habit_key = jax.random.split(jax.random.key(seed), 4)
    plan = jax.tree.map(np.asarray, jax.jit(cohort.plan_cohort, static_argnums=1)(plan_key, cases))
    draw = jax.jit(cohort.draw_scene)
    image = jax.jit(cohort.image_scene)  # apart from the scan conversion, which is each site's
    convert = jax.jit(ultrasound.convert_scan, static_argnames="shape")
    read = jax.jit(annotation.read_landmarks, static_argnames="annotators")
    place = jax.jit(lambda pose, own: cohort.apply_pose(pose, anatomy.to_ras(own)))
    lock, done = threading.Lock(), []

    def write_case(i: int) -> list[str]:
        name = f"phantom-{i + 1:04d}"
        key, subject, site = jax.random.fold_in(scan_key, i), plan.subject[i], int(plan.site[i])
        scene = draw(jax.random.fold_in(subject_key, subject), key, plan.age_weeks[i], site)
        path = root / "volumes" / f"{name}.nii.gz"
        if not path.exists():
            rng = np.random.default_rng([seed, i])
            spacing, shape = choose_grid(site, spacing_mm, rng)
            origin = -0.5 * spacing * (np.array(shape) - 1)
            at = (jnp.asarray(a, jnp.float32) for a in (spacing, origin))
            volume = convert(image(scene), scene.probe, *at, shape=shape)
            write_nifti(path, *store_volume(np.asarray(volume), spacing, origin, site, rng))
        _write_points(root / "truth" / f"{name}.mrk.json", anatomy.POINTS, scene.truth)
        if annotators:
            own = read(
                habit_key, jax.random.fold_in(key, 9), scene.own[:19], scene.visible,
                annotators=annotators,
            )  # fmt: skip
            for n, points in enumerate(own, start=1):
                _write_points(
                    root / "landmarks" / f"{name}.a{n}.mrk.json",
                    anatomy.LABELS,
                    place(scene.pose, points),
                )
        _write_points(root / "landmarks" / f"{name}.mrk.json", anatomy.LABELS, scene.landmarks)
        seen = np.asarray(scene.visible)
        visible = [label for label, s in zip(anatomy.LABELS, seen, strict=True) if s]
        with lock:
            done.append(i)
            if progress is not None:
                progress(len(done), cases)
        return [
            name,
            f"s{subject + 1:04d}",
            ultrasound.SITES[site],
            f"{plan.age_weeks[i]:g}",
            "test" if site else "train",
            " ".join(visible),
        ]

    with ThreadPoolExecutor(WORKERS) as pool:
        futures = [pool.submit(write_case, i) for i in range(cases)]
        try:
            rows = [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise

    marks = [
        [label, anatomy.NAMES[label], other if other != label else "", anatomy.DEFINITIONS[label]]
        for label, other in anatomy.MIRROR.items()
    ]
    write_table(root / "landmarks.csv", ["label", "name", "mirror", "definition"], marks)
    columns = ["case", "subject", "site", "gestational_age_weeks", "split", "visible"]
    write_table(root / "cases.csv", columns, rows)


def choose_grid(
    site: int, spacing_mm: float, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """(spacing [3] mm, shape) along R, A, S of a case: the site's shape, the case's own spacing."""
    machine = (ultrasound.NEAR_SITE, ultrasound.FAR_SITE)[site]
    asked = spacing_mm * np.array(machine.spacing)
    field = cohort.FIELD_MM * machine.field
    shape = tuple(int(n) for n in np.rint(field / asked))
    return np.round(asked * rng.uniform(0.97, 1.03), 4), shape


def store_volume(
    volume: np.ndarray,
    spacing: np.ndarray,
    origin: np.ndarray,
    site: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """`volume` [D, H, W] in [0, 1], axes R, A, S, as uint8 in an axis order of the site, cropped.

    Returns:
      The voxels, and their affine [4, 4].
    """
    low, high = rng.integers(0, CROP_VOX + 1, (2, 3))
    voxels = np.rint(255.0 * volume).astype(np.uint8)
    voxels = voxels[tuple(slice(a, n - b) for a, b, n in zip(low, high, volume.shape, strict=True))]
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin + low * spacing
    code = AXIS_ORDERS[site][rng.integers(len(AXIS_ORDERS[site]))]
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(code)
    )
    stored = nib.orientations.apply_orientation(voxels, turn)
    return stored, affine @ nib.orientations.inv_ornt_aff(turn, voxels.shape)


def _write_points(path: Path, labels, points) -> None:
    if not path.exists():
        points = np.asarray(points, np.float64)
        write_mrk_json(path, dict(zip(labels, points, strict=True)))


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
