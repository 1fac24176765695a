"""`--mode=phantom`: the config's cohort into a folder; the simulator has tests of its own."""

import numpy as np
import pytest
from noise_runs import make_config

from fetal_jax.data import phantom_files
from fetal_jax.io.markups import write_landmarks
from fetal_jax.modes import phantom


def test_the_cohort_of_the_config_is_written(tmp_path, capsys, monkeypatch):
    asked = {}

    def write_cohort(root, *, progress, **settings):
        asked.update(settings, root=root)
        for done in range(settings["cases"]):
            progress(done + 1, settings["cases"])
        (root / "volumes").mkdir(parents=True)
        (root / "volumes" / "a.nii").write_bytes(bytes(3 * 2**20))
        (root / "cases.csv").write_text("case,site,visible\na,north,prn\n")
        for folder, off_mm in (("truth", 0.0), ("landmarks", 2.0)):
            points = {"prn": [off_mm, 0, 0], "sn": [0, 0, 0], "n": [0, off_mm, 0]}
            points = {label: np.array(point, float) for label, point in points.items()}
            write_landmarks(root / folder / "a.mrk.json", points)

    monkeypatch.setattr(phantom_files, "write_cohort", write_cohort)
    changes = {"phantom.cases": 3, "phantom.seed": 5, "phantom.annotators": 2}
    phantom.run_phantom(make_config("", **changes), tmp_path / "out")
    assert asked == dict(
        root=tmp_path / "out",
        cases=3,
        seed=5,
        test_seed=1,
        spacing_mm=pytest.approx(1.0),
        annotators=2,
        face="healthy",
    )
    printed = capsys.readouterr().out
    assert f"3 cases in {tmp_path / 'out'}, 3 MiB, 0:00" in printed
    assert f"--config.data.root={tmp_path / 'out'} --mode=check" in printed
    # prn is 2 mm off, sn 0 and n 2, both hidden
    assert "north: annotated 2.00 mm from the true points, 1.00 mm where they cannot" in printed
