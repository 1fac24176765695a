"""What a run's networks find: in new scans, and in cases whose landmarks are known."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import FrozenConfigDict

from fetal_jax.data.cases import PreparedCases, bind_files
from fetal_jax.data.from_config import choose_cache
from fetal_jax.data.lazy_volumes import Volumes, list_volumes
from fetal_jax.detectors.detector import Found
from fetal_jax.detectors.from_config import build_detector
from fetal_jax.examples import Examples, ask_all
from fetal_jax.geometry import Grid, turn_cube, turn_grid
from fetal_jax.runs import aligned, folder, second_look
from fetal_jax.runs.calibrations import Calibrations
from fetal_jax.runs.face_frame import Frame
from fetal_jax.runs.finished import OpenedModels, Restored, SecondLook, open_second, restore_best
from fetal_jax.runs.folder import DataRecord
from fetal_jax.runs.predictions import Predictions, make_predictions, recalibrate
from fetal_jax.runs.second_look import Look
from fetal_jax.training.from_config import build_finder
from fetal_jax.training.processes import from_first


class Searched(NamedTuple):
    """What a model finds in K scans, by as many looks as it takes.

    points_mm: [K, L, 3] RAS+; mass: [K, L]; framed: [K] bool, whether the answer is that of the
      second network; False where too little agreed with a frame, or there is no such network.
    seen: [K, L], completed_mm: [K, L, 3], as of `Predictions`.
    """

    points_mm: np.ndarray
    mass: np.ndarray
    framed: np.ndarray
    seen: np.ndarray
    completed_mm: np.ndarray


# (volumes [K, D, H, W], their grids, (k, another grid) -> volume there) -> what is found
Search = Callable[
    [np.ndarray | Volumes, Sequence[Grid], Callable[[int, Grid], np.ndarray]], Searched
]


def bind_searches(models: OpenedModels) -> list[Search]:
    """The search of each model."""
    find = build_finder(models.config, models.detector)
    again = [build_finder(second.config, second.detector) for second in models.seconds]

    def search(number, volumes, grids, sample):
        first = partial(find, models.params[number])
        if not models.seconds:
            found = first(Examples(volumes=volumes))
            points_mm = second_look.to_world(grids, found.points_vox)
            nothing = np.full_like(points_mm, np.nan)
            none = np.zeros(len(volumes), bool)
            return Searched(points_mm, found.mass, none, nothing[..., 0], nothing)
        second = models.seconds[number]
        find_again = partial(again[number], second.params)
        posed, looks = look_twice(models.config, second, first, find_again, volumes, grids, sample)
        found, points_mm = posed.found, second_look.to_world(posed.grids, posed.found.points_vox)
        framed = second_look.has_frame(looks)
        seen, completed_mm = judge_seen(second.frame, looks)
        return Searched(
            np.where(framed[:, None, None], looks[-1].points_mm, points_mm),
            np.where(framed[:, None], looks[-1].mass, found.mass),
            framed,
            seen,
            completed_mm,
        )

    return [partial(search, number) for number in range(len(models.params))]


class Posed(NamedTuple):
    """What the first network finds in N scans, and where the second one is to begin.

    found: by the first network; grids: on which each was.
    points_mm: [N, L, 3] RAS+; mass: [N, L]: what is known before the second network's looks, which
      has chosen among poses where there are several.
    """

    found: Found
    grids: list[Grid]
    points_mm: np.ndarray
    mass: np.ndarray


def search_poses(
    find: Callable[[Examples], Found],
    frame: Frame,
    find_again: Callable[[Examples], Found],
    volumes: np.ndarray | Volumes,
    grids: Sequence[Grid],
    sample: Callable[[int, Grid], np.ndarray],
    *,
    poses: int,
    truth_mm: np.ndarray | None = None,
) -> Posed:
    """What the first network finds in N scans, each in the pose that suits it.

    Args:
      find, find_again: of the first and of the second network.
      volumes: [N, D, H, W] on the grids, as the scans lie.
      sample, truth_mm: of `second_look.look_again`.
      poses: K, a key of `second_look.POSES`.
    """

    def look(volumes, grids, truth_mm):
        if truth_mm is None:
            return find(Examples(volumes=volumes))
        there = [grid.to_voxels(points) for grid, points in zip(grids, truth_mm, strict=True)]
        return find(ask_all(volumes, np.stack(there)))

    if poses == 1:
        found = look(volumes, grids, truth_mm)
        return Posed(found, list(grids), second_look.to_world(grids, found.points_vox), found.mass)
    volumes = list_volumes(volumes)
    turns, chosen = second_look.list_turns(poses), []
    for n, grid in enumerate(grids):
        turned = [turn_grid(grid, turn) for turn in turns]
        turned_volumes = np.stack([turn_cube(volumes[n], turn) for turn in turns])
        each = find(Examples(volumes=turned_volumes))
        points_mm = second_look.to_world(turned, each.points_vox)
        best, *start = second_look.choose_pose(
            frame, find_again, partial(sample, n), points_mm, each.mass
        )
        chosen.append((partial(_turn, volumes, n, turns[best]), turned[best], *start))
    fetch, grids, points_mm, mass = zip(*chosen, strict=True)
    # once more, for what is asked where the truth is known: to ask it of all poses takes long
    found = look(Volumes(fetch, volumes.shape[1:], volumes.dtype), grids, truth_mm)
    return Posed(found, list(grids), np.stack(points_mm), np.stack(mass))


def _turn(volumes: Volumes, n: int, turn: np.ndarray) -> np.ndarray:
    return turn_cube(volumes[n], turn)


def look_twice(
    config: FrozenConfigDict,
    second: SecondLook,
    find: Callable[[Examples], Found],
    find_again: Callable[[Examples], Found],
    volumes: np.ndarray | Volumes,
    grids: Sequence[Grid],
    sample: Callable[[int, Grid], np.ndarray],
    *,
    truth_mm: np.ndarray | None = None,
) -> tuple[Posed, list[Look]]:
    """What both networks find in N scans; arguments as of `search_poses`."""
    posed = search_poses(
        find,
        second.frame,
        find_again,
        volumes,
        grids,
        sample,
        poses=config.aligned.poses,
        truth_mm=truth_mm,
    )
    looks = second_look.look_again(
        second.frame,
        find_again,
        sample,
        posed.points_mm,
        posed.mass,
        passes=config.aligned.passes,
        visibility=second.visibility,
        truth_mm=truth_mm,
    )
    return posed, looks


def judge_seen(frame: Frame, looks: Sequence[Look]) -> tuple[np.ndarray, np.ndarray]:
    """`seen` [N, L] and `completed_mm` [N, L, 3] of `Predictions`, by the last of the looks."""
    look = looks[-1]
    if look.seen is None:
        return np.full(look.mass.shape, np.nan), np.full(look.points_mm.shape, np.nan)
    completed_mm = second_look.complete_points(frame, look.points_mm, look.seen)
    framed = second_look.has_frame(looks)[:, None]
    return (
        np.where(framed, look.seen, np.nan),
        np.where(framed[..., None], completed_mm, np.nan),
    )


class Stages(NamedTuple):
    """What was found on the way: by the first network, and at each look of the second."""

    coarse: Predictions
    looks: list[Look]
    second_steps: int  # that the second network has been trained for


def predict_cases(
    config: FrozenConfigDict, workdir: Path, record: DataRecord, cases: PreparedCases
) -> tuple[Predictions, Restored, Stages | None]:
    """What a run's best checkpoints find in cases with landmarks; with stages if it looks twice."""
    detector = build_detector(config, len(record.labels))
    restored = from_first(lambda: restore_best(workdir, detector))
    calibrations = from_first(lambda: folder.read_calibrations(workdir))
    find = partial(build_finder(config, detector), restored.params)
    if not aligned.is_on(config):
        found = find(ask_all(cases.volumes, cases.points_vox))
        return recalibrate(_predict(found, cases.grids), calibrations), restored, None
    second = open_second(config, workdir, record)
    files = bind_files(cases, record.preprocessing, choose_cache(config))
    find_again = partial(build_finder(second.config, second.detector), second.params)
    truth_mm = np.where(cases.present[..., None], cases.points_mm, 0.0)

    def sample(index: int, grid: Grid) -> np.ndarray:
        return files(index).sample(grid)

    posed, looks = look_twice(
        config, second, find, find_again, cases.volumes, cases.grids, sample, truth_mm=truth_mm
    )
    coarse = recalibrate(_predict(posed.found, posed.grids), calibrations)
    return (
        choose_look(coarse, second.frame, looks, calibrations),
        restored,
        Stages(coarse, looks, second.last_step),
    )


def _predict(found: Found, grids: Sequence[Grid]) -> Predictions:
    return make_predictions(
        second_look.to_world(grids, found.points_vox),
        second_look.to_world(grids, found.argmax_vox),
        found.mass,
        found.local_mm,
        found.local_guess_mm,
    )


def choose_look(
    coarse: Predictions, frame: Frame, looks: list[Look], calibrations: Calibrations
) -> Predictions:
    """What the last look found; where a case has no frame to trust, what the first one did."""
    look, trusted = looks[-1], second_look.has_frame(looks)
    seen, completed_mm = judge_seen(frame, looks)

    def choose(fine, rough):
        return np.where(trusted.reshape(-1, *[1] * (fine.ndim - 1)), fine, rough)

    chosen = make_predictions(
        choose(look.points_mm, coarse.points_mm),
        choose(look.argmax_mm, coarse.argmax_mm),
        choose(look.mass, coarse.mass),
        choose(look.local_mm, coarse.local_mm),
        choose(look.local_guess_mm, coarse.local_guess_mm),
    )._replace(seen=seen, completed_mm=completed_mm)
    return recalibrate(chosen, calibrations)
