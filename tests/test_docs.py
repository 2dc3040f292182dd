"""What the docs say is what the code does."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from builders.console import blocks, without_blocks
from builders.heads import always_says, run_for
from builders.versions import Built

from vocprep.analysis.photographs import Photographs
from vocprep.cli.main import main
from vocprep.drawing.label_maps import paint_label_map

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("manifests/**/*.md")])


def test_the_command_line_reference_is_current() -> None:
    reference = runpy.run_path(str(ROOT / "docs" / "generate_cli.py"))["reference"]
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == reference(), (
        "run: python docs/generate_cli.py"
    )


def test_the_table_of_dependencies_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "release"))
    direct = runpy.run_path(str(ROOT / "release" / "dependencies.py"))["direct"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    page = (ROOT / "docs" / "dependencies.md").read_text("utf-8")
    rows = re.findall(r"^\| (\S+) \| ([\d.]+) \| .+ \| (.+) \|$", page, re.MULTILINE)
    assert rows == [(name, lowest, origins) for name, lowest, _, origins in direct(project)], (
        "run: python release/dependencies.py"
    )


def headings(page: Path) -> set[str]:
    """Return the places in a page that links may name, as pages in a repository have them."""
    lines = re.findall(r"^#+ (.+)$", without_blocks(page.read_text(encoding="utf-8")), re.MULTILINE)
    texts = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", line) for line in lines)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?", page.read_text(encoding="utf-8"))
    for target, place in [link for link in links if "://" not in link[0]]:
        path = page.parent / target if target else page
        assert path.exists(), target
        assert not place or path.suffix != ".md" or place in headings(path), f"{target}#{place}"


def typed(page: str) -> Iterator[list[str]]:
    """Yield the words of each line of blocks that is a vocprep command, and no row of a table."""
    for block in blocks(page):
        for line in re.sub(r" *\\\n *", " ", block.text).split("\n"):
            command = re.sub(r"\s+(?:# |&& ).*", "", line.removeprefix("$ "))
            if command.startswith("vocprep ") and not re.search(r"\S {2,}", command):
                yield shlex.split(command)[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_is_shown_parses(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for verb, *words in typed(text):
        with main.commands[verb].make_context(verb, words):
            pass
    for verb, more in re.findall(r"`vocprep ([a-z-]+)([^`]*)`", without_blocks(text)):
        options = re.findall(r"(?<!\S)--[a-z-]+", more)
        if options:  # of what the sentence leaves out, nothing is known
            known = {name for option in main.commands[verb].params for name in option.opts}
            assert {*options} <= known, f"vocprep {verb}{more}"


def test_the_readme_shows_the_version_that_the_demo_compares_with() -> None:
    lock = json.loads((ROOT / "manifests" / "locks" / "sample.lock.json").read_text())
    shown = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"`context460-crop224-resnet32-exact@{lock['content_id'][:12]}`" in shown


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listing = (folder / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in folder.glob("0*.md")}
    assert pages
    assert pages == set(re.findall(r"\((0[^)]+\.md)\)", listing))


def test_pictures_of_masks_have_a_row_of_what_each_run_says(
    crop_hdf5: Built, sample_tree: Path
) -> None:
    script = runpy.run_path(str(ROOT / "docs" / "draw_masks.py"))
    dataset = crop_hdf5.dataset
    photographs, records = Photographs.of(dataset, sample_tree), script["first"](dataset, 2)
    runs = {f"says {label}": run_for(dataset, always_says(label)) for label in (3, 9)}
    sheet = np.asarray(script["draw"](dataset, photographs, runs, records))
    side, step = script["SIDE"], script["LINE"] + script["SIDE"] + script["GAP"]
    assert sheet.shape == (4 * step, script["GAP"] + 2 * (side + script["GAP"]), 3)
    for column, record in enumerate(records):
        left = script["GAP"] + column * (side + script["GAP"])
        image = photographs.read(record.image_id, record.image_sha256)
        for row, label in ((2, 3), (3, 9)):
            painted = paint_label_map(
                np.full_like(record.label_map, label), dataset.label_space.style, image
            )
            top = row * step + script["LINE"]
            found = sheet[top : top + side, left : left + side].astype(float)
            np.testing.assert_allclose(found.mean((0, 1)), painted.mean((0, 1)), atol=2)
