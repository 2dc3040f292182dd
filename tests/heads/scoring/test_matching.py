"""Which dataset versions fit a run, and which may be compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from builders.heads import make_dataset, make_recipe, random_records, run_for

from vocprep.backbones import Normalisation
from vocprep.errors import RunError, UsageError
from vocprep.geometry import Geometry
from vocprep.heads.scoring.matching import check_fits, choose_dataset, require_one_truth
from vocprep.recipe import LabelSpaceId
from vocprep.shards.reader import ShardDataset

pytestmark = pytest.mark.slow

RESNET18 = {
    "backbone": "resnet18-imagenet",
    "layers": ("layer4",),
    "windows": (),
    "geometry": Geometry(),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    splits = {name: random_records(name, [(1, 2)]) for name in ("train", "val")}
    return make_dataset(tmp_path_factory.mktemp("data") / "shards", splits)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"weights_sha256": "00" * 32}, "weights_sha256"),
        (RESNET18, "backbone"),
        ({"windows": (32, 64)}, "windows"),
        ({"layers": ("layer2",)}, "layers"),
        ({"normalisation": Normalisation(mean=(0.5, 0.5, 0.5))}, r"normalisation\.mean"),
        ({"schema": LabelSpaceId(name="voc21", sha256="00" * 32)}, r"schema\.sha256"),
    ],
)
def test_another_recipe_is_refused_with_the_field(
    dataset: ShardDataset, changes: dict[str, object], named: str
):
    recipe = replace(dataset.index.recipe, **changes)
    with pytest.raises(RunError, match=f"of the run and of the dataset {named}: "):
        check_fits(run_for(dataset), recipe)


def test_another_geometry_is_noted(dataset: ShardDataset):
    run = run_for(dataset)
    assert check_fits(run, dataset.index.recipe) == ()
    other = make_recipe({}, geometry=Geometry(geometry="squash"), dataset="made-too")
    assert check_fits(run, other) == (
        "trained and evaluated with different dataset: 'made' and 'made-too'",
        "trained and evaluated with different geometry.geometry: 'native' and 'squash'",
    )


def test_the_dataset_version_of_the_training_goes_before_others_that_fit(
    dataset: ShardDataset, tmp_path: Path
) -> None:
    other = make_dataset(tmp_path / "other", {"val": random_records("val", [(1, 1)])})
    unfit = make_dataset(
        tmp_path / "unfit", {"val": random_records("val", [(1, 2)])}, weights_sha256="00" * 32
    )
    run = run_for(dataset)
    assert choose_dataset(run, [unfit, other, dataset]) is dataset
    assert choose_dataset(run, [unfit, other]) is other
    with pytest.raises(RunError, match="weights_sha256"):
        choose_dataset(run, [unfit])


def test_other_ground_truth_is_not_compared(dataset: ShardDataset, tmp_path: Path) -> None:
    require_one_truth([dataset, dataset], "val")
    other = make_dataset(tmp_path / "other", {"val": random_records("val", [(1, 2)], seed=1)})
    with pytest.raises(UsageError, match="expected the images, geometry and labels of"):
        require_one_truth([dataset, other], "val")
    with pytest.raises(UsageError, match="split 'train': expected one of val"):
        require_one_truth([dataset, other], "train")
