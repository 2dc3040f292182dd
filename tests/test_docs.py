"""What the docs say is what the code does."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("manifests/**/*.md")])


def test_the_command_line_reference_is_current() -> None:
    reference = runpy.run_path(str(ROOT / "docs" / "generate_cli.py"))["reference"]
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == reference(), (
        "run: python docs/generate_cli.py"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    broken = [
        target for target in targets if "://" not in target and not (page.parent / target).exists()
    ]
    assert not broken


def test_the_readme_shows_the_version_that_the_demo_compares_with() -> None:
    lock = json.loads((ROOT / "manifests" / "locks" / "sample.lock.json").read_text())
    shown = (ROOT / "README.md").read_text(encoding="utf-8")
    for identity in ("recipe_id", "source_id", "content_id", "targets_id"):
        assert f"{identity.ljust(10)}  {lock[identity]}\n" in shown


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listing = (folder / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in folder.glob("0*.md")}
    assert pages
    assert pages == set(re.findall(r"\((0[^)]+\.md)\)", listing))
