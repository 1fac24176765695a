"""Batches as a pure function of the step, so that a resumed run sees what it would have seen."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from fetal_jax.data.cases import PreparedCases


def draw_indices(n_cases: int, step: int, *, batch: int, seed: int) -> np.ndarray:
    """Cases [batch] of a step: each epoch is its own shuffle; a batch may span two."""
    sequence = np.arange(step * batch, (step + 1) * batch)
    epochs, places = np.divmod(sequence, n_cases)
    shuffles = {e: np.random.default_rng([seed, 3, e]).permutation(n_cases) for e in set(epochs)}
    return np.array([shuffles[e][p] for e, p in zip(epochs, places, strict=True)])


def load_batch(
    prepared: PreparedCases,
    step: int,
    *,
    batch: int,
    seed: int,
    with_completed: bool,
    share: slice = slice(None),
) -> dict[str, np.ndarray]:
    """The batch of a step, or the share of it that a process loads.

    Returns:
      volumes [B, D, H, W] float32, points_vox [B, L, 3] float32, counted [B, L] bool (the landmarks
      to train on) and places [B] int32 (the example's index in the global batch).
    """
    cases = draw_indices(len(prepared), step, batch=batch, seed=seed)[share]
    counted = prepared.present if with_completed else prepared.visible
    return {
        "volumes": prepared.volumes[cases].astype(np.float32),
        "points_vox": prepared.points_vox[cases],
        "counted": counted[cases],
        "places": np.arange(batch, dtype=np.int32)[share],
    }


def prefetch(load: Callable[[int], dict], steps: range) -> Iterator[tuple[int, dict]]:
    """(step, load(step)) for each step; the next one is loaded while the caller works."""
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(load, steps[0]) if steps else None
        for step in steps:
            data = ahead.result()
            if step != steps[-1]:
                ahead = pool.submit(load, step + steps.step)
            yield step, data
