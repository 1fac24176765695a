"""Where a training step's time goes: each part compiled and timed alone, beside the whole step.

    python -m benchmarks.step_profile --side=64
    python -m benchmarks.step_profile --side=64 --dtype=bfloat16

XLA's own profile cannot say: the library that does the convolutions on a CPU runs them in threads
that leave no trace. Alone a part cannot be fused with its neighbours, and reads and writes what
they would have handed on; so the parts may add up to more than the step.
"""

import argparse
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import cases, floor, ours
from fetal_jax import losses
from fetal_jax.detectors.from_config import build_detector, build_resunet3d
from fetal_jax.examples import Examples
from fetal_jax.models import conv3d
from fetal_jax.models.resunet3d import Norm
from fetal_jax.training.compiling import compile_faster
from fetal_jax.training.devices import reuse_memory
from fetal_jax.training.from_config import build_augmentation, build_optimizer

LANDMARKS = 19


def time_program(function, *args, repeats: int) -> float:
    """Seconds, the median of so many calls."""
    program = compile_faster(jax.jit(function), *args)
    jax.block_until_ready(program(*args))
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(program(*args))
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def list_layers(model, params, side: int) -> tuple[list, list]:
    """(input, kernel) shapes of every 3x3x3 convolution; input shapes of every norm."""
    volumes = jnp.zeros((1, side, side, side, 1))
    apply = partial(model.apply, capture_intermediates=True, mutable=["intermediates"])
    _, kept = jax.eval_shape(apply, params, volumes)
    convolutions, norms = [], []

    def visit(layer, outputs):
        for name in layer:
            out = outputs[name]["__call__"][0] if "__call__" in outputs.get(name, {}) else None
            if name.startswith("Conv3D") and layer[name]["kernel"].shape[:3] == (3, 3, 3):
                kernel = layer[name]["kernel"].shape
                convolutions.append(((*out.shape[:-1], kernel[3]), kernel))
            elif name.lower().startswith("norm"):
                norms.append(out.shape)
            elif name in outputs:
                visit(layer[name], outputs[name])

    visit(params["params"], kept["intermediates"])
    return convolutions, norms


def time_parts(side: int, dtype: str, repeats: int) -> tuple[dict[str, float], float]:
    """Part -> seconds; and the seconds of a whole step."""
    config = cases.make_config(side, dtype=dtype)
    optimizer, _ = build_optimizer(config, config.train.steps)
    state = ours.init_state(build_detector(config, LANDMARKS), optimizer)
    convolutions, norms = list_layers(build_resunet3d(config, LANDMARKS), state.params, side)
    measure = partial(time_program, repeats=repeats)
    keys = iter(jax.random.split(jax.random.key(0), 1000))

    def noise(*shape):
        return jax.random.normal(next(keys), shape)

    def activations(*shape):
        return noise(*shape).astype(dtype)

    def total(time_layer, layers):  # layers of one shape are timed once
        return sum(layers.count(layer) * time_layer(layer) for layer in set(layers))

    def forward(layer):
        return measure(conv3d.conv3d, *(activations(*shape) for shape in layer))

    def backward(layer):
        x, kernel = layer
        pull = lambda x, k, g: jax.vjp(conv3d.conv3d, x, k)[1](g)[x.shape[-1] == 1 :]  # noqa: E731
        return measure(pull, *(activations(*shape) for shape in (x, kernel, (*x[:-1], kernel[-1]))))

    def normalise(shape):
        norm = Norm(config.model.groups)
        params = norm.init(next(keys), noise(1, 1, 1, 1, shape[-1]))

        def both(params, x, g):
            y, pull_back = jax.vjp(lambda p, x: jax.nn.leaky_relu(norm.apply(p, x)), params, x)
            return y, pull_back(g)

        return measure(both, params, activations(*shape), activations(*shape))

    volumes, points = cases.make_arrays(side, LANDMARKS)
    volume, points = jnp.asarray(volumes[0], jnp.float32), jnp.asarray(points[0])
    there = jnp.ones(LANDMARKS, bool)
    example = Examples(volume, points_vox=points, present=there, visible=there)
    settings = ours.make_loss_settings(config)

    def loss(logits):
        return losses.sum_losses(logits, points[None], there[None], **settings)

    def update(params, gradient):
        updates, _ = optimizer.update(gradient, state.opt_state, params)
        return optax.apply_updates(params, updates)

    parts = {
        "3x3x3 convolutions, forward": total(forward, convolutions),
        "3x3x3 convolutions, backward": total(backward, convolutions),
        "norms and activations, both ways": total(normalise, norms),
        "augmentation": measure(
            build_augmentation(config, cases.make_mirror(LANDMARKS)), next(keys), example
        ),
        "loss, both ways": measure(jax.value_and_grad(loss), noise(1, LANDMARKS, *volume.shape)),
        "clipping and Adam": measure(update, state.params, state.params),
    }
    step = ours.measure_step(side, LANDMARKS, dtype=dtype)
    step.run(1)
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        step.run(1)
        seconds.append(time.perf_counter() - began)
    return parts, float(np.median(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    reuse_memory()
    parts, whole = time_parts(args.side, args.dtype, args.repeats)
    parts["the rest: pooling, upsampling, joins, shortcuts, logits"] = whole - sum(parts.values())
    print(f"| part of a step at {args.side}³, {args.dtype} | alone | of the step |")
    print("| --- | --- | --- |")
    for part, seconds in parts.items():
        print(f"| {part} | {1000 * seconds:.0f} ms | {100 * seconds / whole:.0f} % |")
    print(f"| the whole step | {1000 * whole:.0f} ms | |")
    widths = cases.make_config(args.side).model.widths
    operations, _ = floor.compute_work(args.side, LANDMARKS, widths, batch=1, whole_step=True)
    print(f"\nIts convolutions are {operations / 1e9:.0f} GFLOP, counted directly.")


if __name__ == "__main__":
    main()
