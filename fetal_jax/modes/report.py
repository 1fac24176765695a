"""`--mode=report`: the page of a finished run or cross-validation, made again from its folder.

What ends a run makes its page here, too.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from fetal_jax import metrics
from fetal_jax.data.cases import PreparedCases, bind_files
from fetal_jax.data.file_digests import digest_cases
from fetal_jax.data.from_config import choose_cache
from fetal_jax.detectors.from_config import build_detector
from fetal_jax.errors import InputError
from fetal_jax.examples import ask_all
from fetal_jax.geometry import Grid, pad_grid
from fetal_jax.report import build, card, cases
from fetal_jax.report.cases import ShownCase
from fetal_jax.runs import aligned, face_frame, finished, out_of_fold, second_look
from fetal_jax.runs import folder as run_folder
from fetal_jax.runs.predictions import Predictions, read_predictions
from fetal_jax.runs.results import read_results
from fetal_jax.training.from_config import build_finder
from fetal_jax.training.processes import from_first

CARD = "card.md"
PORTRAIT_MM = 15.0  # of a scan round the box of the second look, in a picture of the face
Tested = tuple[Path, PreparedCases, Predictions]  # a run's folder, its test cases, what it says


def run_report(workdir: Path) -> None:
    """Write WORKDIR/report anew; where the data set is gone, without its pictures of cases.

    Raises:
      InputError: the run is not finished.
    """
    if not (workdir / "results.json").exists():
        raise InputError(f"{workdir}: expected a finished run, with results.json, got none")
    config = finished.open_config(workdir)
    from_first(lambda: write_run_card(workdir, workdir / CARD))
    labels, parts, left_out = _open_parts(config, workdir)
    # whoever asks for a report waits for its surfaces, whatever the config says
    _write_page(config, workdir, labels, parts, left_out, surfaces=True)
    print(f"open {workdir}/report/index.html")


def finish_report(config: FrozenConfigDict, workdir: Path) -> None:
    """The page of a finished run, where a kill came before it was written."""
    from_first(lambda: write_run_card(workdir, workdir / CARD))
    page, results = workdir / "report" / "index.html", workdir / "results.json"
    if not config.report.on or from_first(
        lambda: page.exists() and page.stat().st_mtime_ns >= results.stat().st_mtime_ns
    ):
        return
    report_run(config, workdir, *_open_parts(config, workdir))


def _open_parts(
    config: FrozenConfigDict, workdir: Path
) -> tuple[list[str], list[Tested], list[str]]:
    """Of a finished run the labels, its parts, and sentences about what could not be opened."""
    parts, labels, left_out = [], [], []
    try:
        for folder in finished.find_runs(workdir):
            record = run_folder.read_data_record(folder)
            tested = finished.open_tested(config, folder, record)
            digests = digest_cases(tested.cases, choose_cache(config))
            for sentence in run_folder.name_changes(folder, digests):
                print(f"note: {sentence}")
                left_out.append(f"{sentence[0].upper()}{sentence[1:]}.")
            parts.append((folder, tested, read_predictions(folder / "predictions.npz")))
            labels = record.labels
        if len(parts) > 1:  # as the cross-validation has them
            radius_mm = config.evaluation.confidence_radius_mm
            region = run_folder.read_calibrations(workdir).region
            share = region.share if region else 0.0
            pairs = [part[1:] for part in parts]
            calibrated = out_of_fold.calibrate_folds(pairs, radius_mm, share)
            parts = [(*part[:2], one) for part, one in zip(parts, calibrated, strict=True)]
    except InputError as error:
        parts = []
        left_out.append(f"Pictures of cases: {error.problems[0]}.")
        print(f"note: without pictures of cases: {error.problems[0]}")
    return labels, parts, left_out


def report_run(
    config: ConfigDict | FrozenConfigDict,
    workdir: Path,
    labels: Sequence[str],
    parts: Sequence[Tested],
    left_out: Sequence[str] = (),
) -> None:
    """Write WORKDIR/card.md and, where config.report.on, WORKDIR/report.

    A page that cannot be drawn costs no result.

    Args:
      labels: L names.
      parts: of `show_cases`.
      left_out: sentences about what could not be made.
    """
    from_first(lambda: write_run_card(workdir, workdir / CARD))
    if config.report.on:
        surfaces = config.report.surfaces
        try:
            _write_page(config, workdir, labels, parts, left_out, surfaces=surfaces)
        except (InputError, OSError):
            raise
        except Exception as error:
            print(
                f"warning: the report could not be made ({error!r}): the results are in "
                f"{workdir}/results.json"
            )


def write_run_card(workdir: Path, path: Path) -> None:
    """Write the card of a run or cross-validation; one that somebody made or changed stays."""
    first = finished.find_runs(workdir)[0]
    results = workdir / "results.json"
    source = card.Source(
        workdir.resolve().name,
        finished.open_config(first),
        run_folder.read_data_record(first),
        read_results(workdir) if results.exists() else None,
    )
    if not card.write_card(path, card.render_card(source)):
        print(f"note: {path} is not as it was written, and stays as it is")


def _write_page(config, workdir, labels, parts, left_out, *, surfaces: bool) -> None:
    shown = show_cases(config, labels, parts)
    from_first(lambda: build.write_report(workdir, shown, left_out, surfaces=surfaces))


def show_cases(
    config: ConfigDict | FrozenConfigDict, labels: Sequence[str], parts: Sequence[Tested]
) -> list[ShownCase]:
    """The worst and the median cases, with their heatmaps, for a report.

    Args:
      labels: L names.
      parts: (folder, test cases, predictions) of one run, or of each fold.
    """
    if not parts:
        return []
    errors_mm = [metrics.radial_errors(p.points_mm, tested.points_mm) for _, tested, p in parts]
    visible = np.concatenate([tested.visible for _, tested, _ in parts])
    places = [(part, n) for part in parts for n in range(len(part[1]))]
    shown, paints = [], {}
    for title, case, landmark in cases.choose_cases(np.concatenate(errors_mm), visible):
        (folder, tested, predictions), n = places[case]
        if folder not in paints:
            paints[folder] = _bind_painting(config, folder, tested, predictions)
        grid, volume, map_ = paints[folder](n, landmark)
        shown.append(
            cases.show_case(
                tested,
                n,
                title=title,
                labels=labels,
                predicted_mm=predictions.points_mm[n],
                confidence=predictions.confidence[n],
                radius_mm=predictions.radius_mm[n],
                landmark=landmark,
                grid=grid,
                volume=volume,
                map_=map_,
            )
        )
    return shown


def _bind_painting(
    config: ConfigDict | FrozenConfigDict,
    folder: Path,
    tested: PreparedCases,
    predictions: Predictions,
) -> Callable[[int, int], tuple[Grid, np.ndarray, np.ndarray]]:
    """(case, landmark) -> a grid, the scan there, and the landmark's map there.

    Of a run that looks twice it is the second network's, in the frame that the points found give,
    with PORTRAIT_MM of the scan round its box; else the first one's.
    """
    record = from_first(lambda: run_folder.read_data_record(folder))
    detector = build_detector(config, len(record.labels))
    find = build_finder(config, detector)
    params = from_first(lambda: finished.restore_best(folder, detector).params)

    def paint(n: int, landmark: int):
        asked = ask_all(tested.volumes[[n]], tested.points_vox[[n]])
        found = find(params, asked._replace(shown=np.array([landmark], np.int32)))
        return tested.grids[n], tested.volumes[n], found.map[0]

    if not aligned.is_on(config):
        return paint
    second = finished.open_second(config, folder, record)
    find_again = build_finder(second.config, second.detector)
    files = bind_files(tested, record.preprocessing, choose_cache(config))

    def paint_again(n: int, landmark: int):
        fitted = face_frame.fit_frames(
            second.frame, predictions.points_mm[[n]], predictions.mass[[n]]
        )
        if fitted.agreeing[0] < second_look.LEAST_AGREEING:
            return paint(n, landmark)
        box = Grid(second.frame.box.shape, fitted.matrices[0] @ second.frame.box.affine)
        asked = ask_all(files(n).sample(box)[None], box.to_voxels(tested.points_mm[[n]]))
        asked = asked._replace(shown=np.array([landmark], np.int32))
        map_ = find_again(second.params, asked).map[0]
        margin = math.ceil(PORTRAIT_MM / box.spacing_mm)
        wide = pad_grid(box, margin)
        return wide, files(n).sample(wide), np.pad(map_, margin)

    return paint_again


def print_report(workdir: Path) -> None:
    """The last line of a run: which file to open."""
    page = workdir / "report" / "index.html"
    if page.exists():
        print(f"open {page}: it says what was found and where everything is")
    else:
        print(
            f"{workdir}/results.csv has each point; --mode=report --workdir={workdir} writes a page"
        )
