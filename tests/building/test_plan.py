from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from builders.versions import WEIGHTS, Built, make_plan
from PIL import Image

from vocprep.building.plan import count_patches, estimated_bytes, plan_build
from vocprep.errors import DataError, UsageError, WeightsError
from vocprep.features.backbone import load_weights, tensor_digest
from vocprep.geometry import Geometry
from vocprep.labels.label_space import load_label_space
from vocprep.manifests import load_dataset
from vocprep.options import BuildChoices, Layout
from vocprep.recipe import SplitIds

VOC = Path("VOCdevkit/VOC2010")
SPLIT_FILES = VOC / "ImageSets/Main"


def ids_of(tree: Path, split: str) -> list[str]:
    return sorted((tree / SPLIT_FILES / f"{split}.txt").read_text().split())


def copy_tree(tree: Path, target: Path) -> Path:
    shutil.copytree(tree, target)
    return target


# The plan


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


def test_recipe_id_follows_every_choice_and_no_layout(sample_tree: Path) -> None:
    choices = [
        BuildChoices(),
        BuildChoices(splits=("train",)),
        BuildChoices(limit=3),
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


def test_plan_does_not_depend_on_the_order_of_the_split_file(
    sample_tree: Path, tmp_path: Path
) -> None:
    tree = copy_tree(sample_tree, tmp_path / "tree")
    path = tree / SPLIT_FILES / "train.txt"
    path.write_text("\r\n".join(reversed(path.read_text().split())))
    layout = Layout(samples_per_shard=3)
    turned, plain = make_plan(tree, layout=layout), make_plan(sample_tree, layout=layout)
    assert turned.recipe.recipe_id == plain.recipe.recipe_id
    assert [[s.image_id for s in shard.samples] for shard in turned.shards] == [
        [s.image_id for s in shard.samples] for shard in plain.shards
    ]


def test_limit_takes_the_first_ids_of_each_split(sample_tree: Path) -> None:
    plan = make_plan(sample_tree, BuildChoices(limit=1))
    assert [sample.image_id for sample in plan.samples] == [
        ids_of(sample_tree, "train")[0],
        ids_of(sample_tree, "val")[0],
    ]


def test_plan_of_no_image_is_refused(sample_tree: Path, tmp_path: Path) -> None:
    tree = copy_tree(sample_tree, tmp_path / "tree")
    for split in ("train", "val"):
        (tree / SPLIT_FILES / f"{split}.txt").write_text("\n")
    with pytest.raises(DataError, match="no image id"):
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
        plan_build(load_dataset("pascal-context"), sample_tree, str(path), BuildChoices(), Layout())
    assert str(path) in str(caught.value)


# The numbers of the dry run


GEOMETRIES = [
    Geometry(),
    Geometry(geometry="squash"),
    Geometry(geometry="native"),
    Geometry(geometry="native", edge="pad"),
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda geometry: geometry.short_name)
def test_planned_patches_are_those_of_the_pictures_sizes(
    geometry: Geometry, sample_tree: Path
) -> None:
    total = 0
    for path in (sample_tree / VOC / "JPEGImages").iterdir():
        with Image.open(path) as picture:
            width, height = picture.size
        if geometry.geometry != "native":
            total += 7 * 7
        elif geometry.edge == "drop":
            total += (height // 32) * (width // 32)
        else:
            total += ((height + 31) // 32) * ((width + 31) // 32)
    assert count_patches(make_plan(sample_tree, BuildChoices(geometry=geometry))) == total
    both = BuildChoices(geometry=geometry, views=("identity", "flip"))
    assert count_patches(make_plan(sample_tree, both)) == 2 * total


@pytest.mark.parametrize("name", ["crop_hdf5", "crop_tar", "native_hdf5", "native_tar"])
def test_built_numbers_are_the_planned_ones(name: str, request: pytest.FixtureRequest) -> None:
    built: Built = request.getfixturevalue(name)
    plan, index = built.plan, built.index
    planned = count_patches(plan)
    assert sum(shard.patches for shard in index.shards) == planned
    assert sum(len(record.embeddings) for record in built.records.values()) == planned
    assert [shard.name for shard in index.shards] == [shard.name for shard in plan.shards]
    assert [shard.records for shard in index.shards] == [
        len(shard.samples) * len(plan.recipe.views) for shard in plan.shards
    ]
    size = sum(shard.bytes for shard in index.shards)
    assert size == pytest.approx(estimated_bytes(planned, plan.recipe), rel=0.25)


def test_picture_too_small_for_the_geometry_is_named_by_the_dry_run(
    sample_tree: Path, tmp_path: Path
) -> None:
    tree = copy_tree(sample_tree, tmp_path / "tree")
    image_id = ids_of(tree, "train")[0]
    path = tree / VOC / "JPEGImages" / f"{image_id}.jpg"
    Image.new("RGB", (31, 40)).save(path)
    plan = make_plan(tree, BuildChoices(limit=1, geometry=Geometry(geometry="native")))
    with pytest.raises(DataError, match="31×40") as caught:
        count_patches(plan)
    assert str(path) in str(caught.value)
