"""A backbone of a file of one's own, through build, training, prediction, verification and lock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders.own_backbone import PATCHES, WHOLE, write
from builders.verbs import invoke
from click.testing import Result

from vocprep import shard_orders
from vocprep.building.local import build
from vocprep.building.orders import WorkerSetup, build_shard
from vocprep.building.plan import plan as make_plan
from vocprep.building.results import BuildResult
from vocprep.errors import UsageError, VocprepError
from vocprep.options import BuildChoices, BuildOptions
from vocprep.shards.index import read_index
from vocprep.shards.reader import ShardDataset


def made(tree: Path, out: Path, choices: BuildChoices, weights: str | None = None) -> BuildResult:
    options = BuildOptions(device="cpu", workers=1)
    found = build(
        "pascal-context", data_dir=tree, out=out, weights=weights, choices=choices, options=options
    )
    assert isinstance(found, BuildResult)
    return found


def embeddings(folder: Path) -> dict[str, np.ndarray]:
    dataset = ShardDataset.open(folder)
    return {
        record.image_id: record.embeddings
        for shard in dataset.index.shards
        for record in dataset.read_shard(shard.name, all_views=True)
    }


@pytest.mark.parametrize(("source", "size"), [(WHOLE, 4 * 4 + 6), (PATCHES, 5 * 4)])
def test_a_version_names_function_and_digest(
    sample_tree: Path, tmp_path: Path, source: str, size: int
) -> None:
    layers = ("early", "late") if source is WHOLE else None
    choices = BuildChoices(backbone=write(tmp_path, source), limit=2, layers=layers)
    found = made(sample_tree, tmp_path / "out", choices)
    for each in embeddings(tmp_path / "out").values():
        assert each.shape == (49, size)
        assert each.std() > 0
    assert str(tmp_path) not in (tmp_path / "out" / "dataset.json").read_text()
    assert found.index.weights.startswith("those of make (")
    assert found.index.recipe.short_name.startswith("context460-crop224-make")


def test_windows_are_of_patches_alone(sample_tree: Path, tmp_path: Path) -> None:
    choices = BuildChoices(backbone=write(tmp_path, PATCHES), limit=2, windows=(32, 64))
    made(sample_tree, tmp_path / "out", choices, "random:0")
    (first, *_) = embeddings(tmp_path / "out").values()
    assert first.shape == (49, 2 * 5 * 4)


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        (
            "late * float('nan')",
            "000001: expected finite numbers, found NaN or inf.*weights",
        ),
        ("late + 7e4", r"at most 65,504, which float16 holds, found 70,\d+; .*dtype float32"),
        ("late[:, :1] if x.any() else late", "expected 6 channels of 1×1 .* found 1 channels of 7"),
    ],
)
def test_embeddings_that_cannot_be_stored_end_the_build(
    sample_tree: Path, tmp_path: Path, returned: str, problem: str
) -> None:
    changed = WHOLE.replace('return {"early": early, "late": self.late(early)}', "{}")
    source = changed.replace("{}", f"late = self.late(early); return {returned}")
    choices = BuildChoices(backbone=write(tmp_path, source), limit=2)
    with pytest.raises(VocprepError, match=problem):
        made(sample_tree, tmp_path / "out", choices)
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_an_order_is_followed_where_the_worker_has_the_file_named(
    sample_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write(tmp_path)
    choices = BuildChoices(backbone=spec, limit=2)
    plan = make_plan("pascal-context", data_dir=sample_tree, choices=choices)
    first, *_ = shard_orders(plan, tmp_path / "out", BuildOptions(device="cpu", workers=1))
    monkeypatch.setattr("vocprep.features.libraries.own_file._NAMED", {})
    fields = {"data_dir": sample_tree, "out": tmp_path / "out", "device": "cpu"}
    with pytest.raises(UsageError, match="whose code runs only where it is named"):
        build_shard(first, WorkerSetup(**fields))
    built = build_shard(first, WorkerSetup(**fields, backbone=spec))
    assert (built.name, len(built.quarantined)) == (first.shard.name, 0)


@pytest.mark.slow
def test_each_command_that_makes_the_network_has_the_file_named(
    sample_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vocprep(*words: object) -> Result:
        """Run a command as in a process of its own, where no file has been named yet."""
        monkeypatch.setattr("vocprep.features.libraries.own_file._NAMED", {})
        return invoke(*words)

    marker = tmp_path / "was_run"
    spec = write(tmp_path, f"{WHOLE}\nwith open({str(marker)!r}, 'a') as stream:\n    pass\n")
    out, run, data = tmp_path / "out", tmp_path / "run", ("--data-dir", sample_tree)
    made(sample_tree, out, BuildChoices(backbone=spec, limit=2))
    lock, again = tmp_path / "a.lock.json", tmp_path / "again"
    assert vocprep("inspect", out, "--lock", lock).exit_code == 0
    trained = ("--set", "epochs=1", "--set", "encoder=none", "--device", "cpu")
    assert vocprep("train", out, "--out", run, *trained).exit_code == 0
    image = sorted((sample_tree / "VOCdevkit/VOC2010/JPEGImages").iterdir())[0]
    commands: dict[str, tuple[object, ...]] = {
        "predict": ("predict", run, image, "--out", tmp_path / "predicted", "--device", "cpu"),
        "verify": ("verify", out, "--level", "recompute", *data, "--device", "cpu"),
        "lock": ("build-shards", "--lock", lock, *data, "--out", again, "--device", "cpu"),
    }
    marker.unlink()
    for name, words in commands.items():
        refused = vocprep(*words)
        expected = "whose code runs only where it is named: add --backbone FILE.py:make"
        assert expected in refused.output, name
        assert not marker.exists()
        done = vocprep(*words, "--backbone", spec)
        assert done.exit_code == 0, (name, done.output, done.exception)
        assert marker.exists()
        marker.unlink()
    content = {read_index(each).content_id for each in (out, again)}
    assert len(content) == 1
