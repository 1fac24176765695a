"""`--mode=check`: what is in a data set, and what would be done with it, before anything is."""

from collections import Counter
from functools import partial
from pathlib import Path

import jax
import ml_collections
import numpy as np

from fetal_jax import geometry
from fetal_jax.data import folds, preprocess
from fetal_jax.data import from_config as data
from fetal_jax.data.dataset import Dataset, read_points
from fetal_jax.detectors import from_config as network
from fetal_jax.io.volumes import read_header
from fetal_jax.modes import train as experiment
from fetal_jax.report import pictures
from fetal_jax.runs import config_table as config_values
from fetal_jax.training import fit as train
from fetal_jax.training import parallel

SHOWN_CASES = 4


def run_check(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Print the data set, the split, the grid and the cost; read every voxel; draw a few cases."""
    config_values.check_values(config)
    print(f"device: {parallel.describe_devices()}")
    dataset = data.open_dataset(config)
    _describe_dataset(dataset, config)
    data.resolve_grid(config, dataset)
    side, spacing_mm = config.grid.side, config.grid.spacing_mm
    print(f"grid: {side}³ at {spacing_mm:g} mm, {side * spacing_mm:g} mm wide")
    trust = config.data.trust_missing_affine
    cut = preprocess.find_cut_cases(
        dataset, side=side, spacing_mm=spacing_mm, trust_missing_affine=trust
    )
    if cut:
        print(
            f"warning: the grid cuts {len(cut)} volumes, which are larger: {_list(cut)}; "
            "a larger config.grid.side or spacing_mm would hold them"
        )
    splits = data.split_dataset(config, dataset)
    for split in folds.SPLITS:
        subjects = {dataset.cases[i].subject for i in splits[split]}
        print(f"{split}: {len(splits[split])} cases of {len(subjects)} subjects")
    _describe_cost(config, dataset, experiment.count_steps(config, len(splits["train"])))
    prepared = data.prepare(config, dataset)
    path = workdir / "check.png"
    few = np.unique(np.linspace(0, len(prepared) - 1, SHOWN_CASES).astype(int))
    pictures.save(pictures.draw_cases(prepared.select(few), list(dataset.labels)), path)
    print(f"all {len(prepared)} cases can be read; open {path} to see {len(few)} of them")


def _describe_dataset(dataset: Dataset, config) -> None:
    cases = dataset.cases
    subjects = {case.subject for case in cases}
    print(f"data set: {dataset.root}, {len(cases)} cases of {len(subjects)} subjects")
    for sentence in dataset.assumptions:
        print(f"note: {sentence}")
    headers = [
        read_header(c.volume_path, trust_missing_affine=config.data.trust_missing_affine)
        for c in cases
    ]
    print(f"sizes: {_span([shape for shape, _ in headers], '{:d}')} voxels")
    sizes = [geometry.voxel_sizes(affine) for _, affine in headers]
    print(f"spacings: {_span(sizes, '{:.3g}')} mm")
    sites = Counter(case.site or "unknown" for case in cases)
    print("sites: " + ", ".join(f"{site} {n}" for site, n in sites.most_common()))
    ages = [case.age_weeks for case in cases if np.isfinite(case.age_weeks)]
    if ages:
        print(f"gestational ages: {min(ages):g} to {max(ages):g} weeks, median {np.median(ages):g}")
    system = config.data.coordinate_system or None
    flags = [read_points(case, dataset.labels, coordinate_system=system) for case in cases]
    there = sum(np.isfinite(points).all(axis=-1).astype(int) for points, _ in flags)
    seen = sum(visible.astype(int) for _, visible in flags)
    print(f"landmarks: {len(dataset.labels)}, as label: files that have it (visible in)")
    cells = [
        f"{label}: {t}" + (f" ({s})" if s != t else "")
        for label, t, s in zip(dataset.labels, there, seen, strict=True)
    ]
    for start in range(0, len(cells), 8):
        print("  " + "   ".join(cells[start : start + 8]))


def _describe_cost(config, dataset: Dataset, steps: int) -> None:
    """Compile the training step for this machine and say what it would need."""
    depth = config.devices.depth
    parallel.check_batch(config.train.batch, depth=depth)
    model = network.build_model(config, len(dataset.labels))
    optimizer, _ = train.build_optimizer(**config.optim, steps=steps)
    create = partial(
        train.create_state, model=model, optimizer=optimizer, side=2 ** len(config.model.widths)
    )
    state = jax.eval_shape(create, jax.random.key(0))
    print(f"network: {network.count_parameters(state.params):,} parameters")
    step = network.build_step(config, model, optimizer, dataset.mirror_index)
    program = parallel.compile_step(
        step,
        state,
        batch=config.train.batch,
        side=config.grid.side,
        landmarks=len(dataset.labels),
        depth=depth,
    )
    memory = parallel.measure_memory(program)
    print(
        f"training: {steps} steps of batch {config.train.batch}, "
        f"about {memory / 2**30:.1f} GiB on each device"
    )


def _span(rows, form) -> str:
    low, high = np.min(rows, axis=0), np.max(rows, axis=0)
    return " × ".join(
        form.format(a) if np.isclose(a, b) else f"{form.format(a)}–{form.format(b)}"
        for a, b in zip(low, high, strict=True)
    )


def _list(names, limit=5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
