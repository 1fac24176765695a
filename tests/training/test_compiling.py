"""Programs: one for each kind of arguments, and options that an older jaxlib may lack."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetal_jax.training import compiling


@pytest.fixture
def double():
    """A function compiled at call, and the kinds of arguments that it was traced with."""
    traced = []

    @jax.jit
    def function(tree):
        traced.append([leaf.dtype.name for leaf in jax.tree.leaves(tree)])
        return jax.tree.map(lambda x: x + x, tree)

    return compiling.compile_at_call(function, "cpu"), traced


def test_one_program_for_each_kind_of_arguments(double):
    run, traced = double
    for _ in range(2):
        assert run({"a": jnp.ones(2)})["a"].dtype == jnp.float32
        assert run({"a": jnp.ones(2, jnp.int32)})["a"].dtype == jnp.int32  # the same shape
        assert run((jnp.ones(2),))[0].tolist() == [2.0, 2.0]  # the same leaf, another tree
    assert traced == [["float32"], ["int32"], ["float32"]]


class Lowered:
    """Stands for a lowered program whose compiler knows no options."""

    def __init__(self, error):
        self.error, self.asked = error, []

    def lower(self, *args):
        return self

    def as_text(self):
        return ""

    def compile(self, **options):
        self.asked.append(options)
        if options:
            raise jax.errors.JaxRuntimeError(self.error)
        return "program"


def test_an_unknown_option_is_left_out():
    lowered = Lowered("INVALID_ARGUMENT: No such compile option: 'xla_cpu_new'")
    assert compiling.compile_faster(lowered, platform="cpu") == "program"
    assert len(lowered.asked) == 2


def test_another_error_is_not_tried_again():
    lowered = Lowered("RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes")
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        compiling.compile_faster(lowered, platform="cpu")
    assert len(lowered.asked) == 1


def test_the_option_is_known_to_this_jaxlib():
    """Else every program would be compiled twice without a word."""
    jax.jit(jnp.sin).lower(1.0).compile(compiler_options=compiling.FASTER["cpu"])


def test_memory_of_a_program():
    """Arguments and results of 4 KiB each, at least."""
    program = jax.jit(lambda x: x + 1).lower(np.ones(1024, np.float32)).compile()
    assert compiling.measure_memory(program) >= 2 * 4096


def test_fresh_parameters_are_the_same_however_they_are_compiled():
    """Random numbers, their scaling and a sum: bit for bit."""

    def create(key):
        kernel = jax.nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")
        return {
            "kernel": kernel(key, (3, 3, 3, 8, 16)),
            "norm": jax.random.normal(key, (64,)).sum(),
        }

    key = jax.random.key(3)
    found, expected = compiling.run_once(create, key), jax.jit(create)(key)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
