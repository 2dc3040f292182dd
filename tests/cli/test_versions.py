"""Dataset versions through the command line: resume, quarantine, lock, verify, diff."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.verbs import build_words
from builders.version_bytes import version_bytes
from builders.versions import JPEGS
from click.testing import Result

pytestmark = pytest.mark.slow

Run = Callable[..., Result]


def done(result: Result, code: int = 0) -> str:
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.stdout


def said(result: Result, code: int) -> str:
    """The one sentence of an error."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture
def copied(shards: Path, tmp_path: Path) -> Path:
    shutil.copytree(shards, tmp_path / "copied")
    return tmp_path / "copied"


@pytest.fixture
def lock(shards: Path, tmp_path: Path, vocprep: Run) -> Path:
    text = done(vocprep("inspect", shards, "--lock", tmp_path / "x.lock.json"))
    assert f"lock file   {tmp_path / 'x.lock.json'}" in text
    return tmp_path / "x.lock.json"


def test_same_command_again_says_that_all_is_there(
    sample_tree: Path, copied: Path, vocprep: Run
) -> None:
    before = version_bytes(copied)
    assert "up to date" in done(vocprep(*build_words(sample_tree, copied)))
    assert version_bytes(copied) == before


def test_bad_sample_stops_with_code_5_or_is_listed(
    tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    jpeg = sorted((tree / JPEGS).iterdir())[0]
    jpeg.write_bytes(jpeg.read_bytes()[:800])
    out = tmp_path / "out"
    line = said(vocprep(*build_words(tree, out)), 5)
    assert str(jpeg) in line
    assert "--max-failures" in line
    text = done(vocprep(*build_words(tree, out, "--max-failures", "30%")))
    assert f"\nquarantined 1 of 4 images, left out: see {out / 'quarantine.jsonl'}\n" in text
    assert json.loads((out / "quarantine.jsonl").read_text())["id"] == jpeg.stem
    assert "quarantined 1" in done(vocprep("inspect", out))
    assert "quarantined images: 1" in done(vocprep("verify", out))
    trained = vocprep("train", out, "--out", tmp_path / "run", "--epochs", 1, "--device", "cpu")
    assert "1 quarantined images are not in" in trained.stderr
    assert "quarantined" not in done(vocprep("verify", tree, "--level", "content"), 1)


@pytest.mark.parametrize("text", ["x", "-1", "101%", "%", "1.5"])
def test_senseless_quota_is_a_usage_error(
    text: str, sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    assert "max_failures" in said(
        vocprep(*build_words(sample_tree, tmp_path / "out", "--max-failures", text)), 2
    )


# Locks


def test_copy_is_verified_by_its_lock_alone(copied: Path, lock: Path, vocprep: Run) -> None:
    text = done(vocprep("verify", copied, "--lock", lock))
    assert "lock: 8 match" in text


def test_other_version_is_named_against_the_lock(
    sample_tree: Path, lock: Path, tmp_path: Path, vocprep: Run
) -> None:
    out = tmp_path / "other"
    done(vocprep(*build_words(sample_tree, out, "--schema", "context59")))
    assert "schema.name" in done(vocprep("verify", out, "--lock", lock), 1)


def test_locked_version_is_built_again(
    sample_tree: Path, shards: Path, lock: Path, tmp_path: Path, vocprep: Run
) -> None:
    out = tmp_path / "again"
    done(vocprep("build-shards", "--lock", lock, "--data-dir", sample_tree, "--out", out))
    assert version_bytes(out) == version_bytes(shards)


def test_build_that_is_not_the_locked_version_is_not_published(
    tree: Path, lock: Path, tmp_path: Path, vocprep: Run
) -> None:
    jpeg = sorted((tree / JPEGS).iterdir())[0]
    jpeg.write_bytes(jpeg.read_bytes() + b"\0")
    out = tmp_path / "again"
    result = vocprep("build-shards", "--lock", lock, "--data-dir", tree, "--out", out)
    line = said(result, 3)
    assert "source_id" in line
    assert "nothing was published" in line
    assert not (out / "dataset.json").exists()


def test_tree_that_cannot_give_the_locked_recipe_is_refused_before_any_work(
    tree: Path, lock: Path, tmp_path: Path, vocprep: Run
) -> None:
    train = tree / "VOCdevkit/VOC2010/ImageSets/Main/train.txt"
    train.write_text("\n".join(train.read_text().split()[1:]) + "\n")
    result = vocprep("build-shards", "--lock", lock, "--data-dir", tree, "--out", tmp_path / "out")
    assert "splits.train.ids_sha256" in said(result, 3)
    assert not (tmp_path / "out").exists()


def test_choices_beside_a_lock_are_refused(
    sample_tree: Path, lock: Path, tmp_path: Path, vocprep: Run
) -> None:
    words = ["build-shards", "--lock", lock, "--data-dir", sample_tree, "--out", tmp_path / "out"]
    assert "--schema" in said(vocprep(*words, "--schema", "context59"), 2)
    assert "--format" in said(vocprep(*words, "--format", "hdf5"), 2)


def test_build_of_nothing_is_a_usage_error(tmp_path: Path, vocprep: Run) -> None:
    assert "--lock" in said(vocprep("build-shards", "--out", tmp_path / "out"), 2)


# verify


def test_levels_of_verify_build_on_each_other(
    shards: Path, sample_tree: Path, vocprep: Run
) -> None:
    assert done(vocprep("verify", shards)).startswith("files: 9 match")
    text = done(vocprep("verify", shards, "--level", "content"))
    assert "content: 4 match" in text
    words = ("verify", shards, "--level", "recompute", "--data-dir", sample_tree)
    text = done(vocprep(*words, "--samples", "all", "--device", "cpu"))
    assert "recompute: 4 match" in text
    assert "to the bit" in text
    assert "of 196 patches recomputed: largest deviation 0" in text
    assert "untrained heads" in text


def test_recompute_as_json(shards: Path, sample_tree: Path, vocprep: Run) -> None:
    words = ("verify", shards, "--level", "recompute", "--data-dir", sample_tree)
    value = json.loads(done(vocprep(*words, "--samples", 1, "--device", "cpu", "--json")))
    assert value["ok"] is True
    assert [report["level"] for report in value["reports"]] == ["files", "content", "recompute"]
    assert value["measured"]["embeddings"]["patches"] == 49
    assert value["measured"]["numerics_class_differences"] == []


def test_damage_is_named_with_code_1(copied: Path, vocprep: Run) -> None:
    shard = sorted(copied.glob("*.h5"))[0]
    data = bytearray(shard.read_bytes())
    data[5000] ^= 1
    shard.write_bytes(data)
    text = done(vocprep("verify", copied), 1)
    assert f"changed: {shard.name}" in text
    value = json.loads(done(vocprep("verify", copied, "--json"), 1))
    assert value["reports"][0]["differences"][0]["path"] == shard.name


def test_dataset_without_its_index_is_still_taken_for_one(copied: Path, vocprep: Run) -> None:
    (copied / "dataset.json").unlink()
    assert "dataset.json" in done(vocprep("verify", copied), 1)


def test_options_of_the_other_kind_of_folder_are_refused(
    sample_tree: Path, lock: Path, vocprep: Run
) -> None:
    assert "data dir" in said(vocprep("verify", sample_tree, "--level", "recompute"), 2)
    assert "--lock" in said(vocprep("verify", sample_tree, "--lock", lock), 2)


@pytest.mark.parametrize("text", ["x", "0", "-3"])
def test_senseless_number_of_samples_is_a_usage_error(
    text: str, shards: Path, sample_tree: Path, vocprep: Run
) -> None:
    words = ("verify", shards, "--level", "recompute", "--data-dir", sample_tree)
    assert "samples" in said(vocprep(*words, "--samples", text), 2)


# diff


def test_diff_of_a_copy_says_so(shards: Path, copied: Path, vocprep: Run) -> None:
    said = (
        "the same data by the same recipe, by their indexes; their shards were not read: vocprep "
        "verify checks them"
    )
    assert said in done(vocprep("diff", shards, copied))
    assert json.loads(done(vocprep("diff", shards, copied, "--json")))["same"] is True


def test_diff_names_recipe_samples_and_labels(
    sample_tree: Path, shards: Path, tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    mats = sorted((tree / "trainval").iterdir())
    same_size = [path for path in mats[1:] if path.stat().st_size != mats[0].stat().st_size]
    jpegs = sorted((tree / JPEGS).iterdir())
    shutil.copy(same_size[0], mats[0])
    shutil.copy(tree / JPEGS / f"{same_size[0].stem}.jpg", jpegs[0])
    out = tmp_path / "v2"
    done(vocprep(*build_words(tree, out, "--reuse", shards)))
    text = done(vocprep("diff", shards, out), 1)
    assert "records that differ: 1 (image 1, label 1, targets 1, embeddings 1)" in text
    assert mats[0].stem in text
    assert "pixels whose class changed" in text
    assert "embeddings of 49 patches: largest deviation" in text
    value = json.loads(done(vocprep("diff", shards, out, "--json"), 1))
    assert value["same"] is False
    assert value["samples"][0]["id"] == mats[0].stem
    assert (
        sum(flip["pixels"] for flip in value["class_changes"])
        == (value["samples"][0]["changed_pixels"])
    )


def test_diff_names_the_recipe_field_that_is_the_cause(
    sample_tree: Path, shards: Path, tmp_path: Path, vocprep: Run
) -> None:
    done(vocprep(*build_words(sample_tree, tmp_path / "v2", "--void-unknown")))
    text = done(vocprep("diff", shards, tmp_path / "v2"), 1)
    assert "recipe      schema.void_unknown: False and True" in text


def test_diff_of_what_is_no_dataset_is_a_data_error(
    shards: Path, tmp_path: Path, vocprep: Run
) -> None:
    assert "build-shards" in said(vocprep("diff", shards, tmp_path), 3)


# What a first user stumbled on


def test_split_without_a_good_picture_is_shown_and_verified(
    tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    for name in (tree / "VOCdevkit/VOC2010/ImageSets/Main/val.txt").read_text().split():
        (tree / JPEGS / f"{name}.jpg").write_bytes(b"x")
    out = tmp_path / "out"
    built = vocprep(*build_words(tree, out, "--max-failures", "50%"))
    assert "2 records: train 2, val 0; " in done(built)
    assert "note: no record in split val\n" in built.stderr
    assert "content: 2 match" in done(vocprep("verify", out, "--level", "content"))
    lines = done(vocprep("inspect", out)).splitlines()
    assert ["val", "0", "0", "0.0", "0.0"] in [line.split() for line in lines]
    assert "note: no record in split val" in lines


def test_missing_files_are_bad_samples_where_some_are_allowed(
    tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    jpeg = sorted((tree / JPEGS).iterdir())[0]
    jpeg.unlink()
    assert "missing" in said(vocprep(*build_words(tree, tmp_path / "out")), 3)
    done(vocprep(*build_words(tree, tmp_path / "out", "--max-failures", "1")))
    bad = json.loads((tmp_path / "out" / "quarantine.jsonl").read_text())
    assert (bad["id"], bad["stage"], bad["image_sha256"]) == (jpeg.stem, "read", None)


def test_locked_version_with_bad_samples_is_built_again(
    tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    sorted((tree / JPEGS).iterdir())[0].write_bytes(b"x")
    lock, again = tmp_path / "x.lock.json", tmp_path / "again"
    done(vocprep(*build_words(tree, tmp_path / "out", "--max-failures", "1")))
    done(vocprep("inspect", tmp_path / "out", "--lock", lock))
    done(vocprep("build-shards", "--lock", lock, "--data-dir", tree, "--out", again))
    assert version_bytes(again) == version_bytes(tmp_path / "out")


def test_edited_lock_is_refused(copied: Path, lock: Path, vocprep: Run) -> None:
    value = json.loads(lock.read_text())
    for change in ({"version": "foo"}, {"weights": "x"}, {"probes": []}, {"samples_per_shard": -5}):
        lock.write_text(json.dumps({**value, **change}))
        assert str(lock) in said(vocprep("verify", copied, "--lock", lock), 3)


def test_lock_pins_the_files_beside_the_shards(copied: Path, lock: Path, vocprep: Run) -> None:
    from vocprep.shards.index import describe_file, read_index, write_index  # noqa: PLC0415

    (copied / "README.md").write_text("# lie")
    index = read_index(copied)
    files = tuple(
        describe_file("README.md", b"# lie") if entry.name == "README.md" else entry
        for entry in index.files
    )
    write_index(copied, index.model_copy(update={"files": files}).sealed())
    assert "files: 9 match" in done(vocprep("verify", copied))
    assert "changed: README.md" in done(vocprep("verify", copied, "--lock", lock), 1)


def test_lock_of_an_own_dataset_asks_for_its_manifest(
    sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    shipped = Path(__file__).parents[2] / "manifests/datasets/pascal-context.toml"
    own = tmp_path / "mine.toml"
    shutil.copy(shipped, own)
    words = [str(word) for word in build_words(sample_tree, tmp_path / "out")]
    words[1] = str(own)
    lock = tmp_path / "x.lock.json"
    done(vocprep(*words))
    done(vocprep("inspect", tmp_path / "out", "--lock", lock))
    again = ("--lock", lock, "--data-dir", sample_tree, "--out", tmp_path / "again")
    assert "mine.toml" in said(vocprep("build-shards", *again), 2)
    done(vocprep("build-shards", own, *again))


def test_damaged_index_is_named_with_the_way_out(
    sample_tree: Path, copied: Path, vocprep: Run
) -> None:
    for text in ("", "{}", (copied / "dataset.json").read_text().replace("h5py", "h6py")):
        (copied / "dataset.json").write_text(text)
        assert "--if-exists overwrite" in said(vocprep(*build_words(sample_tree, copied)), 3)
    done(vocprep(*build_words(sample_tree, copied, "--if-exists", "overwrite")))


def test_verify_of_an_unfinished_build_says_how_to_go_on(tmp_path: Path, vocprep: Run) -> None:
    (tmp_path / "out" / ".tmp-build").mkdir(parents=True)
    text = done(vocprep("verify", tmp_path / "out"), 1)
    assert "missing: dataset.json" in text
    assert "run the same vocprep build-shards again" in text


def test_verify_says_what_it_did_not_look_at(copied: Path, lock: Path, vocprep: Run) -> None:
    (copied / "notes.txt").write_text("x")
    assert "neither content nor lock file" in done(vocprep("verify", copied, "--lock", lock), 1)


def test_negative_seed_is_a_usage_error(shards: Path, sample_tree: Path, vocprep: Run) -> None:
    words = ("verify", shards, "--level", "recompute", "--data-dir", sample_tree)
    assert "seed -1" in said(vocprep(*words, "--seed", -1), 2)


def test_card_and_croissant_do_not_pass_untrained_weights_off_as_trained(shards: Path) -> None:
    for name in ("README.md", "croissant.json"):
        text = (shards / name).read_text()
        assert "untrained (random:0)" in text
        assert "BSD" not in text


def test_reused_embeddings_are_counted(
    sample_tree: Path, shards: Path, tmp_path: Path, vocprep: Run
) -> None:
    words = build_words(sample_tree, tmp_path / "out", "--schema", "context59", "--reuse", shards)
    assert "embeddings of 4 records reused" in done(vocprep(*words))


def test_write_error_names_the_file_that_the_user_asked_for(
    shards: Path, tmp_path: Path, vocprep: Run
) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    line = said(vocprep("inspect", shards, "--lock", target), 3)
    assert str(target) in line
    assert ".tmp-" not in line


def test_own_label_space_goes_with_the_version(
    sample_tree: Path, tmp_path: Path, vocprep: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is built by one's own schema is used without its file, and built again with it."""
    manifests = Path(__file__).parents[2] / "manifests"
    labels = (manifests / "labels/context460.toml").read_text()
    (tmp_path / "mylabels.toml").write_text(labels)
    text = (manifests / "datasets/pascal-context.toml").read_text()
    (tmp_path / "mine.toml").write_text(text.replace('["context460",', '["mylabels.toml",'))
    monkeypatch.chdir(tmp_path)
    words = [str(word) for word in build_words(sample_tree, Path("out"))]
    words[1] = "mine.toml"
    done(vocprep(*words))
    done(vocprep("inspect", "out", "--lock", "x.lock.json"))
    again = ("--lock", "x.lock.json", "--data-dir", sample_tree, "--out", "again")
    done(vocprep("build-shards", "mine.toml", *again))
    words = ["verify", "out", "--level", "recompute", "--dataset", "mine.toml"]
    done(vocprep(*words, "--data-dir", sample_tree, "--device", "cpu", "--samples", 1))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "content: 4 match" in done(vocprep("verify", "../out", "--level", "content"))
    train = ("train", "../out", "--out", "run", "--epochs", 1, "--device", "cpu")
    done(vocprep(*train))
    done(vocprep("evaluate", "run", "../out", "--device", "cpu"))
