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
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median

from benchmarks import floor, protocol, tables

OURS = "fetal_jax"
PEERS = {  # name: settings of benchmarks.peer
    "PyTorch eager, channels first": {"compiled": False, "channels": "first"},
    "PyTorch eager, channels last": {"compiled": False, "channels": "last"},
    "PyTorch compiled, channels first": {"compiled": True, "channels": "first"},
    "PyTorch compiled, channels last": {"compiled": True, "channels": "last"},
}
LOSSES = {  # kind: name: (module, settings); a ratio is to the fastest peer of its kind
    "EMD-regularised cross-entropy": {
        OURS: ("benchmarks.ours", {"name": "emd"}),
        "PyTorch eager, maps of target and distance": (
            "benchmarks.peer",
            {"form": "materialised", "compiled": False},
        ),
        "PyTorch eager, separable target": (
            "benchmarks.peer",
            {"form": "separable", "compiled": False},
        ),
        "PyTorch compiled, maps of target and distance": (
            "benchmarks.peer",
            {"form": "materialised", "compiled": True},
        ),
        "PyTorch compiled, separable target": (
            "benchmarks.peer",
            {"form": "separable", "compiled": True},
        ),
    },
    "cross-entropy": {
        OURS: ("benchmarks.ours", {"name": "ce"}),
        "landmarker, NLLLoss": ("benchmarks.peer", {"form": "nll", "compiled": False}),
    },
    "squared error": {
        OURS: ("benchmarks.ours", {"name": "sse"}),
        "landmarker, GaussianHeatmapL2Loss": ("benchmarks.peer", {"form": "l2", "compiled": False}),
    },
}
TABLES = ("step", "network", "loss", "scaling", "start", "inference")
LANDMARKS = 19
WIDTHS = (16, 32, 64, 128)


@dataclass(frozen=True)
class Timing:
    """One contender after its rounds: seconds per step in each, peak memory, what it said."""

    seconds: list[float]
    peak_mib: float
    facts: dict


class Bench:
    """What all tables share: how many rounds, the caches of this run, and the log."""

    def __init__(self, options, folder: Path):
        self.rounds, self.steps = options.rounds, options.steps
        self.block_seconds = options.block_seconds
        self.log = (folder / "log").open("w")
        self.environment = make_environment(folder)

    def start(self, module: str, settings: dict) -> protocol.Worker:
        return protocol.Worker(module, settings, self.environment, self.log)

    def time(self, contenders: dict[str, tuple[str, dict]]) -> dict[str, Timing | str]:
        """Set all up, time them in rounds; name -> Timing, or why it is not available.

        contenders: name -> (module, settings).
        """
        workers, found, seconds = {}, {}, {}
        for name, (module, settings) in contenders.items():
            print(f"  {name}: starting", file=sys.stderr)
            try:
                workers[name] = self.start(module, settings)
            except protocol.NotAvailable as error:
                found[name] = f"not available: {error}"
                print(f"  {name}: {found[name]}", file=sys.stderr)
        devices = {worker.facts["device"] for worker in workers.values()}
        if len(devices) > 1:
            raise SystemExit(f"expected all contenders on one kind of device, got {devices}")
        blocks = {
            name: self.steps or _clip(self.block_seconds / worker.facts["warm_seconds"], 1, 50)
            for name, worker in workers.items()
        }
        names = list(workers)
        for number in range(self.rounds):
            turn = number % max(len(names), 1)
            for name in names[turn:] + names[:turn]:
                seconds.setdefault(name, []).append(workers[name].run(blocks[name]))
        for name, worker in workers.items():
            found[name] = Timing(seconds[name], worker.finish(), worker.facts)
        return {name: found[name] for name in contenders}


def make_environment(folder: Path) -> dict[str, str]:
    """Compilation caches of this run's own, one accelerator, and all cores for everybody."""
    cores = str(len(os.sched_getaffinity(0)))
    return {
        "XDG_CACHE_HOME": str(folder / "cache"),
        "JAX_COMPILATION_CACHE_DIR": str(folder / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # several contenders share an accelerator
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0],
        "OMP_NUM_THREADS": cores,
        # PyTorch's threads spin while they wait for each other. Where other work takes a core for a
        # moment that made a norm over 20 times slower, which says nothing about PyTorch.
        "OMP_WAIT_POLICY": "passive",
    }


def compare(found: dict[str, Timing | str]) -> tuple[str | None, dict[str, list[float]]]:
    """The fastest peer by its median, and each contender's ratio to it in every round."""
    timed = {name: timing for name, timing in found.items() if isinstance(timing, Timing)}
    peers = [name for name in timed if name != OURS]
    if not peers:
        return None, {}
    fastest = min(peers, key=lambda name: median(timed[name].seconds))
    reference = timed[fastest].seconds
    ratios = {
        name: [mine / theirs for mine, theirs in zip(timing.seconds, reference, strict=True)]
        for name, timing in timed.items()
    }
    return fastest, ratios


def compare_networks(bench: Bench, measure: str, sides, only, machine) -> list[list[str]]:
    """Rows of the tables "step" and "network"."""
    rows = []
    for side in sides:
        print(f"{measure}, side {side}", file=sys.stderr)
        shared = {"measure": measure, "side": side, "landmarks": LANDMARKS}
        contenders = {OURS: ("benchmarks.ours", shared)} | {
            name: ("benchmarks.peer", shared | settings) for name, settings in PEERS.items()
        }
        found = bench.time(_choose(contenders, only))
        counts = {t.facts["parameters"] for t in found.values() if isinstance(t, Timing)}
        assert len(counts) <= 1, f"expected networks of one size, got {counts} parameters"
        rows += _rows(f"{side}³", found)
        operations, moved = floor.compute_work(
            side,
            LANDMARKS,
            WIDTHS,
            batch=1,
            whole_step=measure == "step",
            value_bytes=machine["value_bytes"],
        )
        arithmetic, traffic = operations / machine["matrix_ops_s"], moved / machine["copy_bytes_s"]
        rows.append(_floor_row(f"{side}³", max(arithmetic, traffic), found))
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
            for row in _rows(f"{side}³, {kind}", found):
                scratch = ours.facts["scratch_mib"] if row[1] == OURS else None
                rows.append([*row, "" if scratch is None else f"{scratch:.1f} MiB"])
            passes = 3 * LANDMARKS * side**3 * 4 / machine["copy_bytes_s"]
            rows.append([*_floor_row(f"{side}³, {kind}", passes, found), ""])
    return rows


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
            rows.append(
                [
                    f"{side}³",
                    f"{count}",
                    tables.milliseconds(timing.seconds),
                    f"{median(timing.seconds) / side**3 * 1e9:.0f} ns",
                    tables.ratio(ratios),
                    f"{timing.peak_mib:.0f} MiB",
                    f"{timing.peak_mib / first.peak_mib:.2f}",
                ]
            )
    return rows


def measure_starts(bench: Bench, folder: Path, side: int, only) -> list[list[str]]:
    """Seconds from starting a process to the end of its first step; first run, and second."""
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
    contenders = {OURS: ("benchmarks.ours", shared)} | {
        name: ("benchmarks.peer", shared | settings)
        for name, settings in PEERS.items()
        if settings["channels"] == "first"
    }
    for name, (module, settings) in _choose(contenders, only).items():
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


def compare_inference(bench: Bench, side: int, only) -> list[list[str]]:
    rows = []
    for volumes, what in ((1, "one volume"), (8, "eight, in batches of 4")):
        print(f"inference, {what}", file=sys.stderr)
        shared = {"measure": "inference", "side": side, "landmarks": LANDMARKS, "volumes": volumes}
        contenders = {OURS: ("benchmarks.ours", shared)} | {
            name: ("benchmarks.peer", shared | settings) for name, settings in PEERS.items()
        }
        found = bench.time(_choose(contenders, only))
        for row in _rows(f"{side}³, {what}", found):
            timing = found[row[1]]
            rate = f"{volumes / median(timing.seconds):.2f}" if isinstance(timing, Timing) else ""
            rows.append([*row, rate])
    return rows


def _rows(what: str, found: dict[str, Timing | str]) -> list[list[str]]:
    fastest, ratios = compare(found)
    rows = []
    for name, timing in found.items():
        if isinstance(timing, str):
            rows.append([what, name, timing, "", ""])
            continue
        shown = "1 (fastest peer)" if name == fastest else tables.ratio(ratios.get(name))
        time_ = tables.milliseconds(timing.seconds)
        if slow := timing.facts.get("slow_convolutions"):
            time_ += f" ({slow} of {timing.facts['convolutions']} convolutions without oneDNN)"
        rows.append([what, name, time_, shown, f"{timing.peak_mib:.0f} MiB"])
    return rows


def _floor_row(what: str, seconds: float, found) -> list[str]:
    fastest, _ = compare(found)
    share = [seconds / s for s in found[fastest].seconds] if fastest else None
    return [what, "floor", f"{1e3 * seconds:.0f} ms", tables.ratio(share), ""]


def _choose(contenders, only):
    """Those of --only: ours, eager, compiled, first, last; all words of one are to hold."""
    if only is None:
        return contenders

    def wanted(name):
        words = {"ours"} if name == OURS else set(name.lower().replace(",", "").split())
        return any(set(choice.split("-")) <= words for choice in only)

    return {name: contender for name, contender in contenders.items() if wanted(name)}


def _clip(value, low, high):
    return max(low, min(high, round(value)))


def describe_machine(machine: dict) -> str:
    cores = len(os.sched_getaffinity(0))
    return (
        f"{date.today()}, {cores} cores; copy "
        f"{machine['copy_bytes_s'] / 1e9:.1f} GB/s (read and written), matrix product "
        f"{machine['matrix_ops_s'] / 1e9:.0f} GFLOP/s"
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
        "--only", type=_list_of(str), help="contenders, as ours,eager-first,compiled; default all"
    )
    parser.add_argument("--tables", type=_list_of(str), default=list(TABLES))
    parser.add_argument("--output", type=Path, help="a Markdown file; a .json is written beside it")
    options = parser.parse_args()
    if unknown := set(options.tables) - set(TABLES):
        parser.error(f"expected tables of {', '.join(TABLES)}, got {', '.join(unknown)}")
    return options


def _list_of(kind):
    return lambda text: [kind(part) for part in text.split(",")]


def run_module(module: str, environment: dict[str, str]) -> dict:
    """What a module prints as its one line of JSON."""
    command = [sys.executable, "-m", module]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | environment
    )
    return json.loads(done.stdout)


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
            "inference": lambda: compare_inference(bench, options.inference_side, only),
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
