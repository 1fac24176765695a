"""`--mode=predict`: landmarks for new scans, files in, landmark files out, in each scan's world."""

import glob
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fetal_jax import geometry
from fetal_jax.data import loader
from fetal_jax.data.cases import BORDER_VOX, FileVoxels, check_contrast, read_voxels
from fetal_jax.data.from_config import build_placement
from fetal_jax.data.placement import Source, is_cut, measure_extent
from fetal_jax.data.preprocess import Preprocessing
from fetal_jax.errors import InputError
from fetal_jax.geometry import Grid
from fetal_jax.io.files import VOLUME_SUFFIXES, split_suffix
from fetal_jax.plausibility import Usual
from fetal_jax.runs import aligned, review_scenes, review_table, scan_table, second_look
from fetal_jax.runs.calibrations import Calibrations
from fetal_jax.runs.finished import OpenedModels, open_models
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
    visible_points,
)
from fetal_jax.runs.review import describe_cases, list_reviews
from fetal_jax.runs.search import Search, bind_searches
from fetal_jax.runs.usual import read_usual

ODD_SIZE = 2.0  # so many times longer or shorter than those of the training is said
SHOWN = 10  # scans with something wrong that are printed
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


class FoundScan(NamedTuple):
    """What was found in a scan.

    notes: label -> what is wrong with its point, beside its place; with the scan, of label ''.
    """

    name: str
    path: Path
    found: Predictions
    notes: dict[str, str]


def run_predict(
    workdir: Path, patterns: list[str], output: Path, file_format: str, overwrite: bool = False
) -> None:
    """Write output/CASE.mrk.json (or .fcsv) for each volume; good files are done despite bad ones.

    Beside them output/review.csv, what looks wrong, a scene for 3D Slicer of each scan with
    something wrong, and, where the landmarks are those of a face, output/measurements.csv. With a
    cross-validation's folder a landmark is the mean of what its folds' models find. A landmark file
    that this program did not write, or that somebody changed since, stays, unless `overwrite`: its
    scan is left out.

    Raises:
      InputError: after all others are written, one line for each file that could not be used.
    """
    if not patterns:
        raise InputError("--volumes: expected files, folders or globs, got none")
    paths, suffix = find_volumes(patterns), SUFFIXES[file_format]
    # other tables there are said before work
    read_new_measurements(output / "measurements.csv")
    review_table.read_reviews(output / review_table.FILE)
    scan_table.read_scans(output)
    if not overwrite:
        paths = _leave_out_changed(paths, output, suffix)
        if not paths:
            return
    models, usual = open_models(workdir), read_usual(workdir)
    searches = bind_searches(models)
    together = f", the mean of {len(models.params)} models" if len(models.params) > 1 else ""
    print(f"{len(paths)} volumes, {workdir}{together}, into {output}")
    problems, scans = [], []
    prepare = _bind_preparation(paths, models.record.preprocessing)
    # the next scan is read and resampled while the network looks at this one
    for number, prepared in loader.prefetch(prepare, range(len(paths))):
        if isinstance(prepared, InputError):
            problems += prepared.problems
            continue
        if not scans:
            names = [split_suffix(path, VOLUME_SUFFIXES)[0] for path in paths]
            scan_table.write_scans(output, dict(zip(names, paths, strict=True)))
        scans.append(_find_in_scan(paths[number], prepared, models, searches, output, suffix))
    if scans:
        _write_tables(output, scans, models)
        _write_reviews(output, scans, models, usual, suffix, overwrite)
    if problems:
        raise InputError(*problems)


def _find_in_scan(
    path: Path,
    prepared: Prepared,
    models: OpenedModels,
    searches: list[Search],
    output: Path,
    suffix: str,
) -> FoundScan:
    """Look at one scan, write its landmark file, print what came of it."""
    labels, min_visible = models.record.labels, aligned.read_min_visible(models.config)
    odd = _describe_size(prepared, models.record)
    found, framed = find_points(searches, models.calibrations, prepared)
    if models.seconds and not framed.all():
        odd.append(
            f"less than {100 * second_look.LEAST_AGREEING:.0f} % of what the first look found "
            "agrees with a face: its points are given as they are"
        )
    name = split_suffix(path, VOLUME_SUFFIXES)[0]
    write_landmark_files(
        output, [name], labels, found, min_visible=min_visible, suffix=suffix, overwrite=True
    )
    hidden = find_hidden(found.visibility[0], min_visible)
    outside = _find_outside(prepared, found.points_mm[0])
    for sentence in odd:
        print(f"warning: {path}: {sentence}")
    if outside.any():
        named = [label for label, one in zip(labels, outside, strict=True) if one]
        print(f"warning: {path}: found outside the volume: {', '.join(named)}")
    out_of_sight = [label for label, one in zip(labels, hidden, strict=True) if one]
    unseen = f", not visible: {', '.join(out_of_sight)}" if out_of_sight else ""
    sure = found.confidence[0][~hidden]
    said = f"mean confidence {sure.mean():.2f}" if sure.size else "nothing can be seen"
    radii = found.radius_mm[0][~hidden]
    if radii.size and np.isfinite(radii).all():
        said += f", median radius {np.median(radii):.1f} mm"
    print(f"{path}: {said}{unseen}")
    notes = {"": "; ".join(odd)} if odd else {}
    away = [labels[k] for k in np.flatnonzero(outside & ~hidden)]
    notes |= {label: f"{label} is outside the volume" for label in away}
    return FoundScan(name, path, found, notes)


def _write_tables(output: Path, scans: list[FoundScan], models: OpenedModels) -> None:
    tidy_table(output)
    joined = join_predictions([scan.found for scan in scans])
    faces = measure_predictions(
        joined.points_mm,
        joined.confidence,
        models.record.labels,
        min_confidence=models.config.evaluation.min_confidence,
        hidden=find_hidden(joined.visibility, aligned.read_min_visible(models.config)),
    )
    if faces.measurements:
        names = [scan.name for scan in scans]
        write_new_measurements(output / "measurements.csv", names, faces)
        print(f"{output}/measurements.csv: {len(faces.measurements)} measurements of each face")


def _write_reviews(
    output: Path,
    scans: list[FoundScan],
    models: OpenedModels,
    usual: Usual | None,
    suffix: str,
    overwrite: bool,
) -> None:
    """review.csv and the scenes of the scans to look at; prints what looks wrong, worst first."""
    names, evaluation = [scan.name for scan in scans], models.config.evaluation
    joined = join_predictions([scan.found for scan in scans])
    rows = list_reviews(
        names,
        models.record.labels,
        visible_points(joined, aligned.read_min_visible(models.config)),
        joined.confidence,
        usual,
        min_confidence=evaluation.min_confidence,
        radius_mm=evaluation.confidence_radius_mm,
        notes={scan.name: scan.notes for scan in scans},
    )
    review_table.write_reviews(output / review_table.FILE, names, rows)
    wrong = describe_cases(rows)
    files = {scan.name: (scan.path, output / f"{scan.name}{suffix}") for scan in scans}
    kept = review_scenes.write_scenes(output, files, wrong.keys(), overwrite=overwrite)
    for path in kept:
        print(f"note: {path} is not as it was written, and stays as it is")
    if not wrong:
        print(f"nothing looks wrong with them; {output}/{review_table.FILE} has each point")
        return
    print(f"{len(wrong)} of {len(names)} scans have something to look at, the worst first:")
    for case, said in list(wrong.items())[:SHOWN]:
        print(f"  {case}: {said}")
    print(
        f"{output}/{review_table.FILE} has each point, {output}/slicer/ a scene of each such scan"
    )


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


def _describe_size(prepared: Prepared, record: DataRecord) -> list[str]:
    """Of a scan that the grid cuts, or of another size than those of the training."""
    said, (shape, affine) = [], (prepared.file.voxels.shape, prepared.file.affine)
    extent_mm = measure_extent(shape, affine)
    low, high = record.extent_mm or (0.0, math.inf)
    if not low / ODD_SIZE <= extent_mm <= high * ODD_SIZE:
        said.append(
            f"{extent_mm:.3g} mm long, those of the training {low:.3g} to {high:.3g} mm: is its "
            "header right?"
        )
    width_mm = prepared.grid.shape[0] * prepared.grid.spacing_mm
    if is_cut(shape, affine, width_mm=width_mm):
        low, high = geometry.world_bounds(shape, affine)
        said.append(
            f"{(high - low).max():.0f} mm long, more than the grid's {width_mm:.0f} mm: what lies "
            "outside is not searched"
        )
    return said


def _find_outside(prepared: Prepared, points_mm: np.ndarray) -> np.ndarray:
    """[L] bool: which points [L, 3] lie outside the volume."""
    index = geometry.apply_affine(np.linalg.inv(prepared.file.affine), points_mm)
    reach = np.array(prepared.file.voxels.shape) - 1 + BORDER_VOX
    return ((index < -BORDER_VOX) | (index > reach)).any(axis=-1)


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
