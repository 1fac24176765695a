"""One self-contained HTML page: tables, charts, pictures; nothing is fetched from anywhere."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from fetal_jax.report.scene import embed_viewer_scenes

HERE = Path(__file__).parent


class Section(NamedTuple):
    """A part of the page: its anchor, its heading, its HTML."""

    anchor: str
    heading: str
    body: str


class Cell(NamedTuple):
    """A cell of a table: what is read, what it is sorted by, and a class for its look."""

    text: str
    order: float | str | None = None
    kind: str = ""


def render_page(title: str, lead: str, sections: Sequence[Section], scenes: Sequence[dict]) -> str:
    """The whole document.

    Args:
      title: plain text.
      lead: HTML under the title, the result in a sentence.
      scenes: of `scene.make_viewer_scene`, for the views with their numbers.
    """
    links = "".join(f'<a href="#{s.anchor}">{escape(s.heading)}</a>' for s in sections)
    body = "".join(
        f'<section id="{s.anchor}"><h2>{escape(s.heading)}</h2>{s.body}</section>' for s in sections
    )
    scripts = f"<script>{_read('page.js')}</script>"
    if scenes:
        scripts += embed_viewer_scenes(list(scenes)) + f"<script>{_read('viewer.js')}</script>"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'  # or the browser asks for one
        f"<title>{escape(title)}</title><style>{_read('page.css')}</style></head><body>"
        f"<header><h1>{escape(title)}</h1>{lead}<nav>{links}</nav></header>"
        f"<main>{body}</main>{scripts}</body></html>\n"
    )


def render_table(
    heads: Sequence[str],
    rows: Sequence[Sequence[Cell | str]],
    *,
    caption: str = "",
    anchor: str = "",
    sortable: bool = False,
) -> str:
    """A table whose first column names its rows; numbers are set to the right.

    Args:
      heads: of the columns.
      rows: of as many cells, plain text.
      caption: HTML, beneath it.
      anchor: its id in the page.
      sortable: whether a click on a head sorts the rows.
    """
    kinds = ' class="sortable"' if sortable else ""
    named = f' id="{anchor}"' if anchor else ""
    head = "".join(f'<th scope="col">{escape(h)}</th>' for h in heads)
    body = "".join(f"<tr>{''.join(_cell(c, i) for i, c in enumerate(row))}</tr>" for row in rows)
    said = f"<caption>{caption}</caption>" if caption else ""
    return (
        f'<div class="wide"><table{named}{kinds}>{said}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(cell: Cell | str, column: int) -> str:
    cell = Cell(cell) if isinstance(cell, str) else cell
    tag = 'th scope="row"' if column == 0 else "td"
    order = "" if cell.order is None else f' data-order="{escape(str(cell.order))}"'
    kind = f' class="{cell.kind}"' if cell.kind else ""
    return f"<{tag}{order}{kind}>{escape(cell.text)}</{tag.split()[0]}>"


def render_figure(content: str, caption: str) -> str:
    """An inline SVG or an image, with what it shows."""
    return f"<figure>{content}<figcaption>{escape(caption)}</figcaption></figure>"


def render_picture(png: bytes, alt: str) -> str:
    """A PNG within the page."""
    data = base64.b64encode(png).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}" loading="lazy">'


def render_paragraph(*sentences: str) -> str:
    """Sentences of plain text."""
    return f"<p>{escape(' '.join(sentences))}</p>"


def render_folded(text: str, summary: str) -> str:
    """Long text, folded away."""
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"


def format_number(value: float | None, digits: int = 2) -> str:
    """'1.72', or a dash for what is not known."""
    return "–" if value is None else f"{value:.{digits}f}"


def format_percent(share: float | None) -> str:
    """'93 %' of a share of 0.93, or a dash."""
    return "–" if share is None else f"{100 * share:.0f} %"


def format_interval(value: float | None, interval: Sequence[float] | None, digits: int = 2) -> str:
    """'1.72 (1.55–1.94)', as in the tables of a paper; '-0.10 (-0.30 to 0.10)' below 0."""
    if value is None or interval is None:
        return format_number(value, digits)
    until = " to " if min(interval) < 0 else "–"
    return f"{value:.{digits}f} ({interval[0]:.{digits}f}{until}{interval[1]:.{digits}f})"


def format_percent_interval(share: float | None, interval: Sequence[float] | None) -> str:
    """'93 % (81–98)' of a share of 0.93 and its interval."""
    if share is None or interval is None:
        return format_percent(share)
    return f"{100 * share:.0f} % ({100 * interval[0]:.0f}–{100 * interval[1]:.0f})"


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
