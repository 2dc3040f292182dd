"""The list of pictures in a real browser: scrolling, filters, order, keys, the address."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, Request, expect

from vocprep.pages.viewer.web.server import Server

pytestmark = pytest.mark.slow


def asked(page: Page, name: str) -> list[dict[str, str]]:
    """The queries of all requests of one name from now on; the list grows."""
    queries: list[dict[str, str]] = []

    def see(request: Request) -> None:
        address = urlsplit(request.url)
        if address.path.endswith(f"/api/{name}"):
            queries.append({key: value[0] for key, value in parse_qs(address.query).items()})

    page.on("request", see)
    return queries


def ids(page: Page) -> list[str]:
    """The ids in sight, in order."""
    return page.locator(".tile .id").all_text_contents()


def test_a_long_list_is_loaded_where_it_is_looked_at(page: Page, long_viewer: Server) -> None:
    lists, images = asked(page, "pictures"), asked(page, "image")
    page.goto(long_viewer.url)
    grid = page.get_by_role("grid", name="Pictures")
    expect(page.locator(".count")).to_have_text("1,200 pictures")
    expect(page.locator("#tile-0 img.is-there")).to_be_visible()
    assert page.locator(".tile").count() < 100
    assert {query["offset"] for query in lists} == {"0"}

    grid.press("End")
    expect(page.locator("#tile-1199 img.is-there")).to_be_visible()
    expect(grid).to_have_attribute("aria-activedescendant", "tile-1199")
    expect(page.locator("#tile-0")).to_have_count(0)
    between = {f"im{number:05d}" for number in range(300, 900)}
    assert not between & {query["id"] for query in images}
    assert "600" not in {query["offset"] for query in lists}


def test_keys_open_a_picture_and_come_back_to_its_place(page: Page, long_viewer: Server) -> None:
    page.goto(long_viewer.url)
    grid = page.get_by_role("grid", name="Pictures")
    expect(page.locator("#tile-0 .id")).to_have_text("im00000")
    for key in (
        "PageDown",
        "ArrowDown",
        "ArrowRight",
        "ArrowUp",
        "ArrowLeft",
        "PageDown",
        "ArrowUp",
    ):
        grid.press(key)
    place = grid.get_attribute("aria-activedescendant")
    assert place is not None
    number = int(place.removeprefix("tile-"))
    assert number > 20
    expect(page.locator(f"#{place} .id")).to_have_text(f"im{number:05d}")
    scrolled = grid.evaluate("element => element.scrollTop")

    grid.press("Enter")
    expect(page.get_by_role("heading", level=2)).to_have_text(f"im{number:05d}")
    page.keyboard.press("j")
    expect(page.get_by_role("heading", level=2)).to_have_text(f"im{number + 1:05d}")
    page.keyboard.press("k")
    expect(page.get_by_role("heading", level=2)).to_have_text(f"im{number:05d}")
    page.keyboard.press("Escape")
    expect(grid).to_be_focused()
    expect(grid).to_have_attribute("aria-activedescendant", place)
    assert grid.evaluate("element => element.scrollTop") == scrolled

    page.go_back()
    expect(page.get_by_role("heading", level=2)).to_have_text(f"im{number:05d}")
    page.go_forward()
    expect(grid).to_be_visible()


def test_the_place_in_the_list_is_in_the_address(page: Page, long_viewer: Server) -> None:
    page.goto(f"{long_viewer.url}?at=700")
    expect(page.locator("#tile-700 img.is-there")).to_be_in_viewport()
    page.get_by_role("grid", name="Pictures").press("End")
    expect(page).to_have_url(re.compile(r"at=11\d\d"))


def test_filters_choose_pictures(page: Page, viewer: Server) -> None:
    page.goto(viewer.url)
    expect(page.locator(".count")).to_have_text("23 pictures")
    page.get_by_role("combobox", name="Split").select_option("val")
    expect(page.locator(".count")).to_have_text(re.compile(r"^\d pictures?$"))
    expect(page).to_have_url(re.compile(r"\?split=val$"))
    page.go_back()
    expect(page.locator(".count")).to_have_text("23 pictures")

    page.keyboard.press("/")
    page.keyboard.type("00001")
    expect(page.locator(".count")).to_have_text("10 pictures")
    assert ids(page) == [f"2010_00001{digit}" for digit in range(10)]
    page.get_by_label("Search ids").fill("")
    expect(page.locator(".count")).to_have_text("23 pictures")

    page.get_by_role("combobox", name="Status").select_option("quarantined")
    expect(page.locator(".count")).to_have_text("1 picture")
    expect(page.locator(".tile .frame")).to_contain_text("does not decode")


def test_classes_are_searched_by_name(page: Page, viewer: Server) -> None:
    page.goto(viewer.url)
    field = page.get_by_role("combobox", name="Class")
    field.fill("mount")
    option = page.get_by_role("option", name="mountain")
    expect(option.first).to_contain_text(re.compile(r"\d+ pictures?"))
    field.press("Enter")
    expect(page).to_have_url(re.compile(r"\?class=\d+$"))
    expect(page.locator(".count")).not_to_have_text("23 pictures")
    dots = page.locator(".tile .dots")
    expect(dots.first).to_contain_text("mountain")
    field.fill("")
    field.press("Enter")
    expect(page.locator(".count")).to_have_text("23 pictures")


def test_the_worst_pictures_come_first(page: Page, viewer: Server) -> None:
    page.goto(viewer.url)
    expect(page.locator(".run.is-ready")).to_have_count(2)
    page.get_by_role("combobox", name="Sort by").select_option("score:0")
    expect(page.locator(".tile .badge").first).to_have_text(re.compile(r"pixel accuracy \d"))
    texts = page.locator(".badge").all_text_contents()
    scores = [float(text.split()[-2]) for text in texts]
    assert scores == sorted(scores)
    assert len(set(scores)) > 5
    page.get_by_role("combobox", name="Sort by").select_option("difference:0:1")
    expect(page.locator(".tile .badge").first).to_contain_text("difference")
    texts = page.locator(".badge").all_text_contents()
    points = [abs(float(text.split()[-1].replace("\N{MINUS SIGN}", "-"))) for text in texts]
    assert points == sorted(points, reverse=True)
    assert points[0] > points[-1]
    page.get_by_role("combobox", name="Sort by").select_option("score:0")
    expect(page.locator(".tile .badge").first).to_contain_text(f" {scores[0]:.1f} %")
    page.get_by_role("button", name="sort descending").click()
    expect(page.locator(".tile .badge").first).to_contain_text(f" {scores[-1]:.1f} %")
