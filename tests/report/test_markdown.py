"""Names of a data set within Markdown: they render as themselves."""

import pytest
from markdown_it import MarkdownIt

from fetal_jax.report.markdown import escape_text, format_table

ODD = ["a|b", "*x*", "_y_", "`z`", "<b>", "[q](r)", "# h", "~~s~~", "&amp;", "$a$", "\\|", "n\nm"]


@pytest.mark.parametrize("text", ODD)
def test_a_name_renders_as_itself(text):
    html = (
        MarkdownIt("commonmark")
        .enable(["table", "strikethrough"])
        .render(format_table(["name", "n"], [[escape_text(text), "1"]]))
    )
    cells = [line for line in html.splitlines() if line.startswith("<td")]
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert [cell.split(">", 1)[1].removesuffix("</td>") for cell in cells] == [plain, "1"]


def test_numbers_are_set_to_the_right():
    table = format_table(["a", "b", "c"], [["x", "1.5 (1–2)", "y"], ["z", "–", "4"]])
    assert table.splitlines() == [
        "| a | b | c |",
        "| --- | ---: | --- |",
        "| x | 1.5 (1–2) | y |",
        "| z | – | 4 |",
    ]
    assert format_table(["a", "b"], []) == "| a | b |\n| --- | --- |"
