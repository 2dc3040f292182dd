"""Paths in manifests mean files beside the manifest, wherever a command runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vocprep.labels.label_space import load_label_space
from vocprep.manifest_paths import ManifestPathWarning, locate_reference
from vocprep.manifests import load_dataset, load_source

SPACE = 'title = "Pets"\nvoid = 255\n[names]\n0 = "background"\n1 = "cat"\n'
SOURCE = 'title = "Files"\nterms = "mine"\nfiles = []\n'
DATASET = """
title = "Mine"
sources = ["{0}.toml", "voc2012"]
images = "pictures"
labels = "masks"
label_kind = "png"
split_files = "splits"
splits = ["train"]
schemas = ["{1}.toml", "voc21"]
"""


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with manifests below the current one."""
    monkeypatch.chdir(tmp_path)
    pack = Path("pack")
    (pack / "spaces").mkdir(parents=True)
    (pack / "files.toml").write_text(SOURCE)
    (pack / "spaces" / "pets.toml").write_text(SPACE)
    (pack / "mine.toml").write_text(DATASET.format("files", "spaces/pets"))
    return pack


def test_paths_are_relative_to_the_manifest(pack: Path) -> None:
    dataset = load_dataset(pack / "mine.toml")
    assert dataset.sources == ("pack/files.toml", "voc2012")
    assert dataset.schemas == ("pack/spaces/pets.toml", "voc21")
    assert load_source(dataset.sources[0]).title == "Files"
    assert load_label_space(dataset.schemas[0]).name == "pets"
    assert (dataset.name, dataset.reference) == ("mine", "pack/mine.toml")


@pytest.mark.parametrize(
    "name", ["pets", "pack/spaces/pets.toml", "spaces/pets.toml", "pack/../pack/spaces/pets.toml"]
)
def test_a_label_space_is_chosen_by_stem_or_by_path(pack: Path, name: str) -> None:
    assert load_dataset(pack / "mine.toml").schema_for(name) == "pack/spaces/pets.toml"


def absolute(pack: Path) -> Path:
    return pack.absolute() / "mine.toml"


def through_a_link_to_the_folder(pack: Path) -> Path:
    Path("link").symlink_to(pack)
    return Path("link/mine.toml")


def through_a_link_to_the_file(pack: Path) -> Path:
    Path("elsewhere").mkdir()
    Path("elsewhere/linked.toml").symlink_to(pack.absolute() / "mine.toml")
    return Path("elsewhere/linked.toml")


def from_below(pack: Path) -> Path:
    return pack / "spaces" / ".." / "mine.toml"


@pytest.mark.parametrize(
    "given", [absolute, from_below, through_a_link_to_the_folder, through_a_link_to_the_file]
)
def test_the_manifest_may_be_reached_in_any_way(pack: Path, given: Callable[[Path], Path]) -> None:
    dataset = load_dataset(given(pack))
    assert load_source(dataset.sources[0]).title == "Files"
    assert load_label_space(dataset.schemas[0]).name == "pets"


@pytest.mark.parametrize("beside", [True, False])
def test_paths_may_be_absolute_or_lead_up(pack: Path, beside: bool) -> None:
    reference = "../pack/files" if beside else str(pack.absolute() / "files")
    (pack / "mine.toml").write_text(DATASET.format(reference, "spaces/pets"))
    assert load_source(load_dataset(pack / "mine.toml").sources[0]).title == "Files"


def test_a_path_from_the_current_folder_is_found_with_a_note(pack: Path) -> None:
    (pack / "mine.toml").write_text(DATASET.format("pack/files", "spaces/pets"))
    with pytest.warns(ManifestPathWarning, match=r"'pack/files\.toml' was .* write 'files\.toml'"):
        dataset = load_dataset(pack / "mine.toml")
    assert load_source(dataset.sources[0]).title == "Files"


def test_of_two_different_files_the_one_beside_the_manifest_is_taken(pack: Path) -> None:
    Path("files.toml").write_text(SOURCE)
    assert load_dataset(pack / "mine.toml").sources[0] == "pack/files.toml"  # the same bytes
    Path("files.toml").write_text(SOURCE.replace("Files", "Others"))
    with pytest.warns(ManifestPathWarning, match=r"'files\.toml' is pack/files\.toml, relative"):
        dataset = load_dataset(pack / "mine.toml")
    assert load_source(dataset.sources[0]).title == "Files"


def test_a_file_that_cannot_be_read_is_no_other_one_than_itself(pack: Path) -> None:
    Path("mine.toml").write_text(DATASET.format("loop", "spaces/pets"))
    Path("loop.toml").symlink_to("loop.toml")
    assert locate_reference("loop.toml", Path("mine.toml")) == "loop.toml"  # warnings are errors


def test_a_file_that_is_nowhere_is_named_where_it_was_expected(pack: Path) -> None:
    (pack / "files.toml").unlink()
    assert load_dataset(pack / "mine.toml").sources[0] == "pack/files.toml"


def test_shipped_names_stay_names(pack: Path) -> None:
    (pack / "voc21").touch()
    assert locate_reference("voc21", pack / "mine.toml") == "voc21"


def test_the_base_of_a_label_space_is_relative_to_it(pack: Path) -> None:
    text = 'title = "Cats"\nvoid = 0\nbase = "{}"\n[names]\n1 = "cat"\n'
    cats = pack / "spaces" / "cats.toml"
    cats.write_text(text.format("pets.toml"))
    assert load_label_space(cats).raw_to_class == {255: 0, 0: 0, 1: 1}
    cats.write_text(text.format("pack/spaces/pets.toml"))
    with pytest.warns(ManifestPathWarning, match=r"write 'pets\.toml'"):
        assert load_label_space(cats).raw_to_class == {255: 0, 0: 0, 1: 1}


def test_a_path_in_a_loop_of_links_is_not_passed_over(pack: Path) -> None:
    (pack / "files.toml").unlink()
    (pack / "files.toml").symlink_to("files.toml")
    assert load_dataset(pack / "mine.toml").sources[0] == "pack/files.toml"
