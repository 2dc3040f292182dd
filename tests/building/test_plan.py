"""Plans of a build: recipe, shards, and what is refused before any work."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from builders.versions import VOC, WEIGHTS, make_plan

from vocprep.building.plan import plan
from vocprep.checks.remake import RemakeSources, plan_remake
from vocprep.errors import DataDirError, DataError, UsageError, WeightsError
from vocprep.features.weights import load_weights, tensor_digest
from vocprep.geometry import Geometry
from vocprep.labels.label_space import load_label_space
from vocprep.manifests import find_manifest, load_dataset
from vocprep.options import BuildChoices, Layout
from vocprep.recipe import SplitIds

pytestmark = pytest.mark.slow

SPLIT_FILES = VOC / "ImageSets/Main"


def ids_of(tree: Path, split: str) -> list[str]:
    return sorted((tree / SPLIT_FILES / f"{split}.txt").read_text().split())


def test_recipe_of_a_plan_says_what_was_chosen(sample_tree: Path) -> None:
    choices = BuildChoices(
        schema="context59",
        geometry=Geometry(geometry="squash"),
        embedding_dtype="float32",
        views=("identity", "flip"),
    )
    recipe = make_plan(sample_tree, choices).recipe
    assert recipe.dataset == "pascal-context"
    assert recipe.schema.name == "context59"
    assert recipe.schema.sha256 == load_label_space("context59").sha256
    assert recipe.splits == {
        split: SplitIds.of(ids_of(sample_tree, split)) for split in ("train", "val")
    }
    assert recipe.geometry == choices.geometry
    assert recipe.weights_sha256 == tensor_digest(load_weights(WEIGHTS, sample_tree))
    assert (recipe.embedding_dtype, recipe.views) == ("float32", ("identity", "flip"))


def test_plan_is_equal_to_its_like_and_pickles(sample_tree: Path) -> None:
    made = make_plan(sample_tree)
    assert made == make_plan(sample_tree)
    assert made != make_plan(sample_tree, BuildChoices(limit_per_split=1))
    copy = pickle.loads(pickle.dumps(made))
    assert copy == made
    assert tensor_digest(copy.weights) == made.recipe.weights_sha256


@pytest.mark.slow
def test_recipe_id_follows_every_choice_and_no_layout(sample_tree: Path) -> None:
    choices = [
        BuildChoices(),
        BuildChoices(splits=("train",)),
        BuildChoices(limit_per_split=3),
        BuildChoices(schema="context33"),
        BuildChoices(void_unknown=True),
        BuildChoices(geometry=Geometry(geometry="native")),
        BuildChoices(geometry=Geometry(geometry="native", edge="pad")),
        BuildChoices(embedding_dtype="float32"),
        BuildChoices(views=("identity", "flip")),
    ]
    recipe_ids = {make_plan(sample_tree, choice).recipe.recipe_id for choice in choices}
    assert len(recipe_ids) == len(choices)
    layout = Layout(format="webdataset", samples_per_shard=1)
    assert make_plan(sample_tree, BuildChoices(), layout).recipe.recipe_id in recipe_ids


@pytest.mark.parametrize("suffix_of", [("hdf5", ".h5"), ("webdataset", ".tar")])
@pytest.mark.parametrize("samples_per_shard", [1, 5, 10, 500])
def test_shards_are_runs_of_the_sorted_ids(
    suffix_of: tuple[str, str], samples_per_shard: int, sample_tree: Path
) -> None:
    container, suffix = suffix_of
    layout = Layout(format=container, samples_per_shard=samples_per_shard)  # type: ignore[arg-type]
    shards = make_plan(sample_tree, BuildChoices(), layout).shards
    expected = []
    for split in ("train", "val"):
        left = ids_of(sample_tree, split)
        runs = []
        while left:
            runs.append(left[:samples_per_shard])
            left = left[samples_per_shard:]
        for number, run in enumerate(runs):
            expected.append((f"{split}-{number:05d}-of-{len(runs):05d}{suffix}", split, run))
    found = [
        (shard.name, shard.split, [sample.image_id for sample in shard.samples]) for shard in shards
    ]
    assert found == expected


def test_plan_does_not_depend_on_the_order_of_the_split_file(sample_tree: Path, tree: Path) -> None:
    path = tree / SPLIT_FILES / "train.txt"
    path.write_text("\r\n".join(reversed(path.read_text().split())))
    layout = Layout(samples_per_shard=3)
    turned, plain = make_plan(tree, layout=layout), make_plan(sample_tree, layout=layout)
    assert turned.recipe.recipe_id == plain.recipe.recipe_id
    assert [[s.image_id for s in shard.samples] for shard in turned.shards] == [
        [s.image_id for s in shard.samples] for shard in plain.shards
    ]


def test_limit_takes_the_first_ids_of_each_split(sample_tree: Path) -> None:
    plan = make_plan(sample_tree, BuildChoices(limit_per_split=1))
    assert [sample.image_id for sample in plan.samples] == [
        ids_of(sample_tree, "train")[0],
        ids_of(sample_tree, "val")[0],
    ]


def test_plan_of_no_image_is_refused(tree: Path) -> None:
    for split in ("train", "val"):
        (tree / SPLIT_FILES / f"{split}.txt").write_text("\n")
    with pytest.raises(DataError, match="expected at least one image id"):
        make_plan(tree)


def test_schema_of_another_dataset_is_refused(sample_tree: Path) -> None:
    with pytest.raises(UsageError, match="voc21"):
        make_plan(sample_tree, BuildChoices(schema="voc21"))


def test_weights_that_do_not_fit_are_refused_by_the_plan_with_their_file(
    sample_tree: Path, tmp_path: Path
) -> None:
    weights = load_weights(WEIGHTS, sample_tree)
    path = tmp_path / "wrong.pt"
    torch.save({**weights, "conv1.weight": torch.zeros(16, 3, 5, 5)}, path)
    with pytest.raises(WeightsError, match=r"conv1\.weight") as caught:
        plan("pascal-context", data_dir=sample_tree, weights=path)
    assert str(path) in str(caught.value)


# What a caller may give


def test_dataset_is_a_name_a_path_or_a_manifest(
    sample_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = find_manifest("datasets", "pascal-context")
    expected = make_plan(sample_tree)
    for dataset in (path, str(path), load_dataset("pascal-context")):
        made = plan(dataset, data_dir=str(sample_tree), weights=WEIGHTS)
        assert (made.recipe, made.shards) == (expected.recipe, expected.shards)
    monkeypatch.setenv("VOCPREP_DATA_DIR", str(sample_tree))
    assert plan("pascal-context", weights=WEIGHTS).shards == expected.shards


def test_missing_file_is_an_error_of_the_plan_unless_allowed(tree: Path) -> None:
    sorted((tree / VOC / "JPEGImages").iterdir())[0].unlink()
    with pytest.raises(DataDirError, match="missing"):
        plan("pascal-context", data_dir=tree, weights=WEIGHTS)
    made = plan("pascal-context", data_dir=tree, weights=WEIGHTS, allow_missing=True)
    assert len(made.samples) == 12


def test_a_limit_in_all_is_shared_and_found_again_by_the_recipe(sample_tree: Path) -> None:
    made = make_plan(sample_tree, BuildChoices(limit=5, precision="fp32"))
    counts = {split: ids.count for split, ids in made.recipe.splits.items()}
    assert counts == {"train": 4, "val": 1}
    named = BuildChoices(limit_per_split=counts, precision="fp32")
    assert make_plan(sample_tree, named).recipe == made.recipe
    sources = RemakeSources(data_dir=sample_tree, weights="random:0")
    assert plan_remake(made.recipe, made.layout, sources).recipe == made.recipe
