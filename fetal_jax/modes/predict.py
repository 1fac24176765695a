"""Landmarks for new scans: files in, landmark files out, in each scan's own world."""

import glob
from pathlib import Path

import numpy as np

from fetal_jax import geometry
from fetal_jax.data import loader, preprocess
from fetal_jax.detectors import from_config as network
from fetal_jax.errors import InputError
from fetal_jax.io.files import VOLUME_SUFFIXES, split_suffix
from fetal_jax.io.markups import write_landmarks
from fetal_jax.io.volumes import read_volume
from fetal_jax.modes import train as experiment
from fetal_jax.runs import config_table as config_values
from fetal_jax.runs import folder as run_folder
from fetal_jax.runs import measurement_table
from fetal_jax.runs import predictions as evaluate

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
                p for p in Path(pattern).iterdir() if split_suffix(p, VOLUME_SUFFIXES)[1]
            )
        elif Path(pattern).exists():  # before the glob: a name may hold brackets
            found = [Path(pattern)]
        else:
            found = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]
        if not found:
            problems.append(f"--volumes={pattern}: expected volumes, got no such file")
        paths += [path for path in found if path not in paths]
    writers: dict[str, Path] = {}
    for path in paths:
        name = split_suffix(path, VOLUME_SUFFIXES)[0]
        if name in writers:
            problems.append(
                f"{path}: expected a name of its own, got that of {writers[name]}: "
                f"both would write {name}"
            )
        writers.setdefault(name, path)
    if problems:
        raise InputError(*problems)
    return paths


def find_runs(workdir: Path) -> list[Path]:
    """The folder of a run itself, or those of a cross-validation's folds.

    Raises:
      InputError: a fold that is not finished.
    """
    if not (workdir / run_folder.FOLDS_CSV).exists():
        return [workdir]
    folds = run_folder.read_config(workdir).crossval.folds
    runs = [workdir / f"fold{fold + 1}" for fold in range(folds)]
    for run in runs:
        if not (run / "results.json").exists():
            raise InputError(f"{run}: expected a finished fold, with results.json, got none")
    return runs


def open_models(workdir: Path):
    """(config, data record, network, `inference.Trained` of each) of `find_runs`' runs."""
    runs = find_runs(workdir)
    config, record = run_folder.read_config(runs[0]), run_folder.read_data_record(runs[0])
    config_values.check_values(config)
    model = network.build_model(config, len(record.labels))
    return config, record, model, [experiment.restore_best(run, config, model)[0] for run in runs]


def run_predict(workdir: Path, patterns: list[str], output: Path, file_format: str) -> None:
    """Write output/CASE.mrk.json (or .fcsv) for each volume; good files are done despite bad ones.

    Where the landmarks are those of a face, also output/measurements.csv.

    With a cross-validation's folder a landmark is the mean of what its folds' models find.

    Raises:
      InputError: after all others are written, one line for each file that could not be used.
    """
    if not patterns:
        raise InputError("--volumes: expected files, folders or globs, got none")
    paths = find_volumes(patterns)
    config, record, model, models = open_models(workdir)
    find = network.build_finder(config, model)
    preprocessing = record.preprocessing
    together = f", the mean of {len(models)} models" if len(models) > 1 else ""
    print(f"{len(paths)} volumes, {workdir}{together}, into {output}")
    problems, names, found_mm, confidences = [], [], [], []

    def prepare(number):
        try:
            volume = read_volume(
                paths[number], trust_missing_affine=preprocessing.trust_missing_affine
            )
            return volume, *preprocess.prepare_volume(volume, preprocessing)
        except InputError as error:
            return error

    # the next scan is read and resampled while the network looks at this one
    for number, prepared in loader.prefetch(prepare, range(len(paths))):
        path = paths[number]
        if isinstance(prepared, InputError):
            problems += prepared.problems
            continue
        volume, voxels, grid = prepared
        low, high = geometry.world_bounds(volume.voxels.shape, volume.affine)
        if (high - low).max() > 1.005 * grid.side * grid.spacing_mm:
            print(
                f"warning: {path}: {(high - low).max():.0f} mm long, more than the grid's "
                f"{grid.side * grid.spacing_mm:.0f} mm: what lies outside is not searched"
            )
        each = [find(one, {"volumes": voxels[None].astype(np.float16)}) for one in models]
        points = grid.to_world(np.mean([found.points_vox[0] for found in each], axis=0))
        confidence = np.mean([found.confidence[0] for found in each], axis=0)
        name = split_suffix(path, VOLUME_SUFFIXES)[0]
        write_landmarks(
            output / f"{name}{SUFFIXES[file_format]}",
            dict(zip(record.labels, points, strict=True)),
            evaluate.describe_confidence(record.labels, confidence),
        )
        print(f"{path}: mean confidence {np.mean(confidence):.2f}")
        names.append(name)
        found_mm.append(points)
        confidences.append(confidence)
    if names:
        faces = measurement_table.measure_predictions(
            np.stack(found_mm),
            np.stack(confidences),
            record.labels,
            min_confidence=config.evaluation.min_confidence,
        )
        if faces.measurements:
            measurement_table.write_new_measurements(output / "measurements.csv", names, faces)
            print(f"{output}/measurements.csv: {len(faces.measurements)} measurements of each face")
    if problems:
        raise InputError(*problems)
