"""What each part of two looks buys, how much of the first may be wrong, and whether sides are told.

    python -m benchmarks.two_looks runs/fine
    python -m benchmarks.two_looks runs/fine --mirrored

On the run's own test scans; intervals are over subjects. Some of the first network's points are
exchanged among each other before the second one looks. With `--mirrored` each scan's voxels are
reflected: what is found must be the reflection of what was, right and left exchanged.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np

from fetal_jax import frames, metrics, statistics
from fetal_jax.data.cases import FileVoxels, PreparedCases, bind_files
from fetal_jax.data.landmark_table import index_mirrors
from fetal_jax.runs import face_frame, finished, folder, second_look
from fetal_jax.runs.finished import OpenedModels
from fetal_jax.runs.search import bind_searches, search_poses
from fetal_jax.training.from_config import build_finder

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
DRAWS = 3


def exchange_points(points_mm: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Points [N, L, 3], a share of each case's landmarks in the places of others of them."""
    rng, moved = np.random.default_rng(seed), points_mm.copy()
    n = round(share * points_mm.shape[1])
    for case in range(len(points_mm)):
        chosen = rng.permutation(points_mm.shape[1])[:n]
        moved[case, chosen] = points_mm[case, np.roll(chosen, 1)]
    return moved


def reflect_file(file: FileVoxels) -> FileVoxels:
    """The scan of a child that is the mirror image of this one, in x of the world."""
    return file._replace(affine=np.diag([-1.0, 1, 1, 1]) @ file.affine)


def describe(
    title: str, points_mm: np.ndarray, cases: PreparedCases, seconds: float | None
) -> None:
    errors = metrics.radial_errors(points_mm, cases.points_mm)
    low, high = statistics.bootstrap_interval(errors, cases.visible, cases.subjects)
    shown = errors[cases.visible]
    took = "" if seconds is None else f"{seconds:.2f}"
    print(
        f"| {title} | {shown.mean():.3f} ({low:.3f}–{high:.3f}) | {np.median(shown):.3f} | {took} |"
    )


def measure_parts(models: OpenedModels, cases: PreparedCases, files) -> None:
    """A row for each part, as a markdown table."""
    (second,), config = models.seconds, models.config
    find = partial(build_finder(config, models.detector), models.params[0])
    again = partial(build_finder(second.config, second.detector), second.params)

    def sample(n, grid):
        return files[n].sample(grid)

    def look_first(rows):
        chosen = cases.select(rows)
        posed = search_poses(
            find, second.frame, again, chosen.volumes, chosen.grids, sample,
            poses=config.aligned.poses,
        )  # fmt: skip
        return posed.points_mm, posed.mass

    def look_again(points_mm, mass, passes=2):
        return second_look.look_again(second.frame, again, sample, points_mm, mass, passes=passes)

    look_again(*look_first([0]))  # compiles
    began = time.monotonic()
    points_mm, mass = look_first(range(len(cases)))
    first_s = (time.monotonic() - began) / len(cases)
    began = time.monotonic()
    face_frame.fit_frames(second.frame, points_mm, mass)
    fit_s = (time.monotonic() - began) / len(cases)
    began = time.monotonic()
    looks = look_again(points_mm, mass)
    look_s = (time.monotonic() - began) / len(cases) / len(looks)
    print("| stage | d-mean, mm | median | s a scan |\n| --- | --- | --- | --- |")
    describe("first network", points_mm, cases, first_s)
    describe("mean shape in its frame", looks[0].shape_mm, cases, fit_s)
    for number, look in enumerate(looks, 1):
        describe(f"second network, look {number}", look.points_mm, cases, look_s)
    print("\n| first points exchanged | look 1 | look 2 | no frame |\n| --- | --- | --- | --- |")
    for share in SHARES:
        draws = [
            look_again(exchange_points(points_mm, share, seed), mass)
            for seed in range(DRAWS if share else 1)
        ]
        errors = np.array(
            [
                [metrics.radial_errors(look.points_mm, cases.points_mm) for look in each]
                for each in draws
            ]
        ).mean(axis=0)
        cells = []
        for each in errors:
            low, high = statistics.bootstrap_interval(each, cases.visible, cases.subjects)
            cells.append(f"{each[cases.visible].mean():.3f} ({low:.3f}–{high:.3f})")
        none = np.mean([~second_look.has_frame(each) for each in draws])
        print(f"| {share:.0%} | {' | '.join(cells)} | {none:.0%} |")


def measure_reflection(models: OpenedModels, cases: PreparedCases, files, mirror_index) -> None:
    """How far what is found in reflected scans is from the reflection of what was found."""
    (search,) = bind_searches(models)
    found = search(cases.volumes, list(cases.grids), lambda n, grid: files[n].sample(grid))
    reflected = [reflect_file(file) for file in files]
    grids = [
        grid._replace(affine=_reflect_origin(grid)) for grid in cases.grids
    ]  # the same cube, where the scan now lies
    volumes = np.stack([file.sample(grid) for file, grid in zip(reflected, grids, strict=True)])
    there = search(volumes, grids, lambda n, grid: reflected[n].sample(grid))
    back = (there.points_mm * frames.MIRROR)[:, mirror_index]
    apart = metrics.radial_errors(back, found.points_mm)[cases.visible]
    own, other = (
        metrics.radial_errors(points, cases.points_mm) for points in (back, back[:, mirror_index])
    )
    pairs = cases.visible & (mirror_index != np.arange(len(mirror_index)))
    print("\n| reflected | d-mean, mm | median | |\n| --- | --- | --- | --- |")
    describe("as it is", found.points_mm, cases, None)
    describe("reflected, and back", back, cases, None)
    print(
        f"\nfrom each other {apart.mean():.3f} mm, median {np.median(apart):.3f}; nearer to the "
        f"other side's landmark: {np.mean((other < own)[pairs]):.1%} of {pairs.sum()}"
    )


def _reflect_origin(grid) -> np.ndarray:
    affine = grid.affine.copy()
    last = grid.to_world(np.array(grid.shape) - 1.0)[0]
    affine[0, 3] = -last
    return affine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--mirrored", action="store_true", help="whether sides are told by anatomy")
    asked = parser.parse_args()
    config, record = finished.open_config(asked.run), folder.read_data_record(asked.run)
    cases = finished.open_tested(config, asked.run, record)
    open_file = bind_files(cases, record.preprocessing, None)
    files = [open_file(n) for n in range(len(cases))]
    models = finished.open_models(asked.run)
    if asked.mirrored:
        measure_reflection(models, cases, files, index_mirrors(record.landmarks))
    else:
        measure_parts(models, cases, files)


if __name__ == "__main__":
    main()
