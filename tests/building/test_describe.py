"""Numbers of a dry run against those of the build."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from builders.versions import ENGINE, VOC, WEIGHTS, Built, make_plan
from PIL import Image

from vocprep.building.describe import describe_build, describe_plan
from vocprep.building.local import build
from vocprep.building.plan import BuildPlan
from vocprep.errors import FailureBudgetError
from vocprep.geometry import Geometry
from vocprep.options import BuildChoices, MaxFailures

pytestmark = pytest.mark.slow

NATIVE = Geometry(geometry="native")


def patches_of(plan: BuildPlan) -> int:
    return describe_plan(plan).patches


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
    assert patches_of(make_plan(sample_tree, BuildChoices(geometry=geometry))) == total
    both = BuildChoices(geometry=geometry, views=("identity", "flip"))
    assert patches_of(make_plan(sample_tree, both)) == 2 * total


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crop_hdf5", "crop_tar", "native_hdf5", "native_tar"])
def test_built_numbers_are_the_planned_ones(name: str, request: pytest.FixtureRequest) -> None:
    built: Built = request.getfixturevalue(name)
    plan, index = built.plan, built.index
    described = describe_plan(plan)
    planned = described.patches
    assert sum(shard.patches for shard in index.shards) == planned
    assert sum(len(record.embeddings) for record in built.records.values()) == planned
    assert [shard.name for shard in index.shards] == [shard.name for shard in plan.shards]
    assert [shard.records for shard in index.shards] == [
        len(shard.samples) * len(plan.recipe.views) for shard in plan.shards
    ]
    size = sum(shard.bytes for shard in index.shards)
    assert size == pytest.approx(described.estimated_bytes, rel=0.25)


# Images that cannot be read


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def shrink(path: Path) -> None:
    """No whole patch is left."""
    Image.new("RGB", (31, 40)).save(path)


def first_image(tree: Path) -> Path:
    name = min((tree / VOC / "ImageSets/Main/train.txt").read_text().split())
    return tree / VOC / "JPEGImages" / f"{name}.jpg"


@pytest.mark.slow
@pytest.mark.parametrize("damage", [remove, cut, shrink])
def test_unreadable_images_are_counted_where_the_build_allows_them(
    damage: Callable[[Path], None], tree: Path, tmp_path: Path
) -> None:
    choices = BuildChoices(limit_per_split=1, geometry=NATIVE)
    whole = describe_plan(make_plan(tree, choices))
    damage(first_image(tree))
    options = replace(ENGINE, max_failures=MaxFailures(count=1))
    found = describe_build(
        "pascal-context", data_dir=tree, weights=WEIGHTS, choices=choices, options=options
    )
    assert (whole.unreadable, found.unreadable) == (0, 1)
    assert (found.samples, found.recipe_id) == (whole.samples, whole.recipe_id)
    result = build(
        "pascal-context",
        out=tmp_path / "out",
        data_dir=tree,
        weights=WEIGHTS,
        choices=choices,
        options=options,
    )
    assert result.index.quarantined == found.unreadable
    assert sum(shard.patches for shard in result.index.shards) == found.patches < whole.patches


@pytest.mark.parametrize("damage", [cut, shrink])
def test_more_unreadable_images_than_allowed_are_an_error_as_in_the_build(
    damage: Callable[[Path], None], tree: Path
) -> None:
    path = first_image(tree)
    damage(path)
    plan = make_plan(tree, BuildChoices(limit_per_split=1, geometry=NATIVE))
    with pytest.raises(
        FailureBudgetError, match="at least 1 of 2 samples cannot be used"
    ) as caught:
        describe_plan(plan, ENGINE)
    assert str(path) in str(caught.value)
    if damage is shrink:
        assert "31×40" in str(caught.value)


def test_missing_files_are_counted_for_every_geometry(tree: Path) -> None:
    image = first_image(tree)
    labels = tree / "trainval" / f"{image.stem}.mat"
    options = replace(ENGINE, max_failures=MaxFailures(percent=50))
    for path in (image, labels):
        data = path.read_bytes()
        path.unlink()
        found = describe_build("pascal-context", data_dir=tree, weights=WEIGHTS, options=options)
        assert found.unreadable == 1
        assert found.patches == 49 * 11
        path.write_bytes(data)
