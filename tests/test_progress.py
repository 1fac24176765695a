"""One line on a terminal; few lines and no control characters in a file."""

import io

import pytest

from fetal_jax import progress as progress_module
from fetal_jax.progress import Countdown, Progress, format_seconds


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_file_gets_what_is_worth_keeping():
    stream = io.StringIO()
    progress = Progress(stream)
    progress.show("step 1")
    progress.show("step 2", worth_keeping=True)
    progress.show("step 3")
    progress.clear()
    assert stream.getvalue() == "step 2\n"


def test_a_terminal_is_overwritten_in_place():
    stream = Terminal()
    progress = Progress(stream)
    progress.show("a long line")
    progress.show("too soon")  # within 0.2 s
    progress.show("short", worth_keeping=True)
    progress.clear()  # nothing to wipe
    assert stream.getvalue() == "\ra long line\rshort      \n"


def test_clear_wipes_the_line():
    stream = Terminal()
    progress = Progress(stream)
    progress.show("abc")
    progress.clear()
    progress.clear()
    assert stream.getvalue() == "\rabc\r   \r"


def test_a_countdown_says_how_long_is_left_and_a_file_gets_a_line_a_minute(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    file, terminal = io.StringIO(), Terminal()
    countdowns = [Countdown("preparing", 20, Progress(stream)) for stream in (file, terminal)]
    for done in range(1, 6):
        now[0] += 25.0
        for countdown in countdowns:
            countdown.show(done)
    for countdown in countdowns:
        countdown.clear()
    assert file.getvalue() == "preparing 3/20  7:05 left\n"
    assert "\n" not in terminal.getvalue()
    assert terminal.getvalue().startswith("\rpreparing 1/20  7:55 left\r")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3599.4, "59:59"), (3725, "1:02:05")],
)
def test_format_seconds(seconds, text):
    assert format_seconds(seconds) == text
