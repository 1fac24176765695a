"""What a processor can do, by its flags. No jax, no torch."""

from pathlib import Path

BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # products of bfloat16; without them it is emulated
QUOTED = ("avx2", "fma", "avx512f", "avx512_vnni", *sorted(BFLOAT16))


def read_flags(path: Path = Path("/proc/cpuinfo")) -> set[str]:
    """The flags of the first processor; empty where the system does not list them."""
    if path.exists():
        for line in path.read_text().splitlines():
            name, _, flags = line.partition(":")
            if name.strip() == "flags":
                return set(flags.split())
    return set()


def list_dtypes(flags: set[str]) -> list[str]:
    """The arithmetic that contenders are timed in on a processor with these flags."""
    return ["float32", "bfloat16"] if flags & BFLOAT16 else ["float32"]


def describe_flags(flags: set[str]) -> str:
    """Those that matter here, and what follows from them."""
    found = ", ".join(flag for flag in QUOTED if flag in flags) or "unknown"
    if flags & BFLOAT16:
        return f"flags {found}"
    return f"flags {found}: none of {' or '.join(sorted(BFLOAT16))}, so no contender in bfloat16"
