"""Cases of one shape in any pose, and the frame that they give."""

import numpy as np
from scipy.spatial.transform import Rotation

from configs import emd
from fetal_jax.runs import face_frame
from fetal_jax.runs.config_table import check_config

MIRROR = np.array([0, 2, 1, 4, 3, 5, 6, 7])

SHAPE = np.array(
    [[0, 0, 0], [22.0, -9, -2], [-22, -9, -2], [9, 2, -14], [-9, 2, -14]]
    + [[0, 10, -12], [0, 5, -28], [0, 2, -38]]
)


def make_cases(n, *, noise_mm=0.5, far_mm=300.0):
    """Faces in any pose and of any size, far from the world's origin."""
    rng = np.random.default_rng(0)
    turns = Rotation.random(n, random_state=1).as_matrix()
    sizes = np.exp(rng.normal(0, 0.15, n))
    cases = SHAPE + rng.normal(0, noise_mm, (n, *SHAPE.shape))
    moved = sizes[:, None, None] * np.einsum("nij,nlj->nli", turns, cases)
    return moved + rng.uniform(-far_mm, far_mm, (n, 1, 3))


def make_config(**changes):
    config = emd.get_config()
    config.update_from_flattened_dict(
        {"grid.side": 32, "grid.spacing_mm": 3.0, "aligned.on": True} | changes
    )
    return check_config(config)


def fit():
    points = make_cases(20)
    seen = np.ones(points.shape[:2], bool)
    return *face_frame.fit_training_frame(make_config(), points, seen, MIRROR), points
