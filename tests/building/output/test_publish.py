"""Publishing a version: records of any origin, and leftovers of unfinished builds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from builders.records import make_record
from builders.version_bytes import version_bytes
from builders.versions import ENGINE, make_plan

from vocprep.building.local import build_plan
from vocprep.building.output.publish import write_dataset
from vocprep.errors import UsageError
from vocprep.labels.label_space import LabelSpace, load_label_space
from vocprep.options import BuildChoices, IfExists, Layout
from vocprep.recipe import LabelSpaceId, Recipe, SplitIds
from vocprep.shards.reader import ShardDataset

RECORDS = [make_record("a"), make_record("b")]
OWN = """
title = "one's own"
void = 0
[names]
1 = "thing"
2 = "stuff"
15 = "other"
255 = "more"
256 = "and more"
431 = "unknown"
459 = "last"
"""


def recipe_of(label_space: LabelSpace) -> Recipe:
    return Recipe(
        dataset="made",
        schema=LabelSpaceId(
            name=label_space.name,
            sha256=label_space.sha256,
            void_unknown=label_space.void_unknown,
        ),
        splits={"train": SplitIds.of(["a", "b"])},
        backbone="resnet32-cifar100",
        weights_sha256="34" * 32,
    )


# Records of one's own


def test_unknown_stays_void_in_records_of_ones_own(tmp_path: Path) -> None:
    label_space = load_label_space("context460", void_unknown=True)
    write_dataset(tmp_path, recipe_of(label_space), {"train": RECORDS})
    opened = ShardDataset.open(tmp_path)
    assert opened.index.recipe.schema.sha256 == label_space.sha256
    assert 431 not in opened.label_space.names
    assert opened.label_space.void_unknown


def test_label_space_of_ones_own_is_written_with_the_records(tmp_path: Path) -> None:
    path = tmp_path / "mylabels.toml"
    path.write_text(OWN)
    label_space = load_label_space(str(path))
    out = tmp_path / "out"
    write_dataset(str(out), recipe_of(label_space), {"train": RECORDS}, label_space=label_space)
    assert ShardDataset.open(out).label_space.names == label_space.names


def test_label_space_that_is_not_the_recipes_is_refused(tmp_path: Path) -> None:
    recipe = recipe_of(load_label_space("context59"))
    other = load_label_space("context460")
    with pytest.raises(UsageError, match="label space context460: expected the recipe's"):
        write_dataset(tmp_path / "out", recipe, {"train": RECORDS}, label_space=other)
    assert not (tmp_path / "out").exists()


def test_own_label_space_that_is_not_given_is_asked_for(tmp_path: Path) -> None:
    own = LabelSpace.of_classes(name="own", void=0, names={1: "a"})
    with pytest.raises(UsageError, match="label space 'own' is not a shipped one: give it as"):
        write_dataset(tmp_path / "out", recipe_of(own), {"train": RECORDS})
    assert not (tmp_path / "out").exists()


def test_finished_version_is_not_written_over(tmp_path: Path) -> None:
    recipe = recipe_of(load_label_space("context460"))
    write_dataset(tmp_path, recipe, {"train": RECORDS})
    before = version_bytes(tmp_path)
    with pytest.raises(UsageError, match="finished dataset"):
        write_dataset(tmp_path, recipe, {"train": RECORDS[:1]})
    assert version_bytes(tmp_path) == before


# What unfinished work may leave behind


def leave_temporary_names(folder: Path, elsewhere: Path) -> None:
    """A file, an empty folder, a full one and a link to a folder that is not the build's."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".tmp-0123abcd-file").write_text("half of it")
    (folder / ".tmp-0123abcd-folder").mkdir()
    (folder / ".tmp-0123abcd-full/deep").mkdir(parents=True)
    (folder / ".tmp-0123abcd-full/deep/file").write_text("x")
    (folder / ".tmp-0123abcd-link").symlink_to(elsewhere)


@pytest.mark.parametrize("if_exists", ["resume", "overwrite"])
def test_temporary_names_of_every_kind_are_removed(
    if_exists: IfExists, sample_tree: Path, tmp_path: Path
) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").write_text("kept")
    plan = make_plan(sample_tree, BuildChoices(limit_per_split=1), Layout(samples_per_shard=1))
    options = replace(ENGINE, if_exists=if_exists)
    for place in (out, out / ".tmp-build"):
        leave_temporary_names(place, elsewhere)
    build_plan(plan, out, options)
    assert not any(path.name.startswith(".tmp-") for path in out.iterdir())
    assert (elsewhere / "mine").read_text() == "kept"
