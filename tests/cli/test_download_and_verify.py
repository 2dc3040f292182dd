"""``vocprep download`` and ``vocprep verify``, from an empty folder to a clean report."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from builders.mirror import Mirror
from builders.verbs import invoke as run
from click.testing import CliRunner

from vocprep.cli import main
from vocprep.downloading.download import DownloadOptions
from vocprep.downloading.plan import plan_download, state_in_words
from vocprep.manifests import load_source
from vocprep.synthetic.dataset import sample

VOC = "VOCdevkit/VOC2010"
DATASET = f"""
title = "A generated tree"
sources = ["images.toml", "labels.toml"]
images = "{VOC}/JPEGImages"
labels = "trainval"
label_kind = "mat"
split_files = "{VOC}/ImageSets/Main"
splits = ["train", "val"]
schemas = ["context460"]
"""
IMAGES = 12


def pack(tree: Path, paths: Sequence[str], mode: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for path in paths:
            archive.add(tree / path, arcname=path)
    return out.getvalue()


def file_toml(url: str, path: str, data: bytes, unpack: str = "") -> str:
    facts = [f'path = "{path}"', f'urls = ["{url}{Path(path).name}"]', f"bytes = {len(data)}"]
    facts.append(f'md5 = "{hashlib.md5(data).hexdigest()}"')
    if not path.endswith(".gz"):
        facts.append(f'sha256 = "{hashlib.sha256(data).hexdigest()}"')
    return "\n[[files]]\n" + "\n".join(facts) + unpack


def expect(folder: str, suffix: str) -> str:
    return (
        "\n[files.unpack]\nmax_bytes = 50_000_000\n[[files.unpack.expect]]\n"
        f'folder = "{folder}"\nsuffix = "{suffix}"\ncount = {IMAGES}\n'
    )


class Shop:
    """A generated tree packed as the official archives are, behind a local server."""

    def __init__(self, folder: Path) -> None:
        tree = folder / "tree"
        sample(tree, images=IMAGES)
        self.files = {
            "VOCtrainval.tar": pack(tree, ["VOCdevkit"], "w"),
            "trainval.tar.gz": pack(tree, ["trainval"], "w:gz"),
            "labels.txt": (tree / "labels.txt").read_bytes(),
        }
        self.folder = folder

    def write_manifests(self, url: str) -> Path:
        head = 'title = "t"\nterms = "none"\n'
        images, labels, names = self.files.values()
        (self.folder / "images.toml").write_text(
            head
            + file_toml(
                url, "downloads/VOCtrainval.tar", images, expect(f"{VOC}/JPEGImages", ".jpg")
            )
        )
        (self.folder / "labels.toml").write_text(
            head
            + file_toml(url, "downloads/trainval.tar.gz", labels, expect("trainval", ".mat"))
            + file_toml(url, "labels.txt", names)
        )
        dataset = self.folder / "dataset.toml"
        dataset.write_text(DATASET)
        return dataset


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def mirror(shop: Shop) -> Iterator[Mirror]:
    with Mirror(shop.files) as server:
        yield server


def test_from_nothing_to_a_clean_content_check(shop: Shop, mirror: Mirror, tmp_path: Path):
    dataset, data = shop.write_manifests(mirror.url()), tmp_path / "data"

    first = run("download", dataset, "--data-dir", data)
    assert first.exit_code == 0, first.output
    lines = first.stdout.splitlines()
    assert lines[0].split() == ["file", "mirror", "bytes", "digest", "state"]
    assert [line.split()[0] for line in lines[1:]] == [
        "downloads/VOCtrainval.tar",
        "downloads/trainval.tar.gz",
        "labels.txt",
    ]
    assert lines[1].endswith("fetched, unpacked")
    assert "127.0.0.1" in lines[1]
    assert hashlib.sha256(shop.files["VOCtrainval.tar"]).hexdigest()[:12] in lines[1]

    mirror.requests.clear()
    second = run("download", dataset, "--data-dir", data, "--json")
    assert [item["state"] for item in json.loads(second.stdout)] == ["present"] * 3
    assert mirror.requests == []

    clean = run("verify", data, "--level", "content", "--dataset", dataset)
    assert clean.exit_code == 0, clean.output
    assert f"content: {2 * IMAGES} match, 0 missing, 0 changed, 0 extra" in clean.stdout
    assert "files: " in clean.stdout


def test_verify_names_what_is_missing_changed_and_extra(shop: Shop, mirror: Mirror, tmp_path: Path):
    dataset, data = shop.write_manifests(mirror.url()), tmp_path / "data"
    run("download", dataset, "--data-dir", data)
    folder = data / "trainval"
    (folder / "2010_000001.mat").unlink()
    (folder / "2010_000002.mat").write_bytes((folder / "2010_000003.mat").read_bytes())
    (folder / "stray.txt").write_text("mine")

    found = run("verify", data)
    assert found.exit_code == 1
    assert "missing: trainval/2010_000001.mat: expected a file, found none" in found.stdout
    assert "changed: trainval/2010_000002.mat: expected " in found.stdout
    assert "extra: trainval/stray.txt" in found.stdout
    assert "1 missing, 1 changed, 1 extra" in found.stdout

    told = run("verify", data, "--partial", "--json")
    value = json.loads(told.stdout)
    assert not value["ok"]
    assert [item["state"] for item in value["reports"][0]["differences"]] == ["changed", "extra"]
    assert value["reports"][0]["allowed_missing"] == 1


def test_verify_of_a_tree_without_records_looks_at_the_content(tmp_path: Path):
    data = tmp_path / "sample"
    sample(data, images=6)
    assert run("verify", data).exit_code == 3
    clean = run("verify", data, "--level", "content")
    assert clean.exit_code == 0, clean.output
    assert clean.stdout.startswith("content: 18 match, 0 missing")


def test_verify_refuses_a_folder_that_is_nothing(tmp_path: Path):
    assert run("verify", tmp_path, "--level", "content").exit_code == 3


def test_list_shows_every_source_with_size_terms_and_state(tmp_path: Path):
    result = run("download", "--list", "--data-dir", tmp_path)
    assert result.exit_code == 0
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if line}
    assert "1,999,639,040" in rows["voc2012"]
    assert "~1,345,040,896" in rows["voc2010"]
    assert "absent" in rows["voc2010"]
    assert "Flickr" in result.stdout
    listed = json.loads(run("download", "--list", "--data-dir", tmp_path, "--json").stdout)
    assert {item["name"] for item in listed} >= {"voc2007", "pascal-context", "resnet32-cifar100"}
    assert not list(tmp_path.iterdir())


def test_list_tells_how_far_a_source_is(shop: Shop, mirror: Mirror, tmp_path: Path):
    data = tmp_path / "data"
    shop.write_manifests(mirror.url())
    source = load_source(str(shop.folder / "labels.toml"))
    del mirror.files["trainval.tar.gz"]
    run("download", shop.folder / "labels.toml", "--data-dir", data)
    assert state_in_words(plan_download(data, [source], {}, extract=True)) == "1 of 2 files"


def test_without_a_name_the_user_is_told(tmp_path: Path):
    result = run("download", "--data-dir", tmp_path)
    assert result.exit_code == 2
    assert "--list" in result.stderr


def test_offline_names_what_is_missing(shop: Shop, mirror: Mirror, tmp_path: Path):
    dataset = shop.write_manifests(mirror.url())
    result = run("download", dataset, "--data-dir", tmp_path / "data", "--offline")
    assert result.exit_code == 4
    for name in shop.files:
        assert name in result.stderr
    assert result.stdout.count("failed") == 3
    assert mirror.requests == []


def test_archives_that_the_user_has_are_taken(shop: Shop, mirror: Mirror, tmp_path: Path):
    dataset = shop.write_manifests(mirror.url())
    for name, data in shop.files.items():
        (tmp_path / name).write_bytes(data)
    words = ("download", dataset, "--data-dir", tmp_path / "data", "--from", tmp_path, "--offline")
    result = run(*words, "--no-extract")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("linked") == 3
    assert not (tmp_path / "data/trainval").exists()
    assert run(*words).stdout.count("unpacked") == 2


@pytest.mark.slow
def test_ctrl_c_is_tidy_and_the_next_run_goes_on(shop: Shop, mirror: Mirror, tmp_path: Path):
    shop.write_manifests(mirror.url())
    size = len(shop.files["VOCtrainval.tar"])
    words = ["download", str(shop.folder / "images.toml"), "--data-dir", str(tmp_path / "data")]
    code = "from vocprep.__main__ import main; main()"
    mirror.rate = 300_000
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True
    ) as child:
        while mirror.sent < size // 3 and child.poll() is None:
            time.sleep(0.005)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate()
    assert child.returncode == 130
    assert said == (
        "stopped; what was fetched is kept: run the same command again to go on from there\n"
    )
    mirror.rate = 0
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert mirror.requests[0][1] != mirror.requests[-1][1]
    assert mirror.sent < 1.5 * size


@pytest.mark.slow
def test_no_command_here_waits_for_torch():
    code = (
        "import sys, vocprep.cli.download, vocprep.downloading.download\n"
        "import vocprep.checks.data_content\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_options_defaults_are_the_librarys():
    with main.commands["download"].make_context("download", ["voc2012"]) as context:
        defaults = context.params
    library = DownloadOptions()
    for name in ("offline", "extract", "partial", "from_dir"):
        assert defaults[name] == getattr(library, name)


def test_a_folder_of_archives_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    words = ["download", "voc2012", "--data-dir", str(tmp_path), "--from", str(tmp_path / "none")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "none: no such folder of archives; check --from" in result.stderr
