"""Readings as arrays: whose, which, and what there is none of."""

import numpy as np
import pytest

from fetal_jax.data.dataset import read_dataset
from fetal_jax.data.observers import read_observers
from fetal_jax.errors import InputError
from fetal_jax.io.markups import write_landmarks


@pytest.fixture
def write(tmp_path):
    """write(name, x of each label) is a landmark file of the data set in tmp_path."""

    def run(name, **x):
        points = {label: np.array([value, 0.0 * value, 0.0 * value]) for label, value in x.items()}
        write_landmarks(tmp_path / "landmarks" / f"{name}.mrk.json", points)

    return run


def test_readings_by_case_annotator_and_repeat(write, tmp_path):
    write("a", L=99.0, R=99.0)  # the case's own file is nobody's reading
    write("a.bob", L=1.0)
    write("a.ann", L=2.0, R=3.0)
    write("a.ann-2", L=4.0, R=np.nan)
    write("b.bob", L=5.0, R=6.0)
    write("c", L=99.0, R=99.0)
    (tmp_path / "cases.csv").write_text("case,subject,visible\na,s,L\nb,s,\nc,t,\n")
    observed = read_observers(read_dataset(tmp_path, need_volumes=False))
    assert [case.name for case in observed.cases] == ["a", "b"] and observed.subjects == ["s", "s"]
    assert observed.annotators == ("ann", "bob") and observed.labels == ("L", "R")
    nan = np.nan
    np.testing.assert_array_equal(
        observed.points_mm[..., 0],
        [[[[2, 3], [4, nan]], [[1, nan], [nan, nan]]], [[[nan] * 2] * 2, [[5, 6], [nan, nan]]]],
    )
    np.testing.assert_array_equal(
        observed.read, [[[True, True], [True, False]], [[False, False], [True, False]]]
    )
    np.testing.assert_array_equal(observed.visible, [[True, False], [True, True]])


def test_one_reading_a_case_is_no_agreement(write, tmp_path):
    write("a.ann", L=1.0)
    write("b.bob", L=1.0)
    write("c", L=1.0)
    expected = "landmarks: expected two readings of a case, .* got 2 cases with one and 1 with none"
    with pytest.raises(InputError, match=expected):
        read_observers(read_dataset(tmp_path, need_volumes=False))
