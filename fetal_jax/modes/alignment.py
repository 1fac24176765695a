"""`--mode=alignment`: the error of a run over how far its test scans are turned and shifted.

The study names it as its first limitation: errors of the rotational alignment carry over. So each
test scan is turned about its face's centre, and shifted, under a grid that stays where it was; the
axes are random and the same at each angle, so that the scans are their own controls.
"""

from functools import partial
from pathlib import Path

import numpy as np

from fetal_jax import geometry, metrics
from fetal_jax.data import loader
from fetal_jax.data.cases import FileVoxels, PreparedCases, read_voxels
from fetal_jax.data.preprocess import Preprocessing
from fetal_jax.errors import InputError
from fetal_jax.geometry import Grid
from fetal_jax.modes.report import run_report
from fetal_jax.progress import Progress
from fetal_jax.runs import alignment, finished, folder
from fetal_jax.runs.alignment import KINDS, Moved
from fetal_jax.runs.search import Search, bind_searches


def run_alignment(workdir: Path) -> None:
    """Write alignment.json and alignment.csv of a finished run or cross-validation; report it.

    Raises:
      InputError: the run is not finished, or its data set is not there.
    """
    if not (workdir / "results.json").exists():
        raise InputError(f"{workdir}: expected a finished run, with results.json, got none")
    config = finished.open_config(workdir)
    parts, names, subjects = [], [], []
    for run in finished.find_runs(workdir):
        record = folder.read_data_record(run)
        tested = finished.open_tested(config, run, record)
        (search,) = bind_searches(finished.open_models(run))
        parts.append(measure_moved(tested, record.preprocessing, search, seed=config.seed))
        names += [case.name for case in tested.cases]
        subjects += tested.subjects
    moved = {
        kind: Moved(
            np.concatenate([part[kind].error_mm for part in parts], axis=1),
            np.concatenate([part[kind].inside for part in parts], axis=1),
            np.concatenate([part[kind].counted for part in parts]),
        )
        for kind in KINDS
    }
    if not moved["turned"].counted.any():
        raise InputError(f"{workdir}: expected test cases with a visible landmark, got none")
    alignment.write_moved(workdir / alignment.ALIGNMENT_CSV, names, moved)
    numbers = alignment.summarise_alignment(moved, subjects)
    folder.write_json(workdir / alignment.ALIGNMENT_JSON, numbers)
    print(format_alignment(numbers))
    print(f"{workdir / alignment.ALIGNMENT_CSV} has each scan")
    if config.report.on:
        run_report(workdir)


def measure_moved(
    cases: PreparedCases,
    preprocessing: Preprocessing,
    search: Search,
    *,
    seed: int,
) -> dict[str, Moved]:
    """What is found in the cases at every amount of `alignment.KINDS`.

    Args:
      preprocessing: as the model was trained with.
      search: of the model.
      seed: of the directions.
    """
    directions = alignment.sample_directions(len(cases), seed)
    progress = Progress()

    def prepare(n: int) -> tuple[list[FileVoxels], np.ndarray, np.ndarray]:
        """The case at each amount of each kind: moved files, volumes, landmarks in mm."""
        grid, points_mm = cases.grids[n], cases.points_mm[n]
        file = read_voxels(cases.cases[n].volume_path, preprocessing)
        centre = alignment.find_centre(points_mm)
        if not np.isfinite(centre).all():  # nothing to measure by; any centre will do
            centre = grid.to_world((np.array(grid.shape) - 1) / 2)
        motions = [
            alignment.make_motion(kind, directions[kind][n], amount, centre)
            for kind, (_, amounts) in KINDS.items()
            for amount in amounts
        ]
        moved = [file._replace(affine=motion @ file.affine) for motion in motions]
        volumes = np.stack([one.sample(grid) for one in moved])
        truth = [geometry.apply_affine(motion, points_mm) for motion in motions]
        return moved, volumes, np.stack(truth)

    error_mm, inside = [], []
    for n, (moved, volumes, truth_mm) in loader.prefetch(prepare, range(len(cases))):
        grid = cases.grids[n]
        found = search(volumes, [grid] * len(volumes), partial(_sample, moved))
        error_mm.append(metrics.radial_errors(found.points_mm, truth_mm))
        inside.append(grid.contains(truth_mm))
        progress.show(f"scan {n + 1}/{len(cases)} turned and shifted")
    progress.clear()
    ends = np.cumsum([len(amounts) for _, amounts in KINDS.values()])[:-1]
    split_errors = np.split(np.stack(error_mm, axis=1), ends)
    split_inside = np.split(np.stack(inside, axis=1), ends)
    return {
        kind: Moved(errors, there, cases.visible)
        for kind, errors, there in zip(KINDS, split_errors, split_inside, strict=True)
    }


def _sample(files: list[FileVoxels], k: int, grid: Grid) -> np.ndarray:
    return files[k].sample(grid)


def format_alignment(numbers: dict[str, list[dict]]) -> str:
    """A line for each kind of motion."""
    lines = []
    for kind, rows in numbers.items():
        unit, _ = KINDS[kind]
        sign = "°" if unit == "degrees" else " mm"
        found = ", ".join(f"{row[unit]:g}{sign} {row['d_mean_mm']:.2f}" for row in rows)
        lines.append(f"d-mean in mm, {kind} by {found}")
    return "\n".join(lines)
