"""A real browser for the tests of pages: what a page logs and asks for is watched in every test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    Request,
    expect,
    sync_playwright,
)

_PATIENCE = 15_000
"""Milliseconds that a locator is waited for: machines that run tests are busy."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, once per process. ``asyncio.run`` cannot be used in a process that has it."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no browser: chromium is not installed")
    arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=program, args=arguments) as started,
    ):
        expect.set_options(timeout=_PATIENCE)
        yield started


@pytest.fixture
def page_faults() -> list[str]:
    """What ``page`` has found fault with; a test that means a fault to happen clears it."""
    return []


@pytest.fixture
def context(browser: Browser, page_faults: list[str]) -> Iterator[BrowserContext]:
    """A window of its own of 1,280 by 800 pixels, whose pages are watched.

    The test fails when a page logs an error or a warning, raises, or asks for anything that is
    neither a file nor of this machine.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    context.set_default_timeout(_PATIENCE)

    def see_message(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            page_faults.append(f"console: {message.text} ({message.location.get('url')})")

    def see_request(request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in ("file", "data", "blob") and address.hostname != "127.0.0.1":
            page_faults.append(f"external request: {request.url}")

    context.on("console", see_message)
    context.on("request", see_request)
    context.on("weberror", lambda fault: page_faults.append(f"uncaught: {_words(fault.error)}"))
    yield context
    context.close()
    assert page_faults == []


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """A watched page: ``page.goto(path.as_uri())``."""
    return context.new_page()


def _words(error: Error | Exception) -> str:
    return str(error).splitlines()[0]
