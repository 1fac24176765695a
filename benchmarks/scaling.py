"""The step in one process, in two and in four, and an estimate for 8 and 64 devices.

    python -m benchmarks.scaling --side=48 --output=benchmarks/scaling.md
    python -m benchmarks.scaling --side=128 --recipe=paper --processes= --step-ms=MEASURED

Weak scaling: each process has one example, one core and one device, and they exchange their
gradients over the loopback. With as many processes as cores a step should take as long as that of
one; four on two cores share them, so twice that is the best that can be, and the column "of the
best" counts that. Cores of one processor also share its memory and caches, which those of two
machines do not. What is exchanged is read off the compiled program; what it costs elsewhere is
computed from published speeds of links and a step's time that is given or that of one process.
"""

import argparse
import concurrent.futures
import os
import socket
import sys
import tempfile
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor
from pathlib import Path
from statistics import median

from benchmarks import bench, exchange, protocol, tables
from benchmarks.contenders import LANDMARKS

HEAD = ["processes", "cores", "a step", "over one process", "of the best"]


def start_processes(count: int, settings: dict, environment: dict, log) -> list[protocol.Worker]:
    """So many workers that wait for one another in each step, each on one core.

    If one of them cannot go on all are ended.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    cores, workers = sorted(os.sched_getaffinity(0)), []
    for process in range(count):
        place = {
            "process": process,
            "processes": count,
            "core": cores[process % len(cores)],
            "coordinator": coordinator,
        }
        order = settings | place
        workers.append(protocol.Worker("benchmarks.share", order, environment, log, wait=False))
    with ThreadPoolExecutor(count) as pool:
        waits = [pool.submit(worker.wait) for worker in workers]
        done, _ = concurrent.futures.wait(waits, return_when=FIRST_EXCEPTION)
        failures = [each.exception() for each in done if each.exception()]
        if failures:
            for worker in workers:
                worker.kill()
            raise failures[0]
    return workers


def time_processes(count: int, settings: dict, environment: dict, log, rounds: int) -> list[float]:
    """Seconds of a step in every round, with so many processes; the slowest one's."""
    environment = environment | {"OMP_NUM_THREADS": "1"}
    workers = start_processes(count, settings, environment, log)
    steps = bench.count_steps(max(w.facts["warm_seconds"] for w in workers), 2.0)
    with ThreadPoolExecutor(count) as pool:
        seconds = [max(pool.map(lambda worker: worker.run(steps), workers)) for _ in range(rounds)]
        list(pool.map(protocol.Worker.finish, workers))
    return seconds


def compare_processes(counts, settings, environment, log, rounds) -> tuple[list, float]:
    """Rows of the table; seconds of a step in one process."""
    cores, rows, alone = len(os.sched_getaffinity(0)), [], None
    for count in counts:
        print(f"{count} processes", file=sys.stderr)
        seconds = time_processes(count, settings, environment, log, rounds)
        alone = alone or median(seconds)
        best = max(1.0, count / cores)
        ratios = [each / alone for each in seconds]
        share = 100 * best / median(ratios)
        rows.append(
            [
                f"{count}",
                f"{min(count, cores)}",
                tables.milliseconds(seconds),
                tables.ratio(ratios),
                f"{share:.0f} %",
            ]
        )
    return rows, alone


def measure_exchange(settings: dict, environment: dict, log) -> dict:
    """summed_bytes and parameter_bytes of the program for two devices."""
    worker = protocol.Worker(
        "benchmarks.share", settings | {"measure": "exchange"}, environment, log
    )
    worker.finish()
    return worker.facts


def format_report(rows: list, facts: dict, step_s: float, options) -> str:
    what = f"{options.side}³, {LANDMARKS} landmarks, {options.dtype}"
    lines = ["<!-- written by python -m benchmarks.scaling -->"]
    if rows:
        lines += [
            f"## Several processes, {what}",
            "",
            f"One example and one core each; {options.rounds} rounds.",
            "",
            *tables.format_table(HEAD, rows),
            "",
        ]
    summed, parameters = facts["summed_bytes"], facts["parameter_bytes"]
    lines += [
        f"## An estimate for 8 and 64 devices, {what}",
        "",
        f"Not measured. A step sums {summed / 1e6:.2f} MB over the devices, by the compiled "
        f"program; its parameters are {parameters / 1e6:.2f} MB. A ring sends 2 (n - 1)/n of it. "
        f"The step takes {1e3 * step_s:.1f} ms on one device"
        + (", which was given." if options.step_ms else ", that of one process above."),
        "No latency is counted and nothing overlaps.",
        "",
        *exchange.format_estimate(summed, step_s),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=48)
    parser.add_argument("--recipe", default="", help="paper: the study's network")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--processes", default="1,2,4", help="empty: the estimate only")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--step-ms", type=float, default=0.0, help="of one device, for the estimate"
    )
    parser.add_argument("--output", type=Path, help="a Markdown file")
    options = parser.parse_args()
    counts = [int(n) for n in options.processes.split(",") if n]
    if counts and counts[0] != 1:
        parser.error(f"expected --processes to begin with 1, got {options.processes}")
    if not counts and not options.step_ms:
        parser.error("expected --step-ms where nothing is timed")
    settings = {"measure": "step", "side": options.side, "landmarks": LANDMARKS}
    settings |= {"dtype": options.dtype, "recipe": options.recipe}
    with tempfile.TemporaryDirectory() as name:
        environment = bench.make_environment(Path(name)) | {"JAX_PLATFORMS": "cpu"}
        with Path(name, "log").open("w") as log:
            try:
                rows, alone = compare_processes(counts, settings, environment, log, options.rounds)
                facts = measure_exchange(settings, environment, log)
            except protocol.NotAvailable as error:
                sys.exit(f"{error}\n{Path(name, 'log').read_text()}")
    text = format_report(rows, facts, options.step_ms / 1e3 or alone, options)
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
