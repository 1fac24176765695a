"""What devices exchange in a step, read off the compiled program, and what that costs on paper."""

import math
import re

# Bytes a second that leave one device, in one direction, as published:
# - NVLink 4: 900 GB/s of an H100 SXM in both directions together, of eight GPUs in one machine
#   (NVIDIA H100 Tensor Core GPU datasheet; "900GB/s of bidirectional GPU-to-GPU bandwidth" in that
#   of the DGX H100).
# - Between such machines 400 Gb/s for each GPU, a ConnectX-7 (DGX H100 datasheet).
# - TPU v5e: 1,600 Gb/s of interchip interconnect a chip, over four ports of a 2D torus
#   (cloud.google.com/tpu/docs/v5e; today's page says 400 GB/s in both directions, the same).
LINKS = {
    "H100, NVLink 4 in one machine": (450e9, (8,)),
    "H100, 400 Gb/s between machines": (50e9, (64,)),
    "TPU v5e, ICI": (200e9, (8, 64)),
}
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "f64": 8}
_ALL_REDUCE = re.compile(r"= (?P<shapes>.+?) all-reduce(-start)?\(")
_SHAPE = re.compile(r"(?P<kind>[a-z]+[0-9]*)\[(?P<sizes>[0-9,]*)\]")


def count_all_reduced_bytes(program: str) -> int:
    """Bytes that all-reduces of a compiled program (`as_text()`) sum, those of one device.

    An all-reduce gives back what it takes, so the shapes of its results are those of its operands.
    """
    total = 0
    for found in _ALL_REDUCE.finditer(program):
        for shape in _SHAPE.finditer(found["shapes"]):
            sizes = [int(size) for size in shape["sizes"].split(",") if size]
            total += math.prod(sizes) * BYTES[shape["kind"]]
    return total


def estimate_exchange_seconds(summed_bytes: float, devices: int, bytes_s: float) -> float:
    """Of a ring: each device sends 2 (n - 1)/n of what is summed. No latency, nothing overlaps."""
    return 2 * (devices - 1) / devices * summed_bytes / bytes_s


def format_estimate(summed_bytes: float, step_s: float) -> list[str]:
    """Markdown lines: what the published links would add to a step of so many seconds.

    Each at its published speed and at half of it, for what a collective reaches is less.
    """
    lines = [
        "| link | devices | exchange, ms | at half the speed | efficiency of the step |",
        "| --- | --- | --- | --- | --- |",
    ]
    for link, (bytes_s, counts) in LINKS.items():
        for devices in counts:
            fast, slow = (
                estimate_exchange_seconds(summed_bytes, devices, speed)
                for speed in (bytes_s, bytes_s / 2)
            )
            best, worst = (step_s / (step_s + seconds) for seconds in (fast, slow))
            lines.append(
                f"| {link} | {devices} | {1e3 * fast:.3f} | {1e3 * slow:.3f} | "
                f"{100 * worst:.1f}–{100 * best:.1f} % |"
            )
    return lines
