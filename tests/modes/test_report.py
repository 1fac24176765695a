"""`--mode=report` makes the same page again."""

import json
import shutil

import pytest
from noise_runs import read_results

from fetal_jax.errors import InputError
from fetal_jax.modes import report as rebuild
from fetal_jax.report import surface


def test_a_fold_has_a_page_when_it_is_asked_for(noise_crossval, tmp_path, capsys, monkeypatch):
    """The same page each time, whatever the config says of pages at the end of a run."""
    folder = tmp_path / "emd-crossval"
    shutil.copytree(noise_crossval, folder)
    assert not (folder / "fold1" / "report").exists()
    monkeypatch.setattr(surface, "have_pyvista", lambda: False)
    page = folder / "fold1" / "report" / "index.html"
    pages = []
    for _ in range(2):
        rebuild.run_report(folder / "fold1")
        pages.append(page.read_text())
    d_mean = read_results(folder / "fold1")["d_mean_mm"]
    assert f'id="d_mean_mm">{d_mean:.2f}<' in pages[0] and pages[0] == pages[1]
    assert f"open {page}" in capsys.readouterr().out


def test_a_run_of_an_older_version_is_one_line(noise_crossval, tmp_path):
    folder = tmp_path / "fold1"
    shutil.copytree(noise_crossval / "fold1", folder)
    config = json.loads((folder / "config.json").read_text())
    del config["evaluation"]["min_confidence"], config["report"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="config.evaluation.min_confidence: expected a proba") as e:
        rebuild.run_report(folder)
    assert len(e.value.problems) == 3 and "got none, as in an older run" in e.value.problems[0]


def test_what_is_not_finished_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a finished run, with results.json, got none"):
        rebuild.run_report(tmp_path)
