"""How tests compile: quickly, for most of their seconds are XLA's, or as a user's programs are."""

from importlib.metadata import version

# The same programs; only machine code is made with less care. Not level 0: it rounds otherwise,
# so that bounds of a few of float32's last digits are missed, and a detector of boxes ends in NaN.
_QUICK = {"xla_backend_optimization_level": 1, "xla_cpu_parallel_codegen_split_count": 1}
# compiler_options of a jit whose rounding a test looks at: XLA's defaults
AS_USERS = {"xla_backend_optimization_level": 3, "xla_cpu_parallel_codegen_split_count": 32}
# a flag that a jaxlib does not know ends the process; later ones have no choice of emitters
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):
    _QUICK["xla_cpu_use_fusion_emitters"] = False
    AS_USERS["xla_cpu_use_fusion_emitters"] = True
QUICK = " ".join(f"--{name}={str(value).lower()}" for name, value in _QUICK.items())
