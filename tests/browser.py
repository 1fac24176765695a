"""A page in a headless Chromium, and all that goes wrong in it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",  # WebGL without a graphics card
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
_running = None


@contextmanager
def open_page(path: Path, *, before: str = "", width: int = 600, height: int = 900) -> Iterator:
    """Yield (page, problems): Playwright's page of a file, and a list that fills as it goes wrong.

    Problems are console errors, uncaught errors, and requests to anywhere but files and data.
    Skips the test where there is no browser, or fails it if REQUIRE_BROWSER is set.

    Args:
      before: JavaScript to run before the page's own.
    """
    chromium = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not chromium:
        _miss("expected Chromium in CHROMIUM or on the path")
    problems: list[str] = []

    def note_request(request):
        if not request.url.startswith(("file:", "data:", "blob:")):
            problems.append(f"request: {request.url}")

    def note_console(message):
        if message.type == "error":
            problems.append(f"console: {message.text}")

    with _start_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.on("console", note_console)
            page.on("pageerror", lambda error: problems.append(f"error: {error}"))
            page.on("request", note_request)
            if before:
                page.add_init_script(before)
            page.goto(Path(path).resolve().as_uri())
            yield page, problems
        finally:
            browser.close()


@contextmanager
def _start_playwright():
    """One at a time in a thread: what is opened within another page's block shares its own."""
    global _running
    if _running:
        yield _running
        return
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _miss("expected playwright to be installed")
    with sync_playwright() as _running:
        try:
            yield _running
        finally:
            _running = None


def _miss(what: str):
    (pytest.fail if os.environ.get("REQUIRE_BROWSER") else pytest.skip)(what)
