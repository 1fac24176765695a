"""Everything that wants a GPU or TPU, in ten minutes: tests, steps, the study's recipe, the loss.

    python -m benchmarks.accelerator --output=benchmarks/accelerator.md
    python -m benchmarks.accelerator --platform=cpu --sides=16 --output=rehearsal.md

Needs JAX with the accelerator's plugin; PyTorch with CUDA for the rows beside it, and
requirements-dev.txt for the tests. What is not there is said in its row. The table is written line
by line; each part has a time limit (`--limits`), and one that is out of time loses no other. The
second command rehearses all of it on a CPU, and tells nothing about speed.

Contenders run one after another, for some accelerators serve one process at a time; so a ratio is
of medians over blocks, and its range is not known. Each is a process of its own, and its peak is
what that process took on the device, set-up included. What they print stands in a .log beside
the output.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import TextIO

from benchmarks import protocol, tables
from benchmarks.bench import Timing, count_steps, make_environment
from benchmarks.contenders import LANDMARKS, OURS

BLOCKS, BLOCK_SECONDS = 5, 1.0
# Of the study's 726 volumes three of four folds train.
TRAINED, BATCH = 544, 2
PEERS = {
    "PyTorch compiled, channels last": {"compiled": True, "channels": "last"},
    "PyTorch compiled, channels first": {"compiled": True, "channels": "first"},
}
LIMITS = {"tests": 90, "step": 100, "recipe": 120, "loss": 60}  # seconds; "step" is of each side
TESTS = ["-m", "pytest", "-n", "0", "-m", "accelerator", "tests"]
TESTS += ["-p", "no:cacheprovider", "--continue-on-collection-errors"]

Row = list[str]


@dataclass
class Machine:
    """Where it runs, and until when a part may.

    Attributes:
      kind: of the device, as JAX names it.
      copy_bytes_s: read and written.
      peers: why PyTorch cannot stand beside ours; empty if it can.
    """

    environment: dict[str, str]
    log: TextIO
    rehearsal: bool
    kind: str = ""
    copy_bytes_s: float = 0.0
    peers: str = ""
    deadline: float = 0.0

    def measure(self, module: str, settings: dict) -> Timing:
        """One contender alone, from its start to its end; NotAvailable where it cannot be."""
        worker = protocol.Worker(module, settings, self.environment, self.log, self.deadline)
        steps = count_steps(worker.facts["warm_seconds"], BLOCK_SECONDS)
        seconds = [worker.run(steps) for _ in range(BLOCKS)]
        return Timing(seconds, worker.finish(), worker.facts)


def find_machine(machine: Machine) -> str:
    """Fill in the device and PyTorch's; why there is nothing to run on, else ''."""
    machine.deadline = time.monotonic() + 90
    try:
        copy = machine.measure("benchmarks.ours", {"measure": "copy", "mib": 512})
    except protocol.NotAvailable as error:
        return f"JAX starts no device: {error}"
    if copy.facts["device"] == "cpu" and not machine.rehearsal:
        return "needs a GPU or TPU that JAX finds, got a CPU; --platform=cpu --sides=16 rehearses"
    machine.kind = copy.facts["kind"]
    machine.copy_bytes_s = copy.facts["copied_bytes"] / median(copy.seconds)
    code = "import torch; print(torch.cuda.is_available())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=machine.environment
    )
    if done.returncode:
        machine.peers = "PyTorch is not installed"
    elif not machine.rehearsal and done.stdout.split()[-1:] != ["True"]:
        machine.peers = "PyTorch sees no GPU"
    return ""


def run_tests(machine: Machine) -> Iterator[Row]:
    """The tests that the suite marks as needing an accelerator."""
    rehearsal = {"FETAL_JAX_REHEARSAL": "1"} if machine.rehearsal else {}
    try:
        done = subprocess.run(
            [sys.executable, *TESTS],
            capture_output=True,
            text=True,
            env=machine.environment | rehearsal,
            timeout=max(0.0, machine.deadline - time.monotonic()),
        )
    except subprocess.TimeoutExpired:
        yield ["pytest -m accelerator", "out of time"]
        return
    machine.log.write(done.stdout + done.stderr)
    last = (done.stdout + done.stderr).strip().splitlines()[-1:]
    yield ["pytest -m accelerator", "".join(last).strip("= ")]
    for line in done.stdout.splitlines():
        if line.startswith(("FAILED", "ERROR")):
            yield [line.split(" - ")[0], "failed"]


def time_steps(machine: Machine, side: int, steps: dict[int, float]) -> Iterator[Row]:
    """Our step in bfloat16, with remat too, and PyTorch's compiled; last the ratio.

    Args:
      steps: gets the seconds of ours, without remat.
    """
    shared = {"measure": "step", "side": side, "landmarks": LANDMARKS, "dtype": "bfloat16"}
    contenders = {
        OURS: ("benchmarks.ours", shared),
        f"{OURS}, remat": ("benchmarks.ours", shared | {"remat": True}),
    }
    if not machine.peers:
        contenders |= {n: ("benchmarks.peer", shared | form) for n, form in PEERS.items()}
    peers = []
    for name, (module, settings) in contenders.items():
        try:
            timing = machine.measure(module, settings)
        except protocol.NotAvailable as error:
            yield [f"{side}³", name, f"not available: {error}", "", ""]
            continue
        shown = tables.milliseconds(timing.seconds, digits=2)
        yield [f"{side}³", name, shown, *format_memory(timing.memory)]
        if name == OURS:
            steps[side] = median(timing.seconds)
        elif name in PEERS:
            peers.append(median(timing.seconds))
    if machine.peers:
        yield [f"{side}³", "PyTorch compiled", f"skipped: {machine.peers}", "", ""]
    elif side in steps and peers:
        ratio = f"{steps[side] / min(peers):.2f}"
        yield [f"{side}³", f"{OURS} over the fastest PyTorch", ratio, "", ""]


def time_recipe(machine: Machine, side: int) -> Iterator[Row]:
    """configs/emd.py:paper: memory by the compiler, a step, and an epoch computed from it."""
    steps = -(-TRAINED // BATCH)
    for dtype in ("bfloat16", "float32"):
        for remat in (True, False):
            what = f"{dtype}, {'with' if remat else 'no'} remat"
            settings = {"measure": "step", "side": side, "landmarks": LANDMARKS}
            settings |= {"dtype": dtype, "remat": remat, "recipe": "paper"}
            try:
                timing = machine.measure("benchmarks.ours", settings)
            except protocol.NotAvailable as error:
                yield [f"{side}³", what, f"not available: {error}", "", "", ""]
                continue
            epoch = f"{median(timing.seconds) * steps:.1f} s"
            shown = tables.milliseconds(timing.seconds, digits=2)
            yield [f"{side}³", what, shown, epoch, *format_memory(timing.memory)]


def time_losses(machine: Machine, sides: list[int], steps: dict[int, float]) -> Iterator[Row]:
    """The loss alone, both ways, and what a fused kernel could save of a step at best.

    Args:
      steps: seconds of our step at each side.
    """
    for side in sides:
        settings = {"measure": "loss", "side": side, "landmarks": LANDMARKS, "name": "emd"}
        try:
            timing = machine.measure("benchmarks.ours", settings)
        except protocol.NotAvailable as error:
            yield [f"{side}³", f"not available: {error}", "", "", ""]
            continue
        seconds = median(timing.seconds)
        least = 3 * LANDMARKS * side**3 * 4 / machine.copy_bytes_s  # logits twice, their gradient
        row = [f"{side}³", f"{1e3 * seconds:.3f} ms", f"{1e3 * least:.3f} ms"]
        if step := steps.get(side):
            saved = max(0.0, seconds - least) / step
            yield [*row, f"{100 * seconds / step:.1f} %", f"{100 * saved:.1f} %"]
        else:
            yield [*row, "", ""]


def format_memory(memory: protocol.Memory) -> list[str]:
    step = "" if memory.step_mib is None else f"{memory.step_mib:.0f} MiB"
    return [step, f"{memory.peak_mib:.0f} MiB"]


class Report:
    """A Markdown file that is whole after every line; printed too."""

    def __init__(self, path: Path | None):
        self.path, self.lines = path, []

    def add(self, *lines: str) -> None:
        self.lines += lines
        print(*lines, sep="\n", flush=True)
        if self.path:
            self.path.write_text("\n".join(self.lines) + "\n")

    def add_table(self, title: str, head: Row, rows: Iterator[Row]) -> None:
        self.add("", f"## {title}", "", *tables.format_table(head, []))
        for row in rows:
            self.add(tables.format_row(row))


def write_parts(machine: Machine, report: Report, options) -> None:
    def limit(part):
        machine.deadline = time.monotonic() + options.limits[part]

    limit("tests")
    report.add_table("Tests", ["what", "result"], run_tests(machine))
    head = ["side", "bfloat16", "a step", "memory of a step", "peak"]
    steps: dict[int, float] = {}
    for side in options.sides:
        limit("step")
        report.add_table(f"The step at {side}³", head, time_steps(machine, side, steps))
    limit("recipe")
    head = ["side", "the study's recipe", "a step", "an epoch", "memory of a step", "peak"]
    side = options.recipe_side
    title = f"configs/emd.py:paper, an epoch of {TRAINED} volumes in batches of {BATCH}, computed"
    report.add_table(title, head, time_recipe(machine, side))
    limit("loss")
    head = ["side", "the loss alone", "3 passes over the logits", "of a step", "to save at best"]
    report.add_table("The loss", head, time_losses(machine, options.sides, steps))


def read_limits(text: str) -> dict[str, float]:
    """`LIMITS`, with those of PART=SECONDS,..."""
    limits = dict(LIMITS)
    for part in filter(None, text.split(",")):
        name, _, seconds = part.partition("=")
        if name not in limits:
            raise argparse.ArgumentTypeError(f"expected parts of {', '.join(limits)}, got {name}")
        limits[name] = float(seconds)
    return limits


def parse_options(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--platform", default="", help="cpu: a rehearsal")
    parser.add_argument("--sides", default="64,96,128")
    parser.add_argument("--limits", type=read_limits, default=LIMITS, help="as step=60,loss=20")
    parser.add_argument("--output", type=Path, help="a Markdown file")
    options = parser.parse_args(argv)
    options.sides = [int(side) for side in options.sides.split(",")]
    options.recipe_side = max(options.sides)
    return options


def main() -> None:
    options = parse_options()
    with tempfile.TemporaryDirectory() as name:
        environment = os.environ | make_environment(Path(name))
        if options.platform:
            environment["JAX_PLATFORMS"] = options.platform
        rehearsal = options.platform == "cpu"
        if rehearsal:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        path = options.output.with_suffix(".log") if options.output else Path(name, "log")
        with path.open("w") as log:
            machine = Machine(environment, log, rehearsal)
            if problem := find_machine(machine):
                sys.exit(f"benchmarks.accelerator: {problem}")
            report = Report(options.output)
            report.add(
                "<!-- written by python -m benchmarks.accelerator -->",
                f"{date.today()}, {machine.kind}, copy {machine.copy_bytes_s / 1e9:.0f} GB/s "
                f"(read and written); {BLOCKS} blocks."
                + (" **A rehearsal: no figure here means anything.**" if rehearsal else ""),
            )
            write_parts(machine, report, options)


if __name__ == "__main__":
    main()
