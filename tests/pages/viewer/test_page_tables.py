"""Class table, confusion matrix, and what names and other sites cannot do, in a real browser."""

from __future__ import annotations

import http.client
import re

import pytest
from builders.shown import MARKUP
from playwright.sync_api import Page, expect

from vocprep.pages.viewer.web.server import Server

pytestmark = pytest.mark.slow


def column(page: Page, number: int) -> list[str]:
    """The texts of a column of the class table."""
    return page.locator(
        f"table.data:not(.ladder) tbody tr > :nth-child({number})"
    ).all_text_contents()


def test_classes_are_sorted_and_lead_to_their_pictures(page: Page, viewer: Server) -> None:
    page.goto(f"{viewer.url}?view=classes&split=train")
    expect(page.locator(".run.is-ready")).to_have_count(2)
    expect(page.locator("table.ladder")).to_have_count(2)
    ladder = page.locator("table.ladder").first
    assert ladder.locator("thead th").all_inner_texts()[1:] == [
        "mIoU present",
        "mIoU ≥1 %",
        "Pixel accuracy",
        "IoU 3 px",
        "IoU 8 px",
        "Mask IoU",
        "Own mask",
    ]
    expect(ladder.locator("tbody tr").last).to_contain_text("everywhere (majority of train)")
    pixels = [int(text.replace(",", "")) for text in column(page, 2)]
    assert pixels == sorted(pixels, reverse=True)
    assert pixels[0] > 0
    page.get_by_role("button", name="IoU 1", exact=True).click()
    head = page.get_by_role("columnheader", name="IoU 1")
    expect(head).to_have_attribute("aria-sort", "descending")
    known = [float(text.rstrip(" %")) for text in column(page, 4) if text[0].isdigit()]
    assert known == sorted(known, reverse=True)
    page.get_by_role("button", name="IoU 1").click()
    expect(head).to_have_attribute("aria-sort", "ascending")
    page.get_by_role("button", name="Class").click()
    link = page.get_by_role("link", name="mountain", exact=True)
    link.click()
    expect(page).to_have_url(re.compile(r"class=\d+"))
    expect(page.get_by_role("combobox", name="Class")).to_have_value("mountain")


def test_a_cell_of_the_matrix_opens_its_patches(page: Page, viewer: Server) -> None:
    page.goto(f"{viewer.url}?view=confusion&split=train")
    expect(page.locator(".run.is-ready")).to_have_count(2)
    cell = page.locator(".matrix td.is-wrong a").first
    said = cell.get_attribute("title")
    assert said is not None
    truth, predicted = re.findall(r"(.+) predicted as (.+): ", said)[0]
    cell.click()
    expect(page.get_by_text(f"{truth} taken for {predicted}")).to_be_visible()
    patches = page.get_by_role("region", name="Patches of a cell")
    expect(patches.get_by_role("link").first).to_be_visible()
    expect(page.locator(".matrix td.is-chosen")).to_have_count(1)
    patches.get_by_role("link").first.click()
    expect(page.get_by_role("region", name="Similar patches")).to_be_visible()
    page.get_by_label("Layers").get_by_role("button", name="Prediction 1").wait_for()
    page.go_back()
    expect(page.get_by_text(f"{truth} taken for {predicted}")).to_be_visible()


def test_names_are_text(page: Page, viewer: Server) -> None:
    page.goto(f"{viewer.url}?sort=size")
    expect(page.locator(".version h1")).to_have_text(f"v {MARKUP}")
    expect(page.get_by_text(MARKUP).nth(1)).to_be_visible()
    page.get_by_role("combobox", name="Class").fill("onerror")
    expect(page.get_by_role("option", name=MARKUP)).to_be_visible()
    page.goto(f"{viewer.url}?view=classes")
    expect(page.get_by_role("link", name=MARKUP)).to_be_visible()
    expect(page.locator("img[src=x]")).to_have_count(0)
    expect(page).to_have_title(re.compile("vocprep view$"))


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/wrong/", {}),
        ("/wrong/api/state", {}),
        ("/", {}),
        ("{token}api/state", {"Host": "example.org"}),
        ("{token}", {"Host": "127.0.0.1.example.org:80"}),
        ("{token}api/state", {"Origin": "http://example.org"}),
    ],
)
def test_strangers_are_refused(viewer: Server, path: str, headers: dict[str, str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=10)
    connection.request("GET", path.format(token=f"/{viewer.token}/"), headers=headers)
    answer = connection.getresponse()
    assert answer.status == 403
    assert answer.read() == b""
    connection.close()


def test_a_page_of_another_site_gets_nothing(
    page: Page, viewer: Server, page_faults: list[str]
) -> None:
    page.set_content(f"<iframe src='{viewer.url}'></iframe><img src='{viewer.url}static/icon.svg'>")
    read = f"fetch('{viewer.url}api/state').then(() => 'read', () => 'refused')"
    assert page.evaluate(read) == "refused"
    assert page.locator("img").evaluate("image => image.naturalWidth") == 0
    page_faults.clear()
