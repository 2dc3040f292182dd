"""Manifests: what ships is complete and right, what is one's own is checked."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

import pytest

from vocprep import manifests
from vocprep.errors import ManifestError, UsageError
from vocprep.labels.label_space import load_label_space
from vocprep.manifests import (
    SourceFile,
    find_manifest,
    load_dataset,
    load_recorded_dataset,
    load_source,
    manifest_names,
    manifests_dir,
)
from vocprep.storage.places import parse_place

PUBLISHED = [
    (
        "VOCtrainval_06-Nov-2007.tar",
        "c52e279531787c972589f7e41ab4ae64",
        "34ed68851bce2a36e2a223fa52c661d592c66b3c",
        "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
        460032000,
    ),
    (
        "VOCtest_06-Nov-2007.tar",
        "b6e924de25625d8de591ea690078ad9f",
        "41a8d6e12baa5ab18ee7f8f8029b9e11805b4ef1",
        "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
        451020800,
    ),
    (
        "VOCtrainval_14-Jul-2008.tar",
        "2629fa636546599198acfcfbfcf1904a",
        "fc87d2477a1ae78c6748dc25b88c052eb8b06d75",
        "7f0ca53c1b5a838fbe946965fc106c6e86832183240af5c88e3f6c306318d42e",
        None,
    ),
    (
        "VOCtrainval_11-May-2009.tar",
        None,  # two conflicting ones are published
        "0bc2be22b76a9bcb744c0458c535f3a84f054bbc",
        "11cbe1741fb5bdadbbca3c08e9ec62cd95c14884845527d50847bc2cf57e7fd6",
        None,
    ),
    (
        "VOCtrainval_03-May-2010.tar",
        "da459979d0c395079b5c75ee67908abb",
        "bf9985e9f2b064752bf6bd654d89f017c76c395a",
        "1af4189cbe44323ab212bff7afbc7d0f55a267cc191eb3aac911037887e5c7d4",
        None,  # one source only: not checked
    ),
    (
        "VOCtrainval_25-May-2011.tar",
        "6c3384ef61512963050cb5d687e5bf1e",
        "71ceda5bc8ce4a6486f7996b0924eee265133895",
        "0a7f5f5d154f7290ec65ec3f78b72ef72c6d93ff6d79acd40dc222a9ee5248ba",
        None,
    ),
    (
        "VOCtrainval_11-May-2012.tar",
        "6cd6e144f989b92b3379bac3b3de84fd",
        "4e443f8a2eca6b1dac8a6c57641b67dd40621a49",
        "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
        1999639040,
    ),
    (
        "trainval.tar.gz",
        "df034edb2c12aa7d33b42b20bb1796e3",
        "e1375777199dcc02097e68aea755415ca173aa2d",
        None,
        None,
    ),
    (
        "33_context_labels.tar.gz",
        "180101cfc01c71867b6686207f071eb9",
        "f1be25d0bdd7f8dadf76750d79a3e1f1d09017db",
        None,
        None,
    ),
    ("59_context_labels.tar.gz", "f85d450010762a0e1080304286ce30ed", None, None, None),
    (
        "labels.txt",
        "7e882ccaaf4f33d6520787847025cf34",
        None,
        "5d1672fb298b429f37561402b297b98706f72713bb9a69650fe0961f8faf0fe1",
        5960,
    ),
    ("59_labels.txt", "993901f2d930cc038c406845f08fa082", None, None, 607),
    ("33_labels.txt", "8840f5439b471aecf991ac6448b826e6", None, None, 345),
]
CONTEXT_59_IDS = [
    *[2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105],
    *[113, 115, 144, 158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308],
    *[324, 326, 347, 349, 354, 355, 360, 366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454],
    458,
]
OWN = """
title = "Own pictures"
images = "images"
labels = "masks"
label_kind = "png"
split_files = "splits"
splits = ["train"]
schemas = ["voc21"]
"""
WITHOUT_SPLITS = """
title = "Own pictures"
images = "images"
labels = "masks"
label_kind = "png"
schemas = ["voc21"]
"""


def shipped_files() -> dict[str, SourceFile]:
    """Every file of every shipped source, by its name on the server."""
    files: dict[str, SourceFile] = {}
    for name in manifest_names("sources"):
        for file in load_source(name).files:
            files[file.urls[0].rsplit("/", 1)[1]] = file
    return files


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row[0])
def test_published_digests_and_sizes_are_in_the_manifests(
    row: tuple[str, str | None, str | None, str | None, int | None],
) -> None:
    name, md5, sha1, sha256, size = row
    file = shipped_files()[name]
    assert (file.md5, file.sha1, file.sha256, file.bytes) == (md5, sha1, sha256, size)


def test_weights_are_proved_by_prefix_and_tensors() -> None:
    files = shipped_files()
    resnet32 = files["cifar100_resnet32-84213ce6.pt"]
    assert resnet32.sha256_prefix == "84213ce6"
    assert resnet32.tensors_sha256 == (
        "404f91be59b70df98174a36fe01007dd4cab2c5403bf0c5f24b73911319b26f5"
    )
    assert files["resnet18-f37072fd.pth"].sha256_prefix == "f37072fd"


@pytest.mark.parametrize("name", manifest_names("sources"))
def test_shipped_sources_can_be_fetched_and_proved(name: str) -> None:
    source = load_source(name)
    assert source.name == name
    assert source.title
    assert source.terms
    assert source.files
    assert len({file.path for file in source.files}) == len(source.files)
    for file in source.files:
        assert file.urls
        for url in file.urls:
            assert url.startswith(("https://", "http://"))
            assert url.rsplit("/", 1)[1] == file.urls[0].rsplit("/", 1)[1]
        assert file.sha256 or file.sha1 or file.md5 or file.sha256_prefix
        lengths = {"sha256": 64, "sha1": 40, "md5": 32, "tensors_sha256": 64}
        for kind, length in lengths.items():
            digest = getattr(file, kind)
            assert digest is None or len(digest) == length
        if file.path.endswith((".tar", ".gz")):
            assert file.unpack
            assert file.unpack.max_bytes > (file.bytes or file.about_bytes or 0)


@pytest.mark.parametrize("name", manifest_names("datasets"))
def test_shipped_datasets_name_sources_and_schemas_that_exist(name: str) -> None:
    dataset = load_dataset(name)
    assert dataset.name == name
    assert "resnet32-cifar100" in dataset.sources
    for source in dataset.sources:
        load_source(source)
    for schema in dataset.schemas:
        load_label_space(schema)
    assert dataset.splits == ("train", "val")
    unpacked = [file.unpack for s in dataset.sources for file in load_source(s).files]
    folders = {expected.folder for unpack in unpacked if unpack for expected in unpack.expect}
    assert dataset.images in folders


def test_official_layout_of_pascal_context() -> None:
    dataset = load_dataset("pascal-context")
    assert dataset.images == "VOCdevkit/VOC2010/JPEGImages"
    assert (dataset.labels, dataset.label_kind) == ("trainval", "mat")
    assert dataset.split_files == "VOCdevkit/VOC2010/ImageSets/Main"
    assert dataset.schemas == ("context460", "context59", "context33")


@pytest.mark.parametrize(
    ("source", "folder", "count"),
    [
        ("pascal-context", "trainval", 10103),
        ("voc2010", "VOCdevkit/VOC2010/JPEGImages", 11321),
    ],
)
def test_official_counts(source: str, folder: str, count: int) -> None:
    unpacked = [file.unpack for file in load_source(source).files if file.unpack]
    counts = {expected.folder: expected.count for u in unpacked for expected in u.expect}
    assert counts[folder] == count


def test_labels_txt_has_the_official_digest_when_written_from_the_names() -> None:
    names = load_label_space("context460").names
    text = "".join(f"{label}: {names[label]}\n" for label in sorted(names)).encode()
    file = shipped_files()["labels.txt"]
    assert len(text) == file.bytes
    assert hashlib.md5(text).hexdigest() == file.md5
    assert hashlib.sha256(text).hexdigest() == file.sha256


def test_the_59_classes_are_the_published_ids() -> None:
    schema = load_label_space("context59")
    mapped = sorted(raw for raw, label in schema.raw_to_class.items() if label != schema.void)
    assert mapped == CONTEXT_59_IDS


def write_own(folder: Path, text: str) -> str:
    (folder / "own.toml").write_text(text, encoding="utf-8")
    return str(folder / "own.toml")


def test_an_own_dataset_is_read_by_path(tmp_path: Path) -> None:
    dataset = load_dataset(write_own(tmp_path, OWN))
    assert (dataset.name, dataset.sources, dataset.splits) == ("own", (), ("train",))


def test_a_dataset_takes_only_its_own_schemas() -> None:
    dataset = load_dataset("pascal-context")
    assert dataset.schema_for(None) == "context460"
    assert dataset.schema_for("context33") == "context33"
    with pytest.raises(UsageError, match=r"'voc21' does not fit .* context460, context59"):
        dataset.schema_for("voc21")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('title = "Own pictures"', "title = ", "not TOML"),
        ('title = "Own pictures"', 'colour = "red"\ntitle = "x"', "colour"),
        ('title = "Own pictures"\n', "", "title"),
        ('"masks"', '"../masks"', "labels: .*must be a relative path"),
        ('"masks"', '"/masks"', "labels: .*must be a relative path"),
        ('"images"', '"a/../../b"', "images: .*must be a relative path"),
        ('"images"', '""', "images: .*must be a relative path"),
        ('"splits"', '".."', "split_files: .*must be a relative path"),
        ('"png"', '"gif"', "label_kind"),
        ('["train"]', "[]", "splits"),
        ('["voc21"]', "[]", "schemas"),
        ('["voc21"]', '"voc21"', "schemas"),
        ('["train"]', '["train", "val", "train"]', "splits: 'train' is listed twice"),
        (
            '"png"',
            '"png"\nlabel_areas = "../x"',
            r"label_areas '\.\./x': expected text of the form",
        ),
        ('"images"', r'"a\u0000b"', r"images: .* holds control characters"),
        ('["voc21"]', r'["a\nb.toml"]', r"schemas\[0\]: 'a\\nb\.toml' holds control"),
        (
            '"png"',
            '"png"\nsplit_flags = "some"',
            "split_flags 'some': expected one of posi",
        ),
    ],
)
def test_bad_manifests_are_refused_with_file_and_key(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    assert OWN.count(old) == 1
    path = write_own(tmp_path, OWN.replace(old, new))
    with pytest.raises(ManifestError, match=complaint) as caught:
        load_dataset(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("lines", "splits"),
    [
        ('split_lists = {a = "a.txt", b = "/lists/b.CSV"}', ("a", "b")),
        ("", ("all",)),
        ('splits = ["one"]', ("one",)),
        ('split_files = "."\nsplits = ["a", "b"]', ("a", "b")),
    ],
)
def test_splits_follow_from_how_images_are_listed(
    tmp_path: Path, lines: str, splits: tuple[str, ...]
) -> None:
    dataset = load_dataset(write_own(tmp_path, WITHOUT_SPLITS + lines))
    assert dataset.splits == splits


def test_lists_of_splits_lie_beside_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    text = WITHOUT_SPLITS + 'split_lists = {a = "lists/a.txt", b = "/far/b.json"}'
    dataset = load_dataset(write_own(tmp_path, text))
    assert dataset.split_lists == {"a": f"{tmp_path}/lists/a.txt", "b": "/far/b.json"}


def test_kinds_of_images_and_label_maps(tmp_path: Path) -> None:
    text = WITHOUT_SPLITS.replace('"png"', '"colours"').replace('"images"', '"."')
    text += 'image_suffixes = [".PNG", ".jpg"]\nlabel_suffix = "_L.png"\n'
    dataset = load_dataset(write_own(tmp_path, text + '[label_colours]\n"#FF00aa" = 459\n'))
    assert (dataset.images, dataset.suffixes) == (".", (".png", ".jpg"))
    assert (dataset.label_file_suffix, dataset.label_colours) == ("_L.png", {"#ff00aa": 459})
    plain = load_dataset(write_own(tmp_path, WITHOUT_SPLITS.replace('"png"', '"tiff"')))
    assert (plain.label_file_suffix, len(plain.suffixes)) == (".tif", 7)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ('splits = ["a", "b"]', "splits: expected one, since nothing says which images"),
        ('splits = ["c"]\nsplit_lists = {a = "a.txt"}', "splits: 'c' has no file in split_lists"),
        ('split_files = "s"\nsplit_lists = {a = "a.txt"}', "split_lists: found beside split_files"),
        ('split_files = "s"', "splits: expected a value, found none"),
        ('split_lists = {"a/b" = "a.txt"}', "split_lists: split 'a/b': expected 1 to 64"),
        ('split_lists = {a = "a.xls"}', r"split_lists: 'a.xls': expected the path of a .txt, "),
        ('image_suffixes = [".gif"]', r"image_suffixes\[0\] '.gif': expected one of .jpg"),
        ('image_suffixes = [".jpg", ".JPG"]', "image_suffixes: '.jpg' is listed twice"),
        ('image_suffixes = [".png"]\nlabels = "images"', r"labels: .* both \*.png in 'images'"),
        ('label_suffix = "_L"', "label_suffix: '_L': expected the end of a file name with its"),
        ('label_suffix = "/x.png"', "label_suffix: '/x.png': expected the end of a file name"),
        ('label_variable = "M"', "label_variable: belongs to label_kind 'mat', found label_kind"),
        ('label_colours = {"#ffffff" = 1}', "label_colours: belongs to label_kind 'colours'"),
        ('label_annotations = "a.json"', "label_annotations: belongs to label_kind 'panoptic'"),
        ('label_kind = "colours"', "label_colours: expected with label_kind 'colours', found none"),
        ('label_kind = "panoptic"', "label_annotations: expected with label_kind 'panoptic'"),
        ('label_kind = "colours"\nlabel_colours = {}', "label_colours: expected with label_kind"),
        ('label_kind = "colours"\nlabel_colours = {"red" = 1}', "label_colours: 'red': expected"),
        (
            'label_kind = "colours"\nlabel_colours = {"#aabbcc" = 1, "#AABBCC" = 2}',
            "label_colours: '#aabbcc' is listed twice",
        ),
        (
            'label_kind = "colours"\nlabel_colours = {"#aabbcc" = 65536}',
            "label_colours.#aabbcc: expected an id, 0 to 65534, found 65536",
        ),
        ('label_kind = "mat"\nlabel_variable = "a b"', "label_variable 'a b': expected text"),
        ('images = "{split}/../x"', "images: .* must be a relative path"),
    ],
)
def test_fields_that_do_not_agree_are_refused(tmp_path: Path, lines: str, complaint: str) -> None:
    keys = {line.partition(" = ")[0] for line in lines.splitlines()}
    kept = [line for line in WITHOUT_SPLITS.splitlines() if line.partition(" = ")[0] not in keys]
    with pytest.raises(ManifestError, match=complaint):
        load_dataset(write_own(tmp_path, "\n".join([*kept, lines])))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("bytes", '"5"'), ("bytes", "-1"), ("about_bytes", "true"), ("urls", r'["a\u001b"]')],
        *[
            ("path", '"../up"'),
            ("sha256", '"XYZ"'),
            ("md5", '""'),
            ("bytes", '"many"'),
            ("size", "1"),
        ],
    ],
)
def test_bad_source_files_are_refused(tmp_path: Path, key: str, value: str) -> None:
    entries = {"path": '"downloads/a.tar"', "urls": '["https://example.org/a.tar"]', key: value}
    lines = "\n".join(f"{name} = {text}" for name, text in entries.items())
    path = write_own(tmp_path, f'title = "t"\nterms = "t"\n[[files]]\n{lines}\n')
    with pytest.raises(ManifestError, match=rf"files\[0\]\.{key}"):
        load_source(path)


def test_two_files_of_one_path_are_refused(tmp_path: Path) -> None:
    file = '[[files]]\npath = "a.tar"\nurls = ["https://example.org/a.tar"]\n'
    path = write_own(tmp_path, 'title = "t"\nterms = "t"\n' + 2 * file)
    with pytest.raises(ManifestError, match=r"files: 'a\.tar' is listed twice; remove one"):
        load_source(path)


def test_sizes_may_be_written_with_an_exponent(tmp_path: Path) -> None:
    file = '[[files]]\npath = "a.tar"\nurls = []\nbytes = 2e9\n'
    path = write_own(tmp_path, 'title = "t"\nterms = "t"\n' + file)
    assert load_source(path).files[0].bytes == 2_000_000_000


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ManifestError, match=r"own\.toml: UTF-16 text"):
        load_dataset(str(path))


def test_every_shipped_toml_belongs_to_a_known_kind() -> None:
    kinds = {"sources": load_source, "datasets": load_dataset, "labels": load_label_space}
    shipped = list(manifests_dir().rglob("*.toml"))
    for path in shipped:
        tomllib.loads(path.read_text(encoding="utf-8"))
        kinds[path.parent.name](path.stem)
    assert {path.parent.name for path in shipped} == kinds.keys()


def test_manifests_are_found_by_name_and_by_path(tmp_path: Path) -> None:
    assert find_manifest("datasets", "voc2012") == manifests_dir() / "datasets" / "voc2012.toml"
    own = tmp_path / "own.toml"
    own.touch()
    assert find_manifest("datasets", str(own)) == own
    assert manifest_names("labels") == ["context33", "context460", "context59", "voc21"]


@pytest.mark.parametrize("name", ["voc1999", "../datasets/voc2012", ""])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError, match=r"dataset .* is not known: .*voc2007.*voc2012"):
        find_manifest("datasets", name)


def test_a_path_without_its_suffix_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").touch()
    with pytest.raises(UsageError, match=r"'mine' is not a shipped one; .* write mine\.toml"):
        find_manifest("datasets", "mine")


def test_a_path_without_a_file_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"nowhere/own\.toml: no such manifest file"):
        find_manifest("datasets", "nowhere/own.toml")


def test_a_folder_in_the_place_of_its_manifest_gets_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my data").mkdir()
    with pytest.raises(
        UsageError, match=r"without dataset\.toml; run vocprep init 'my data' first"
    ):
        find_manifest("datasets", "my data")
    with pytest.raises(
        ManifestError, match=r"no such .* dataset; run vocprep init 'my data' first"
    ):
        find_manifest("datasets", "my data/dataset.toml")
    Path("my data/dataset.toml").touch()
    with pytest.raises(UsageError, match=r"is a folder; name its manifest, my data/dataset\.toml"):
        find_manifest("datasets", "my data")


def test_an_installation_without_manifests_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifests, "__file__", str(tmp_path / "vocprep" / "manifests.py"))
    with pytest.raises(ManifestError, match="installation is incomplete"):
        manifests_dir()


@pytest.mark.parametrize(
    ("data_dir", "found"),
    [("none", "no such file"), ("s3://bucket/none", "an object store, of which")],
)
def test_a_recorded_dataset_that_is_not_there_says_where_it_was_looked_for(
    data_dir: str, found: str
) -> None:
    expected = rf"'mine'.*expected its manifest at .*none/dataset\.toml, found {found}"
    with pytest.raises(UsageError, match=expected):
        load_recorded_dataset("mine", None, parse_place(data_dir))
