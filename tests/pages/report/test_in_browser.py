"""Reports in a real browser: hostile names, a phone, a dark room, a printer, a keyboard."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from builders.records import record_of
from builders.versions import Built, write_splits
from playwright.sync_api import Page

import vocprep
from vocprep.labels.label_space import LabelSpace
from vocprep.pages.report.charts import heat_map
from vocprep.pages.report.options import ReportOptions
from vocprep.pages.report.page import Page as ReportPage
from vocprep.pages.report.page import Section, table
from vocprep.shards.record import Record

pytestmark = pytest.mark.slow

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"' onload=alert(1) x='",
    "</style></title><b>",
    "\u202egnp.exe",
    "{{ 7 * 7 }}",
    "x" * 200,
)
SPACE = LabelSpace.of_classes(name="hostile", void=255, names=dict(enumerate(HOSTILE, start=1)))


def records(split: str, seed: int) -> list[Record]:
    """Records whose ids and labels are hostile; two of them are in both splits."""
    ids = [f"{name[:150]}{'' if index < 2 else split}" for index, name in enumerate(HOSTILE)]
    found = []
    for index, image_id in enumerate(ids):
        blocks = np.random.default_rng([seed, index]).integers(0, len(HOSTILE) + 1, (8, 12))
        label_map = np.kron(np.where(blocks == 0, 255, blocks), np.ones((8, 8), dtype=int))
        found.append(record_of(image_id, label_map.astype(np.uint16), void=255, split=split))
    return found


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, crop_hdf5: Built, sample_tree: Path) -> Path:
    """A page about a hostile version, one about two of them, one with photographs."""
    folder = tmp_path_factory.mktemp("reports")
    versions = [
        write_splits(
            folder / str(seed),
            {"train": records("train", seed), "val": records("val", seed)[2:]},
            space=SPACE,
        )
        for seed in (0, 1)
    ]
    vocprep.report(versions[0], folder / "version.html")
    vocprep.report(versions, folder / "versions.html")
    options = ReportOptions(data_dir=sample_tree, pictures=2)
    vocprep.report(crop_hdf5.path, folder / "photographs.html", options)
    return folder


NAMES = ("version", "versions", "photographs")


@pytest.mark.parametrize("name", NAMES)
def test_a_page_fits_a_phone_with_all_of_it_unfolded(name: str, reports: Path, page: Page) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    page.goto((reports / f"{name}.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    width, room = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert width <= room == 400
    pictures = page.evaluate("[...document.images].map(each => each.complete && each.naturalWidth)")
    assert len(pictures) > 3
    assert all(pictures)


def test_names_of_rows_are_broken_between_words_on_a_phone(page: Page) -> None:
    names = ["background", "pottedplant", "sidewalk", "everywhere (majority of train)"]
    shares = np.full((len(names), 20), 0.05)
    matrix = heat_map("shares", shares, names, [str(number) for number in range(20)], "a \\ b")
    rows = [(name, *range(10_000, 10_009)) for name in names]
    html = matrix + table("numbers", [f"long head {number}" for number in range(10)], rows)
    sections = (Section(id="tables", heading="Tables", html=html),)
    page.set_viewport_size({"width": 400, "height": 800})
    page.set_content(ReportPage(title="Tables", lead="", sections=sections).render())
    lines = page.evaluate(
        """() => [...document.querySelectorAll('tbody th bdi')].map((name) => {
          const range = document.createRange();
          range.setStart(name.firstChild, 0);
          range.setEnd(name.firstChild, name.textContent.match(/^\\S+/)[0].length);
          return new Set([...range.getClientRects()].map((box) => box.top)).size;
        })"""
    )
    assert lines == [1] * 2 * len(names)


def test_hostile_names_are_read_as_they_are(reports: Path, page: Page) -> None:
    page.goto((reports / "version.html").as_uri())
    shown = page.locator("#classes").inner_text()
    for name in HOSTILE:
        assert name.replace("\u202e", "\\u202e") in shown
    assert page.locator("script, b, [onerror], [onload]").count() == 0
    assert "hostile" in page.locator("header").inner_text()


def test_scripts_that_got_in_would_not_run(
    reports: Path, page: Page, page_faults: list[str]
) -> None:
    page.goto((reports / "version.html").as_uri())
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            const image = document.createElement("img");
            image.src = "http://127.0.0.1:9/x.png";
            document.body.append(image);
        }"""
    )
    assert page.evaluate("window.ran") is None
    assert any("script" in fault for fault in page_faults)
    page_faults.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_their_ground(scheme: str, reports: Path, page: Page) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto((reports / "versions.html").as_uri())
    ground = luminance(style(page, "body", "backgroundColor"))
    assert (ground > 0.5) == (scheme == "light")
    for selector in ("h1", "p", "nav a", ".lead", "summary", "caption", "th", "td", ".x-title"):
        text = luminance(style(page, selector, "color"))
        lighter, darker = max(text, ground), min(text, ground)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, selector


def test_a_dark_page_is_printed_on_white(reports: Path, page: Page) -> None:
    page.emulate_media(media="print", color_scheme="dark")
    page.goto((reports / "version.html").as_uri())
    assert luminance(style(page, "body", "backgroundColor")) == pytest.approx(1)
    assert not page.locator("nav").is_visible()
    assert page.locator("#identity").is_visible()
    pages = len(re.findall(rb"/Type\s*/Page\b", page.pdf()))
    assert 2 <= pages <= 30


def test_the_keyboard_reaches_every_section(reports: Path, page: Page) -> None:
    page.goto((reports / "version.html").as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.goto((reports / "version.html").as_uri())
    headings = page.locator("section > h2").all_inner_texts()
    for heading in headings:
        page.keyboard.press("Tab")
        while page.evaluate("document.activeElement.textContent") == "Skip to the content":
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == heading
    page.keyboard.press("Enter")
    assert page.url.endswith("#identity")


def style(page: Page, selector: str, field: str) -> str:
    script = "(element, field) => getComputedStyle(element)[field]"
    return str(page.locator(selector).first.evaluate(script, field))


def luminance(colour: str) -> float:
    """Relative luminance of a CSS colour, as WCAG 2 defines it."""
    channels = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
