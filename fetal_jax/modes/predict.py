"""`--mode=predict`: landmarks for new scans, files in, landmark files out, in each scan's world."""

import glob
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from fetal_jax.errors import InputError
from fetal_jax.io.files import VOLUME_SUFFIXES, split_suffix
from fetal_jax.pipeline import run_ahead
from fetal_jax.plausibility import Usual
from fetal_jax.runs import aligned, review_scenes, review_table, scan_table
from fetal_jax.runs.finished import OpenedModels, open_models
from fetal_jax.runs.found_files import find_changed, tidy_table, write_landmark_files
from fetal_jax.runs.measured_faces import measure_predictions
from fetal_jax.runs.measurement_table import read_new_measurements, write_new_measurements
from fetal_jax.runs.new_scans import FoundScan, read_scans, search_scan
from fetal_jax.runs.predictions import find_hidden, join_predictions, visible_points
from fetal_jax.runs.review import describe_cases, list_reviews
from fetal_jax.runs.search import bind_searches
from fetal_jax.runs.usual import read_usual

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
    together = f", the mean of {len(models.params)} models" if len(models.params) > 1 else ""
    print(f"{len(paths)} volumes, {workdir}{together}, into {output}")
    write = partial(_write_scan, models=models, output=output, suffix=suffix)
    # the next scans are read, and what was found in the one before is written, while one is
    # searched: that is done here, for a device has memory for one
    done = list(run_ahead(write, _search_scans(paths, models, output), most=2))
    scans = [one for one in done if not isinstance(one, InputError)]
    if scans:
        _write_tables(output, scans, models)
        _write_reviews(output, scans, models, usual, suffix, overwrite)
    problems = [line for one in done if isinstance(one, InputError) for line in one.problems]
    if problems:
        raise InputError(*problems)


def _search_scans(
    paths: list[Path], models: OpenedModels, output: Path
) -> Iterator[FoundScan | InputError]:
    """Of each scan what is found in it, or why it cannot be used; volumes.csv before the first."""
    searches, begun = bind_searches(models), False
    for scan in read_scans(paths, models.record.preprocessing):
        if isinstance(scan, InputError):
            yield scan
            continue
        if not begun:
            names = [split_suffix(path, VOLUME_SUFFIXES)[0] for path in paths]
            scan_table.write_scans(output, dict(zip(names, paths, strict=True)))
            begun = True
        found = search_scan(scan, models, searches)
        del scan  # its voxels need not wait for the next one
        yield found


def _write_scan(
    scan: FoundScan | InputError, *, models: OpenedModels, output: Path, suffix: str
) -> FoundScan | InputError:
    """Write a scan's landmark file and print what came of it; what is no scan is left for later."""
    if isinstance(scan, InputError):
        return scan
    labels, min_visible = models.record.labels, aligned.read_min_visible(models.config)
    found, path = scan.found, scan.path
    write_landmark_files(
        output, [scan.name], labels, found, min_visible=min_visible, suffix=suffix, overwrite=True
    )
    for sentence in scan.odd:
        print(f"warning: {path}: {sentence}")
    if scan.outside.any():
        named = [label for label, one in zip(labels, scan.outside, strict=True) if one]
        print(f"warning: {path}: found outside the volume: {', '.join(named)}")
    hidden = find_hidden(found.visibility[0], min_visible)
    out_of_sight = [label for label, one in zip(labels, hidden, strict=True) if one]
    unseen = f", not visible: {', '.join(out_of_sight)}" if out_of_sight else ""
    sure = found.confidence[0][~hidden]
    said = f"mean confidence {sure.mean():.2f}" if sure.size else "nothing can be seen"
    radii = found.radius_mm[0][~hidden]
    if radii.size and np.isfinite(radii).all():
        said += f", median radius {np.median(radii):.1f} mm"
    print(f"{path}: {said}{unseen}")
    return scan


def _list_notes(scan: FoundScan, models: OpenedModels) -> dict[str, str]:
    """Label -> what is wrong with its point, beside its place; with the scan, of label ''."""
    notes = {"": "; ".join(scan.odd)} if scan.odd else {}
    hidden = find_hidden(scan.found.visibility[0], aligned.read_min_visible(models.config))
    away = [models.record.labels[k] for k in np.flatnonzero(scan.outside & ~hidden)]
    return notes | {label: f"{label} is outside the volume" for label in away}


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
        notes={scan.name: _list_notes(scan, models) for scan in scans},
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
