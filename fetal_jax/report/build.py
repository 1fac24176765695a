"""The report of a run, of a cross-validation or of a comparison: FOLDER/report/index.html.

Its numbers are read from the folder's results.json and results.csv. Beside the page lie its charts
and pictures for a paper, and a folder for 3D Slicer for each case that is shown closely.
"""

import json
import shutil
from collections.abc import Sequence
from html import escape
from pathlib import Path

from fetal_jax.errors import InputError
from fetal_jax.io.files import write_atomically
from fetal_jax.io.slicer_scene import write_scene
from fetal_jax.io.volumes import read_volume
from fetal_jax.report import captions, page, pictures, region, scene, sections, surface
from fetal_jax.report.cases import ShownCase
from fetal_jax.report.charts import Chart
from fetal_jax.report.page import Section
from fetal_jax.runs import folder as run_folder
from fetal_jax.runs import second_look
from fetal_jax.runs.alignment import ALIGNMENT_JSON
from fetal_jax.runs.measurement_table import read_measurement_rows
from fetal_jax.runs.results import EXTERNAL, TEST, PartResults, read_parts, read_results
from fetal_jax.runs.summary import ENSEMBLE
from fetal_jax.runs.tested_doubts import describe_tested

FILES = {
    "card.md": "what the model finds, how well, and what it must not be used for",
    "results.json": "every number on this page",
    "results.csv": "each point: truth, prediction, error, confidence, radius",
    "measurements.csv": "each measurement of each case",
    "alignment.csv": "the mean error of each scan, turned and shifted",
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
    results = read_results(workdir)
    folder, left_out = workdir / "report", list(left_out)
    (folder / "index.html").unlink(missing_ok=True)  # written last: it says that all is there
    for old in ("charts", "cases", "slicer"):
        shutil.rmtree(folder / old, ignore_errors=True)
    parts = _name_parts(results, read_parts(workdir, results))
    numbers = {title: part.numbers for title, part in parts.items()}
    points = {title: part.points for title, part in parts.items()}
    first = next(iter(parts.values()))
    body, drawn = [sections.tabulate_results(numbers)], {}
    if stages := first.numbers.get("stages"):
        poses = results["config"]["aligned"].get("poses", 1)
        table = sections.tabulate_stages(
            stages, frame_share=second_look.LEAST_AGREEING, poses=poses
        )
        body.append(table)
    if first.numbers["landmarks"]:
        drawn = captions.draw_errors(numbers, points)
        errors = sections.render_charts(drawn)
        note = f"n = {first.numbers['landmarks']} visible points"
        drawn["landmarks"] = captions.draw_landmarks({"": first.numbers}, note)
        names = _read_names(workdir)
        body.append(sections.tabulate_landmarks(first.numbers, names, drawn["landmarks"]))
        body.append(Section("charts", "Errors", errors))
    section, coverage = region.show_region(numbers)
    if section:
        body.append(section)
    if coverage:
        drawn["region"] = coverage
    seen = first.numbers.get("visibility")
    if seen:
        drawn["visibility"] = captions.draw_visibility(seen["bins"])
        body.append(sections.tabulate_visibility(first.numbers, drawn["visibility"]))
    growth = _draw_growth(workdir / "measurements.csv")
    if growth:
        drawn["growth"] = growth
    if measured := sections.tabulate_measurements(first.numbers, growth):
        body.append(measured)
    if (workdir / ALIGNMENT_JSON).exists():
        numbers_moved = run_folder.read_json(workdir / ALIGNMENT_JSON)
        drawn["alignment"] = captions.draw_alignment(numbers_moved)
        body.append(sections.tabulate_alignment(numbers_moved, drawn["alignment"]))
    closely, scenes = _show_cases(folder, shown, left_out, surfaces)
    if closely:
        body.append(closely)
    wrong = describe_tested(workdir, first.points, results["config"])
    body.append(sections.tabulate_doubts(wrong, first.points))
    body.append(sections.tabulate_cases(first.points))
    for name, chart in drawn.items():
        chart.save(folder / "charts" / name)
    text = json.dumps(results["config"], indent=1)
    there = [(name, what) for name, what in FILES.items() if (workdir / name).exists()]
    body.append(sections.render_run(results, text, there))
    if left_out:
        body.insert(1, Section("left-out", "What is left out", _render_left_out(left_out)))
    lead = sections.render_result(first.numbers)
    document = page.render_page(f"{workdir.name}: facial landmarks", lead, body, scenes)
    write_atomically(folder / "index.html", document.encode())
    return folder / "index.html"


def _name_parts(results: dict, parts: dict[str, PartResults]) -> dict[str, PartResults]:
    """The parts by their titles on the page."""
    titles = {
        TEST: f"{len(results['folds'])} folds" if "folds" in results else "test cases",
        EXTERNAL: "external cases, each model",
        ENSEMBLE: "external cases, ensemble",
    }
    return {titles[name]: part for name, part in parts.items()}


def _read_names(workdir: Path) -> dict[str, str]:
    """label -> name, from the data record of the run or of its first fold."""
    for folder in (workdir, workdir / "fold1"):
        if (folder / "data.json").exists():
            record = run_folder.read_data_record(folder)
            return {one.label: one.name for one in record.landmarks}
    return {}


def _draw_growth(path: Path) -> Chart | None:
    return captions.draw_growth(read_measurement_rows(path)) if path.exists() else None


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
        body.append(page.render_figure(page.render_picture(png, said), said))
        scenes.append(_make_scene(case))
        view = f'<figure class="face3d" data-scene="{number}"></figure>'
        mesh = _extract_surface(case, left_out) if surfaces else None
        if mesh is not None:
            view += _render_surface(folder, case, mesh)
        body.append(view)
        _write_slicer(folder / "slicer" / case.name, case, mesh, left_out)
    return Section("cases", "Worst and median cases", "".join(body)), scenes


def _make_scene(case: ShownCase) -> dict:
    return scene.make_viewer_scene(
        f"{case.name}, {case.title}",
        case.volume,
        case.spacing_mm,
        list(case.labels),
        truth_vox=case.points_vox,
        predicted_vox=case.predicted_vox,
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


def _render_surface(folder: Path, case: ShownCase, mesh) -> str:
    path = folder / "cases" / f"{case.name}-surface.png"
    surface.draw_surface(
        path,
        mesh,
        case.to_world(case.points_vox),
        case.to_world(case.predicted_vox),
        case.labels,
        case.visible,
    )
    said = f"{case.name}: the face's surface, truth and prediction."
    return page.render_figure(page.render_picture(path.read_bytes(), said), said)


def _write_slicer(folder: Path, case: ShownCase, mesh, left_out: list[str]) -> None:
    try:
        volume = read_volume(case.volume_path, trust_missing_affine=True)
    except InputError as error:
        left_out.append(f"The scene for 3D Slicer of {case.name}: {error.problems[0]}.")
        return
    truth, predicted = (
        dict(zip(case.labels, case.to_world(points), strict=True))
        for points in (case.points_vox, case.predicted_vox)
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
        predicted=predicted,
        confidence=dict(zip(case.labels, map(float, case.confidence), strict=True)),
        radius_mm=dict(zip(case.labels, map(float, case.radius_mm), strict=True)),
        hidden=[label for label, v in zip(case.labels, case.visible, strict=True) if not v],
        model=model,
    )


def _render_left_out(left_out: Sequence[str]) -> str:
    return "".join(f'<p class="left-out">{escape(sentence)}</p>' for sentence in left_out)
