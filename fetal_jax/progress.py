"""One line that a person can watch; a log file gets few lines and no control characters."""

import sys
import time

LINE_EVERY_S = 60.0


class Progress:
    """Prints `text` in place on a terminal; elsewhere only what is `worth_keeping`."""

    def __init__(self, stream=None):
        self._stream = stream or sys.stdout
        self.live = self._stream.isatty()
        self._width = 0
        self._last = 0.0

    def show(self, text: str, *, worth_keeping: bool = False) -> None:
        now = time.monotonic()
        if not self.live:
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
        if self.live and self._width:
            print("\r" + " " * self._width + "\r", end="", file=self._stream, flush=True)
        self._width = 0


class Countdown:
    """'WHAT 3/20  1:05 left', in place; in a log file a line a minute."""

    def __init__(self, what: str, total: int, progress: Progress | None = None):
        self._what, self._total, self._progress = what, total, progress or Progress()
        self._began = self._said = time.monotonic()

    def show(self, done: int) -> None:
        now = time.monotonic()
        left = (now - self._began) / done * (self._total - done)
        worth_keeping = not self._progress.live and now - self._said > LINE_EVERY_S
        self._said = now if worth_keeping else self._said
        self._progress.show(
            f"{self._what} {done}/{self._total}  {format_seconds(left)} left",
            worth_keeping=worth_keeping,
        )

    def clear(self) -> None:
        self._progress.clear()


def format_seconds(seconds: float) -> str:
    """'2:05' or '1:02:05'."""
    minutes, s = divmod(int(round(seconds)), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"
