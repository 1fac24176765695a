"""What each look adds, by arithmetic: over all parts, with whom it agreed, and its file."""

import numpy as np
import pytest

from fetal_jax.errors import InputError
from fetal_jax.io.arrays import write_arrays
from fetal_jax.runs import stages
from fetal_jax.runs.second_look import Look

OFF_MM = (8.0, 4.0, 2.0, 1.0)  # of the first network, the mean shape, two looks


def make_look(points_mm, shape_mm, agreeing):
    n, count, _ = points_mm.shape
    share = np.full(n, agreeing)
    return Look(points_mm, points_mm, np.ones((n, count)), None, None, shape_mm, share, share)


def find_stages(cases, agreeing=0.75):
    first, shape, one, two = (cases.points_mm + [off, 0.0, 0.0] for off in OFF_MM)
    looks = [make_look(one, shape, agreeing), make_look(two, shape, 1.0)]
    return stages.list_stages(first, looks)


def test_each_stage_has_its_row(faces):
    rows = stages.summarise_stages([(faces, find_stages(faces))])
    assert [row["stage"] for row in rows] == [
        "first network",
        "mean shape in the frame",
        "second network, look 1",
        "second network, look 2",
    ]
    assert [row["d_mean_mm"] for row in rows] == pytest.approx(OFF_MM)
    assert [row["d_median_mm"] for row in rows] == pytest.approx(OFF_MM)
    assert [row.get("agreeing") for row in rows] == [None, None, 0.75, 1.0]
    assert rows[0]["no_frame"] == 0 and rows[0]["truth_d_mean_mm"] is None


def test_parts_count_together_and_those_without_a_frame_are_told(faces):
    parts = [
        (faces.select([0, 1]), find_stages(faces.select([0, 1]))),
        (faces.select([2]), find_stages(faces.select([2]), agreeing=0.25)),
    ]
    rows = stages.summarise_stages(parts)
    assert rows[0]["no_frame"] == 1
    assert rows[2]["agreeing"] == pytest.approx((0.75 + 0.75 + 0.25) / 3)
    assert rows[3]["d_mean_mm"] == pytest.approx(1.0)


def test_the_file_and_back(faces, tmp_path):
    assert stages.read_stages(tmp_path) is None
    kept = find_stages(faces)
    stages.write_stages(tmp_path, kept)
    for one, other in zip(stages.read_stages(tmp_path), kept, strict=True):
        np.testing.assert_array_equal(one, other)
    path = tmp_path / stages.STAGES_NPZ
    for content in ({}, {"points_mm": np.zeros(3)}):
        write_arrays(path, content)
        with pytest.raises(InputError, match="stages.npz: expected what each look of a run found"):
            stages.read_stages(tmp_path)
