"""A data set's landmark files against each other."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from face_shapes import LABELS, MIRROR_INDEX, make_faces

from fetal_jax.data import annotation_check
from fetal_jax.data.case_table import Case, Readings
from fetal_jax.data.dataset import Dataset
from fetal_jax.data.landmark_table import Landmark
from fetal_jax.io.markups import write_landmarks


def write_cohort(root, faces, annotators=()):
    """Landmark files of each face; with annotators one of each, of noise."""
    rng, cases = np.random.default_rng(0), []
    for i, face in enumerate(faces):
        paths = [root / f"c{i:02}{name and '.'}{name}.mrk.json" for name in annotators or ("",)]
        for path in paths:
            noise = rng.normal(0, 0.5, face.shape) if annotators else 0.0
            write_landmarks(path, dict(zip(LABELS, face + noise, strict=True)))
        own, readings = paths[0], ()
        if annotators:
            own = None
            readings = tuple(map(Readings, annotators, ((path,) for path in paths)))
        cases.append(Case(f"c{i:02}", Path("v.nii"), own, readings=readings, subject=f"s{i}"))
    landmarks = tuple(
        Landmark(label, mirror=LABELS[k] if LABELS[k] != label else "")
        for label, k in zip(LABELS, MIRROR_INDEX, strict=True)
    )
    return Dataset(root, tuple(cases), landmarks, ())


def check(dataset):
    return annotation_check.check_annotations(
        dataset, annotation_check.read_annotations(dataset, None)
    )


def test_the_worst_of_a_data_set_first(tmp_path):
    faces = make_faces(n=30)
    faces[3, [0, 1]] = faces[3, [1, 0]]
    faces[7] *= (-1, 1, 1)
    faces[9, 7] += 9.0
    faces[20] = faces[19]
    findings = check(write_cohort(tmp_path, faces))
    assert [(one.case, one.kind) for one in findings] == [
        ("c20", "copy"),
        ("c07", "mirrored"),
        ("c03", "exchanged"),
        ("c09", "slip"),
    ]
    assert findings[0].what == "its points are those of c19.mrk.json: a file of another scan"
    assert findings[2].path == tmp_path / "c03.mrk.json"
    assert set(findings[2].labels) == {"exL", "exR"}
    table = tmp_path / "annotations.csv"
    annotation_check.write_findings(table, findings)
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == annotation_check.COLUMNS
    assert [row["what"] for row in rows] == [one.what for one in findings]
    assert float(rows[3]["away_mm"]) == pytest.approx(findings[3].away_mm, abs=0.01)
    assert rows[3]["exchanged_mm"] == rows[0]["away_mm"] == ""


def test_the_worst_in_a_line(tmp_path):
    faces = make_faces(n=16)
    dataset = write_cohort(tmp_path, faces)
    assert annotation_check.describe_worst(dataset, None) is None
    faces[3, [0, 1]] = faces[3, [1, 0]]
    said = annotation_check.describe_worst(write_cohort(tmp_path, faces), None)
    assert said.startswith("1 of 176 annotated points or their files look wrong, most of all ")
    assert "c03.mrk.json: ex" in said and said.endswith("; --mode=check lists them")
    # too few to compare, and so nothing is said
    assert annotation_check.describe_worst(replace(dataset, cases=dataset.cases[:5]), None) is None


def test_of_several_annotators_each_file_is_looked_at(tmp_path):
    faces = make_faces(n=16)
    dataset = write_cohort(tmp_path, faces, annotators=("ann", "bob", "cat"))
    assert check(dataset) == []
    wrong = faces[5].copy()
    wrong[8] += (0.0, 0.0, 9.0)
    write_landmarks(tmp_path / "c05.bob.mrk.json", dict(zip(LABELS, wrong, strict=True)))
    (finding,) = check(dataset)
    assert (finding.path.name, finding.labels) == ("c05.bob.mrk.json", ("sn",))


def test_a_reading_twice_of_one_scan_is_no_copy(tmp_path):
    dataset = write_cohort(tmp_path, make_faces(n=16), annotators=("ann", "bob"))
    (tmp_path / "c01.bob.mrk.json").write_bytes((tmp_path / "c01.ann.mrk.json").read_bytes())
    assert check(dataset) == []
    (tmp_path / "c02.bob.mrk.json").write_bytes((tmp_path / "c01.ann.mrk.json").read_bytes())
    assert ("c02", "copy") in [(one.case, one.kind) for one in check(dataset)]


def test_points_that_cannot_be_seen_are_known_to_be_rough(tmp_path):
    dataset = write_cohort(tmp_path, make_faces(n=16))
    cases = tuple(replace(case, visible=frozenset(LABELS[2:])) for case in dataset.cases)
    readings = annotation_check.read_annotations(replace(dataset, cases=cases), None)
    assert not readings.seen[:, :2].any() and readings.seen[:, 2:].all()
    assert annotation_check.read_annotations(dataset, None).seen.all()
