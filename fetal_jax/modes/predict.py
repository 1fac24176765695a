"""`--mode=predict`: landmarks for new scans, files in, landmark files out, in each scan's world."""

import glob
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fetal_jax import geometry
from fetal_jax.calibration import Calibrations
from fetal_jax.data import loader
from fetal_jax.data.cases import BORDER_VOX, FileVoxels, check_contrast, read_voxels
from fetal_jax.data.from_config import build_placement
from fetal_jax.data.placement import Source, is_cut, measure_extent
from fetal_jax.data.preprocess import Preprocessing
from fetal_jax.errors import InputError
from fetal_jax.geometry import Grid
from fetal_jax.io.files import VOLUME_SUFFIXES, split_suffix
from fetal_jax.runs import aligned, second_look
from fetal_jax.runs.finished import open_models
from fetal_jax.runs.folder import DataRecord
from fetal_jax.runs.found_files import find_changed, tidy_table, write_landmark_files
from fetal_jax.runs.measured_faces import measure_predictions
from fetal_jax.runs.measurement_table import read_new_measurements, write_new_measurements
from fetal_jax.runs.predictions import (
    Predictions,
    average_predictions,
    find_hidden,
    join_predictions,
    make_predictions,
)
from fetal_jax.runs.search import Search, bind_searches

ODD_SIZE = 2.0  # so many times longer or shorter than those of the training is said
SUFFIXES = {"mrk.json": ".mrk.json", "fcsv": ".fcsv"}


def find_volumes(patterns: list[str]) -> list[Path]:
    """The files that paths, folders and globs name, each once, in order.

    Raises:
      InputError: a pattern that names nothing, or two files whose output would have one name.
    """
    problems, paths = [], []
    for pattern in patterns:
        if Path(pattern).is_dir():
            found = sorted(
                p
                for p in Path(pattern).iterdir()
                if split_suffix(p, VOLUME_SUFFIXES)[1] and not p.name.startswith(".")
            )
        elif Path(pattern).exists():  # before the glob: a name may hold brackets
            found = [Path(pattern)]
        else:
            found = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]
        if not found:
            came = "a folder with none" if Path(pattern).is_dir() else "no such file"
            problems.append(f"--volumes={pattern}: expected volumes, got {came}")
        paths += [path for path in found if path not in paths]
    writers: dict[str, Path] = {}
    for path in paths:
        name = split_suffix(path, VOLUME_SUFFIXES)[0]
        if not name.isprintable():
            problems.append(
                f"{path}: expected a name in UTF-8 without control characters, got {name!r}"
            )
        if name in writers:
            problems.append(
                f"{path}: expected a name of its own, got that of {writers[name]}: "
                f"both would write {name}"
            )
        writers.setdefault(name, path)
    if problems:
        raise InputError(*problems)
    return paths


class Prepared(NamedTuple):
    """A scan: its file's voxels, and those [D, H, W] on the grid of the first look."""

    file: FileVoxels
    voxels: np.ndarray
    grid: Grid


def run_predict(
    workdir: Path, patterns: list[str], output: Path, file_format: str, overwrite: bool = False
) -> None:
    """Write output/CASE.mrk.json (or .fcsv) for each volume; good files are done despite bad ones.

    Where the landmarks are those of a face, also output/measurements.csv. With a cross-validation's
    folder a landmark is the mean of what its folds' models find. A landmark file that this program
    did not write, or that somebody changed since, stays, unless `overwrite`: its scan is left out.

    Raises:
      InputError: after all others are written, one line for each file that could not be used.
    """
    if not patterns:
        raise InputError("--volumes: expected files, folders or globs, got none")
    paths, suffix = find_volumes(patterns), SUFFIXES[file_format]
    read_new_measurements(output / "measurements.csv")  # another table there is said before work
    if not overwrite:
        paths = _leave_out_changed(paths, output, suffix)
        if not paths:
            return
    models = open_models(workdir)
    labels = models.record.labels
    searches = bind_searches(models)
    together = f", the mean of {len(models.params)} models" if len(models.params) > 1 else ""
    print(f"{len(paths)} volumes, {workdir}{together}, into {output}")
    min_visible = aligned.read_min_visible(models.config)
    problems, names, every = [], [], []
    prepare = _bind_preparation(paths, models.record.preprocessing)
    # the next scan is read and resampled while the network looks at this one
    for number, prepared in loader.prefetch(prepare, range(len(paths))):
        path = paths[number]
        if isinstance(prepared, InputError):
            problems += prepared.problems
            continue
        _warn_if_odd(path, prepared, models.record)
        found, framed = find_points(searches, models.calibrations, prepared)
        if models.seconds and not framed.all():
            print(
                f"warning: {path}: less than {100 * second_look.LEAST_AGREEING:.0f} % of what the "
                "first look found agrees with a face: its points are given as they are"
            )
        name = split_suffix(path, VOLUME_SUFFIXES)[0]
        write_landmark_files(
            output, [name], labels, found, min_visible=min_visible, suffix=suffix, overwrite=True
        )
        _warn_if_outside(path, prepared, labels, found.points_mm[0])
        hidden = find_hidden(found.visibility[0], min_visible)
        out_of_sight = [label for label, one in zip(labels, hidden, strict=True) if one]
        unseen = f", not visible: {', '.join(out_of_sight)}" if out_of_sight else ""
        sure = found.confidence[0][~hidden]
        said = f"mean confidence {sure.mean():.2f}" if sure.size else "nothing can be seen"
        print(f"{path}: {said}{unseen}")
        names.append(name)
        every.append(found)
    if names:
        tidy_table(output)
        joined = join_predictions(every)
        faces = measure_predictions(
            joined.points_mm,
            joined.confidence,
            labels,
            min_confidence=models.config.evaluation.min_confidence,
            hidden=find_hidden(joined.visibility, min_visible),
        )
        if faces.measurements:
            write_new_measurements(output / "measurements.csv", names, faces)
            print(f"{output}/measurements.csv: {len(faces.measurements)} measurements of each face")
    if problems:
        raise InputError(*problems)


def _leave_out_changed(paths: list[Path], output: Path, suffix: str) -> list[Path]:
    """The volumes whose landmark file may be written; the others are printed."""
    names = {path: split_suffix(path, VOLUME_SUFFIXES)[0] for path in paths}
    # in the other format too: two files of one case are no data set
    endings = (suffix, *(other for other in SUFFIXES.values() if other != suffix))
    files = {output / f"{name}{ending}": path for path, name in names.items() for ending in endings}
    changed = find_changed(list(files))
    for file in changed:
        print(
            f"note: {file} was not written by this program, or changed since: it stays as it is, "
            "and its scan is left out; --overwrite predicts it anew"
        )
    left_out = {files[file] for file in changed}
    return [path for path in paths if path not in left_out]


def _bind_preparation(
    paths: list[Path], preprocessing: Preprocessing
) -> Callable[[int], Prepared | InputError]:
    placement = build_placement(preprocessing)

    def prepare(number: int) -> Prepared | InputError:
        try:
            file = read_voxels(paths[number], preprocessing)
            grid = placement.place(Source(file.voxels.shape, file.affine), None)
            voxels = file.sample(grid)
            check_contrast(paths[number], voxels, grid)
            return Prepared(file, voxels, grid)
        except InputError as error:
            return error

    return prepare


def _warn_if_odd(path: Path, prepared: Prepared, record: DataRecord) -> None:
    """A scan that the grid cuts, or of another size than those of the training."""
    extent_mm = measure_extent(prepared.file.voxels.shape, prepared.file.affine)
    low, high = record.extent_mm or (0.0, math.inf)
    if not low / ODD_SIZE <= extent_mm <= high * ODD_SIZE:
        print(
            f"warning: {path}: {extent_mm:.3g} mm long, those of the training {low:.3g} to "
            f"{high:.3g} mm: is its header right?"
        )
    width_mm = prepared.grid.shape[0] * prepared.grid.spacing_mm
    shape, affine = prepared.file.voxels.shape, prepared.file.affine
    if is_cut(shape, affine, width_mm=width_mm):
        low, high = geometry.world_bounds(shape, affine)
        print(
            f"warning: {path}: {(high - low).max():.0f} mm long, more than the grid's "
            f"{width_mm:.0f} mm: what lies outside is not searched"
        )


def _warn_if_outside(
    path: Path, prepared: Prepared, labels: list[str], points_mm: np.ndarray
) -> None:
    index = geometry.apply_affine(np.linalg.inv(prepared.file.affine), points_mm)
    reach = np.array(prepared.file.voxels.shape) - 1 + BORDER_VOX
    outside = ((index < -BORDER_VOX) | (index > reach)).any(axis=-1)
    if outside.any():
        named = [label for label, one in zip(labels, outside, strict=True) if one]
        print(f"warning: {path}: found outside the volume: {', '.join(named)}")


def find_points(
    searches: list[Search], calibrations: Calibrations, prepared: Prepared
) -> tuple[Predictions, np.ndarray]:
    """The models' mean for one scan, and which of them had a frame."""
    found = [
        search(prepared.voxels[None], [prepared.grid], lambda _, grid: prepared.file.sample(grid))
        for search in searches
    ]
    parts = [
        make_predictions(one.points_mm, np.full_like(one.points_mm, np.nan), one.mass)._replace(
            seen=one.seen, completed_mm=one.completed_mm
        )
        for one in found
    ]
    framed = np.array([one.framed[0] for one in found])
    return average_predictions(parts, calibrations), framed
