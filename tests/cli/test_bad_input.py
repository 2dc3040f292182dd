"""Bad input through the command line: one sentence, the right exit code, nothing half-made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from filelock import FileLock
from PIL import Image
from scipy.io import savemat

from vocprep.features.weights import load_weights

pytestmark = pytest.mark.slow

USAGE, DATA, UNAVAILABLE, QUOTA = 2, 3, 4, 5
STAGING = ".tmp-build"
"""Where the shards that a failed build has finished wait for the next run."""
ID = "2010_000008"
"""The last picture of those that a limit of 2 takes: what comes before it is done by then."""
JPEG = f"VOCdevkit/VOC2010/JPEGImages/{ID}.jpg"
MAT = f"trainval/{ID}.mat"
SPLIT = "VOCdevkit/VOC2010/ImageSets/Main/val.txt"

Run = Callable[..., Result]


def build_words(tree: Path, out: Path, *more: object) -> list[object]:
    return [
        *("build-shards", "pascal-context", "--data-dir", tree, "--out", out),
        *("--weights", "random:0", "--limit-per-split", 2, "--device", "cpu", *more),
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock" and path.parent.name != STAGING
    }


def assert_refused(result: Result, code: int, *said: object) -> None:
    """One sentence on stderr that holds the texts, nothing on stdout, the exit code."""
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert "Traceback" not in result.stderr
    for text in said:
        assert str(text) in lines[0]


def labels_like(tree: Path) -> np.ndarray[tuple[int, int], np.dtype[np.uint16]]:
    with Image.open(tree / JPEG) as picture:
        return np.ones((picture.height, picture.width), dtype=np.uint16)


def missing_image(tree: Path) -> None:
    (tree / JPEG).unlink()


def folder_as_image(tree: Path) -> None:
    (tree / JPEG).unlink()
    (tree / JPEG).mkdir()


def empty_image(tree: Path) -> None:
    (tree / JPEG).write_bytes(b"")


def cut_image(tree: Path) -> None:
    data = (tree / JPEG).read_bytes()
    (tree / JPEG).write_bytes(data[: len(data) // 2])


def text_as_image(tree: Path) -> None:
    (tree / JPEG).write_text("<html>firewall</html>")


def missing_mat(tree: Path) -> None:
    (tree / MAT).unlink()


def cut_mat(tree: Path) -> None:
    data = (tree / MAT).read_bytes()
    (tree / MAT).write_bytes(data[: len(data) // 2])


def empty_mat(tree: Path) -> None:
    (tree / MAT).write_bytes(b"")


def mat_without_label_map(tree: Path) -> None:
    savemat(tree / MAT, {"Labels": labels_like(tree)}, do_compression=True)


def mat_of_doubles(tree: Path) -> None:
    savemat(tree / MAT, {"LabelMap": labels_like(tree).astype(float)}, do_compression=True)


def mat_with_strange_id(tree: Path) -> None:
    labels = labels_like(tree)
    labels[7, 9] = 460
    savemat(tree / MAT, {"LabelMap": labels}, do_compression=True)


def mat_of_another_size(tree: Path) -> None:
    savemat(tree / MAT, {"LabelMap": labels_like(tree)[1:]}, do_compression=True)


def mat_of_a_turned_picture(tree: Path) -> None:
    savemat(tree / MAT, {"LabelMap": labels_like(tree)[:, :-3].T}, do_compression=True)


def unknown_id_in_split(tree: Path) -> None:
    (tree / SPLIT).write_text("2010_000001x\n")


def no_split_file(tree: Path) -> None:
    (tree / SPLIT).unlink()


def doubled_id_in_split(tree: Path) -> None:
    (tree / SPLIT).write_text(f"{ID}\n{ID}\n")


def empty_splits(tree: Path) -> None:
    for path in (tree / SPLIT).parent.iterdir():
        path.write_text("")


BROKEN_LISTS = (
    *(missing_image, missing_mat, unknown_id_in_split, no_split_file, doubled_id_in_split),
    empty_splits,
)
"""Damage that the plan finds; all other is a bad sample, of which none is allowed."""
TREES = [
    (missing_image, JPEG, "missing"),
    (folder_as_image, JPEG, "cannot be read"),
    (empty_image, JPEG, "an empty file, where a JPEG picture is expected"),
    (cut_image, JPEG, "does not decode"),
    (text_as_image, JPEG, "a web page, where a JPEG picture is expected"),
    (missing_mat, MAT, "missing"),
    (cut_mat, MAT, "MATLAB"),
    (empty_mat, MAT, "MATLAB"),
    (mat_without_label_map, MAT, "LabelMap"),
    (mat_of_doubles, MAT, "uint16"),
    (mat_with_strange_id, MAT, "460"),
    (mat_of_another_size, MAT, "expected"),
    (mat_of_a_turned_picture, MAT, "expected"),
    (unknown_id_in_split, "2010_000001x", "split file"),
    (no_split_file, SPLIT, "val"),
    (doubled_id_in_split, SPLIT, ID),
    (empty_splits, "", "expected at least one image id"),
]


@pytest.mark.parametrize(
    ("damage", "path", "said"), TREES, ids=[damage.__name__ for damage, _, _ in TREES]
)
def test_bad_tree_stops_the_build_and_leaves_nothing(
    damage: Callable[[Path], None], path: str, said: str, tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    damage(tree)
    out = tmp_path / "out"
    code = DATA if damage in BROKEN_LISTS else QUOTA
    assert_refused(vocprep(*build_words(tree, out)), code, path or tree, said)
    assert not out.exists() or {item.name for item in out.iterdir()} <= {".lock", STAGING}


@pytest.mark.parametrize("damage", [cut_image, cut_mat, mat_with_strange_id, missing_mat])
def test_bad_tree_leaves_an_earlier_dataset_as_it_was(
    damage: Callable[[Path], None], shards: Path, tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    out = tmp_path / "out"
    shutil.copytree(shards, out)
    damage(tree)
    result = vocprep(*build_words(tree, out, "--if-exists", "overwrite", "--views", "flip"))
    assert_refused(result, DATA if damage is missing_mat else QUOTA, ID)
    assert contents(out) == contents(shards)
    assert vocprep("inspect", out).exit_code == 0


@pytest.mark.parametrize(
    "damage", [missing_mat, cut_mat, mat_without_label_map, mat_of_doubles, mat_with_strange_id]
)
def test_bad_label_file_stops_decode_and_leaves_nothing(
    damage: Callable[[Path], None], tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    damage(tree)
    out = tmp_path / "out"
    result = vocprep("decode", "pascal-context", "--data-dir", tree, "--out", out)
    assert_refused(result, DATA, MAT)
    assert not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_unsafe_image_id_is_refused(tree: Path, tmp_path: Path, vocprep: Run) -> None:
    for image_id in ("../../etc/passwd", "a/../b", "a//b", "x" * 200):
        (tree / SPLIT).write_text(f"{image_id}\n")
        assert_refused(vocprep(*build_words(tree, tmp_path / "out")), DATA, SPLIT)


# The output folder


def test_folder_with_another_recipe_is_refused(
    shards: Path, sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    out = tmp_path / "out"
    shutil.copytree(shards, out)
    result = vocprep(*build_words(sample_tree, out, "--geometry", "squash"))
    assert_refused(result, USAGE, out, "another recipe", "'crop' and 'squash'")
    assert contents(out) == contents(shards)


def test_folder_with_the_finished_dataset_is_refused(
    shards: Path, sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    out = tmp_path / "out"
    shutil.copytree(shards, out)
    assert_refused(vocprep(*build_words(sample_tree, out)), USAGE, out, "finished dataset")
    assert contents(out) == contents(shards)


def test_folder_with_a_foreign_file_is_refused(
    sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.doc").write_text("mine")
    assert_refused(vocprep(*build_words(sample_tree, out)), USAGE, out, "thesis.doc")
    assert contents(out) == {"thesis.doc": b"mine"}


def test_file_in_the_folders_place_is_refused(
    sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    (tmp_path / "out").write_text("mine")
    assert_refused(vocprep(*build_words(sample_tree, tmp_path / "out")), USAGE, tmp_path / "out")
    below = tmp_path / "out" / "below"
    assert_refused(vocprep(*build_words(sample_tree, below)), USAGE, below)
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_parent_is_refused(sample_tree: Path, tmp_path: Path, vocprep: Run) -> None:
    (tmp_path / "parent").mkdir(mode=0o500)
    out = tmp_path / "parent" / "out"
    assert_refused(vocprep(*build_words(sample_tree, out)), DATA, out, "make it writable")


def test_folder_that_another_build_holds_is_refused(
    sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / ".lock"):
        assert_refused(vocprep(*build_words(sample_tree, out)), USAGE, out, "another build")
    assert {item.name for item in out.iterdir()} <= {".lock"}


# Weights, names, options


def weights_of_wrong_shape(path: Path) -> None:
    weights = load_weights("random:0", Path())
    torch.save({**weights, "layer1.0.conv1.weight": torch.zeros(8, 16, 3, 3)}, path)


def weights_without_a_tensor(path: Path) -> None:
    weights = load_weights("random:0", Path())
    torch.save({name: weights[name] for name in weights if name != "bn1.bias"}, path)


def weights_with_nan(path: Path) -> None:
    weights = load_weights("random:0", Path())
    torch.save({**weights, "conv1.weight": torch.full((16, 3, 3, 3), torch.nan)}, path)


def weights_that_are_text(path: Path) -> None:
    path.write_text("<html>not found</html>")


def weights_cut_off(path: Path) -> None:
    weights_of_wrong_shape(path)
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (weights_of_wrong_shape, "layer1.0.conv1.weight"),
        (weights_without_a_tensor, "bn1.bias"),
        (weights_with_nan, "not finite"),
        (weights_that_are_text, "cannot be read"),
        (weights_cut_off, "cannot be read"),
        (None, "no such"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_bad_weights_are_refused_with_their_file(
    damage: Callable[[Path], None] | None,
    said: str,
    dry_run: bool,
    sample_tree: Path,
    tmp_path: Path,
    vocprep: Run,
) -> None:
    path = tmp_path / "weights.pt"
    if damage is not None:
        damage(path)
    more = ["--weights", path, *(["--dry-run"] if dry_run else [])]
    result = vocprep(*build_words(sample_tree, tmp_path / "out", *more))
    assert_refused(result, DATA, path, said)
    assert not (tmp_path / "out").exists()


def test_weights_that_nobody_has_fetched_say_what_to_run(
    sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    out = tmp_path / "out"
    result = vocprep("build-shards", "pascal-context", "--data-dir", sample_tree, "--out", out)
    assert_refused(result, UNAVAILABLE, "cifar100_resnet32", "vocprep download", "--weights")
    assert not out.exists()


@pytest.mark.parametrize("spec", ["random:", "random:x", "random:-1", "random:1.5"])
def test_random_weights_without_a_seed_are_refused(
    spec: str, sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    result = vocprep(*build_words(sample_tree, tmp_path / "out", "--weights", spec))
    assert_refused(result, USAGE, spec)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--schema", "voc21"], USAGE, "context460, context59, context33"),
        (["--schema", "nonsense"], USAGE, "nonsense"),
        (["--splits", "train,test"], DATA, "test.txt"),
        (["--splits", "train,trainval"], USAGE, "trainval"),
        (["--edge", "pad"], USAGE, "native"),
        (["--views", "upside-down"], USAGE, "upside-down"),
        (["--views", "flip,flip"], USAGE, "views 'flip,flip': expected flip once"),
        (["--views", "flip,identity"], USAGE, "views 'flip,identity': expected further views"),
        (["--views", "crops:0,1"], USAGE, "number of crops, 1 to 99"),
        (["--views", "flip,crops:x"], USAGE, "'crops:x': expected crops:N,SEED"),
        (["--views", f"crops:1,{2**63}"], USAGE, f"a seed, 0 to {2**63 - 1}"),
        (["--views", "crops:1,2,crops:1,3"], USAGE, "'crops:1,2,crops:1,3': expected crops once"),
        (["--views", "crops:1,2", "--geometry", "native"], USAGE, "expected crop or squash"),
        (["--limit", "0"], USAGE, "limit"),
        (["--samples-per-shard", "0"], USAGE, "samples_per_shard"),
        (["--workers", "0"], USAGE, "workers"),
        (["--device", "abacus"], USAGE, "abacus"),
        (["--schema", "context59", "--void-unknown"], USAGE, "unknown"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_cannot_work_are_refused(
    words: list[str], code: int, said: str, sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    result = vocprep(*build_words(sample_tree, tmp_path / "out", *words))
    assert_refused(result, code, said)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["build-shards", "decode"])
def test_unknown_dataset_is_refused_with_the_known_ones(
    command: str, sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    words = ["--data-dir", sample_tree, "--out", tmp_path / "out"]
    result = vocprep(command, "imagenet", *words)
    assert_refused(result, USAGE, "'imagenet'", "pascal-context", "voc2012")
    assert_refused(vocprep(command, "own.toml", *words), DATA, "own.toml")
    (tmp_path / "own.toml").write_text("title = ")
    assert_refused(vocprep(command, tmp_path / "own.toml", *words), DATA, tmp_path / "own.toml")


def test_data_dir_that_is_none_is_refused(tmp_path: Path, vocprep: Run) -> None:
    result = vocprep(*build_words(tmp_path / "none", tmp_path / "out"))
    assert_refused(result, DATA, tmp_path / "none", "vocprep download pascal-context")


# The other commands


@pytest.mark.parametrize(
    "words",
    [
        ["inspect", "{none}"],
        ["train", "{none}", "--out", "{out}"],
        ["evaluate", "{run}", "{none}"],
        ["evaluate", "{none}", "{shards}"],
        ["predict", "{none}", "{jpeg}", "--out", "{out}", "--weights", "random:0"],
        ["predict", "{run}", "{none}", "--out", "{out}", "--weights", "random:0"],
        ["predict", "{run}", "{jpeg}", "--out", "{out}", "--weights", "{none}"],
        ["predict", "{run}", "{text}", "--out", "{out}", "--weights", "random:0"],
    ],
    ids=" ".join,
)
def test_what_is_not_there_or_no_such_thing_is_refused_by_name(
    words: list[str], run: Path, shards: Path, sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    places = {
        "none": tmp_path / "none",
        "out": tmp_path / "out",
        "text": tmp_path / "text.jpg",
        "run": run,
        "shards": shards,
        "jpeg": sample_tree / JPEG,
    }
    places["text"].write_text("no picture")
    result = vocprep(*(word.format(**places) for word in words))
    named = places["text" if "{text}" in words else "none"]
    assert_refused(result, DATA, named)
    assert not (tmp_path / "out").exists()


def test_weights_other_than_the_runs_are_refused(
    run: Path, sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    words = ["--out", tmp_path / "out", "--weights", "random:1"]
    assert_refused(vocprep("predict", run, sample_tree / JPEG, *words), DATA, run, "--weights")
    assert not (tmp_path / "out").exists()


def test_train_refuses_what_it_cannot_do(
    run: Path, shards: Path, tmp_path: Path, vocprep: Run
) -> None:
    before = contents(run)
    assert_refused(vocprep("train", shards, "--out", run), USAGE, run, "--overwrite")
    words = ["--resume", "--set", "encoder=none"]
    assert_refused(vocprep("train", shards, "--out", run, *words), USAGE, run, "encoder")
    assert contents(run) == before
    for words in (
        *(["--epochs", 0], ["--train-split", "test"], ["--lr", -1], ["--device", "x"]),
        *(
            ["--preset", "none"],
            ["--set", "epoch=1"],
            ["--set", "epochs"],
            ["--resume", "--overwrite"],
        ),
    ):
        assert_refused(vocprep("train", shards, "--out", tmp_path / "out", *words), USAGE)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("mine")
    assert_refused(vocprep("train", shards, "--out", tmp_path / "file"), USAGE, tmp_path / "file")


def test_evaluate_refuses_an_unknown_split(run: Path, shards: Path, vocprep: Run) -> None:
    assert_refused(vocprep("evaluate", run, shards, "--split", "test"), USAGE, "'test'", "val")


def test_damaged_shard_is_refused_by_name(shards: Path, tmp_path: Path, vocprep: Run) -> None:
    out = tmp_path / "shards"
    shutil.copytree(shards, out)
    path = sorted(out.glob("train-*.h5"))[0]
    path.write_bytes(path.read_bytes()[:1000])
    assert_refused(vocprep("train", out, "--out", tmp_path / "run"), DATA, path)
    assert not (tmp_path / "run").exists()


def test_failing_step_ends_the_demo_with_its_code(tmp_path: Path, vocprep: Run) -> None:
    folder = tmp_path / "a demo"
    result = vocprep("demo", folder, "--images", 2, "--epochs", 0)
    assert result.exit_code == USAGE
    assert result.stdout.count("$ vocprep") == 3
    assert f"$ vocprep sample '{folder}/data' --images 2" in result.stdout
    assert result.stderr == "error: epochs 0: expected 1 or more\n"


def test_demo_replaces_its_own_folder_and_no_other(tmp_path: Path, vocprep: Run) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    result = vocprep("demo", tmp_path)
    assert_refused(result, USAGE, tmp_path, "no earlier demo's")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    folder = tmp_path / "demo"
    for images in (2, 3):
        vocprep("demo", folder, "--images", images, "--epochs", 0)
        assert len(list((folder / "data/trainval").iterdir())) == images


def test_train_refuses_a_folder_with_other_things(
    shards: Path, tmp_path: Path, vocprep: Run
) -> None:
    out = tmp_path / "out"
    shutil.copytree(shards, out)
    assert_refused(vocprep("train", out, "--out", out, "--overwrite"), USAGE, out, "empty folder")
    assert contents(out) == contents(shards)


def test_inspect_names_a_shard_that_is_missing_or_cut(
    shards: Path, tmp_path: Path, vocprep: Run
) -> None:
    out = tmp_path / "out"
    shutil.copytree(shards, out)
    victim = min(out.glob("val-*.h5"))
    victim.write_bytes(victim.read_bytes()[:-1])
    assert_refused(vocprep("inspect", out), DATA, victim, "expected")
    victim.unlink()
    assert_refused(vocprep("inspect", out), DATA, victim, "is missing")


def test_predict_labels_the_good_images_and_names_the_bad_ones(
    run: Path, sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    bad, out = tmp_path / "bad.jpg", tmp_path / "out"
    bad.write_text("no picture")
    images = [bad, sample_tree / JPEG, tmp_path / "none.jpg"]
    result = vocprep("predict", run, *images, "--weights", "random:0", "--out", out)
    assert result.exit_code == DATA
    assert result.stdout.splitlines() == [str(out / f"{(sample_tree / JPEG).stem}.overlay.png")]
    first, second, last = result.stderr.splitlines()
    assert (str(bad) in first, str(images[2]) in second) == (True, True)
    assert "2 of 3 images could not be labelled" in last


def test_a_file_where_the_output_folder_should_be_is_told_first(
    run: Path, shards: Path, sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        evaluated = vocprep("evaluate", run, shards, "--out", out)
        assert_refused(evaluated, USAGE, out, "expected a folder, found the file")
        words = ["--weights", "random:0", "--out", out]
        assert_refused(vocprep("predict", run, sample_tree / JPEG, *words), USAGE, out)
    assert (tmp_path / "file").read_text() == "mine"


def test_predict_names_the_image_that_is_too_small(
    sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    native, run = tmp_path / "native", tmp_path / "run"
    words = build_words(sample_tree, native, "--geometry", "native", "--limit-per-split", 1)
    assert vocprep(*words).exit_code == 0
    assert vocprep("train", native, "--out", run, "--epochs", 1).exit_code == 0
    Image.new("RGB", (20, 20)).save(tmp_path / "tiny.png")
    found = vocprep(
        *("predict", run, tmp_path / "tiny.png", "--weights", "random:0", "--out", tmp_path / "out")
    )
    assert_refused(found, DATA, tmp_path / "tiny.png", "no whole 32×32 patch")


# As a program


def test_error_of_the_program_is_one_sentence_without_traceback(tree: Path, tmp_path: Path) -> None:
    cut_mat(tree)
    words = [str(word) for word in build_words(tree, tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "vocprep", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == QUOTA
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert MAT in done.stderr
    assert {item.name for item in (tmp_path / "out").iterdir()} <= {".lock", STAGING}


@pytest.mark.parametrize("given", ["", "train,", "train,val,val"])
def test_lists_with_empty_or_repeated_parts_are_refused(
    vocprep: Run, sample_tree: Path, tmp_path: Path, given: str
) -> None:
    result = vocprep(
        *("build-shards", "pascal-context", "--data-dir", sample_tree, "--out", tmp_path / "out"),
        *("--weights", "random:0", "--splits", given),
    )
    assert result.exit_code == 2
    assert f"splits {given!r}: expected names with commas between them" in result.output


def test_a_file_in_the_place_of_the_shards_folder_is_named(
    vocprep: Run, sample_tree: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("mine")
    result = vocprep(
        *("build-shards", "pascal-context", "--data-dir", sample_tree, "--out", tmp_path / "out"),
        *("--weights", "random:0", "--limit-per-split", 1),
    )
    assert result.exit_code == 2
    assert "expected a folder, found the file" in result.output
    assert (tmp_path / "out").read_text() == "mine"
