"""A headless Chromium, its pages, and all that goes wrong in them."""

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


@contextmanager
def start_browser() -> Iterator:
    """Yield Playwright's browser: one for a module's tests, and one at a time in a thread.

    While it runs nothing may call asyncio.run, as orbax does: what a page needs is made before.
    Skips the test where there is no browser, or fails it if REQUIRE_BROWSER is set.
    """
    chromium = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not chromium:
        _miss("expected Chromium in CHROMIUM or on the path")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _miss("expected playwright to be installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(
    browser, path: Path, *, before: str = "", width: int = 600, height: int = 900
) -> Iterator:
    """Yield (page, problems): Playwright's page of a file, and a list that fills as it goes wrong.

    Problems are console errors, uncaught errors, and requests to anywhere but files and data.

    Args:
      browser: of `start_browser`.
      before: JavaScript to run before the page's own.
    """
    problems: list[str] = []

    def note_request(request):
        if not request.url.startswith(("file:", "data:", "blob:")):
            problems.append(f"request: {request.url}")

    def note_console(message):
        if message.type == "error":
            problems.append(f"console: {message.text}")

    page = browser.new_page(viewport={"width": width, "height": height})
    try:
        page.on("console", note_console)
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on("request", note_request)
        if before:
            page.add_init_script(before)
        page.goto(Path(path).resolve().as_uri())
        yield page, problems
    finally:
        page.close()


def _miss(what: str):
    (pytest.fail if os.environ.get("REQUIRE_BROWSER") else pytest.skip)(what)
