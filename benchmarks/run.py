"""fetal_jax beside PyTorch, in one run: time as a ratio, memory, and the machine's own floor.

    python -m benchmarks.run --output=benchmarks/results.md

Each contender is a process (`benchmarks.protocol`). They are set up one after another, then timed
in rounds: in a round each works once, for a block of steps, in an order that turns from round to
round. A ratio is taken within a round, so that what slows the machine down slows both sides of it;
its median and its range over the rounds are printed.
"""

import argparse
import json
import os
import sys
import tempfile
from datetime import date
from pathlib import Path

from benchmarks import processor, tables
from benchmarks.bench import Bench, run_module
from benchmarks.comparisons import compare_inference, compare_losses, compare_networks
from benchmarks.own_cost import measure_starts, scale

TABLES = ("step", "network", "loss", "scaling", "start", "inference")


def describe_machine(machine: dict) -> str:
    cores = len(os.sched_getaffinity(0))
    rates = ", ".join(
        f"{dtype} {ops_s / 1e9:.0f} GFLOP/s" for dtype, ops_s in machine["matrix_ops_s"].items()
    )
    device = "a GPU" if machine["gpu"] else processor.describe_flags(set(machine["flags"]))
    return (
        f"{date.today()}, {cores} cores; copy {machine['copy_bytes_s'] / 1e9:.1f} GB/s (read and "
        f"written), matrix product {rates}; {device}"
    )


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    numbers = _list_of(int)
    parser.add_argument("--sides", type=numbers, default=[32, 48, 64, 96])
    parser.add_argument("--loss-sides", type=numbers, default=[64, 96, 128])
    parser.add_argument("--scaling-sides", type=numbers, default=[32, 48, 64, 96, 128])
    parser.add_argument("--landmarks", type=numbers, default=[5, 19, 45], help="of the scaling")
    parser.add_argument("--inference-side", type=int, default=96)
    parser.add_argument("--start-side", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=0, help="of a block; 0: --block-seconds long")
    parser.add_argument("--block-seconds", type=float, default=2.0)
    parser.add_argument(
        "--only",
        type=_list_of(str),
        help="contenders, as ours,eager-first,compiled,openvino,ours-bfloat16; default all",
    )
    parser.add_argument("--tables", type=_list_of(str), default=list(TABLES))
    parser.add_argument("--output", type=Path, help="a Markdown file; a .json is written beside it")
    options = parser.parse_args()
    if unknown := set(options.tables) - set(TABLES):
        parser.error(f"expected tables of {', '.join(TABLES)}, got {', '.join(unknown)}")
    return options


def _list_of(kind):
    return lambda text: [kind(part) for part in text.split(",")]


def main() -> None:
    options = parse_options()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = Bench(options, folder)
        load_before = os.getloadavg()[0]  # before anything of ours runs
        print("do they agree?", file=sys.stderr)
        agreement = run_module("benchmarks.agreement", bench.environment)
        machine = run_module("benchmarks.floor", bench.environment)
        results = {
            "machine": describe_machine(machine),
            "agreement": agreement,
            "rounds": options.rounds,
            "cores": len(os.sched_getaffinity(0)),
            "load_before": load_before,
            "tables": {},
        }
        sides, only = options.sides, options.only
        makers = {
            "step": lambda: compare_networks(bench, "step", sides, only, machine),
            "network": lambda: compare_networks(bench, "network", sides, only, machine),
            "loss": lambda: compare_losses(bench, options.loss_sides, machine),
            "scaling": lambda: scale(bench, options.scaling_sides, options.landmarks),
            "start": lambda: measure_starts(bench, folder, options.start_side, only),
            "inference": lambda: compare_inference(bench, options.inference_side, only, machine),
        }
        for table in options.tables:
            results["tables"][table] = makers[table]()
            text = tables.format_results(results)  # after each table: a long run may be stopped
            if options.output:
                options.output.write_text(text)
                options.output.with_suffix(".json").write_text(json.dumps(results, indent=1))
        print(text)


if __name__ == "__main__":
    main()
