"""usual.json of a run: how landmarks lie to each other, by which its predictions are doubted.

The shape is learned from the annotations of the training cases; how far a point usually is from
where the others expect it, from predictions for cases that were not trained on.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fetal_jax import plausibility
from fetal_jax.errors import InputError
from fetal_jax.plausibility import Usual
from fetal_jax.runs import folder
from fetal_jax.runs.predictions import Predictions, visible_points
from fetal_jax.shape_model import ShapeModel

FILE = "usual.json"


def learn_usual(
    points_mm: np.ndarray,
    subjects: Sequence[str],
    visible: np.ndarray,
    mirror_index: np.ndarray | None,
    found: Sequence[Predictions],
    *,
    min_visible: float,
) -> Usual | None:
    """What is usual among a run's predictions; None where too few cases or landmarks say it.

    Args:
      points_mm, subjects, visible: [N, L, 3] RAS+, N, [N, L], of the cases that it learned from.
      mirror_index: of `plausibility.cross_check`.
      found: for cases that were not trained on; none where there are no such cases.
      min_visible: of `predictions.find_hidden`.
    """
    try:
        usual, _ = plausibility.cross_check(points_mm, subjects, mirror_index, visible)
    except ValueError:
        return None
    if not found:
        return usual
    found_mm = np.concatenate([visible_points(one, min_visible) for one in found])
    confidence = np.concatenate([one.confidence for one in found])
    deviations = plausibility.measure_deviations(usual, found_mm, confidence)
    return plausibility.widen_usual(usual, deviations)


def write_usual(workdir: Path, usual: Usual | None) -> None:
    """WORKDIR/usual.json; None leaves no such file."""
    path = workdir / FILE
    if usual is None:
        path.unlink(missing_ok=True)
        return
    shape = {name: np.asarray(value).tolist() for name, value in usual.shape._asdict().items()}
    folder.write_json(path, {"shape": shape, "sd_mm": usual.sd_mm.tolist(), "hidden": usual.hidden})


def read_usual(workdir: Path) -> Usual | None:
    """None of a run without the file: an older one, or one of too few cases.

    Raises:
      InputError: it is not as it was written.
    """
    path = workdir / FILE
    if not path.exists():
        return None
    content = folder.read_json(path)
    try:
        kept = content["shape"]
        mean, modes, sd_mm = (
            np.array(value, np.float64)
            for value in (kept["mean_mm"], kept["modes_mm"], content["sd_mm"])
        )
        shape = ShapeModel(mean, modes.reshape(-1, *mean.shape), float(kept["noise_mm"]))
        if mean.shape != (len(sd_mm), 3) or not (sd_mm > 0).all():
            raise ValueError(f"a shape {mean.shape} and {sd_mm.shape} distances")
        return Usual(shape, sd_mm, float(content["hidden"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected what is usual in a run, got {error!r}") from None
