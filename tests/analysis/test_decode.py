"""``decode``: label maps, statistics, chart and overlays of a dataset."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from builders.versions import JPEGS
from PIL import Image

from vocprep.analysis.decode import DecodeOptions, decode
from vocprep.errors import ImageDecodeError, LabelDecodeError, UsageError
from vocprep.labels.export import STATISTICS_FILE
from vocprep.labels.label_space import load_label_space


def test_decode_writes_what_it_returns(
    sample_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = DecodeOptions(splits=("val",), schema="context59", chart=tmp_path / "chart.png")
    found = decode(
        "pascal-context", data_dir=str(sample_tree), out=str(tmp_path / "out"), options=options
    )
    assert found.to_json() == json.loads((tmp_path / "out" / STATISTICS_FILE).read_text())
    assert (found.images, found.space.name) == (2, "context59")
    with Image.open(tmp_path / "chart.png") as chart:
        chart.load()
    monkeypatch.setenv("VOCPREP_DATA_DIR", str(sample_tree))
    assert decode("pascal-context", out=tmp_path / "all").images == 12
    with pytest.raises(UsageError, match="workers 0: expected 1 or more"):
        DecodeOptions(workers=0)


def test_a_chart_under_the_name_of_another_format_is_refused() -> None:
    with pytest.raises(UsageError, match=r"expected a PNG file's name; use a/chart\.png$"):
        DecodeOptions(chart=Path("a/chart.jpg"))
    assert DecodeOptions(chart=Path("a/chart.PNG")).chart == Path("a/chart.PNG")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_overlays_are_of_images_spread_over_the_dataset(sample_tree: Path, tmp_path: Path) -> None:
    options = DecodeOptions(overlays=tmp_path / "pictures", overlay_count=3)
    decode("pascal-context", data_dir=sample_tree, out=tmp_path / "out", options=options)
    lists = (sample_tree / JPEGS.parent / "ImageSets/Main").glob("*.txt")
    ids = sorted({line for path in lists for line in path.read_text().split()})
    chosen = [ids[0], ids[round((len(ids) - 1) / 2)], ids[-1]]
    assert names_in(tmp_path / "pictures") == sorted(f"{key}.overlay.png" for key in chosen)
    assert len(names_in(tmp_path / "out")) == len(ids) + 1
    with Image.open(tmp_path / "pictures" / f"{chosen[0]}.overlay.png") as sheet:
        drawn = np.asarray(sheet)
    with Image.open(tmp_path / "out" / f"{chosen[0]}.png") as picture:
        largest = np.bincount(np.asarray(picture).ravel())[1:].argmax() + 1
    swatch = np.array(load_label_space("context460").style.colour(int(largest)))
    assert (drawn == swatch).all(axis=-1).sum() >= 14 * 14


def test_more_overlays_than_images_are_all_of_them(sample_tree: Path, tmp_path: Path) -> None:
    options = DecodeOptions(overlays=tmp_path / "pictures", overlay_count=50, splits=("val",))
    decode("pascal-context", data_dir=sample_tree, out=tmp_path / "out", options=options)
    assert len(names_in(tmp_path / "pictures")) == 2


@pytest.mark.parametrize("place", ["out", "out/pictures"])
def test_overlays_in_the_folder_of_the_label_maps_are_refused(
    place: str, sample_tree: Path, tmp_path: Path
) -> None:
    options = DecodeOptions(overlays=tmp_path / place)
    with pytest.raises(UsageError, match="expected another folder than that of the label maps"):
        decode("pascal-context", data_dir=sample_tree, out=tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()


def test_images_that_do_not_fit_are_named(tree: Path, tmp_path: Path) -> None:
    options = DecodeOptions(overlays=tmp_path / "pictures", splits=("val",))
    path = sorted((tree / JPEGS).iterdir())[1]
    Image.new("RGB", (40, 33)).save(path)
    with pytest.raises(LabelDecodeError, match=rf"expected 40×33 as its picture {path}; bring"):
        decode("pascal-context", data_dir=tree, out=tmp_path / "out", options=options)
    path.write_bytes(b"")
    with pytest.raises(ImageDecodeError, match=str(path)):
        decode("pascal-context", data_dir=tree, out=tmp_path / "out", options=options)
