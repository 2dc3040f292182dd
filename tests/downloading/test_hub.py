"""Weights by the name of a library's model: a revision is resolved once and holds from then on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from builders.hub import FIRST, REPOSITORY, SECOND, STATED, describe, file_of, publish
from builders.mirror import Mirror, close_after, status, web_page
from builders.progress import RecordedProgress
from click.testing import CliRunner
from safetensors.torch import save

from vocprep.checks.data_files import verify_data_files
from vocprep.cli.main import main
from vocprep.downloading.download import DownloadOptions, download
from vocprep.downloading.http import TransferOptions
from vocprep.downloading.outcomes import DownloadOutcome
from vocprep.errors import SourceUnavailableError, UsageError
from vocprep.features.libraries import pretrained
from vocprep.features.libraries.pretrained import PretrainedModel
from vocprep.features.weights import (
    file_tensor_digest,
    load_weights,
    official_source,
    tensor_digest,
    weights_label,
)
from vocprep.files.writing import sha256_hex

NAME = "timm:test_vit"
PATH = "weights/timm/test_vit.safetensors"
QUICK = TransferOptions(retries=2, backoff_seconds=0.001)


def weights(seed: int) -> bytes:
    draw = torch.Generator().manual_seed(seed)
    names = timm.create_model("test_vit").state_dict()
    return save({name: torch.randn(each.shape, generator=draw) for name, each in names.items()})


ONE, OTHER = weights(1), weights(2)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    with Mirror({}) as mirror:
        publish(mirror, ONE)
        monkeypatch.setenv("HF_ENDPOINT", mirror.url())
        yield mirror


def fetch(data_dir: Path, name: str = NAME, **options: object) -> DownloadOutcome:
    chosen = DownloadOptions(**{"transfer": QUICK, **options})
    (outcome,) = download(name, data_dir, chosen, RecordedProgress())
    return outcome


def recorded(data_dir: Path) -> dict[str, object]:
    files: dict[str, dict[str, object]] = json.loads((data_dir / "sources.lock.json").read_text())[
        "files"
    ]
    return files[PATH]


def test_a_revision_is_fetched_verified_recorded_and_kept_offline(
    hub: Mirror, tmp_path: Path
) -> None:
    assert fetch(tmp_path).state == "fetched"
    assert (tmp_path / PATH).read_bytes() == ONE
    assert recorded(tmp_path) == {
        "sha256": sha256_hex(ONE),
        "bytes": len(ONE),
        "tensors_sha256": file_tensor_digest(tmp_path / PATH),
        "repository": REPOSITORY,
        "revision": FIRST,
        "license": "apache-2.0",
    }
    asked = len(hub.requests)
    assert [fetch(tmp_path).state, fetch(tmp_path, offline=True).state] == ["present"] * 2
    assert len(hub.requests) == asked
    assert verify_data_files(tmp_path, 1).ok
    (tmp_path / PATH).write_bytes(OTHER)
    assert not verify_data_files(tmp_path, 1).ok


def test_a_version_of_them_is_called_by_revision_and_license(hub: Mirror, tmp_path: Path) -> None:
    fetch(tmp_path)
    digest = tensor_digest(load_weights(None, tmp_path, NAME))
    label = f"official {REPOSITORY}, revision {FIRST[:12]}"
    assert weights_label(None, digest, NAME, tmp_path) == label
    assert weights_label(str(tmp_path / PATH), digest, NAME, tmp_path) == label
    assert weights_label(None, "ab" * 32, NAME, tmp_path) == "own (abababababab…)"
    source = official_source(NAME, tmp_path)
    assert source is not None
    assert source.homepage == f"https://huggingface.co/{REPOSITORY}"
    assert source.terms == "Weights of timm:test_vit: apache-2.0."


def test_a_newer_revision_is_not_taken_until_the_record_is_deleted(
    hub: Mirror, tmp_path: Path
) -> None:
    fetch(tmp_path)
    publish(hub, OTHER, SECOND)
    (tmp_path / PATH).unlink()
    assert fetch(tmp_path).state == "fetched"
    assert (tmp_path / PATH).read_bytes() == ONE
    other = tmp_path / "other"
    other.mkdir()
    (other / "sources.lock.json").write_bytes((tmp_path / "sources.lock.json").read_bytes())
    assert fetch(other).sha256 == sha256_hex(ONE)
    for path in ("sources.lock.json", PATH):
        (tmp_path / path).unlink()
    assert fetch(tmp_path).state == "fetched"
    assert (recorded(tmp_path)["revision"], fetch(tmp_path).sha256) == (SECOND, sha256_hex(OTHER))


def test_a_file_that_is_there_already_is_verified_first(hub: Mirror, tmp_path: Path) -> None:
    (tmp_path / PATH).parent.mkdir(parents=True)
    (tmp_path / PATH).write_bytes(ONE)
    assert (fetch(tmp_path).state, recorded(tmp_path)["revision"]) == ("verified", FIRST)
    other = tmp_path / "other"
    (other / PATH).parent.mkdir(parents=True)
    (other / PATH).write_bytes(OTHER)
    assert fetch(other).state == "fetched"
    assert (other / f"{PATH}.wrong").read_bytes() == OTHER


def test_an_interrupted_download_goes_on_from_its_byte(hub: Mirror, tmp_path: Path) -> None:
    hub.faults.extend([None, close_after(50_000), status(503)])
    none_left = fetch(tmp_path, transfer=TransferOptions(retries=0))
    assert (none_left.exit_code, (tmp_path / PATH).exists()) == (4, False)
    assert (tmp_path / f"{PATH}.part").stat().st_size == 50_000
    publish(hub, OTHER, SECOND)  # nothing is recorded before the file is here: the newest is taken
    hub.faults.clear()
    assert fetch(tmp_path).sha256 == sha256_hex(OTHER)
    assert hub.requests[-1] == (file_of(SECOND), None)  # bytes of another file are not kept

    again = tmp_path / "again"
    hub.faults.extend([None, close_after(50_000)])
    assert fetch(again).sha256 == sha256_hex(OTHER)
    assert hub.requests[-1] == (file_of(SECOND), "bytes=50000-")


def test_wrong_bytes_are_not_kept(hub: Mirror, tmp_path: Path) -> None:
    hub.files[file_of(FIRST)] = OTHER
    outcome = fetch(tmp_path)
    assert outcome.exit_code == 3
    assert outcome.error is not None
    assert f"expected sha256 {sha256_hex(ONE)}, found {sha256_hex(OTHER)}" in outcome.error
    assert not (tmp_path / PATH).exists()
    assert not (tmp_path / "sources.lock.json").exists()


def test_a_hub_that_answers_late_is_asked_again(hub: Mirror, tmp_path: Path) -> None:
    hub.faults.extend([status(503), close_after(10), None])
    assert fetch(tmp_path).ok


@pytest.mark.parametrize(
    ("stated", "error"),
    [
        (None, "answered 404 Not Found: the file is not there; fetch the file by hand"),
        (b"{}", r"no description of a repository \(sha: expected a value, found none\)"),
        (b"<html>", r"no description of a repository \(not JSON"),
        (describe(ONE, "main"), "no description of a repository .*sha 'main'"),
        (
            describe(ONE, FIRST, "pytorch_model.bin"),
            r"expected a file model\.safetensors in .*, found README\.md, pytorch_model\.bin",
        ),
        (b" " * (5 << 20), "sends more than 4,194,304 bytes"),
    ],
    ids=["none", "empty", "page", "no commit", "other file", "endless"],
)
def test_a_repository_that_is_not_as_expected_is_one_sentence(
    hub: Mirror, tmp_path: Path, stated: bytes | None, error: str
) -> None:
    hub.files.pop(STATED)
    if stated is not None:
        hub.files[STATED] = stated
    outcome = fetch(tmp_path)
    assert outcome.exit_code == 4
    with pytest.raises(SourceUnavailableError, match=f"^timm:test_vit: .*{error}"):
        raise SourceUnavailableError(outcome.error)
    assert not (tmp_path / "weights").exists()


def test_a_login_page_is_named(hub: Mirror, tmp_path: Path) -> None:
    hub.always = web_page()
    outcome = fetch(tmp_path)
    assert outcome.error is not None
    assert "with a web page instead of the file" in outcome.error
    hub.always = status(401)
    assert "answered 401" in str(fetch(tmp_path).error)


def test_offline_a_file_of_ones_own_is_taken_by_its_name(hub: Mirror, tmp_path: Path) -> None:
    missing = fetch(tmp_path / "data", offline=True)
    assert (missing.exit_code, "--offline forbids" in str(missing.error)) == (4, True)
    own = tmp_path / "own"
    own.mkdir()
    (own / "test_vit.safetensors").write_bytes(OTHER)
    assert fetch(tmp_path / "data", offline=True, from_dir=own).ok
    assert recorded(tmp_path / "data") == {"sha256": sha256_hex(OTHER), "bytes": len(OTHER)}
    assert hub.requests == []
    digest = file_tensor_digest(own / "test_vit.safetensors")
    assert weights_label(None, digest, NAME, tmp_path / "data").startswith("own (")


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("timm:test_vot", "expected a model of timm .*; the nearest are .*test_vit"),
        ("timm:test_vit.none", r"expected one of the tags that timm .*, r160_in1k"),
        ("timm:../x", r"expected timm:NAME with a name of timm's, of letters"),
        ("timm:hf-hub:some/where", "expected timm:NAME with a name of timm's"),
        ("torchvision:resnet1", "torchvision has no such model"),
        ("timm:resnet10t.none", "expected one of the tags"),
    ],
)
def test_names_that_no_library_has_are_refused(
    hub: Mirror, tmp_path: Path, name: str, error: str
) -> None:
    try:
        outcome = fetch(tmp_path, name)
    except UsageError as usage:
        found = str(usage)
    else:
        found = str(outcome.error)
        assert outcome.exit_code == 2
    with pytest.raises(UsageError, match=error):
        raise UsageError(found)
    assert hub.requests == []


def test_a_published_file_begins_its_digest_in_its_name(
    hub: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torchvision's own URLs lead to the internet.
    url = hub.url(f"models/resnet18-{sha256_hex(ONE)[:8]}.pth")
    published = PretrainedModel(url=url)
    monkeypatch.setattr(pretrained, "_of_torchvision", lambda _: published)
    hub.files[url.removeprefix(hub.url())] = OTHER
    outcome = fetch(tmp_path, "torchvision:resnet18")
    expected = f"expected a sha256 that begins {sha256_hex(ONE)[:8]}"
    assert expected in str(outcome.error)


def test_from_the_command_line(hub: Mirror, tmp_path: Path) -> None:
    found = CliRunner().invoke(main, ["download", NAME, "--data-dir", str(tmp_path)])
    assert found.exit_code == 0, found.output
    assert PATH in found.output
    assert "fetched" in found.output
