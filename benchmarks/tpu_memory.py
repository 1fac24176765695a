"""Memory of a training step on a TPU, from the TPU's own compiler, with no TPU at hand.

    pip install libtpu          # of the installed JAX's version; no TPU is needed
    python -m benchmarks.tpu_memory --output=benchmarks/tpu_memory.md

The step of `configs/emd.py:paper` (32 to 512 channels, batch 2, 19 landmarks) is compiled for the
chips of a TPU v5e, each with 16 GiB, and the compiler says what it would take there. Nothing is
run. Compiling takes minutes a row on a few cores.
"""

import argparse
import os
import time
from functools import partial
from pathlib import Path

# or libtpu asks the network what it runs on; before JAX is imported
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}

import jax  # noqa: E402
from jax.experimental import topologies  # noqa: E402

from configs import emd  # noqa: E402
from fetal_jax.detectors.from_config import build_detector  # noqa: E402
from fetal_jax.training import parallel  # noqa: E402
from fetal_jax.training.compiling import measure_memory  # noqa: E402
from fetal_jax.training.from_config import build_optimizer, build_step  # noqa: E402
from fetal_jax.training.step import create_state  # noqa: E402

LANDMARKS = 19
COLUMNS = "| side | activations | remat | chips a volume | GiB a chip | compiled in |"


def compile_step(side: int, dtype: str, remat: bool, depth: int) -> jax.stages.Compiled:
    """The study's step, for `depth` chips."""
    config = emd.get_config("paper")
    config.grid.side, config.model.dtype, config.model.remat = side, dtype, remat
    config.devices.depth = depth
    chips = topologies.get_topology_desc("v5e:2x2", platform="tpu").devices[:depth]
    detector = build_detector(config, LANDMARKS)
    optimizer, _ = build_optimizer(config, 1000)
    create = partial(create_state, init=detector.init, optimizer=optimizer)
    return parallel.compile_step(
        build_step(config, detector, optimizer, None, devices=chips),
        jax.eval_shape(create, jax.random.key(0)),
        batch=config.train.batch,
        shape=(side,) * 3,
        landmarks=LANDMARKS,
        depth=depth,
        devices=chips,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", default="32,64,96,128")
    parser.add_argument("--rows", default="f32,f32+remat,bf16,bf16+remat", help="of each side")
    parser.add_argument("--depth", type=int, default=1, help="chips that share a volume")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    rows = [COLUMNS, "| --- | --- | --- | --- | --- | --- |"]
    for side in (int(s) for s in args.sides.split(",")):
        for row in args.rows.split(","):
            dtype = "bfloat16" if row.startswith("bf16") else "float32"
            began, remat = time.monotonic(), row.endswith("+remat")
            try:
                program = compile_step(side, dtype, remat, args.depth)
                need = f"{measure_memory(program) / 2**30:.2f}"
            except jax.errors.JaxRuntimeError as error:
                need = " ".join(str(error).split())[:160]
            took = f"{time.monotonic() - began:.0f} s"
            remat_text = "yes" if remat else "no"
            rows.append(f"| {side} | {dtype} | {remat_text} | {args.depth} | {need} | {took} |")
            print(rows[-1], flush=True)
            args.output.write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
