"""Markdown that reads as it stands and renders as it is meant, whatever a data set's names hold."""

import re
from collections.abc import Sequence

# ASCII that starts something in CommonMark, GitHub's tables or its formulas
ACTIVE = re.compile(r"[\\`*_\[\]<>|#~&$!]")


def escape_text(text: str) -> str:
    """Text on one line that renders as itself."""
    return ACTIVE.sub(lambda found: f"\\{found[0]}", " ".join(text.split()))


def format_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in GitHub's form; columns but the first are set to the right where all are numbers.

    Args:
      heads, rows: Markdown, escaped.
    """
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(heads)
    rules = ["---"] + ["---:" if _is_numeric(column) else "---" for column in columns[1:]]
    lines = [heads, rules, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _is_numeric(cells: Sequence[str]) -> bool:
    return bool(cells) and all(re.match(r"[-–\d]|$", cell) for cell in cells)
