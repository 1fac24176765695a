"""Programs compiled with what suits the platform, and what they need."""

import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax

from fetal_jax.models import onednn

# Measured on two cores with jaxlib 0.10.2, for a step at 64³.
FASTER = {
    "cpu": {
        # another library for matrix products: a sixth off the time
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT",
        # an order of work that keeps few buffers alive: a quarter off the memory, in bfloat16 a
        # third, at no cost. XLA's own order begins early what could run beside something else.
        "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
        # a fifth off the seconds to compile, four fifths for fresh parameters; steps are no slower
        "xla_backend_optimization_level": 1,
    }
}


def compile_at_call(mapped: Callable, platform: str, *, whole: bool = True) -> Callable:
    """`mapped`, compiled by `compile_faster` for each kind of arguments that it meets."""
    programs = {}

    def run(*args):
        leaves, tree = jax.tree.flatten(args)
        kind = tree, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        if kind not in programs:
            programs[kind] = compile_faster(mapped, *args, platform=platform, whole=whole)
        return programs[kind](*args)

    return run


def run_once(function: Callable, *args: Any) -> Any:
    """function(*args) as a program that runs once."""
    return compile_faster(jax.jit(function), *args)(*args)


def compile_faster(
    mapped: Callable, *args: Any, platform: str = "", whole: bool = True
) -> jax.stages.Compiled:
    """The program of mapped(*args), with what suits the platform, if jaxlib has it.

    Args:
      whole: each device has whole examples, so that XLA's partitioner, which cannot split a call of
        another library, has nothing to split.
    """
    platform = platform or jax.default_backend()
    with_onednn = whole and platform == "cpu" and onednn.is_there()
    with onednn.allowed(with_onednn):
        lowered = mapped.lower(*args)
    with keep_on_disk(not (with_onednn and onednn.is_called(lowered))):
        said = os.environ.get("XLA_FLAGS", "")  # what a user asks for comes first
        chosen = FASTER.get(platform, {}).items()
        return _compile(lowered, {name: value for name, value in chosen if name not in said})


def _compile(lowered, options):
    """With those of the options that this jaxlib has."""
    while True:
        try:
            return lowered.compile(compiler_options=options or None)
        except jax.errors.JaxRuntimeError as error:
            unknown = re.search(r"No such compile option: '(\w+)'", str(error))
            if not unknown or unknown[1] not in options:
                raise
            del options[unknown[1]]


@contextmanager
def keep_on_disk(keep: bool) -> Iterator[None]:
    """Whether what is compiled meanwhile may go into JAX's cache on disk."""
    name = "jax_persistent_cache_min_compile_time_secs"
    seconds = getattr(jax.config, name)
    if not keep:
        jax.config.update(name, math.inf)
    try:
        yield
    finally:
        jax.config.update(name, seconds)


def measure_memory(program: jax.stages.Compiled) -> int:
    """Bytes that a program needs on each device: arguments, results and scratch."""
    used = program.memory_analysis()
    there = used.argument_size_in_bytes + used.output_size_in_bytes - used.alias_size_in_bytes
    return there + used.temp_size_in_bytes
