"""A browser with ComfyUI's frontend: both as their users have them, unmodified."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

WAIT_MS = 60_000
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def missing() -> str | None:
    """Why there is no browser with the frontend here; None if there is."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed (extra canvas-test)"
    from fopru_graph.server.canvas.frontend import frontend_folder

    if frontend_folder() is None:
        return "comfyui-frontend-package is not installed (extra canvas-test)"
    if chromium() is None:
        return "there is no Chromium"
    return None


def chromium() -> str | None:
    """Chromium of the system, or the one that ``playwright install chromium`` brought."""
    if found := next(filter(None, map(shutil.which, _PROGRAMS)), None):
        return found
    brought = sorted(Path.home().glob(".cache/ms-playwright/chromium-*/chrome-linux*/chrome"))
    return str(brought[-1]) if brought else None


class Page:
    """The canvas in a browser's page, and the requests that it made."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.address = page, address
        self.failed: list[str] = []
        self.completed: list[str] = []
        page.on("requestfinished", lambda request: self.completed.append(request.url))
        page.on("requestfailed", lambda request: self.failed.append(request.url))

    def open(self) -> None:
        """Open the server's address, and wait for the pipeline on the canvas."""
        self.page.goto(self.address)
        self.page.wait_for_function("window.app?.graph?._nodes?.length > 3", timeout=WAIT_MS)
        self.page.wait_for_function("window.app.extensionManager?.setting !== undefined", timeout=WAIT_MS)

    def nodes(self, what: str) -> Any:
        """An expression for each node ``n``, by node id."""
        return self.page.evaluate(f"Object.fromEntries(app.graph._nodes.map(n => [n.id, {what}]))")

    def change(self, node: str, **widgets: Any) -> None:
        """Set widgets of a node."""
        script = """([node, values]) => {
          for (const widget of app.graph._nodes.find(n => n.id === node).widgets) {
            if (widget.name in values) { widget.value = values[widget.name]; widget.callback?.(widget.value) }
          }
        }"""
        self.page.evaluate(script, [node, widgets])

    def click(self, name: str) -> None:
        """Press a button by its name."""
        self.page.get_by_role("button", name=name, exact=True).first.click()

    def shows(self, expression: str) -> Any:
        """Wait until an expression of JavaScript is true; returns its value."""
        return self.page.wait_for_function(expression, timeout=WAIT_MS).json_value()

    def elsewhere(self, urls: list[str]) -> list[str]:
        """The addresses on other machines."""
        return [url for url in urls if url.startswith("http") and urlsplit(url).netloc != urlsplit(self.address).netloc]


@contextlib.contextmanager
def started() -> Iterator[Any]:
    """A block with a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def visited(browser: Any, address: str) -> Iterator[Page]:
    """A block with a page that remembers no earlier visit, and shows the pipeline."""
    context = browser.new_context(viewport={"width": 1600, "height": 900})
    try:
        page = Page(context.new_page(), address)
        page.open()
        yield page
    finally:
        context.close()
