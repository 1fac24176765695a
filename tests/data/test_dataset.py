"""A folder as a data set: what is taken, what is assumed and said, and every problem at once."""

from pathlib import Path

import numpy as np
import pytest

from fetal_jax.data.dataset import (
    Case,
    Landmark,
    read_case_points,
    read_dataset,
    read_readings,
    read_true_points,
    select_landmarks,
)
from fetal_jax.errors import InputError
from fetal_jax.io.markups import read_landmarks, write_landmarks
from fetal_jax.io.volumes import read_header, write_nifti

MOUSE_CT = Path(__file__).parents[2] / ".." / "shared" / "data" / "mouse-ct"
POINTS = {
    "L": np.array([-1.0, 2.0, 3.0]),
    "R": np.array([1.0, 2.0, 3.0]),
    "nose": np.array([0.5, 9.0, 3.0]),
}
TABLE = "label,name,mirror,definition\nR,right eye,L,\nL,left eye,R,\nnose,Nose,,the tip\n"


def add_case(root, name, points=POINTS, volume=".nii.gz", landmarks=".mrk.json"):
    if volume:
        path = root / "volumes" / f"{name}{volume}"
        write_nifti(path, np.zeros((2, 2, 2), np.uint8), np.eye(4))
    if landmarks:
        write_landmarks(root / "landmarks" / f"{name}{landmarks}", points)


@pytest.fixture
def root(tmp_path):
    """Three cases without tables: a, b2 and b10."""
    for name in ("b10", "a", "b2"):
        add_case(tmp_path, name)
    return tmp_path


def test_true_points_of_a_phantom(root):
    """Of the cases that have them; a file of no case is nobody's business."""
    moved = {label: point + 1.0 for label, point in POINTS.items() if label != "nose"}
    write_landmarks(root / "truth" / "a.mrk.json", moved | {"gn": np.zeros(3)})
    write_landmarks(root / "truth" / "other.mrk.json", moved)
    a, b2, _ = read_dataset(root).cases
    found = read_true_points(a, ["R", "nose", "L"])
    np.testing.assert_allclose(found[[0, 2]], [POINTS["R"] + 1, POINTS["L"] + 1])
    assert np.isnan(found[1]).all() and np.isnan(read_true_points(b2, ["R"])).all()
    # landmarks/ says what is annotated, and no label comes of truth/
    assert read_dataset(root).labels == ("L", "R", "nose")


def find_problems(root, **kwargs):
    with pytest.raises(InputError) as caught:
        read_dataset(root, **kwargs)
    assert all("\n" not in problem for problem in caught.value.problems)
    return caught.value.problems


def test_a_bare_folder_and_what_is_assumed(root):
    dataset = read_dataset(root)
    assert dataset.root == root
    assert [case.name for case in dataset.cases] == ["a", "b2", "b10"]
    assert dataset.cases[0] == Case(
        "a",
        root / "volumes" / "a.nii.gz",
        root / "landmarks" / "a.mrk.json",
        subject="a",
        age_weeks=dataset.cases[0].age_weeks,
    )
    assert np.isnan(dataset.cases[0].age_weeks)
    assert dataset.labels == ("L", "R", "nose")
    assert dataset.mirror_index is None
    landmarks, cases = dataset.assumptions
    assert landmarks.startswith("no landmarks.csv: the landmarks are the 3 labels found")
    assert "no flips" in landmarks
    assert cases.startswith("no cases.csv: each case is its own subject; ")
    assert "all points that are there are visible" in cases


def test_full_tables_leave_nothing_to_assume(root):
    (root / "landmarks.csv").write_text(TABLE)
    (root / "cases.csv").write_text(
        "\ufeffcase, subject ,site,gestational_age_weeks,split,visible\n"
        "b10,s2,x,30,test,L\n"
        " a , s1,x, 24.5 ,train,L nose\n"
        ",,,,,\n"
        "b2,s1,y,26,train,R L nose\n",
        "utf-8",
    )
    dataset = read_dataset(root)
    assert dataset.assumptions == ()
    a, b2, b10 = dataset.cases
    assert (a.subject, a.site, a.age_weeks, a.split) == ("s1", "x", 24.5, "train")
    assert a.visible == {"L", "nose"}
    assert (b2.subject, b2.site, b10.split) == ("s1", "y", "test")
    assert dataset.labels == ("R", "L", "nose")
    assert dataset.landmarks[2] == Landmark("nose", "Nose", "", "the tip")
    np.testing.assert_array_equal(dataset.mirror_index, [1, 0, 2])


def test_labels_of_all_files_in_natural_order(tmp_path):
    for name, labels in {"a": ("10", "F2"), "b": ("2", "F10", "10"), "c": ("1", "01")}.items():
        add_case(tmp_path, name, {label: np.ones(3) for label in labels})
    assert read_dataset(tmp_path).labels == ("01", "1", "2", "10", "F2", "F10")


def test_a_split_table_takes_the_place_of_the_column(root, tmp_path):
    (root / "cases.csv").write_text("case,subject,split\na,s1,test\nb2,s2,train\nb10,s3,train\n")
    split = tmp_path / "split.csv"
    split.write_text("case,split\na,train\nb2,test\n")
    dataset = read_dataset(root, split_csv=split)
    assert [case.split for case in dataset.cases] == ["train", "test", ""]
    assert [case.subject for case in dataset.cases] == ["s1", "s2", "s3"]
    assert "no split named in split.csv: b10" in dataset.assumptions
    (root / "cases.csv").unlink()
    assert "no split is named" not in " ".join(read_dataset(root, split_csv=split).assumptions)


def test_both_landmark_formats_other_suffixes_and_files_of_no_concern(tmp_path):
    add_case(tmp_path, "scan.1", volume=".nii", landmarks=".fcsv")
    add_case(tmp_path, "scan.2", volume=".NII.GZ")
    for name in ("volumes/._scan.1.nii", "volumes/notes.txt", "landmarks/.DS_Store"):
        (tmp_path / name).write_text("")
    dataset = read_dataset(tmp_path)
    assert [case.name for case in dataset.cases] == ["scan.1", "scan.2"]
    for case in dataset.cases:
        points, _, _ = read_case_points(case, dataset.labels)
        np.testing.assert_array_equal(points, list(POINTS.values()))


def test_points_absent_completed_and_visible(tmp_path):
    points = POINTS | {"undefined": np.full(3, np.nan)}
    write_landmarks(tmp_path / "a.mrk.json", points)
    labels = ("nose", "undefined", "L", "elsewhere", "R")
    case = Case("a", tmp_path / "a.nii.gz", tmp_path / "a.mrk.json", "a")
    found, visible, judged = read_case_points(case, labels)
    # a point that the file has as undefined cannot be seen; of one that it lacks nobody knows
    np.testing.assert_array_equal(judged, [True, True, True, False, True])
    assert found.dtype == np.float64 and found.shape == (5, 3)
    np.testing.assert_array_equal(found[[0, 2, 4]], [points[x] for x in ("nose", "L", "R")])
    assert np.isnan(found[[1, 3]]).all()
    np.testing.assert_array_equal(visible, [True, False, True, False, True])

    listed = frozenset({"L", "undefined", "elsewhere"})
    found, visible, again = read_case_points(
        Case("a", case.volume_path, case.landmarks_path, "a", visible=listed), labels
    )
    np.testing.assert_array_equal(again, judged)
    np.testing.assert_array_equal(visible, [False, False, True, False, False])
    assert np.isfinite(found[0]).all()  # there, though not visible: completed


def test_fcsv_without_a_system(tmp_path):
    add_case(tmp_path, "a", landmarks=".fcsv")
    path = tmp_path / "landmarks" / "a.fcsv"
    path.write_text(path.read_text().replace("# CoordinateSystem = LPS\n", ""))
    (problem,) = find_problems(tmp_path)
    assert problem.startswith(f"{path}: expected a line '# CoordinateSystem")
    dataset = read_dataset(tmp_path, coordinate_system="LPS")
    points, _, _ = read_case_points(dataset.cases[0], ("L",), coordinate_system="LPS")
    np.testing.assert_array_equal(points, [POINTS["L"]])
    (problem,) = find_problems(tmp_path, coordinate_system="XYZ")
    assert problem == "coordinate_system: expected LPS or RAS, got 'XYZ'"


def test_folders_that_are_not_there(tmp_path):
    (problem,) = find_problems(tmp_path / "nowhere")
    assert problem.startswith(f"{tmp_path / 'nowhere'}: expected a folder with a data set, got no")
    (problem,) = find_problems(tmp_path)
    assert problem.startswith(f"{tmp_path / 'volumes'}: expected a folder with volumes, got no")
    (tmp_path / "volumes").mkdir()
    (problem,) = find_problems(tmp_path)
    assert problem.startswith(f"{tmp_path / 'volumes'}: expected files that end in .nii.gz")
    add_case(tmp_path, "a", landmarks="")
    (problem,) = find_problems(tmp_path)
    assert problem.startswith(f"{tmp_path / 'volumes' / 'a.nii.gz'}: expected {tmp_path}/landm")


# name -> (file under root, its content, [(the file named, expected, came)])
BAD_TABLES = {
    "cases.csv without case": (
        "cases.csv",
        "name;subject\na;s1\n",
        [("cases.csv", "a column 'case'", "name;subject")],
    ),
    "unknown case": (
        "cases.csv",
        "case\na\nz9\n",
        [("cases.csv", "line 3: expected a case of this data set", "'z9'")],
    ),
    "subject in two splits": (
        "cases.csv",
        "case,subject,split\na,s1,train\nb2,s1,test\nb10,s2,test\n",
        [("cases.csv", "cases of subject 's1' in one split", "a in train and b2 in test")],
    ),
    "all at once": (
        "cases.csv",
        "case,gestational_age_weeks,split\na,old,train\nz9,20,train\nb2,20,tset\n",
        [
            ("cases.csv", "as a number", "'old'"),
            ("cases.csv", "a case of this data set", "'z9'"),
            ("cases.csv", "train, validation, test", "'tset'"),
        ],
    ),
    "landmarks.csv without label": (
        "landmarks.csv",
        "name,mirror\nL,R\n",
        [("landmarks.csv", "a column 'label'", "name,mirror")],
    ),
    "label not in landmarks.csv": (
        "landmarks.csv",
        TABLE.replace("nose", "chin"),
        [("landmarks/a.mrk.json", "only labels of ", "'nose'")],
    ),
    "unreadable landmarks": (
        "landmarks/a.mrk.json",
        "{",
        [("landmarks/a.mrk.json", "JSON", "text that is none")],
    ),
    "both formats": (
        "landmarks/a.fcsv",
        "# CoordinateSystem = LPS\nL,1,2,3,1,1\n",
        [("landmarks", "one landmark file for case a", "a.fcsv and a.mrk.json")],
    ),
    "two volumes": (
        "volumes/a.nii",
        "",
        [("volumes", "one volume file for case a", "a.nii and a.nii.gz")],
    ),
    "volume without landmarks": (
        "volumes/c.nii",
        "",
        [("volumes/c.nii", "landmarks/c.mrk.json or .fcsv", "got none")],
    ),
    "landmarks without volume": (
        "landmarks/c.fcsv",
        "",
        [("landmarks/c.fcsv", "a volume named c in ", "got none")],
    ),
}


def check_problems(problems, root, wanted):
    assert len(problems) == len(wanted), problems
    for problem, (file, expected, came) in zip(problems, wanted, strict=True):
        assert problem.startswith(f"{root / file}: "), problem
        before, got, after = problem.partition(", got ")
        assert expected in before, problem
        assert came in got + after, problem


@pytest.mark.parametrize(
    ("file", "content", "wanted"),
    [pytest.param(*values, id=name) for name, values in BAD_TABLES.items()],
)
def test_problems_name_the_file_and_both_sides(root, file, content, wanted):
    (root / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    check_problems(find_problems(root), root, wanted)


def test_a_subject_in_two_splits_of_a_split_table(root, tmp_path):
    (root / "cases.csv").write_text("case,subject\na,s1\nb2,s1\nb10,s2\n")
    split = tmp_path / "split.csv"
    split.write_text("case,split\na,train\nb2,test\n")
    wanted = ("split.csv", "subject 's1' in one split", "a in train and b2 in test")
    check_problems(find_problems(root, split_csv=split), tmp_path, [wanted])
    split.unlink()
    wanted = ("split.csv", "a table", "no such file")
    check_problems(find_problems(root, split_csv=split), tmp_path, [wanted])


def test_problems_of_every_kind_come_together_and_blame_nothing_twice(root):
    (root / "landmarks" / "a.mrk.json").write_text("{")
    (root / "landmarks" / "b2.mrk.json").unlink()
    (root / "landmarks" / "b10.mrk.json").write_text("[]")
    (root / "cases.csv").write_text("case,visible,split\na,L,train\nb2,L R,train\nb10,R,tset\n")
    wanted = [
        ("volumes/b2.nii.gz", "b2.mrk.json or .fcsv", "none"),
        ("landmarks/a.mrk.json", "JSON", "none"),
        ("landmarks/b10.mrk.json", "@schema", "None"),
        ("cases.csv", "line 4: expected a split", "'tset'"),
    ]
    check_problems(find_problems(root), root, wanted)


@pytest.mark.skipif(not MOUSE_CT.is_dir(), reason="the mouse CT volumes are not there")
def test_published_volumes_of_other_people():
    dataset = read_dataset(MOUSE_CT, split_csv=MOUSE_CT / "split.csv")
    assert len(dataset.cases) == 24
    assert len(dataset.labels) == 45 and dataset.labels[:3] == ("1", "2", "3")
    assert [case.split for case in dataset.cases].count("test") == 6
    outside = 0
    for case in dataset.cases:
        points, visible, _ = read_case_points(case, dataset.labels)
        assert visible.all() and np.isfinite(points).all()
        shape, affine = read_header(case.volume_path)
        vox = (points - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
        beyond = np.maximum(-0.5 - vox, vox - (np.array(shape) - 0.5)).max(axis=1)
        assert beyond.max() < 1  # one voxel, as its authors placed it
        outside += int((beyond > 0).sum())
    assert outside <= 2
    file = read_landmarks(MOUSE_CT / "landmarks" / "A_J_.mrk.json")
    np.testing.assert_array_equal(file["1"], [-18.4718, -11.5644, 17.3914])


def test_annotators_readings_instead_of_a_file_count_by_their_mean(root):
    (root / "landmarks" / "a.mrk.json").unlink()
    ann = POINTS | {"L": POINTS["L"] + 2.0}
    bob = {label: point for label, point in POINTS.items() if label != "nose"}
    write_landmarks(root / "landmarks" / "a.ann.mrk.json", ann)
    write_landmarks(root / "landmarks" / "a.bob.fcsv", bob)
    dataset = read_dataset(root)
    case = dataset.cases[0]
    assert case.landmarks_path is None and len(case.readings) == 2
    points, visible, judged = read_case_points(case, dataset.labels)
    assert judged.all()  # by one of the two
    mean = [POINTS["L"] + 1.0, POINTS["R"], POINTS["nose"]]  # one of them left the nose out
    np.testing.assert_allclose(points, mean, atol=1e-6)
    assert visible.all()
    assert np.isnan(read_readings(case, dataset.labels)[1, 2]).all()
    assert any("1 cases have readings by single annotators only" in t for t in dataset.assumptions)


def test_readings_beside_a_file_leave_it_alone(root):
    write_landmarks(root / "landmarks" / "a.ann.mrk.json", {k: v + 3.0 for k, v in POINTS.items()})
    case = read_dataset(root).cases[0]
    np.testing.assert_allclose(
        read_case_points(case, list(POINTS))[0], list(POINTS.values()), atol=1e-6
    )
    assert read_readings(case, list(POINTS)).shape == (1, 3, 3)


def test_the_longest_case_name_has_the_reading(root):
    add_case(root, "a.2")
    write_landmarks(root / "landmarks" / "a.2.ann.mrk.json", POINTS)
    readings = {case.name: len(case.readings) for case in read_dataset(root).cases}
    assert readings == {"a": 0, "a.2": 1, "b2": 0, "b10": 0}


def test_a_reading_of_no_case_is_a_problem(root):
    write_landmarks(root / "landmarks" / "c.ann.mrk.json", POINTS)
    (problem,) = find_problems(root)
    assert "c.ann.mrk.json: expected a volume named c.ann" in problem


def read_annotators(root, **kwargs):
    """case -> (annotator, names of the files)."""
    return {
        case.name: [(one.annotator, [path.name for path in one.paths]) for one in case.readings]
        for case in read_dataset(root, **kwargs).cases
    }


def test_a_repeated_reading_is_no_other_annotator(root):
    landmarks = root / "landmarks"
    for name, shift in (("ann", 0.0), ("ann-2", 4.0), ("bob", 8.0), ("ann-10", 2.0)):
        moved = {label: point + shift for label, point in POINTS.items()}
        write_landmarks(landmarks / f"a.{name}.mrk.json", moved)
    write_landmarks(landmarks / "b2.ann-2.fcsv", POINTS)  # the first one was lost
    (landmarks / "a.mrk.json").unlink()
    found = read_annotators(root)
    files = ["a.ann.mrk.json", "a.ann-2.mrk.json", "a.ann-10.mrk.json"]
    assert found["a"] == [("ann", files), ("bob", ["a.bob.mrk.json"])]
    assert found["b2"] == [("ann", ["b2.ann-2.fcsv"])]
    dataset = read_dataset(root)
    case = dataset.cases[0]
    # how far annotators are apart is of their first readings; their mean is of all of them
    readings = read_readings(case, ["nose"])
    np.testing.assert_allclose(readings[:, 0], [POINTS["nose"], POINTS["nose"] + 8.0], atol=1e-6)
    points, _, _ = read_case_points(case, ["nose"])
    np.testing.assert_allclose(points[0], POINTS["nose"] + 5.0, atol=1e-6)  # of 2 and 8
    said = "repeated readings by the same annotator: ann-2 of ann, ann-10 of ann"
    assert said in dataset.assumptions


def test_numbered_readers_are_several_people(root):
    for name in ("reader-1", "reader-2"):
        write_landmarks(root / "landmarks" / f"a.{name}.mrk.json", POINTS)
    assert [name for name, _ in read_annotators(root)["a"]] == ["reader-1", "reader-2"]


def test_landmarks_alone_where_no_volume_is_needed(tmp_path):
    for name in ("a.1.ann", "a.1.bob", "b.ann", "c"):
        write_landmarks(tmp_path / "landmarks" / f"{name}.mrk.json", POINTS)
    dataset = read_dataset(tmp_path, need_volumes=False)
    assert [(c.name, c.volume_path, len(c.readings)) for c in dataset.cases] == [
        ("a.1", None, 2),
        ("b", None, 1),
        ("c", None, 0),
    ]
    (problem,) = find_problems(tmp_path)
    assert f"{tmp_path / 'volumes'}: expected a folder with volumes" in problem
    (tmp_path / "volumes").mkdir()  # who has the folder means it
    (problem,) = find_problems(tmp_path, need_volumes=False)
    assert f"{tmp_path / 'volumes'}: expected files that end in" in problem


def test_a_choice_of_the_landmarks(root):
    (root / "landmarks.csv").write_text(TABLE)
    dataset = read_dataset(root)
    pair = select_landmarks(dataset, ("L", "R"))
    assert pair.labels == ("L", "R") and pair.mirror_index.tolist() == [1, 0]
    alone = select_landmarks(dataset, ("nose", "L"))
    assert alone.labels == ("nose", "L") and alone.mirror_index is None
    assert "no flips: L without the other side's" in alone.assumptions
    with pytest.raises(ValueError, match="expected landmarks of .* got chin"):
        select_landmarks(dataset, ("nose", "chin"))


def test_links_to_nothing_are_named(root):
    """As annex and datalad leave files that were not fetched."""
    volume, landmarks = root / "volumes" / "a.nii.gz", root / "landmarks" / "b2.mrk.json"
    for path in (volume, landmarks):
        path.unlink()
        path.symlink_to("../.git/annex/objects/xy")
    problems = find_problems(root)
    assert f"{volume}: expected a volume file, got a link to nothing" in "\n".join(problems)
    assert f"{landmarks}: expected a landmark file, got a link to nothing" in "\n".join(problems)


def test_a_name_with_an_accent_is_one_name_however_it_is_stored(tmp_path):
    """é as one code point or as two, in files and in tables."""
    one, two = "caf\u00e9", "cafe\u0301"
    add_case(tmp_path, two, landmarks=None)
    add_case(tmp_path, one, points={f"{two}L": POINTS["L"]}, volume=None)
    (tmp_path / "cases.csv").write_text(f"case,subject,visible\n{two},s1,{one}L\n")
    dataset = read_dataset(tmp_path)
    assert [case.name for case in dataset.cases] == [one] and dataset.labels == (f"{one}L",)
    assert dataset.cases[0].visible == {f"{one}L"}
