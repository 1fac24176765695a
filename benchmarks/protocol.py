"""A contender is a process of its own, so that its threads, memory and start are its own.

It sets up, warms up and then waits for orders. Each order and each answer is one line of JSON:
{"steps": k} is answered by {"seconds": per step}, {"finish": true} by {"peak_mib": ...}. While one
contender works the others wait for a line and do nothing. The driver's side needs no numpy: a
child's peak memory counts from that of the process that started it.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Contender:
    """What a worker offers once it is set up.

    run: run(steps) does so many steps and returns when the device has finished them.
    facts: sent with the first answer: device, parameters and the like.
    device_peak_mib: most memory taken on an accelerator; None on a CPU.
    """

    run: Callable[[int], None]
    facts: dict = field(default_factory=dict)
    device_peak_mib: Callable[[], float | None] = lambda: None


def serve(measures: dict[str, Callable[..., Contender]]) -> None:
    """The worker's side: set up what the first argument names, then answer until told to finish."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer

    def answer(record):
        print(json.dumps(record), file=answers, flush=True)

    order = json.loads(sys.argv[1])
    try:
        contender = measures[order.pop("measure")](**order)
        contender.run(1)  # compiles
        first_done = time.time()
        contender.run(1)
        began = time.perf_counter()
        contender.run(1)
        warm_seconds = time.perf_counter() - began
    except Exception as error:  # reported in the table, and whole in the log
        answer({"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"})
        raise
    answer({"first_done": first_done, "warm_seconds": warm_seconds, **contender.facts})
    for line in sys.stdin:
        order = json.loads(line)
        if "finish" in order:
            peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            answer({"peak_mib": contender.device_peak_mib() or peak_kib / 1024})
            return
        began = time.perf_counter()
        contender.run(order["steps"])
        answer({"seconds": (time.perf_counter() - began) / order["steps"]})


class NotAvailable(Exception):
    """A contender that cannot run here, and why."""


class Worker:
    """The driver's side of one contender. Starting it waits until it is warm.

    Attributes:
      facts: of `Contender`, with warm_seconds (one step) and start_seconds (from the start of the
        process to the end of its first step).
    """

    def __init__(self, module: str, settings: dict, environment: dict[str, str], log):
        began = time.time()
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | environment,
        )
        self.facts = self._read()
        self.facts["start_seconds"] = self.facts.pop("first_done") - began

    def run(self, steps: int) -> float:
        """Seconds per step, over so many steps."""
        return self._ask({"steps": steps})["seconds"]

    def finish(self) -> float:
        """End the worker; its peak memory in MiB."""
        peak_mib = self._ask({"finish": True})["peak_mib"]
        self._process.communicate()
        return peak_mib

    def _ask(self, order):
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return self._read()

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            raise NotAvailable(f"ended with status {self._process.wait()}, see the log")
        answer = json.loads(line)
        if "error" in answer:
            self._process.communicate()
            raise NotAvailable(answer["error"])
        return answer
