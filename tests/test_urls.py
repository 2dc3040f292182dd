"""Paths that must be of this machine: a URL there is refused, and no folder s3: is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders.verbs import invoke

import vocprep
from vocprep.checks.lock import read_lock
from vocprep.errors import UsageError
from vocprep.features.weights import load_weights
from vocprep.heads.runs.folder import options_for
from vocprep.heads.runs.log import read_history
from vocprep.pascal_voc import PascalSet
from vocprep.storage.places import local_path, parse_place

URL = "s3://bucket/folder"
SAID = f"{URL}: expected a path of this machine, found a URL; give a path"

CALLS: dict[str, Callable[[Any], object]] = {
    "build_locked lock": lambda url: vocprep.build_locked(url, out="out"),
    "decode chart": lambda url: vocprep.DecodeOptions(chart=url),
    "decode data_dir": lambda url: vocprep.decode("pascal-context", out="out", data_dir=url),
    "decode overlays": lambda url: vocprep.DecodeOptions(overlays=url),
    "decode out": lambda url: vocprep.decode("pascal-context", out=url),
    "download data_dir": lambda url: vocprep.download("voc2012", url),
    "download from_dir": lambda url: vocprep.DownloadOptions(from_dir=url),
    "evaluate data_dir": lambda url: vocprep.EvaluateOptions(data_dir=url),
    "evaluate out": lambda url: vocprep.evaluate("run", "shards", out=url),
    "evaluate run": lambda url: vocprep.evaluate(url, "shards", out="out"),
    "list_sources": vocprep.list_sources,
    "load_run": vocprep.load_run,
    "options_for": lambda url: options_for(url, overrides={"resume": True}),
    "PascalSet images": lambda url: PascalSet(url, "labels", "labels.txt"),
    "PascalSet labels": lambda url: PascalSet("images", url, "labels.txt"),
    "PascalSet names": lambda url: PascalSet("images", "labels", url),
    "load_weights": lambda url: load_weights(url, Path()),
    "predict data_dir": lambda url: vocprep.PredictOptions(data_dir=url),
    "predict image": lambda url: vocprep.predict("run", [url]),
    "predict out": lambda url: vocprep.predict("run", "image.jpg", url),
    "predict run": lambda url: vocprep.predict(url, "image.jpg"),
    "read_history": read_history,
    "read_lock": read_lock,
    "report audit": lambda url: vocprep.ReportOptions(audit=url),
    "report data_dir": lambda url: vocprep.ReportOptions(data_dir=url),
    "report out": lambda url: vocprep.report("shards", url),
    "sample": lambda url: vocprep.sample(url, images=2),
    "verify lock": lambda url: vocprep.VerifyOptions(lock=url),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_every_path_of_the_library_refuses_a_url(
    call: Callable[[Any], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        call(URL)
    assert str(caught.value).removeprefix("preset ") == SAID
    with pytest.raises(UsageError, match="found a URL"):
        call(str(Path(URL)))  # which has one slash less
    assert list(tmp_path.iterdir()) == []


WORDS = {
    "build-shards --lock": ("build-shards", "--lock", URL, "--out", "out"),
    "decode --out": ("decode", "pascal-context", "--out", URL),
    "demo": ("demo", URL),
    "download --data-dir": ("download", "voc2012", "--data-dir", URL),
    "download --from": ("download", "voc2012", "--from", URL),
    "evaluate --out": ("evaluate", "run", "shards", "--out", URL),
    "inspect --lock": ("inspect", "shards", "--lock", URL),
    "predict --out": ("predict", "run", "image.jpg", "--out", URL),
    "predict run": ("predict", URL, "image.jpg"),
    "report --data-dir": ("report", "shards", "--out", "a.html", "--data-dir", URL),
    "report --out": ("report", "shards", "--out", URL),
    "sample": ("sample", URL),
    "train --out": ("train", "shards", "--out", URL),
    "train --preset": ("train", "shards", "--out", "out", "--preset", f"{URL}.toml"),
    "verify --lock": ("verify", "shards", "--lock", URL),
}


NAMED = {"demo": "DIR", "predict run": "RUN", "sample": "DIR", "train --preset": "preset"}
"""What an error calls a path whose option is not named by the key of ``WORDS``."""


@pytest.mark.parametrize(
    ("named", "words"),
    [(NAMED.get(key, key.split()[-1]), words) for key, words in WORDS.items()],
    ids=WORDS.keys(),
)
def test_every_path_of_the_command_line_refuses_a_url(
    named: str, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*words)
    assert result.exit_code == 2
    assert f"error: {named} {URL}" in result.output
    assert "expected a path of this machine, found a URL; give a path" in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        *(("inspect", "{}"), ("verify", "{}"), ("diff", "{}", "{}")),
        *(("train", "{}", "--out", "out"), ("evaluate", "{}")),
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.org/voc", "expected a folder or a URL of s3://, gs://, az://, file://"),
        ("s4://bucket/voc", "found one of s4://"),
        ("s3://", "expected s3://BUCKET/FOLDER"),
        ("s3://key:secret@bucket/voc", "credentials are taken from the environment"),
        ("s3://bucket/voc?X-Amz-Signature=secret", "credentials are taken from the environment"),
    ],
)
def test_urls_that_cannot_be_used_are_one_sentence(
    words: tuple[str, ...], url: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*(word.format(url) for word in words))
    assert result.exit_code == 2
    assert said in result.output
    assert len(result.output.splitlines()) == 1
    assert "secret" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_data_dir_named_by_the_environment_is_no_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOCPREP_DATA_DIR", URL)
    result = invoke("download", "voc2012")
    assert (result.exit_code, f"error: $VOCPREP_DATA_DIR {SAID}" in result.output) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_url_is_its_path(tmp_path: Path) -> None:
    result = invoke("sample", f"file://{tmp_path}/a%20tree", "--images", 2)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "a tree" / "VOCdevkit").is_dir()


@pytest.mark.parametrize("scheme", ["s3", "gs", "az", "file", "http", "s3n"])
@pytest.mark.parametrize("secret", ["marked", "mar/ked", "/marked", "marked/"])
@pytest.mark.parametrize("parse", [parse_place, local_path])
def test_credentials_in_urls_are_not_repeated(
    parse: Callable[[str], object], scheme: str, secret: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parse(f"{scheme}://MARKEDID:{secret}@bucket/folder?sig={secret}")
    assert "mar" not in str(caught.value).lower()
