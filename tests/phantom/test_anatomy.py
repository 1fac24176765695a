"""The face: landmarks on the skin and at their features, and growth by the published equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetal_jax.landmarks import LABELS, MIRROR, PAIRS
from fetal_jax.phantom import anatomy

AGES = (20.0, 26.0, 29.0, 36.0, 38.0)  # of the scenes, in turn
PIECE = 4096
skin_distance = jax.jit(anatomy.skin_distance)
# the papers' equations, evaluated by hand, in mm
TABLE = {
    20.0: {"en-en": 12.5, "ex-ex": 31.0, "n-gn": 25.8, "sn-ls": 5.0, "HC": 172, "BPD": 48},
    26.0: {"en-en": 15.6, "ex-ex": 39.5, "n-gn": 35.7, "sn-ls": 6.5, "HC": 241, "BPD": 68},
    29.0: {"en-en": 17.1, "ex-ex": 43.8, "n-gn": 39.8, "sn-ls": 7.2, "HC": 270, "BPD": 76},
    36.0: {"en-en": 20.7, "ex-ex": 53.7, "n-gn": 48.0, "sn-ls": 8.4, "HC": 319, "BPD": 91},
}
ENDS = {
    "en-en": ("enL", "enR"),
    "ex-ex": ("exL", "exR"),
    "n-gn": ("n", "gn"),
    "sn-ls": ("sn", "ls"),
}


@pytest.fixture(scope="session")
def children(scenes):
    """Age -> (label -> [48, 3] own mm, and their faces), of the ages of TABLE and 38 weeks."""

    def select(age):
        at = slice(AGES.index(age), None, len(AGES))
        points = {label: scenes.own[at, i] for i, label in enumerate(anatomy.POINTS)}
        return points, jax.tree.map(lambda leaf: leaf[at], scenes.face)

    return {age: select(age) for age in AGES}


@pytest.fixture(scope="module")
def face(template_face):
    return template_face


@pytest.fixture(scope="module")
def marks(template_points):
    return dict(zip(anatomy.POINTS, np.asarray(template_points), strict=True))


def skin_at(face, x, y, z):
    """Distances to the skin, so many points at a time that one program does for all."""
    points = np.stack(np.broadcast_arrays(*(np.asarray(v, np.float32) for v in (x, y, z))))
    flat = points.reshape(3, -1)
    n = flat.shape[1]
    flat = np.pad(flat, [(0, 0), (0, -n % PIECE)])
    pieces = np.split(flat, flat.shape[1] // PIECE, axis=1)
    found = np.concatenate([skin_distance(face, *piece) for piece in pieces])
    return found[:n].reshape(points.shape[1:])


def front_of(face, x, y):
    """z of the foremost skin at each (x, y), to 0.02 mm."""
    z = np.arange(-15.0, 12.0, 0.02)
    inside = skin_at(face, np.asarray(x)[:, None], np.asarray(y)[:, None], z[None, :]) < 0
    return z[inside.shape[1] - 1 - np.argmax(inside[:, ::-1], axis=1)]


def test_points_are_the_landmarks_and_gnathion(face):
    assert anatomy.POINTS == (*LABELS, "gn")
    sampled = jax.eval_shape(anatomy.sample_face, jax.random.key(0), 29.0)
    assert set(sampled.points) == set(face.points)


def test_to_ras_swaps_up_and_forward():
    assert anatomy.to_ras(jnp.array([[1.0, 2.0, 3.0]])).tolist() == [[1.0, 3.0, 2.0]]


def test_template_space_and_back_is_the_identity(children):
    face = jax.tree.map(lambda leaf: leaf[4], children[36.0][1])
    points = np.random.default_rng(0).normal(0, 20, (3, 50)).astype(np.float32)
    back = anatomy.from_template(face, *anatomy.to_template(face, *points))
    np.testing.assert_allclose(np.stack(back), points, atol=1e-4)
    set_back = face._replace(setback=jnp.float32(6.0))
    back = anatomy.from_template(set_back, *anatomy.to_template(set_back, *points))
    np.testing.assert_allclose(np.stack(back), points, atol=1e-4)


def test_landmarks_lie_on_the_skin_at_any_age(scenes):
    x, y, z = np.moveaxis(scenes.own, -1, 0)
    off = jax.jit(jax.vmap(anatomy.skin_distance))(scenes.face, x, y, z)
    assert np.abs(off).max() < 0.01


def test_right_is_where_x_is_larger(children):
    for at, _ in children.values():
        for stem in PAIRS:
            assert (at[stem + "R"][:, 0] > 0).all() and (at[stem + "L"][:, 0] < 0).all()


def test_surface_runs_through_the_template(face, marks):
    for label, point in marks.items():
        stem = label if label in face.points else label[:-1]
        template = np.asarray(face.points[stem]) * [-1.0 if label[-1] == "L" else 1.0, 1.0, 1.0]
        assert np.linalg.norm(point - template) < 2.5, label


def test_pronasale_is_the_foremost_point_of_the_face(face, marks):
    x, y = np.meshgrid(np.arange(-12.0, 13.0, 1.0), np.arange(-36.0, -3.0, 1.0))
    assert front_of(face, x.ravel(), y.ravel()).max() < marks["prn"][2] + 0.1


@pytest.mark.parametrize(
    ("label", "sign"), [("n", -1), ("prn", 1), ("pg", 1)], ids=["n", "prn", "pg"]
)
def test_profile_turns_at_the_midline_landmark(face, marks, label, sign):
    y = np.arange(-2.0, 2.05, 0.05) + marks[label][1]
    z = sign * front_of(face, np.zeros_like(y), y)
    assert abs(y[np.argmax(z)] - marks[label][1]) < 0.45  # as flat as the top is, to 0.02 mm
    assert z.max() > max(z[0], z[-1])


@pytest.mark.parametrize(("label", "above", "below"), [("sn", "prn", "ls"), ("sl", "li", "pg")])
def test_corner_is_the_deepest_point_behind_its_line(face, marks, label, above, below):
    a, b = marks[above][1:], marks[below][1:]
    chord = (a - b) / np.linalg.norm(a - b)
    normal = np.array([-chord[1], chord[0]])  # forward
    y = np.linspace(b[0] + 0.5, a[0] - 3.0 if label == "sn" else a[0] - 0.5, 200)
    z = front_of(face, np.zeros_like(y), y)
    depth = (np.stack([y, z], 1) - b) @ normal
    own = (marks[label][1:] - b) @ normal
    assert own < -0.3 and own < depth.min() + 0.05


def test_mirrored_face_has_mirrored_points(children, place_landmarks):
    points, faces = children[29.0]
    face = jax.tree.map(lambda leaf: jnp.asarray(leaf[7]), faces)
    assert float(jnp.abs(face.skew).max()) > 0.01
    other = place_landmarks(face._replace(skew=-face.skew))
    mirrored = dict(zip(anatomy.POINTS, np.asarray(other), strict=True))
    for label in LABELS:  # the negative of a skew is its inverse to first order only
        expected = points[label][7] * [-1, 1, 1]
        np.testing.assert_allclose(mirrored[MIRROR[label]], expected, atol=0.25, err_msg=label)


def test_open_mouth_is_a_gap_between_the_lips(face):
    open_ = face._replace(gape=jnp.float32(4.0))
    y = float(face.points["ch"][1]) - 0.5
    assert skin_at(open_, 0.0, y, -2.0) > 0.5 and skin_at(face, 0.0, y, -2.0) < -0.5


def test_alare_is_the_widest_point_of_the_wing(face, marks):
    x, y, z = marks["alR"]
    for dy in (-2.0, 2.0):
        assert skin_at(face, x, y + dy, z) > 0.1
    assert skin_at(face, x + 0.3, y, z) > 0.1 and skin_at(face, x - 0.3, y, z) < -0.1


@pytest.mark.parametrize(
    ("label", "inward", "lift"), [("enR", 2.0, -1.0), ("exR", -2.0, -1.0), ("chR", -2.0, 0.0)]
)
def test_corner_ends_its_furrow(face, marks, label, inward, lift):
    """Just inside the corner a furrow crosses the skin; just outside there is none."""

    def furrow_mm(x):
        y = np.arange(-2.5, 2.6, 0.1) + marks[label][1] + lift
        z = front_of(face, np.full_like(y, x), y)
        chord = np.linspace(z[0], z[-1], len(z))
        return (chord - z).max()

    outside = furrow_mm(marks[label][0] - 0.5 * inward)
    assert furrow_mm(marks[label][0] + inward) > max(0.5, 2.0 * outside)


def test_philtrum_is_a_groove_between_ridges(face, marks):
    y = 0.5 * (marks["sn"][1] + marks["ls"][1])
    middle, ridge = front_of(face, [0.0, 2.5], [y, y])
    assert ridge > middle + 0.1


@pytest.mark.parametrize("age", TABLE)
def test_mean_measures_follow_their_equations(children, age):
    at, _ = children[age]
    for name, (a, b) in ENDS.items():
        mean = np.linalg.norm(at[a] - at[b], axis=1).mean()
        assert mean == pytest.approx(TABLE[age][name], rel=0.05), name


@pytest.mark.parametrize("age", TABLE)
def test_head_grows_by_its_own_equations(children, age):
    _, faces = children[age]
    radius = faces.cranium * faces.scale[:, [0, 1, 1]]
    assert (2 * radius[:, 0]).mean() == pytest.approx(TABLE[age]["BPD"], rel=0.03)
    round_ = np.pi * (radius[:, 0] + radius[:, 2])
    assert round_.mean() == pytest.approx(TABLE[age]["HC"], rel=0.03)


def test_children_of_one_age_differ_as_configured(children):
    expected = {"ex-ex": "outer", "en-en": "inner", "n-gn": "height", "sn-ls": "philtrum"}
    share = {name: [] for name in expected}  # of the mean of each child's age
    for at, _ in children.values():
        for name, (a, b) in ENDS.items():
            length = np.linalg.norm(at[a] - at[b], axis=1)
            share[name].append(length / length.mean())
    share = {name: np.concatenate(values) for name, values in share.items()}
    for name, factor in expected.items():
        assert share[name].std() == pytest.approx(anatomy.VARIATION[factor], rel=0.3), name

    def correlation(a, b):
        return np.corrcoef(share[a], share[b])[0, 1]

    # 0.5 within the widths and within the heights, 0.3 between them
    assert correlation("en-en", "ex-ex") == pytest.approx(0.5, abs=0.2)
    assert correlation("n-gn", "sn-ls") == pytest.approx(0.5, abs=0.2)
    assert correlation("ex-ex", "n-gn") == pytest.approx(0.3, abs=0.2)


@pytest.fixture(scope="module")
def rarer(place_landmarks):
    """Kind of face -> ([8, 20, 3] own mm, faces) of the same eight children."""
    sample_face, found = jax.jit(anatomy.sample_face), {}
    age_weeks = jnp.float32(29.0)
    for i, name in enumerate(anatomy.FACES):
        faces = [sample_face(jax.random.key(seed), age_weeks, jnp.int32(i)) for seed in range(8)]
        points = np.stack([place_landmarks(face) for face in faces])
        found[name] = points, jax.tree.map(lambda *leaves: np.stack(leaves), *faces)
    return found


@pytest.mark.parametrize("kind", ["cleft", "small_chin"])
def test_landmarks_of_a_rarer_face_lie_on_its_skin_and_elsewhere_where_they_were(rarer, kind):
    points, faces = rarer[kind]
    off = jax.jit(jax.vmap(anatomy.skin_distance))(faces, *np.moveaxis(points, -1, 0))
    assert np.abs(off).max() < 0.01
    moved = dict(
        zip(anatomy.POINTS, np.linalg.norm(points - rarer["healthy"][0], axis=-1).T, strict=True)
    )
    same = ["n", "enL", "enR", "exL", "exR"] + (["pg", "gn", "li"] if kind == "cleft" else [])
    if kind == "cleft":
        for label in same:
            assert moved[label].max() < 0.01, label
        assert max(by.max() for by in moved.values()) < 4.0  # what is at the notch


def test_cleft_is_a_notch_of_one_side_up_to_the_nostril(rarer):
    points, faces = rarer["cleft"]
    at = {label: points[:, i] for i, label in enumerate(anatomy.POINTS)}
    for i in range(8):
        face = jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf[i]), faces)
        side = float(face.cleft_side)
        y = np.linspace(at["ls"][i, 1] - 0.5, at["sn"][i, 1] - 1.0, 5)
        at_mouth = float(face.points["cph"][0]) + 2.4
        up = (y - at["chR"][i, 1]) / (at["sn"][i, 1] + 0.7 - at["chR"][i, 1])
        x = at_mouth + up * (3.4 - at_mouth)
        there, other = (front_of(face, s * x, y) for s in (side, -side))
        assert (there < other - 1.0).mean() >= 0.8, i


def test_small_chin_lies_back_and_high(rarer):
    (healthy, _), (small, faces) = rarer["healthy"], rarer["small_chin"]
    for label in ("pg", "gn"):
        i = anatomy.POINTS.index(label)
        back = (healthy - small)[:, i, 2]
        assert (back > 3.0).all() and (back < 11.0).all(), label
    assert ((small - healthy)[:, anatomy.POINTS.index("gn"), 1] > 0.3).all()
    assert set(np.sign(faces.setback)) == {1.0}


def test_the_two_sides_of_a_face_differ(children):
    at, _ = children[29.0]
    left, right = (np.linalg.norm(at["n"] - at["ex" + side], axis=1) for side in "LR")
    assert 0.1 < (left - right).std() < 1.5


def test_bone_and_eyes_lie_under_the_skin(face, marks):
    x, y, z = np.meshgrid(np.arange(0, 26.0, 2), np.arange(-36.0, 20, 2), np.arange(-30, 10.0, 2))
    tissue = jax.jit(anatomy.tissue_distances)(face, *(v.astype(np.float32) for v in (x, y, z)))
    skin, bone, eye = (np.asarray(t) for t in tissue)
    assert skin[bone < 0].max() < 0 and skin[eye < 0].max() < 0
    assert bone[eye < 0].min() > 0  # the orbits are open
