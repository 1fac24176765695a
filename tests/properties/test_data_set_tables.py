"""Any text as a data set's tables: what a plain reader of tables finds, or lines that name it."""

import csv
import io
import shutil
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import damage, edit_text

from fetal_jax.data.dataset import read_dataset
from fetal_jax.errors import InputError

CASES = 5
TABLES = {
    "cases.csv": "case,subject,site,gestational_age_weeks,split,visible\n"
    + "".join(
        f"c{i},s{i},{'ab'[i > 3]},{20 + i},{('train', 'test', '')[i % 3]},L;nose\n"
        for i in range(CASES)
    ),
    "landmarks.csv": "label,name,mirror,definition\nL,left,R,\nR,right,L,\nnose,tip,,the tip\n",
    "split.csv": "case,split\n"
    + "".join(f"c{i},{'train' if i < 3 else ''}\n" for i in range(CASES - 1)),
}


@pytest.fixture
def root(noise_root, tmp_path):
    """A small data set with all three tables."""
    root = tmp_path / "data"
    for i in range(CASES):
        for folder, suffix in (("volumes", ".nii.gz"), ("landmarks", ".mrk.json")):
            (root / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(noise_root / folder / f"c{i}{suffix}", root / folder)
    for name, text in TABLES.items():
        (root / name).write_text(text)
    return root


def check(root, name, data):
    """Read the data set with that table, and compare what it says."""
    (root / name).write_bytes(data)
    try:
        dataset = read_dataset(root, split_csv=root / "split.csv" if name == "split.csv" else None)
    except InputError as error:
        assert error.problems
        for line in error.problems:
            assert line.startswith(str(root)) and ": expected " in line
            assert len(line.splitlines()) == 1
        return
    finally:
        (root / name).write_text(TABLES[name])
    text = unicodedata.normalize("NFC", data.decode("utf-8-sig"))
    rows = [[c.strip() for c in row] for row in csv.reader(text.splitlines()) if any(row)]
    head = ["_".join(cell.split()).lower() for cell in rows[0]]
    by_name = {}
    for row in rows[1:]:
        cells = dict(zip(head, row, strict=False))
        if cells.get("label" if name == "landmarks.csv" else "case"):
            by_name[cells["label" if name == "landmarks.csv" else "case"]] = cells
    if name == "landmarks.csv":
        assert list(dataset.labels) == [label for label in by_name if label in "L R nose".split()]
        for mark in dataset.landmarks:
            assert mark.mirror in ("", by_name[mark.label].get("mirror", ""))
        return
    for case in dataset.cases:
        cells = by_name.get(case.name, {})
        assert case.split == cells.get("split", "").casefold()
        if name == "cases.csv":
            assert case.subject == (cells.get("subject") or case.name)
            assert case.site == cells.get("site", "")
            age = cells.get("gestational_age_weeks")
            assert case.age_weeks == float(age) if age else case.age_weeks != case.age_weeks


@given(st.data())
@pytest.mark.parametrize("name", TABLES)
def test_edited_tables(root, name, data):
    check(root, name, data.draw(edit_text(TABLES[name], ",\n;")).encode("utf-8", "surrogatepass"))


@given(st.data())
@pytest.mark.parametrize("name", TABLES)
def test_damaged_tables(root, name, data):
    check(root, name, data.draw(damage(TABLES[name].encode())))


@given(
    st.dictionaries(st.text(max_size=5), st.lists(st.text(max_size=5), max_size=3), max_size=4),
)
@pytest.mark.parametrize("name", TABLES)
def test_any_table(root, name, columns):
    text = io.StringIO()
    first = "label" if name == "landmarks.csv" else "case"
    csv.writer(text).writerows([[first, *columns], ["c1", *(str(v) for v in columns.values())]])
    check(root, name, text.getvalue().encode("utf-8", "surrogatepass"))
