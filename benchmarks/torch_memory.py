"""What PyTorch's CPU allocator holds during a step, by PyTorch's own profiler."""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

CPU = 0  # of the trace's "Device Type"


def measure_peak_bytes(work: Callable[[], object]) -> int:
    """The most that was allocated by `work()` and not yet freed, at any moment of it.

    Memory that was there before is not counted, also where `work` frees it: the profiler knows no
    size of it. What oneDNN takes for its scratch goes through the same allocator and is counted;
    what a library of matrix products keeps in a corner of its own does not.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            work()
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = sorted(
        (event["ts"], event["args"]["Ev Idx"], event["args"]["Bytes"])
        for event in events
        if event.get("name") == "[memory]" and event["args"]["Device Type"] == CPU
    )
    held = peak = 0
    for _, _, size in changes:
        held += size
        peak = max(peak, held)
    return peak


def list_tensors(tree) -> Iterator[Tensor]:
    """Those in dicts, lists and tuples within each other, as an optimizer's state has them."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from list_tensors(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from list_tensors(value)


def count_bytes(tensors: Iterable[Tensor]) -> int:
    """Of their storages, each counted once."""
    storages: dict[int, torch.UntypedStorage] = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage
    return sum(storage.nbytes() for storage in storages.values())
