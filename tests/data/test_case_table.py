"""cases.csv and split.csv: what they say, what is assumed where they say nothing, and mistakes."""

import math
from pathlib import Path

import pytest

from fetal_jax.data import case_table
from fetal_jax.data.case_table import (
    Case,
    find_shared_subjects,
    match_rows,
    read_case_table,
    replace_splits,
)

CASES = {
    name: Case(name, Path(f"{name}.nii"), Path(f"{name}.fcsv"), subject=name)
    for name in ("a", "b2", "b10")
}


def read(folder, content, *, labels=("L", "R", "nose"), split_elsewhere=False):
    """The cases, problems and assumptions of a cases.csv; None for no such file."""
    path, problems, assumptions = folder / "cases.csv", [], []
    if content is not None:
        path.write_text(content)
    cases = read_case_table(
        path, CASES, labels, problems, assumptions, split_elsewhere=split_elsewhere
    )
    return cases, problems, assumptions


def read_splits(folder, content):
    path, problems, assumptions = folder / "split.csv", [], []
    if content is not None:
        path.write_text(content)
    return replace_splits(path, CASES, problems, assumptions), problems, assumptions


def test_a_full_table(tmp_path):
    cases, problems, assumptions = read(
        tmp_path,
        "case,subject,site,gestational_age_weeks,split,visible\n"
        "b10,s2,x,30,test,L\na,s1,x,24.5,train,L nose\nb2,s1,y,26,train,R L nose\n",
    )
    assert problems == assumptions == []
    assert list(cases) == ["a", "b2", "b10"]
    a = cases["a"]
    assert (a.subject, a.site, a.age_weeks, a.split) == ("s1", "x", 24.5, "train")
    assert a.visible == {"L", "nose"}
    assert a.volume_path == Path("a.nii") and a.landmarks_path == Path("a.fcsv")


def test_no_table_leaves_the_cases_as_they_are(tmp_path):
    cases, problems, (assumption,) = read(tmp_path, None)
    assert problems == [] and list(cases) == list(CASES)
    assert all(cases[name] is CASES[name] for name in CASES)
    assert assumption == (
        "no cases.csv: each case is its own subject; the site is unknown; the age is unknown; "
        "no split is named; all points that are there are visible"
    )
    _, _, (assumption,) = read(tmp_path, None, split_elsewhere=True)
    assert "no split is named" not in assumption


@pytest.mark.parametrize(
    ("content", "sentences"),
    [
        pytest.param(
            "case,split\na,train\nb2,test\nb10,test\n",
            [
                "cases.csv has no column subject: each case is its own subject",
                "cases.csv has no column site: the site is unknown",
                "cases.csv has no column gestational_age_weeks: the age is unknown",
                "cases.csv has no column visible: all points that are there are visible",
            ],
            id="missing columns",
        ),
        pytest.param(
            "case,subject,site,gestational_age_weeks,split,visible\n"
            "a,s1,x,20,test,L\nb2,,x,21,train,L\nb10,s2,x,22,train,L\n",
            ["cases.csv, empty subject: each case is its own subject (b2)"],
            id="an empty cell",
        ),
        pytest.param(
            "case,subject,site,gestational_age_weeks,split,visible,vissible\na,s1,x,20,test,L,R\n",
            [
                "not listed in cases.csv: b2, b10: each case is its own subject; the site is "
                "unknown; the age is unknown; no split is named; all points that are there are "
                "visible",
                "cases.csv, columns not used: vissible",
            ],
            id="missing rows and an unknown column",
        ),
    ],
)
def test_each_gap_is_an_assumption(tmp_path, content, sentences):
    _, problems, assumptions = read(tmp_path, content)
    assert problems == [] and assumptions == sentences


def test_defaults_of_a_listed_case(tmp_path):
    cases, _, _ = read(tmp_path, "case\na\n")
    assert cases["a"].subject == "a" and math.isnan(cases["a"].age_weeks)
    assert cases["a"].split == cases["a"].site == "" and cases["a"].visible is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("name;subject\na;s1\n", "expected a column 'case', got name;subject"),
        ("case\na\nz9\n", "line 3: expected a case of this data set, got 'z9'"),
        ("case\na\nb2\na\n", "line 4: expected each case once, got 'a' again"),
        (
            "case,split\na,val\n",
            "line 2: expected a split of train, validation, test, got 'val'",
        ),
        (
            "case,gestational_age_weeks\na,24+3\n",
            "line 2: expected gestational_age_weeks as a number up to 50, got '24+3'",
        ),
        (
            "case,gestational_age_weeks\na,-3\n",
            "line 2: expected gestational_age_weeks as a number up to 50, got '-3'",
        ),
        (
            "case,gestational_age_weeks\na,inf\n",
            "line 2: expected gestational_age_weeks as a number up to 50, got 'inf'",
        ),
        ("case,visible\na,L chin\n", "line 2: expected known labels in visible, got chin"),
    ],
    ids=["header", "unknown", "twice", "split", "words", "negative", "infinite", "label"],
)
def test_problems_name_line_and_both_sides(tmp_path, content, problem):
    _, problems, _ = read(tmp_path, content)
    assert problems == [f"{tmp_path / 'cases.csv'}: {problem}"]


def test_labels_that_are_not_known_are_not_checked(tmp_path):
    cases, problems, _ = read(tmp_path, "case,visible\na,L chin\n", labels=None)
    assert problems == [] and cases["a"].visible == {"L", "chin"}


def test_a_split_table_names_every_split_anew(tmp_path):
    cases, problems, assumptions = read_splits(tmp_path, "case,split\na,train\nb2,test\n")
    assert problems == []
    assert [case.split for case in cases.values()] == ["train", "test", ""]
    assert assumptions == ["no split named in split.csv: b10"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "expected a table, got no such file"),
        ("case\na\n", "expected a column 'split', got case"),
        ("case,split\nz,train\n", "line 2: expected a case of this data set, got 'z'"),
        ("case,split\na,test\na,test\n", "line 3: expected each case once, got 'a' again"),
        (
            "case,split\na,holdout\n",
            "line 2: expected a split of train, validation, test, got 'holdout'",
        ),
    ],
    ids=["missing", "no split", "unknown", "twice", "other word"],
)
def test_problems_of_a_split_table(tmp_path, content, problem):
    _, problems, _ = read_splits(tmp_path, content)
    assert problems == [f"{tmp_path / 'split.csv'}: {problem}"]


def test_rows_are_matched_with_cases_once():
    problems = []
    rows = [(2, {"case": "b"}), (3, {"case": "x"}), (4, {"case": "a"}), (5, {"case": "b"})]
    matched = list(match_rows(Path("t.csv"), rows, ["a", "b"], problems))
    assert matched == [("b", "t.csv: line 2", rows[0][1]), ("a", "t.csv: line 4", rows[2][1])]
    assert problems == [
        "t.csv: line 3: expected a case of this data set, got 'x'",
        "t.csv: line 5: expected each case once, got 'b' again",
    ]


def test_a_subject_in_two_parts_is_a_problem():
    cases = [
        Case(f"c{i}", Path("v"), Path("p"), subject=subject) for i, subject in enumerate("aabbb")
    ]
    assert find_shared_subjects(Path("t.csv"), cases, ["1", "1", "2", "", "2"], "fold") == []
    parts = ["1", "2", "2", "", "1"]
    assert find_shared_subjects(Path("t.csv"), cases, parts, "fold") == [
        "t.csv: expected all cases of subject 'a' in one fold, got c0 in 1 and c1 in 2",
        "t.csv: expected all cases of subject 'b' in one fold, got c2 in 2 and c4 in 1",
    ]
    with pytest.raises(ValueError):
        find_shared_subjects(Path("t.csv"), cases, parts[:3], "fold")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("none", set()),
        ("None", set()),
        ("L nose", {"L", "nose"}),
        ("L; nose", {"L", "nose"}),
    ],
)
def test_what_can_be_seen_may_be_nothing_and_is_not_said_where_nothing_stands(
    tmp_path, text, expected
):
    cases, problems, _ = read(tmp_path, f"case,visible\na,{text}\n")
    assert problems == [] and cases["a"].visible == expected


def test_labels_with_spaces_are_separated_by_semicolons(tmp_path):
    labels = ("left eye", "chin", "none")
    cells = {"left eye; chin": {"left eye", "chin"}, "left eye": {"left eye"}, "none": {"none"}}
    for text, expected in cells.items():
        cases, problems, _ = read(tmp_path, f"case,visible\na,{text}\n", labels=labels)
        assert problems == [] and cases["a"].visible == expected
    _, (problem,), _ = read(tmp_path, "case,visible\na,left eye chin\n", labels=labels)
    assert problem.endswith("in visible, separated by ; as some have spaces, got left, eye")


def test_capitals_are_no_other_column_and_no_other_split(tmp_path):
    cases, problems, assumptions = read(
        tmp_path,
        "Case,Subject,Site,Gestational Age Weeks,SPLIT,Visible\n"
        "b10,s2,x,30,Test,L\na,s1,x,24.5,TRAIN,L\nb2,s1,y,26,train,L\n",
    )
    assert problems == assumptions == []
    assert (cases["a"].subject, cases["a"].split, cases["b10"].split) == ("s1", "train", "test")
    assert cases["a"].age_weeks == 24.5


@pytest.mark.parametrize(
    ("one", "other"), [("S01", "s01"), ("7", "007"), ("child 3", "Child03"), ("a-1", "A-01")]
)
def test_one_child_in_two_spellings_is_refused(tmp_path, one, other):
    """They might train and test."""
    _, (problem,), _ = read(tmp_path, f"case,subject\na,{one}\nb2,{other}\nb10,9\n")
    assert problem == (
        f"{tmp_path}/cases.csv: expected each subject in one spelling, got {one!r} and {other!r}"
    )
    _, problems, _ = read(tmp_path, "case,subject\na,10\nb2,1\nb10,100\n")
    assert problems == []


@pytest.mark.parametrize("name", ["Cases.csv", "CASES.CSV", "cases.xlsx", "cases.csv.txt"])
def test_a_table_that_seems_meant_is_named(tmp_path, name):
    (tmp_path / name).write_text("case,split\na,test\n")
    _, (problem,), _ = read(tmp_path, None)
    assert problem == f"{tmp_path}/cases.csv: expected a table of this name, got {name}"


def test_a_table_that_is_a_link_to_nothing(tmp_path):
    (tmp_path / "cases.csv").symlink_to("../.git/annex/objects/x")
    _, (problem,), _ = read(tmp_path, None)
    assert "cases.csv: expected a table, got a link to nothing, ../.git/annex/objects/x" in problem


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "1.0"),
        ("s1", "s1\u200b"),
        ("s1", "s１"),
        ("pat1", "p\N{CYRILLIC SMALL LETTER A}t1"),
        ("s_1", "s 1"),
        ("s-1", "s1"),
        ("a-1", "a_01"),
    ],
)
def test_spellings_of_one_child(tmp_path, one, other):
    found = case_table._find_alike(tmp_path, [one, other, one])
    assert len(found) == 1 and f"got {one!r} and " in found[0]


@pytest.mark.parametrize(
    ("one", "other"), [("1-1", "11"), ("s1", "s11"), ("1.5", "1.50"), ("a", "b")]
)
def test_two_children(tmp_path, one, other):
    assert case_table._find_alike(tmp_path, [one, other]) == []
