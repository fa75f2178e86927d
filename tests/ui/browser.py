"""How do tests look at pages? With Debian's Chromium, which shows what the real service serves."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio.from_thread
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright
from tests.api.serving import Service, serving

CHROMIUM = Path("/usr/bin/chromium")

#: What a page shows takes no longer than that, and the first one waits for Gradio to be imported.
PATIENCE_MS = 30_000
START_MS = 110_000

#: A page of Gradio that can be used.
READY = ".gradio-container .mc-page"

_QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync")


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window."""
    assert CHROMIUM.exists(), "`make browser` installs Chromium"
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", *_QUIET]
        )
        try:
            yield browser
        finally:
            browser.close()


def with_key(key: str) -> dict[str, Any]:
    """How a context sends a key, as a browser does once somebody has typed it in.

    With `http_credentials`, Playwright would keep nothing, and stop each of the 70 requests of a page.
    """
    told = base64.b64encode(f"eve:{key}".encode()).decode()
    return {"extra_http_headers": {"authorization": f"Basic {told}"}}


class Site:
    """A service in a thread of its own, and a browser for its pages."""

    def __init__(self, service: Service, portal: Any, browser: Browser) -> None:
        self.service = service
        self.url = service.url
        self.browser = browser
        self._portal = portal
        self._contexts: dict[str, BrowserContext] = {}

    def eventually(self, condition: Any, what: str) -> None:
        """Wait until a condition holds in the service, or fail."""
        self._portal.call(self.service.eventually, condition, what)

    @property
    def runs(self) -> list[Any]:
        """The runs that have not ended."""
        return list(self.service.app._runs.values())

    def start(self, **how: Any) -> None:
        """Be the first who looks: the page says that it starts, and then it comes."""
        with self._watched(how) as page:
            page.goto(f"{self.url}/")
            expect(page.get_by_text("Starting the web UI ...")).to_be_visible()
            page.wait_for_selector(READY, timeout=START_MS)
            assert page.url == f"{self.url}/ui/"

    @contextlib.contextmanager
    def page(self, path: str = "", **how: Any) -> Iterator[Page]:
        """A page; fails if it complains, or asks anybody but the service for something."""
        with self._watched(how) as page:
            page.goto(f"{self.url}/ui/{path}")
            page.wait_for_selector(READY)
            yield page

    @contextlib.contextmanager
    def _watched(self, how: dict[str, Any]) -> Iterator[Page]:
        complaints: list[str] = []

        def said(message: ConsoleMessage) -> None:
            if message.type == "error":
                complaints.append(f"{message.text} {message.location}")

        page = self._context(how).new_page()
        page.on("console", said)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.extend(self._elsewhere(request.url)))
        try:
            yield page
        finally:
            page.close()
        assert not complaints, "\n".join(complaints)

    def _context(self, how: dict[str, Any]) -> BrowserContext:
        """One for all pages that are looked at in this way: they share what the browser has kept."""
        key = repr(sorted(how.items()))
        if key not in self._contexts:
            self._contexts[key] = self.browser.new_context(**how)
            self._contexts[key].set_default_timeout(PATIENCE_MS)
        return self._contexts[key]

    def _elsewhere(self, url: str) -> list[str]:
        ours = url.startswith((f"{self.url}/", "data:", "blob:"))
        return [] if ours else [f"asked for {url}"]


@contextlib.contextmanager
def site(text: str, folder: Path, state: Path | None = None) -> Iterator[Site]:
    """Serve a file, and look at it."""
    with (
        chromium() as browser,
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serving(text, folder, state=state)) as service,
    ):
        yield Site(service, portal, browser)
