"""Layout: split files are read exactly, and the files of their ids must be there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vocprep.data_dir.layout import JoinedSamples, list_samples, list_splits, read_split
from vocprep.data_dir.limits import Limit
from vocprep.data_dir.place import default_data_dir
from vocprep.errors import DataDirError, UsageError
from vocprep.manifests import DatasetManifest, load_dataset

DATASET = DatasetManifest(
    name="own",
    title="Own",
    images="images",
    labels="masks",
    label_kind="png",
    split_files="splits",
    splits=("train", "val"),
    schemas=("voc21",),
)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    for folder in ("images", "masks", "splits"):
        (tmp_path / folder).mkdir()
    for image_id in ("a", "b", "c", "d"):
        (tmp_path / "images" / f"{image_id}.jpg").touch()
        (tmp_path / "masks" / f"{image_id}.png").touch()
    (tmp_path / "splits" / "train.txt").write_text("c\na\nb\n")
    (tmp_path / "splits" / "val.txt").write_text("d\n")
    return tmp_path


def write_split(data_dir: Path, text: str | bytes) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    (data_dir / "splits" / "train.txt").write_bytes(data)


def test_an_empty_split_file_is_refused(data_dir: Path) -> None:
    write_split(data_dir, "\n")
    assert read_split(data_dir, DATASET, "train") == []
    with pytest.raises(DataDirError, match=r"splits/train\.txt: expected at least one image id"):
        list_samples(data_dir, DATASET, ["val", "train"])


def test_a_missing_split_lists_those_that_are_there(data_dir: Path) -> None:
    with pytest.raises(
        DataDirError, match=r"splits/test\.txt: no such split .*found splits train, val"
    ):
        read_split(data_dir, DATASET, "test")


def test_a_missing_folder_of_splits_is_named(data_dir: Path) -> None:
    with pytest.raises(DataDirError, match=r"found no .*nowhere"):
        read_split(data_dir, DATASET.model_copy(update={"split_files": "nowhere"}), "train")


def test_samples_of_splits_are_sequences_that_make_their_items(data_dir: Path) -> None:
    splits = list_splits(data_dir, DATASET, ["train", "val"])
    listed = list_samples(data_dir, DATASET, ["train", "val"])
    train, val = splits["train"], splits["val"]
    assert [list(train), list(val)] == [listed[:3], listed[3:]]
    assert train[-1] == train[1:][1] == listed[2]
    joined = JoinedSamples([train[:1], val, train[1:], val[:0]])
    expected = [listed[0], listed[3], listed[1], listed[2]]
    assert list(joined) == expected
    assert [joined[place] for place in range(-4, 4)] == [*expected, *expected]
    assert joined[1:3] == expected[1:3]
    assert len(JoinedSamples([])) == 0
    with pytest.raises(IndexError):
        joined[4]


def test_samples_of_all_splits_come_in_id_order(data_dir: Path) -> None:
    samples = list_samples(data_dir, DATASET, ["val", "train"])
    assert [(sample.image_id, sample.split) for sample in samples] == [
        ("a", "train"),
        ("b", "train"),
        ("c", "train"),
        ("d", "val"),
    ]
    assert samples[0].image_path == data_dir / "images" / "a.jpg"
    assert samples[0].label_path == data_dir / "masks" / "a.png"


@pytest.mark.parametrize(("limit", "ids"), [(1, "ad"), (2, "abd"), (9, "abcd"), (None, "abcd")])
def test_the_limit_counts_for_each_split(data_dir: Path, limit: int | None, ids: str) -> None:
    samples = list_samples(data_dir, DATASET, ["train", "val"], Limit(per_split=limit))
    assert "".join(sample.image_id for sample in samples) == ids


def test_splits_that_share_an_image_are_refused(data_dir: Path) -> None:
    write_split(data_dir, "\na\nd\n")
    with pytest.raises(
        UsageError, match=r"image d, line 3 of .*train\.txt and line 1 of .*val\.txt: expected"
    ):
        list_samples(data_dir, DATASET, ["train", "val"])
    assert len(list_samples(data_dir, DATASET, ["train"])) == 2


@pytest.mark.parametrize(
    ("missing", "complaint"),
    [
        (
            "images/b.jpg",
            r"images/b\.jpg: the image of a listed image id is missing \(1 of 4 images\)",
        ),
        (
            "masks/c.png",
            r"masks/c\.png: the label map of a listed image id is missing \(1 of 4 label",
        ),
    ],
)
def test_a_missing_file_is_named(data_dir: Path, missing: str, complaint: str) -> None:
    (data_dir / missing).unlink()
    with pytest.raises(DataDirError, match=complaint):
        list_samples(data_dir, DATASET, ["train", "val"])


def test_files_past_the_limit_may_be_missing(data_dir: Path) -> None:
    (data_dir / "images" / "c.jpg").unlink()
    assert len(list_samples(data_dir, DATASET, ["train"], Limit(total=2))) == 2


def test_a_missing_folder_is_named(data_dir: Path) -> None:
    dataset = DATASET.model_copy(update={"labels": "nowhere"})
    with pytest.raises(DataDirError, match=r"nowhere: expected the folder of the label maps, fou"):
        list_samples(data_dir, dataset, ["train", "val"])


@pytest.mark.parametrize("folder", ["images", "masks", "splits"])
def test_a_folder_that_cannot_be_read_is_not_called_missing(data_dir: Path, folder: str) -> None:
    shutil.rmtree(data_dir / folder)
    (data_dir / folder).symlink_to(folder)
    with pytest.raises(DataDirError, match=rf"{folder}.* cannot be read.*symbolic links") as caught:
        list_samples(data_dir, DATASET, ["train", "val"])
    assert "missing" not in str(caught.value)


def test_the_option_that_leaves_samples_out_is_named_with_their_number(data_dir: Path) -> None:
    for name in ("images/b.jpg", "masks/b.png", "masks/d.png"):
        (data_dir / name).unlink()
    with pytest.raises(
        DataDirError, match=r"1 of 4 images.*, or leave such images out with --skip 2$"
    ):
        list_samples(data_dir, DATASET, ["train", "val"], skip_option="--skip")
    with pytest.raises(DataDirError, match=r"from the split file$"):
        list_samples(data_dir, DATASET, ["train", "val"])


@pytest.mark.parametrize("name", ["._train.txt", "a b.txt", ".hidden.txt"])
def test_only_names_of_splits_are_offered(data_dir: Path, name: str) -> None:
    (data_dir / "splits" / name).touch()
    with pytest.raises(DataDirError, match="found splits train, val; check"):
        read_split(data_dir, DATASET, "test")


def test_the_download_command_is_named_where_there_is_one(tmp_path: Path) -> None:
    hint = f"vocprep download pascal-context --data-dir {tmp_path}"
    with pytest.raises(DataDirError, match=hint):
        read_split(tmp_path, load_dataset("pascal-context"), "train")
    with pytest.raises(DataDirError, match="check the split's name") as caught:
        read_split(tmp_path, DATASET, "train")
    assert "vocprep download" not in str(caught.value)


def test_the_generated_tree_is_read(sample_tree: Path) -> None:
    samples = list_samples(sample_tree, load_dataset("pascal-context"), ["train", "val"])
    assert len(samples) == 12
    assert all(s.image_path.is_file() and s.label_path.suffix == ".mat" for s in samples)


def test_default_data_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VOCPREP_DATA_DIR", str(tmp_path))
    assert default_data_dir() == tmp_path
    for value in ("", None):
        monkeypatch.setenv("VOCPREP_DATA_DIR", value or "")
        if value is None:
            monkeypatch.delenv("VOCPREP_DATA_DIR")
        assert default_data_dir() == Path("data")


def test_a_split_name_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"split '\.\./secret': expected 1 to 64 characters"):
        read_split(tmp_path, load_dataset("voc2012"), "../secret")


def test_a_split_that_is_named_twice_is_refused(sample_tree: Path) -> None:
    with pytest.raises(UsageError, match="splits: train is named twice; name it once"):
        list_samples(sample_tree, load_dataset("pascal-context"), ["train", "train"])
