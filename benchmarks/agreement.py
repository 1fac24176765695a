"""That the peer trains the same network: asserted, with our parameters in the PyTorch model.

Logits, loss, gradient norm, the moved example and the decoded landmarks, each within 1e-3 relative.
Run before anything is timed; prints one line of JSON. On the CPU, in float32, whatever is timed.
"""

import json
import os

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import cases, ours, peer_torch
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

SIDE, LANDMARKS = 32, 19
TOLERANCE = 1e-3


def compare() -> dict[str, float]:
    """Largest difference of each quantity, relative to the largest of ours."""
    config = cases.make_config(SIDE)
    config.augment.on = False
    volumes, points = (array[:1] for array in cases.make_arrays(SIDE, LANDMARKS))
    volumes = volumes.astype(np.float32)
    detector = build_detector(config, LANDMARKS)
    optimizer, _ = build_optimizer(config, config.train.steps)
    state = ours.init_state(detector, optimizer)
    params = jax.device_get(state.params)
    logits = jax.jit(build_resunet3d(config, LANDMARKS).apply)(params, volumes[..., None]).logits
    there = np.ones((1, LANDMARKS), bool)
    examples = Examples(
        volumes, points_vox=points, present=there, visible=there, places=np.zeros(1, np.int32)
    )
    step = parallel.map_step(build_step(config, detector, optimizer, None))
    _, metrics = step(state, jax.random.key(0), examples)

    peer = peer_torch.ResUNet3D(LANDMARKS, config.model.widths)
    counts = [count_parameters(params), sum(p.numel() for p in peer.parameters())]
    assert counts[0] == counts[1], f"expected as many parameters, got {counts}"
    peer_torch.copy_parameters(params, peer)
    peer_logits = peer(torch.from_numpy(volumes[:, None]))
    settings = dict(sigma_vox=config.target.width_vox, spacing_mm=config.grid.spacing_mm)
    settings["lambda2"] = config.loss.lambda2
    torch_points = torch.from_numpy(points)
    losses = [
        form(peer_logits, torch_points, **settings).mean()
        for form in (peer_torch.emd_materialised, peer_torch.emd_separable)
    ]
    losses[1].backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in peer.parameters()])

    motion = augment.sample_motion(
        jax.random.key(2), max_degrees=20.0, max_scale=0.1, max_shift_vox=2.0
    )
    moved = [
        augment.move_volume(jnp.asarray(volumes[0]), motion),
        augment.move_points(jnp.asarray(points[0]), motion, volumes.shape[1:]),
    ]
    matrix, shift = (torch.from_numpy(np.array(a)[None]) for a in motion)
    peer_moved = peer_torch.move(torch.from_numpy(volumes[:, None]), torch_points, matrix, shift)

    decoder = heatmaps.decoder_settings(**build_target(config)._asdict())
    find = build_finder(config, detector)
    decoded = find(params, Examples(volumes)).points_vox
    peer_decoded = peer_torch.decode(peer_logits.detach(), **decoder)

    pairs = {
        "logits": (logits, peer_logits),
        "loss": (metrics["loss"], losses[0]),
        "loss, separable": (metrics["loss"], losses[1]),
        "gradient norm": (metrics["grad_norm"], norm),
        "moved volume": (moved[0], peer_moved[0][0, 0]),
        "moved points": (moved[1], peer_moved[1][0]),
        "decoded points": (decoded, peer_decoded),
    }
    return {name: _difference(*pair) for name, pair in pairs.items()} | {"parameters": counts[0]}


def _difference(ours_, theirs):
    ours_, theirs = np.asarray(ours_), theirs.detach().numpy()
    return float(np.max(np.abs(ours_ - theirs)) / np.max(np.abs(ours_)))


if __name__ == "__main__":
    found = compare()
    far = {n: d for n, d in found.items() if n != "parameters" and not d <= TOLERANCE}
    assert not far, f"expected differences of at most {TOLERANCE}, got {far}"
    print(json.dumps(found))
