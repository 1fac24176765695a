"""The tables of ours alone: cost against work, and how long it takes to start."""

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from benchmarks import protocol, tables
from benchmarks.bench import Bench
from benchmarks.contenders import LANDMARKS, choose, list_networks


def scale(bench: Bench, sides, landmarks) -> list[list[str]]:
    """Our whole step: time a voxel, as a ratio to that of the smallest side in the same round."""
    rows = []
    for count in landmarks:
        print(f"scaling, {count} landmarks", file=sys.stderr)
        settings = {"measure": "step", "landmarks": count}
        found = bench.time({f"{s}": ("benchmarks.ours", settings | {"side": s}) for s in sides})
        first = found[f"{sides[0]}"]
        for side in sides:
            timing = found[f"{side}"]
            share = (sides[0] / side) ** 3
            ratios = [
                share * mine / theirs
                for mine, theirs in zip(timing.seconds, first.seconds, strict=True)
            ]
            peak_mib = timing.memory.peak_mib
            rows.append(
                [
                    f"{side}³",
                    f"{count}",
                    tables.milliseconds(timing.seconds),
                    f"{median(timing.seconds) / side**3 * 1e9:.0f} ns",
                    tables.ratio(ratios),
                    f"{peak_mib:.0f} MiB",
                    f"{peak_mib / first.memory.peak_mib:.2f}",
                ]
            )
    return rows


def measure_starts(bench: Bench, folder: Path, side: int, only) -> list[list[str]]:
    """Seconds from starting a process to the end of its first step; first run, and second.

    Beside ours the peers that are channels first, in float32.
    """
    rows = []
    names = ("first", "second")
    if only is None or "ours" in only:
        print("start, launch.py", file=sys.stderr)
        seconds = [_start_launcher(bench, folder / f"run-{n}", side) for n in names]
        what = (
            "`python launch.py`: 8 cases simulated (first run only), checked, prepared; first step"
        )
        rows.append([what, *(f"{s:.1f} s" for s in seconds)])
    fresh = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "fresh-xla"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "fresh-inductor"),
    }
    bench.environment, usual = bench.environment | fresh, bench.environment
    shared = {"measure": "step", "side": side, "landmarks": LANDMARKS}
    contenders = choose(choose(list_networks(shared, ["float32"]), ["ours", "first"]), only)
    for name, (module, settings) in contenders.items():
        print(f"start, {name}", file=sys.stderr)
        try:
            workers = []
            for _ in names:
                workers.append(bench.start(module, settings))
                workers[-1].finish()
            seconds = [f"{worker.facts['start_seconds']:.1f} s" for worker in workers]
        except protocol.NotAvailable as error:
            seconds = [f"not available: {error}", ""]
        rows.append([f"{name}: imports, arrays in memory, first step", *seconds])
    bench.environment = usual
    return rows


def _start_launcher(bench: Bench, workdir: Path, side: int) -> float:
    """Seconds until launch.py has logged its first step."""
    command = [sys.executable, "launch.py", "--config=configs/emd.py", f"--workdir={workdir}"]
    command += ["--config.phantom.cases=8", f"--config.grid.side={side}", "--config.log.every=1"]
    log = workdir / "metrics.jsonl"
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=bench.log, stderr=bench.log, env=os.environ | bench.environment
    )
    while process.poll() is None and not (log.exists() and log.stat().st_size):
        time.sleep(0.02)
    seconds = time.perf_counter() - began
    if process.poll() is not None:
        raise SystemExit("launch.py ended before its first step, see the log")
    process.terminate()
    process.wait()
    return seconds
