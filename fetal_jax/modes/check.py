"""`--mode=check`: what is in a data set, and what would be done with it, before anything is."""

from collections import Counter
from functools import partial
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from fetal_jax import geometry
from fetal_jax.data import annotation_check, folds, placement
from fetal_jax.data.cases import PreparedCases
from fetal_jax.data.dataset import Dataset, list_volumes, read_case_points
from fetal_jax.data.from_config import (
    find_root,
    open_dataset,
    prepare_cases,
    resolve_grid,
    split_dataset,
)
from fetal_jax.data.twins import check_splits
from fetal_jax.detectors.detector import Detector
from fetal_jax.detectors.from_config import build_detector
from fetal_jax.errors import InputError
from fetal_jax.io.tables import shorten
from fetal_jax.report import pictures
from fetal_jax.runs import aligned, face_frame
from fetal_jax.runs.config_table import check_config
from fetal_jax.training import parallel
from fetal_jax.training.compiling import measure_memory
from fetal_jax.training.devices import describe_devices
from fetal_jax.training.from_config import (
    build_optimizer,
    build_step,
    check_devices,
    count_parameters,
    count_steps,
)
from fetal_jax.training.step import create_state

SHOWN_CASES = 4
SHOWN_FINDINGS = 12


def run_check(config: ConfigDict, workdir: Path) -> None:
    """Print the data set, the split, the grid and the cost; read every voxel; draw a few cases."""
    config = check_config(config)
    check_devices(config)
    print(f"device: {describe_devices()}")
    dataset = _open_dataset(config)
    _print_dataset(dataset, config)
    splits = split_dataset(config, dataset)
    config = resolve_grid(config, dataset, splits["train"] + splits["validation"])
    _print_grid(dataset, config)
    for split in folds.SPLITS:
        subjects = {dataset.cases[i].subject for i in splits[split]}
        print(f"{split}: {len(splits[split])} cases of {len(subjects)} subjects")
    side, mirror = config.grid.side, dataset.mirror_index
    detector = build_detector(config, len(dataset.labels))
    steps = count_steps(config, len(splits["train"]))
    _print_cost(config, detector, steps, (side,) * 3, len(dataset.labels), mirror)
    prepared = prepare_cases(config, dataset, splits["test"])
    check_splits(prepared, splits)
    _print_annotations(config, dataset, workdir)
    if aligned.is_on(config):
        _print_second(config, prepared.select(splits["train"]), mirror)
    path = workdir / "check.png"
    few = np.unique(np.linspace(0, len(prepared) - 1, SHOWN_CASES).astype(int))
    pictures.save(pictures.draw_cases(prepared.select(few), list(dataset.labels)), path)
    print(f"all {len(prepared)} cases can be read; open {path} to see {len(few)} of them")


def _print_annotations(config: FrozenConfigDict, dataset: Dataset, workdir: Path) -> None:
    """What looks wrong, the worst of it in words, and all of it in a table."""
    annotations = annotation_check.read_annotations(dataset, config.data.coordinate_system or None)
    try:
        findings = annotation_check.check_annotations(dataset, annotations)
    except ValueError as error:
        print(f"annotations: not compared with each other: {error}")
        return
    count = int(np.isfinite(annotations.points_mm).all(axis=-1).sum())
    print(
        f"annotations: {count} points in {len(annotations.paths)} files, {len(findings)} look wrong"
    )
    path = workdir / "annotations.csv"
    if not findings:
        path.unlink(missing_ok=True)
        return
    annotation_check.write_findings(path, findings)
    print(f"warning: {path} has what looks wrong, the worst first:")
    for finding in findings[:SHOWN_FINDINGS]:
        print(f"  {finding.path}: {finding.what}")


def _open_dataset(config: FrozenConfigDict) -> Dataset:
    """The data set; if something is wrong with its files, all volumes are tried as well."""
    try:
        return open_dataset(config)
    except InputError as error:
        root = find_root(config)
        volumes = list_volumes(root, []) if root else {}
        trust = config.data.trust_missing_affine
        unreadable = placement.find_unreadable(volumes.values(), trust_missing_affine=trust)
        raise InputError(*error.problems, *unreadable) from None


def _print_grid(dataset: Dataset, config: FrozenConfigDict) -> None:
    side, spacing_mm = config.grid.side, config.grid.spacing_mm
    print(f"grid: {side}³ at {spacing_mm:g} mm, {side * spacing_mm:g} mm wide")
    cut = placement.find_cut_cases(
        dataset.cases,
        side=side,
        spacing_mm=spacing_mm,
        trust_missing_affine=config.data.trust_missing_affine,
    )
    if cut:
        print(
            f"warning: the grid cuts {len(cut)} volumes, which are larger: {shorten(cut)}; "
            "a larger config.grid.side or spacing_mm would hold them"
        )


def _print_dataset(dataset: Dataset, config) -> None:
    cases = dataset.cases
    subjects = {case.subject for case in cases}
    print(f"data set: {dataset.root}, {len(cases)} cases of {len(subjects)} subjects")
    for sentence in dataset.assumptions:
        print(f"note: {sentence}")
    headers = placement.read_headers(dataset, range(len(cases)), config.data.trust_missing_affine)
    print(f"sizes: {_span([shape for shape, _ in headers], '{:d}')} voxels")
    sizes = [geometry.voxel_sizes(affine) for _, affine in headers]
    print(f"spacings: {_span(sizes, '{:.3g}')} mm")
    sites = Counter(case.site or "unknown" for case in cases)
    print("sites: " + ", ".join(f"{site} {n}" for site, n in sites.most_common()))
    ages = [case.age_weeks for case in cases if np.isfinite(case.age_weeks)]
    if ages:
        print(f"gestational ages: {min(ages):g} to {max(ages):g} weeks, median {np.median(ages):g}")
    system = config.data.coordinate_system or None
    flags = [read_case_points(case, dataset.labels, coordinate_system=system) for case in cases]
    there = sum(np.isfinite(points).all(axis=-1).astype(int) for points, _, _ in flags)
    seen = sum(visible.astype(int) for _, visible, _ in flags)
    print(f"landmarks: {len(dataset.labels)}, as label: files that have it (visible in)")
    cells = [
        f"{label}: {t}" + (f" ({s})" if s != t else "")
        for label, t, s in zip(dataset.labels, there, seen, strict=True)
    ]
    for start in range(0, len(cells), 8):
        print("  " + "   ".join(cells[start : start + 8]))


def _print_second(
    config: FrozenConfigDict, training: PreparedCases, mirror_index: np.ndarray | None
) -> None:
    """The box of the second look, what would be judged there, and what it would cost."""
    training = training.select(face_frame.find_posed(training.points_mm))
    frame, _ = face_frame.fit_training_frame(
        config, training.points_mm, training.visible, mirror_index
    )
    print(face_frame.describe_box(frame))
    expected_vox = face_frame.expect_landmarks(training.share_visible(), frame)
    judged = "is learned" if expected_vox is not None else "is not said by the data set"
    print(f"  whether a landmark can be seen {judged}")
    derived, landmarks = aligned.derive_config(config, frame.box), len(frame.shape_mm)
    detector = build_detector(derived, landmarks, expected_vox=expected_vox)
    _print_cost(derived, detector, derived.train.steps, frame.box.shape, landmarks, mirror_index)


def _print_cost(
    config: FrozenConfigDict,
    detector: Detector,
    steps: int,
    shape: tuple[int, int, int],
    landmarks: int,
    mirror_index: np.ndarray | None,
) -> None:
    """Compile the training step for this machine and say what it would need."""
    optimizer, _ = build_optimizer(config, steps)
    create = partial(create_state, init=detector.init, optimizer=optimizer)
    state = jax.eval_shape(create, jax.random.key(0))
    print(f"network: {count_parameters(state.params):,} parameters")
    program = parallel.compile_step(
        build_step(config, detector, optimizer, mirror_index),
        state,
        batch=config.train.batch,
        shape=shape,
        landmarks=landmarks,
        depth=config.devices.depth,
    )
    print(
        f"training: {steps} steps of batch {config.train.batch}, "
        f"about {measure_memory(program) / 2**30:.1f} GiB on each device"
    )


def _span(rows, form) -> str:
    low, high = np.min(rows, axis=0), np.max(rows, axis=0)
    return " × ".join(
        form.format(a) if np.isclose(a, b) else f"{form.format(a)}–{form.format(b)}"
        for a, b in zip(low, high, strict=True)
    )
