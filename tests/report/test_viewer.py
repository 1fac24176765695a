"""The 3D view in a browser: what is drawn, where, and which side is which."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from browser import open_page, start_browser
from matplotlib.image import imread

from fetal_jax import report

VIEWER = Path(report.__file__).with_name("viewer.js")
SIDE = 40
LABELS = ["nose", "eyeR", "eyeL", "chin", "gone"]
POINTS = [[20, 35, 19], [26, 30, 24], [14, 30, 24], [20, 29, 9], None]  # d, h, w
MOVED = [[20, 35, 21], [26, 30, 24], [12, 30, 24], None, [20, 31, 14]]
TRUTH_RGB, PREDICTED_RGB = (45, 225, 194), (255, 159, 28)


def make_head(*, bump=False, wall=""):
    """An ellipsoid with a nose [D, H, W] uint8; a bump on the right cheek, a wall near to it."""
    d, h, w = np.indices((SIDE,) * 3)
    parts = [((20, 18, 20), (11, 13, 15)), ((20, 32, 19), (3, 3, 3))]
    if bump:
        parts.append(((28, 27, 14), (4, 4, 4)))
    depth = np.full(d.shape, -9.0)
    for (a, b, c), (i, j, k) in parts:
        radius = np.sqrt(((d - a) / i) ** 2 + ((h - b) / j) ** 2 + ((w - c) / k) ** 2)
        depth = np.maximum(depth, min(i, j, k) * (1 - radius))
    if wall:
        depth = np.maximum(depth, {"front": h - 37.5, "right": d - 34.0}[wall])
    return np.rint(20 + 180 * np.clip(0.5 + depth, 0, 1)).astype(np.uint8)


def make_scene(**parts):
    marks = {"predicted": [None] * 5, "error_mm": [None] * 5, "confidence": [None] * 5}
    marks.update({key: parts.pop(key) for key in list(parts) if key in (*marks, "cut_mm")})
    return {
        "title": "a </script> head",
        "shape": [SIDE] * 3,
        "spacing_mm": 2.0,
        "volume": base64.b64encode(make_head(**parts).tobytes()).decode(),
        "threshold": 100,
        "labels": LABELS,
        "truth": POINTS,
        "visible": [True, True, False, True, True],
        "front": [0, 1, 0],
        "up": [0, 0, 1],
    } | marks


PLAIN, BUMP, FRONT_WALL, RIGHT_WALL, MARKED = range(5)
SCENES = (
    make_scene(),
    make_scene(bump=True),
    make_scene(wall="front", cut_mm=3),
    make_scene(wall="right", cut_mm=3),
    make_scene(
        predicted=MOVED, error_mm=[4.0, 0.0, 4.0, None, None], confidence=[0.5] * 4 + [None]
    ),
)


def write_page(path, scenes=SCENES):
    figures = "".join(
        f'<figure class="face3d" data-scene="{i}" style="width: 300px"></figure>'
        for i in range(len(scenes))
    )
    text = json.dumps(scenes).replace("<", "\\u003c")
    path.write_text(
        f'<!doctype html><meta charset="utf-8"><body>{figures}'
        f'<script type="application/json" id="scenes">{text}</script>'
        f"<script>{VIEWER.read_text()}</script>"
    )
    return path


@pytest.fixture(scope="module")
def browser():
    with start_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def opened(browser, tmp_path_factory):
    path = write_page(tmp_path_factory.mktemp("viewer") / "page.html")
    before = "window.before = 0; before = Object.keys(window)"
    with open_page(browser, path, before=before) as (page, problems):
        yield page, problems


@pytest.fixture
def page(opened):
    """The page as it is at first; nothing may have gone wrong when a test ends."""
    page, problems = opened
    url = page.url
    page.goto("about:blank")  # a page that is only loaded again keeps its scrolling
    page.goto(url)
    page.evaluate("faceViewer.ready")
    yield page
    assert problems == []


def draw(page, view, azimuth=0, *, labels=False):
    """Draw a view and return its picture [H, W, 3], 0 to 255."""
    url = page.evaluate(
        """([i, azimuth, labels]) => {
          const view = faceViewer.views[i];
          Object.assign(view.state, { azimuth, elevation: 0, labels });
          view.draw();
          return view.canvas.toDataURL();
        }""",
        [view, azimuth, labels],
    )
    return read_png(url)


def read_png(url):
    image = imread(io.BytesIO(base64.b64decode(url.split(",")[1])), format="png")
    return np.rint(255 * image[..., :3]).astype(int)


def find_colour(image, colour):
    """[N, 2] x and y of the pixels of a colour."""
    y, x = np.nonzero(np.abs(image - np.array(colour)).max(axis=-1) < 12)
    return np.stack([x, y], axis=-1)


def without_marks(image):
    """The surface alone: what is grey enough, brighter than the ground."""
    grey = np.ptp(image, axis=-1) < 40
    return grey & (image.sum(axis=-1) > 90)


def test_only_what_is_in_sight_is_drawn(page):
    page.wait_for_function("faceViewer.views[0].draws > 0")
    assert page.evaluate("faceViewer.views.length") == len(SCENES)
    assert page.evaluate("faceViewer.views.at(-1).draws") == 0
    page.locator("figure").last.scroll_into_view_if_needed()
    page.wait_for_function("faceViewer.views.at(-1).draws > 0")
    assert page.evaluate("Object.keys(window).filter((k) => !before.includes(k))") == ["faceViewer"]


def test_the_surface_is_shaded(page):
    image = draw(page, PLAIN)
    assert image.shape == (300, 300, 3)
    surface = without_marks(image)
    assert 0.1 < surface.mean() < 0.9
    assert image[surface].std() > 15
    np.testing.assert_array_equal(image[[0, 0, -1], [0, -1, 0]], [[17, 22, 26]] * 3)  # the ground


def test_the_childs_right_is_on_the_left_from_the_front(page):
    change = np.abs(draw(page, BUMP) - draw(page, PLAIN)).max(axis=-1) > 20
    y, x = np.nonzero(change)
    assert len(x) > 200
    assert x.max() < 150  # all of it in the left half
    assert np.median(y) > 150  # below the eyes


def test_right_and_left_show_these_sides_of_the_child(page):
    changed = {}
    for name, azimuth, nose in (("Right", 90, 1), ("Left", -90, -1)):
        for view in (PLAIN, BUMP):
            figure = page.locator("figure").nth(view)
            figure.scroll_into_view_if_needed()
            page.wait_for_function(f"faceViewer.views[{view}].draws > 0")
            figure.get_by_role("button", name=name).click()
            assert page.evaluate(f"faceViewer.views[{view}].state.azimuth") == azimuth
        image = draw(page, PLAIN, azimuth)
        # the nose stands out of the profile, where its landmark is
        x, _ = page.evaluate("faceViewer.views[0].project([20, 35, 19])")
        columns = np.nonzero(without_marks(image).any(axis=0))[0]
        edge = columns.max() if nose > 0 else columns.min()
        assert nose * (x - 150) > 20
        assert abs(edge - x) < 6
        both = np.abs(draw(page, BUMP, azimuth) - image).max(axis=-1) > 20
        changed[name] = both.sum()
    assert changed["Right"] > 300
    assert changed["Left"] < 0.2 * changed["Right"]  # the bump is on the other side


def project_front(points, anchors, picture=300):
    """Where the front view must show points, pixels: d to the left, w upward."""
    low, high = np.min(anchors, axis=0), np.max(anchors, axis=0)
    scale = picture / 2 / (0.92 * (high - low).max())
    return picture / 2 + scale * ((low + high) / 2 - points)[:, [0, 2]]


def test_landmarks_lie_where_they_are(page):
    marks = find_colour(draw(page, PLAIN), TRUTH_RGB)
    expected = project_front(POINTS[:4], POINTS[:4])
    far = np.linalg.norm(marks[:, None] - expected, axis=-1)
    nearest = far.argmin(axis=1)
    assert (far.min(axis=1) < 7.5).all()  # rings of radius 5, and nowhere else
    for i in range(4):
        np.testing.assert_allclose(marks[nearest == i].mean(axis=0), expected[i], atol=1.5)
    # an eye that is not visible has a dashed ring
    assert (nearest == 2).sum() < 0.8 * (nearest == 1).sum()


def test_predictions_are_crosses_with_a_line_to_the_truth(page):
    marks = find_colour(draw(page, MARKED), PREDICTED_RGB)
    anchors = [*POINTS[:4], MOVED[4]]
    predicted = project_front([*MOVED[:3], MOVED[4]], anchors)
    for x, y in predicted:
        for dx, dy in ((3, 0), (-3, 0), (0, 3), (0, -3)):
            assert np.linalg.norm(marks - (x + dx, y + dy), axis=-1).min() < 1.5
    # the left eye's moved by 2 voxels, to the child's left
    truth, predicted = project_front([POINTS[2], MOVED[2]], anchors)
    assert predicted[0] > truth[0] + 10
    beside = find_colour(draw(page, MARKED), TRUTH_RGB)
    assert np.linalg.norm(beside - truth, axis=-1).min() < 7
    assert len(find_colour(draw(page, PLAIN), PREDICTED_RGB)) == 0


def slide(page, view, name, value):
    page.locator("figure").nth(view).get_by_label(name).evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }",
        value,
    )


def test_a_lower_threshold_makes_a_larger_head(page):
    sizes = []
    for threshold in (40, 100, 180):
        slide(page, PLAIN, "Threshold", threshold)
        sizes.append(without_marks(draw(page, PLAIN)).sum())
    assert sizes[0] > 1.02 * sizes[1] > 1.04 * sizes[2]


@pytest.mark.parametrize(
    "view, azimuth", [(FRONT_WALL, 0), (RIGHT_WALL, 90)], ids=["front", "right"]
)
def test_a_wall_before_the_face_is_cut_away(page, view, azimuth):
    free, cut = draw(page, PLAIN, azimuth), draw(page, view, azimuth)
    assert (np.abs(free - cut).max(axis=-1) < 12).mean() > 0.97
    slide(page, view, "Cut", 1e6)
    whole = draw(page, view, azimuth)
    assert (np.abs(free - whole).max(axis=-1) > 12).mean() > 0.5


def test_labels_can_be_turned_off(page):
    assert (draw(page, PLAIN, labels=True) != draw(page, PLAIN, labels=False)).any()
    page.wait_for_function("faceViewer.views[0].draws > 0")
    page.locator("figure").first.get_by_label("Labels").uncheck()
    assert page.evaluate("faceViewer.views[0].state.labels") is False


def place(page, view, point):
    """Where a point of the volume is on the screen."""
    canvas = page.locator("canvas").nth(view)
    canvas.scroll_into_view_if_needed()
    page.wait_for_function(f"faceViewer.views[{view}].draws > 0")
    box = canvas.bounding_box()
    x, y = page.evaluate(f"faceViewer.views[{view}].project({json.dumps(point)})")
    return box["x"] + x, box["y"] + y


def test_a_landmark_tells_its_error(page):
    told = page.locator("figure").nth(MARKED).get_by_role("status")
    for point, text in (
        (POINTS[0], "nose: error 4.0 mm, confidence 0.50"),
        (POINTS[2], "eyeL: error 4.0 mm, confidence 0.50, not visible in the scan"),
        (POINTS[3], "chin: no prediction, confidence 0.50"),
        (MOVED[4], "gone: no truth to compare with"),
    ):
        page.mouse.move(*place(page, MARKED, point))
        assert told.text_content() == text
    x, y = place(page, MARKED, POINTS[0])
    page.mouse.click(x, y)  # a click keeps it
    page.mouse.move(x + 60, y + 60)
    assert told.text_content().startswith("nose:")


def test_drag_keys_and_wheel(page):
    def state(name):
        return page.evaluate(f"faceViewer.views[0].state.{name}")

    x, y = place(page, PLAIN, POINTS[0])
    page.mouse.wheel(0, 0)
    page.mouse.move(x, y + 60)
    page.mouse.down()
    page.mouse.move(x + 40, y + 80, steps=4)
    page.mouse.up()
    # what is in front goes with the pointer: more of the child's right, and of the top
    assert state("azimuth") > 10 and state("elevation") > 5
    before = page.evaluate("faceViewer.views[0].project([20, 35, 19])")
    assert before[0] > 155
    turned = state("azimuth")
    page.locator("canvas").first.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("+")
    assert state("azimuth") == turned - 5
    zoom = state("zoom")
    page.mouse.wheel(0, -200)
    page.wait_for_function(f"faceViewer.views[0].state.zoom > {zoom}")


def test_what_a_screen_reader_says(page):
    canvas = page.locator("canvas").nth(MARKED)
    canvas.scroll_into_view_if_needed()
    page.wait_for_function(f"faceViewer.views[{MARKED}].draws > 0")
    assert canvas.get_attribute("role") == "img"
    told = canvas.get_attribute("aria-label")
    assert "a </script> head; view: front; 5 landmarks; mean error 2.7 mm" in told
    figure = page.locator("figure").nth(MARKED)
    names = [button.text_content() for button in figure.get_by_role("button").all()]
    assert names == ["Front", "Three-quarter", "Left", "Right"]
    legend = figure.locator(".face3d-legend").text_content().split()
    assert legend == "truth truth, not visible in the scan prediction error".split()


def test_colours_follow_the_page(page):
    page.wait_for_function("faceViewer.views[0].draws > 0")
    draws = page.evaluate("faceViewer.views[0].draws")
    page.evaluate("document.documentElement.style.setProperty('--face-truth', '#ff00ff')")
    page.wait_for_function(f"faceViewer.views[0].draws > {draws}")
    image = read_png(page.evaluate("faceViewer.views[0].canvas.toDataURL()"))
    assert len(find_colour(image, (255, 0, 255))) > 50


def test_without_webgl_there_is_a_line_of_text(browser, tmp_path):
    before = """
      const get = HTMLCanvasElement.prototype.getContext;
      HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
        return kind.startsWith("webgl") ? null : get.call(this, kind, ...rest);
      };"""
    path = write_page(tmp_path / "page.html", SCENES[:1])
    path.write_text(
        path.read_text().replace(
            "<script type", '<figure class="face3d" data-scene="7"></figure><script type'
        )
    )
    with open_page(browser, path, before=before) as (page, problems):
        page.evaluate("faceViewer.ready")
        lines = [figure.text_content() for figure in page.locator("figure").all()]
        assert lines == ["This browser has no WebGL2: no 3D view.", "No 3D view of this case."]
        assert page.locator("canvas").count() == 0
        assert problems == []


def test_nothing_is_loaded_from_elsewhere():
    text = VIEWER.read_text()
    assert "http" not in text and "import(" not in text and "</script" not in text
