"""CSV tables: what spreadsheets save is read, and every fault is named with its line."""

import pytest

from fetal_jax.errors import InputError
from fetal_jax.io.tables import note_unused_columns, read_table, shorten, write_table


def save(folder, content):
    path = folder / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_texts_are_stripped_and_empty_cells_are_empty_texts(tmp_path):
    path = save(tmp_path, '\ufeffcase, site ,age\r\n a ,x,20\r\n,,\r\nb\r\n"c, d","say ""y""",\r\n')
    columns, rows = read_table(path, required=("case",))
    assert columns == ["case", "site", "age"]
    assert rows == [
        (2, {"case": "a", "site": "x", "age": "20"}),
        (4, {"case": "b", "site": "", "age": ""}),
        (5, {"case": "c, d", "site": 'say "y"', "age": ""}),
    ]


def test_a_header_alone_is_a_table_without_rows(tmp_path):
    assert read_table(save(tmp_path, "case\n"), required=("case",)) == (["case"], [])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param("", "expected a column 'case', got an empty file", id="empty"),
        pytest.param("name;x\na;1\n", "expected a column 'case', got name;x", id="semicolons"),
        pytest.param("case,x,x\n", "expected each column once, got 'x' twice", id="column twice"),
        pytest.param("case\na,b\n", "line 2: expected 1 fields, got 2", id="row too long"),
        pytest.param(b"case\n\xe9\n", "expected a comma-separated UTF-8 table, got", id="Latin 1"),
        pytest.param('case\n"a\n', "expected a comma-separated UTF-8 table, got", id="open quote"),
    ],
)
def test_faults_are_named(tmp_path, content, problem):
    path = save(tmp_path, content)
    with pytest.raises(InputError) as caught:
        read_table(path, required=("case",))
    (line,) = caught.value.problems
    assert line.startswith(f"{path}: {problem}")


def test_all_faults_come_at_once(tmp_path):
    path = save(tmp_path, "a,a\n1,2,3\n1,2,,\n1,2,,4\n")
    with pytest.raises(InputError) as caught:
        read_table(path, required=("b", "c"))
    assert [line.removeprefix(f"{path}: ") for line in caught.value.problems] == [
        "expected a column 'b', got a,a",
        "expected a column 'c', got a,a",
        "expected each column once, got 'a' twice",
        "line 2: expected 2 fields, got 3",
        "line 4: expected 2 fields, got 4",
    ]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="no.csv: expected a table, got no such file"):
        read_table(tmp_path / "no.csv", required=())


def test_what_is_written_is_read_again(tmp_path):
    write_table(tmp_path / "new" / "table.csv", ["case", "n"], [["a, b", 1], ['say "y"', 2.5]])
    content = (tmp_path / "new" / "table.csv").read_bytes()
    assert content == b'case,n\n"a, b",1\n"say ""y""",2.5\n'
    _, rows = read_table(tmp_path / "new" / "table.csv", required=("case", "n"))
    assert [row for _, row in rows] == [{"case": "a, b", "n": "1"}, {"case": 'say "y"', "n": "2.5"}]


def test_unused_columns_become_an_assumption():
    assumptions = ["before"]
    note_unused_columns("x/cases.csv", ["case", "", "vissible", "age"], ("case",), assumptions)
    assert assumptions == ["before", "cases.csv, columns not used: vissible, age"]
    note_unused_columns("x/cases.csv", ["case", ""], ("case",), assumptions)
    assert len(assumptions) == 2


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a"], "a"),
        (list("abcde"), "a, b, c, d, e"),
        (list("abcdefg"), "a, b, c, d, e and 2 more"),
        ([1, 2, 3, 4, 5, 6], "1, 2, 3, 4, 5 and 1 more"),
    ],
)
def test_the_first_few_of_many_names(names, expected):
    assert shorten(names) == expected


def test_how_many_names_can_be_said():
    assert shorten(["a", "b", "c"], 1) == "a and 2 more"
