"""Strategies of hypothesis: what a disk, a spreadsheet or a hurried hand makes of a valid file."""

import copy
import json

from hypothesis import strategies as st

# numbers and words that formats trip over
WORDS = ["", "0", "-1", "nan", "inf", "-inf", "1e999", "1e-320", "1,5", "1_0", "0x1F", "NA", "none"]
WORDS += [
    "9" * 5000,
    "2147483648",
    "true",
    '"',
    "\ufeff",
    "\0",
    "é",
    "٣",
    "LPS",
    "RAS",
    "999999999",
]


@st.composite
def flip_bits(draw, whole: bytes) -> bytes:
    """One to three bits are others."""
    data = bytearray(whole)
    for bit in draw(st.sets(st.integers(0, 8 * len(whole) - 1), min_size=1, max_size=3)):
        data[bit // 8] ^= 1 << bit % 8
    return bytes(data)


@st.composite
def damage(draw, whole: bytes, end: int | None = None) -> bytes:
    """One to four edits of bytes before `end`: others, some more, some gone, cut off, twice."""
    data, end = whole, len(whole) if end is None else end
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, min(end, len(data)) - 1)))
        length = draw(st.integers(1, 8))
        kind = draw(st.sampled_from(["other", "other", "other", "more", "gone", "cut", "twice"]))
        some = draw(st.binary(min_size=length, max_size=length))
        if kind == "other":
            data = data[:at] + some + data[at + length :]
        elif kind == "more":
            data = data[:at] + some + data[at:]
        elif kind == "gone":
            data = data[:at] + data[at + length :]
        elif kind == "cut":
            data = data[:at]
        else:
            data = data[: at + 10 * length] + data[at:]
    return data


@st.composite
def edit_text(draw, whole: str, separators: str = " ,\n=:") -> str:
    """One to three words, lines or cells are others, gone, moved or there twice."""
    text = whole
    for _ in range(draw(st.integers(1, 3))):
        separator = draw(st.sampled_from([s for s in separators if s in text] or [" "]))
        parts = text.split(separator)
        at, other = (draw(st.integers(0, len(parts) - 1)) for _ in range(2))
        kind = draw(st.sampled_from(["word", "text", "number", "gone", "twice", "moved"]))
        if kind == "word":
            parts[at] = draw(st.sampled_from(WORDS))
        elif kind == "text":
            parts[at] = draw(st.text(max_size=6))
        elif kind == "number":
            parts[at] = repr(draw(st.floats(-1e6, 1e6) | st.integers(-3, 300)))
        elif kind == "gone":
            del parts[at]
        elif kind == "twice":
            parts.insert(at, parts[at])
        else:
            parts[at], parts[other] = parts[other], parts[at]
        text = separator.join(parts)
    return text


VALUES = st.sampled_from([*WORDS, None, True, [], {}, [0], 0, -1, 1.5, 1e308, float("nan")])


@st.composite
def edit_tree(draw, content: object) -> object:
    """One to three values of a JSON tree are others, gone, or there under another name."""
    content = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 3))):
        spots = list(_list_spots(content))
        if not spots:
            return content
        holder, key = draw(st.sampled_from(spots))
        kind = draw(st.sampled_from(["value", "number", "gone", "twice", "wrapped"]))
        if kind == "value":
            holder[key] = copy.deepcopy(draw(VALUES))
        elif kind == "number":
            holder[key] = draw(st.floats(-1e6, 1e6))
        elif kind == "gone":
            del holder[key]
        elif kind == "wrapped":
            holder[key] = [holder[key]]
        elif isinstance(holder, list):
            holder.insert(key, holder[key])
        else:
            holder[key + "2"] = holder[key]
    return content


def _list_spots(content):
    """(holder, key) of each value within."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in list(items):
        yield content, key
        if isinstance(value, dict | list):
            yield from _list_spots(value)
