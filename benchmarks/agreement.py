"""That the peer trains the same network: asserted, with our parameters in the PyTorch model.

In float32 logits, loss, gradient norm, the moved example, the decoded landmarks and what the
runtimes make of the exported network, each within 1e-3 relative. In bfloat16, on a processor that
has it, what is computed in it, within bounds of its own. Run before anything is timed; prints one
line of JSON. On the CPU, whatever is timed.
"""

import json
import os
import tempfile
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import cases, onnx_runtimes, ours, peer, peer_torch, processor
from benchmarks.contenders import LANDMARKS
from fetal_jax import augment, heatmaps
from fetal_jax.detectors.from_config import build_detector, build_resunet3d, build_target
from fetal_jax.examples import Examples
from fetal_jax.training import parallel
from fetal_jax.training.from_config import (
    build_finder,
    build_optimizer,
    build_step,
    count_parameters,
)

SIDE = 32
# A value in bfloat16 is rounded by up to 2^-9 of itself, and one that passes the network about 60
# times (convolution, norm, activation, sum). The two sides round at other places. As a random walk
# that is sqrt(2 * 60) * 2^-9 / sqrt(3) = 1 % of a typical logit, and at the worst of 600,000 of
# them five times as much of a typical one, which is a fifth of the largest: 1 to 2 % of that.
# Backward the gradient passes once more; a loss is a mean in which most of it cancels. A wrong
# kernel, tap or norm moves each of them by tens of per cent.
TOLERANCES = {
    "float32": dict.fromkeys(("logits", "loss", "gradient norm"), 1e-3),
    "bfloat16": {"logits": 0.05, "loss": 0.01, "gradient norm": 0.05},
}
SAME = 1e-3  # of all else, which is float32 on both sides whatever the network computes in


def make_pair():
    """(config, our parameters, the PyTorch model with the same)."""
    config = cases.make_config(SIDE)
    config.augment.on = False
    params = jax.device_get(ours.init_params(build_detector(config, LANDMARKS)))
    model = peer_torch.ResUNet3D(LANDMARKS, config.model.widths)
    counts = [count_parameters(params), peer.count_parameters(model)]
    assert counts[0] == counts[1], f"expected as many parameters, got {counts}"
    peer_torch.copy_parameters(params, model)
    return config, params, model


def compare_networks(config, params, model, dtype: str) -> dict[str, float]:
    """Logits, loss and gradient norm, with the network in an arithmetic."""
    config = config.copy_and_resolve_references()
    config.model.dtype = dtype
    volumes, points = (array[:1] for array in cases.make_arrays(SIDE, LANDMARKS))
    volumes = volumes.astype(np.float32)
    logits = jax.jit(build_resunet3d(config, LANDMARKS).apply)(params, volumes[..., None]).logits
    there = np.ones((1, LANDMARKS), bool)
    examples = Examples(
        volumes, points_vox=points, present=there, visible=there, places=np.zeros(1, np.int32)
    )
    detector = build_detector(config, LANDMARKS)
    optimizer, _ = build_optimizer(config, config.train.steps)
    state = ours.init_state(detector, optimizer)._replace(params=params)
    step = parallel.map_step(build_step(config, detector, optimizer, None))
    _, metrics = step(state, jax.random.key(0), examples)

    model.zero_grad(set_to_none=True)
    with peer.autocast(dtype):
        peer_logits = model(torch.from_numpy(volumes[:, None])).float()
    settings = peer.make_loss_settings(config)
    losses = [
        form(peer_logits, torch.from_numpy(points), **settings).mean()
        for form in (peer_torch.emd_materialised, peer_torch.emd_separable)
    ]
    losses[1].backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
    return {
        "logits": _difference(logits, peer_logits),
        "loss": max(_difference(metrics["loss"], loss) for loss in losses),
        "gradient norm": _difference(metrics["grad_norm"], norm),
    }


def compare_rest(config, params, model) -> dict[str, float]:
    """An example moved by augmentation, and the landmarks decoded."""
    volumes, points = (array[:1] for array in cases.make_arrays(SIDE, LANDMARKS))
    volumes, torch_points = volumes.astype(np.float32), torch.from_numpy(points)
    torch_volumes = torch.from_numpy(volumes[:, None])
    motion = augment.sample_motion(
        jax.random.key(2), max_degrees=20.0, max_scale=0.1, max_shift_vox=2.0
    )
    moved = [
        augment.move_volume(jnp.asarray(volumes[0]), motion),
        augment.move_points(jnp.asarray(points[0]), motion, volumes.shape[1:]),
    ]
    matrix, shift = (torch.from_numpy(np.array(a)[None]) for a in motion)
    peer_moved = peer_torch.move(torch_volumes, torch_points, matrix, shift)

    decoder = heatmaps.decoder_settings(**build_target(config)._asdict())
    find = build_finder(config, build_detector(config, LANDMARKS))
    decoded = find(params, Examples(volumes)).points_vox
    peer_decoded = peer_torch.decode(model(torch_volumes).detach(), **decoder)
    return {
        "moved volume": _difference(moved[0], peer_moved[0][0, 0]),
        "moved points": _difference(moved[1], peer_moved[1][0]),
        "decoded points": _difference(decoded, peer_decoded),
    }


def compare_runtimes(model, dtype: str) -> dict[str, float | str]:
    """The PyTorch model's logits, by each runtime that computes in `dtype`; or why they are not."""
    found: dict[str, float | str] = {}
    volumes = torch.from_numpy(cases.make_arrays(SIDE, LANDMARKS)[0][:1, None]).float()
    expected = model(volumes).detach().numpy()
    for name, open_runtime in onnx_runtimes.RUNTIMES.items():
        if dtype == "bfloat16" and name == "onnxruntime":
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "network.onnx")
            try:
                onnx_runtimes.export_network(model.eval(), volumes, path)
                forward = open_runtime(path, dtype, torch.get_num_threads())
            except Exception as error:  # said here, and in the rows of its contenders
                found[name] = f"not available: {type(error).__name__}"
                continue
        found[name] = _difference(expected, torch.from_numpy(forward(volumes.numpy())))
    return found


def _difference(ours_, theirs) -> float:
    """The largest, relative to the largest of ours."""
    ours_, theirs = np.asarray(ours_), theirs.detach().numpy()
    return float(np.max(np.abs(ours_ - theirs)) / np.max(np.abs(ours_)))


def compare() -> dict:
    """parameters; differences: for each arithmetic, quantity: difference; raises if one is far."""
    config, params, model = make_pair()
    differences = {}
    for dtype in processor.list_dtypes(processor.read_flags()):
        found = compare_networks(config, params, model, dtype)
        if dtype == "float32":
            found |= compare_rest(config, params, model)
        found |= compare_runtimes(model, dtype)
        bounds = TOLERANCES[dtype]
        for name, difference in found.items():
            bound = bounds["logits"] if name in onnx_runtimes.RUNTIMES else bounds.get(name, SAME)
            far = not isinstance(difference, str) and not difference <= bound
            assert not far, f"expected {name} in {dtype} within {bound}, got {difference}"
        differences[dtype] = found
    return {"parameters": count_parameters(params), "differences": differences}


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    print(json.dumps(compare()))
