"""A phantom's skin as a shaded picture, by sphere tracing of its signed distances."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fetal_jax.phantom import anatomy

START_MM, STEPS = 90.0, 45
STRIDE = 0.7  # below 1, as the distances are first-order estimates
HIT_MM = 0.3
SKIN = np.array([1.0, 0.78, 0.62])


def aim_camera(azimuth_deg: float, elevation_deg: float) -> np.ndarray:
    """A camera's axes [3, 3]: rows right, up and towards the viewer, in the child's (x, y, z).

    At azimuth 0 the viewer looks at the child's face, at 90 at its right side.
    """
    a, e = np.deg2rad([azimuth_deg, elevation_deg])
    toward = np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])
    # the viewer's right, as the template's axes are left-handed
    right = np.array([-np.cos(a), 0.0, np.sin(a)])
    up = np.cross(toward, right) * np.sign(np.cross(toward, right)[1])
    return np.stack([right, up, toward])


def project_points(points: np.ndarray, camera: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Project points [L, 3], the child's own mm, to the picture: [L, 2] mm, right and up."""
    return (np.asarray(points) - centre) @ camera[:2].T


def shade_face(
    face: anatomy.Face, camera: np.ndarray, centre: np.ndarray, *, half_width_mm: float, pixels: int
) -> np.ndarray:
    """Render an orthographic picture [pixels, pixels, 3] in [0, 1], first row at the top.

    Args:
      face: of the phantom.
      camera: [3, 3], as of `aim_camera`.
      centre: [3] own mm, the picture's middle.
      half_width_mm: from the middle to an edge of the picture.
      pixels: along each edge.
    """
    right, up, toward = camera
    u = np.linspace(-half_width_mm, half_width_mm, pixels)
    start = centre + START_MM * toward
    origins = start + u[None, :, None] * right + u[::-1, None, None] * up
    direction = np.broadcast_to(-toward, origins.shape)
    light = 0.6 * toward + 0.6 * up - 0.45 * right
    light = light / np.linalg.norm(light)
    distance, normals, open_ = _trace(
        face, origins.astype(np.float32), direction.astype(np.float32)
    )
    normals = np.asarray(normals)
    shade = 0.75 * np.clip(normals @ light, 0, 1) + 0.25 * np.clip(normals @ toward, 0, 1)
    shade = np.where(np.asarray(distance) < HIT_MM, shade * np.asarray(open_), 0.0)
    return np.clip(shade[..., None] * SKIN, 0, 1) ** 0.8


@jax.jit
def _trace(face: anatomy.Face, origins: Array, direction: Array) -> tuple[Array, Array, Array]:
    """Where each ray [H, W, 3] ends: distance to the skin, normal, and openness to light."""

    def distance(p):
        return anatomy.skin_distance(face, p[..., 0], p[..., 1], p[..., 2])

    def advance(_, t):
        p = origins + t[..., None] * direction
        return t + STRIDE * jnp.clip(distance(p), -2.0, 8.0)

    t = jax.lax.fori_loop(0, STEPS, advance, jnp.zeros(origins.shape[:2]))
    p = origins + t[..., None] * direction
    steps = 0.1 * jnp.eye(3).reshape(3, 1, 1, 3)
    slopes = [distance(p + step) - distance(p - step) for step in steps]
    normal = jnp.stack(slopes, -1)
    normal = normal / jnp.linalg.norm(normal, axis=-1, keepdims=True)
    covered = sum(jnp.clip(1 - distance(p + h * normal) / h, 0, 1) for h in (1.0, 2.5, 5.0)) / 3
    return distance(p), normal, 1 - 0.55 * covered
