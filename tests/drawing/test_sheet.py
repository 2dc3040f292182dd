"""Sheets of panels, their captions and legends, in any size and any script."""

from __future__ import annotations

import numpy as np
import pytest
from builders.images import opened
from numpy.typing import NDArray

from vocprep.drawing.fonts import has_glyphs, shortened, text_width
from vocprep.drawing.label_maps import HATCH_COLOUR
from vocprep.drawing.legend import LegendRow, legend_rows
from vocprep.drawing.palette import ClassStyle
from vocprep.drawing.png import png_bytes
from vocprep.drawing.sheet import (
    LARGE_SIDE,
    Panel,
    fitted,
    picture_sheet,
    reduced_image,
    reduced_values,
)

VOID = 255
NAMES = {
    0: "background",
    1: "a name that is far too long for the column of names in a legend",
    2: "вода и небо",
    3: "猫と犬",
    4: "عربي",
    5: "ελληνικά",
    6: "\u202ename",
    7: "हिन्दी",
}
STYLE = ClassStyle.of(NAMES, VOID, lambda key: NAMES.get(key, "void"))
RED = np.array([200, 30, 40], dtype=np.uint8)


def panel(height: int, width: int, caption: str = "truth") -> Panel:
    return Panel(caption=caption, pixels=np.full((height, width, 3), RED, dtype=np.uint8))


def of_colour(picture: NDArray[np.uint8], colour: NDArray[np.uint8]) -> int:
    return int((picture == colour).all(axis=-1).sum())


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (32, 32, (352, 352)),
        (224, 224, (448, 448)),
        (375, 500, (375, 500)),
        (1024, 700, (1024, 700)),
        (3001, 4000, (751, 1000)),
        (33, 4000, (9, 1000)),
        (1, 9000, (1, 1000)),
    ],
)
def test_panels_are_enlarged_by_whole_numbers_or_reduced(
    height: int, width: int, expected: tuple[int, int]
) -> None:
    picture = fitted(panel(height, width).pixels)
    assert (picture.height, picture.width) == expected
    assert max(picture.size) <= LARGE_SIDE
    assert of_colour(np.asarray(picture), RED) == picture.height * picture.width


@pytest.mark.parametrize("shape", [(32, 32), (375, 500), (1025, 3), (3001, 4000)])
def test_reduced_values_fit_the_reduced_image_and_are_not_mixed(shape: tuple[int, int]) -> None:
    values = np.arange(shape[0] * shape[1], dtype=np.int64).reshape(shape) % 251
    image = reduced_image(np.full((*shape, 3), RED, dtype=np.uint8))
    less = reduced_values(values)
    assert less.shape == image.shape[:2]
    assert max(less.shape) <= LARGE_SIDE
    assert np.isin(less, values).all()
    assert (image == RED).all()


@pytest.mark.parametrize(
    ("panels", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (3, 1, 3), (4, 2, 2), (5, 2, 3)]
)
def test_sheet_holds_every_panel_whole(panels: int, rows: int, columns: int) -> None:
    sheet = picture_sheet([panel(100, 200)] * panels)
    assert of_colour(np.asarray(sheet), RED) == panels * 200 * 400
    assert rows * 200 < sheet.height < rows * 240 + 20
    assert columns * 400 < sheet.width < columns * 420 + 20


def test_legend_shows_swatches_and_the_hatching_of_void() -> None:
    label_map = np.repeat(np.array([2, 5, VOID], dtype=np.uint16), 50)[np.newaxis]
    sheet = np.asarray(picture_sheet([panel(96, 96)], legend_rows(label_map, STYLE)))
    for class_id in (2, 5):
        assert of_colour(sheet, np.array(STYLE.colour(class_id))) >= 14 * 14
    assert of_colour(sheet, np.array(HATCH_COLOUR)) >= 40


def test_legend_of_two_label_maps_is_wider_and_has_headings_that_fit() -> None:
    label_map = np.zeros((32, 32), dtype=np.uint16)
    one = picture_sheet([panel(32, 32)], legend_rows(label_map, STYLE))
    rows = legend_rows([label_map, label_map], STYLE)
    two = picture_sheet([panel(32, 32)], rows, headings=("truth", "prediction"))
    longer = picture_sheet([panel(32, 32)], rows, headings=("truth", "prediction of the heads"))
    assert longer.width > two.width > one.width


def test_legend_takes_the_room_after_the_last_panel_where_it_fits() -> None:
    label_map = np.zeros((32, 32), dtype=np.uint16)
    few = legend_rows(label_map, STYLE)
    assert (
        picture_sheet([panel(300, 300)] * 5, few).size == picture_sheet([panel(300, 300)] * 5).size
    )
    sheet = np.asarray(picture_sheet([panel(300, 300)] * 5, few))
    assert of_colour(sheet[320:, 620:], np.array(STYLE.colour(0))) >= 14 * 14
    low = picture_sheet([panel(20, 360)] * 5, few)
    assert low.width > picture_sheet([panel(20, 360)] * 5).width


def test_many_rows_make_a_low_sheet_higher() -> None:
    label_map = np.arange(8, dtype=np.uint16)[np.newaxis]
    low = picture_sheet([panel(8, 800)])
    assert picture_sheet([panel(8, 800)], legend_rows(label_map, STYLE)).height > low.height + 100


def test_title_and_limits_are_drawn() -> None:
    plain = picture_sheet([panel(96, 96)])
    titled = picture_sheet([panel(96, 96)], title="2010_000002")
    assert titled.height > plain.height
    values = Panel(caption="confidence", pixels=panel(96, 96).pixels, limits=("0", "1"))
    assert len(picture_sheet([values]).getcolors(100_000)) > len(plain.getcolors(100_000)) + 50


@pytest.mark.parametrize("name", [*NAMES.values(), "a\nb", "\x00\x07", "😀", "\U0010ffff", ""])
def test_names_of_any_script_are_drawn_within_their_width(name: str) -> None:
    text = shortened(name, 14, 60)
    assert text_width(text, 14) <= 60
    row = LegendRow(id=1, name=name, colour=(1, 2, 3), pixels=(1,), percents=(100.0,))
    wide = picture_sheet([panel(32, 32, caption=name)], [row])
    assert wide.width < 800


def test_other_scripts_have_glyphs_without_fonts_of_the_system() -> None:
    assert all(map(has_glyphs, ("water", "вода", "ελληνικά", "عربي", "naïve Straße", "50 %")))
    assert not has_glyphs("\U0010ffff")
    # No font of Pillow's or matplotlib's has the letters of Devanagari, nor its marks alone.
    assert has_glyphs("\u0915") or not any(map(has_glyphs, "\u093f\u0928\u094d\u0926\u0940"))
    assert not has_glyphs("line\nbreak")


def test_what_no_font_has_is_a_question_mark() -> None:
    assert text_width("a\U0010ffffb", 14) == text_width("a?b", 14)


def test_shortened_text_keeps_its_beginning() -> None:
    assert shortened("tvmonitor", 14, 300) == "tvmonitor"
    cut = shortened("tvmonitor and more", 14, 90)
    assert cut.endswith("…")
    assert "tvmonitor and more".startswith(cut.removesuffix("…"))


def test_png_is_of_pictures_and_of_pixels() -> None:
    pixels = panel(4, 6).pixels
    np.testing.assert_array_equal(np.asarray(opened(png_bytes(pixels))), pixels)
    sheet = picture_sheet([panel(4, 6)])
    np.testing.assert_array_equal(np.asarray(opened(png_bytes(sheet))), np.asarray(sheet))
