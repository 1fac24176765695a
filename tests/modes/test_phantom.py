"""`--mode=phantom`: the config's cohort into a folder; the simulator has tests of its own."""

import pytest
from noise_runs import make_config

from fetal_jax.data import phantom_files
from fetal_jax.modes import phantom


def test_the_cohort_of_the_config_is_written(tmp_path, capsys, monkeypatch):
    asked = {}

    def write_cohort(root, *, progress, **settings):
        asked.update(settings, root=root)
        for done in range(settings["cases"]):
            progress(done + 1, settings["cases"])
        (root / "volumes").mkdir(parents=True)
        (root / "volumes" / "a.nii").write_bytes(bytes(3 * 2**20))

    monkeypatch.setattr(phantom_files, "write_cohort", write_cohort)
    changes = {"phantom.cases": 3, "phantom.seed": 5, "phantom.annotators": 2}
    phantom.run_phantom(make_config("", **changes), tmp_path / "out")
    assert asked == dict(
        root=tmp_path / "out", cases=3, seed=5, spacing_mm=pytest.approx(1.0), annotators=2
    )
    printed = capsys.readouterr().out
    assert f"3 cases in {tmp_path / 'out'}, 3 MiB, 0:00" in printed
    assert f"--config.data.root={tmp_path / 'out'} --mode=check" in printed
