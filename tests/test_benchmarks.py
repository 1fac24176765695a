"""What the benchmark says of itself, where no PyTorch is needed; what needs it is skipped."""

import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import (
    accelerator,
    cases,
    comparisons,
    contenders,
    exchange,
    processor,
    protocol,
    scaling,
)
from benchmarks import bench as benches
from configs import emd, mouse_ct

CONTENDER = """
import os, sys, time
from benchmarks.protocol import Contender, serve

def measure(wait):
    time.sleep(wait)
    return Contender(lambda steps: None, {"device": "cpu"}, step_mib=lambda: 1 / 0 if wait else 7.0)

serve({"step": measure})
"""


@pytest.fixture
def toy_module(tmp_path, monkeypatch):
    (tmp_path / "toy_contender.py").write_text(CONTENDER)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:.")
    return "toy_contender"


def make_timing(*seconds, step_mib=None):
    return benches.Timing(list(seconds), protocol.Memory(100.0, step_mib), {"parameters": 1})


# ---- who is timed ----


@pytest.mark.parametrize(
    ("flags", "dtypes"),
    [
        ("fpu avx2 avx512f", ["float32"]),
        ("fpu avx2 avx512_bf16", ["float32", "bfloat16"]),
        ("amx_bf16", ["float32", "bfloat16"]),
    ],
)
def test_bfloat16_where_the_processor_has_it(tmp_path, flags, dtypes):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: x\n\nflags : other\n")
    found = processor.read_flags(cpuinfo)
    assert found == set(flags.split())
    assert processor.list_dtypes(found) == dtypes
    says_none = "no contender in bfloat16" in processor.describe_flags(found)
    assert says_none == (dtypes == ["float32"])


def test_without_flags_there_is_no_bfloat16(tmp_path):
    assert processor.read_flags(tmp_path / "none") == set()
    assert "flags unknown" in processor.describe_flags(set())


def test_names_tell_sides_and_arithmetic():
    listed = contenders.list_networks({"measure": "step"}, ["float32", "bfloat16"])
    assert len(listed) == 10
    assert listed["PyTorch eager, channels first, bfloat16"] == (
        "benchmarks.peer",
        {"measure": "step", "dtype": "bfloat16", "compiled": False, "channels": "first"},
    )
    assert [name for name in listed if contenders.is_ours(name)] == [
        "fetal_jax",
        "fetal_jax, bfloat16",
    ]
    runtimes = contenders.list_runtimes({}, ["float32", "bfloat16"])
    assert list(runtimes) == ["onnxruntime", "OpenVINO", "OpenVINO, bfloat16"]


@pytest.mark.parametrize(
    ("only", "names"),
    [
        (["ours"], ["fetal_jax", "fetal_jax, bfloat16"]),
        (["ours-float32"], ["fetal_jax"]),
        (["eager-first"], ["PyTorch eager, channels first"]),
        (["openvino"], ["OpenVINO"]),
    ],
)
def test_a_choice_of_contenders(only, names):
    listed = contenders.list_networks({}, ["float32"]) | contenders.list_runtimes({}, ["float32"])
    listed |= {"fetal_jax, bfloat16": ("benchmarks.ours", {})}
    assert list(contenders.choose(listed, only)) == names
    assert contenders.choose(listed, None) == listed


@pytest.mark.parametrize("module", [emd, mouse_ct])
def test_the_peer_augments_as_ours(module):
    """A key that is added to config.augment and is on by default would be left out by the peer."""
    config = module.get_config()
    assert cases.read_augmentation(config)["max_degrees"] == config.augment.max_degrees
    config.augment.max_speckle = 0.5
    with pytest.raises(ValueError, match="that the peer has, got max_speckle too"):
        cases.read_augmentation(config)


# ---- ratios ----


def test_ratios_are_to_the_fastest_peer_also_in_bfloat16():
    found = {
        "fetal_jax": make_timing(2.0, 4.0, step_mib=30.0),
        "fetal_jax, bfloat16": make_timing(1.0, 1.0),  # never the reference
        "PyTorch eager": make_timing(3.0, 3.0, step_mib=10.0),
        "PyTorch eager, bfloat16": make_timing(2.0, 2.0, step_mib=20.0),
        "PyTorch compiled": "not available: no compiler",
    }
    assert benches.find_fastest_peer(found) == "PyTorch eager, bfloat16"
    assert benches.compute_ratios(found)["fetal_jax"] == [1.0, 2.0]
    rows = comparisons.format_rows("16³", found)
    assert rows[0][3] == "1.50 (1.00–2.00)" and rows[3][3] == "1 (fastest peer)"
    steps = comparisons.format_steps(found)
    assert steps == ["30 MiB (1.50)", "", "10 MiB (0.50)", "20 MiB (1.00)", ""]


def test_no_peer_no_ratio():
    found = {"fetal_jax": make_timing(2.0), "PyTorch eager": "not available: gone"}
    assert benches.find_fastest_peer(found) is None and benches.compute_ratios(found) == {}
    assert comparisons.format_floor("16³", "floor", 1.0, found)[3] == ""


# ---- workers ----


def test_a_worker_past_its_deadline_is_ended(toy_module, tmp_path):
    with (tmp_path / "log").open("w") as log:
        began = time.monotonic()
        with pytest.raises(protocol.NotAvailable, match="out of time"):
            order = {"measure": "step", "wait": 60}
            protocol.Worker(toy_module, order, {}, log, deadline=began + 0.2)
        assert time.monotonic() - began < 30
        worker = protocol.Worker(toy_module, {"measure": "step", "wait": 0}, {}, log, began + 60)
        assert worker.run(3) >= 0
        memory = worker.finish()
    assert memory.step_mib == 7.0 and memory.peak_mib > 1


def test_times_are_not_lost_for_a_memory_that_cannot_be_measured(toy_module, tmp_path):
    with (tmp_path / "log").open("w") as log:
        worker = protocol.Worker(toy_module, {"measure": "step", "wait": 0.01}, {}, log)
        worker.run(1)
        assert worker.finish().step_mib is None
    assert "ZeroDivisionError" in (tmp_path / "log").read_text()


def test_if_one_of_several_processes_cannot_go_on_all_are_ended(monkeypatch):
    started = []

    class Worker:
        def __init__(self, module, order, environment, log, wait):
            self.place, self.ended = order["process"], threading.Event()
            started.append(self)

        def wait(self):
            if self.place == 1:
                raise protocol.NotAvailable("gone")
            assert self.ended.wait(30)

        def kill(self):
            self.ended.set()

    monkeypatch.setattr(protocol, "Worker", Worker)
    with pytest.raises(protocol.NotAvailable, match="gone"):
        scaling.start_processes(4, {}, {}, None)
    assert len(started) == 4 and all(worker.ended.is_set() for worker in started)


# ---- what is exchanged ----


def test_all_reduced_bytes_of_a_program_by_hand():
    def total(x, y):
        return jax.lax.psum((x, y, jnp.sum(x)), "n")

    x = np.zeros((2, 3, 5), np.float32)
    y = np.zeros((2, 7), np.int32)
    mapped = jax.pmap(total, axis_name="n", devices=jax.local_devices()[:2])
    program = mapped.lower(x, y).compile().as_text()
    assert exchange.count_all_reduced_bytes(program) == 4 * (3 * 5 + 7 + 1)


def test_all_reduces_that_begin_and_end_apart():
    line = "  %r = (bf16[4,2]{1,0}, f32[]) all-reduce-start(%a, %b), to_apply=%sum\n"
    done = "  %d = (bf16[4,2]{1,0}, f32[]) all-reduce-done(%r)\n"
    assert exchange.count_all_reduced_bytes(line + done) == 2 * 8 + 4


def test_an_exchange_on_paper():
    assert exchange.estimate_exchange_seconds(8e9, 8, 1e9) == pytest.approx(14.0)
    lines = exchange.format_estimate(450e6, 1.0)
    assert lines[2].startswith("| H100, NVLink 4 in one machine | 8 | 1.750 | 3.500 |")


# ---- the script for an accelerator ----


def test_without_an_accelerator_it_is_one_line(monkeypatch, capsys):
    class Copy:
        facts = {"device": "cpu", "kind": "cpu", "copied_bytes": 1}
        seconds = [1.0]

    monkeypatch.setattr(accelerator.Machine, "measure", lambda *args: Copy())
    monkeypatch.setattr(sys, "argv", ["accelerator"])
    with pytest.raises(SystemExit, match="^benchmarks.accelerator: needs a GPU or TPU") as end:
        accelerator.main()
    assert "\n" not in str(end.value)


def test_parts_that_are_out_of_time_lose_no_other(monkeypatch, tmp_path):
    def measure(self, module, settings):
        if settings["measure"] == "step" and settings["side"] == 32:
            raise protocol.NotAvailable("out of time")
        return make_timing(0.002 if settings.get("remat") else 0.001, step_mib=5.0)

    monkeypatch.setattr(accelerator.Machine, "measure", measure)
    monkeypatch.setattr(accelerator, "run_tests", lambda machine: iter([["pytest", "3 passed"]]))
    machine = accelerator.Machine({}, None, True, "toy", 1e12, "PyTorch is not installed")
    options = accelerator.parse_options(["--sides=16,32", f"--output={tmp_path / 'a.md'}"])
    accelerator.write_parts(machine, accelerator.Report(options.output), options)
    text = options.output.read_text()
    assert "| 16³ | fetal_jax | 1.00 ms | 5 MiB | 100 MiB |" in text
    assert "| 32³ | fetal_jax, remat | not available: out of time |  |  |" in text
    assert "| 16³ | PyTorch compiled | skipped: PyTorch is not installed |  |  |" in text
    assert "| 16³ | 1.000 ms | 0.001 ms | 100.0 % | 99.9 % |" in text
    assert "| 32³ | 1.000 ms | 0.007 ms |  |  |" in text  # no step to be a share of
    assert "an epoch of 544 volumes" in text


@pytest.mark.parametrize("text", ["steps=3", "all=1"])
def test_a_limit_of_no_part_is_refused(text):
    with pytest.raises(Exception, match="expected parts of tests, step, recipe, loss"):
        accelerator.read_limits(text)


# ---- with PyTorch ----


def test_what_a_step_of_pytorch_holds():
    torch = pytest.importorskip("torch")
    from benchmarks import torch_memory

    mib = 2**18  # values

    def work():
        a = torch.empty(mib)
        b = torch.empty(mib)
        del a
        return b, torch.empty(mib // 2)

    work()
    assert torch_memory.measure_peak_bytes(work) == 2 * 2**20
    before = [torch.empty(mib)]

    def free():  # what was there before is not counted, and its end hides nothing
        before.clear()
        torch.empty(mib)

    assert torch_memory.measure_peak_bytes(free) == 2**20
    whole = torch.zeros(4, 4)
    tree = {"a": [whole, {"b": whole[0]}], "step": 3}
    assert torch_memory.count_bytes(torch_memory.list_tensors(tree)) == 64
