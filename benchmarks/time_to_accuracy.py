"""Minutes until our error on the mouse heads' test set is PyTorch's after a budget of minutes.

    python -m benchmarks.time_to_accuracy --root=MOUSE_CT

First PyTorch trains for `--minutes` with softmax cross-entropy, Adam 2e-3 and a cosine that follows
the clock, so that it ends exactly with the budget. Then ours trains for as long, from
configs/mouse_ct.py with PyTorch's widths; its cosine needs a number of steps, taken from the speed
of a few steps and from the time that compilation took, both before the clock starts. Each clock
counts compilation and leaves the tests out; ours may end a little early or late, and says when.

The peer's test error is looked at once, at the end. Ours is looked at again and again, which
flatters the first time it passes: read it beside our error at the end. One seed each.
"""

import argparse
import math
import os
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is loaded; see run.py

import torch
from torch import nn

from benchmarks import cases, peer, peer_torch
from configs import mouse_ct
from fetal_jax.data import loader
from fetal_jax.data.from_config import prepare_cases, resolve_grid, split_dataset
from fetal_jax.detectors.detector import choose_counted
from fetal_jax.detectors.from_config import build_detector
from fetal_jax.examples import Examples
from fetal_jax.modes.train import mean_error, open_run_data
from fetal_jax.training import parallel
from fetal_jax.training.devices import reuse_memory
from fetal_jax.training.from_config import build_finder, build_optimizer, build_step
from fetal_jax.training.step import create_state

WIDTHS = (16, 32, 64, 128)  # of the peer's run
PEER_SIGMA_MM = 0.67
CALIBRATION_STEPS = 5


def prepare(root: Path):
    """(config, data set, training cases, test cases)."""
    config = mouse_ct.get_config()
    config.data.root, config.data.split = str(root), str(root / "split.csv")
    config.model.widths = WIDTHS
    config, dataset = open_run_data(config)
    splits = split_dataset(config, dataset)
    config = resolve_grid(config, dataset, splits["train"] + splits["validation"])
    prepared = prepare_cases(config, dataset, splits["test"])
    return config, dataset, prepared.select(splits["train"]), prepared.select(splits["test"])


def make_loader(config, training):
    return partial(loader.load_examples, training, batch=config.train.batch, seed=config.seed)


def train_peer(config, training, tested, seconds: float) -> tuple[float, int]:
    """(d-mean in mm on the test cases, steps) after so many seconds of PyTorch."""
    landmarks = training.points_vox.shape[1]
    model = peer.make_model(config, landmarks, "first")
    optimizer = torch.optim.Adam(model.parameters(), lr=config.optim.lr, fused=True)
    settings = cases.read_augmentation(config) | {"mirror": None}
    sigma_vox = PEER_SIGMA_MM / config.grid.spacing_mm
    load, steps, began = make_loader(config, training), 0, time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        optimizer.param_groups[0]["lr"] = (
            config.optim.lr * (1 + math.cos(math.pi * passed / seconds)) / 2
        )
        examples = load(steps)
        counted = choose_counted(examples, on_completed=config.data.train_on_completed)
        volumes, points, counted = (
            torch.from_numpy(array).to(peer.DEVICE)
            for array in (examples.volumes[:, None], examples.points_vox, counted)
        )
        volumes, points, counted = peer_torch.augment(volumes, points, counted, **settings)
        optimizer.zero_grad(set_to_none=True)
        with peer.autocast(config.model.dtype):
            logits = model(volumes)
        each = peer_torch.emd_separable(  # lambda2 0 leaves the cross-entropy
            logits.float(), points, sigma_vox=sigma_vox, spacing_mm=1.0, lambda2=0.0
        )
        ((each * counted).sum() / counted.sum().clamp(min=1)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm)
        optimizer.step()
        peer.synchronise()
        steps += 1
    model.eval()
    with torch.inference_mode(), peer.autocast(config.model.dtype):
        points = [
            peer_torch.decode(
                model(torch.from_numpy(volume[None, None].astype(np.float32)).to(peer.DEVICE)),
                sharpness=1.0,
                radius_vox=4 * sigma_vox,
            ).cpu()
            for volume in tested.volumes
        ]
    return mean_error(tested.to_world(torch.cat(points).numpy()), tested), steps


def train_ours(config, dataset, training, tested, seconds: float, tests: int):
    """[(seconds, step, d-mean in mm on the test cases)] at so many points of a training."""
    detector = build_detector(config, len(dataset.labels))
    find = build_finder(config, detector)
    load = make_loader(config, training)

    def make(steps):
        optimizer, _ = build_optimizer(config, steps)
        create = partial(create_state, init=detector.init, optimizer=optimizer)
        state = jax.jit(create)(jax.random.fold_in(jax.random.key(config.seed), 0))
        step = build_step(config, detector, optimizer, dataset.mirror_index)
        return state, parallel.map_step(step)

    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    began = time.monotonic()
    state, step = make(config.train.steps)
    state, _ = jax.block_until_ready(step(state, key, load(0)))
    setup, began = time.monotonic() - began, time.monotonic()
    for at in range(1, 1 + CALIBRATION_STEPS):
        state, metrics = step(state, key, load(at))
    jax.block_until_ready(metrics)
    a_step = (time.monotonic() - began) / CALIBRATION_STEPS
    total = max(tests, int((seconds - setup) / a_step))
    every = math.ceil(total / tests)

    curve, tested_for, began = [], 0.0, time.monotonic()
    state, step = make(total)
    for at, examples in loader.prefetch(lambda s: load(s - 1), range(1, total + 1)):
        state, metrics = step(state, key, examples)
        if at % every and at != total:
            continue
        jax.block_until_ready((state, metrics))
        paused = time.monotonic()
        points_vox = find(state.params, Examples(volumes=tested.volumes)).points_vox
        error_mm = mean_error(tested.to_world(points_vox), tested)
        curve.append((paused - began - tested_for, at, error_mm))
        tested_for += time.monotonic() - paused
    return curve


def format_report(minutes, peer_mm, peer_steps, curve) -> str:
    passed = next((c for c in curve if c[2] <= peer_mm), None)
    seconds, steps, last_mm = curve[-1]
    lines = [
        f"PyTorch eager, CE, {minutes:g} min, {peer_steps} steps: d-mean {peer_mm:.3f} mm",
        f"fetal_jax, EMD, {seconds / 60:.1f} min, {steps} steps: d-mean {last_mm:.3f} mm",
        f"fetal_jax was at or below PyTorch's after {passed[0] / 60:.1f} min (step {passed[1]})"
        if passed
        else "fetal_jax was not at or below PyTorch's at any test",
        "",
        "| minutes | step | d-mean |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {s / 60:.1f} | {at} | {mm:.3f} mm |" for s, at, mm in curve]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="the folder of the mouse heads")
    parser.add_argument("--minutes", type=float, default=10.0, help="of each training")
    parser.add_argument("--tests", type=int, default=20, help="of ours, evenly over its steps")
    parser.add_argument("--output", type=Path, help="a Markdown file")
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    reuse_memory()  # as launch.py does; PyTorch has the same, being in this process
    config, dataset, training, tested = prepare(options.root)
    peer_mm, peer_steps = train_peer(config, training, tested, 60 * options.minutes)
    print(f"PyTorch: {peer_mm:.3f} mm after {peer_steps} steps")
    curve = train_ours(config, dataset, training, tested, 60 * options.minutes, options.tests)
    report = format_report(options.minutes, peer_mm, peer_steps, curve)
    print(report)
    if options.output:
        options.output.write_text(report)


if __name__ == "__main__":
    main()
