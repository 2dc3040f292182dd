"""One picture in a real browser: layers, patches, similar ones, two runs, two versions."""

from __future__ import annotations

import re

import pytest
from builders.shown import Shown
from playwright.sync_api import Locator, Page, Route, expect

from vocprep.drawing.legend import legend_rows
from vocprep.heads.predict_image import predict_label_map
from vocprep.heads.runs.run import load_run
from vocprep.pages.viewer.web.server import Server
from vocprep.shards.reader import ShardDataset

pytestmark = pytest.mark.slow


def titles(page: Page) -> list[str]:
    """Of the panels, in order."""
    return page.locator(".panel figcaption > span").all_text_contents()


def point_at(panel: Locator, row: int, column: int, rows: int = 7, columns: int = 7) -> None:
    """Move the pointer to the middle of a patch."""
    box = panel.locator(".canvas").bounding_box()
    assert box is not None
    x, y = (column + 0.5) * box["width"] / columns, (row + 0.5) * box["height"] / rows
    panel.locator(".canvas").hover(position={"x": x, "y": y})


def legend(page: Page) -> list[list[str]]:
    """The cells of the rows of a picture's legend."""
    rows = page.locator(".legend tbody tr").all()
    return [row.locator("th, td").all_text_contents() for row in rows]


def legend_of_sheets(shown: Shown, image_id: str) -> list[list[str]]:
    """The legend of a picture as sheets have it, of the truth and of both predictions."""
    dataset = ShardDataset.open(shown.version)
    record = dataset.record(image_id)
    predictions = [
        predict_label_map(load_run(run), record.embeddings, record.grid).label_map
        for run in shown.runs
    ]
    rows = legend_rows([record.decode_label_map(), *predictions], dataset.label_space.style)
    return [[row.name, *row.shares] for row in rows]


def test_a_picture_shows_its_layers_and_patches(page: Page, viewer: Server, shown: Shown) -> None:
    page.goto(viewer.url)
    expect(page.locator(".run.is-ready")).to_have_count(2)
    page.locator("#tile-2 a").click()
    expect(page.get_by_role("heading", name="2010_000004")).to_be_visible()
    expect(page.locator(".panel .over.is-there")).to_have_count(4)
    assert titles(page) == ["Photo", "Truth", "Prediction 1", "Prediction 2"]
    assert legend(page) == legend_of_sheets(shown, "2010_000004")

    point_at(page.locator(".panel").nth(1), row=2, column=5)
    details = page.get_by_role("region", name="Patch", exact=True)
    expect(details).to_contain_text("Patch 19")
    expect(details).to_contain_text("row 3, column 6")
    expect(details.locator("table").nth(1).locator("tr")).to_have_count(4)
    expect(details).to_contain_text("Predicted by 2: second")
    expect(details).to_contain_text(re.compile(r"norm\s*\d+\.\d\d"))
    expect(page.locator(".cell.is-cursor")).to_have_count(4)

    page.mouse.move(0, 0)
    expect(details).to_contain_text("Point at a patch")


def test_a_click_finds_similar_patches(page: Page, viewer: Server) -> None:
    page.goto(f"{viewer.url}?id=2010_000004")
    expect(page.locator(".run.is-ready")).to_have_count(2)
    expect(page.locator(".panel")).to_have_count(4)
    point_at(page.locator(".panel").first, row=1, column=3)
    page.mouse.down()
    page.mouse.up()
    expect(page).to_have_url(re.compile("patch=10"))
    expect(page.locator(".panel").last.locator(".over.is-there")).to_be_visible()
    assert titles(page)[-1] == "Similarity"
    similar = page.get_by_role("region", name="Similar patches")
    expect(similar.get_by_role("link")).to_have_count(24)
    values = [float(text) for text in similar.locator("b").all_text_contents()]
    assert values == sorted(values, reverse=True)
    assert 0 < values[-1] <= 1

    found = similar.get_by_role("link").first
    label = found.get_attribute("title")
    assert label is not None
    image_id, patch = re.findall(r"(2010_\d+), patch (\d+)", label)[0]
    found.click()
    expect(page.get_by_role("heading", name=image_id)).to_be_visible()
    expect(page).to_have_url(re.compile(f"patch={patch}(&|$)"))
    page.go_back()
    expect(page.get_by_role("heading", name="2010_000004")).to_be_visible()
    expect(page.get_by_text("Similar to patch 10")).to_be_visible()
    page.keyboard.press("Escape")
    expect(similar).to_be_hidden()


def test_keys_walk_the_patches(page: Page, viewer: Server) -> None:
    page.goto(f"{viewer.url}?id=2010_000005")
    expect(page.get_by_role("application")).to_be_focused()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "End", "ArrowLeft"):
        page.keyboard.press(key)
    details = page.get_by_role("region", name="Patch", exact=True)
    expect(details).to_contain_text("row 3, column 6")
    expect(page.get_by_role("status").and_(page.locator("#status"))).to_contain_text(
        re.compile(r"^Row 3, column 6: .+ \d+ %")
    )
    page.keyboard.press("Enter")
    expect(page.get_by_text("Similar to patch 19")).to_be_visible()


def test_keys_choose_layers(page: Page, viewer: Server) -> None:
    page.goto(f"{viewer.url}?id=2010_000005")
    expect(page.locator(".panel")).to_have_count(4)
    page.keyboard.press("1")
    page.keyboard.press("5")
    expect(page.locator(".panel")).to_have_count(4)
    assert titles(page) == ["Truth", "Prediction 1", "Prediction 2", "Errors 1"]
    page.keyboard.press("m")
    expect(page.locator(".panel")).to_have_count(1)
    page.keyboard.press("9")
    expect(page.locator(".panel figcaption > span")).to_have_text("Components")
    over = page.locator(".panel .over")
    expect(over).to_have_css("opacity", "0.65")
    page.keyboard.press("o")
    expect(over).to_have_css("opacity", "0")
    page.keyboard.press("o")
    expect(over).to_have_css("opacity", "0.65")
    page.get_by_label("Opacity of the overlay").fill("30")
    expect(over).to_have_css("opacity", "0.3")
    expect(page.locator(".lines")).to_be_visible()
    page.keyboard.press("g")
    expect(page.locator(".lines")).to_be_hidden()

    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.get_by_label("Keys of one character").uncheck()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("heading", name="2010_000005")).to_be_visible()
    page.keyboard.press("g")
    expect(page.locator(".lines")).to_be_hidden()


def test_an_address_shows_the_same_again(page: Page, viewer: Server) -> None:
    address = (
        "?split=train&order=desc&id=2010_000007&patch=30&layers=truth,error:1&opacity=40&lines=0"
    )
    page.goto(viewer.url + address)
    expect(page.get_by_text("Similar to patch 30")).to_be_visible()
    expect(page.locator(".panel")).to_have_count(3)
    assert titles(page) == ["Truth", "Errors 2", "Similarity"]
    expect(page.locator(".panel .over").first).to_have_css("opacity", "0.4")
    expect(page.get_by_text(re.compile(r"^\d+ of \d+$"))).to_be_visible()
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_role("heading", name="2010_000006")).to_be_visible()
    page.get_by_role("link", name="List").click()
    expect(page.get_by_role("combobox", name="Split")).to_have_value("train")


def test_two_versions_side_by_side(page: Page, compared_viewer: Server) -> None:
    page.goto(compared_viewer.url)
    page.get_by_role("combobox", name="Sort by").select_option("changed:b")
    expect(page.locator(".tile .badge").first).to_have_text("changed targets")
    page.get_by_role("combobox", name="Show").select_option("truth,truth@b")
    expect(page.locator("#tile-0 img.is-there")).to_have_count(2)
    page.locator("#tile-0 a").click()
    expect(page.locator(".panel .over.is-there")).to_have_count(3)
    assert titles(page) == ["Photo A", "Truth A", "Truth B"]
    point_at(page.locator(".panel").first, row=3, column=3)
    details = page.get_by_role("region", name="Patch", exact=True)
    expect(details).to_contain_text("In version B: other")
    expect(details.locator("table")).to_have_count(2)
    page.goto(f"{compared_viewer.url}?v=b")
    expect(page.get_by_role("combobox", name="Version")).to_have_value("b")
    expect(page.locator("#tile-0 img.is-there")).to_be_visible()


def test_a_version_without_photographs_and_runs(page: Page, long_viewer: Server) -> None:
    page.goto(f"{long_viewer.url}?id=im00007")
    expect(page.locator(".panel .over.is-there")).to_have_count(2)
    assert titles(page) == ["Truth", "Components"]
    expect(page.get_by_role("link", name="Confusion")).to_have_count(0)
    point_at(page.locator(".panel").first, row=0, column=1, rows=1, columns=2)
    details = page.get_by_role("region", name="Patch", exact=True)
    expect(details).to_contain_text("aeroplane")
    expect(details).to_contain_text("100.0 %")


def test_what_is_being_computed_is_waited_for(
    page: Page, long_viewer: Server, page_faults: list[str]
) -> None:
    told = 0

    def tell_later(route: Route) -> None:
        nonlocal told
        told += 1
        if told > 1:
            route.continue_()
            return
        route.fulfill(status=202, json={"error": "the patches of train are being read, 5 of 9"})

    page.route("**/api/similar?*", tell_later)
    page.goto(f"{long_viewer.url}?id=im00007&patch=0")
    expect(page.get_by_text("the patches of train are being read, 5 of 9")).to_be_visible()
    expect(page.get_by_role("region", name="Similar patches").get_by_role("link")).to_have_count(24)
    assert page_faults == []


def test_faults_are_told_in_words(page: Page, long_viewer: Server, page_faults: list[str]) -> None:
    page.goto(f"{long_viewer.url}?id=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E")
    expect(page.locator(".picture .message")).to_contain_text("lists no such picture")
    expect(page.get_by_role("heading", name="<img src=x onerror=alert(1)>")).to_be_visible()
    page.goto(f"{long_viewer.url}?class=59999")
    expect(page.locator(".pictures .message")).to_have_text("No picture fits these filters.")
    aborted = []

    def abort(route: Route) -> None:
        aborted.append(route)
        route.abort()

    page.route("**/api/pictures?*", abort)
    page.get_by_role("combobox", name="Sort by").select_option("size")
    expect(page.locator(".pictures .message")).to_contain_text("is `vocprep view` still running?")
    page.unroute("**/api/pictures?*")
    page.get_by_role("button", name="Try again").click()
    assert len(aborted) == 1
    expect(page.locator(".pictures .message")).to_have_text("No picture fits these filters.")
    assert [fault for fault in page_faults if "Failed to load resource" not in fault] == []
    page_faults.clear()


def test_small_shares_and_differences_are_told_from_none(page: Page, viewer: Server) -> None:
    page.goto(viewer.url)
    texts, points = page.evaluate(
        """async (url) => {
          const { legendRows } = await import(`${url}static/picture/legend.js`);
          const { difference } = await import(`${url}static/numbers.js`);
          const truth = [{ id: 1, pixels: 49999, percent: 99.998 }];
          truth.push({ id: 2, pixels: 1, percent: 0.002 });
          const columns = [truth, [{ id: 1, pixels: 50000, percent: 100 }]];
          const rows = legendRows(columns, [0], new Map());
          return [rows.map((row) => row.texts), [0.0123, 0, -0.0004, -0.25].map(difference)];
        }""",
        viewer.url,
    )
    assert texts == [["100.0", "100.0"], ["<0.1", "-"]]
    assert points == ["+1.2", "0.0", "0.0", "−25.0"]
