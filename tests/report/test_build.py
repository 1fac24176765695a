"""Reports opened in a browser: a run's, a cross-validation's and a comparison's."""

import re
import shutil

import numpy as np
import pytest
from browser import open_page, start_browser
from face_runs import make_config, write_cohort
from noise_runs import read_results, read_rows

from configs import emd
from fetal_jax.io.markups import read_landmarks
from fetal_jax.io.volumes import read_volume
from fetal_jax.modes import compare, crossval, report
from fetal_jax.report import build, cases, page, surface
from fetal_jax.runs import alignment, finished, folder, results, summary
from fetal_jax.runs.alignment import KINDS, Moved
from fetal_jax.runs.predictions import make_predictions, read_predictions
from fetal_jax.runs.results import save_results


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    """Two folds of heads, and the second site outside them."""
    root = tmp_path_factory.mktemp("heads")
    write_cohort(root)
    workdir = tmp_path_factory.mktemp("runs") / "emd-crossval"
    crossval.run_crossval(make_config(root), workdir)
    return workdir


@pytest.fixture(scope="module")
def shown(folds):
    """Two of the cases that the first fold's page shows."""
    config, record = finished.open_config(folds), folder.read_data_record(folds / "fold1")
    tested = finished.open_tested(config, folds / "fold1", record)
    predictions = read_predictions(folds / "fold1" / "predictions.npz")
    return report.show_cases(config, record.labels, [(folds / "fold1", tested, predictions)])[:2]


def write_alignment(workdir):
    """As `--mode=alignment` leaves it: two scans of three landmarks, 1 mm more at each amount."""
    moved = {
        kind: Moved(
            np.ones((len(amounts), 2, 3)) * (1 + np.arange(len(amounts)))[:, None, None],
            np.ones((len(amounts), 2, 3), bool),
            np.ones((2, 3), bool),
        )
        for kind, (_, amounts) in KINDS.items()
    }
    numbers = alignment.summarise_alignment(moved, ["s0", "s1"])
    folder.write_json(workdir / "alignment.json", numbers)
    alignment.write_moved(workdir / "alignment.csv", ["c0", "c1"], moved)


@pytest.fixture(scope="module")
def run(folds, shown, tmp_path_factory):
    """The first fold as a run of its own, with its page."""
    workdir = tmp_path_factory.mktemp("runs") / "emd"
    shutil.copytree(folds / "fold1", workdir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surface, "PANEL_PIXELS", 300)  # of 900: a third of the seconds
        write_alignment(workdir)
        report.write_run_card(workdir, workdir / report.CARD)
        build.write_report(workdir, shown)
    return workdir


@pytest.fixture(scope="module")
def comparison(run, folds, tmp_path_factory):
    output = tmp_path_factory.mktemp("comparison")
    compare.run_compare([str(run), str(folds)], output)
    return output


@pytest.fixture(scope="module")
def browser(run, folds, comparison):
    with start_browser() as browser:
        yield browser


def read_table(browser_page, anchor):
    """[(cells of a row)] of a table, as a reader sees them."""
    rows = browser_page.locator(f"#{anchor} tbody tr").all()
    return [row.locator("th, td").all_inner_texts() for row in rows]


def check_result_row(cells, result):
    assert cells[1:3] == [str(result["cases"]), str(result["landmarks"])]
    assert cells[3] == page.format_interval(result["d_mean_mm"], result["d_mean_ci_mm"])
    assert cells[4] == f"{result['argmax_d_mean_mm']:.2f}"
    assert cells[6] == f"{result['d_median_mm']:.2f}"
    intervals = result["success_rate_ci"]
    assert cells[8:] == [
        page.format_interval(100 * share, [100 * end for end in intervals[radius]], digits=0)
        for radius, share in result["success_rate"].items()
    ]


def check_views(browser_page, number):
    """Each 3D view draws: its pixels are not all alike."""
    browser_page.wait_for_function("window.faceViewer")
    for i in range(number):
        figure = browser_page.locator(f'figure.face3d[data-scene="{i}"]')
        figure.scroll_into_view_if_needed()
        browser_page.wait_for_timeout(300)
        spread = figure.locator("canvas").first.evaluate(
            """canvas => {
              const flat = document.createElement("canvas");
              [flat.width, flat.height] = [canvas.width, canvas.height];
              const pen = flat.getContext("2d");
              pen.drawImage(canvas, 0, 0);
              const pixels = pen.getImageData(0, 0, flat.width, flat.height).data;
              let low = 255, high = 0;
              for (let i = 0; i < pixels.length; i += 4) {
                low = Math.min(low, pixels[i]); high = Math.max(high, pixels[i]);
              }
              return high - low;
            }"""
        )
        assert spread > 60


def test_a_run_s_page(browser, run):
    results = read_results(run)
    with open_page(browser, run / "report" / "index.html", width=1200) as (browser_page, problems):
        assert browser_page.inner_text("#d_mean_mm") == f"{results['d_mean_mm']:.2f}"
        check_result_row(read_table(browser_page, "results")[0], results)
        for cells in read_table(browser_page, "landmarks-table"):
            one = results["per_landmark"][cells[0]]
            assert cells[3] == str(one["n"])
            assert cells[4] == page.format_interval(one["d_mean_mm"], one["d_mean_ci_mm"])
        measured = {m["name"]: m for m in results["measurements"].values()}
        rows = read_table(browser_page, "measurements-table")
        assert {cells[0] for cells in rows} == measured.keys() and len(rows) == 28
        for cells in rows:
            assert cells[2:4] == [str(measured[cells[0]][k]) for k in ("n", "gaps")]
        rows_of_cases = {c[0]: c for c in read_table(browser_page, "cases-table")}
        errors = {}
        for row in read_rows(run / "results.csv"):
            if row["visible"] == "1":
                errors.setdefault(row["case"], []).append(float(row["error_mm"]))
        assert rows_of_cases.keys() == errors.keys() and len(errors) == results["cases"]
        for case, values in errors.items():
            assert float(rows_of_cases[case][5]) == pytest.approx(np.mean(values), abs=0.006)
        shown = browser_page.locator("figure.face3d").count()
        assert shown == browser_page.locator("#cases h3").count() >= 2
        check_views(browser_page, shown)
        assert problems == []


def test_tables_are_sorted_by_their_heads(browser, run):
    with open_page(browser, run / "report" / "index.html", width=1200) as (browser_page, problems):
        head = browser_page.locator("#cases-table thead th").nth(5)
        orders = []
        for _ in range(2):
            head.click()
            column = [cells[5] for cells in read_table(browser_page, "cases-table")]
            orders.append([float(c) for c in column if c != "–"])
        assert orders == [sorted(orders[0], reverse=True), sorted(orders[0])]
        assert problems == []


def test_a_cross_validation_s_page(browser, folds):
    results = read_results(folds)
    with open_page(browser, folds / "report" / "index.html", width=1200) as (
        browser_page,
        problems,
    ):
        assert browser_page.inner_text("#d_mean_mm") == f"{results['pooled']['d_mean_mm']:.2f}"
        rows = [r for r in read_table(browser_page, "results") if "completed" not in r[0]]
        parts = [results["pooled"], results["external"], results["external"]["ensemble"]]
        assert [row[0] for row in rows] == [
            "2 folds",
            "external cases, each model",
            "external cases, ensemble",
        ]
        for cells, part in zip(rows, parts, strict=True):
            check_result_row(cells, part)
        check_views(browser_page, browser_page.locator("figure.face3d").count())
        assert problems == []


def test_a_comparison_s_page(browser, run, folds, comparison):
    with open_page(browser, comparison / "report" / "index.html", width=1200) as (
        browser_page,
        problems,
    ):
        rows = read_table(browser_page, "results-test")
        expected = [read_results(run), read_results(folds)["pooled"]]
        for cells, result in zip(rows, expected, strict=True):
            assert cells[1] == page.format_interval(result["d_mean_mm"], result["d_mean_ci_mm"])
        external = read_results(folds)["external"]
        rows = read_table(browser_page, "results-external")
        assert rows[1][1].startswith(f"{external['d_mean_mm']:.2f} (") and rows[0][1] == "-"
        assert browser_page.locator("figure svg").count() >= 6
        assert problems == []


@pytest.mark.parametrize("before", ["", "HTMLCanvasElement.prototype.getContext = () => null"])
def test_a_page_is_complete_in_the_dark_and_without_webgl(browser, run, before):
    with open_page(browser, run / "report" / "index.html", before=before) as (
        browser_page,
        problems,
    ):
        browser_page.emulate_media(color_scheme="dark")
        ground = browser_page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(21, 24, 28)"
        figure = browser_page.locator("figure.face3d").first
        figure.scroll_into_view_if_needed()
        if before:
            assert "WebGL" in figure.inner_text()
        assert browser_page.evaluate("document.documentElement.scrollWidth") <= 600
        assert problems == []


def test_the_files_beside_a_page(run):
    folder_ = run / "report"
    charts = {path.name for path in (folder_ / "charts").iterdir()}
    names = ("ela", "success", "confidence", "ages", "age-groups", "sites", "landmarks", "growth")
    names += ("alignment",)
    assert charts == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    text = (folder_ / "index.html").read_text()
    assert not re.search(r'(src|href)="(?!#|data:|\.\./card\.md")', text) and len(text) < 20e6
    assert all(f"<code>{name}</code>" in text for name in build.FILES)
    program = read_results(run)["program"]
    assert f"fetal_jax {program['version']}" in text and f"JAX {program['jax']}" in text
    scenes = [path.name for path in (folder_ / "slicer").iterdir()]
    assert scenes
    record = folder.read_data_record(run)
    for case in scenes:
        scene = folder_ / "slicer" / case
        predicted = read_landmarks(scene / "prediction.mrk.json")
        saved = read_landmarks(run / "predictions" / f"{case}.mrk.json")
        assert list(predicted) == record.labels
        np.testing.assert_allclose(list(predicted.values()), list(saved.values()), atol=1e-3)
        assert read_volume(scene / f"{case}.nii.gz").voxels.ndim == 3
        assert (scene / f"{case}.mrml").exists()
        if surface.have_pyvista():
            assert (scene / "face.vtk").exists()
            (picture,) = (folder_ / "cases").glob(f"{case}-surface.png")
            assert picture.stat().st_size > 10_000


def test_without_pyvista_the_page_says_what_is_left_out(run, shown, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    numbers = read_results(copy)
    (copy / "measurements.csv").unlink()  # whose charts take seconds
    save_results(copy, numbers)
    monkeypatch.setattr(surface, "have_pyvista", lambda: False)
    build.write_report(copy, shown)
    text = (copy / "report" / "index.html").read_text()
    assert "What is left out" in text and surface.INSTALL.split('"')[1].split(">")[0] in text
    assert "face3d" in text and not list((copy / "report" / "cases").glob("*-surface.png"))
    assert not list((copy / "report" / "slicer").glob("*/face.vtk"))


def test_many_cases_and_landmarks_fit_a_page(make_prepared, tmp_path, monkeypatch):
    """200 cases of 45 landmarks: a page of at most 20 MB, with each case in its table."""
    draw_surface, drawn = surface.draw_surface, []

    def draw_once(path, *args):  # seconds a picture, and all of them as large
        if drawn:
            shutil.copy(drawn[0], path)
        else:
            draw_surface(path, *args)
            drawn.append(path)

    monkeypatch.setattr(surface, "draw_surface", draw_once)
    rng = np.random.default_rng(0)
    n, labels = 200, [f"L{i}" for i in range(45)]
    prepared = make_prepared(rng.uniform(20, 76, (n, 45, 3)), side=8)
    predicted = prepared.points_mm + rng.normal(size=(n, 45, 3))
    local = np.abs(rng.normal(size=(n, 45, 80)))
    confidence = rng.random((n, 45))
    predictions = make_predictions(predicted, predicted, confidence, local, local)
    part = summary.make_part(
        "", prepared, predictions, labels, np.ones((n, 45)), min_confidence=0.5
    )
    numbers = summary.summarise_parts(
        [part], labels, radii_mm=[2.0, 4.0], ela_radii_mm=np.linspace(0.5, 40, 80),
        age_groups_weeks=[24.0], confidence_radius_mm=4.0,
    )  # fmt: skip
    numbers |= {
        "config": emd.get_config().to_dict(),
        "seed": 0,
        "steps": 1,
        "seconds": 1.0,
        "device": "cpu",
    }
    results.write_results(tmp_path, numbers, labels, [part])
    index = np.indices((96, 96, 96)) - 47.5
    head = (np.linalg.norm(index, axis=0) < 40).astype(np.float32)
    shown = [
        cases.ShownCase(
            f"case {i}", f"c{i}", tmp_path / "gone.nii.gz",
            head, np.eye(4), 1.0, tuple(labels),
            prepared.points_vox[i].astype(float), prepared.points_vox[i] + 1.0,
            np.ones(45, bool), np.ones(45), confidence[i], confidence[i], 0, np.zeros((96, 96, 96)),
        )
        for i in range(4)
    ]  # fmt: skip
    path = build.write_report(tmp_path, shown)
    text = path.read_text()
    assert len(text) < 20e6
    # among all cases, and, as each has points of little confidence, among what looks wrong
    assert text.count('<th scope="row">c') == 2 * n and "gone.nii.gz: expected a volume" in text
