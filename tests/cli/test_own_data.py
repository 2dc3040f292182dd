"""Data of one's own through the commands: flags in split files, paths in manifests."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.own_data import write_own_data
from click.testing import Result

pytestmark = pytest.mark.slow

Run = Callable[..., Result]
CAR = "im000  1\nim001 -1\nim002  0\n"
"""The training split as VOC's files of one class write it."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_own_data(tmp_path / "data")
    (tmp_path / "data" / "splits" / "car_train.txt").write_text(CAR)
    return tmp_path / "data"


def build(vocprep: Run, data: Path, out: Path, *more: object) -> Result:
    words = ["--data-dir", data, "--out", out, "--weights", "random:0", "--device", "cpu"]
    return vocprep("build-shards", data / "mine.toml", *words, *more)


def ids_in(out: Path) -> list[str]:
    lines = (out / "samples.jsonl").read_text().splitlines()
    return [json.loads(line)["id"] for line in lines]


def test_a_class_file_is_built_by_an_explicit_choice_only(
    data: Path, tmp_path: Path, vocprep: Run
) -> None:
    out = tmp_path / "out"
    result = build(vocprep, data, out, "--splits", "car_train")
    assert result.exit_code == 3
    assert "car_train.txt: line 1: flags follow the image ids" in result.stderr
    assert not out.exists()
    result = build(vocprep, data, out, "--splits", "car_train", "--split-flags", "present")
    assert result.exit_code == 0, result.output
    assert ids_in(out) == ["im000", "im002"]


def test_the_manifest_may_choose_and_the_option_precedes(
    data: Path, tmp_path: Path, vocprep: Run
) -> None:
    manifest = data / "mine.toml"
    manifest.write_text(
        manifest.read_text().replace('"train", ', '"car_train", ') + 'split_flags = "positive"\n'
    )
    for more, ids in ([], ["im000"]), (["--split-flags", "all"], ["im000", "im001", "im002"]):
        out = tmp_path / f"decoded{len(ids)}"
        words = ["--data-dir", data, "--out", out, "--splits", "car_train", *more]
        result = vocprep("decode", manifest, *words)
        assert result.exit_code == 0, result.output
        assert sorted(path.stem for path in out.glob("*.png")) == ids
    assert vocprep("verify", data, "--level", "content", "--dataset", manifest).exit_code == 0


def test_a_version_of_a_class_is_built_and_made_again_by_its_lock(
    data: Path, tmp_path: Path, vocprep: Run
) -> None:
    out, lock = tmp_path / "out", tmp_path / "out.lock.json"
    words = ["--splits", "car_train", "--split-flags", "positive"]
    assert build(vocprep, data, out, *words).exit_code == 0
    assert vocprep("inspect", out, "--lock", lock).exit_code == 0
    result = build(vocprep, data, tmp_path / "again", "--lock", lock)
    assert result.exit_code == 0, result.output
    assert ids_in(tmp_path / "again") == ["im000"]
    refused = build(vocprep, data, tmp_path / "third", "--lock", lock, "--split-flags", "all")
    assert "--split-flags beside --lock: the lock file decides it" in refused.stderr
    words = ["--level", "recompute", "--data-dir", data, "--device", "cpu"]
    result = vocprep("verify", out, *words, "--dataset", data / "mine.toml")
    assert result.exit_code == 0, result.output
    refused = vocprep("verify", out, *words)
    assert refused.exit_code == 2
    beside = data / "dataset.toml"
    assert f"expected its manifest at {beside}, found no such file" in refused.stderr
    assert "name it with --dataset, e.g. --dataset mine.toml" in refused.stderr
    beside.write_text((data / "mine.toml").read_text())
    assert "found that of 'dataset'" in vocprep("verify", out, *words).stderr
    beside.write_text('name = "mine"\n' + beside.read_text())
    assert vocprep("verify", out, *words).exit_code == 0


def test_a_missing_picture_names_the_option_of_a_build(
    data: Path, tmp_path: Path, vocprep: Run
) -> None:
    path = data / "pictures" / "im002.jpg"
    path.rename(path.with_suffix(".gif"))
    said = build(vocprep, data, tmp_path / "out").stderr
    assert "found im002.gif there: convert it to one of .jpg, .jpeg, .png, " in said
    assert "or leave such images out with --max-failures 1" in said
    decoded = vocprep("decode", data / "mine.toml", "--data-dir", data, "--out", tmp_path / "png")
    assert "convert it to one of .jpg" in decoded.stderr
    assert "--max-failures" not in decoded.stderr
    assert build(vocprep, data, tmp_path / "out", "--max-failures", 1).exit_code == 0


def packed(folder: Path, data: Path, sources: str) -> Path:
    """Write a dataset manifest whose source is an archive of the data dir."""
    folder.mkdir()
    archive = folder / "pics.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("pictures", "masks", "splits"):
            tar.add(data / name, arcname=name)
    (folder / "files.toml").write_text(
        'title = "My pictures"\nterms = "mine"\n[[files]]\npath = "downloads/pics.tar"\n'
        'urls = ["http://127.0.0.1:9/pics.tar"]\n'
        f'sha256 = "{hashlib.sha256(archive.read_bytes()).hexdigest()}"\n'
        "[files.unpack]\nmax_bytes = 200_000_000\n"
    )
    manifest = folder / "mine.toml"
    manifest.write_text(f'sources = ["{sources}"]\n' + (data / "mine.toml").read_text())
    return manifest


@pytest.mark.parametrize("sources", ["files.toml", "../pack/files.toml"])
def test_all_commands_take_one_spelling(
    data: Path, tmp_path: Path, vocprep: Run, monkeypatch: pytest.MonkeyPatch, sources: str
) -> None:
    packed(tmp_path / "pack", data, sources)
    monkeypatch.chdir(tmp_path)
    got = ["--data-dir", "got"]
    for words in (
        ["download", "pack/mine.toml", *got, "--from", "pack", "--offline"],
        ["decode", "pack/mine.toml", *got, "--out", "png"],
        ["build-shards", "pack/mine.toml", *got, "--out", "out", "--weights", "random:0"],
        ["verify", "got", "--level", "content", "--dataset", "pack/mine.toml"],
        ["verify", "out", "--level", "recompute", *got, "--dataset", "pack/mine.toml"],
    ):
        result = vocprep(*words)
        assert result.exit_code == 0, (words, result.output)
        assert "note: pack" not in result.stderr


@pytest.mark.filterwarnings("default::vocprep.manifest_paths.ManifestPathWarning")
def test_a_path_from_the_current_folder_is_taken_with_one_note(
    data: Path, tmp_path: Path, vocprep: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(tmp_path / "pack", data, "pack/files.toml")
    monkeypatch.chdir(tmp_path)
    words = ["download", "pack/mine.toml", "--data-dir", "got", "--from", "pack", "--offline"]
    result = vocprep(*words)
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "note: pack/mine.toml: 'pack/files.toml' was found from the current folder, not from that "
        "of the manifest, which its paths are relative to; write 'files.toml'"
    ]


def test_two_sources_of_one_name_are_not_mistaken_for_one(
    data: Path, tmp_path: Path, vocprep: Run
) -> None:
    manifest = packed(tmp_path / "pack", data, "files.toml")
    (tmp_path / "pack" / "other").mkdir()
    text = (tmp_path / "pack" / "files.toml").read_text()
    (tmp_path / "pack" / "other" / "files.toml").write_text(text.replace("My", "Other"))
    manifest.write_text(
        manifest.read_text().replace('["files.toml"]', '["files.toml", "other/files.toml"]')
    )
    result = vocprep("download", manifest, "--data-dir", tmp_path / "got", "--offline")
    assert result.exit_code == 2
    assert "two different sources are called files" in result.stderr


@pytest.mark.parametrize("text", ["files = [", "a = " + "[" * 200 + "]" * 200])
def test_a_manifest_that_is_no_toml_is_refused(tmp_path: Path, vocprep: Run, text: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    result = vocprep("download", tmp_path / "bad.toml", "--data-dir", tmp_path / "got")
    assert result.exit_code == 3
    assert f"{tmp_path / 'bad.toml'}: not TOML" in result.stderr
