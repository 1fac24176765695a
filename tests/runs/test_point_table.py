"""results.csv, written and read back as columns."""

import csv

import numpy as np
import pytest

from fetal_jax.errors import InputError
from fetal_jax.io.tables import write_table
from fetal_jax.runs.point_table import COLUMNS, read_point_rows, write_points

LABELS = ["L", "R", "nose"]
ROWS = [
    ["c1", "n", 1, 2, 3, 1, 2, 5, 2.0, 1, 0.9, "s1", "north", 26, "1"],
    ["c1", "exL", "", "", "", 4, 5, 6, "", 0, 0.1, "s1", "north", 26, "1"],
    ["c2", "n", 0, 0, 0, 0, 3, 4, 5.0, 1, 0.5, "s2", "", "", "ensemble"],
]


def test_a_row_for_each_case_and_landmark(tmp_path, prepared, make_tested):
    confidence = np.linspace(0.1, 0.9, 9).reshape(3, 3)
    write_points(tmp_path / "results.csv", LABELS, [make_tested(prepared, confidence)])
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert ",".join(rows[0]) == (
        "case,label,truth_x,truth_y,truth_z,prediction_x,prediction_y,prediction_z,"
        "error_mm,visible,confidence,subject,site,gestational_age_weeks,fold,chance_visible,radius_mm"
    )
    assert [row["subject"] for row in rows] == ["s0"] * 3 + ["s1"] * 6
    assert [(row["case"], row["label"]) for row in rows] == [
        (f"c{i}", label) for i in range(3) for label in LABELS
    ]
    errors = [row["error_mm"] for row in rows]
    assert errors == [f"{e:.4f}" if e else "" for e in (5, 1, 2, 3, 0, 7, 1, 4, 100)]
    absent, completed = rows[4], rows[8]
    assert absent["truth_x"] == absent["truth_y"] == absent["truth_z"] == ""
    assert [float(absent[f"prediction_{axis}"]) for axis in "xyz"] == [59.0, 59.0, 59.0]
    assert [row["visible"] for row in rows] == list("111101110")
    # voxel (4, 3, 3) of 2 mm from (20, 0, -5)
    assert [float(completed[f"truth_{axis}"]) for axis in "xyz"] == [28.0, 6.0, 1.0]
    assert [row["confidence"] for row in rows] == [f"{c:.4f}" for c in confidence.ravel()]


def test_what_was_written_is_read(tmp_path, prepared, make_tested):
    part = make_tested(prepared, fold="3")
    write_points(tmp_path / "results.csv", LABELS, [part])
    rows = read_point_rows(tmp_path / "results.csv")
    np.testing.assert_allclose(rows.truth_mm, prepared.points_mm.reshape(9, 3))
    np.testing.assert_allclose(rows.predicted_mm, part.predictions.points_mm.reshape(9, 3))
    np.testing.assert_array_equal(rows.visible, prepared.visible.ravel())
    assert set(rows.fold) == {"3"} and np.isnan(rows.radius_mm).all()


def test_a_radius_is_kept_and_an_infinite_one_is_an_empty_cell(tmp_path, prepared, make_tested):
    part = make_tested(prepared)
    radius_mm = np.arange(9.0).reshape(3, 3)
    radius_mm[1] = np.inf
    part = part._replace(predictions=part.predictions._replace(radius_mm=radius_mm))
    write_points(tmp_path / "results.csv", LABELS, [part])
    kept = read_point_rows(tmp_path / "results.csv").radius_mm
    np.testing.assert_array_equal(kept, [0, 1, 2, *[np.nan] * 3, 6, 7, 8])


def test_columns(tmp_path):
    write_table(tmp_path / "results.csv", COLUMNS, ROWS)
    rows = read_point_rows(tmp_path / "results.csv")
    assert rows.case.tolist() == ["c1", "c1", "c2"] and rows.label.tolist() == ["n", "exL", "n"]
    np.testing.assert_array_equal(rows.truth_mm, [[1, 2, 3], [np.nan] * 3, [0, 0, 0]])
    np.testing.assert_array_equal(rows.predicted_mm[1], [4, 5, 6])
    np.testing.assert_array_equal(rows.error_mm, [2.0, np.nan, 5.0])
    np.testing.assert_array_equal(rows.age_weeks, [26, 26, np.nan])
    assert rows.visible.tolist() == [True, False, True]
    assert rows.fold.tolist() == ["1", "1", "ensemble"]
    seen = rows.select(rows.visible)
    assert seen.case.tolist() == ["c1", "c2"] and seen.truth_mm.shape == (2, 3)


def test_a_table_of_nothing(tmp_path):
    write_table(tmp_path / "results.csv", COLUMNS, [])
    rows = read_point_rows(tmp_path / "results.csv")
    assert rows.truth_mm.shape == (0, 3) and len(rows.case) == 0


def test_what_is_no_table_of_points_is_refused(tmp_path):
    write_table(tmp_path / "a.csv", COLUMNS[:-1], [row[:-1] for row in ROWS])
    with pytest.raises(InputError, match="expected a column 'fold'"):
        read_point_rows(tmp_path / "a.csv")
    write_table(tmp_path / "b.csv", COLUMNS, [[*ROWS[0][:8], "far", *ROWS[0][9:]]])
    with pytest.raises(InputError, match="expected numbers in error_mm"):
        read_point_rows(tmp_path / "b.csv")
