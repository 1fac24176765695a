"""results.csv read back as columns."""

import numpy as np
import pytest

from fetal_jax.errors import InputError
from fetal_jax.io.tables import write_table
from fetal_jax.runs.point_table import CSV_COLUMNS, read_points

ROWS = [
    ["c1", "n", 1, 2, 3, 1, 2, 5, 2.0, 1, 0.9, "s1", "north", 26, "1"],
    ["c1", "exL", "", "", "", 4, 5, 6, "", 0, 0.1, "s1", "north", 26, "1"],
    ["c2", "n", 0, 0, 0, 0, 3, 4, 5.0, 1, 0.5, "s2", "", "", "ensemble"],
]


def test_columns(tmp_path):
    write_table(tmp_path / "results.csv", CSV_COLUMNS, ROWS)
    points = read_points(tmp_path / "results.csv")
    assert points.case.tolist() == ["c1", "c1", "c2"] and points.label.tolist() == ["n", "exL", "n"]
    np.testing.assert_array_equal(points.truth_mm, [[1, 2, 3], [np.nan] * 3, [0, 0, 0]])
    np.testing.assert_array_equal(points.found_mm[1], [4, 5, 6])
    np.testing.assert_array_equal(points.error_mm, [2.0, np.nan, 5.0])
    np.testing.assert_array_equal(points.age_weeks, [26, 26, np.nan])
    assert points.visible.tolist() == [True, False, True]
    assert points.fold.tolist() == ["1", "1", "ensemble"]
    seen = points.select(points.visible)
    assert seen.case.tolist() == ["c1", "c2"] and seen.truth_mm.shape == (2, 3)


def test_a_table_of_nothing(tmp_path):
    write_table(tmp_path / "results.csv", CSV_COLUMNS, [])
    points = read_points(tmp_path / "results.csv")
    assert points.truth_mm.shape == (0, 3) and len(points.case) == 0


def test_what_is_no_table_of_points_is_refused(tmp_path):
    write_table(tmp_path / "a.csv", CSV_COLUMNS[:-1], [row[:-1] for row in ROWS])
    with pytest.raises(InputError, match="expected a column 'fold'"):
        read_points(tmp_path / "a.csv")
    write_table(tmp_path / "b.csv", CSV_COLUMNS, [[*ROWS[0][:8], "far", *ROWS[0][9:]]])
    with pytest.raises(InputError, match="expected numbers in error_mm"):
        read_points(tmp_path / "b.csv")
