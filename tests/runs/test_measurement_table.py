"""measurements.csv: its rows, written and read."""

import csv

import numpy as np
import pytest

from fetal_jax.errors import InputError
from fetal_jax.runs import measurement_table


def test_a_table_of_cases(faces, measure_part, tmp_path):
    part = measure_part(faces, np.full((3, 4), 0.2), fold="2")
    measurement_table.write_tested_measurements(tmp_path / "m.csv", [part])
    with (tmp_path / "m.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert ",".join(rows[0]) == (
        "case,measurement,name,unit,truth,prediction,error,note,"
        "subject,site,gestational_age_weeks,fold"
    )
    assert [row["error"] for row in rows] == ["1.000", "0.000", "", "0.000", "3.000", ""]
    blank = rows[2]
    assert (blank["case"], blank["measurement"], blank["prediction"]) == ("c1", "inner_canthal", "")
    assert blank["truth"] == "12.000" and blank["note"] == "enL not visible, confidence 0.20"
    assert (blank["site"], blank["gestational_age_weeks"], blank["fold"]) == ("north", "21", "2")
    read = measurement_table.read_measurement_rows(tmp_path / "m.csv")
    assert read.measurement.tolist() == ["inner_canthal", "philtrum_length"] * 3
    np.testing.assert_array_equal(read.truth, [10, 4, 12, 6, 14, np.nan])
    np.testing.assert_array_equal(read.predicted, [11, 4, np.nan, 6, 17, np.nan])
    assert read.age_weeks.tolist() == [20, 20, 21, 21, 22, 22]


def test_what_is_no_table_of_measurements_is_refused(tmp_path):
    (tmp_path / "m.csv").write_text("case,measurement\n")
    with pytest.raises(InputError, match="m.csv: expected a column 'truth'"):
        measurement_table.read_measurement_rows(tmp_path / "m.csv")


def test_a_table_of_new_scans(measure_new_scan, tmp_path):
    measured = measure_new_scan(np.zeros((1, 4, 3)))
    measurement_table.write_new_measurements(tmp_path / "m.csv", ["scan"], measured)
    with (tmp_path / "m.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["case"], r["measurement"], r["value"], r["note"]) for r in rows] == [
        ("scan", "inner_canthal", "0.000", ""),
        ("scan", "philtrum_length", "", "ls uncertain, confidence 0.10"),
    ]
    measurement_table.write_new_measurements(tmp_path / "m.csv", ["other"], measured)
    measurement_table.write_new_measurements(tmp_path / "m.csv", ["scan"], measured)
    with (tmp_path / "m.csv").open(newline="") as file:
        cases = [row["case"] for row in csv.DictReader(file)]
    assert cases == ["other", "other", "scan", "scan"]
    (tmp_path / "m.csv").write_text("case,measurement,name,unit,value,note,mine\n")
    with pytest.raises(InputError, match="m.csv: expected the columns .* got .*mine; give another"):
        measurement_table.write_new_measurements(tmp_path / "m.csv", ["scan"], measured)
