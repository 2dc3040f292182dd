"""Open questions in manifests: what a program could not know, and a person has to fill in.

A value that is not known is written as ``"?"`` below a comment that asks for it::

    # QUESTION: which id marks pixels that no class belongs to? Say 255, or an id that never occurs.
    void = "?"

Whoever reads a manifest with such a value refuses it with the question.
"""

from __future__ import annotations

import re
import textwrap

ANSWER = '"?"'
"""The value that stands for an answer."""
_ASKS = "# QUESTION: "
_LINE = re.compile(r'\s*(?P<key>"[^"]*"|[\w-]+)\s*=\s*"\?"\s*(#.*)?')
_WIDTH = 98


def question_lines(question: str, key: str) -> str:
    """Return the lines of a manifest that ask for the value of a key.

    >>> print(question_lines("which id is void?", "void"))
    # QUESTION: which id is void?
    void = "?"
    """
    return f"{comment(f'QUESTION: {question}')}\n{key} = {ANSWER}"


def comment(text: str) -> str:
    """Return a text as lines of a comment."""
    wrapped = textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"# {line}" for line in wrapped)


def first_open_question(text: str) -> str | None:
    """Return the first open question of a manifest in one sentence; None where all are answered.

    >>> first_open_question(question_lines("which id is void?", "void"))
    'line 2: void is not answered: which id is void? Write the answer in the place of "?"'
    >>> first_open_question("void = 255")
    """
    asked: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith(_ASKS):
            asked = [line.removeprefix(_ASKS)]
        elif asked and line.startswith("#"):
            asked.append(line.removeprefix("#").strip())
        else:
            found = _LINE.fullmatch(line) if asked else None
            if found is not None:
                question = " ".join(asked)
                end = "" if question.endswith((".", "?", "!")) else "."
                return (
                    f"line {number}: {found['key']} is not answered: {question}{end} Write the "
                    f"answer in the place of {ANSWER}"
                )
            asked = []
    return None
