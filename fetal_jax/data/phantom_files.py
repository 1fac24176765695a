"""The phantom cohort as a data set of real files, so that it is read as a hospital's data is."""

import json
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
from jax import Array

from fetal_jax import landmarks
from fetal_jax.errors import InputError
from fetal_jax.io.files import write_atomically
from fetal_jax.io.markups import read_landmarks, write_mrk_json
from fetal_jax.io.tables import read_table, write_table
from fetal_jax.io.volumes import write_nifti
from fetal_jax.phantom import anatomy, cohort, machine

CARD = "phantom.json"  # what was asked for, so that two cohorts never mix in one folder
# The axis orders in which each site's machines store a volume.
AXIS_ORDERS = (("LPS", "RAS", "LAS"), ("PIL", "ASL", "SAR"))
CROP_VOX = 3  # up to so many voxels are cut off at each end of an axis
WORKERS = 2  # cases at a time: one is compressed while another is simulated


class _Simulator(NamedTuple):
    """The simulator's functions, compiled once for all cases."""

    sample_scene: Callable
    insonify_scene: Callable  # apart from the scan conversion, whose shape is each site's own
    convert_scene: Callable
    annotate_scene: Callable


class _Request(NamedTuple):
    """What is written for each case, and where."""

    root: Path
    seed: int
    test_seed: int
    spacing_mm: float
    annotators: int
    face: str


def write_cohort(
    root: str | os.PathLike,
    *,
    cases: int,
    seed: int,
    spacing_mm: float,
    test_seed: int | None = None,
    annotators: int = 0,
    face: str = anatomy.FACES[0],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `cases` volumes of about `spacing_mm` under `root`, or those that are missing.

    A case depends on the seeds and its own number only, so a cohort can be made larger later.
    `cases.csv` is written last: where it is, all the files it lists are there. The second site's
    cases are its test split.

    Args:
      root: the data set's folder: volumes/, landmarks/ as annotated, truth/ with the true points
        and gnathion, cases.csv, landmarks.csv.
      cases: how many.
      seed: of the whole cohort, but for what test_seed says.
      test_seed: of the second site's children, scans and annotators; as `seed` if not given. A seed
        that no choice has seen seals them.
      spacing_mm: between voxels, before a site's own share and a case's own variation.
      annotators: number of readings of each case beside its own file, landmarks/CASE.aN.mrk.json,
        each by another annotator of the case's site.
      face: of anatomy.FACES, what all children have.
      progress: called as progress(done, cases) after each case.

    Raises:
      InputError: the folder holds other data, or a cohort of another seed, spacing, kind of face
        or number of readings, or one that another version of the phantom began.
    """
    test_seed = seed if test_seed is None else test_seed
    request = _Request(Path(root), seed, test_seed, float(spacing_mm), annotators, face)
    _claim_folder(request)
    plan_key, *first = jax.random.split(jax.random.key(seed), 4)
    site_keys = (first, jax.random.split(jax.random.key(test_seed), 4)[1:])
    plan = jax.tree.map(np.asarray, jax.jit(cohort.plan_cohort, static_argnums=1)(plan_key, cases))
    simulator = _compile_simulator()
    lock, done = threading.Lock(), []

    def write_case(i: int) -> list[str]:
        site = int(plan.site[i])
        subject_key, scan_key, habit_key = site_keys[site]
        child_key = jax.random.fold_in(subject_key, plan.subject[i])
        key = jax.random.fold_in(scan_key, i)
        scene = simulator.sample_scene(
            child_key,
            key,
            plan.age_weeks[i],
            site,
            habit_key=habit_key,
            face_kind=anatomy.FACES.index(face),
        )
        name = f"phantom-{i + 1:04d}"
        _write_volume(request, simulator, name, i, site, scene)
        _write_landmarks(request, simulator, name, habit_key, jax.random.fold_in(key, 9), scene)
        with lock:
            done.append(i)
            if progress is not None:
                progress(len(done), cases)
        seen = np.asarray(scene.visible)
        return [
            name,
            f"s{plan.subject[i] + 1:04d}",
            machine.SITES[site],
            f"{plan.age_weeks[i]:g}",
            "test" if site else "train",
            " ".join(label for label, s in zip(landmarks.LABELS, seen, strict=True) if s),
        ]

    with ThreadPoolExecutor(WORKERS) as pool:
        futures = [pool.submit(write_case, i) for i in range(cases)]
        try:
            rows = [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    _write_landmark_table(request.root / "landmarks.csv")
    columns = ["case", "subject", "site", "gestational_age_weeks", "split", "visible"]
    write_table(request.root / "cases.csv", columns, rows)


def _compile_simulator() -> _Simulator:
    return _Simulator(
        jax.jit(cohort.sample_scene),
        jax.jit(cohort.insonify_scene),
        jax.jit(cohort.convert_scene, static_argnames="shape"),
        jax.jit(cohort.annotate_scene),
    )


def _write_volume(
    request: _Request, simulator: _Simulator, name: str, i: int, site: int, scene: cohort.Scene
) -> None:
    path = request.root / "volumes" / f"{name}.nii.gz"
    if path.exists():
        return
    rng = np.random.default_rng([request.seed, i])
    spacing, shape = choose_grid(site, request.spacing_mm, rng)
    origin = -0.5 * spacing * (np.array(shape) - 1)
    volume = simulator.convert_scene(
        simulator.insonify_scene(scene),
        scene,
        jnp.asarray(spacing, jnp.float32),
        jnp.asarray(origin, jnp.float32),
        shape=shape,
    )
    write_nifti(path, *store_volume(np.asarray(volume), spacing, origin, site, rng))


def _write_landmarks(
    request: _Request,
    simulator: _Simulator,
    name: str,
    habit_key: Array,
    key: Array,
    scene: cohort.Scene,
) -> None:
    """The true points, the annotators' readings, and the case's own file last."""
    root, labels = request.root, landmarks.LABELS
    _write_points(root / "truth" / f"{name}.mrk.json", anatomy.POINTS, scene.truth)
    for n in range(1, request.annotators + 1):
        reading = simulator.annotate_scene(habit_key, key, scene, n)
        _write_points(root / "landmarks" / f"{name}.a{n}.mrk.json", labels, reading)
    _write_points(root / "landmarks" / f"{name}.mrk.json", labels, scene.landmarks)


def _write_landmark_table(path: Path) -> None:
    rows = [
        [
            label,
            landmarks.NAMES[label],
            other if other != label else "",
            landmarks.DEFINITIONS[label],
        ]
        for label, other in landmarks.MIRROR.items()
    ]
    write_table(path, ["label", "name", "mirror", "definition"], rows)


def choose_grid(
    site: int, spacing_mm: float, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """(spacing [3] mm, shape) along R, A, S of a case's volume.

    Args:
      site: index of machine.SITES, which decides the shape.
      spacing_mm: as asked for.
      rng: by which the case's own spacing varies by up to 3 %.
    """
    chosen = (machine.NEAR_SITE, machine.FAR_SITE)[site]
    asked = spacing_mm * np.array(chosen.spacing)
    field = cohort.FIELD_MM * chosen.field
    shape = tuple(int(n) for n in np.rint(field / asked))
    return np.round(asked * rng.uniform(0.97, 1.03), 4), shape


def store_volume(
    volume: np.ndarray,
    spacing: np.ndarray,
    origin: np.ndarray,
    site: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Crop a volume, quantise it, and turn it to one of the site's axis orders.

    Args:
      volume: [D, H, W] in [0, 1], axes running Right, Anterior, Superior.
      spacing, origin: [3] mm, RAS+, of its voxels and of the first one's centre.
      site: index of machine.SITES.
      rng: which decides the crop and the order.

    Returns:
      The voxels [I, J, K] uint8, and their affine [4, 4] to RAS+ mm.
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


def _write_points(path: Path, labels: Sequence[str], points: Array) -> None:
    if not path.exists():
        points = np.asarray(points, np.float64)
        write_mrk_json(path, dict(zip(labels, points, strict=True)))


def _claim_folder(request: _Request) -> None:
    """Leave the card of this cohort in the folder, or check the one that is there."""
    card = {"version": cohort.VERSION} | request._asdict()
    root = card.pop("root")
    path = root / CARD
    if path.exists():
        stated = json.loads(path.read_text())
        version = stated.get("version", 1)  # the first cards had none
        if version != cohort.VERSION:
            raise InputError(
                f"{path}: expected a cohort of version {cohort.VERSION} of the phantom, got one of "
                f"version {version}: delete it or write into another folder"
            )
        if stated != card:
            raise InputError(f"{path}: expected {json.dumps(card)}, got {json.dumps(stated)}")
    elif root.exists() and any(root.iterdir()):
        raise InputError(f"{root}: expected an empty folder or one with {CARD}, got other files")
    else:
        write_atomically(path, (json.dumps(card) + "\n").encode())


class Floor(NamedTuple):
    """How far a site's annotations lie from the true points, in mm: means over landmarks."""

    visible_mm: float
    completed_mm: float  # of those that were not visible; NaN where all were


def measure_floor(root: str | os.PathLike) -> dict[str, Floor]:
    """Site -> what its annotations in a phantom cohort's folder are worth, by the true points.

    Who finds every true point is measured with this error.
    """
    root = Path(root)
    off = {}  # (site, whether it was visible) -> distances
    _, rows = read_table(root / "cases.csv", ["case", "site", "visible"])
    for _, row in rows:
        truth, annotated = (
            read_landmarks(root / folder / f"{row['case']}.mrk.json")
            for folder in ("truth", "landmarks")
        )
        for label, point in annotated.items():
            key = row["site"], label in row["visible"].split()
            off.setdefault(key, []).append(float(np.linalg.norm(point - truth[label])))
    mean = {key: float(np.mean(values)) for key, values in off.items()}
    return {
        site: Floor(*(mean.get((site, seen), float("nan")) for seen in (True, False)))
        for site in sorted({site for site, _ in mean})
    }
