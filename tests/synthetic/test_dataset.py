"""The sample tree: layout, bytes, special patches, refusals."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from builders.progress import CountedProgress, Interrupting
from numpy.typing import NDArray
from PIL import Image
from scipy.io import loadmat

from vocprep.data_dir.layout import list_samples
from vocprep.errors import DataError, UsageError
from vocprep.files.locking import file_lock
from vocprep.geometry import Geometry
from vocprep.manifests import load_dataset
from vocprep.placement import place_labels, split_patches
from vocprep.progress import NoProgress
from vocprep.synthetic.dataset import MARKER, SampleSummary, sample

pytestmark = pytest.mark.slow

IMAGES = 24
VOC = Path("VOCdevkit/VOC2010")
CONTEXT_IDS_OF_VOC = {  # class number → id in labels.txt, from the two official lists
    **{1: 2, 2: 23, 3: 25, 4: 31, 5: 34, 6: 45, 7: 59, 8: 65, 9: 72, 10: 98, 11: 397, 12: 113},
    **{13: 207, 14: 258, 15: 284, 16: 308, 17: 347, 18: 368, 19: 416, 20: 427},
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    sample(folder, images=IMAGES)
    return folder


@pytest.fixture(scope="module")
def patches(tree: Path) -> list[NDArray[np.uint16]]:
    """The patches [49, 32, 32] of every picture, as the default geometry gives them."""
    return [split_patches(place_labels(m, Geometry(), void=0)) for m in label_maps(tree)]


def label_map(folder: Path, image_id: str) -> NDArray[np.uint16]:
    stored: NDArray[np.uint16] = loadmat(folder / "trainval" / f"{image_id}.mat")["LabelMap"]
    return stored


def label_maps(folder: Path) -> Iterator[NDArray[np.uint16]]:
    for path in sorted((folder / "trainval").iterdir()):
        yield label_map(folder, path.stem)


def tree_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def classes_of(folder: Path, image_id: str) -> NDArray[np.uint8]:
    with Image.open(folder / VOC / "SegmentationClass" / f"{image_id}.png") as picture:
        assert picture.mode == "P"
        return np.asarray(picture)


@pytest.mark.slow
def test_same_options_give_the_same_bytes_in_any_environment(tmp_path: Path) -> None:
    here, there = tmp_path / "new" / "here", tmp_path / "there"
    sample(here, images=8)
    code = "import sys, vocprep; vocprep.sample(sys.argv[1], images=8)"
    odd = {"PYTHONHASHSEED": "77", "TZ": "Pacific/Apia", "LC_ALL": "POSIX", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", code, there], check=True, env={**os.environ, **odd})
    assert tree_digest(here) == tree_digest(there)


def test_another_seed_changes_every_picture_and_label_map(tree: Path, tmp_path: Path) -> None:
    sample(tmp_path, images=IMAGES, seed=1)
    for pattern in (f"{VOC}/JPEGImages/*.jpg", "trainval/*.mat"):
        ours, others = ([p.read_bytes() for p in sorted(d.glob(pattern))] for d in (tree, tmp_path))
        assert len(ours) == 24
        assert not set(ours) & set(others)


def test_a_larger_sample_begins_with_the_smaller(tree: Path, tmp_path: Path) -> None:
    sample(tmp_path, images=3)
    for path in (tmp_path / VOC / "JPEGImages").iterdir():
        assert path.read_bytes() == (tree / VOC / "JPEGImages" / path.name).read_bytes()


def test_no_time_of_day_in_the_mat_files(tree: Path) -> None:
    data = (tree / "trainval" / "2010_000001.mat").read_bytes()
    assert data[:116].rstrip() == b"MATLAB 5.0 MAT-file, written by vocprep sample"
    assert data[128] == 14  # miMATRIX: not compressed


def test_labels_txt_is_the_official_file(tree: Path) -> None:
    data = (tree / "labels.txt").read_bytes()
    assert len(data) == 5960
    assert hashlib.md5(data).hexdigest() == "7e882ccaaf4f33d6520787847025cf34"


@pytest.mark.parametrize("dataset", ["pascal-context", "voc2010"])
def test_shipped_datasets_read_the_tree(tree: Path, dataset: str) -> None:
    samples = list_samples(tree, load_dataset(dataset), ["train", "val"])
    assert [sample.image_id for sample in samples] == [f"2010_{n:06d}" for n in range(1, 25)]
    assert [s.image_id[-2:] for s in samples if s.split == "val"] == ["02", "08", "14", "20"]
    assert len(list_samples(tree, load_dataset(dataset), ["trainval"])) == 24


def test_pictures_and_label_files_have_one_size(tree: Path) -> None:
    sizes = set()
    for path in sorted((tree / VOC / "JPEGImages").iterdir()):
        with Image.open(path) as picture:
            assert (picture.format, picture.mode) == ("JPEG", "RGB")
            size = picture.size
        labels = label_map(tree, path.stem)
        assert labels.dtype == np.uint16
        assert labels.shape[::-1] == classes_of(tree, path.stem).shape[::-1] == size
        assert 200 <= min(size) <= max(size) <= 500
        sizes.add(size)
    assert len(sizes) >= 6
    assert any(w > h for w, h in sizes)
    assert any(w < h for w, h in sizes)


def test_pictures_fit_their_label_maps(tree: Path) -> None:
    """Far from the edges a label looks alike everywhere; shifted maps would mix the labels."""
    with Image.open(tree / VOC / "JPEGImages" / "2010_000002.jpg") as picture:
        grey = np.asarray(picture.convert("L")).astype(float)
    labels = label_map(tree, "2010_000002")

    def spread(shifted: NDArray[np.uint16]) -> float:
        """Mean squared distance of the pixels from their label's mean."""
        flat = shifted.ravel()
        area = np.maximum(np.bincount(flat), 1)
        means = np.bincount(flat, grey.ravel()) / area
        return float(((grey - means[shifted]) ** 2).mean())

    for rows, columns in ((12, 0), (-12, 0), (0, 12), (0, -12)):
        assert spread(labels) < spread(np.roll(labels, (rows, columns), axis=(0, 1)))


def test_mosaic_pictures_have_patches_of_many_labels(patches: list[NDArray[np.uint16]]) -> None:
    for number, grid in enumerate(patches):
        if number % 5 in (0, 2):
            assert max(len(set(patch.flat) - {0}) for patch in grid) >= 9


def test_some_patches_tie_exactly(patches: list[NDArray[np.uint16]]) -> None:
    for number in (9, 19):
        assert equal_areas(patches[number]) >= {(2, 512), (4, 256), (16, 64)}


def equal_areas(grid: NDArray[np.uint16]) -> set[tuple[int, int]]:
    """(labels, pixels of each) of the patches whose labels all have the same area."""
    counts = [np.unique(patch, return_counts=True)[1] for patch in grid]
    return {(len(count), int(count[0])) for count in counts if len(set(count.tolist())) == 1}


def test_some_patches_are_all_void(patches: list[NDArray[np.uint16]]) -> None:
    void = [any(not patch.any() for patch in grid) for grid in patches]
    assert void == [n % 5 == 3 for n in range(24)]


def test_many_patches_hold_one_label(patches: list[NDArray[np.uint16]]) -> None:
    single = [len(set(patch.flat)) == 1 and patch.flat[0] > 0 for grid in patches for patch in grid]
    assert 0.2 < np.mean(single) < 0.8


def test_few_labels_carry_most_of_the_area(patches: list[NDArray[np.uint16]]) -> None:
    areas = np.bincount(np.concatenate([grid.ravel() for grid in patches]), minlength=460)
    assert np.sort(areas)[-30:].sum() > 0.88 * areas.sum()
    assert areas.max() < 0.4 * areas.sum()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, pytest.param(5, marks=pytest.mark.slow)])
def test_every_label_id_occurs_in_sixty_pictures(tmp_path: Path, seed: int) -> None:
    summary = sample(tmp_path, images=60, seed=seed)
    whole, cropped = set(), set()
    for labels in label_maps(tmp_path):
        whole |= set(np.unique(labels).tolist())
        cropped |= set(np.unique(place_labels(labels, Geometry(), void=0)).tolist())
    assert whole == cropped == set(range(460))
    assert summary.classes == 459


def test_classes_follow_the_context_map_up_to_the_border(tree: Path) -> None:
    expected = np.zeros(460, dtype=np.uint8)
    expected[0] = 255
    for number, label in CONTEXT_IDS_OF_VOC.items():
        expected[label] = number
    seen = set()
    for path in sorted((tree / "trainval").iterdir()):
        wanted, found = expected[label_map(tree, path.stem)], classes_of(tree, path.stem)
        kept = found != 255
        np.testing.assert_array_equal(found[kept], wanted[kept])
        assert (found[wanted == 255] == 255).all()
        seen |= set(np.unique(found).tolist())
    assert len(seen) >= 15


def test_the_void_border_is_five_pixels_wide(tree: Path) -> None:
    table = np.zeros(460, dtype=np.uint8)
    table[[*CONTEXT_IDS_OF_VOC.values()]] = [*CONTEXT_IDS_OF_VOC]
    lengths = []
    for path in sorted((tree / "trainval").iterdir()):
        labels, classes = label_map(tree, path.stem), classes_of(tree, path.stem)
        if not labels.all():
            continue
        row = table[labels][labels.shape[0] // 2]
        changes = np.flatnonzero(row[1:] != row[:-1])
        for column in changes:
            border = classes[labels.shape[0] // 2, max(column - 2, 0) : column + 3]
            assert (border == 255).all()
        if len(changes) == 1 and 8 < changes[0] < len(row) - 8:
            lengths.append(np.count_nonzero(classes[labels.shape[0] // 2] == 255))
    assert lengths
    assert np.median(lengths) <= 8  # a slanting border is wider along the row


VOC_COLOURS = [
    (0, 0, 0),
    (128, 0, 0),
    (0, 128, 0),
    (128, 128, 0),
    (0, 0, 128),
    (128, 0, 128),
    (0, 128, 128),
    (128, 128, 128),
    (64, 0, 0),
    (192, 0, 0),
    (64, 128, 0),
    (192, 128, 0),
    (64, 0, 128),
    (192, 0, 128),
    (64, 128, 128),
    (192, 128, 128),
    (0, 64, 0),
    (128, 64, 0),
    (0, 192, 0),
    (128, 192, 0),
    (0, 64, 128),
]
"""Background to tvmonitor, as the VOC development kit prints them."""


def test_the_palette_is_vocs(tree: Path) -> None:
    with Image.open(tree / VOC / "SegmentationClass" / "2010_000001.png") as picture:
        palette = picture.getpalette()
    assert palette is not None
    colours = [tuple(palette[3 * n : 3 * n + 3]) for n in range(256)]
    assert colours[:21] == VOC_COLOURS
    assert colours[255] == (224, 224, 192)
    assert len(set(colours)) == 256


def test_summary_and_progress(tmp_path: Path) -> None:
    progress = CountedProgress()
    summary = sample(tmp_path, images=7, progress=progress)
    found = {int(label) for labels in label_maps(tmp_path) for label in np.unique(labels)} - {0}
    assert summary == SampleSummary(folder=tmp_path, images=7, train=6, val=1, classes=len(found))
    assert (progress.total, progress.count, progress.ended) == (7, 7, True)


@pytest.mark.parametrize(("images", "train", "val"), [(1, 1, 0), (2, 1, 1), (12, 10, 2)])
def test_splits_of_small_samples(tmp_path: Path, images: int, train: int, val: int) -> None:
    summary = sample(tmp_path, images=images)
    assert (summary.train, summary.val) == (train, val)


def test_the_same_sample_is_left_as_it_is(tmp_path: Path) -> None:
    first = sample(tmp_path, images=2)
    stamp = (tmp_path / MARKER).stat().st_mtime_ns
    assert sample(tmp_path, images=2) == first
    assert (tmp_path / MARKER).stat().st_mtime_ns == stamp


@pytest.mark.parametrize("other", [{"images": 3}, {"images": 2, "seed": 9}])
def test_another_sample_is_not_overwritten(tmp_path: Path, other: dict[str, int]) -> None:
    sample(tmp_path, images=2)
    before = tree_digest(tmp_path)
    found = r"or the sample of .* found that of 2 images and seed 0; choose another folder$"
    with pytest.raises(UsageError, match=found):
        sample(tmp_path, **other)
    assert tree_digest(tmp_path) == before


def test_the_sample_of_another_version_is_refused(tmp_path: Path) -> None:
    sample(tmp_path, images=2)
    marker = tmp_path / MARKER
    marker.write_text(marker.read_text().replace('"generation": 2', '"generation": 1'))
    found = r"found that of 2 images and seed 0, made by another version of vocprep; choose"
    with pytest.raises(UsageError, match=found):
        sample(tmp_path, images=2)


@pytest.mark.parametrize("marker", [None, b"{", b"[]", b'{"made_by": 1}'])
def test_a_folder_with_something_else_is_refused(tmp_path: Path, marker: bytes | None) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"precious")
    if marker is not None:
        (tmp_path / MARKER).write_bytes(marker)
    before = tree_digest(tmp_path)
    with pytest.raises(UsageError, match=r"found a folder of other files; choose another folder$"):
        sample(tmp_path, images=2)
    assert tree_digest(tmp_path) == before


@pytest.mark.parametrize("count", ["\ufeff2", 2.0, -2, None])
def test_a_marker_with_odd_counts_is_another_thing(tmp_path: Path, count: object) -> None:
    sample(tmp_path, images=2)
    marker = json.loads((tmp_path / MARKER).read_text())
    marker["holds"]["train"] = count
    (tmp_path / MARKER).write_text(json.dumps(marker))
    with pytest.raises(UsageError, match=r"found a data dir; choose another folder$"):
        sample(tmp_path, images=2)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"precious")
    for place in (tmp_path / "data", tmp_path / "data" / "below"):
        with pytest.raises(
            UsageError, match=r"expected a folder, found the file .*; choose another"
        ):
            sample(place, images=2)
    assert (tmp_path / "data").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.ENOSPC, "make room"), (errno.EACCES, "make it writable")]
)
def test_a_folder_that_cannot_be_written_is_said_with_advice(
    tmp_path: Path, number: int, advice: str
) -> None:
    class Full(NoProgress):
        def advance(self, count: int) -> None:
            raise OSError(number, os.strerror(number), "x")

    sentence = f"cannot be written there: {os.strerror(number)}; {advice}, or choose another folder"
    with pytest.raises(DataError, match=sentence):
        sample(tmp_path, images=2, progress=Full())
    assert not list(tmp_path.glob("[!.]*"))


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        sample(tmp_path, images=2, progress=Interrupting())
    assert not list(tmp_path.iterdir())
    sample(tmp_path, images=2)
    assert (tmp_path / MARKER).is_file()


def test_nothing_has_its_final_name_before_all_is_written(tmp_path: Path) -> None:
    held: list[list[str]] = []

    class Looking(NoProgress):
        def advance(self, count: int) -> None:
            del count
            held.append([item.name for item in tmp_path.iterdir()])

    sample(tmp_path, images=2, progress=Looking())
    assert len(held) == 2
    assert all(len(names) == 1 and names[0].startswith(".tmp-") for names in held)
    final = {item.name for item in tmp_path.iterdir()}
    assert final == {"VOCdevkit", "trainval", "labels.txt", MARKER}


class Killed(BaseException):
    """Stands in for a kill: nothing after it is undone."""


@pytest.mark.parametrize("moves", range(1, 6))
def test_killed_run_is_run_again_and_leaves_nothing(
    moves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after so many of its last renames: of the four parts, and of the old files' folder."""
    rename, left = Path.rename, iter(range(moves))

    def killed(self: Path, target: Path) -> Path:
        if next(left, None) is None:
            raise Killed
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        patched.setattr("vocprep.files.replacing.Replacement.restore", lambda _: None)
        patched.setattr("vocprep.files.replacing.remove_path", lambda _: None)
        with suppress(Killed):
            sample(tmp_path / "killed", images=2)
    sample(tmp_path / "killed", images=2)
    sample(tmp_path / "whole", images=2)
    assert tree_digest(tmp_path / "killed") == tree_digest(tmp_path / "whole")
    assert {item.name for item in (tmp_path / "killed").iterdir()} == {
        *("VOCdevkit", "trainval", "labels.txt", MARKER)
    }


def test_unfinished_work_behind_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".tmp-sample").symlink_to(tmp_path / "mine")
    with pytest.raises(UsageError, match=r"found a link to .*; delete the link"):
        sample(tmp_path / "data", images=2)
    assert (tmp_path / "mine" / "file").exists()


def test_linked_folder_is_filled_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").symlink_to(tmp_path / "there")
    sample(tmp_path / "here", images=2)
    assert (tmp_path / "here").is_symlink()
    assert (tmp_path / "there" / MARKER).is_file()
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    with pytest.raises(UsageError, match=r"is a link to .*missing, where nothing is"):
        sample(tmp_path / "nowhere", images=2)


def test_second_writer_is_refused_at_once(tmp_path: Path) -> None:
    with (
        file_lock(tmp_path, busy="", note=print),
        pytest.raises(UsageError, match="another vocprep is writing there"),
    ):
        sample(tmp_path, images=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("images", "expected"), [(0, "1 or more"), (-1, "1 or more"), (1_000_000, "at most 999999")]
)
def test_counts_that_ids_cannot_number_are_refused(
    tmp_path: Path, images: int, expected: str
) -> None:
    with pytest.raises(UsageError, match=f"images {images}: expected {expected}"):
        sample(tmp_path / "data", images=images)


def test_negative_seeds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="seed -1: expected 0 or more"):
        sample(tmp_path / "data", seed=-1)
    assert not (tmp_path / "data").exists()
