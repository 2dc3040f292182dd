"""Schemas: the four shipped label spaces, one's own, and ids that belong to none."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vocprep.errors import LabelDecodeError, ManifestError, UsageError
from vocprep.labels.label_space import LabelSpace, load_label_space

OWN = 'title = "Own"\nvoid = 9\n\n[names]\n0 = "cat"\n4 = "dog"\n'


def write_own(folder: Path, text: str) -> str:
    path = folder / "own.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("name", "classes", "categories", "void"),
    [
        ("context460", 459, 460, 0),
        ("context59", 59, 60, 0),
        ("context33", 33, 34, 0),
        ("voc21", 21, 21, 255),
    ],
)
def test_shipped_schemas(name: str, classes: int, categories: int, void: int) -> None:
    schema = load_label_space(name)
    assert (schema.name, len(schema.names), schema.void) == (name, classes, void)
    assert schema.outputs == categories
    assert len(set(schema.names.values())) == classes
    assert void not in schema.names
    assert schema.title


def test_context460_keeps_every_raw_id() -> None:
    raw = np.arange(460, dtype=np.uint16).reshape(20, 23)
    found = load_label_space("context460").apply(raw, "x")
    np.testing.assert_array_equal(found, raw)
    assert found.dtype == np.uint16


def test_voc21_keeps_background_and_void() -> None:
    raw = np.array([[*range(21), 255]], dtype=np.uint16)
    np.testing.assert_array_equal(load_label_space("voc21").apply(raw, "x"), raw)


@pytest.mark.parametrize(("schema", "bad"), [("context460", 460), ("voc21", 21), ("voc21", 254)])
def test_an_id_outside_the_schema_is_refused_with_its_place(schema: str, bad: int) -> None:
    raw = np.zeros((4, 6), dtype=np.uint16)
    raw[2, 5] = raw[3, 0] = bad
    with pytest.raises(LabelDecodeError, match=rf"dir/a\.mat: label id {bad} at row 2, column 5"):
        load_label_space(schema).apply(raw, "dir/a.mat")


def test_void_above_the_classes_does_not_hide_what_is_mapped_or_outside() -> None:
    parts = {"name": "pets", "title": "pets", "void": 255, "names": {1: "cat"}}
    space = LabelSpace.made(**parts, void_unknown=False, raw_to_class={1: 1, 7: 1, 255: 255})
    raw = np.array([[1, 7, 255]], dtype=np.uint16)
    assert space.apply(raw, "a.png").tolist() == [[1, 1, 255]]
    with pytest.raises(LabelDecodeError, match="label id 9 at row 0, column 1"):
        space.apply(np.array([[255, 9]], dtype=np.uint16), "a.png")
    # 255 is a raw id of a class here, and void another one.
    moved = LabelSpace.made(**parts, void_unknown=False, raw_to_class={0: 255, 255: 1})
    assert moved.apply(np.array([[255, 0]], dtype=np.uint16), "a.png").tolist() == [[1, 255]]


def test_the_error_lists_the_ids_that_fit() -> None:
    with pytest.raises(LabelDecodeError, match=r"outside schema voc21: expected 0\.\.20, 255;"):
        load_label_space("voc21").apply(np.full((1, 1), 65535, dtype=np.uint16), "x")


@pytest.mark.parametrize("name", ["context59", "context33"])
def test_classes_take_the_pixels_of_the_label_of_their_name(name: str) -> None:
    schema, base = load_label_space(name), load_label_space("context460")
    raw = np.arange(460, dtype=np.uint16)[None]
    found = schema.apply(raw, "x")[0]
    ids = {label: key for key, label in schema.names.items()}
    for label, text in base.names.items():
        own_name = "diningtable" if text == "table" and "diningtable" in ids else text
        assert found[label] == ids.get(own_name, schema.void), text
    assert found[0] == schema.void
    assert set(found.tolist()) == {schema.void, *schema.names}


def test_diningtable_is_the_base_label_table() -> None:
    base = {text: key for key, text in load_label_space("context460").names.items()}
    found = load_label_space("context33").apply(np.array([[base["table"]]], dtype=np.uint16), "x")
    assert load_label_space("context33").names[int(found[0, 0])] == "diningtable"
    found = load_label_space("context59").apply(np.array([[base["table"]]], dtype=np.uint16), "x")
    assert load_label_space("context59").names[int(found[0, 0])] == "table"


@pytest.mark.parametrize("name", ["context59", "context33"])
def test_ids_outside_the_base_are_refused_by_derived_schemas(name: str) -> None:
    with pytest.raises(LabelDecodeError, match=r"expected 0\.\.459;"):
        load_label_space(name).apply(np.array([[460]], dtype=np.uint16), "x")


def test_unknown_can_be_made_void() -> None:
    plain, void = load_label_space("context460"), load_label_space("context460", void_unknown=True)
    raw = np.array([[430, 431, 432, 0]], dtype=np.uint16)
    assert plain.names[431] == "unknown"
    assert plain.apply(raw, "x").tolist() == [[430, 431, 432, 0]]
    assert void.apply(raw, "x").tolist() == [[430, 0, 432, 0]]
    assert 431 not in void.names
    assert void.outputs == 460
    assert void.sha256 != plain.sha256


@pytest.mark.parametrize("name", ["voc21", "context59"])
def test_unknown_cannot_be_made_void_where_there_is_none(name: str) -> None:
    with pytest.raises(UsageError, match=f"label space {name} has no class 'unknown'"):
        load_label_space(name, void_unknown=True)


def test_class_names_for_people() -> None:
    schema = load_label_space("voc21")
    assert (schema.class_name(255), schema.class_name(0)) == ("void", "background")


def test_an_own_schema_by_path(tmp_path: Path) -> None:
    schema = load_label_space(write_own(tmp_path, OWN))
    assert (schema.name, schema.title, dict(schema.names)) == ("own", "Own", {0: "cat", 4: "dog"})
    assert schema.outputs == 5
    assert schema.apply(np.array([[0, 4, 9]], dtype=np.uint16), "x").tolist() == [[0, 4, 9]]


def test_an_own_schema_may_map_names_of_a_base(tmp_path: Path) -> None:
    text = 'title = "Own"\nbase = "voc21"\nvoid = 0\n[base_names]\nkitty = "cat"\n'
    schema = load_label_space(write_own(tmp_path, text + '[names]\n1 = "kitty"\n2 = "dog"\n'))
    raw = np.array([[0, 8, 12, 255, 15]], dtype=np.uint16)
    assert schema.apply(raw, "x").tolist() == [[0, 1, 2, 0, 0]]


COLOURS = '\n[colours]\n0 = "#1E90ff"\n4 = "#d62728"\n'


def test_colours_are_drawn_and_stored_and_no_digest_counts_them(tmp_path: Path) -> None:
    plain = load_label_space(write_own(tmp_path, OWN))
    space = load_label_space(write_own(tmp_path, OWN + COLOURS))
    assert dict(space.colours) == {0: "#1e90ff", 4: "#d62728"}
    assert [space.style.colour(key) for key in (0, 4)] == [(30, 144, 255), (214, 39, 40)]
    assert space.sha256 == plain.sha256
    assert space == plain
    for again in (LabelSpace.from_json(space.to_json()), pickle.loads(pickle.dumps(space))):
        assert again.colours == space.colours


def test_colours_are_not_stored_where_none_are_given(tmp_path: Path) -> None:
    assert "colours" not in load_label_space(write_own(tmp_path, OWN)).to_json()
    for name in ("context460", "context59", "context33", "voc21"):
        assert "colours" not in load_label_space(name).to_json()


def test_the_colour_of_a_class_that_is_made_void_goes_with_it(tmp_path: Path) -> None:
    text = OWN.replace("dog", "unknown") + COLOURS
    space = load_label_space(write_own(tmp_path, text), void_unknown=True)
    assert dict(space.colours) == {0: "#1e90ff"}
    assert LabelSpace.from_json(space.to_json()).colours == space.colours


def digest(tmp_path: Path, text: str) -> str:
    return load_label_space(write_own(tmp_path, text)).sha256


def test_the_digest_is_of_the_label_space_alone(tmp_path: Path) -> None:
    own = digest(tmp_path, OWN)
    assert digest(tmp_path, OWN.replace("Own", "Another title")) == own
    assert digest(tmp_path, OWN.replace("dog", "cow")) != own
    assert digest(tmp_path, OWN.replace("void = 9", "void = 8")) != own
    assert digest(tmp_path, OWN.replace("4 =", "5 =")) != own
    names = ("context460", "context59", "context33", "voc21")
    assert len({load_label_space(name).sha256 for name in names}) == 4


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("void = ", "not TOML"),
        ("void = 9\n[names]\n0 = 'a'", "title"),
        (OWN.replace("void = 9", "void = 4"), "void id 4 is also a class"),
        (OWN.replace("void = 9", "void = 65536"), "void"),
        (OWN.replace("4 =", "32768 ="), "names"),
        (OWN.replace("4 =", "-1 ="), "names"),
        ('title = "x"\nvoid = 9\n[names]\n', "names"),
        ('colour = "red"\n' + OWN, "colour"),
        (
            'base = "voc21"\n' + OWN.replace("dog", "unicorn"),
            "class 'unicorn' is not a class of voc21",
        ),
        ('base = "nowhere"\n' + OWN, "label space 'nowhere' is not known"),
        (OWN.replace("dog", "cat"), "classes 0 and 4 are both called 'cat'; name them apart"),
        (OWN.replace("dog", " "), "class 4 has an empty name"),
        (OWN.replace("dog", "x" * 100_000), r"names\.4 'x.*: expected at most 200 characters"),
        (OWN.replace("dog", r"do\ng"), r"names\.4: 'do\\ng' holds control characters"),
        (OWN.replace("dog", r"do\u2028g"), r"names\.4: .* holds control characters or line ends"),
        (OWN.replace("4 =", "04 ="), r"names\.04: '04' is no id: expected a whole number, as 1"),
        (OWN.replace("4 =", '"4.0" ='), r"'4\.0' is no id"),
        (OWN.replace("4 =", '"\u00b2" ='), "is no id"),
        (OWN.replace("4 =", "9" * 5000 + " ="), "'99999999999999999999' is no id"),
        (OWN.replace("void = 9", 'void = "9"'), "void '9': expected a whole number"),
        (OWN.replace("void = 9", "void = 9.0"), r"void 9\.0: expected a whole number"),
        (OWN.replace("void = 9", "void = nan"), "void nan: expected a whole number"),
        (OWN.replace("void = 9", "void = true"), "void True: expected a whole number"),
        (OWN.replace("void = 9", "void = " + "9" * 5000), r"not TOML: Exceeds the limit \(4300"),
        (OWN + '[colours]\n4 = "red"', r"colours\.4: 'red' is no colour: expected # and six hex"),
        (OWN + '[colours]\n4 = "#12345"', "'#12345' is no colour"),
        (OWN + '[colours]\n4 = "#12345g"', "'#12345g' is no colour"),
        (OWN + '[colours]\n4 = "#12345\u0661"', "is no colour"),
        (OWN + "[colours]\n4 = [1, 2, 3]", r"colours\.4 .*expected text"),
        (OWN + '[colours]\n5 = "#123456"', "colours: id 5 is not a class; expected ids of names"),
        (OWN + '[colours]\n9 = "#123456"', "colours: id 9 is void, which is hatched; leave its"),
        (OWN + '[colours]\ndog = "#123456"', "'dog' is no id"),
        (OWN + "[colours]", "colours"),
        (OWN.replace('"Own"', f'"{"x" * 10_001}"'), "title 'x.*: expected at most 10000 char"),
    ],
)
def test_bad_schema_files_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = write_own(tmp_path, text)
    with pytest.raises(ManifestError, match=complaint) as caught:
        load_label_space(path)
    if "nowhere" not in text:
        assert path in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ManifestError, match="UTF-16 text"):
        load_label_space(str(path))


@pytest.mark.parametrize(("name", "file"), [("context59", "59_labels"), ("context33", "33_labels")])
def test_class_ids_are_those_of_the_authors_list(shared_data: Path, name: str, file: str) -> None:
    path = shared_data / "labels" / f"{file}.txt"
    if not path.is_file():
        pytest.skip(f"no {path.name} there")
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    listed = {int(key): text.strip() for key, text in (line.split(":", 1) for line in lines)}
    schema: LabelSpace = load_label_space(name)
    assert {key: text for key, text in listed.items() if key} == dict(schema.names)


def test_pickles() -> None:
    schema = load_label_space("context59")
    again = pickle.loads(pickle.dumps(schema))
    assert again == schema
    assert again.sha256 == schema.sha256


def test_of_classes_maps_its_own_ids_only() -> None:
    space = LabelSpace.of_classes(name="pets", void=255, names={0: "background", 3: "cat"})
    assert space.outputs == 4
    label_map = np.array([[0, 3, 255]], dtype=np.uint16)
    assert np.array_equal(space.apply(label_map, "here"), label_map)
    with pytest.raises(LabelDecodeError, match="label id 1"):
        space.apply(label_map * 0 + 1, "here")
    assert [space.class_name(label) for label in (3, 255, 1)] == ["cat", "void", "class 1"]


def stored() -> dict[str, Any]:
    return LabelSpace.of_classes(name="pets", void=255, names={0: "cat", 1: "dog"}).to_json()


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("void", "255", "void '255': expected a whole number"),
        ("void", 255.0, r"void 255\.0: expected a whole number"),
        ("void", None, "void None: expected a whole number"),
        ("void", 1, "void id 1 is also a class"),
        ("names", {"0": "cat", "1": "\ud800"}, "not JSON: .*hex escape"),
        ("names", {"0": "cat", "1": "a" * 201}, r"names\.1 .*: expected at most 200 characters"),
        ("names", {"0": "cat", "1": "a\nb"}, "control characters"),
        ("names", {"0": "cat", "1": 5}, r"names\.1 5: expected text"),
        ("names", {"0": "cat", "01": "dog"}, "'01' is no id"),
        ("names", {"-1": "cat"}, "'-1' is no id"),
        ("names", {"32768": "cat"}, "expected less than 32768"),
        ("names", {}, "expected at least 1"),
        ("names", [], "expected a table"),
        ("raw_to_class", {"0": 7}, "id 7 is neither a class nor void"),
        ("raw_to_class", {"65535": 0}, "expected less than 65535"),
        ("raw_to_class", {"0": "1"}, "expected a whole number"),
        ("name", "x" * 100_000, "expected at most 200 characters"),
        ("void_unknown", 1, "expected true or false"),
        ("colours", {"0": "red"}, "'red' is no colour"),
        ("colours", {"7": "#123456"}, "id 7 is not a class"),
        ("colours", [], "expected a table"),
        ("more", 1, "no field of this name"),
    ],
)
def test_stored_label_spaces_that_no_reader_could_use_are_refused(
    field: str, value: object, complaint: str
) -> None:
    with pytest.raises(ManifestError, match=rf"^not a label space: .*{complaint}") as caught:
        LabelSpace.from_json({**stored(), field: value})
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("value", [[1], "pets", None, {}, {"void": object()}])
def test_other_values_are_no_label_space(value: Any) -> None:
    with pytest.raises(ManifestError, match="not a label space"):
        LabelSpace.from_json(value)


def test_what_earlier_versions_may_have_stored_is_read() -> None:
    names = {"0": "other", "1": "other", "2": "", "3": "a\u00a0b", "4": "x" * 200}
    space = LabelSpace.from_json({**stored(), "names": names})
    assert space.class_name(1) == "other"
    assert LabelSpace.from_json(space.to_json()) == space
