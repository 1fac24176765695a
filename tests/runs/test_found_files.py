"""Landmark files of predictions: what a person made of them is not replaced."""

import csv

import numpy as np
import pytest

from fetal_jax.errors import InputError
from fetal_jax.io.markups import read_landmarks, write_landmarks
from fetal_jax.runs import found_files
from fetal_jax.runs.found_files import find_changed, read_written, tidy_table

LABELS = ["L", "R", "nose"]
CASES = ["c0", "c1", "c2"]


def write(folder, found, **changes):
    settings = {"cases": CASES, "labels": LABELS, "min_visible": 0.5} | changes
    return found_files.write_landmark_files(folder, predictions=found, **settings)


def read_table(folder):
    with (folder / "predicted.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_landmark_file_a_case(tmp_path, make_predictions, predicted_mm):
    confidence = np.linspace(0.1, 0.9, 9).reshape(3, 3)
    assert write(tmp_path, make_predictions(confidence)) == []
    assert sorted(p.name for p in tmp_path.glob("c*")) == [f"c{i}.mrk.json" for i in range(3)]
    for i in range(3):
        path = tmp_path / f"c{i}.mrk.json"
        points = read_landmarks(path)
        assert list(points) == LABELS
        np.testing.assert_allclose(list(points.values()), predicted_mm[i], atol=1e-9)
        assert f'"confidence {confidence[i, 1]:.3f}"' in path.read_text()
    rows = read_table(tmp_path)
    assert [(row["file"], row["label"]) for row in rows] == [
        (f"{case}.mrk.json", label) for case in CASES for label in LABELS
    ]
    numbers = [[float(row[axis]) for axis in "xyz"] for row in rows]
    np.testing.assert_allclose(numbers, predicted_mm.reshape(-1, 3), atol=1e-4)
    assert rows[4]["confidence"] == f"{confidence[1, 1]:.4f}" and rows[4]["chance_visible"] == ""


@pytest.mark.parametrize("suffix", [".mrk.json", ".fcsv"])
def test_what_counts_as_hidden_is_undefined_and_where_it_is_expected_is_said(
    suffix, tmp_path, make_predictions, predicted_mm
):
    found = make_predictions()
    chance = np.full((3, 3), 0.9)
    chance[1, 2] = 0.123
    found = found._replace(visibility=chance, completed_mm=np.full((3, 3, 3), 7.25))
    write(tmp_path, found, suffix=suffix)
    assert all(np.isfinite(p).all() for p in read_landmarks(tmp_path / f"c0{suffix}").values())
    path = tmp_path / f"c1{suffix}"
    points = read_landmarks(path)
    np.testing.assert_allclose(points[LABELS[1]], predicted_mm[1, 1], atol=1e-6)
    assert "confidence 0.500, visible 0.900" in path.read_text()
    assert list(points) == LABELS and np.isnan(points[LABELS[2]]).all()
    said = "not visible (chance 0.123); expected at RAS 7.25, 7.25, 7.25 mm"
    assert said in path.read_text()
    row = read_table(tmp_path)[5]  # where it was found, all the same
    assert row["chance_visible"] == "0.1230" and row["expected_x"] == "7.2500"
    assert float(row["x"]) == pytest.approx(predicted_mm[1, 2, 0], abs=1e-4)


def test_what_somebody_corrected_or_made_stays(tmp_path, make_predictions):
    """Their files, by their bytes; the others are as the later prediction has them."""
    write_landmarks(tmp_path / "c2.mrk.json", {"L": np.ones(3)})  # an annotator's own
    found = make_predictions()
    assert write(tmp_path, found) == [tmp_path / "c2.mrk.json"]
    theirs = tmp_path / "c1.mrk.json"
    theirs.write_text(theirs.read_text().replace("\n", " \n"))
    before = [(tmp_path / f"c{i}.mrk.json").read_bytes() for i in range(3)]
    later = found._replace(points_mm=found.points_mm + 5.0)
    assert write(tmp_path, later) == [theirs, tmp_path / "c2.mrk.json"]
    after = [(tmp_path / f"c{i}.mrk.json").read_bytes() for i in range(3)]
    assert after[0] != before[0] and after[1:] == before[1:]
    assert write(tmp_path, later, overwrite=True) == []
    np.testing.assert_allclose(read_landmarks(theirs)["L"], later.points_mm[1, 0])
    tidy_table(tmp_path)
    assert len(read_table(tmp_path)) == 9 and find_changed([theirs]) == []


def test_a_line_that_was_cut_off_costs_only_itself(tmp_path, make_predictions):
    """As after a kill: the file of that case is then taken for somebody's."""
    write(tmp_path, make_predictions(), cases=CASES[:2])
    table = tmp_path / "predicted.csv"
    table.write_bytes(table.read_bytes()[:-20])
    assert len(read_written(tmp_path)) == 2  # two of its rows are whole
    write(tmp_path, make_predictions(), cases=CASES[2:])
    tidy_table(tmp_path)
    assert [row["file"][:2] for row in read_table(tmp_path)] == ["c0"] * 3 + ["c1"] * 2 + ["c2"] * 3


@pytest.mark.parametrize("text", ["case,x\n1,2\n", "\xff\xfe\n", 'file,"sha\n'])
def test_a_table_of_that_name_that_is_none(tmp_path, make_predictions, text):
    (tmp_path / "predicted.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="predicted.csv: expected the table of what was predicted"):
        write(tmp_path, make_predictions())
    assert [path.name for path in tmp_path.iterdir()] == ["predicted.csv"]


@pytest.mark.parametrize(
    "content", [b"my own notes without an end", b"case,x\rc0,1\rc1,2\r", b"case,x\nc0,1\n"]
)
def test_a_table_of_somebody_else_s_is_refused_and_stays(tmp_path, content):
    path = tmp_path / found_files.TABLE
    path.write_bytes(content)
    with pytest.raises(InputError, match="predicted.csv: expected the table of what was predicted"):
        found_files.find_changed([tmp_path / "c0.mrk.json"])
    assert path.read_bytes() == content


def test_our_table_as_a_spreadsheet_saves_it(tmp_path):
    """With a byte order mark, other line ends and an empty line."""
    row = ["c0.mrk.json", "00ff", "L", *["1.0"] * 3, "0.5", "", *[""] * 3, "defined", "4.5"]
    text = "\r".join([",".join(found_files.COLUMNS), ",".join(row), ""])
    (tmp_path / found_files.TABLE).write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r")
    assert found_files.read_written(tmp_path) == {"c0.mrk.json": "00ff"}


def test_a_link_to_nothing_is_somebody_else_s(tmp_path):
    """As git-annex leaves a file that is not fetched."""
    link = tmp_path / "c0.mrk.json"
    link.symlink_to("../annex/c0.mrk.json")
    assert found_files.find_changed([link]) == [link]


def test_a_radius_is_said_where_there_is_one(tmp_path, make_predictions):
    found, radius_mm = make_predictions(), np.full((3, 3), 3.26)
    radius_mm[1], radius_mm[2] = np.inf, np.nan
    write(tmp_path, found._replace(radius_mm=radius_mm))
    assert '"confidence 0.500, radius 3.3 mm"' in (tmp_path / "c0.mrk.json").read_text()
    for name in ("c1", "c2"):
        assert '"confidence 0.500"' in (tmp_path / f"{name}.mrk.json").read_text()
    rows = read_table(tmp_path)
    assert [row["radius_mm"] for row in rows] == ["3.2600"] * 3 + [""] * 6


def test_a_table_of_before_there_was_a_radius_goes_on(tmp_path, make_predictions):
    found = make_predictions()
    found = found._replace(radius_mm=np.full((3, 3), 2.0))
    write(tmp_path, found, cases=CASES[:1])
    path = tmp_path / "predicted.csv"
    rows = list(csv.reader(path.read_text().splitlines()))
    path.write_text("".join(",".join(row[:-1]) + "\n" for row in rows))
    assert find_changed([tmp_path / "c0.mrk.json"]) == []
    write(tmp_path, found, cases=CASES[1:])
    tidy_table(tmp_path)
    assert [row["radius_mm"] for row in read_table(tmp_path)] == [""] * 3 + ["2.0000"] * 6
    assert read_written(tmp_path).keys() == {f"{case}.mrk.json" for case in CASES}
