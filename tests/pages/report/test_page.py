"""The skeleton of reports: what is escaped, what a browser may do, tables and pictures."""

from __future__ import annotations

import base64
import io
import re

import jinja2
import numpy as np
import pytest
from builders.html import Elements
from markupsafe import Markup
from PIL import Image

from vocprep.pages.report.page import Page, Picture, Section, cell, name, section, table

HOSTILE = "<script>alert(1)</script>\"'&\u202e" + "x" * 200


def make_page(title: str = "Title", *sections: Section) -> Page:
    made = sections or (Section(id="one", heading="One", html=Markup("<p>text</p>")),)
    return Page(title=title, lead="lead", sections=made)


def test_a_page_allows_no_script_and_no_request() -> None:
    page = Elements(make_page().render())
    metas = {meta.get("http-equiv"): meta.get("content") for meta in page.all("meta")}
    policy = dict(part.split(maxsplit=1) for part in metas["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["img-src"] == "data:"
    assert "script-src" not in policy
    assert not page.all("script")
    assert not [link for link in page.all("link") if not (link["href"] or "").startswith("data:")]


def test_a_page_leads_to_each_section() -> None:
    html = make_page(
        "T", *(Section(id=f"s{i}", heading=f"Heading {i}", html=Markup("")) for i in range(3))
    ).render()
    page = Elements(html)
    anchors = [link["href"] for link in page.all("a")]
    ids = {attributes["id"] for _, attributes in page.found if "id" in attributes}
    assert anchors == ["#main", "#s0", "#s1", "#s2"]
    assert {anchor.removeprefix("#") for anchor in anchors if anchor} <= ids


def test_hostile_texts_stay_text() -> None:
    shown = table("Caption " + HOSTILE, ("name", HOSTILE), [(HOSTILE, 1)])
    html = make_page(HOSTILE, Section(id="a", heading=HOSTILE, html=shown)).render()
    page = Elements(html)
    assert not page.all("script")
    assert "\u202e" not in html
    assert "<script>alert(1)</script>" in page.text
    assert {
        name for _, attributes in page.found for name in attributes if name[:2] == "on"
    } == set()
    assert "\u202e" not in name(HOSTILE)


def test_a_value_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        section("a", "A", "plot.html")


def test_the_same_sections_give_the_same_text() -> None:
    assert make_page().render() == make_page().render()


def test_the_style_sheet_cannot_end_its_element() -> None:
    html = make_page().render()
    style = html.split("<style>")[1].split("</style>")[0]
    assert "<" not in style
    assert "url(" not in style
    assert "@import" not in style


def test_cells_show_numbers_as_people_write_them() -> None:
    assert [str(cell(value)) for value in (1234, 1234.56, None, True)] == [
        "1,234",
        "1,234.6",
        "—",
        "yes",
    ]


def test_a_table_sets_numbers_to_the_right() -> None:
    found = Elements(table("c", ("split", "n"), [("train", 1), ("val", None)]))
    assert [cell.get("class") for cell in found.all("td")] == ["number", "number"]
    assert [cell.get("scope") for cell in found.all("th")] == ["col", "col", "row", "row"]


@pytest.mark.parametrize("colours", [2, 256, 257])
def test_few_colours_are_kept_exactly(colours: int) -> None:
    rng = np.random.default_rng(0)
    chosen = rng.choice(1 << 24, colours, replace=False)
    values = np.resize(chosen, (40, 50))
    pixels = np.stack([values >> 16, values >> 8 & 255, values & 255], axis=-1).astype(np.uint8)
    picture = Picture.of(pixels, "noise", scale=2)
    found = decoded(picture)
    assert (picture.width, picture.height, picture.pixelated) == (100, 80, True)
    assert found.shape == pixels.shape
    if colours <= 256:
        np.testing.assert_array_equal(found, pixels)


def test_photographs_become_jpeg() -> None:
    ramp = np.add.outer(np.arange(200), np.arange(200)) % 256
    noise = np.random.default_rng(0).integers(0, 30, (200, 200, 3))
    pixels = np.clip(ramp[..., None] + noise, 0, 255).astype(np.uint8)
    assert Picture.of(pixels, "a photograph").uri.startswith("data:image/jpeg;base64,")
    assert abs(decoded(Picture.of(pixels, "a")).astype(int) - pixels).mean() < 15


def decoded(picture: Picture) -> np.ndarray:
    kind, data = re.fullmatch(r"data:image/(\w+);base64,(.*)", picture.uri).groups()  # type: ignore[union-attr]
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (image.format or "").lower() == kind
    return np.asarray(image.convert("RGB"))
