"""Every picture and label map is decoded, and what is wrong is named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders.jpeg import exif_of
from builders.progress import RecordedProgress
from PIL import Image
from scipy.io import savemat

from vocprep.checks import data_content
from vocprep.checks.data_content import datasets_in, verify_data_content
from vocprep.checks.report import Report
from vocprep.checks.verify import verify
from vocprep.errors import DataDirError
from vocprep.labels.decode import decode_label_map
from vocprep.labels.statistics import label_areas
from vocprep.manifests import DatasetManifest, load_dataset
from vocprep.options import VerifyOptions
from vocprep.progress import NO_PROGRESS
from vocprep.synthetic.dataset import MARKER
from vocprep.synthetic.dataset import sample as make_sample

VOC = Path("VOCdevkit/VOC2010")
IMAGES = 8
FIRST = "2010_000001"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "data"
    make_sample(folder, images=IMAGES)
    return folder


@pytest.fixture
def data(sample: Path, tmp_path: Path) -> Path:
    shutil.copytree(sample, tmp_path / "data")
    return tmp_path / "data"


def context() -> DatasetManifest:
    return load_dataset("pascal-context")


def check(data: Path, workers: int = 1, **options: bool) -> Report:
    return verify_data_content(data, [context()], workers, NO_PROGRESS, **options)


def only_difference(report: Report) -> str:
    assert len(report.differences) == 1, report.differences
    item = report.differences[0]
    return f"{item.state} {item.path} {item.detail}"


def test_the_sample_is_clean_under_every_dataset_it_fits(data: Path):
    datasets = datasets_in(data)
    assert [item.name for item in datasets] == ["pascal-context", "voc2010"]
    report = verify_data_content(data, datasets, 1, NO_PROGRESS)
    assert report.ok, report.differences
    assert report.matching == 3 * IMAGES


def truncate(data: Path) -> Path:
    path = data / VOC / f"JPEGImages/{FIRST}.jpg"
    path.write_bytes(path.read_bytes()[:-3000])
    return path


def no_jpeg(data: Path) -> Path:
    path = data / VOC / f"JPEGImages/{FIRST}.jpg"
    path.write_bytes(b"<html>")
    return path


def another_size(data: Path) -> Path:
    path = data / "trainval" / f"{FIRST}.mat"
    savemat(str(path), {"LabelMap": np.full((30, 40), 2, np.uint16)}, do_compression=True)
    return path


def outside_the_schema(data: Path) -> Path:
    path = data / "trainval" / f"{FIRST}.mat"
    label_map = decode_label_map(path.read_bytes(), path)
    label_map = label_map.copy()
    label_map[5, 7] = 460
    savemat(str(path), {"LabelMap": label_map}, do_compression=True)
    return path


def no_mat(data: Path) -> Path:
    path = data / "trainval" / f"{FIRST}.mat"
    path.write_bytes(path.read_bytes()[:200])
    return path


def annotation_of_another_size(data: Path) -> Path:
    path = data / VOC / f"Annotations/{FIRST}.xml"
    path.parent.mkdir()
    path.write_text("<annotation><size><width>7</width><height> 5</height></size></annotation>")
    return data / VOC / f"JPEGImages/{FIRST}.jpg"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (truncate, "does not decode"),
        (no_jpeg, "a web page, where a JPEG picture is expected"),
        (another_size, "pixels, found 40×30 pixels"),
        (outside_the_schema, "label id 460 at row 5, column 7 is outside schema context460"),
        (no_mat, "label map"),
        (annotation_of_another_size, f"expected 7×5 pixels as {FIRST}.xml says"),
    ],
)
def test_a_spoilt_file_is_named_with_what_is_wrong(
    data: Path, spoil: Callable[[Path], Path], said: str
):
    path = spoil(data)
    report = check(data)
    text = only_difference(report)
    assert text.startswith(f"changed {path.relative_to(data)} ")
    assert said in text
    assert report.matching == 2 * IMAGES - 1


def test_pictures_with_an_orientation_are_named_and_no_difference(data: Path):
    for name in (FIRST, "2010_000003"):
        path = data / VOC / f"JPEGImages/{name}.jpg"
        with Image.open(path) as picture:
            picture.save(path, "JPEG", exif=exif_of(3))
    for workers in (1, 2):
        report = check(data, workers)
        assert report.ok
        (note,) = report.notes
        assert f"state an orientation: 2 ({FIRST}, 2010_000003); datasets take the stored" in note


def test_masks_of_0_and_255_are_told_what_they_hold(data: Path):
    for path in (data / VOC / "SegmentationClass").iterdir():
        with Image.open(path) as classes:
            ids = np.where(np.asarray(classes) == 0, 0, 255).astype(np.uint8)
        Image.fromarray(ids).save(path)
    result = verify(data, VerifyOptions(level="content", datasets=("voc2010",), workers=1))
    assert result.ok
    (note,) = result.notes
    assert "hold one class only in label space voc21: found 0 (background) in " in note
    assert "if 255 marks a class in these masks" in note
    assert result.to_json()["notes"] == [note]


def test_an_annotation_that_agrees_is_fine(data: Path):
    with Image.open(data / VOC / f"JPEGImages/{FIRST}.jpg") as picture:
        width, height = picture.size
    path = data / VOC / f"Annotations/{FIRST}.xml"
    path.parent.mkdir()
    path.write_text(f"<size><width>{width}</width><height>{height}</height></size>")
    assert check(data).ok
    path.write_text("<annotation>states no size</annotation>")
    assert check(data).ok
    digits = "9" * 5000
    path.write_text(f"<size><width>{digits}</width><height>{digits}</height></size>")
    assert check(data).ok
    path.unlink()
    os.mkfifo(path)
    assert check(data).ok


def test_a_palette_png_is_checked_like_a_mat(data: Path):
    path = data / VOC / f"SegmentationClass/{FIRST}.png"
    with Image.open(path) as classes:
        classes.crop((0, 0, 20, 10)).save(path)
    report = verify_data_content(data, [load_dataset("voc2010")], 1, NO_PROGRESS)
    assert "found 20×10 pixels" in only_difference(report)


def test_listed_files_that_are_not_there_are_missing_unless_partial(data: Path):
    (data / VOC / f"JPEGImages/{FIRST}.jpg").unlink()
    (data / f"trainval/{FIRST}.mat").unlink()
    report = check(data)
    assert [(item.state, item.path) for item in report.differences] == [
        ("missing", f"{VOC}/JPEGImages/{FIRST}.jpg"),
        ("missing", f"trainval/{FIRST}.mat"),
    ]
    partial = check(data, partial=True)
    assert partial.ok
    assert partial.allowed_missing == 2


def test_what_lies_in_the_place_of_a_listed_file_is_named(data: Path):
    path = data / VOC / f"JPEGImages/{FIRST}.jpg"
    path.rename(path.with_suffix(".gif"))
    found = {item.state: item.detail for item in check(data).differences}
    assert f"found {FIRST}.gif there: convert it to one of .jpg" in found["missing"]


@pytest.mark.parametrize("name", ["JPEGImages/._{}.jpg", "../../trainval/._{}.mat"])
def test_files_that_macos_leaves_are_passed_over_as_in_builds(data: Path, name: str):
    (data / VOC / name.format(FIRST)).write_bytes(b"\0\5\x16\7")
    assert check(data).ok


@pytest.mark.parametrize("folder", [f"{VOC}/JPEGImages", "trainval"])
def test_a_folder_that_cannot_be_read_is_no_missing_files(data: Path, folder: str):
    shutil.rmtree(data / folder)
    (data / folder).symlink_to(Path(folder).name)
    with pytest.raises(DataDirError, match=rf"{folder}: cannot be read: Too many levels"):
        check(data, partial=True)


def test_a_label_map_without_its_picture_is_a_difference(data: Path):
    (data / VOC / f"JPEGImages/{FIRST}.jpg").unlink()
    report = check(data, partial=True)
    assert "expected an image of the same name" in only_difference(report)


def test_a_picture_without_a_label_map_is_fine_when_no_split_lists_it(data: Path):
    folder = data / VOC / "JPEGImages"
    shutil.copy(folder / f"{FIRST}.jpg", folder / "2010_999999.jpg")
    report = check(data)
    assert report.ok
    assert report.matching == 2 * IMAGES + 1


def log_areas(data: Path, monkeypatch: pytest.MonkeyPatch, change: int = 0) -> None:
    """Make the data dir an official one, whose authors logged these areas."""
    (data / MARKER).unlink()
    areas = {}
    for path in sorted((data / "trainval").glob("*.mat")):
        areas[path.stem] = label_areas(decode_label_map(path.read_bytes(), path))
    label = min(areas[FIRST])
    areas[FIRST][label] += change
    areas["2010_777777"] = {1: 5}
    monkeypatch.setattr(data_content, "load_label_areas", lambda name: areas)


def test_areas_that_equal_the_authors_log_are_fine(data: Path, monkeypatch: pytest.MonkeyPatch):
    log_areas(data, monkeypatch)
    report = check(data)
    assert only_difference(report).startswith("missing trainval/2010_777777.mat")
    assert check(data, partial=True).ok


def test_one_pixel_off_the_authors_log_is_found(data: Path, monkeypatch: pytest.MonkeyPatch):
    log_areas(data, monkeypatch, change=1)
    report = check(data, partial=True)
    assert "(the authors' log), found" in only_difference(report)
    assert report.differences[0].path == f"trainval/{FIRST}.mat"


def test_a_generated_sample_is_not_measured_by_the_authors_log(
    data: Path, monkeypatch: pytest.MonkeyPatch
):
    marker = (data / MARKER).read_bytes()
    log_areas(data, monkeypatch, change=1)
    (data / MARKER).write_bytes(marker)
    assert check(data).ok


def add_copies(data: Path, copies: int) -> None:
    """Add samples until several batches are to be checked."""
    folder, labels = data / VOC / "JPEGImages", data / "trainval"
    for number in range(copies):
        name = f"2009_{number:06d}"
        (folder / f"{name}.jpg").hardlink_to(folder / f"{FIRST}.jpg")
        (labels / f"{name}.mat").hardlink_to(labels / f"{FIRST}.mat")


@pytest.mark.slow
def test_processes_find_what_one_alone_finds(data: Path):
    add_copies(data, 80)
    folder, labels = data / VOC / "JPEGImages", data / "trainval"
    for path in (labels / "2009_000050.mat", folder / "2009_000079.jpg"):
        path.unlink()
        path.write_bytes(b"neither")
    progress = RecordedProgress()
    alone = check(data)
    together = verify_data_content(data, [context()], 2, progress)
    assert [item.path for item in alone.differences] == [
        f"{VOC}/JPEGImages/2009_000079.jpg",
        "trainval/2009_000050.mat",
    ]
    assert together == alone
    assert progress.shown == progress.begun[0][1] == IMAGES + 80
    assert progress.threads == {threading.get_ident()}


INTERRUPTED = """
import os, signal
from pathlib import Path
from vocprep.checks.data_content import verify_data_content
from vocprep.manifests import load_dataset
from vocprep.progress import NoProgress

class CtrlC(NoProgress):
    def advance(self, count):
        os.killpg(0, signal.SIGINT)

try:
    verify_data_content(Path("data"), [load_dataset("pascal-context")], 2, CtrlC())
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.slow
def test_ctrl_c_stops_the_processes_without_a_word_of_theirs(data: Path):
    """A terminal sends the signal to the command and to the processes that decode for it."""
    add_copies(data, 40)  # two batches: when the first is done, its process waits for work
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        cwd=data.parent,
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def test_a_folder_without_a_dataset_is_an_error(tmp_path: Path):
    assert datasets_in(tmp_path) == []
    with pytest.raises(DataDirError, match="--dataset"):
        verify_data_content(tmp_path, [], 1, NO_PROGRESS)
