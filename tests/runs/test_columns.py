"""Columns that two tables share."""

from dataclasses import replace

import numpy as np
import pytest

from fetal_jax.errors import InputError
from fetal_jax.runs import columns

ROWS = [(2, {"age": "20", "site": "x"}), (3, {"age": "", "site": ""})]


def test_a_case_s_cells(prepared):
    case = replace(prepared.cases[1], site="north", age_weeks=26.5)
    assert columns.list_case_cells(case, "2") == ["s1", "north", "26.5", "2"]
    assert columns.list_case_cells(prepared.cases[0], "") == ["s0", "", "", ""]
    assert len(columns.CASE_COLUMNS) == 4


def test_a_column_of_words_and_one_of_numbers(tmp_path):
    assert columns.parse_words(ROWS, "site").tolist() == ["x", ""]
    np.testing.assert_array_equal(columns.parse_numbers(tmp_path, ROWS, "age"), [20, np.nan])
    with pytest.raises(InputError, match="expected numbers in site, got .*'x'"):
        columns.parse_numbers(tmp_path, ROWS, "site")
