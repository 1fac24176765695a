"""Results as Markdown."""

from statistics import median

HEADS = {
    "step": (
        "The whole step",
        "Batch, augmentation, forward, backward, clipping, Adam; batch 1, 19 landmarks.",
        ["side", "", "a step", "ratio", "peak memory", "memory of a step (ratio)"],
    ),
    "network": (
        "The network alone",
        "Forward and backward to every parameter; batch 1, 19 landmarks.",
        ["side", "", "a step", "ratio", "peak memory", "memory of a step (ratio)"],
    ),
    "loss": (
        "The loss alone",
        "Forward and backward, 19 landmarks. Scratch: what XLA allots beside logits and gradient.",
        ["side", "", "time", "ratio", "peak memory", "scratch"],
    ),
    "scaling": (
        "Cost against work",
        "Our whole step; ratios are to the first side.",
        ["side", "landmarks", "a step", "a voxel", "ratio a voxel", "peak memory", "ratio"],
    ),
    "start": (
        "Start",
        "From starting the process to the end of the first step, the first run and the second.",
        ["", "first run", "second run"],
    ),
    "inference": (
        "Inference",
        "Forward and decoding below the voxel; ours also computes each landmark's confidence.",
        ["side", "", "time", "ratio", "peak memory", "volumes a second"],
    ),
}


def milliseconds(seconds: list[float], digits: int = 0) -> str:
    return f"{1e3 * median(seconds):.{digits}f} ms"


def ratio(values: list[float] | None) -> str:
    """Median and range over the rounds."""
    if not values:
        return ""
    return f"{median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def format_results(results: dict) -> str:
    lines = [
        "<!-- written by python -m benchmarks.run -->",
        f"{results['machine']}. {results['rounds']} rounds. {_agreement(results['agreement'])}",
    ]
    if results["load_before"] > 0.25 * results["cores"]:
        lines += [
            "",
            f"**Other work was running (load {results['load_before']:.1f} on {results['cores']} "
            "cores before the start): these figures show that the program works, and are not to "
            "be quoted.**",
        ]
    for name, rows in results["tables"].items():
        title, note, head = HEADS[name]
        lines += ["", f"## {title}", "", note, "", *format_table(head, rows)]
    return "\n".join(lines) + "\n"


def format_table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [format_row(head), format_row(["---"] * len(head)), *map(format_row, rows)]


def _agreement(agreement: dict) -> str:
    """The largest difference in each arithmetic, in words."""
    parts = []
    for kind, differences in agreement["differences"].items():
        numbers = {n: d for n, d in differences.items() if not isinstance(d, str)}
        if numbers:
            largest = max(numbers, key=numbers.get)
            parts.append(
                f"in {kind} {', '.join(numbers)} by at most {numbers[largest]:.0e} ({largest})"
            )
        parts += [f"{n} in {kind}: {d}" for n, d in differences.items() if n not in numbers]
    return (
        f"With the same {agreement['parameters']:,} parameters ours and PyTorch's differ "
        + "; ".join(parts)
        + "."
    )


def format_row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
