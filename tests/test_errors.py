"""A user's mistake, or several: each keeps its line."""

from fetal_jax.errors import InputError


def test_each_problem_is_a_line():
    error = InputError("a.nii: expected voxels, got none", "b.nii: expected a shape, got ()")
    assert error.problems == ["a.nii: expected voxels, got none", "b.nii: expected a shape, got ()"]
    assert str(error).splitlines() == error.problems
    assert InputError("one").problems == ["one"]
