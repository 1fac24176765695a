"""Where a training step's time goes: JAX's own profile, added up by what the code calls it.

    python -m benchmarks.step_profile --side=48

Each operation that XLA ran is named after the code that it came from. Operations run on several
threads at once, so the shares are of the threads' busy time.
"""

import argparse
import collections
import glob
import gzip
import json
import re
import tempfile
from functools import partial

import jax

from benchmarks import cases, ours
from fetal_jax import loader, network, parallel, train

# The first that matches an operation's name says what it is.
PARTS = {
    "augmentation": r"map_coordinates|augment|random|threefry|erf_inv",
    "convolutions, backward": r"transpose.*conv_general_dilated",
    "convolutions, forward": r"conv_general_dilated",
    "normalisation": r"Norm",
    "upsampling and logits": r"dot_general|bnc,cl->bln|up\d",
    "loss": r"while|cond/branch|logsumexp",
    "pooling": r"reduce_max|max_pool|select_and",
}


def profile_step(side: int, steps: int) -> dict[str, float]:
    """Part -> share of the busy time."""
    config = cases.make_config(side)
    landmarks = 19
    prepared = ours.make_prepared(config, landmarks)
    model = network.build_model(config, landmarks)
    optimizer, _ = train.build_optimizer(**config.optim, steps=1000)
    state = ours.create_state(config, model, optimizer)
    step = network.build_step(config, model, optimizer, cases.make_mirror(landmarks))
    program = parallel.compile_step(
        step, jax.eval_shape(lambda: state), batch=1, side=side, landmarks=landmarks
    )
    names = dict(
        re.findall(r"%?([\w.-]+) = [^\n]*metadata=\{[^}]*op_name=\"([^\"]*)\"", program.as_text())
    )
    mapped = parallel.map_step(step)
    load = partial(loader.load_batch, prepared, batch=1, seed=0, with_completed=True)
    state, found = mapped(state, jax.random.key(1), load(0))
    jax.block_until_ready(found)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for number in range(steps):
                state, found = mapped(state, jax.random.key(1), load(number))
            jax.block_until_ready(found)
        (path,) = glob.glob(f"{folder}/**/*.trace.json.gz", recursive=True)
        with gzip.open(path) as file:
            events = json.load(file)["traceEvents"]
    spent = collections.Counter()
    for event in events:
        operation = event.get("args", {}).get("hlo_op")
        if operation and not operation.startswith(("while", "conditional", "call")):
            spent[name_part(names.get(operation, operation))] += event["dur"]
    total = sum(spent.values())
    return {part: time / total for part, time in spent.most_common()}


def name_part(name: str) -> str:
    for part, pattern in PARTS.items():
        if re.search(pattern, name):
            return part
    return "the rest: activations, joins, copies, Adam"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=48)
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args()
    print(f"| part of a step at {args.side}³ | share |\n| --- | --- |")
    for part, share in profile_step(args.side, args.steps).items():
        print(f"| {part} | {100 * share:.0f} % |")


if __name__ == "__main__":
    main()
