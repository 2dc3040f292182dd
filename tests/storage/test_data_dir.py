"""Builds whose sources are in an object store: the same bytes as from a folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from builders.s3 import S3, busy, slow
from builders.verbs import invoke

import vocprep
from vocprep.errors import DataDirError, SourceUnavailableError, UsageError, WeightsError
from vocprep.files.writing import canonical_json, sha256_hex
from vocprep.options import BuildChoices, BuildOptions, Layout

CHOICES = BuildChoices(limit_per_split=3)
LAYOUT = Layout(samples_per_shard=2)
DATASET = "pascal-context"


@pytest.fixture
def url(s3: S3, sample_tree: Path) -> str:
    """The URL of a data dir."""
    s3.put_folder(sample_tree, "data")
    return s3.url("data")


def build(data_dir: str | Path, out: Path, **more: object) -> Path:
    options = BuildOptions(**{"workers": 4, **more})
    vocprep.build(
        DATASET,
        out=out,
        data_dir=data_dir,
        weights="random:0",
        choices=CHOICES,
        layout=LAYOUT,
        options=options,
    )
    return out


def digests(out: Path) -> dict[str, str]:
    names = [path for path in out.iterdir() if path.suffix in (".h5", ".jsonl", ".json")]
    left_out = {"dataset.json", "weights.json"}  # seconds, and paths of this machine
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in names
        if path.name not in left_out
    }


def content_id(out: Path) -> str:
    found: str = json.loads((out / "dataset.json").read_text())["content_id"]
    return found


def test_a_build_from_a_url_has_the_bytes_of_one_from_a_folder(
    s3: S3, url: str, sample_tree: Path, tmp_path: Path
) -> None:
    here = build(sample_tree, tmp_path / "here")
    with s3.through_proxy(busy(every=7)) as proxy:
        there = build(url, tmp_path / "there")
        assert proxy.count("GET", ".jpg") < 2 * 6
        assert proxy.count("HEAD") == 0
    assert digests(there) == digests(here)
    assert content_id(there) == content_id(here)


def test_a_version_is_recomputed_from_a_url(
    url: str, sample_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = build(sample_tree, tmp_path / "here")
    words = ("verify", here, "--level", "recompute", "--samples", 1, "--device", "cpu")
    result = invoke(*words, "--data-dir", url)
    assert result.exit_code == 0, result.output
    assert "recompute: 5 match, 0 missing, 0 changed" in result.output
    monkeypatch.setenv("VOCPREP_DATA_DIR", url)
    assert invoke(*words).output == result.output
    missing = invoke(*words, "--data-dir", f"{url}-not")
    assert missing.exit_code == 3
    assert len(missing.stderr.splitlines()) == 1


def test_the_url_of_a_data_dir_is_no_version(url: str, tmp_path: Path) -> None:
    for words in (("inspect", url), ("train", url, "--out", tmp_path / "run")):
        result = invoke(*words)
        assert result.exit_code == 3
        assert result.stderr == (
            f"error: {url}: expected a dataset version, found a data dir; build shards of it: "
            f"vocprep build-shards DATASET --data-dir {url} --out SHARDS\n"
        )


def test_a_lock_file_is_built_from_a_url(
    s3: S3, url: str, sample_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, lock = build(sample_tree, tmp_path / "here"), tmp_path / "lock.json"
    vocprep.lock(here, lock)
    dry = invoke("build-shards", "--lock", lock, "--data-dir", url, "--out", "x", "--dry-run")
    assert dry.exit_code == 0, dry.output
    out = s3.url("again")
    result = invoke("build-shards", "--lock", lock, "--data-dir", url, "--out", out)
    assert result.exit_code == 0, result.output
    assert vocprep.diff(here, out).same_content
    monkeypatch.setenv("VOCPREP_DATA_DIR", url)
    vocprep.build_locked(lock, out=tmp_path / "there")
    assert digests(tmp_path / "there") == digests(here)


def test_a_lock_file_of_own_weights_asks_for_them_beside_a_url(
    s3: S3, url: str, sample_tree: Path, tmp_path: Path
) -> None:
    lock = tmp_path / "lock.json"
    vocprep.lock(build(sample_tree, tmp_path / "here"), lock)
    value = json.loads(lock.read_text())
    del value["lock_sha256"]
    value["weights"] = "own (0123456789ab…)"
    value["lock_sha256"] = sha256_hex(canonical_json(value))
    lock.write_text(json.dumps(value))
    with pytest.raises(SourceUnavailableError, match=r"own .*give their file with --weights PATH"):
        vocprep.build_locked(lock, out=tmp_path / "out", data_dir=url)


def test_files_are_read_by_all_workers(s3: S3, url: str, tmp_path: Path) -> None:
    with s3.through_proxy(slow(0.3)) as proxy:
        build(url, tmp_path / "out", workers=8)
        assert proxy.most_at_once > 3


def test_quarantine_reasons_are_those_of_a_folder(
    s3: S3, url: str, tree: Path, tmp_path: Path
) -> None:
    names = [name for name in s3.names("data") if name.endswith(".jpg")]
    for folder, damage in zip(names[:2], (b"", b"\xff\xd8 no picture"), strict=True):
        (tree / folder).write_bytes(damage)
        s3.put(f"data/{folder}", damage)
    (tree / names[2]).unlink()
    s3.delete(f"data/{names[2]}")
    here = build(tree, tmp_path / "here", max_failures="3")
    there = build(url, tmp_path / "there", max_failures="3")
    assert (there / "quarantine.jsonl").read_bytes() == (here / "quarantine.jsonl").read_bytes()
    assert digests(there) == digests(here)


def test_missing_files_are_named_before_anything_is_made(s3: S3, url: str, tmp_path: Path) -> None:
    name = next(name for name in s3.names("data") if name.endswith(".jpg"))
    s3.delete(f"data/{name}")
    with pytest.raises(DataDirError) as caught:
        build(url, tmp_path / "out")
    assert f"{url}/{name}: the image of a listed image id is missing (1 of" in str(caught.value)
    assert "vocprep download" not in str(caught.value)  # which cannot help there
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("at", ["data/VOCdevkit", "nowhere"])
def test_another_place_is_no_data_dir(s3: S3, url: str, tmp_path: Path, at: str) -> None:
    with pytest.raises(DataDirError, match=rf"^{s3.url(at)}/.*: no such split file of dataset"):
        build(s3.url(at), tmp_path / "out")


def test_a_store_that_fails_is_no_bad_picture(
    s3: S3, url: str, tmp_path: Path, impatient: None
) -> None:
    def fail(exchange: object) -> None:
        if getattr(exchange, "key", "").endswith(".jpg"):
            exchange.status = 503  # type: ignore[attr-defined]

    with s3.through_proxy(fail), pytest.raises(SourceUnavailableError, match="answers 503; try"):
        build(url, tmp_path / "out", max_failures="4")
    assert not (tmp_path / "out" / "dataset.json").exists()
    build(url, tmp_path / "out", max_failures="4")


def test_weights_that_are_not_there_are_to_be_copied(s3: S3, url: str, tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailableError) as caught:
        vocprep.build(DATASET, out=tmp_path / "out", data_dir=url, choices=CHOICES)
    assert str(caught.value).startswith(f"{url}/weights/")
    assert "are not there; copy them there, or give --weights PATH" in str(caught.value)


def test_weights_of_other_bytes_are_refused(s3: S3, url: str, tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailableError) as caught:
        vocprep.build(DATASET, out=tmp_path / "out", data_dir=url, choices=CHOICES)
    name = (
        str(caught.value)
        .partition(
            ":",
        )[2]
        .partition(":")[0]
        .rpartition("/data/")[2]
    )
    s3.put(f"data/{name}", b"other")
    with pytest.raises(WeightsError, match=f"^{url}/{name}: "):
        vocprep.build(DATASET, out=tmp_path / "out", data_dir=url, choices=CHOICES)


def test_an_images_folder_outside_of_the_url_is_refused(s3: S3, url: str) -> None:
    assert str(vocprep.storage.places.parse_place(url) / "a/./b") == f"{url}/a/b"
    for name in ("../b", "/etc/passwd", "a/../../b"):
        with pytest.raises(UsageError, match="expected a path below the URL"):
            _ = vocprep.storage.places.parse_place(url) / name


def test_the_command_takes_a_url_by_option_and_by_variable(
    s3: S3, url: str, tmp_path: Path
) -> None:
    flags = ("--limit-per-split", "2", "--weights", "random:0", "--dry-run")
    result = invoke("build-shards", DATASET, "--out", tmp_path / "o", "--data-dir", url, *flags)
    assert result.exit_code == 0, result.stderr
    s3.environment.setenv("VOCPREP_DATA_DIR", url)
    again = invoke("build-shards", DATASET, "--out", tmp_path / "o", *flags)
    assert again.stdout == result.stdout
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("download", "resnet32-cifar100"),
        ("decode", DATASET, "--out", "labels"),
    ],
)
def test_other_commands_refuse_a_url(s3: S3, url: str, command: tuple[str, ...]) -> None:
    result = invoke(*command, "--data-dir", url)
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "URL" in result.stderr or "No such option" in result.stderr
