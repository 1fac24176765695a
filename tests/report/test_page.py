"""The page's pieces: what is escaped, what is embedded, how a number is written."""

import json
import re
from html.parser import HTMLParser

import pytest

from fetal_jax.report import page
from fetal_jax.report.page import Cell, Section


class Outline(HTMLParser):
    """Open tags must be closed in order; texts by tag; every address."""

    VOID = {"meta", "link", "img", "br", "input"}

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.addresses = [], {}, []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.addresses += [v for k, v in attributes if k in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)


def test_a_page_is_whole_and_fetches_nothing():
    scenes = [{"title": "</script><b>", "volume": "AA=="}]
    sections = [
        Section("a", "First & last", page.render_paragraph("1 < 2")),
        Section(
            "b", "Second", page.render_figure(page.render_picture(b"png", 'a "quote"'), "said")
        ),
    ]
    text = page.render_page("runs/<emd>", "<p>lead</p>", sections, scenes)
    outline = Outline(text)
    assert outline.texts["h1"] == ["runs/<emd>"]
    assert outline.texts["h2"] == ["First & last", "Second"]
    assert outline.texts["p"] == ["lead", "1 < 2"]
    assert outline.addresses == ["data:,", "#a", "#b", "data:image/png;base64,cG5n"]
    found = re.search(r'id="scenes">(.*?)</script>', text).group(1)
    assert json.loads(found) == scenes
    assert "http" not in text.replace("http://www.w3.org", "")


def test_a_page_without_scenes_has_no_viewer():
    assert "scenes" not in page.render_page("a", "", [], []).split("</style>")[1]


def test_a_table():
    text = page.render_table(
        ["", "n"], [["<x>", Cell("3 mm", 3.0, "good")]], caption="of <b>all</b>", sortable=True
    )
    outline = Outline(text)
    assert outline.texts == {"th": ["n", "<x>"], "caption": ["of "], "b": ["all"], "td": ["3 mm"]}
    assert '<td data-order="3.0" class="good">' in text and 'class="sortable"' in text


def test_long_text_is_folded_away():
    text = page.render_folded("a < b", "Config")
    assert text == "<details><summary>Config</summary><pre>a &lt; b</pre></details>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (page.format_number(1.236), "1.24"),
        (page.format_number(None), "–"),
        (page.format_percent(0.996), "100 %"),
        (page.format_percent(None), "–"),
        (page.format_interval(1.0, [0.5, 2.25]), "1.00 (0.50–2.25)"),
        (page.format_interval(1.0, None), "1.00"),
        (page.format_interval(None, [1, 2]), "–"),
        (page.format_percent_interval(0.5, [0.25, 0.755]), "50 % (25–76)"),
        (page.format_percent_interval(0.5, None), "50 %"),
    ],
)
def test_numbers(text, expected):
    assert text == expected
