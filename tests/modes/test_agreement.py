"""`--mode=agreement` from readings to files."""

import numpy as np
import pytest
from face_runs import make_config as make_face_config
from noise_runs import make_config, read_rows

from fetal_jax.data.dataset import read_dataset
from fetal_jax.errors import InputError
from fetal_jax.io.markups import read_landmarks, write_landmarks
from fetal_jax.modes.agreement import run_agreement
from fetal_jax.runs.folder import read_json


def test_a_cross_validation_beside_two_observers(noise_crossval, tmp_path, capsys):
    run_agreement(None, noise_crossval, None, tmp_path)
    numbers = read_json(tmp_path / "agreement.json")
    assert numbers["annotators"] == ["ann", "bob"] and numbers["between"]["n"] == 33
    assert numbers["program"]["cases"] == 9 and numbers["difference"]["n"] == 27
    # each is one sd of noise from the truth along each axis, the program as far as noise tells
    assert numbers["between"]["d_mean_mm"] == pytest.approx((8 / np.pi) ** 0.5 * 2**0.5, abs=0.5)
    assert numbers["difference"]["d_mean_ci_mm"][0] > 2.0
    printed = capsys.readouterr().out
    assert "2 observers (ann, bob), 11 cases of 10 subjects" in printed
    assert "The program is farther from the observers than they are" in printed
    page = (tmp_path / "report" / "index.html").read_text()
    assert "The program is farther from the observers" in page
    assert "nothing to measure" in page and not (tmp_path / "measurements.csv").exists()
    rows = read_rows(tmp_path / "distances.csv")
    assert len(rows) == 33 + 2 * 27
    mean = np.mean([float(row["distance_mm"]) for row in rows if row["observer"] == "ann"])
    assert mean == pytest.approx(numbers["between"]["d_mean_mm"], abs=1e-3)


@pytest.fixture
def read_faces(heads_root, tmp_path):
    """Landmarks alone: two observers of every head, one of whom read the first five again."""
    rng, root = np.random.default_rng(0), tmp_path / "data"
    for n, case in enumerate(read_dataset(heads_root).cases):
        truth = read_landmarks(case.landmarks_path)
        for name in ("ann", "bob") + ("bob-2",) * (n < 5):
            read = {label: point + rng.normal(0, 0.5, 3) for label, point in truth.items()}
            if name == "ann" and n == 0:
                del read["prn"]
            write_landmarks(root / "landmarks" / f"{case.name}.{name}.mrk.json", read)
    return root


def test_faces_read_twice(read_faces, heads_root, tmp_path):
    files = tmp_path / "found"
    for case in read_dataset(heads_root).cases:
        write_landmarks(files / f"{case.name}.mrk.json", read_landmarks(case.landmarks_path))
    run_agreement(make_face_config(read_faces), None, files, tmp_path / "out")
    numbers = read_json(tmp_path / "out" / "agreement.json")
    unit = (8 / np.pi) ** 0.5 * 0.5
    assert numbers["between"]["n"] == 189 and numbers["within"]["n"] == 95
    assert numbers["between"]["d_mean_mm"] == pytest.approx(2**0.5 * unit, abs=0.1)
    assert numbers["within"]["d_mean_mm"] == pytest.approx(2**0.5 * unit, abs=0.15)
    assert numbers["difference"]["d_mean_ci_mm"][1] < 0  # these files are the truth
    assert numbers["presence"]["prn"]["some"] == 1
    measured = numbers["measurements"]["nasion_pogonion"]
    assert measured["between"]["form"] == "ICC(2,1)" and measured["between"]["value"] > 0.9
    assert measured["within"]["bob"]["n"] == 5 and len(measured["pairs"]) == 3
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    for part in ("is nearer to the observers", "Whether it was trained on these cases", "ICC(2,1)"):
        assert part in page
    for name in ("landmarks.png", "differences.svg", "measurements.csv"):
        assert (tmp_path / "out" / name).stat().st_size > 1000


def test_one_observer_alone(read_faces, tmp_path, capsys):
    for path in (read_faces / "landmarks").glob("*.ann.mrk.json"):
        path.unlink()
    run_agreement(make_face_config(read_faces), None, None, tmp_path / "out")
    printed = capsys.readouterr().out
    assert "1 observers (bob), 10 cases: no point that two of them set." in printed
    assert "Two readings by one observer (bob) are" in printed
    numbers = read_json(tmp_path / "out" / "agreement.json")
    assert numbers["between"]["n"] == 0 and numbers["between"]["d_mean_mm"] is None
    assert numbers["within"]["n"] == 95 and numbers["farthest"] == []
    mouth = numbers["measurements"]["mouth_width"]
    assert mouth["between"] is None and mouth["within"]["bob"]["form"] == "ICC(1,1)"
    assert not (tmp_path / "out" / "differences.png").exists()


def test_what_is_refused(noise_root, heads_root, tmp_path):
    with pytest.raises(InputError, match="expected --config, whose data set"):
        run_agreement(None, None, None, tmp_path)
    with pytest.raises(InputError, match="expected two readings of a case"):
        run_agreement(make_face_config(heads_root), None, None, tmp_path)
    with pytest.raises(InputError, match="expected a finished run"):
        run_agreement(make_config(noise_root), tmp_path, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()
