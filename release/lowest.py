"""Print the lowest version of each dependency that pyproject.toml allows, as constraints for pip.

    python release/lowest.py > lowest.txt && pip install -e '.[dev]' -c lowest.txt

Of the core and of the extras that users install; tools of development have no lowest versions.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TOOLS = ("bench", "dev", "docs", "spiking")
"""Extras for working on vocprep itself."""
_LOWEST = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)(?:\[[^]]*\])?\s*>=\s*(?P<version>[0-9][^,;\s]*)")


def lowest_versions(project: dict[str, Any]) -> Iterator[str]:
    """Yield ``name==version`` for each requirement of the table ``project`` of pyproject.toml.

    >>> list(lowest_versions({"dependencies": ["numpy>=2.0", "torch>=2.9,<3"]}))
    ['numpy==2.0', 'torch==2.9']
    """
    extras = project.get("optional-dependencies", {})
    users = [requirement for name in extras if name not in TOOLS for requirement in extras[name]]
    for requirement in (*project["dependencies"], *users):
        found = _LOWEST.match(requirement)
        if found is None:
            raise ValueError(f"{requirement!r}: expected NAME>=VERSION")
        yield f"{found['name']}=={found['version']}"


if __name__ == "__main__":
    pyproject = Path(__file__).resolve().parents[1] / "pyproject.toml"
    constraints = lowest_versions(tomllib.loads(pyproject.read_text("utf-8"))["project"])
    sys.stdout.write("\n".join(constraints) + "\n")
