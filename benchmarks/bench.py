"""Contenders set up side by side and timed in rounds; ratios within a round."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import protocol
from benchmarks.contenders import Contenders, is_ours


@dataclass(frozen=True)
class Timing:
    """One contender after its rounds: seconds per step in each, memory, what it said."""

    seconds: list[float]
    memory: protocol.Memory
    facts: dict


Found = Mapping[str, Timing | str]  # name: what was measured, or why it is not available


class Bench:
    """What all tables share: how many rounds, the caches of this run, and the log."""

    def __init__(self, options, folder: Path):
        self.rounds, self.steps = options.rounds, options.steps
        self.block_seconds = options.block_seconds
        self.log = (folder / "log").open("w")
        self.environment = make_environment(folder)

    def start(self, module: str, settings: dict) -> protocol.Worker:
        return protocol.Worker(module, settings, self.environment, self.log)

    def time(self, contenders: Contenders) -> dict[str, Timing | str]:
        """Set all up, time them in rounds."""
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
            name: self.steps or count_steps(worker.facts["warm_seconds"], self.block_seconds)
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


def count_steps(warm_seconds: float, block_seconds: float) -> int:
    """Steps of a block that takes about so long, 1 to 50."""
    return max(1, min(50, round(block_seconds / warm_seconds)))


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


def run_module(module: str, environment: Mapping[str, str]) -> dict:
    """What a module prints as its one line of JSON."""
    command = [sys.executable, "-m", module]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | environment
    )
    return json.loads(done.stdout)


def find_fastest_peer(found: Found) -> str | None:
    """By its median; None where no peer was timed."""
    peers = {n: t for n, t in found.items() if isinstance(t, Timing) and not is_ours(n)}
    return min(peers, key=lambda name: median(peers[name].seconds)) if peers else None


def compute_ratios(found: Found) -> dict[str, list[float]]:
    """Each contender's time over the fastest peer's, in every round."""
    fastest = find_fastest_peer(found)
    if fastest is None:
        return {}
    reference = found[fastest].seconds
    return {
        name: [mine / theirs for mine, theirs in zip(timing.seconds, reference, strict=True)]
        for name, timing in found.items()
        if isinstance(timing, Timing)
    }
