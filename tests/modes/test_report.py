"""`--mode=report` makes the same page again, with the cases that matter."""

import shutil

import pytest
from noise_runs import make_config, read_results

from fetal_jax.errors import InputError
from fetal_jax.modes import report
from fetal_jax.report import surface
from fetal_jax.runs.folder import read_json, write_json
from fetal_jax.runs.predictions import read_predictions


def test_a_fold_has_a_page_when_it_is_asked_for(noise_crossval, tmp_path, capsys, monkeypatch):
    """The same page each time, whatever the config says of pages at the end of a run."""
    folder = tmp_path / "emd-crossval"
    shutil.copytree(noise_crossval, folder)
    assert not (folder / "fold1" / "report").exists()
    monkeypatch.setattr(surface, "have_pyvista", lambda: False)
    page = folder / "fold1" / "report" / "index.html"
    pages = []
    for _ in range(2):
        report.run_report(folder / "fold1")
        pages.append(page.read_text())
    d_mean = read_results(folder / "fold1")["d_mean_mm"]
    assert f'id="d_mean_mm">{d_mean:.2f}<' in pages[0] and pages[0] == pages[1]
    assert "PyVista" in pages[0]  # its surfaces were asked for
    assert f"open {page}" in capsys.readouterr().out


def test_a_page_at_the_end_is_written_where_it_is_wanted(tmp_path, monkeypatch):
    written, cards = [], []
    monkeypatch.setattr(report, "write_run_card", lambda *paths: cards.append(paths))
    monkeypatch.setattr(
        report.build, "write_report", lambda *args, **kw: written.append((args, kw))
    )
    report.report_run(make_config("", **{"report.on": False}), tmp_path, [], [])
    assert written == [] and cards == [(tmp_path, tmp_path / "card.md")]
    changes = {"report.on": True, "report.surfaces": False}
    report.report_run(make_config("", **changes), tmp_path, [], [], ["Pictures: gone."])
    assert written == [((tmp_path, [], ["Pictures: gone."]), {"surfaces": False})]


def test_the_shown_cases_are_those_of_the_folds(noise_crossval):
    """Each with the prediction and the map of its own fold's model."""
    config = report.finished.open_config(noise_crossval)
    parts = []
    for folder in report.finished.find_runs(noise_crossval):
        record = report.run_folder.read_data_record(folder)
        tested = report.finished.open_tested(config, folder, record)
        parts.append((folder, tested, read_predictions(folder / "predictions.npz")))
    shown = report.show_cases(config, record.labels, parts)
    worst, median = shown[0], shown[-1]
    assert worst.title == "worst case" and "median" in median.title
    means = sorted(case.error_mm[case.visible].mean() for case in shown)
    assert worst.error_mm[worst.visible].mean() == means[-1]
    for case in shown:
        (place,) = [
            (predictions, n)
            for _, tested, predictions in parts
            for n, one in enumerate(tested.cases)
            if one.name == case.name
        ]
        predictions, n = place
        expected = predictions.points_mm[n]
        assert case.to_world(case.predicted_vox) == pytest.approx(expected, abs=1e-3)
        assert case.map.shape == case.volume.shape and case.map.max() == pytest.approx(1.0)
    assert report.show_cases(config, record.labels, []) == []


def test_an_older_run_without_its_data_has_a_page_without_pictures(
    noise_crossval, tmp_path, capsys
):
    """Nor does its results.json say which program made it."""
    folder = tmp_path / "fold1"
    shutil.copytree(noise_crossval / "fold1", folder)
    config = read_json(folder / "config.json")
    config["data"]["root"] = str(tmp_path / "gone")
    write_json(folder / "config.json", config)
    results = read_results(folder)
    assert results.pop("program")["jaxlib"]
    write_json(folder / "results.json", results)
    report.run_report(folder)
    assert "note: without pictures of cases" in capsys.readouterr().out
    text = (folder / "report" / "index.html").read_text()
    assert "Pictures of cases:" in text and "face3d" not in text.split("</style>")[1]
    assert f"{results['d_mean_mm']:.2f}" in text and "jaxlib" not in text


def test_a_run_of_an_older_version_is_one_line(noise_crossval, tmp_path):
    folder = tmp_path / "fold1"
    shutil.copytree(noise_crossval / "fold1", folder)
    config = read_json(folder / "config.json")
    del config["evaluation"]["min_confidence"], config["report"]
    write_json(folder / "config.json", config)
    words = (
        "config.json: .* none named evaluation.min_confidence, report.on, report.surfaces: begin"
    )
    with pytest.raises(InputError, match=words) as caught:
        report.run_report(folder)
    assert len(caught.value.problems) == 1


def test_predictions_of_an_older_version_are_left_out_with_advice(
    noise_crossval, rename_arrays, tmp_path, capsys, monkeypatch
):
    folder = tmp_path / "fold1"
    shutil.copytree(noise_crossval / "fold1", folder)
    rename_arrays(folder / "predictions.npz")
    written = []
    monkeypatch.setattr(report.build, "write_report", lambda *args, **_: written.append(args))
    report.run_report(folder)
    ((_, shown, (left_out,)),) = written
    assert list(shown) == []
    for said in (left_out, capsys.readouterr().out):
        assert f"--mode=evaluate --workdir={folder} predicts an older run anew" in said


def test_the_last_line_says_which_file_to_open(tmp_path, capsys):
    report.print_report(tmp_path)
    assert f"--mode=report --workdir={tmp_path} writes a page" in capsys.readouterr().out
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").write_text("")
    report.print_report(tmp_path)
    assert f"open {tmp_path}/report/index.html" in capsys.readouterr().out


def test_what_is_not_finished_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a finished run, with results.json, got none"):
        report.run_report(tmp_path)
