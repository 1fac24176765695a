"""One line that a person can watch; a log file gets few lines and no control characters."""

import sys
import time


class Progress:
    """Prints `text` in place on a terminal; elsewhere only what is `worth_keeping`."""

    def __init__(self, stream=None):
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._width = 0
        self._last = 0.0

    def show(self, text: str, *, worth_keeping: bool = False) -> None:
        now = time.monotonic()
        if not self._live:
            if worth_keeping:
                print(text, file=self._stream, flush=True)
            return
        if not worth_keeping and now - self._last < 0.2:
            return
        self._last = now
        end = "\n" if worth_keeping else ""
        print("\r" + text.ljust(self._width), end=end, file=self._stream, flush=True)
        self._width = 0 if worth_keeping else len(text)

    def clear(self) -> None:
        """Wipe the line, before something else is printed."""
        if self._live and self._width:
            print("\r" + " " * self._width + "\r", end="", file=self._stream, flush=True)
        self._width = 0


def format_seconds(seconds: float) -> str:
    """'2:05' or '1:02:05'."""
    minutes, s = divmod(int(round(seconds)), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"
