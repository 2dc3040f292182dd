"""A finished version is succeeded by redoing what has changed, to the bytes of a full build."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.old_versions import label_maps_by_pillow
from builders.version_bytes import version_bytes
from builders.versions import ENGINE, JPEGS, TWO_PER_SHARD, make_plan
from scipy.io import loadmat, savemat

from vocprep.building.local import build_plan
from vocprep.errors import UsageError
from vocprep.geometry import Geometry
from vocprep.options import BuildChoices, Layout
from vocprep.shards.index import DatasetIndex, describe_file, read_index, write_index

pytestmark = pytest.mark.slow

TRAIN = Path("VOCdevkit/VOC2010/ImageSets/Main/train.txt")


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Yield a list that gets an entry a picture that goes through the backbone."""
    seen: list[str] = []
    from vocprep.features.embed import Embedder  # noqa: PLC0415  # to call what is replaced

    original = Embedder.embed_images

    def counted(self: Embedder, images: Any) -> Any:
        seen.extend("image" for _ in images)
        return original(self, images)

    with monkeypatch.context() as patched:
        patched.setattr("vocprep.features.embed.Embedder.embed_images", counted)
        yield seen


@pytest.fixture(scope="module")
def finished(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version of the unchanged tree; not to be written to."""
    out = tmp_path_factory.mktemp("finished") / "out"
    build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), out, ENGINE)
    return out


def relabel(tree: Path, number: int) -> str:
    """Change some pixels of one label map."""
    path = sorted((tree / "trainval").iterdir())[number]
    label_map = loadmat(path)["LabelMap"]
    label_map[50:150, 60:160] = 25
    savemat(path, {"LabelMap": label_map}, do_compression=True)
    return path.stem


def repaint(tree: Path, number: int) -> str:
    """Exchange one picture for another of its size."""
    paths = sorted((tree / JPEGS).iterdir())
    from PIL import Image  # noqa: PLC0415  # here only

    with Image.open(paths[number]) as picture:
        turned = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    turned.save(paths[number], quality=90)
    return paths[number].stem


def assert_as_built_anew(
    tree: Path, out: Path, folder: Path, layout: Layout = TWO_PER_SHARD
) -> DatasetIndex:
    index = build_plan(make_plan(tree, layout=layout), folder / "fresh", ENGINE).index
    assert version_bytes(out) == version_bytes(folder / "fresh")
    return index


def test_changed_label_map_costs_its_shard_and_no_embedding(
    tree: Path, out: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {shard.name: shard.sha256 for shard in read_index(out).shards}
    relabel(tree, 0)
    with counting(monkeypatch) as embedded:
        build_plan(make_plan(tree, layout=TWO_PER_SHARD), out, ENGINE)
    assert embedded == []
    after = {shard.name: shard.sha256 for shard in read_index(out).shards}
    assert sum(before[name] != after[name] for name in before) == 1
    assert_as_built_anew(tree, out, tmp_path)


def test_changed_picture_is_embedded_again_and_no_other(
    tree: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repaint(tree, 3)
    with counting(monkeypatch) as embedded:
        build_plan(make_plan(tree, layout=TWO_PER_SHARD), out, ENGINE)
    assert len(embedded) == 1
    assert_as_built_anew(tree, out, tmp_path)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_removed_and_added_pictures_move_the_others_without_embedding_them(
    size: int, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = (tree / TRAIN).read_text().split()
    out = tmp_path / "out"
    build_plan(make_plan(tree, layout=Layout(samples_per_shard=size)), out, ENGINE)
    (tree / TRAIN).write_text("\n".join(ids[1:]) + "\n")
    with counting(monkeypatch) as embedded:
        build_plan(make_plan(tree, layout=Layout(samples_per_shard=size)), out, ENGINE)
    assert embedded == []
    assert_as_built_anew(tree, out, tmp_path, Layout(samples_per_shard=size))
    (tree / TRAIN).write_text("\n".join(ids) + "\n")
    with counting(monkeypatch) as embedded:
        build_plan(make_plan(tree, layout=Layout(samples_per_shard=size)), out, ENGINE)
    assert len(embedded) == 1


def test_picture_that_moves_to_another_split_moves_its_record(
    tree: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    val = (tree / TRAIN).with_name("val.txt")
    ids = (tree / TRAIN).read_text().split()
    (tree / TRAIN).write_text("\n".join(ids[:-1]) + "\n")
    val.write_text(val.read_text() + ids[-1] + "\n")
    with counting(monkeypatch) as embedded:
        build_plan(make_plan(tree, layout=TWO_PER_SHARD), out, ENGINE)
    assert embedded == []
    assert_as_built_anew(tree, out, tmp_path)


def test_damaged_shard_of_a_finished_version_is_made_again(
    sample_tree: Path, out: Path, finished: Path
) -> None:
    name = read_index(out).shards[1].name
    data = bytearray((out / name).read_bytes())
    data[len(data) // 2] ^= 4
    (out / name).write_bytes(data)
    build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), out, ENGINE)
    assert version_bytes(out) == version_bytes(finished)


@pytest.mark.parametrize("name", ["samples.jsonl", "README.md"])
def test_damaged_side_file_of_a_finished_version_is_made_again(
    name: str, sample_tree: Path, out: Path, finished: Path
) -> None:
    (out / name).write_bytes((out / name).read_bytes() + b" ")
    found = build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), out, ENGINE)
    (note,) = (text for text in found.notes if "made again" in text)
    assert note.startswith(f"{out / name}: expected ")
    said = "(damaged or replaced): nothing of the earlier version is reused, its records are made "
    assert said in note
    assert version_bytes(out) == version_bytes(finished)


def swap_lines(folder: Path) -> None:
    """Exchange two lines of samples.jsonl, and seal the version as a writer of one's own might."""
    path = folder / "samples.jsonl"
    first, second, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([second, first, *others]))
    index = read_index(folder)
    entry = describe_file(path.name, path.read_bytes())
    files = tuple(entry if each.name == entry.name else each for each in index.files)
    write_index(folder, index.model_copy(update={"files": files}).sealed())


@pytest.mark.parametrize("is_changed", [False, True])
def test_version_whose_list_is_in_another_order_is_made_again_with_a_note(
    is_changed: bool, tree: Path, out: Path, tmp_path: Path
) -> None:
    swap_lines(out)
    if is_changed:
        repaint(tree, 3)
    found = build_plan(make_plan(tree, layout=TWO_PER_SHARD), out, ENGINE)
    (note,) = (text for text in found.notes if "made again" in text)
    assert note.startswith(f"{out / 'samples.jsonl'}: line 2: ")
    assert "nothing of the earlier version is reused, its records are made again" in note
    assert_as_built_anew(tree, out, tmp_path)


def test_version_by_other_tools_is_left_alone_while_nothing_changes(
    sample_tree: Path, out: Path
) -> None:
    """Nobody wants hours of work redone for a new release of a library."""
    index = read_index(out).model_copy(update={"versions": {"torch": "0"}}).sealed()
    write_index(out, index)
    assert build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), out, ENGINE).index == index


def test_version_whose_label_maps_pillow_wrote_is_kept_and_succeeded_without_embedding(
    tree: Path, tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of its shards is mixed with those of another writer."""
    out = tmp_path / "old"
    with label_maps_by_pillow():
        build_plan(make_plan(tree, layout=TWO_PER_SHARD), out, ENGINE)
    old, new = read_index(out), read_index(finished)
    assert (old.recipe_id, old.content_id) == (new.recipe_id, new.content_id)
    assert not {shard.sha256 for shard in old.shards} & {shard.sha256 for shard in new.shards}
    assert build_plan(make_plan(tree, layout=TWO_PER_SHARD), out, ENGINE).index == old
    relabel(tree, 0)
    with counting(monkeypatch) as embedded:
        build_plan(make_plan(tree, layout=TWO_PER_SHARD), out, ENGINE)
    assert embedded == []
    assert_as_built_anew(tree, out, tmp_path)


def test_version_of_another_numerics_class_gives_no_embedding(
    tree: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version is of one class throughout."""
    index = read_index(out).model_copy(update={"numerics_class": {"torch": "0"}}).sealed()
    write_index(out, index)
    relabel(tree, 0)
    with counting(monkeypatch) as embedded:
        build_plan(make_plan(tree, layout=TWO_PER_SHARD), out, ENGINE)
    assert len(embedded) == 12
    assert_as_built_anew(tree, out, tmp_path)


@pytest.mark.parametrize(
    "choices",
    [BuildChoices(limit_per_split=2), BuildChoices(splits=("val",))],
    ids=["limit", "splits"],
)
def test_options_that_would_drop_pictures_are_refused(
    choices: BuildChoices, sample_tree: Path, out: Path, finished: Path
) -> None:
    with pytest.raises(UsageError, match="leave out"):
        build_plan(make_plan(sample_tree, choices, TWO_PER_SHARD), out, ENGINE)
    assert version_bytes(out) == version_bytes(finished)


def test_another_layout_is_refused(sample_tree: Path, out: Path, finished: Path) -> None:
    with pytest.raises(UsageError, match="samples_per_shard: 2 and 5"):
        build_plan(make_plan(sample_tree, layout=Layout(samples_per_shard=5)), out, ENGINE)
    assert version_bytes(out) == version_bytes(finished)


# --reuse


@pytest.mark.parametrize(
    "choices",
    [
        BuildChoices(schema="context59"),
        BuildChoices(void_unknown=True),
        BuildChoices(views=("identity", "flip")),
        BuildChoices(limit_per_split=3),
    ],
    ids=["schema", "void switch", "views", "limit"],
)
@pytest.mark.parametrize("container", ["hdf5", "webdataset"])
def test_reused_embeddings_give_the_bytes_of_a_full_build(
    container: Any,
    choices: BuildChoices,
    sample_tree: Path,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layout = Layout(format=container, samples_per_shard=3)
    plan = make_plan(sample_tree, choices, layout)
    with counting(monkeypatch) as embedded:
        build_plan(plan, tmp_path / "reused", replace(ENGINE, reuse=finished))
    assert len(embedded) == (12 if "flip" in choices.views else 0)
    build_plan(plan, tmp_path / "full", ENGINE)
    assert version_bytes(tmp_path / "reused") == version_bytes(tmp_path / "full")


def test_embeddings_of_a_changed_picture_are_not_reused(
    tree: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repaint(tree, 0)
    with counting(monkeypatch) as embedded:
        build_plan(
            make_plan(tree, layout=TWO_PER_SHARD), tmp_path / "out", replace(ENGINE, reuse=finished)
        )
    assert len(embedded) == 1
    assert_as_built_anew(tree, tmp_path / "out", tmp_path)


def test_damaged_embeddings_are_not_reused(
    sample_tree: Path, out: Path, finished: Path, tmp_path: Path
) -> None:
    for shard in read_index(out).shards:
        data = bytearray((out / shard.name).read_bytes())
        for place in np.random.default_rng(0).integers(0, len(data), 40):
            data[place] ^= 1
        (out / shard.name).write_bytes(data)
    build_plan(
        make_plan(sample_tree, layout=TWO_PER_SHARD), tmp_path / "new", replace(ENGINE, reuse=out)
    )
    assert version_bytes(tmp_path / "new") == version_bytes(finished)


@pytest.mark.parametrize("succeeding", [True, False])
def test_damaged_shards_whose_embeddings_are_made_again_are_noted(
    succeeding: bool, sample_tree: Path, out: Path, tmp_path: Path
) -> None:
    names = [shard.name for shard in read_index(out).shards][:2]
    for name in names:
        (out / name).write_bytes((out / name).read_bytes()[:-1])
    plan = make_plan(sample_tree, layout=TWO_PER_SHARD)
    if succeeding:
        found = build_plan(plan, out, ENGINE)
    else:
        found = build_plan(plan, tmp_path / "new", replace(ENGINE, reuse=out))
    (note,) = (text for text in found.to_json()["notes"] if "made again" in text)
    assert note == (
        f"{out / names[0]} and 1 more of its shards: damaged or unreadable: embeddings of 4 "
        f"records could not be reused and were made again; vocprep verify {out} shows what is wrong"
    )


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (BuildChoices(geometry=Geometry(geometry="squash")), "geometry.geometry"),
        (BuildChoices(embedding_dtype="float32"), "embedding_dtype"),
        (BuildChoices(precision="bf16"), "precision"),
    ],
    ids=["geometry", "dtype", "precision"],
)
def test_embeddings_of_another_recipe_are_refused(
    choices: BuildChoices, said: str, sample_tree: Path, finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        build_plan(
            make_plan(sample_tree, choices, TWO_PER_SHARD),
            tmp_path / "out",
            replace(ENGINE, reuse=finished),
        )
    assert str(finished) in str(caught.value)
