"""Batches as a pure function of the step, so that a resumed run sees what it would have seen."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from fetal_jax.data.cases import PreparedCases
from fetal_jax.examples import Examples
from fetal_jax.geometry import Grid
from fetal_jax.pipeline import run_ahead

Loaded = TypeVar("Loaded")


def sample_indices(
    n_cases: int, step: int, *, batch: int, seed: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """Cases [batch] of a step: each epoch is its own shuffle; a batch may span two.

    Args:
      weights: [n_cases], mean 1, how often a case is in an epoch, in the mean over epochs: once or
        twice, for a weight of 1.5. None: each case once.
    """
    sequence = np.arange(step * batch, (step + 1) * batch)
    epochs, places = np.divmod(sequence, n_cases)
    shuffles = {e: _shuffle(n_cases, [seed, 3, int(e)], weights) for e in set(epochs)}
    return np.array([shuffles[e][p] for e, p in zip(epochs, places, strict=True)])


def _shuffle(n_cases: int, seed: list[int], weights: np.ndarray | None) -> np.ndarray:
    rng = np.random.default_rng(seed)
    order = rng.permutation(n_cases)
    if weights is None:
        return order
    # systematic sampling: a draw at each whole number, of the weights laid end to end
    ends = np.cumsum(weights[order]) * (n_cases / weights.sum())
    drawn = np.searchsorted(ends, rng.uniform() + np.arange(n_cases), side="right")
    return rng.permutation(order[np.minimum(drawn, n_cases - 1)])


def load_examples(
    prepared: PreparedCases,
    step: int,
    *,
    batch: int,
    seed: int,
    share: slice = slice(None),
    weights: np.ndarray | None = None,
    place: Callable[[int, np.random.Generator], tuple[np.ndarray, Grid]] | None = None,
) -> Examples:
    """The batch of a step, counted from 0, or the share of it that a process loads.

    Args:
      weights: of `sample_indices`.
      place: of `cases.place_anew`, where each step has grids of its own.

    Returns:
      Numpy arrays, without `shown`.
    """
    places = np.arange(batch, dtype=np.int32)[share]
    drawn = sample_indices(len(prepared), step, batch=batch, seed=seed, weights=weights)
    chosen = drawn[share]
    volumes, points_vox = prepared.volumes[chosen], prepared.points_vox[chosen]
    present, visible = prepared.present[chosen], prepared.visible[chosen]
    grids = [prepared.grids[i] for i in chosen]
    if place is not None:
        rngs = [np.random.default_rng([seed, 5, step, int(n)]) for n in places]
        volumes, grids = zip(*map(place, chosen, rngs), strict=True)
        points = [g.to_voxels(p) for g, p in zip(grids, prepared.points_mm[chosen], strict=True)]
        points_vox = np.where(present[..., None], np.stack(points), 0.0).astype(np.float32)
        shape = np.array(grids[0].shape)
        inside = ((points_vox >= -0.5) & (points_vox <= shape - 0.5)).all(axis=-1)
        present, visible = present & inside, visible & inside
    return Examples(
        volumes=np.asarray(volumes, np.float32),
        affines=np.stack([grid.affine for grid in grids]).astype(np.float32),
        points_vox=points_vox,
        present=present,
        visible=visible,
        places=places,
    )


def prefetch(load: Callable[[int], Loaded], steps: range) -> Iterator[tuple[int, Loaded]]:
    """(step, load(step)) for each step; the next one is loaded while the caller works."""
    return zip(steps, run_ahead(load, steps, most=2), strict=True)
