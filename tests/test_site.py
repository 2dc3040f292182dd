"""``make docs``: the site is built without a warning, and every link and picture in it is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

import vocprep

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """The links of a page and the places in it that links may name."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            if name == "id" and value:
                self.places.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built by the command of the Makefile from the pages of this checkout."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("docs", "vocprep"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "mkdocs.yml", folder)
    program = str(Path(sys.executable).with_name("zensical"))
    command = next(
        line for line in (ROOT / "Makefile").read_text().splitlines() if "zensical" in line
    )
    words = command.split()[1:]
    done = subprocess.run(
        [program, *words], check=False, cwd=folder, capture_output=True, text=True, timeout=300
    )
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    assert done.returncode == 0, said
    return folder / "site"


def leads_nowhere(page: Path, link: str, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return False
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if parts.path.startswith("/") or not target.is_file():
        return True
    is_place = target in pages and parts.fragment != "" and not parts.fragment.startswith(":~:")
    return is_place and unquote(parts.fragment) not in pages[target].places


def test_every_link_and_picture_is_there(site: Path) -> None:
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 40
    broken = [
        f"{path.relative_to(site.resolve())}: {link}"
        for path, page in pages.items()
        for link in page.links
        if leads_nowhere(path, link, pages)
    ]
    assert broken == []


def test_every_page_is_in_the_navigation(site: Path) -> None:
    def listed(item: object) -> Iterator[str]:
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict | list):
            for each in item.values() if isinstance(item, dict) else item:
                yield from listed(each)

    named = {*listed(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])}
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    decisions = {
        name for name in pages if name.startswith("decisions/0")
    }  # their README lists them
    assert named == pages - decisions


def test_every_public_name_has_an_entry_with_its_first_sentence(site: Path) -> None:
    pages = [path.read_text(encoding="utf-8") for path in (site / "reference").glob("*.html")]
    places = set().union(*(re.findall(r'id="([^"]+)"', page) for page in pages))
    missing = [name for name in vocprep.__all__ if f"vocprep.{name}" not in places]
    assert missing == ["__version__"]


def test_doctests_are_shown_as_code(site: Path) -> None:
    page = (site / "reference" / "building.html").read_text(encoding="utf-8")
    assert '<span class="gp">' in page
    assert "&gt;&gt;&gt;" not in re.sub(r"<(pre|code)\b.*?</\1>", "", page, flags=re.DOTALL)


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    loads = re.compile(r'<(?:script|img|link|iframe)\b[^>]*?(?:src|href)="(?:https?:)?//[^"]+"')
    found = {hit for path in site.rglob("*.html") for hit in loads.findall(path.read_text("utf-8"))}
    assert found == set()
