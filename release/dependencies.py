"""Write docs/dependencies.md: what an installation brings, and under which licences.

    python release/dependencies.py

Licences are what the installed packages say of themselves; run it where all extras are installed.
"""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from lowest import TOOLS
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "dependencies.md"

_HEAD = """<!-- Written by `python release/dependencies.py`; do not edit. -->

# Dependencies and their licences

What pyproject.toml names, and what the installed packages say of themselves. vocprep itself is
under the MIT licence. Its wheel holds none of these packages: pip fetches them, and each comes with
its licence.

"""
_BETWEEN = """
## What these bring along

With CUDA builds of torch for Linux; those for CPUs bring none of the packages of NVIDIA.

"""
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Other/Proprietary License": "LicenseRef-NVIDIA-Proprietary",
    "Python Software Foundation License": "PSF-2.0",
}
_SPELLINGS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "NVIDIA Proprietary Software": "LicenseRef-NVIDIA-Proprietary",
}


def page(project: dict[str, Any]) -> str:
    """Return the page for the table ``project`` of pyproject.toml."""
    rows = [f"| {' | '.join(row)} |\n" for row in direct(project)]
    table = "| package | lowest version | licence | comes with |\n|---|---|---|---|\n"
    users = [requirement for _, requirement in _users(project)]
    chosen = {canonicalize_name(requirement.name) for requirement in users}
    by_licence = defaultdict(list)
    for name in sorted(_brought(users) - chosen):
        by_licence[licence(name)].append(name)
    lists = [f"| {each} | {', '.join(by_licence[each])} |\n" for each in sorted(by_licence)]
    brought = "| licence | packages |\n|---|---|\n"
    return "".join([_HEAD, table, *rows, _BETWEEN, brought, *lists])


def direct(project: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, lowest version, licence, and the extras (or ``core``) of each that is named."""
    named: dict[str, list[str]] = {}
    lowest = {}
    for origin, requirement in _users(project):
        named.setdefault(requirement.name, []).append(origin)
        lowest[requirement.name] = next(
            each.version for each in requirement.specifier if each.operator == ">="
        )
    for name, origins in named.items():
        yield name, lowest[name], licence(name), ", ".join(origins)


def licence(name: str) -> str:
    """Return the SPDX expression of an installed package's licence."""
    about = metadata.metadata(name)
    if expressions := about.get_all("License-Expression"):
        return str(expressions[0])
    for classifier in about.get_all("Classifier") or ():
        if classifier.startswith("License ::"):
            found = _CLASSIFIERS.get(classifier.rpartition(" :: ")[2])
            if found is not None:
                return found
    said = "".join(about.get_all("License") or ()).partition("\n")[0].strip()
    if not said and name.startswith("cuda-"):  # a package of nothing but requirements
        return "LicenseRef-NVIDIA-Proprietary"
    if not re.fullmatch(r"[A-Za-z0-9. ()+-]{2,60}", said):
        raise ValueError(f"{name}: no licence that is known in its metadata: {said!r}")
    return _SPELLINGS.get(said, said)


def _users(project: dict[str, Any]) -> Iterator[tuple[str, Requirement]]:
    """Yield the origin, ``core`` or an extra, and each requirement."""
    for text in project["dependencies"]:
        yield "core", Requirement(text)
    for extra, texts in project["optional-dependencies"].items():
        if extra not in TOOLS:
            for text in texts:
                yield extra, Requirement(text)


def _brought(requirements: Iterable[Requirement]) -> set[str]:
    """Return the names of all installed packages that the requirements come to."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        for text in metadata.requires(requirement.name) or ():
            further = Requirement(text)
            extras = requirement.extras or {""}
            if further.marker is None or any(further.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(further)
    return {name for name, _ in seen}


if __name__ == "__main__":
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    TARGET.write_text(page(tomllib.loads(text)["project"]), encoding="utf-8")
