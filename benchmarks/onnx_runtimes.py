"""PyTorch's network, exported to ONNX and run by onnxruntime or OpenVINO; on a CPU.

As the other contenders' their threads wait passively where that can be asked for. What is decoded,
and by what, is PyTorch's.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks import cases, peer, peer_torch
from benchmarks.protocol import Contender, serve

Forward = Callable[[np.ndarray], np.ndarray]  # volumes [B, 1, D, H, W] float32 to logits
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}  # as OpenVINO names them


def export_network(model: torch.nn.Module, volumes: torch.Tensor, path: Path) -> None:
    """As an ONNX file for volumes of this shape; `volumes` holds the shape alone."""
    with torch.inference_mode(False):
        torch.onnx.export(model, (volumes,), path, dynamo=True, external_data=False, verbose=False)


def open_onnxruntime(path: Path, dtype: str, threads: int) -> Forward:
    import onnxruntime

    if dtype != "float32":
        raise ValueError(f"expected float32, got {dtype}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda volumes: session.run(None, {given.name: volumes})[0]


def open_openvino(path: Path, dtype: str, threads: int) -> Forward:
    sys.modules.setdefault("openvino_telemetry", None)  # else an import sends statistics home
    import openvino

    wanted = PRECISIONS[dtype]  # left alone, OpenVINO takes bfloat16 where the processor has it
    settings = {
        "INFERENCE_PRECISION_HINT": wanted,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = openvino.Core()
    if wanted.upper() not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") + ["F32"]:
        raise ValueError(f"OpenVINO does not compute in {dtype} on this processor")
    network = core.compile_model(path, "CPU", settings)
    return lambda volumes: network(volumes, share_inputs=True, share_outputs=True)[0]


RUNTIMES = {"onnxruntime": open_onnxruntime, "openvino": open_openvino}


def measure_inference(
    side: int, landmarks: int, volumes: int, runtime: str, dtype: str = "float32"
) -> Contender:
    """Forward and decoding of so many volumes a step, in batches of config.evaluation.batch."""
    config = cases.make_config(side)
    batch = min(volumes, config.evaluation.batch)
    if volumes % batch:
        raise ValueError(f"expected a multiple of {batch} volumes, got {volumes}")
    model = peer.make_model(config, landmarks, "first").eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        export_network(model, torch.empty(batch, 1, side, side, side), path)
        forward = RUNTIMES[runtime](path, dtype, torch.get_num_threads())
    examples = cases.make_arrays(side, landmarks)[0][:volumes]
    decoder = peer.make_decoder_settings(config)

    @torch.inference_mode()
    def find(volumes):
        logits = forward(np.asarray(volumes[:, None], np.float32))
        return peer_torch.decode(torch.from_numpy(logits), **decoder).numpy()

    def run(steps):
        for _ in range(steps):
            for start in range(0, volumes, batch):
                find(examples[start : start + batch])

    return Contender(run, {"device": "cpu"})


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    serve({"inference": measure_inference})
