"""A contender is a process of its own, so that its threads, memory and start are its own.

It sets up, warms up and then waits for orders. Each order and each answer is one line of JSON:
{"steps": k} is answered by {"seconds": per step}, {"finish": true} by its `Memory`. While one
contender works the others wait for a line and do nothing. The driver's side needs no numpy: a
child's peak memory counts from that of the process that started it.
"""

import json
import os
import resource
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Contender:
    """What a worker offers once it is set up.

    run: run(steps) does so many steps and returns when the device has finished them.
    facts: sent with the first answer: device, parameters and the like.
    device_peak_mib: most memory taken on an accelerator; None on a CPU.
    step_mib: memory of one step alone, as `Memory` has it; asked for last, for it may compile
      again or slow the step down.
    """

    run: Callable[[int], None]
    facts: dict = field(default_factory=dict)
    device_peak_mib: Callable[[], float | None] = _nothing
    step_mib: Callable[[], float | None] = _nothing


class Memory(NamedTuple):
    """MiB of a contender.

    peak_mib: the most that the process ever held, or on an accelerator what it took there.
    step_mib: what a step needs by the framework's own count: parameters, moments, the batch and
      what is kept or made on the way; None where it is not counted.
    """

    peak_mib: float
    step_mib: float | None


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
        first_line = (str(error).strip().splitlines() or [""])[0]
        answer({"error": f"{type(error).__name__}: {first_line}"})
        raise
    answer({"first_done": first_done, "warm_seconds": warm_seconds, **contender.facts})
    for line in sys.stdin:
        order = json.loads(line)
        if "finish" in order:
            answer(_measure_memory(contender)._asdict())
            return
        began = time.perf_counter()
        contender.run(order["steps"])
        answer({"seconds": (time.perf_counter() - began) / order["steps"]})


def _measure_memory(contender: Contender) -> Memory:
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_mib = contender.device_peak_mib() or peak_kib / 1024
    try:
        return Memory(peak_mib, contender.step_mib())
    except Exception:  # its times are taken and not lost for this
        traceback.print_exc()
        return Memory(peak_mib, None)


class NotAvailable(Exception):
    """A contender that cannot run here, and why."""


class Worker:
    """The driver's side of one contender. Starting it waits until it is warm.

    Args:
      wait: False for one that needs others to become warm; call `wait` when all are started.
      deadline: of `time.monotonic`, when the process is ended, whatever it does; None for never.

    Attributes:
      facts: of `Contender`, with warm_seconds (one step) and start_seconds (from the start of the
        process to the end of its first step).
    """

    def __init__(
        self,
        module: str,
        settings: dict,
        environment: dict[str, str],
        log,
        deadline: float | None = None,
        wait: bool = True,
    ):
        self._began = time.time()
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | environment,
        )
        self._out_of_time = False
        self._timer = None
        if deadline is not None:
            self._timer = threading.Timer(max(0.0, deadline - time.monotonic()), self._end)
            self._timer.daemon = True
            self._timer.start()
        if wait:
            self.wait()

    def wait(self) -> None:
        """Until it is warm."""
        self.facts = self._read()
        self.facts["start_seconds"] = self.facts.pop("first_done") - self._began

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()

    def run(self, steps: int) -> float:
        """Seconds per step, over so many steps."""
        return self._ask({"steps": steps})["seconds"]

    def finish(self) -> Memory:
        """End the worker."""
        memory = Memory(**self._ask({"finish": True}))
        self._close()
        return memory

    def _ask(self, order):
        try:
            print(json.dumps(order), file=self._process.stdin, flush=True)
        except BrokenPipeError:  # it has ended: what it said last tells why
            pass
        return self._read()

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            self._close()
            if self._out_of_time:
                raise NotAvailable("out of time")
            raise NotAvailable(f"ended with status {self._process.returncode}, see the log")
        answer = json.loads(line)
        if "error" in answer:
            self._close()
            raise NotAvailable(answer["error"])
        return answer

    def _end(self):
        self._out_of_time = True
        self.kill()

    def _close(self):
        if self._timer:
            self._timer.cancel()
        try:
            self._process.communicate()
        except BrokenPipeError:
            pass
