"""A fetal face as signed distances, with its 19 landmarks on the skin by construction.

The frame is that of a 29-week template: millimetres, x to the child's right, y up, z forward,
nasion at the origin. Growth and each child's own proportions move the template's points; the
surface is built round these points, and the landmarks are then searched for on it. The frame is
left-handed: rotations are made in RAS+, which is (x, z, y).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fetal_jax import growth
from fetal_jax.landmarks import LABELS

POINTS = LABELS + ("gn",)  # gnathion, the lowest point of the chin, is measured but no channel

# x, y, z as separate arrays of one shape: XLA fuses them better than one array [..., 3]
Point = tuple[Array, Array, Array]
Points = dict[str, Point]  # stem -> template point
Scalars = Sequence[Array | float]  # x, y, z of a centre, or radii along the axes


class Face(NamedTuple):
    """One child's face: template points (right side), and the map from template mm to own mm."""

    points: dict[str, Array]  # stem -> [3]
    fullness: Array  # [] relative size of the cheeks, 1 is the mean
    cranium: Array  # [3] radii of the skull's ellipsoid in template mm
    zygion: Array  # [] half the facial width in template mm
    gape: Array  # [] how far the mouth is open, in template mm
    scale: Array  # [2] own mm per template mm: along x, along y and z
    skew: Array  # [3] of the right side: extra width (share), rise and advance (mm per mm of x)
    cleft: Array  # [] half the width of a cleft of the upper lip, in template mm; 0: there is none
    cleft_side: Array  # [] 1: it is on the right, -1: on the left
    setback: Array  # [] how far the lower jaw lies behind, in template mm


class Tissue(NamedTuple):
    """Signed distances in mm, negative inside."""

    skin: Array
    bone: Array
    eye: Array


FACES = ("healthy", "cleft", "small_chin")  # what a cohort can be made of
# Sd of each measure between children of one age, as a share of its mean. The facial width follows
# the outer canthal width; "width" is the sd of their ratio.
VARIATION = {
    "outer": 0.06, "inner": 0.06, "height": 0.06, "philtrum": 0.07, "width": 0.03,
    "head": 0.04, "skull": 0.04, "nose_length": 0.06, "nose_width": 0.07, "nose_tip": 0.07,
    "mouth": 0.07, "lips": 0.08, "chin": 0.06, "chin_tip": 0.08, "fullness": 0.05,
}  # fmt: skip
# Measures covary: all share the child's size, and those of a group a factor of their own.
GROUPS = {
    "widths": ("outer", "inner", "width", "nose_width", "mouth"),
    "heights": ("height", "philtrum", "nose_length", "lips", "chin"),
    "depths": ("nose_tip", "chin_tip", "fullness"),
    "head": ("head", "skull"),
}
SIZE_SHARE, GROUP_SHARE = 0.3, 0.2  # of a measure's variance: 0.5 is the correlation in a group
CUT_SD = 2.5  # measures and asymmetries are cut off there
ASYMMETRY = (0.012, 0.012, 0.015)  # sd of Face.skew
OPEN_SHARE, GAPE_MM = 0.3, (2.0, 5.0)  # share of open mouths, and range of the opening
# The rarer faces, ranges in template mm: half the width of a cleft; how far a small chin lies
# behind, and the share of its height that is missing.
CLEFT_MM, SETBACK_MM, SHORT_SHARE = (1.1, 1.5), (5.0, 9.0), 0.15
# Mean offset, in template mm, of landmarks found on the surface from the points that it is built
# with: sn is found lower, and behind ls; n is found above the origin.
SN_BELOW, SN_BEHIND, N_ABOVE = 1.1, 1.0, 2.2


def _mix_measures() -> np.ndarray:
    """[V, 1 + G + V]: each measure of VARIATION from independent normals: size, groups, its own."""
    rest = (1.0 - SIZE_SHARE - GROUP_SHARE) ** 0.5
    grouped = [[name in names for names in GROUPS.values()] for name in VARIATION]
    n = len(VARIATION)
    return np.hstack(
        [np.full((n, 1), SIZE_SHARE**0.5), GROUP_SHARE**0.5 * np.array(grouped), rest * np.eye(n)]
    ).astype(np.float32)


def _sample_measures(key: Array) -> dict[str, Array]:
    """Each measure relative to its mean: normal factors of sd VARIATION, correlated by GROUPS."""
    mixing = _mix_measures()
    normal = jax.random.normal(key, mixing.shape[1:])
    # a product of matrices, so that XLA draws the numbers once and not anew for each measure
    z = jnp.matmul(mixing, normal, precision=jax.lax.Precision.HIGHEST)
    factors = 1.0 + jnp.array(list(VARIATION.values())) * jnp.clip(z, -CUT_SD, CUT_SD)
    return dict(zip(VARIATION, factors, strict=True))


def sample_face(key: Array, age_weeks: Array | float, kind: Array | int = 0) -> Face:
    """Sample one child's face.

    Means follow `growth`'s equations; each measure is multiplied by a normal factor of sd
    VARIATION, cut off at CUT_SD. Factors correlate by 0.5 in a group of GROUPS, by 0.3 beyond it.

    Args:
      key: PRNG key.
      age_weeks: [] gestational age.
      kind: [] int, index of FACES.
    """
    factor_key, skew_key, mouth_key, kind_key = jax.random.split(key, 4)
    f = _sample_measures(factor_key)
    skew = jax.random.truncated_normal(skew_key, -CUT_SD, CUT_SD, (3,))
    open_, wide = jax.random.uniform(mouth_key, (2,))
    side, much = jax.random.uniform(kind_key, (2,))
    has_cleft, has_small_chin = (kind == FACES.index(name) for name in ("cleft", "small_chin"))
    cleft = jnp.where(has_cleft, CLEFT_MM[0] + much * (CLEFT_MM[1] - CLEFT_MM[0]), 0.0)
    setback = SETBACK_MM[0] + much * (SETBACK_MM[1] - SETBACK_MM[0])
    setback = jnp.where(has_small_chin, setback, 0.0)
    across = f["outer"] * growth.binocular_mm(age_weeks) / growth.binocular_mm(29.0)
    along = f["height"] * growth.facial_height_mm(age_weeks) / growth.facial_height_mm(29.0)
    bpd = f["skull"] * growth.biparietal_mm(age_weeks)
    ofd = f["head"] * growth.head_circumference_mm(age_weeks) * 2.0 / jnp.pi - bpd
    gape = jnp.where(open_ < OPEN_SHARE, GAPE_MM[0] + wide * (GAPE_MM[1] - GAPE_MM[0]), 0.0)

    # Heights along the profile: the philtrum has its own growth curve; nose, lips and chin divide
    # the rest of the facial height.
    philtrum = f["philtrum"] * growth.philtrum_mm(age_weeks) / along
    philtrum = jnp.sqrt(philtrum**2 - SN_BEHIND**2) + SN_BELOW
    share = (39.7 - N_ABOVE - philtrum) / (
        17.0 * f["nose_length"] + 5.5 * f["lips"] + 10.2 * f["chin"]
    )
    nose, lips, chin = (share * f[name] for name in ("nose_length", "lips", "chin"))
    y_sn = -17.0 * nose
    y_ls = y_sn - philtrum
    y_li = y_ls - 5.5 * lips - gape
    chin = chin * jnp.where(has_small_chin, 1.0 - SHORT_SHARE, 1.0)
    y_pg = y_li - 7.5 * chin
    z_pg = 2.5 * f["chin_tip"] - 0.15 * gape  # an open jaw swings back
    wing = f["nose_width"]

    points = {
        "n": (0.0, 0.0, 0.0),
        "prn": (0.0, y_sn + 4.0, 4.5 + 4.5 * f["nose_tip"]),
        "sn": (0.0, y_sn, 4.5),
        "ls": (0.0, y_ls, 5.5),
        "li": (0.0, y_li, 4.5 - 0.1 * gape),
        "sl": (0.0, y_li - 3.5 * chin, 2.0 - 0.1 * gape),
        "pg": (0.0, y_pg, z_pg),
        "gn": (0.0, y_pg - 2.7 * chin, z_pg - 1.3),
        "en": (0.5 * f["inner"] * growth.interocular_mm(age_weeks) / across, -3.0, -4.0),
        "ex": (21.9, -3.0, -10.0),
        "al": (8.5 * wing, y_sn + 3.0, 1.0),
        "ac": (8.0 * wing, y_sn + 1.5, -1.5),
        "cph": (2.8 * wing, y_ls + 0.5, 5.0),
        "ch": (10.5 * f["mouth"], 0.5 * (y_ls + y_li) - 0.25, 0.0),
    }
    return Face(
        points={stem: jnp.stack([jnp.float32(v) for v in p]) for stem, p in points.items()},
        fullness=f["fullness"],
        cranium=jnp.stack([0.5 * bpd / across, 0.425 * ofd / along, 0.5 * ofd / along]),
        # scales with the outer canthal width, so that the eyes stay within the face
        zygion=0.5 * f["outer"] * f["width"] * growth.facial_width_mm(age_weeks) / across,
        gape=gape,
        scale=jnp.stack([across, along]),
        skew=jnp.array(ASYMMETRY) * skew,
        cleft=cleft,
        cleft_side=jnp.float32(jnp.where(side < 0.5, -1.0, 1.0)),
        setback=setback,
    )


def _jaw_setback(face: Face, y: Array) -> Array:
    """How far what lies at the template's height y is set back, in template mm: all of the jaw."""
    return face.setback * jax.nn.sigmoid((face.points["li"][1] - 1.0 - y) / 1.0)


def to_template(face: Face, x: Array, y: Array, z: Array) -> Point:
    """Map the child's own (x, y, z) mm to template mm; arrays of one shape."""
    x = x / face.scale[0]
    x = x / (1.0 + face.skew[0] * jnp.sign(x))
    y = y / face.scale[1] - face.skew[1] * x
    return x, y, z / face.scale[1] - face.skew[2] * x + _jaw_setback(face, y)


def from_template(face: Face, x: Array, y: Array, z: Array) -> Point:
    """Map template mm to the child's own (x, y, z) mm: the inverse of `to_template`."""
    return (
        face.scale[0] * x * (1.0 + face.skew[0] * jnp.sign(x)),
        face.scale[1] * (y + face.skew[1] * x),
        face.scale[1] * (z + face.skew[2] * x - _jaw_setback(face, y)),
    )


def _ellipsoid(p: Point, centre: Scalars, radii: Scalars) -> Array:
    """First-order signed distance to an ellipsoid; exact for a sphere."""
    d = [a - c for a, c in zip(p, centre, strict=True)]
    k0 = jnp.sqrt(sum((a / r) ** 2 for a, r in zip(d, radii, strict=True)) + 1e-9)
    k1 = jnp.sqrt(sum((a / (r * r)) ** 2 for a, r in zip(d, radii, strict=True)) + 1e-12)
    return k0 * (k0 - 1.0) / k1


def _capsule(p: Point, a: Scalars, b: Scalars, radius_a: float, radius_b: float) -> Array:
    """Signed distance to a rod from a to b whose radius changes linearly along it."""
    axis = [v - u for u, v in zip(a, b, strict=True)]
    d = [v - u for u, v in zip(a, p, strict=True)]
    along = sum(u * v for u, v in zip(axis, d, strict=True)) / sum(u * u for u in axis)
    t = jnp.clip(along, 0.0, 1.0)
    off = sum((v - t * u) ** 2 for u, v in zip(axis, d, strict=True))
    return jnp.sqrt(off + 1e-9) - (radius_a + t * (radius_b - radius_a))


def _join(a: Array, b: Array, k: float) -> Array:
    """Union with a rounded seam of width k mm: the quadratic smooth minimum."""
    h = jnp.maximum(k - jnp.abs(a - b), 0.0)
    return jnp.minimum(a, b) - h * h / (4.0 * k)


def _carve(a: Array, b: Array, k: float) -> Array:
    """a without b, the edge rounded over k mm."""
    return -_join(-a, b, k)


def _cranium(face: Face, p: Point, inset: float) -> Array:
    rx, ry, rz = face.cranium
    return _ellipsoid(p, (0.0, 19.5, 3.6 - rz), (rx - inset, ry - inset, rz - inset))


def _dent(depth: float, across: Array, width: float, along: Array, end: float) -> Array:
    """Depth of a furrow in mm: Gaussian across it, fading out where |along| exceeds `end`."""
    return depth * jnp.exp(-((across / width) ** 2)) * jax.nn.sigmoid(12.0 * (end - jnp.abs(along)))


def _skin(face: Face, x: Array, y: Array, z: Array) -> Array:
    """Signed distance to the skin in template mm; all but a cleft is symmetric."""
    p = (jnp.abs(x), y, z)
    at = {stem: (v[0], v[1], v[2]) for stem, v in face.points.items()}
    d = _head(face, at, p)
    eye = _eye_opening(at)
    d = _add_eyes(d, eye, p)
    d = _add_nose(d, at, p)
    d = _add_lips(d, face, at, p)
    lips = _lip_line(at, p)
    d = _open_mouth(d, face, at, lips, p)
    d = _carve(d, _cleft(face, at, x, p), 0.8)
    d = _add_body(d, face, p)
    furrow = _furrow_depth(at, eye, lips, p)
    return d + jnp.where(p[2] > -16.0, furrow, 0.0)


def _head(face: Face, at: Points, p: Point) -> Array:
    """Skull, middle face, cheeks, muzzle and chin."""
    full, pg, ch = face.fullness, at["pg"], at["ch"]
    d = _cranium(face, p, 0.0)
    d = _join(d, _ellipsoid(p, (0.0, -12.5, -24.0), (face.zygion - 1.4, 26.0, 22.5)), 7.0)
    d = _join(d, _ellipsoid(p, (14.5, -19.5, -11.5), (11.0 * full, 11.0, 10.5 * full)), 8.0)
    d = _join(d, _ellipsoid(p, (13.0, -27.0, -18.0), (11.5 * full, 10.0, 12.0)), 6.0)
    d = _join(d, _ellipsoid(p, (0.0, ch[1], -9.0), (14.0, 11.0, 11.5)), 5.0)
    return _join(d, _ellipsoid(p, (0.0, pg[1] + 0.3, pg[2] - 6.0), (6.5, 4.8, 6.0)), 4.0)


def _eye_opening(at: Points) -> tuple[Array, Array]:
    """x of the eye's middle, and half the length of the palpebral fissure."""
    en, ex = at["en"], at["ex"]
    return 0.5 * (en[0] + ex[0]), 0.5 * (ex[0] - en[0])


def _add_eyes(d: Array, eye: tuple[Array, Array], p: Point) -> Array:
    """A shallow hollow, and the bulge of the closed lids in it."""
    x_eye, fissure = eye
    d = _carve(d, _ellipsoid(p, (x_eye, -0.5, 1.0), (fissure + 1.3, 5.0, 5.0)), 7.0)
    return _join(d, _ellipsoid(p, (x_eye, -3.2, -12.6), (fissure + 0.9, 6.6, 8.0)), 2.5)


def _add_nose(d: Array, at: Points, p: Point) -> Array:
    """A low bridge, a round tip turned up, wings, columella and nostrils."""
    prn, sn, al = at["prn"], at["sn"], at["al"]
    bridge = (0.0, 0.62 * prn[1], 0.28 * prn[2] - 2.2)
    d = _join(d, _capsule(p, (0.0, -1.0, -6.0), bridge, 2.8, 3.9), 5.0)
    d = _join(d, _ellipsoid(p, (0.0, prn[1], prn[2] - 4.4), (4.6, 3.8, 4.4)), 5.0)
    d = _join(d, _ellipsoid(p, (al[0] - 3.2, al[1], al[2]), (3.2, 3.1, 3.8)), 2.0)
    d = _join(d, _ellipsoid(p, (0.0, sn[1] - 3.5, -2.2), (8.0, 6.5, 6.5)), 3.0)
    groove_x, groove_z = al[0] + 0.5, al[2] - 3.2  # between the wing and the cheek
    top, bottom = (groove_x, al[1] + 3.5, groove_z), (groove_x + 0.5, al[1] - 2.5, groove_z)
    d = _carve(d, _capsule(p, top, bottom, 0.9, 0.7), 2.2)
    d = _join(d, _capsule(p, (0.0, prn[1] - 1.0, prn[2] - 2.5), (0.0, sn[1], 2.9), 1.5, 1.3), 1.0)
    return _carve(d, _ellipsoid(p, (2.8, sn[1] + 0.7, 4.2), (1.3, 1.3, 1.8)), 0.8)


def _add_lips(d: Array, face: Face, at: Points, p: Point) -> Array:
    """Lips, full in the middle and thin at the corners."""
    ls, li, ch = at["ls"], at["li"], at["ch"]
    y_mouth = ch[1] - 0.1
    corner = (ch[0] - 0.4, ch[1], ch[2] - 1.0)
    ajar = 0.4 * face.gape
    upper = (0.5 * ch[0], y_mouth + 1.1 + ajar, 2.0)
    lower = (0.5 * ch[0], y_mouth - 1.5 - ajar, 1.8)
    d = _join(d, _capsule(p, (0.0, ls[1] - 1.5, ls[2] - 2.4), upper, 2.5, 2.3), 2.5)
    d = _join(d, _capsule(p, upper, corner, 2.3, 0.7), 2.5)
    d = _join(d, _capsule(p, (0.0, li[1] + 1.5, li[2] - 2.0), lower, 2.6, 2.4), 2.5)
    return _join(d, _capsule(p, lower, corner, 2.4, 0.7), 2.5)


def _lip_line(at: Points, p: Point) -> tuple[Array, Array]:
    """Position along the lips, 0 in the middle and 1 at the corner; their bow there, 1 to 0."""
    along = p[0] / at["ch"][0]
    return along, jnp.maximum(1.0 - along**2, 0.0)


def _open_mouth(d: Array, face: Face, at: Points, lips: tuple[Array, Array], p: Point) -> Array:
    """The gap between the lips of an open mouth."""
    _, y, z = p
    ch = at["ch"]
    along_lips, bow = lips
    gap = jnp.abs(y - ch[1] + 0.5 * bow) - (0.5 * face.gape * bow - 0.6)
    gap += 4.0 * jnp.maximum(along_lips - 0.9, 0.0)
    gap = jnp.where(face.gape > 0.0, gap, 9.0)
    return _carve(d, jnp.maximum(gap, -10.0 - z), 0.8)


def _cleft(face: Face, at: Points, x: Array, p: Point) -> Array:
    """A notch beside the philtrum, from the mouth into the nostril of one side."""
    ls, sn, cph, ch = at["ls"], at["sn"], at["cph"], at["ch"]
    flat = 0.4  # the notch is deeper than wide
    low = (cph[0] + 2.4, ch[1], flat * (ls[2] - 1.5))
    high = (3.4, sn[1] + 0.7, flat * 4.0)
    notch = _capsule((p[0], p[1], flat * p[2]), low, high, 1.0, 0.8) + 1.0 - face.cleft
    there = (face.cleft > 0.0) & (x * face.cleft_side > 0.0)
    return jnp.where(there, notch, 9.0)


def _add_body(d: Array, face: Face, p: Point) -> Array:
    """Ears, neck and chest."""
    x_ear = face.cranium[0] - 8.0
    ear = _ellipsoid(p, (x_ear, -5.0, -45.0), (2.5, 9.0, 6.0))
    ear = _carve(ear, _ellipsoid(p, (x_ear + 3.0, -4.0, -44.0), (3.0, 5.5, 3.2)), 1.5)
    d = _join(d, ear, 2.0)
    d = _join(d, _capsule(p, (0.0, -24.0, -34.0), (0.0, -60.0, -38.0), 20.0, 26.0), 8.0)
    return _join(d, _ellipsoid(p, (0.0, -80.0, -28.0), (50.0, 36.0, 34.0)), 10.0)


def _furrow_depth(
    at: Points, eye: tuple[Array, Array], lips: tuple[Array, Array], p: Point
) -> Array:
    """Depth in mm of the furrows in the skin: lids, mouth, philtrum; negative on a ridge."""
    x, y, _ = p
    en, sn, ls, li, cph, ch = (at[stem] for stem in ("en", "sn", "ls", "li", "cph", "ch"))
    (x_eye, fissure), (along_lips, bow) = eye, lips
    lid = (x - x_eye) / fissure  # -1 at the inner, 1 at the outer corner
    depth = _dent(1.0, y - en[1] + 2.4 * (1.0 - lid * lid), 0.7, lid, 1.0)
    depth += _dent(1.6, y - ch[1] + 0.5 * (1.0 - (x / ch[0]) ** 2), 0.6, x / ch[0], 1.0)
    half = 0.5 * (sn[1] - ls[1])
    beside = (y - ls[1] - half) / half  # -1 at the lip, 1 at the nose
    depth += _dent(0.5, x, 1.3, beside, 1.0)
    depth -= _dent(0.25, x - cph[0] * (0.85 - 0.15 * beside), 1.0, beside, 0.95)

    # The lips' edges are ridges: a bow through ls, cph and ch above, a curve through li below.
    inner = x / cph[0]
    outer = (x - cph[0]) / (ch[0] - cph[0])
    edge = jnp.where(
        x < cph[0], ls[1] + (cph[1] - ls[1]) * inner, cph[1] + (ch[1] - cph[1]) * outer
    )
    depth -= _dent(0.22, y - edge, 0.7, along_lips, 0.8)
    return depth - _dent(0.15, y - ch[1] - (li[1] - ch[1]) * bow, 0.7, along_lips, 0.8)


def _bone(face: Face, p: Point) -> Array:
    """Signed distance to bone and what it encloses: skull, nose, cheekbones, jaws. Template mm."""
    _, pg_y, pg_z = face.points["pg"]
    d = _cranium(face, p, 3.5)
    d = _join(d, _ellipsoid(p, (0.0, -12.0, -25.0), (20.0, 22.0, 19.0)), 6.0)
    d = _join(d, _ellipsoid(p, (0.0, face.points["sn"][1] - 3.5, -10.0), (10.0, 5.5, 9.0)), 3.0)
    d = _join(d, _capsule(p, (0.0, 1.0, -5.0), (0.0, -6.5, -2.6), 1.6, 1.2), 1.5)
    d = _join(d, _capsule(p, (12.0, -11.5, -9.0), (face.zygion - 3.4, -9.0, -22.0), 2.0, 2.0), 2.0)
    chin, bend = (0.0, pg_y + 2.0, pg_z - 6.7), (3.0, pg_y + 2.0, pg_z - 7.0)
    d = jnp.minimum(d, _capsule(p, chin, bend, 2.8, 2.8))
    d = jnp.minimum(d, _capsule(p, bend, (19.0, -27.0, -28.0), 2.8, 2.8))
    return _carve(d, _eye(face, p) - 1.2, 1.0)


def _eye(face: Face, p: Point) -> Array:
    x_eye = 0.5 * (face.points["en"][0] + face.points["ex"][0])
    return _ellipsoid(p, (x_eye, -3.0, -13.2), (6.5, 6.2, 6.5))


def tissue_distances(face: Face, x: Array, y: Array, z: Array) -> Tissue:
    """Signed distances in mm to skin, bone and eyeballs at the child's own (x, y, z) mm.

    Where shapes blend the distance is an estimate; its sign is right.
    """
    x, y, z = to_template(face, x, y, z)
    p = (jnp.abs(x), y, z)
    size = jnp.sqrt(face.scale[0] * face.scale[1])
    return Tissue(size * _skin(face, x, y, z), size * _bone(face, p), size * _eye(face, p))


def skin_distance(face: Face, x: Array, y: Array, z: Array) -> Array:
    """Signed distance in mm to the skin at the child's own (x, y, z) mm; arrays of one shape."""
    x, y, z = to_template(face, x, y, z)
    return jnp.sqrt(face.scale[0] * face.scale[1]) * _skin(face, x, y, z)


# How a point is searched for on the skin: rays run along `up` from a patch round its template
# point, `half` mm to each side along two axes; the point is the highest (+1) or the lowest (-1)
# crossing of a ray with the skin, or that of the ray from the template point (0). Right side.
_FORWARD, _SIDEWAYS, _CORNER = (0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.447, 0.0, 0.894)
_DOWNWARD = (0.0, -0.7071, 0.7071)
_RULES = {
    # stem: (up, half along the profile, half across it, highest or lowest)
    "n": (_FORWARD, 4.0, 0.0, -1.0),
    "prn": (_FORWARD, 3.0, 1.5, 1.0),
    "sn": (_FORWARD, 3.0, 0.0, -1.0),  # `up` is normal to the line from prn to ls
    "ls": (_FORWARD, 0.0, 0.0, 0.0),
    "li": (_FORWARD, 0.0, 0.0, 0.0),
    "sl": (_FORWARD, 2.5, 0.0, -1.0),  # `up` is normal to the line from li to pg
    "pg": (_FORWARD, 2.5, 1.5, 1.0),
    "gn": (_DOWNWARD, 3.0, 0.0, 1.0),
    "en": (_FORWARD, 0.0, 0.0, 0.0),
    "ex": (_FORWARD, 0.0, 0.0, 0.0),
    "al": (_SIDEWAYS, 1.3, 1.1, 1.0),
    "ac": (_CORNER, 0.0, 1.2, -1.0),
    "cph": (_FORWARD, 0.0, 0.0, 0.0),
    "ch": (_FORWARD, 0.0, 0.0, 0.0),
}
_STEMS = [label if label in _RULES else label[:-1] for label in POINTS]
_FLIP = [[-1.0 if label[-1] == "L" else 1.0, 1.0, 1.0] for label in POINTS]
# Mean offset, in template mm, of where landmarks are found from the points that they are sought
# round: of 32 children of 20 to 38 weeks, who differ by 0.3 mm at most.
_FOUND = {
    "n": (0.0, 1.9, -0.4), "prn": (0.0, 0.0, 0.0), "sn": (0.0, -1.2, -0.8), "ls": (0.0, 0.0, -0.3),
    "li": (0.0, 0.0, 0.5), "sl": (0.0, 0.7, 0.3), "pg": (0.0, 0.6, 0.1), "gn": (0.0, -0.3, 0.0),
    "en": (0.0, 0.0, -1.1), "ex": (0.0, 0.0, 0.0), "al": (0.0, 0.0, -0.1), "ac": (0.7, 0.0, -1.2),
    "cph": (0.0, 0.0, -0.2), "ch": (0.0, 0.0, -0.2),
}  # fmt: skip
_LEVELS, _SHRINK, _REACH_MM = 8, 0.5, 9.0
_RAYS, _SAMPLES = 7, 33


def _place_template(face: Face, points: Array) -> Array:
    """Template points [P, 3] of the right side and the midline, each on its side in own mm."""
    return jnp.stack(from_template(face, *(points * jnp.array(_FLIP)).T), axis=1)


def expect_landmarks(face: Face) -> Array:
    """About where `place_landmarks` finds the points [P, 3], to a millimetre and without search."""
    found = jnp.stack([face.points[stem] + jnp.array(_FOUND[stem]) for stem in _STEMS])
    return _place_template(face, found)


def place_landmarks(face: Face) -> Array:
    """The points [P, 3] on the skin, in the child's own (x, y, z) mm, in POINTS' order.

    Each is searched for on the child's own surface by its definition: prn and pg are the most
    forward points of nose and chin, al the most lateral of the wing, n the deepest of the root of
    the nose, sn and sl the deepest behind the lines prn-ls and li-pg, gn the lowest and most
    forward of the chin; en, ex, ch, ls, li and cph are the template's points projected on the skin.
    """
    rows = [_RULES[stem] for stem in _STEMS]
    flip = jnp.array(_FLIP)
    side = flip[:, 0]
    up = jnp.array([row[0] for row in rows]) * flip
    half = jnp.array([[row[1], row[2]] for row in rows])
    sign = jnp.array([row[3] for row in rows])
    start = _place_template(face, jnp.stack([face.points[stem] for stem in _STEMS]))
    half = half * face.scale[1]

    at = {label: i for i, label in enumerate(POINTS)}
    turning = jnp.array([at["sn"], at["sl"]])
    above, below = jnp.array([at["prn"], at["li"]]), jnp.array([at["ls"], at["pg"]])
    ticks = jnp.linspace(-1.0, 1.0, _RAYS)
    steps = jnp.linspace(1.0, -1.0, _SAMPLES)  # from outside to inside

    def aim(points):
        """Directions [P, 3]: up, along the profile, across it."""
        chord = (points[above] - points[below]).at[:, 0].set(0.0)
        chord = chord / jnp.linalg.norm(chord, axis=1, keepdims=True)
        ups = up.at[turning].set(jnp.stack([chord[:, 0], -chord[:, 2], chord[:, 1]], axis=1))
        across = jnp.stack([ups[:, 2], jnp.zeros_like(side), -ups[:, 0]], axis=1)  # horizontal
        across = across / jnp.linalg.norm(across, axis=1, keepdims=True)
        return ups, jnp.cross(ups, across), across

    def narrow(level, state):
        points, offset = state  # [P, 3], and [P, 3] from the start along profile, across, up
        shrink = _SHRINK**level
        ups, profile, across = aim(points)
        patch = offset[:, :2, None] + half[:, :, None] * shrink * ticks[None, None]  # [P, 2, rays]
        patch = jnp.clip(patch, -half[:, :, None], half[:, :, None])
        v, w = patch[:, 0, :, None], patch[:, 1, None, :]
        v, w = jnp.broadcast_arrays(v, w)
        base = (
            start[:, None, None, :]
            + v[..., None] * profile[:, None, None, :]
            + w[..., None] * across[:, None, None, :]
        )  # [P, rays, rays, 3]
        step_mm = offset[:, 2, None] + steps[None] * _REACH_MM * shrink  # [P, samples]
        step_mm = step_mm[:, None, None, :]
        samples = base[..., None, :] + step_mm[..., None] * ups[:, None, None, None, :]
        # a loop, so that XLA stores the distances and does not compute them anew for each use
        rays = tuple(jnp.moveaxis(samples, -1, 0))
        value = jax.lax.map(lambda ray: skin_distance(face, *ray), rays)
        height = _find_crossing(value, jnp.broadcast_to(step_mm, value.shape))  # [P, rays, rays]
        score = (sign[:, None, None] * height).reshape(len(rows), -1)
        best = jnp.argmax(jnp.where(jnp.isfinite(score), score, -jnp.inf), axis=1)
        pick = jnp.where(sign == 0.0, _RAYS**2 // 2, best)
        row = jnp.arange(len(rows))
        offset = jnp.stack([a.reshape(len(rows), -1)[row, pick] for a in (v, w, height)], axis=1)
        offset = jnp.where(jnp.isfinite(offset), offset, 0.0)
        points = start + jnp.einsum(
            "kl,lkc->kc",
            offset,
            jnp.stack([profile, across, ups]),
            precision=jax.lax.Precision.HIGHEST,
        )
        return points, offset

    return jax.lax.fori_loop(0, _LEVELS, narrow, (start, jnp.zeros_like(start)))[0]


def _find_crossing(value: Array, step_mm: Array) -> Array:
    """Step [...] at which `value` [..., S] first turns negative; infinite where it never does."""
    inner = jnp.maximum(jnp.argmax(value < 0.0, axis=-1), 1)[..., None]
    (d_in, at_in), (d_out, at_out) = (
        [jnp.take_along_axis(a, i, axis=-1)[..., 0] for a in (value, step_mm)]
        for i in (inner, inner - 1)
    )
    # linear interpolation between the two samples
    height = at_out + d_out / (d_out - d_in) * (at_in - at_out)
    return jnp.where((d_in < 0.0) & (d_out >= 0.0), height, jnp.inf)


def to_ras(points: Array) -> Array:
    """Swap y and z of points [..., 3]: from the template's (x, y, z) to RAS+ (x, z, y)."""
    return points[..., jnp.array([0, 2, 1])]
