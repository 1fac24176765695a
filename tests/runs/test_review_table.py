"""review.csv and volumes.csv: what stands there of other cases stays."""

from pathlib import Path

import pytest

from fetal_jax.errors import InputError
from fetal_jax.runs import scan_table
from fetal_jax.runs.review import Review
from fetal_jax.runs.review_table import read_reviews, write_reviews


def test_rows_of_other_cases_stay_in_one_order(tmp_path):
    path = tmp_path / "review.csv"
    write_reviews(path, ["a", "b"], [Review("a", "n", 3.0, "old"), Review("b", "n", 2.0, "")])
    why = 'n, "wrong"; a line'
    write_reviews(path, ["a"], [Review("a", "", 2.50049, why), Review("a", "n", 0.5, "")])
    expected = [Review("a", "", 2.5, why), Review("b", "n", 2.0, ""), Review("a", "n", 0.5, "")]
    assert read_reviews(path) == expected
    before = path.read_bytes()
    write_reviews(path, ["b"], expected[1:2])
    assert path.read_bytes() == before
    assert before.startswith(b"case,label,gain_mm,why\na,,2.500,")


@pytest.mark.parametrize(
    ("text", "came"),
    [("case,label\na,n\n", "expected a column 'gain_mm'"), ("x", "expected a column"),
     ("case,label,gain_mm,why,more\n", "expected the columns"),
     ("case,label,gain_mm,why\na,n,much,\n", "expected numbers in gain_mm")],
)  # fmt: skip
def test_another_table_of_that_name_stays(tmp_path, text, came):
    path = tmp_path / "review.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=f"review.csv: {came}"):
        write_reviews(path, ["a"], [])
    assert path.read_text() == text


def test_where_each_scan_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert scan_table.read_scans(tmp_path) == {}
    scan_table.write_scans(tmp_path, {"b": Path("scans/b.nii"), "a, x": Path("a, x.nrrd")})
    scan_table.write_scans(tmp_path, {"b": Path("other/b.nii.gz")})
    found = scan_table.read_scans(tmp_path)
    assert found == {"a, x": tmp_path / "a, x.nrrd", "b": tmp_path / "other" / "b.nii.gz"}
    (tmp_path / "volumes.csv").write_text("case,volume,more\n")
    with pytest.raises(InputError, match="volumes.csv: expected the columns case,volume"):
        scan_table.read_scans(tmp_path)
