"""A fetal face as signed distances, with its 19 landmarks on the skin by construction.

The face is drawn in the frame of a 29-week template: millimetres, x to the child's right, y up,
z forward, nasion at the origin. Growth and each child's own proportions move the template's
points; the surface is built round these points, and the points are then dropped onto it.
That frame is left-handed: RAS+ is (x, z, y), and only there may anything be rotated.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

MIDLINE = ("n", "prn", "sn", "ls", "li", "sl", "pg")
PAIRS = ("en", "ex", "al", "ac", "cph", "ch")
LABELS = MIDLINE + tuple(stem + side for stem in PAIRS for side in "LR")
MIRROR = {
    label: label if label in MIDLINE else label[:-1] + ("R" if label[-1] == "L" else "L")
    for label in LABELS
}

_TERMS = {
    "n": ("nasion", "deepest point of the midline between forehead and bridge of the nose"),
    "prn": ("pronasale", "most forward point of the tip of the nose"),
    "sn": ("subnasale", "midline corner where the columella meets the upper lip"),
    "ls": ("labiale superius", "midline point on the upper edge of the upper lip's red"),
    "li": ("labiale inferius", "midline point on the lower edge of the lower lip's red"),
    "sl": ("sublabiale", "deepest midline point of the furrow between lower lip and chin"),
    "pg": ("pogonion", "most forward midline point of the chin"),
    "en": ("endocanthion", "inner corner of the eye, where the lids meet"),
    "ex": ("exocanthion", "outer corner of the eye, where the lids meet"),
    "al": ("alare", "most lateral point of the wing of the nose"),
    "ac": ("alar curvature point", "where the wing of the nose runs into the cheek"),
    "cph": ("crista philtri", "where the ridge of the philtrum meets the upper lip's red"),
    "ch": ("cheilion", "corner of the mouth"),
}


def _describe(label: str) -> tuple[str, str]:
    if label in _TERMS:
        return _TERMS[label]
    side = {"L": "left", "R": "right"}[label[-1]]
    name, definition = _TERMS[label[:-1]]
    return f"{side} {name}", f"{definition}; the child's {side}"


NAMES = {label: _describe(label)[0] for label in LABELS}
DEFINITIONS = {label: _describe(label)[1] for label in LABELS}

Point = tuple[Array, Array, Array]  # x, y, z as separate arrays of one shape, so that XLA fuses


class Face(NamedTuple):
    """One child's face: template points in 29-week mm (right side), and the way to its own mm."""

    points: dict[str, Array]  # stem -> [3]
    fullness: Array  # [] of the cheeks, 1 is the mean
    cranium: Array  # [] size of the skull to the face, 1 is the mean
    scale: Array  # [2] own mm to a mm of the template: along x, along y and z
    skew: Array  # [3] the right side's excess width (share), rise and advance (a mm of x)


class Tissue(NamedTuple):
    """Signed distances in mm, negative inside."""

    skin: Array
    bone: Array
    eye: Array


def binocular_mm(age_weeks: Array) -> Array:
    """Outer canthal distance BOD in mm (Sukonpan & Phupong 2008)."""
    return 2.590 + 1.420 * age_weeks


def facial_height_mm(age_weeks: Array) -> Array:
    """Nasion to gnathion in mm (den Boogert et al., doi 10.1080/14767058.2017.1384807)."""
    return 10.0 * (-16.10 + 3.78 * jnp.log(7.0 * age_weeks))


def draw_face(key: Array, age_weeks: Array) -> Face:
    """One child at `age_weeks`: each measure varies by 6 % round its mean, independently."""
    drawn = jax.random.truncated_normal(key, -2.5, 2.5, (15,))
    bod, ngn, gap, wide, out, philtrum, mouth, lips, chin, fullness, cranium, nose = (
        1.0 + 0.06 * drawn[:12]
    )
    y_sn = -17.0 * nose
    y_ls = y_sn - 7.0 * philtrum
    y_li = y_ls - 5.5 * lips
    z_prn = 4.5 + 4.5 * out
    across = bod * binocular_mm(age_weeks) / binocular_mm(29.0)
    along = ngn * facial_height_mm(age_weeks) / facial_height_mm(29.0)

    points = {
        "n": (0.0, 0.0, 0.0),
        "prn": (0.0, y_sn + 4.0, z_prn),
        "sn": (0.0, y_sn, 4.5),
        "ls": (0.0, y_ls, 5.5),
        "li": (0.0, y_li, 4.5),
        "sl": (0.0, y_li - 3.5, 2.0),
        "pg": (0.0, y_li - 7.5, 2.5 * chin),
        "en": (8.5 * gap, -3.0, -4.0),
        "ex": (21.9, -3.0, -10.0),
        "al": (8.5 * wide, y_sn + 3.0, 1.0),
        "ac": (8.0 * wide, y_sn + 1.5, -1.5),
        "cph": (2.8 * wide, y_ls + 0.5, 5.0),
        "ch": (10.5 * mouth, 0.5 * (y_ls + y_li) - 0.25, 0.0),
    }
    return Face(
        points={stem: jnp.stack(jnp.broadcast_arrays(*p)) for stem, p in points.items()},
        fullness=fullness,
        cranium=cranium,
        scale=jnp.stack([across, along]),
        skew=jnp.array([0.012, 0.012, 0.015]) * drawn[12:],
    )


def to_template(face: Face, x: Array, y: Array, z: Array) -> Point:
    """From the child's own mm to the template's."""
    x = x / face.scale[0]
    x = x / (1.0 + face.skew[0] * jnp.sign(x))
    return x, y / face.scale[1] - face.skew[1] * x, z / face.scale[1] - face.skew[2] * x


def from_template(face: Face, x: Array, y: Array, z: Array) -> Point:
    """The inverse of `to_template`."""
    return (
        face.scale[0] * x * (1.0 + face.skew[0] * jnp.sign(x)),
        face.scale[1] * (y + face.skew[1] * x),
        face.scale[1] * (z + face.skew[2] * x),
    )


def _ellipsoid(p: Point, centre, radii) -> Array:
    """First-order distance to an ellipsoid: exact for a sphere."""
    d = [a - c for a, c in zip(p, centre, strict=True)]
    k0 = jnp.sqrt(sum((a / r) ** 2 for a, r in zip(d, radii, strict=True)) + 1e-9)
    k1 = jnp.sqrt(sum((a / (r * r)) ** 2 for a, r in zip(d, radii, strict=True)) + 1e-12)
    return k0 * (k0 - 1.0) / k1


def _capsule(p: Point, a, b, radius_a, radius_b) -> Array:
    """Distance to a rod from a to b whose radius changes along it."""
    axis = [v - u for u, v in zip(a, b, strict=True)]
    d = [v - u for u, v in zip(a, p, strict=True)]
    along = sum(u * v for u, v in zip(axis, d, strict=True)) / sum(u * u for u in axis)
    t = jnp.clip(along, 0.0, 1.0)
    off = sum((v - t * u) ** 2 for u, v in zip(axis, d, strict=True))
    return jnp.sqrt(off + 1e-9) - (radius_a + t * (radius_b - radius_a))


def _join(a: Array, b: Array, k: float) -> Array:
    """Smooth minimum over a seam of width k mm (quadratic)."""
    h = jnp.maximum(k - jnp.abs(a - b), 0.0)
    return jnp.minimum(a, b) - h * h / (4.0 * k)


def _carve(a: Array, b: Array, k: float) -> Array:
    """a without b, with a rounded edge."""
    return -_join(-a, b, k)


def _cranium(face: Face, p: Point, inset: float) -> Array:
    c = face.cranium
    return _ellipsoid(
        p, (0.0, 19.5, 3.6 - 47.0 * c), (38.0 * c - inset, 40.0 * c - inset, 47.0 * c - inset)
    )


def _dent(depth: float, across: Array, width: float, along: Array, end: Array) -> Array:
    """Depth of a furrow in mm: gaussian across it, and fading out where |along| passes `end`."""
    return depth * jnp.exp(-((across / width) ** 2)) * jax.nn.sigmoid(12.0 * (end - jnp.abs(along)))


def _skin(face: Face, p: Point) -> Array:
    """Skin in template mm. p has x >= 0: the template is symmetric."""
    pt = {stem: (v[0], v[1], v[2]) for stem, v in face.points.items()}
    x, y, z = p
    full = face.fullness
    en, ex, prn, sn, al = pt["en"], pt["ex"], pt["prn"], pt["sn"], pt["al"]
    ls, li, pg, ch = pt["ls"], pt["li"], pt["pg"], pt["ch"]

    # Head: skull, middle face, cheeks, muzzle, chin, and the floor of the mouth.
    d = _cranium(face, p, 0.0)
    d = _join(d, _ellipsoid(p, (0.0, -12.5, -24.0), (24.0, 26.0, 22.5)), 7.0)
    d = _join(d, _ellipsoid(p, (14.5, -19.5, -11.5), (11.0 * full, 11.0, 10.5 * full)), 8.0)
    d = _join(d, _ellipsoid(p, (13.0, -27.0, -18.0), (11.5 * full, 10.0, 12.0)), 6.0)
    d = _join(d, _ellipsoid(p, (0.0, ch[1], -9.0), (14.0, 11.0, 11.5)), 5.0)
    d = _join(d, _ellipsoid(p, (0.0, pg[1] + 0.3, pg[2] - 6.0), (6.5, 4.8, 6.0)), 4.0)

    # Eyes: a shallow hollow and the closed lids' bulge in it.
    x_eye = 0.5 * (en[0] + ex[0])
    d = _carve(d, _ellipsoid(p, (x_eye, -0.5, 1.0), (8.0, 5.0, 5.0)), 7.0)
    d = _join(d, _ellipsoid(p, (x_eye, -3.2, -12.6), (7.6, 6.6, 8.0)), 2.5)

    # Nose: a low bridge, a round tip turned up, wings, columella, nostrils.
    bridge = (0.0, 0.62 * prn[1], 0.28 * prn[2] - 2.2)
    d = _join(d, _capsule(p, (0.0, -1.0, -6.0), bridge, 2.8, 3.9), 5.0)
    d = _join(d, _ellipsoid(p, (0.0, prn[1], prn[2] - 4.4), (4.6, 3.8, 4.4)), 5.0)
    d = _join(d, _ellipsoid(p, (al[0] - 3.2, al[1], al[2]), (3.2, 3.1, 3.8)), 2.0)
    d = _join(d, _ellipsoid(p, (0.0, sn[1] - 3.5, -2.2), (8.0, 6.5, 6.5)), 3.0)
    d = _join(d, _capsule(p, (0.0, prn[1] - 1.0, prn[2] - 2.5), (0.0, sn[1], 2.9), 1.5, 1.3), 1.0)
    d = _carve(d, _ellipsoid(p, (2.8, sn[1] + 0.7, 4.2), (1.3, 1.3, 1.8)), 0.8)

    # Lips: full in the middle, thin at the corners.
    y_mouth = ch[1] - 0.1
    corner = (ch[0] - 0.4, ch[1], ch[2] - 1.0)
    upper, lower = (0.5 * ch[0], y_mouth + 1.1, 2.0), (0.5 * ch[0], y_mouth - 1.5, 1.8)
    d = _join(d, _capsule(p, (0.0, ls[1] - 1.5, ls[2] - 2.4), upper, 2.5, 2.3), 2.5)
    d = _join(d, _capsule(p, upper, corner, 2.3, 0.7), 2.5)
    d = _join(d, _capsule(p, (0.0, li[1] + 1.5, li[2] - 2.0), lower, 2.6, 2.4), 2.5)
    d = _join(d, _capsule(p, lower, corner, 2.4, 0.7), 2.5)

    # Ears, neck, chest.
    x_ear = 38.0 * face.cranium - 8.0
    ear = _ellipsoid(p, (x_ear, -5.0, -45.0), (2.5, 9.0, 6.0))
    ear = _carve(ear, _ellipsoid(p, (x_ear + 3.0, -4.0, -44.0), (3.0, 5.5, 3.2)), 1.5)
    d = _join(d, ear, 2.0)
    d = _join(d, _capsule(p, (0.0, -24.0, -34.0), (0.0, -60.0, -38.0), 20.0, 26.0), 8.0)
    d = _join(d, _ellipsoid(p, (0.0, -80.0, -28.0), (50.0, 36.0, 34.0)), 10.0)

    # Furrows are pressed into whatever surface is there: lids, mouth, philtrum.
    lid = (x - x_eye) / (0.5 * (ex[0] - en[0]))  # -1 at the inner, 1 at the outer corner
    furrow = _dent(1.0, y - en[1] + 2.4 * (1.0 - lid * lid), 0.7, lid, 1.0)
    furrow += _dent(1.6, y - ch[1] + 0.5 * (1.0 - (x / ch[0]) ** 2), 0.6, x / ch[0], 1.0)
    half = 0.5 * (sn[1] - ls[1])
    furrow += _dent(0.6, x, 1.3, (y - ls[1] - half) / half, 1.0)
    return d + jnp.where(z > -16.0, furrow, 0.0)


def _bone(face: Face, p: Point) -> Array:
    """Bone and all that it encloses, in template mm: skull, nasal bones, cheekbones, both jaws."""
    pg_y = face.points["pg"][1]
    d = _cranium(face, p, 3.5)
    d = _join(d, _ellipsoid(p, (0.0, -12.0, -25.0), (20.0, 22.0, 19.0)), 6.0)
    d = _join(d, _ellipsoid(p, (0.0, face.points["sn"][1] - 3.5, -10.0), (10.0, 5.5, 9.0)), 3.0)
    d = _join(d, _capsule(p, (0.0, 1.0, -5.0), (0.0, -6.5, -2.6), 1.6, 1.2), 1.5)
    d = _join(d, _capsule(p, (12.0, -11.5, -9.0), (22.0, -9.0, -22.0), 2.0, 2.0), 2.0)
    chin, bend = (0.0, pg_y + 2.0, -4.2), (3.0, pg_y + 2.0, -4.5)
    d = jnp.minimum(d, _capsule(p, chin, bend, 2.8, 2.8))
    d = jnp.minimum(d, _capsule(p, bend, (19.0, -27.0, -28.0), 2.8, 2.8))
    return _carve(d, _eye(face, p) - 1.2, 1.0)


def _eye(face: Face, p: Point) -> Array:
    x_eye = 0.5 * (face.points["en"][0] + face.points["ex"][0])
    return _ellipsoid(p, (x_eye, -3.0, -13.2), (6.5, 6.2, 6.5))


def measure_tissue(face: Face, x: Array, y: Array, z: Array) -> Tissue:
    """Signed distances in mm to skin, bone and eyeballs at the child's own (x, y, z) mm."""
    x, y, z = to_template(face, x, y, z)
    p = (jnp.abs(x), y, z)
    size = jnp.sqrt(face.scale[0] * face.scale[1])
    return Tissue(size * _skin(face, p), size * _bone(face, p), size * _eye(face, p))


def measure_skin(face: Face, x: Array, y: Array, z: Array) -> Array:
    """Signed distance to the skin in mm at the child's own (x, y, z) mm; arrays of one shape."""
    x, y, z = to_template(face, x, y, z)
    return jnp.sqrt(face.scale[0] * face.scale[1]) * _skin(face, (jnp.abs(x), y, z))


def place_landmarks(face: Face) -> Array:
    """The landmarks [19, 3] on the skin, in the child's own (x, y, z) mm, in LABELS' order."""
    right = _slide_to_skin(face)  # [13, 3]
    stems = MIDLINE + PAIRS
    rows = jnp.array([stems.index(m) if m in MIDLINE else stems.index(m[:-1]) for m in LABELS])
    side = jnp.array([-1.0 if m[:-1] in PAIRS and m[-1] == "L" else 1.0 for m in LABELS])
    x, y, z = right[rows].T
    return jnp.stack(from_template(face, side * x, y, z), axis=1)


def _slide_to_skin(face: Face) -> Array:
    """The template's points [13, 3], each moved onto the skin along its own line.

    Straight forward or back, so that the distances across and along the face stay as drawn; but
    alare sideways, and the alar curvature point out of its corner. The outermost crossing counts.
    """
    stems = MIDLINE + PAIRS
    start = jnp.stack([face.points[stem] for stem in stems])
    lines = {"al": (1.0, 0.0, 0.0), "ac": (0.447, 0.0, 0.894)}
    line = jnp.array([lines.get(stem, (0.0, 0.0, 1.0)) for stem in stems])
    step_mm = jnp.linspace(4.0, -4.0, 257)  # from outside to inside
    at = start[None, :, :] + step_mm[:, None, None] * line[None, :, :]  # [257, 13, 3]
    value = _skin(face, (jnp.abs(at[..., 0]), at[..., 1], at[..., 2]))  # [257, 13]

    # Between the last sample outside and the first inside the distance is as good as linear.
    inner = jnp.maximum(jnp.argmax(value < 0.0, axis=0), 1)
    d_in = jnp.take_along_axis(value, inner[None, :], axis=0)[0]
    d_out = jnp.take_along_axis(value, inner[None, :] - 1, axis=0)[0]
    share = jnp.clip(d_out / (d_out - d_in + 1e-9), 0.0, 1.0)
    moved = step_mm[inner - 1] + share * (step_mm[1] - step_mm[0])
    return start + moved[:, None] * line


def to_ras(points: Array) -> Array:
    """From (x, y, z) [..., 3] to RAS+ (x, z, y): a change of handedness and no more."""
    return points[..., jnp.array([0, 2, 1])]
