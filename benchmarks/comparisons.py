"""The tables in which ours stands beside others: steps, networks, losses, inference."""

import sys
from statistics import median

from benchmarks import floor, tables
from benchmarks.bench import Bench, Found, Timing, compute_ratios, find_fastest_peer
from benchmarks.contenders import (
    LANDMARKS,
    LOSSES,
    OURS,
    choose,
    list_networks,
    list_runtimes,
    name_in,
)

WIDTHS = (16, 32, 64, 128)
VALUE_BYTES = {"float32": 4, "bfloat16": 2}


def compare_networks(bench: Bench, measure: str, sides, only, machine) -> list[list[str]]:
    """Rows of the tables "step" and "network".

    Args:
      machine: of `floor.measure_machine`; its rates say which arithmetic there is.
    """
    rows = []
    for side in sides:
        print(f"{measure}, side {side}", file=sys.stderr)
        shared = {"measure": measure, "side": side, "landmarks": LANDMARKS}
        found = bench.time(choose(list_networks(shared, machine["matrix_ops_s"]), only))
        counts = {t.facts["parameters"] for t in found.values() if isinstance(t, Timing)}
        assert len(counts) <= 1, f"expected networks of one size, got {counts} parameters"
        rows += [
            [*row, step]
            for row, step in zip(format_rows(f"{side}³", found), format_steps(found), strict=True)
        ]
        for dtype, matrix_ops_s in machine["matrix_ops_s"].items():
            operations, moved = floor.compute_work(
                side,
                LANDMARKS,
                WIDTHS,
                batch=1,
                whole_step=measure == "step",
                value_bytes=VALUE_BYTES[dtype],
            )
            seconds = max(operations / matrix_ops_s, moved / machine["copy_bytes_s"])
            rows.append([*format_floor(f"{side}³", name_in("floor", dtype), seconds, found), ""])
    return rows


def compare_losses(bench: Bench, sides, machine) -> list[list[str]]:
    rows = []
    for side in sides:
        for kind, contenders in LOSSES.items():
            print(f"loss, {kind}, side {side}", file=sys.stderr)
            shared = {"measure": "loss", "side": side, "landmarks": LANDMARKS}
            found = bench.time(
                {n: (m, shared | settings) for n, (m, settings) in contenders.items()}
            )
            ours = found[OURS]
            for row in format_rows(f"{side}³, {kind}", found):
                scratch = ours.facts["scratch_mib"] if row[1] == OURS else None
                rows.append([*row, "" if scratch is None else f"{scratch:.1f} MiB"])
            passes = 3 * LANDMARKS * side**3 * 4 / machine["copy_bytes_s"]
            rows.append([*format_floor(f"{side}³, {kind}", "floor", passes, found), ""])
    return rows


def compare_inference(bench: Bench, side: int, only, machine) -> list[list[str]]:
    rows, dtypes = [], machine["matrix_ops_s"]
    for volumes, what in ((1, "one volume"), (8, "eight, in batches of 4")):
        print(f"inference, {what}", file=sys.stderr)
        shared = {"measure": "inference", "side": side, "landmarks": LANDMARKS, "volumes": volumes}
        contenders = list_networks(shared, dtypes)
        if not machine["gpu"]:  # the runtimes' packages here are those for a CPU
            contenders |= list_runtimes(shared, dtypes)
        found = bench.time(choose(contenders, only))
        for row in format_rows(f"{side}³, {what}", found):
            timing = found[row[1]]
            rate = f"{volumes / median(timing.seconds):.2f}" if isinstance(timing, Timing) else ""
            rows.append([*row, rate])
    return rows


def format_rows(what: str, found: Found) -> list[list[str]]:
    """Name, time, ratio and peak memory of each contender."""
    fastest, ratios, rows = find_fastest_peer(found), compute_ratios(found), []
    for name, timing in found.items():
        if isinstance(timing, str):
            rows.append([what, name, timing, "", ""])
            continue
        shown = "1 (fastest peer)" if name == fastest else tables.ratio(ratios.get(name))
        time_ = tables.milliseconds(timing.seconds)
        if slow := timing.facts.get("slow_convolutions"):
            time_ += f" ({slow} of {timing.facts['convolutions']} convolutions without oneDNN)"
        rows.append([what, name, time_, shown, f"{timing.memory.peak_mib:.0f} MiB"])
    return rows


def format_steps(found: Found) -> list[str]:
    """Memory of a step alone of each contender, and its ratio to the fastest peer's."""
    fastest = find_fastest_peer(found)
    reference = found[fastest].memory.step_mib if fastest else None
    cells = []
    for timing in found.values():
        mib = timing.memory.step_mib if isinstance(timing, Timing) else None
        ratio = f" ({mib / reference:.2f})" if mib and reference else ""
        cells.append(f"{mib:.0f} MiB{ratio}" if mib else "")
    return cells


def format_floor(what: str, name: str, seconds: float, found: Found) -> list[str]:
    fastest = find_fastest_peer(found)
    share = [seconds / s for s in found[fastest].seconds] if fastest else None
    return [what, name, f"{1e3 * seconds:.0f} ms", tables.ratio(share), ""]
