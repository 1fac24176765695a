"""How tests compile: quickly, for most of their seconds are XLA's, or as a user's programs are."""

# The same programs; only machine code is made with less care. Not level 0: it rounds otherwise,
# so that bounds of a few of float32's last digits are missed, and a detector of boxes ends in NaN.
QUICK = (
    "--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1"
)
# compiler_options of a jit whose rounding a test looks at: XLA's defaults
AS_USERS = {
    "xla_backend_optimization_level": 3,
    "xla_cpu_use_fusion_emitters": True,
    "xla_cpu_parallel_codegen_split_count": 32,
}
