"""The recipe: one JSON text, one id, and nothing else in it but what decides the records."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocprep.backbones import Layer, Network, Normalisation
from vocprep.errors import ShardError, UsageError
from vocprep.files.names import is_plain_name
from vocprep.files.writing import canonical_json, sha256_hex
from vocprep.geometry import Geometry
from vocprep.options import BuildChoices, BuildOptions, Layout
from vocprep.recipe import (
    LabelRuleId,
    LabelSpaceId,
    Recipe,
    Reduction,
    SplitIds,
    differing_fields,
    joined_differences,
)
from vocprep.validation import to_json
from vocprep.views import Crops, parse_views

RECIPE = Recipe(
    dataset="pascal-context",
    schema=LabelSpaceId(name="context460", sha256="ab" * 32),
    splits={"train": SplitIds.of(["b", "a"]), "val": SplitIds.of(["c"])},
    backbone="resnet32-cifar100",
    weights_sha256="cd" * 32,
)

texts = st.text(max_size=8)
floats = st.floats(allow_nan=False, allow_infinity=False)
triples = st.tuples(floats, floats, floats)
recipes = st.builds(
    Recipe,
    dataset=texts,
    schema=st.builds(LabelSpaceId, name=texts, sha256=texts, void_unknown=st.booleans()),
    splits=st.dictionaries(
        texts, st.builds(SplitIds, count=st.integers(0), ids_sha256=texts), max_size=3
    ),
    backbone=st.just("resnet32-cifar100"),
    windows=st.sampled_from([(32,), (64, 32), (128, 256)]),
    layers=st.sampled_from([("layer3",), ("layer2", "layer3")]),
    weights_sha256=texts,
    geometry=st.sampled_from(
        [Geometry(), Geometry(geometry="squash"), Geometry(geometry="native", edge="pad")]
    ),
    normalisation=st.builds(Normalisation, mean=triples, std=triples),
    embedding_dtype=st.sampled_from(["float16", "float32"]),
    views=st.sampled_from([("identity",), ("identity", "flip")]),
)


def test_the_canonical_text_and_the_id_never_change() -> None:
    assert canonical_json(RECIPE.to_json()).startswith(
        b'{"backbone":"resnet32-cifar100","dataset":"pascal-context","embedding_dtype":"float16",'
        b'"format_version":1,"geometry":{"edge":"drop","geometry":"crop"},'
    )
    assert RECIPE.recipe_id == sha256_hex(canonical_json(RECIPE.to_json()))
    assert RECIPE.recipe_id == "4da9a429cc3265850b83b523b2f775fa2b3313f42926842f9fa18b44c992c1d2"


@given(recipes)
def test_json_round_trip(recipe: Recipe) -> None:
    text = json.dumps(recipe.to_json())
    again = Recipe.from_json(json.loads(text))
    assert again == recipe
    assert again.recipe_id == recipe.recipe_id


OTHER_VALUES: dict[str, Any] = {
    "dataset": "voc2012",
    "schema": LabelSpaceId(name="context460", sha256="ab" * 32, void_unknown=True),
    "splits": {"train": SplitIds.of(["b", "a"])},
    "windows": (64,),
    "layers": ("layer3", "layer2"),
    "weights_sha256": "ef" * 32,
    "geometry": Geometry(geometry="squash"),
    "normalisation": Normalisation(mean=(0.485, 0.456, 0.406)),
    "embedding_dtype": "float32",
    "views": ("identity", "flip"),
    "format_version": 2,
    "reduction": Reduction(kind="projection", size=64, seed=0),
    "label_rule": LabelRuleId(kind="colours", table_sha256="ab" * 32),
    "crops": Crops(count=2, seed=0),
}


@pytest.mark.parametrize("name", sorted(OTHER_VALUES))
def test_each_field_changes_the_id_and_is_named_as_the_difference(name: str) -> None:
    other = replace(RECIPE, **{name: OTHER_VALUES[name]})
    assert other.recipe_id != RECIPE.recipe_id
    lines = differing_fields(RECIPE.to_json(), other.to_json())
    assert lines
    assert all(line.split(":")[0].split(".")[0] == name for line in lines)


def test_every_field_is_covered_above_or_below() -> None:
    assert {item.name for item in fields(Recipe)} == OTHER_VALUES.keys() | {
        *("precision", "backbone", "network")
    }


def test_layout_and_engine_options_share_no_field_with_the_recipe() -> None:
    of_recipe = {item.name for item in fields(Recipe)}
    for options in (Layout, BuildOptions):
        assert not of_recipe & {item.name for item in fields(options)}


def test_choices_default_to_the_recipes_defaults() -> None:
    of_recipe = {item.name for item in fields(Recipe)}
    shared = {item.name for item in fields(BuildChoices)} & of_recipe - {"splits", "schema"}
    chosen_by_the_backbone = {"windows", "layers", "normalisation", "precision"}
    expected = {"geometry", "backbone", "embedding_dtype", "views"}
    assert shared == expected | chosen_by_the_backbone
    for name in shared - chosen_by_the_backbone:
        assert getattr(BuildChoices(), name) == getattr(RECIPE, name)
    for name in chosen_by_the_backbone:
        assert getattr(BuildChoices(), name) is None


RESNET18 = replace(RECIPE, backbone="resnet18-imagenet", windows=(), layers=("layer4",))


def test_backbone_and_precision_change_the_id() -> None:
    bf16 = replace(RECIPE, precision="bf16")
    assert len({RECIPE.recipe_id, RESNET18.recipe_id, bf16.recipe_id}) == 3


def test_short_name_says_what_is_not_usual() -> None:
    wide = replace(RECIPE, windows=(32, 64, 128), layers=("layer3", "layer2"))
    assert RECIPE.short_name == "context460-crop224-resnet32-fp32"
    assert wide.short_name == "context460-crop224-resnet32-w32.64.128-layer3.layer2-fp32"
    assert RESNET18.short_name == "context460-crop224-resnet18-fp32"


@pytest.mark.parametrize(
    ("recipe", "changes", "said"),
    [
        (RECIPE, {"windows": ()}, "windows"),
        (RECIPE, {"windows": (32, 32)}, "each once"),
        (RECIPE, {"windows": (32, 48)}, "windows '32,48': expected some of 32, 64, 128, 256"),
        (RECIPE, {"layers": ()}, "layer3, layer2"),
        (RECIPE, {"layers": ("layer4",)}, "layer3, layer2"),
        (RECIPE, {"layers": ("layer2", "layer2")}, "each once"),
        (RECIPE, {"backbone": "resnet50"}, "resnet18-imagenet"),
        (RESNET18, {"windows": (32,)}, "whole image"),
        (RESNET18, {"layers": ("layer3",)}, "layer4"),
        (RESNET18, {"geometry": Geometry(geometry="native")}, "crop or squash"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_windows_and_layers_that_a_backbone_has_not_are_refused(
    recipe: Recipe, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        replace(recipe, **changes)


def test_split_ids_do_not_depend_on_order() -> None:
    one = SplitIds.of(["2008_000002", "2008_000001"])
    assert one == SplitIds.of(["2008_000001", "2008_000002"])
    assert one == SplitIds(count=2, ids_sha256=sha256_hex(b"2008_000001\n2008_000002\n"))
    assert SplitIds.of(["ab", "c"]) != SplitIds.of(["a", "bc"])


def test_differing_fields_names_nested_and_missing_ones() -> None:
    one = {"same": 1, "nested": {"a": 1, "b": [2]}, "gone": "x"}
    other = {"same": 1, "nested": {"a": 2, "b": [2]}, "new": None, "extra": 3}
    assert differing_fields(one, other) == [
        "extra: no value and 3",
        "gone: 'x' and no value",
        "nested.a: 1 and 2",
    ]
    assert differing_fields(one, one) == []


def test_differing_lists_are_shown_as_they_are_typed() -> None:
    one, other = ({"windows": list(values)} for values in ((32,), (32, 64)))
    assert differing_fields(one, other) == ["windows: '32' and '32,64'"]
    other["windows"] = [[64], {"a": None}]
    assert differing_fields(one, other) == ["windows: '32' and [[64], {'a': None}]"]


def test_short_name() -> None:
    assert RECIPE.short_name == "context460-crop224-resnet32-fp32"


@pytest.mark.parametrize(
    "damage",
    [
        {"geometry": {"geometry": "stretch"}},
        {"geometry": None},
        {"normalisation": {"mean": [1, 2, 3]}},
        {"schema": {"name": "x"}},
        {"splits": [1]},
        {"views": ["flip"]},
        {"views": "identity"},
        {"precision": "fp8"},
        {"unheard_of": 1},
    ],
    ids=str,
)
def test_values_that_are_no_recipe_are_refused(damage: dict[str, Any]) -> None:
    with pytest.raises(ShardError, match="not a recipe"):
        Recipe.from_json({**RECIPE.to_json(), **damage})


@given(st.integers(1, 99), st.integers(0, 2**63 - 1))
def test_crops_are_part_of_the_recipe_and_of_its_text(count: int, seed: int) -> None:
    recipe = replace(RECIPE, crops=Crops.parse(f"crops:{count},{seed}"))
    again = Recipe.from_json(json.loads(json.dumps(recipe.to_json())))
    assert (again, again.recipe_id) == (recipe, recipe.recipe_id)
    assert recipe.record_views == ("identity", *(f"crop{n + 1}" for n in range(count)))
    typed = BuildChoices(views=("identity", *parse_views(f"crops:{count}, {seed},flip")))
    assert (typed.named_views, typed.crops) == (("identity", "flip"), recipe.crops)


def test_a_recipe_without_a_field_is_refused() -> None:
    values = RECIPE.to_json()
    del values["weights_sha256"]
    with pytest.raises(ShardError, match="weights_sha256"):
        Recipe.from_json(values)


@pytest.mark.parametrize("views", [(), ("flip",), ("identity", "identity"), ("identity", "turn")])
def test_views_begin_with_identity_and_hold_each_once(views: Any) -> None:
    with pytest.raises(UsageError, match="views"):
        replace(RECIPE, views=views)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: replace(RECIPE, precision="fp8"), "precision 'fp8'"),  # type: ignore[arg-type]
        (lambda: replace(RECIPE, embedding_dtype="int8"), "float16, float32"),  # type: ignore[arg-type]
        (lambda: BuildChoices(limit=0), "limit 0: expected 1 or more"),
        (lambda: BuildChoices(limit_per_split=0), "limit_per_split: expected 1 or more, found 0"),
        (lambda: Layout(format="zarr"), "hdf5, webdataset"),  # type: ignore[arg-type]
        (lambda: Layout(samples_per_shard=0), "samples_per_shard 0: expected 1 or more"),
        (lambda: BuildOptions(workers=0), "workers 0: expected 1 or more"),
        (lambda: BuildOptions(if_exists="ask"), "resume, overwrite, fail"),  # type: ignore[arg-type]
    ],
)
def test_options_that_cannot_work_are_refused(make: Any, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        make()


@pytest.mark.parametrize("image_id", ["2008_000002", "a", "A-b_9", "x" * 64])
def test_plain_image_ids_pass(image_id: str) -> None:
    assert is_plain_name(image_id)


@pytest.mark.parametrize(
    "image_id", ["", "../up", "a/b", "a.b", "a b", "a#flip", "é", "a\n", "\uff12", "a\0", "x" * 65]
)
def test_image_ids_that_no_container_can_hold_are_refused(image_id: str) -> None:
    assert not is_plain_name(image_id)


def test_differences_of_any_size_make_a_short_line() -> None:
    huge = {"a" * 5000: "x" * 100_000, "b": list(range(100_000)), "c": {"d\n\x1b[2J": "e\n"}}
    lines = differing_fields(huge, {})
    assert len(lines) == 3
    assert all(len(line) < 1500 and line.isprintable() for line in lines)
    many = differing_fields({str(number): "x" * 500 for number in range(1000)}, {})
    assert len(joined_differences(many)) < 1500
    assert joined_differences(["a: 1 and 2"] * 1000).endswith("; and 994 more")


NETWORK = Network(library="timm 1.0.31", layers={"blocks.4": Layer(channels=112, cells=2)})


def of_network(**changes: Any) -> Recipe:
    values = {
        "backbone": "timm:net",
        "network": NETWORK,
        "windows": (),
        "layers": ("blocks.4",),
        "precision": "fp32",
    }
    return replace(RECIPE, **{**values, **changes})


def test_fields_that_earlier_recipes_lack_are_left_out_where_they_have_no_value():
    assert not {"network", "reduction", "label_rule"} & RECIPE.to_json().keys()
    assert to_json(RECIPE) == RECIPE.to_json()  # as a run keeps it


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"reduction": Reduction(kind="projection", size=64, seed=3)},
        {"label_rule": LabelRuleId(kind="mat", variable="classes")},
    ],
    ids=lambda changes: "-".join(changes) or "network",
)
def test_a_recipe_of_a_network_that_is_not_built_in_is_read_back(changes):
    recipe = of_network(**changes)
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert recipe.recipe_id != RECIPE.recipe_id
    assert recipe.described_backbone.takes_whole_images


def test_the_embedding_size_counts_cells_unless_it_is_reduced():
    assert of_network().embedding_size == 448
    assert of_network(reduction=Reduction(kind="pca", size=64)).embedding_size == 64


def test_a_recipe_that_has_pictures_resized_beyond_any_memory_is_refused():
    value = of_network().to_json()
    value["network"]["patch_pixels"] = 20_000
    with pytest.raises(ShardError, match=r"network\.patch_pixels 20000: expected at most 1024"):
        Recipe.from_json(value)


@pytest.mark.parametrize("changes", [{"network": None}, {"backbone": "resnet18-imagenet"}])
def test_a_network_stands_beside_backbones_that_are_not_built_in_only(changes):
    with pytest.raises(UsageError, match="expected a network beside every backbone that is not"):
        of_network(**changes)


@pytest.mark.parametrize(
    ("backbone", "library", "digest"),
    [
        ("timm:net", "torchvision 0.29.1", None),
        ("timm:net", "timm 1.0.31", "ab" * 32),
        ("module:make", "module", None),
        ("module:make", "timm 1.0.31", "ab" * 32),
    ],
)
def test_a_network_is_of_the_library_that_the_backbone_names(backbone, library, digest):
    network = replace(NETWORK, library=library, source_sha256=digest)
    with pytest.raises(UsageError, match="does not go with backbone"):
        of_network(backbone=backbone, network=network)


@pytest.mark.parametrize("name", ["", "a,b", "a\x1b[31m", "a\nb"])
def test_names_of_layers_hold_no_commas_and_no_control_characters(name):
    with pytest.raises(UsageError):
        replace(NETWORK, layers={name: Layer(channels=1, cells=1)})
