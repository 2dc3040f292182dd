"""The verb ``view``: versions and runs in the browser, until it is interrupted."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Callable, Sequence

from vocprep.errors import UsageError
from vocprep.pages.viewer.options import ViewOptions
from vocprep.pages.viewer.shown.session import Session
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.storage.places import Place


def view(
    paths: str | Place | Sequence[str | Place],
    options: ViewOptions | None = None,
    progress: Progress = NO_PROGRESS,
    started: Callable[[str], object] | None = None,
) -> None:
    """Show dataset versions and runs in the browser, until it is interrupted (Ctrl-C).

    ``paths`` are one or two versions, in folders or object stores, and any number of runs that fit
    them. ``started`` is called with the URL of the page. Raises UsageError where the extra ``view``
    is not installed or the port cannot be had, and what ``ShardDataset.open`` and ``load_run``
    raise.
    """
    require_view()
    from vocprep.pages.viewer.web.server import Server  # noqa: PLC0415  # an extra

    options = options or ViewOptions()
    given = [paths] if isinstance(paths, str | Place) else paths
    session = Session.open(given, options, progress)
    with Server(session, options.port) as server:
        try:
            if started is not None:
                started(server.url)
            if options.open_browser and has_display():
                webbrowser.open(server.url)
            server.wait()
        except KeyboardInterrupt:
            return


def require_view() -> None:
    """Raise UsageError where the web server is not installed."""
    try:
        import starlette  # noqa: F401, PLC0415  # an extra
        import uvicorn  # noqa: F401, PLC0415
    except ImportError as error:
        raise UsageError(
            "the viewer needs the extra view: run pip install 'vocprep[view]'"
        ) from error


def has_display() -> bool:
    """Return whether a browser can show a window: elsewhere, text browsers take the terminal."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
