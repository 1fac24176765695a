"""Landmarks of faces that differ as an annotated cohort does, without volumes."""

import numpy as np

# A face of eleven landmarks: three pairs, five in the midline.
SHAPE = np.array(
    [(-16, 20, 30), (16, 20, 30), (-12, 18, 0), (12, 18, 0), (-22, 5, -5), (22, 5, -5)]
    + [(0, 28, 32), (0, 40, 10), (0, 32, -2), (0, 30, -14), (0, 24, -26)],
    np.float64,
)
MIRROR_INDEX = np.array([1, 0, 3, 2, 5, 4, 6, 7, 8, 9, 10])
LABELS = ["exL", "exR", "alL", "alR", "chL", "chR", "n", "prn", "sn", "ls", "pg"]
NOISE_MM = 0.5


def turn(rng, degrees):
    """A rotation by up to so much about any axis."""
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    angle = np.deg2rad(rng.uniform(-degrees, degrees))
    cross = np.cross(np.eye(3), axis)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def make_faces(n=60, seed=0, noise_mm=NOISE_MM):
    """[n, 11, 3] mm: wider or longer, of another size, anywhere, with noise of annotators."""
    rng = np.random.default_rng(seed)
    faces = []
    for _ in range(n):
        face = SHAPE * rng.uniform(0.9, 1.1, 3) * rng.uniform(0.8, 1.2)
        face = face + rng.normal(0, noise_mm, SHAPE.shape)
        faces.append(face @ turn(rng, 180).T + rng.uniform(-50, 50, 3))
    return np.stack(faces)
