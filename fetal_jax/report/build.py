"""The report of a run, of a cross-validation or of a comparison: FOLDER/report/index.html.

Its numbers are read from the folder's results.json and results.csv. Beside the page lie its charts
and pictures for a paper, and a folder for 3D Slicer for each case that is shown closely.
"""

import json
import shutil
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from fetal_jax.errors import InputError
from fetal_jax.io.files import write_atomically
from fetal_jax.io.slicer_scene import write_scene
from fetal_jax.io.tables import read_table
from fetal_jax.io.volumes import read_volume
from fetal_jax.measurements import MEASUREMENTS
from fetal_jax.report import charts, page, pictures, scene, sections, surface
from fetal_jax.report.cases import ShownCase
from fetal_jax.report.page import Section
from fetal_jax.runs import folder as run_folder
from fetal_jax.runs.point_table import Points, read_points

FILES = {
    "results.json": "every number on this page",
    "results.csv": "each point: truth, prediction, error, confidence",
    "measurements.csv": "each measurement of each case",
    "predictions/": "landmarks of each test case, for 3D Slicer",
    "report/charts/": "the charts as PNG and SVG",
    "report/cases/": "the pictures of cases",
    "report/slicer/": "a scene for 3D Slicer of each case shown here: open its .mrml",
}


def write_report(
    workdir: Path,
    shown: Sequence[ShownCase],
    left_out: Sequence[str] = (),
    *,
    surfaces: bool = True,
) -> Path:
    """The report of a finished run or cross-validation.

    Args:
      workdir: with results.json and results.csv.
      shown: the cases that are shown closely.
      left_out: sentences about what could not be made.
      surfaces: whether to draw the face's surface and to save it for 3D Slicer: seconds a case.

    Returns:
      The page's path.
    """
    results = run_folder.read_json(workdir / "results.json")
    folder, left_out = workdir / "report", list(left_out)
    for old in ("charts", "cases", "slicer"):
        shutil.rmtree(folder / old, ignore_errors=True)
    parts, points = _read_parts(workdir, results)
    first, rows = next(iter(parts.values())), next(iter(points.values()))
    drawn = {}
    body = [sections.tabulate_results(parts)]
    if first["landmarks"]:
        landmarks = charts.render(charts.draw_landmarks({"": first}))
        drawn = sections.draw_errors(parts, points)
        body.append(sections.tabulate_landmarks(first, _read_names(workdir), landmarks))
        body.append(sections.chart_errors(drawn))
        drawn["landmarks"] = landmarks
    growth = _draw_growth(workdir / "measurements.csv")
    if growth:
        drawn["growth"] = growth
    if measured := sections.tabulate_measurements(first, growth):
        body.append(measured)
    closely, scenes = _show_cases(folder, shown, left_out, surfaces)
    if closely:
        body.append(closely)
    body.append(sections.tabulate_cases(rows))
    for name, chart in drawn.items():
        chart.save(folder / "charts" / name)
    text = json.dumps(results["config"], indent=1)
    there = [(name, what) for name, what in FILES.items() if (workdir / name).exists()]
    body.append(sections.say_run(results, text, there))
    if left_out:
        body.insert(1, Section("left-out", "What is left out", _say_left_out(left_out)))
    lead = sections.say_result(first)
    document = page.render_page(f"{workdir.name}: facial landmarks", lead, body, scenes)
    write_atomically(folder / "index.html", document.encode())
    return folder / "index.html"


def _read_parts(workdir: Path, results: dict) -> tuple[dict[str, dict], dict[str, Points]]:
    """(title -> numbers, title -> points) of what there is: test cases, external cases."""
    rows = read_points(workdir / "results.csv")
    if "pooled" not in results:
        return {"test cases": results}, {"test cases": rows}
    title = f"{len(results['folds'])} folds"
    parts, points = {title: results["pooled"]}, {title: rows}
    if "external" in results:
        outside = read_points(workdir / "external.csv")
        together = outside.fold == "ensemble"
        parts["external cases, each model"] = results["external"]
        points["external cases, each model"] = outside.select(~together)
        parts["external cases, ensemble"] = results["external"]["ensemble"]
        points["external cases, ensemble"] = outside.select(together)
    return parts, points


def _read_names(workdir: Path) -> dict[str, str]:
    """label -> name, from the data record of the run or of its first fold."""
    for folder in (workdir, workdir / "fold1"):
        if (folder / "data.json").exists():
            record = run_folder.read_data_record(folder)
            return {one.label: one.name for one in record.landmarks}
    return {}


def _draw_growth(path: Path) -> charts.Chart | None:
    """The growth charts of measurements.csv; None without one, or without ages."""
    if not path.exists():
        return None
    _, rows = read_table(path, required=("case", "measurement", "truth", "prediction"))
    rows = [row for _, row in rows]
    numbers = {
        name: np.array([float(row[name] or "nan") for row in rows])
        for name in ("gestational_age_weeks", "truth", "prediction")
    }
    if not np.isfinite(numbers["gestational_age_weeks"]).any():
        return None
    keys = np.array([row["measurement"] for row in rows])
    age_weeks = numbers["gestational_age_weeks"][keys == keys[0]]  # each case has every key
    panels = [
        (m.name, m.unit, *(numbers[n][keys == m.key] for n in ("truth", "prediction")), m.growth)
        for m in MEASUREMENTS
        if m.key in keys
    ]
    return charts.render(charts.draw_growth(age_weeks, panels))


def _show_cases(
    folder: Path, shown: Sequence[ShownCase], left_out: list[str], surfaces: bool
) -> tuple[Section | None, list[dict]]:
    """The cases that are shown closely, and their scenes; writes pictures and Slicer folders."""
    if not shown:
        return None, []
    what = "Pictures of the face's surface, and the surface in the scenes for 3D Slicer"
    if not surfaces:
        left_out.append(f"{what}: config.report.surfaces is off; --mode=report makes them.")
    elif not surface.have_pyvista():
        surfaces = False
        left_out.append(f"{what}: they need PyVista ({surface.INSTALL}), then --mode=report.")
    body, scenes = [], []
    for number, case in enumerate(shown):
        png = pictures.to_png(pictures.draw_landmark(case))
        write_atomically(folder / "cases" / f"{case.name}-{case.labels[case.landmark]}.png", png)
        said = (
            f"{case.title}: {case.name}. Slices through {case.labels[case.landmark]}, its worst "
            "visible landmark."
        )
        body.append(f"<h3>{escape(case.title)}: {escape(case.name)}</h3>")
        body.append(page.figure(page.picture(png, said), said))
        scenes.append(_make_scene(case))
        view = f'<figure class="face3d" data-scene="{number}"></figure>'
        mesh = _extract_surface(case, left_out) if surfaces else None
        if mesh is not None:
            view += _render(folder, case, mesh)
        body.append(view)
        _write_slicer(folder / "slicer" / case.name, case, mesh, left_out)
    return Section("cases", "Worst and median cases", "".join(body)), scenes


def _make_scene(case: ShownCase) -> dict:
    return scene.make_scene(
        f"{case.name}, {case.title}",
        case.volume,
        case.spacing_mm,
        list(case.labels),
        truth_vox=case.points_vox,
        found_vox=case.found_vox,
        visible=case.visible,
        confidence=case.confidence,
    )


def _extract_surface(case: ShownCase, left_out: list[str]):
    smooth_mm = case.spacing_mm
    threshold = surface.find_threshold(case.volume, case.affine, smooth_mm)
    try:
        return surface.extract_surface(case.volume, case.affine, threshold, smooth_mm)
    except ValueError as error:
        left_out.append(f"The surface of {case.name}: {error}.")
        return None


def _render(folder: Path, case: ShownCase, mesh) -> str:
    path = folder / "cases" / f"{case.name}-surface.png"
    surface.render_face(
        path,
        mesh,
        case.to_world(case.points_vox),
        case.to_world(case.found_vox),
        case.labels,
        case.visible,
    )
    said = f"{case.name}: the face's surface, truth and prediction."
    return page.figure(page.picture(path.read_bytes(), said), said)


def _write_slicer(folder: Path, case: ShownCase, mesh, left_out: list[str]) -> None:
    try:
        volume = read_volume(case.volume_path, trust_missing_affine=True)
    except InputError as error:
        left_out.append(f"The scene for 3D Slicer of {case.name}: {error.problems[0]}.")
        return
    truth, found = (
        dict(zip(case.labels, case.to_world(points), strict=True))
        for points in (case.points_vox, case.found_vox)
    )
    model = None
    if mesh is not None:
        model = folder / "face.vtk"
        surface.write_surface(model, mesh)
    write_scene(
        folder,
        case.name,
        volume,
        truth=truth,
        found=found,
        confidence=dict(zip(case.labels, map(float, case.confidence), strict=True)),
        hidden=[label for label, v in zip(case.labels, case.visible, strict=True) if not v],
        model=model,
    )


def _say_left_out(left_out: Sequence[str]) -> str:
    return "".join(f'<p class="left-out">{escape(sentence)}</p>' for sentence in left_out)
