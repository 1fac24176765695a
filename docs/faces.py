"""A phantom's skin as a shaded picture, by sphere tracing its signed distances."""

import jax
import jax.numpy as jnp
import numpy as np

from fetal_jax.phantom import anatomy

START_MM, STEPS, STRIDE = 90.0, 45, 0.7  # the distances are first-order: shorter strides
HIT_MM = 0.3
SKIN = np.array([1.0, 0.78, 0.62])


def aim_camera(azimuth_deg: float, elevation_deg: float) -> np.ndarray:
    """[3, 3], rows right, up and towards the viewer, in the child's axes (x right, y up, z front).

    Azimuth 0 looks the child in the face, 90 at its right side.
    """
    a, e = np.deg2rad([azimuth_deg, elevation_deg])
    toward = np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])
    # the template's axes are left-handed, so that this is the viewer's right
    right = np.array([-np.cos(a), 0.0, np.sin(a)])
    up = np.cross(toward, right) * np.sign(np.cross(toward, right)[1])
    return np.stack([right, up, toward])


def project_points(points: np.ndarray, camera: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Points [L, 3] of the child in mm to picture coordinates [L, 2] in mm, right and up."""
    return (np.asarray(points) - centre) @ camera[:2].T


def render_face(
    face: anatomy.Face, camera: np.ndarray, centre: np.ndarray, *, half_width_mm: float, pixels: int
) -> np.ndarray:
    """Orthographic picture [pixels, pixels, 3] in [0, 1], first row at the top."""
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
def _trace(face, origins, direction):
    """Distance, normal and openness of what each ray meets."""

    def measure(p):
        return anatomy.measure_skin(face, p[..., 0], p[..., 1], p[..., 2])

    def advance(_, t):
        p = origins + t[..., None] * direction
        return t + STRIDE * jnp.clip(measure(p), -2.0, 8.0)

    t = jax.lax.fori_loop(0, STEPS, advance, jnp.zeros(origins.shape[:2]))
    p = origins + t[..., None] * direction
    steps = 0.1 * jnp.eye(3).reshape(3, 1, 1, 3)
    slopes = [measure(p + step) - measure(p - step) for step in steps]
    normal = jnp.stack(slopes, -1)
    normal = normal / jnp.linalg.norm(normal, axis=-1, keepdims=True)
    covered = sum(jnp.clip(1 - measure(p + h * normal) / h, 0, 1) for h in (1.0, 2.5, 5.0)) / 3
    return measure(p), normal, 1 - 0.55 * covered
