"""Charts of reports: where marks stand, and that every value is there as text."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocprep.pages.report.charts import (
    Axes,
    Bar,
    Line,
    bars,
    heat_map,
    histogram,
    line_chart,
    ticks,
)

AXES = Axes(x="epoch", y="loss")


def texts(html: str) -> str:
    return re.sub(r"<[^>]+>", " ", html)


def test_bars_are_as_long_as_their_values() -> None:
    rows = [Bar(label="a", values=[50.0, 25.0]), Bar(label="b", values=[None, 100.0])]
    html = bars("Shares", ("train", "val"), rows)
    assert re.findall(r"left:([\d.]+)%;width:([\d.]+)%", html) == [
        ("0.00", "50.00"),
        ("0.00", "25.00"),
        ("0.00", "100.00"),
    ]
    assert all(word in texts(html) for word in ("train", "val", "50.0", "25.0", "100.0", "—"))


def test_bars_of_negative_values_begin_in_the_middle() -> None:
    rows = [Bar(label="a", values=[-2.0]), Bar(label="b", values=[1.0])]
    html = bars("Differences", ("B − A",), rows)
    assert re.findall(r"left:([\d.]+)%;width:([\d.]+)%", html) == [
        ("0.00", "50.00"),
        ("50.00", "25.00"),
    ]
    assert "−2.0" in html


def test_bars_beyond_those_shown_are_folded_on_the_same_scale() -> None:
    rows = [Bar(label=f"class {i}", values=[float(10 - i)]) for i in range(10)]
    html = bars("Classes", ("pixels",), rows, shown=4)
    shown, folded = html.split("<details>")
    assert (shown.count('<th scope="row">'), folded.count('<th scope="row">')) == (4, 6)
    assert "6 more" in folded
    assert "width:60.00%" in folded


@pytest.mark.parametrize("values", [[], [None], [0.0]])
def test_bars_without_values_are_drawn(values: list[float | None]) -> None:
    assert "nan" not in bars("Empty", ("n",), [Bar(label="a", values=[value]) for value in values])


def test_a_line_goes_through_its_points() -> None:
    html = line_chart("Loss", [Line(label="train", xs=[1, 2, 3], ys=[0.0, 5.0, 10.0])], AXES)
    assert 'd="M0.0 1000.0L500.0 500.0L1000.0 0.0"' in html
    assert 'role="img"' in html
    assert "Loss: loss by epoch" in html


def test_a_line_skips_what_is_not_known_and_the_table_says_so() -> None:
    lines = [
        Line(label="train", xs=[1, 2], ys=[1.0, None]),
        Line(label="val", xs=[2], ys=[0.5], dashed=True),
    ]
    html = line_chart("Loss", lines, AXES)
    assert "—" in texts(html)
    assert "0.5" in texts(html)
    assert "dashed" in html


def test_lines_of_one_point_and_of_none_are_drawn() -> None:
    assert "nan" not in line_chart("One", [Line(label="a", xs=[1], ys=[2.0])], AXES)
    assert "nan" not in line_chart("None", [Line(label="a", xs=[], ys=[])], AXES)


def test_columns_of_a_histogram_lie_side_by_side() -> None:
    html = histogram("Void", [0, 50, 100], [1, 4], Axes(x="void (%)", y="pictures"))
    found = re.findall(r'x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', html)
    assert [(float(x), float(y) + float(height)) for x, y, _, height in found] == [
        (0.0, 1000.0),
        (500.0, 1000.0),
    ]
    assert float(found[1][3]) == 4 * float(found[0][3])
    assert "50 to 100" in texts(html)


def test_a_heat_map_names_rows_columns_and_shares() -> None:
    shares = np.array([[0.9, 0.1, 0.0], [0.004, 0.5, 0.496]])
    html = heat_map("Confusion", shares, ["cat", "dog"], ["cat", "dog", "other"], "truth")
    assert re.findall(r"--o:([\d.]+)", html) == [
        "0.900", "0.100", "0.000", "0.004", "0.500", "0.496",
    ]  # fmt: skip
    assert re.findall(r"<td style[^>]*>([^<]*)</td>", html) == ["90", "10", "", "&lt;1", "50", "50"]
    assert "cat, dog: 10.00 %" in html


def test_labels_of_charts_are_escaped() -> None:
    hostile = "<script>\"'"
    html = (
        bars(hostile, (hostile,), [Bar(label=hostile, values=[1.0])])
        + line_chart(hostile, [Line(label=hostile, xs=[1], ys=[1])], Axes(x=hostile, y=hostile))
        + heat_map(hostile, np.ones((1, 1)), [hostile], [hostile], hostile)
        + histogram(hostile, [0, 1], [1], Axes(x=hostile, y=hostile))
    )
    assert "<script" not in html


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e6))
def test_ticks_enclose_their_range_in_few_round_steps(low: float, length: float) -> None:
    found = ticks(low, low + length)
    steps = np.diff(found)
    assert 2 <= len(found) <= 8
    assert found[0] <= low + 1e-6 * length
    assert found[-1] >= low + length - 1e-6 * length
    assert steps.max() == pytest.approx(steps.min(), rel=1e-6)
