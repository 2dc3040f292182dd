"""Geometry: bad options are refused, and each choice has a name of its own."""

from __future__ import annotations

import pytest

from vocprep.errors import UsageError
from vocprep.geometry import Geometry


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"geometry": "stretch"}, "geometry 'stretch': expected one of crop, squash, native"),
        ({"geometry": "native", "edge": "wrap"}, "edge 'wrap': expected one of drop, pad"),
        ({"geometry": "crop", "edge": "pad"}, "'native' only, found 'crop'"),
        ({"geometry": "squash", "edge": "pad"}, "'native' only, found 'squash'"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        Geometry(**options)  # type: ignore[arg-type]


def test_short_names_differ() -> None:
    geometries = (
        Geometry(),
        Geometry(geometry="squash"),
        Geometry(geometry="native"),
        Geometry(geometry="native", edge="pad"),
    )
    names = [geometry.short_name for geometry in geometries]
    assert names == ["crop224", "squash224", "native", "native-pad"]
