"""The authors' lists of class names: ``labels.txt`` of Pascal Context, a line ``ID: name`` each."""

from __future__ import annotations

import re
from pathlib import Path

from vocprep.errors import DataDirError
from vocprep.files.reading import read_text_lines
from vocprep.validation import explain, printable

_LABEL_LINE = re.compile(r"([0-9]{1,5})\s*:\s*(\S.*)")
_NORMAL_LINE = 80
"""Characters of a line that a message quotes."""


def read_label_list(path: Path) -> dict[int, str]:
    """Return the class names by id that a file of lines ``ID: name`` gives.

    Raises DataDirError for a file of anything else.
    """
    try:
        lines = read_text_lines(path)
    except (OSError, ValueError) as error:
        raise DataDirError(
            f"{path}: cannot be read as lines of the form 'ID: name': {explain(error)}"
        ) from error
    names: dict[int, str] = {}
    for number, line in enumerate(lines, start=1):
        found = _LABEL_LINE.fullmatch(line.strip())
        if line.strip() and (found is None or int(found[1]) in names):
            raise DataDirError(
                f"{path}: line {number}: expected lines of the form 'ID: name', each id once, "
                f"found '{printable(line[:_NORMAL_LINE])}'"
            )
        if found is not None:
            names[int(found[1])] = found[2]
    return names
