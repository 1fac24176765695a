"""What a data set is said to hold, and the files that keep it from being trained on."""

from pathlib import Path
from shutil import copytree

import face_runs
import pytest
from noise_runs import make_config

from fetal_jax.errors import InputError
from fetal_jax.modes import check


@pytest.fixture(scope="module")
def printed(noise_root, tmp_path_factory):
    """The lines of a check."""
    workdir = tmp_path_factory.mktemp("check")
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda *said: lines.append(" ".join(map(str, said))))
        check.run_check(make_config(noise_root), workdir)
    assert [path.name for path in workdir.iterdir()] == ["check.png"]
    return lines


@pytest.mark.parametrize(
    "line",
    [
        "device: 4 cpu devices",
        "sizes: 12 × 12 × 12 voxels",
        "spacings: 2 × 2 × 2 mm",
        "sites: a 9, b 2",
        "gestational ages: 20 to 30 weeks, median 25",
        "landmarks: 3, as label: files that have it (visible in)",
        "  L: 11   R: 11   nose: 11",
        "grid: 8³ at 3 mm, 24 mm wide",
    ],
)
def test_what_is_in_a_data_set(printed, line):
    assert line in printed


def test_what_would_be_done_with_it(printed, noise_root):
    text = "\n".join(printed)
    assert f"data set: {noise_root}, 11 cases of 10 subjects" in text
    assert "note: no landmarks.csv" in text
    assert "warning" not in text
    splits = [line for line in printed if line.startswith(("train:", "validation:", "test:"))]
    assert sum(int(line.split()[1]) for line in splits) == 11
    assert sum(int(line.split()[-2]) for line in splits) == 10
    assert any(line.startswith("training: 4 steps of batch 4, about 0.") for line in printed)
    assert "all 11 cases can be read" in printed[-1]


def test_a_scan_that_trains_and_tests_is_named(noise_root, tmp_path, monkeypatch):
    root = copytree(noise_root, tmp_path / "cohort")
    monkeypatch.setattr(check, "_print_cost", lambda *_: None)  # compiles a step
    config = make_config(root)
    splits = check.split_dataset(config, check.open_dataset(config))
    cases = check.open_dataset(config).cases
    one, other = (cases[splits[name][0]].volume_path for name in ("train", "test"))
    other.write_bytes(one.read_bytes())
    with pytest.raises(InputError, match="each scan in one split, got the same as") as caught:
        check.run_check(config, tmp_path)
    assert str(one) in str(caught.value) and str(other) in str(caught.value)


def test_volumes_that_the_grid_cuts(noise_root, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(check, "_print_cost", lambda *_: None)  # compiles a step
    check.run_check(make_config(noise_root, **{"grid.spacing_mm": 2.8}), tmp_path)
    printed = capsys.readouterr().out
    assert "grid: 8³ at 2.8 mm, 22.4 mm wide" in printed
    assert "warning: the grid cuts 11 volumes, which are larger: c0, c1, c2, " in printed


def test_a_file_that_cannot_be_read_is_named(noise_root, tmp_path):
    root = Path(copytree(noise_root, tmp_path / "data"))
    path = root / "volumes" / "c4.nii.gz"
    path.write_bytes(path.read_bytes()[:-50])
    config = make_config(root, **{"grid.spacing_mm": 3.0})
    with pytest.raises(InputError, match="c4.nii.gz"):
        check.run_check(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("of_landmarks", [False, True])
def test_all_that_cannot_be_read_is_named_at_once(noise_root, tmp_path, of_landmarks):
    """A header, voxels alone, and, before any volume is looked at, a file of landmarks."""
    root = Path(copytree(noise_root, tmp_path / "data"))
    for name, left in (("c4", 100), ("c7", -50)):
        path = root / "volumes" / f"{name}.nii.gz"
        path.write_bytes(path.read_bytes()[:left])
    if of_landmarks:
        (root / "landmarks" / "c1.mrk.json").write_text("[")
    with pytest.raises(InputError) as caught:
        check.run_check(make_config(root), tmp_path / "out")
    named = [Path(line.split(": expected")[0]).name for line in caught.value.problems]
    assert named == ["c1.mrk.json"] * of_landmarks + ["c4.nii.gz", "c7.nii.gz"]


def test_annotations_that_look_wrong_are_in_a_table_and_in_words(
    heads_root, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(check, "_print_cost", lambda *_: None)  # compiles a step
    root, out = copytree(heads_root, tmp_path / "heads"), tmp_path / "out"
    check.run_check(face_runs.make_config(root), out)
    assert "annotations: 190 points in 10 files, 0 look wrong" in capsys.readouterr().out
    path = root / "landmarks" / "c4.mrk.json"
    text = path.read_text()
    path.write_text(text.replace('"exL"', '"?"').replace('"exR"', '"exL"').replace('"?"', '"exR"'))
    check.run_check(face_runs.make_config(root), out)
    printed = capsys.readouterr().out
    assert "annotations: 190 points in 10 files, 1 look wrong" in printed
    assert f"  {path}: ex" in printed and " look exchanged: ex" in printed
    assert "exchanged" in (out / "annotations.csv").read_text()
    path.write_text(text)
    check.run_check(face_runs.make_config(root), out)
    assert sorted(p.name for p in out.iterdir()) == ["check.png"]


def test_the_second_look_is_costed_too(tmp_path_factory, capsys):
    root = tmp_path_factory.mktemp("heads")
    face_runs.write_cohort(root)
    changes = {"aligned.on": True, "aligned.widths": (2,), "aligned.steps": 3}
    check.run_check(face_runs.make_config(root, **changes), root)
    printed = capsys.readouterr().out
    assert "second look: a box of" in printed
    assert "whether a landmark can be seen is learned" in printed
    assert "training: 2 steps of batch 4" in printed and "training: 3 steps of batch 4" in printed
