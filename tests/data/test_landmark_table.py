"""landmarks.csv: the channels and their mirrors, and what is assumed without it."""

from pathlib import Path

import pytest

from fetal_jax.data.landmark_table import Landmark, read_landmark_table

TABLE = "label,name,mirror,definition\nR,right eye,L,\nL,left eye,R,\nnose,Nose,,the tip\n"
FILES = {label: Path("a.fcsv") for label in ("L", "R", "nose")}


def read(folder, content, labels=FILES):
    path, problems, assumptions = folder / "landmarks.csv", [], []
    if content is not None:
        path.write_text(content)
    return read_landmark_table(path, labels, problems, assumptions), problems, assumptions


def test_the_table_decides_the_order_and_the_mirrors(tmp_path):
    marks, problems, assumptions = read(tmp_path, TABLE)
    assert problems == assumptions == []
    assert marks == (
        Landmark("R", "right eye", "L"),
        Landmark("L", "left eye", "R"),
        Landmark("nose", "Nose", "", "the tip"),
    )


def test_without_a_table_the_files_decide(tmp_path):
    marks, problems, (assumption,) = read(tmp_path, None)
    assert marks == (Landmark("L"), Landmark("R"), Landmark("nose")) and problems == []
    assert assumption == (
        "no landmarks.csv: the landmarks are the 3 labels found in the files, in natural order; "
        "no mirror pairs, so no flips"
    )


def test_each_gap_is_an_assumption(tmp_path):
    marks, problems, assumptions = read(tmp_path, "label,colour\nchin,\nL,\nR,\nnose,\n")
    assert [mark.label for mark in marks] == ["L", "R", "nose"] and problems == []
    assert assumptions == [
        "landmarks.csv names no mirror: no mirror pairs, so no flips",
        "landmarks.csv, columns not used: colour",
        "listed in landmarks.csv but in no landmark file, and left out: chin",
    ]


def test_who_has_its_mirror_left_out_has_none(tmp_path):
    text = "label,mirror\nL,chinL\nchinL,L\nR,\nnose,\n"
    marks, problems, _ = read(tmp_path, text)
    assert problems == [] and marks[0] == Landmark("L")


def test_a_landmark_may_be_its_own_mirror(tmp_path):
    marks, problems, _ = read(tmp_path, TABLE.replace("Nose,,", "Nose,nose,"))
    assert problems == [] and marks[2].mirror == "nose"


@pytest.mark.parametrize(
    ("content", "problems"),
    [
        pytest.param(
            "name,mirror\nL,R\n", ["expected a column 'label', got name,mirror"], id="header"
        ),
        pytest.param(
            TABLE + "nose,again,,\n", ["line 5: expected a new label, got 'nose' again"], id="twice"
        ),
        pytest.param(TABLE + ",chin,,\n", ["line 5: expected a new label, got ''"], id="empty"),
        pytest.param(
            TABLE.replace("right eye,L", "right eye,X"),
            [
                "expected the mirror of 'R' to be a label of this table, got 'X'",
                "expected the mirror of 'R' to be 'L', whose mirror it is, got 'X'",
            ],
            id="no such mirror",
        ),
        pytest.param(
            TABLE.replace("right eye,L", "right eye,"),
            ["expected the mirror of 'R' to be 'L', whose mirror it is, got ''"],
            id="mirror of one side only",
        ),
    ],
)
def test_problems_name_the_table(tmp_path, content, problems):
    _, found, _ = read(tmp_path, content)
    assert found == [f"{tmp_path / 'landmarks.csv'}: {problem}" for problem in problems]


def test_a_label_that_the_table_lacks_is_a_problem_of_its_file(tmp_path):
    _, problems, _ = read(tmp_path, TABLE, FILES | {"chin": Path("b.fcsv")})
    assert problems == [f"b.fcsv: expected only labels of {tmp_path / 'landmarks.csv'}, got 'chin'"]
