"""Programs: one for each kind of arguments, and options that an older jaxlib may lack."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetal_jax.models.resunet3d import ResUNet3D
from fetal_jax.training import compiling

FASTER = compiling.FASTER["cpu"]
IN_XLAS_ORDER = {name: value for name, value in FASTER.items() if "scheduler" not in name}


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
    """Stands for a program whose compiler knows some options, or has another fault."""

    def __init__(self, known=(), fault=""):
        self.known, self.fault, self.asked = known, fault, 0

    def lower(self, *args):
        return self

    def as_text(self):
        return ""

    def compile(self, compiler_options):
        self.asked += 1
        if self.fault:
            raise jax.errors.JaxRuntimeError(self.fault)
        for name in compiler_options or {}:
            if name not in self.known:
                message = f"INVALID_ARGUMENT: No such compile option: '{name}'"
                raise jax.errors.JaxRuntimeError(message)
        return compiler_options


@pytest.fixture(autouse=True)
def no_flags(monkeypatch):
    """Flags of the tests' own would come before the options."""
    monkeypatch.setenv("XLA_FLAGS", "")


def test_what_a_user_asks_for_comes_first(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=here --xla_backend_optimization_level=3")
    chosen = compiling.compile_faster(Lowered(FASTER), platform="cpu")
    assert set(FASTER) - set(chosen) == {"xla_backend_optimization_level"}


@pytest.mark.parametrize("known", [[], *([name] for name in FASTER)], ids=str)
def test_an_unknown_option_is_left_out(known):
    kept = compiling.compile_faster(Lowered(known), platform="cpu")
    assert list(kept or {}) == known


@pytest.mark.parametrize(
    "fault",
    ["RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes", "No such compile option: 'another'"],
)
def test_another_error_is_not_tried_again(fault):
    lowered = Lowered(fault=fault)
    with pytest.raises(jax.errors.JaxRuntimeError, match=fault):
        compiling.compile_faster(lowered, platform="cpu")
    assert lowered.asked == 1


def test_the_options_are_known_to_this_jaxlib():
    """Else every program would be compiled several times without a word."""
    jax.jit(jnp.sin).lower(1.0).compile(compiler_options=FASTER)


def test_memory_of_a_program():
    """Arguments and results of 4 KiB each, at least."""
    program = jax.jit(lambda x: x + 1).lower(np.ones(1024, np.float32)).compile()
    assert compiling.measure_memory(program) >= 2 * 4096


@pytest.fixture(scope="module")
def gradients():
    """A small network's gradient: programs in our order of work and in XLA's, and arguments."""
    model = ResUNet3D(landmarks=3, widths=(4, 8))
    volumes = jnp.asarray(np.random.default_rng(0).random((1, 16, 16, 16, 1)), jnp.float32)
    params = jax.jit(model.init)(jax.random.key(0), volumes)
    measure = jax.jit(jax.grad(lambda p, v: jnp.sum(jnp.sin(model.apply(p, v).logits))))
    programs = [
        measure.lower(params, volumes).compile(compiler_options=options)
        for options in (FASTER, IN_XLAS_ORDER)
    ]
    return programs, (params, volumes)


def test_the_order_of_work_changes_no_number(gradients):
    (ours, xlas), args = gradients
    jax.tree.map(np.testing.assert_array_equal, ours(*args), xlas(*args))


def test_the_order_of_work_keeps_less(gradients):
    ours, xlas = map(compiling.measure_memory, gradients[0])
    assert ours < 0.9 * xlas


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
