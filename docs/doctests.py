"""Shows the doctests of docstrings as code: the documentation site loads this into griffe."""

from __future__ import annotations

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"^(?:>>> .*\n?)(?:(?!\s*$).+\n?)*", re.MULTILINE)


def fence_doctests(text: str) -> str:
    """Return a docstring with each doctest, up to the next empty line, as a fenced block.

    >>> fence_doctests(">>> 1 + 1\\n2\\n")
    '```pycon\\n>>> 1 + 1\\n2\\n```\\n'
    """
    return _DOCTEST.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", text)


class Doctests(griffe.Extension):
    """Fences the doctests of every object that is loaded."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object."""
        if obj.docstring is not None:
            obj.docstring.value = fence_doctests(obj.docstring.value)
