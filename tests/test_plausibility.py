"""Errors that are put into readings are found and named, and what is right is left alone."""

from pathlib import Path

import numpy as np
import pytest
from face_shapes import LABELS, MIRROR_INDEX, NOISE_MM, SHAPE, make_faces, turn

from fetal_jax import plausibility
from fetal_jax.io.markups import read_landmarks
from fetal_jax.plausibility import Doubt, cross_check, describe_doubt, find_doubts


def judge(points_mm, scans=None, seen=None):
    subjects = scans or [f"s{i}" for i in range(len(points_mm))]
    usual, deviations = cross_check(points_mm, subjects, MIRROR_INDEX, seen)
    return find_doubts(usual, deviations, points_mm, scans)


def list_flagged(doubts):
    return {(i, k) for i, every in enumerate(doubts) for one in every for k in one.landmarks}


def test_nothing_is_wrong_with_what_is_right():
    assert judge(make_faces()) == [[]] * 60


def test_expectations_are_of_the_others_alone():
    """A point that is moved stays expected where it was, and is so far away."""
    points = make_faces()
    usual, before = cross_check(points, [str(i) for i in range(60)], MIRROR_INDEX)
    moved = points.copy()
    moved[7, 6] += (0, 0, 12.0)
    weights = np.ones(points.shape[:2])
    old, new = (plausibility.measure_deviations(usual, p, weights) for p in (points, moved))
    assert np.linalg.norm(new.expected_mm[7, 6] - old.expected_mm[7, 6]) < 1.0
    gap = np.linalg.norm(moved[7, 6] - new.expected_mm[7, 6])
    assert gap == pytest.approx(12, abs=2.5)
    assert new.times[7, 6] == pytest.approx(gap / new.sd_mm[7, 6])
    others = np.delete(np.arange(60), 7)
    np.testing.assert_allclose(new.times[others], old.times[others], rtol=1e-3, atol=1e-3)
    # the usual distance is that of the noise, and what the others do not tell
    assert (usual.sd_mm > 0.8 * NOISE_MM).all() and (usual.sd_mm < 3 * NOISE_MM).all()
    assert before.times.max() < plausibility.LIMIT


def test_faces_that_are_one_shape_leave_nothing_but_digits():
    rng = np.random.default_rng(0)
    points = np.stack([SHAPE * size @ turn(rng, 180).T for size in rng.uniform(0.8, 1.2, 12)])
    assert judge(points) == [[]] * 12
    points[4, 6] += 2.0
    assert list_flagged(judge(points)) == {(4, 6)}


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_slips_are_found_with_how_far_they_are(share):
    points, rng = make_faces(), np.random.default_rng(1)
    wrong = {divmod(int(j), 11) for j in rng.choice(660, int(660 * share), replace=False)}
    far = {}
    for i, k in sorted(wrong):
        far[i, k] = rng.uniform(8, 30)
        points[i, k] += turn(rng, 180) @ (far[i, k], 0, 0)
    doubts = judge(points)
    assert list_flagged(doubts) == wrong
    for i, k in wrong:
        (doubt,) = [one for one in doubts[i] if k in one.landmarks]
        assert doubt.kind == "slip" and doubt.away_mm == pytest.approx(far[i, k], abs=3)
    said = describe_doubt(doubt, LABELS)
    assert said.startswith(LABELS[doubt.landmarks[0]])
    assert f"{doubt.away_mm:.1f} mm from where the other landmarks expect it" in said


@pytest.mark.parametrize("pair", [(0, 1), (2, 3), (4, 5), (8, 9), (3, 8), (0, 10)])
@pytest.mark.parametrize("share", [0.02, 0.1])
def test_two_landmarks_that_were_exchanged(pair, share):
    """Sides, neighbours and any others, also where many did the same."""
    points, (a, b) = make_faces(), pair
    wrong = list(range(0, 60, int(1 / share)))
    for i in wrong:
        points[i, [a, b]] = points[i, [b, a]]
    doubts = judge(points)
    assert [i for i, every in enumerate(doubts) if every] == wrong
    for i in wrong:
        (doubt,) = doubts[i]
        assert doubt.kind == "exchanged" and set(doubt.landmarks) == {a, b}
        assert doubt.exchanged_mm < 4 < doubt.away_mm
        apart = np.linalg.norm(points[i, a] - points[i, b])
        assert doubt.away_mm == pytest.approx(apart, abs=4)
    said = describe_doubt(doubt, LABELS)
    assert "look exchanged" in said and f"{doubt.exchanged_mm:.1f} mm after the exchange" in said


@pytest.mark.parametrize("make_wrong", [lambda p: p * (-1, 1, 1), lambda p: p[MIRROR_INDEX]])
def test_a_mirrored_file_is_said_once(make_wrong):
    """The axis was flipped, or all labels of left and right are exchanged."""
    points = make_faces()
    points[3], points[40] = make_wrong(points[3]), make_wrong(points[40])
    doubts = judge(points)
    assert [i for i, every in enumerate(doubts) if every] == [3, 40]
    for i in (3, 40):
        (doubt,) = doubts[i]
        assert (doubt.kind, doubt.landmarks) == ("mirrored", ())
        assert doubt.exchanged_mm < 2 < doubt.away_mm
    assert "mirrored, or left and right exchanged" in describe_doubt(doubt, LABELS)


def test_a_file_that_is_no_face_is_said_once():
    points = make_faces()
    points[5] = np.random.default_rng(2).uniform(-40, 40, SHAPE.shape)
    doubts = judge(points)
    assert [i for i, every in enumerate(doubts) if every] == [5]
    assert [one.kind for one in doubts[5]] == ["unlike"]
    assert "do not lie as those of the other cases" in describe_doubt(doubts[5][0], LABELS)


def test_absent_points_say_nothing_and_are_not_judged():
    points = make_faces()
    points[::3, 2] = points[1::3, 9] = np.nan
    points[10, 5:] = np.nan  # five are left
    points[11, 4:] = np.nan  # four: it could be any of them
    points[12] = np.nan
    points[11, 0] += 40.0
    points[13, 0] += 20.0
    usual, deviations = cross_check(points, [str(i) for i in range(60)], MIRROR_INDEX)
    judged = np.isfinite(deviations.times)
    np.testing.assert_array_equal(judged.sum(axis=1)[[10, 11, 12]], [5, 0, 0])
    assert list_flagged(find_doubts(usual, deviations, points)) == {(13, 0)}


@pytest.mark.parametrize("one", [False, True])
def test_where_nothing_is_said_to_be_seen_all_are_alike(one):
    """Nor is one point that is, in a reading of too few, anything to measure by."""
    points = make_faces()
    seen = np.zeros(points.shape[:2], bool)
    if one:
        points[0, 1:] = np.nan
        seen[0, 0] = True
    points[7, 6] += (0, 0, 12.0)
    usual, _ = cross_check(points, [str(i) for i in range(60)], MIRROR_INDEX, seen)
    assert (usual.sd_mm > 0.8 * NOISE_MM).all() and (usual.sd_mm < 3 * NOISE_MM).all()
    assert list_flagged(judge(points, seen=seen)) == {(7, 6)}


def test_a_landmark_that_was_not_seen_may_be_further_off():
    points, rng = make_faces(), np.random.default_rng(3)
    seen = rng.random(points.shape[:2]) > 0.2
    points = np.where(seen[..., None], points, points + rng.normal(0, 2.5, points.shape))
    assert len(list_flagged(judge(points))) > 20
    flagged = list_flagged(judge(points, seen=seen))
    assert len(flagged) <= 3  # normal noise has no such tails
    points[8, 1] += 30.0
    seen[8, 1] = False
    assert (8, 1) in list_flagged(judge(points, seen=seen))


# ---- several readers ----


def read_by(points, readers, noise_mm=0.7, seed=4):
    """Each scan read by so many: readings, and the scan of each."""
    rng = np.random.default_rng(seed)
    readings = np.repeat(points, readers, axis=0)
    scans = [f"scan{i // readers}" for i in range(len(readings))]
    return readings + rng.normal(0, noise_mm, readings.shape), scans


def test_what_another_reader_set_there_too_is_anatomy():
    faces = make_faces(n=30)
    faces[4, 7] += turn(np.random.default_rng(0), 180) @ (15.0, 0, 0)  # a nose like no other
    readings, scans = read_by(faces, 3)
    assert {i // 3 for i, _ in list_flagged(judge(readings))} == {4}
    assert not list_flagged(judge(readings, scans))


def test_a_reader_who_is_alone_is_named_though_the_shape_allows_it():
    readings, scans = read_by(make_faces(n=30, noise_mm=2.5), 3)
    readings[31, 8] += (0, 9.0, 0)  # of ten that are no surprise in so loose a shape
    doubts = judge(readings, scans)
    assert list_flagged(doubts) == {(31, 8)}
    (doubt,) = doubts[31]
    assert doubt.kind == "readers" and doubt.away_mm == pytest.approx(9, abs=2.5)
    assert "from the nearest that another reader set" in describe_doubt(doubt, LABELS)


def test_of_two_readers_the_shape_says_who_is_wrong():
    readings, scans = read_by(make_faces(n=30), 2)
    readings[21, 6] += (0, 0, 15.0)
    assert list_flagged(judge(readings, scans)) == {(21, 6)}


def test_the_nearest_other_reader_by_hand():
    points = np.array([[0.0, 0, 0], [3, 0, 0], [3, 4, 0], [9, 9, 9]])[:, None]
    points = np.concatenate([points, points], axis=1)
    points[1, 1] = np.nan
    nearest = plausibility.measure_nearest(points, ["a", "a", "a", "b"])
    np.testing.assert_allclose(nearest[:, 0], [3, 3, 4, np.nan])
    np.testing.assert_allclose(nearest[:, 1], [5, np.nan, 5, np.nan])


@pytest.mark.parametrize(
    ("points", "subjects", "words"),
    [
        (make_faces(n=7), "abcdefg", "expected 8 readings .* got 7 of 7"),
        (make_faces(n=12), "aaabbbcccddd", "of 5 subjects, got 12 of 4"),
        (make_faces(n=12)[:, :4], "abcdefghijkl", "with 5 landmarks or more, .* got 0 of 0"),
    ],
)
def test_too_little_to_say_what_is_usual(points, subjects, words):
    with pytest.raises(ValueError, match=words):
        cross_check(points, list(subjects))


def test_a_subject_is_judged_without_its_own_scans():
    """All three scans of a child have the same slip: it is none the less found in each."""
    points = make_faces(n=60)
    subjects = [f"s{i // 3}" for i in range(60)]
    points[[0, 1, 2], 9] += [
        10.0 * (p[6] - p[10]) / np.linalg.norm(p[6] - p[10]) for p in points[:3]
    ]
    usual, deviations = cross_check(points, subjects, MIRROR_INDEX)
    assert list_flagged(find_doubts(usual, deviations, points)) == {(0, 9), (1, 9), (2, 9)}


def test_words_of_each_kind():
    nan = float("nan")
    for kind in ("slip", "readers"):
        said = describe_doubt(Doubt(kind, (7,), 9.25, nan, 6.4), LABELS)
        assert said.startswith("prn is 9.2 mm from") and said.endswith("6 times what is usual")


# ---- real annotators ----

AFIDS = Path(__file__).parents[2] / "shared" / "data" / "afids-qc"


@pytest.mark.skipif(not AFIDS.is_dir(), reason="the annotations are not there")
def test_real_errors_of_annotators():
    """32 points of 36 brains by three readers each; what their authors put right later is known."""
    paths = sorted((AFIDS / "raw").rglob("*.fcsv"))
    labels = [str(i + 1) for i in range(32)]
    absent = np.full(3, np.nan)

    def read(path):
        points = read_landmarks(path)
        return [points.get(label, absent) for label in labels]

    raw = np.array([read(path) for path in paths])
    corrected = np.array([read(AFIDS / "corrected" / path.name) for path in paths])
    moved_mm = np.linalg.norm(raw - corrected, axis=-1)
    wrong, grave = moved_mm > 0.1, moved_mm > 5
    assert (wrong.sum(), grave.sum()) == (42, 27)
    scans = [path.name.split("_T1_")[0] for path in paths]
    usual, deviations = cross_check(raw, [scan[:9] for scan in scans])
    doubts = find_doubts(usual, deviations, raw, scans)
    flagged = np.zeros(wrong.shape, bool)
    for i, k in list_flagged(doubts):
        flagged[i, k] = True
    assert (flagged & grave).sum() >= 23  # of 27
    assert (flagged & ~wrong).sum() <= 25  # of 3,414, readers that are 5 to 26 mm apart
    # the three pairs that were exchanged, and none else
    exchanged = [
        (paths[i].name[5:9], *sorted(int(labels[k]) for k in one.landmarks))
        for i, every in enumerate(doubts)
        for one in every
        if one.kind == "exchanged"
    ]
    assert exchanged == [("0266", 27, 28), ("0303", 6, 7), ("0456", 27, 28)]
