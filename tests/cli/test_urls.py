"""The commands on a version in an object store: what they print and leave is that of the folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.s3 import ACCESS_KEY, S3, SECRET_KEY
from builders.verbs import contents
from click.testing import Result
from safetensors.torch import save_file

from vocprep.features.networks import MAKERS

Run = Callable[..., Result]

TRAIN = ("--epochs", 1, "--device", "cpu")
CREDENTIALS = (ACCESS_KEY.encode(), SECRET_KEY.encode())


@pytest.fixture
def url(s3: S3, shards: Path) -> str:
    """The version of the tests of the command line, without the hint of where its weights are."""
    s3.put_folder(shards, "voc")
    return s3.url("voc")


def test_commands_that_print_say_of_a_url_what_they_say_of_the_folder(
    url: str, shards: Path, run: Path, vocprep: Run
) -> None:
    for words in (
        ("inspect", "{}"),
        ("inspect", "{}", "--json"),
        ("verify", "{}", "--level", "content"),
        ("diff", "{}", shards),
        ("evaluate", run, "{}", "--device", "cpu", "--classes"),
        ("evaluate", run, "{}", "--device", "cpu", "--json"),
    ):
        there, here = (
            vocprep(*(str(word).format(place) for word in words)) for place in (url, shards)
        )
        assert there.exit_code == here.exit_code == 0, there.output
        assert there.output == here.output.replace(str(shards), url)
        assert not any(secret.decode() in there.output for secret in CREDENTIALS)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["resident", "streaming"])
def test_training_on_a_url_gives_the_same_run(
    mode: str, url: str, run: Path, vocprep: Run, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = vocprep("train", url, "--out", out, *TRAIN, "--mode", mode, "--set", "lanes=1")
    assert result.exit_code == 0, result.output
    found, expected = contents(out), contents(run)
    for name in ("run.json", "model.safetensors", "metrics.jsonl", "options.toml"):
        assert found[name] == expected[name], name
    assert found.keys() == expected.keys()
    for name, data in found.items():
        assert not any(secret in data for secret in (*CREDENTIALS, url.encode())), name


@pytest.mark.slow
def test_a_run_of_a_url_goes_on_and_labels_images(
    url: str, sample_tree: Path, vocprep: Run, tmp_path: Path
) -> None:
    out, image = tmp_path / "run", next(sample_tree.rglob("JPEGImages/*.jpg"))
    for words in (
        ("train", url, "--out", out, *TRAIN, "--checkpoint-every", 0),
        ("train", url, "--out", out, *TRAIN, "--resume"),
        ("predict", out, image, "--out", tmp_path / "labelled", "--device", "cpu"),
    ):
        result = vocprep(*words)
        assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "labelled").iterdir())) == 2


@pytest.mark.slow
def test_weights_of_ones_own_are_named_where_a_run_of_a_url_is_used(
    s3: S3, sample_tree: Path, vocprep: Run, tmp_path: Path
) -> None:
    weights = tmp_path / "own.safetensors"
    save_file(MAKERS["resnet32-cifar100"]().state_dict(), weights)
    result = vocprep(
        *("build-shards", "pascal-context", "--data-dir", sample_tree, "--limit-per-split", 1),
        *("--out", tmp_path / "own", "--weights", weights, "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    s3.put_folder(tmp_path / "own")
    s3.delete(".weights.json")
    run, image = tmp_path / "run", next(sample_tree.rglob("JPEGImages/*.jpg"))
    train = ("train", s3.url(), "--out", run, *TRAIN, "--set", "encoder=none")
    predict = ("predict", run, image, "--out", tmp_path / "labelled", "--device", "cpu")
    assert vocprep(*train).exit_code == 0
    refused = vocprep(*predict)
    assert refused.exit_code == 4
    assert "give the --weights of the build: their file" in refused.output
    assert vocprep(*predict, "--weights", weights).exit_code == 0
    assert vocprep(*train, "--overwrite", "--weights", weights).exit_code == 0
    assert vocprep(*predict).exit_code == 0
    verified = ("verify", s3.url(), "--level", "recompute", "--data-dir", sample_tree)
    refused = vocprep(*verified, "--device", "cpu")
    assert refused.exit_code == 4
    assert "give their file with --weights PATH" in refused.output
    assert vocprep(*verified, "--device", "cpu", "--weights", weights).exit_code == 0


@pytest.mark.slow
def test_embeddings_of_a_url_are_reused(
    url: str, shards: Path, sample_tree: Path, vocprep: Run, tmp_path: Path
) -> None:
    result = vocprep(
        *("build-shards", "pascal-context", "--data-dir", sample_tree, "--out", tmp_path / "out"),
        *(
            "--weights",
            "random:0",
            "--limit-per-split",
            2,
            "--samples-per-shard",
            1,
            "--device",
            "cpu",
        ),
        *("--reuse", url),
    )
    assert result.exit_code == 0, result.output
    assert "embeddings of 4 records reused" in result.output
    for path in sorted(shards.glob("*.h5")):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_what_a_url_lacks_is_one_sentence(s3: S3, url: str, run: Path, vocprep: Run) -> None:
    for words in (("inspect",), ("train", "--out", "out"), ("evaluate", run), ("diff", url)):
        result = vocprep(*words, s3.url("nothing"))
        assert result.exit_code == 3
        assert result.output == (
            f"error: {s3.url('nothing')}: expected a dataset version, found no dataset.json "
            "there; check the URL, or publish a version there with vocprep push\n"
        )
    result = vocprep("evaluate", url)
    assert result.exit_code == 2
    assert "expected at least one run and the shards to score it on" in result.output


def test_a_damaged_shard_ends_a_training_with_one_sentence(
    s3: S3, url: str, vocprep: Run, tmp_path: Path
) -> None:
    name = next(name for name in s3.names("voc") if name.startswith("train-"))
    s3.put(f"voc/{name}", s3.get(f"voc/{name}")[:-1])
    result = vocprep("train", url, "--out", tmp_path / "run", *TRAIN)
    assert result.exit_code == 3
    assert result.output.startswith(f"error: {url}/{name}: expected ")
    assert result.output.endswith("publish it again with vocprep push --if-exists overwrite\n")
    assert len(result.output.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_errors_are_json_where_that_was_asked_for(s3: S3, vocprep: Run) -> None:
    result = vocprep("inspect", s3.url("nothing"), "--json")
    value = json.loads(result.stdout)
    assert (value["ok"], value["exit_code"]) == (False, 3)
    assert value["error"].startswith(s3.url("nothing"))
