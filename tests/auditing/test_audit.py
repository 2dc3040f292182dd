"""Audits find errors that are known, the same way each time, and say what they are."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from auditing.conftest import Erroneous
from builders.heads import make_dataset, random_records
from builders.s3 import S3
from click.testing import CliRunner
from PIL import Image

import vocprep
from vocprep.auditing.out_of_fold import deal_folds
from vocprep.auditing.result import AuditedPicture, AuditResult
from vocprep.cli.main import main
from vocprep.errors import DataError, UsageError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def audited(erroneous: Erroneous) -> AuditResult:
    return vocprep.audit(erroneous.path)


def test_planted_errors_are_the_worst(audited: AuditResult, erroneous: Erroneous) -> None:
    planted = {name for name, kind in erroneous.errors.items() if kind != "void"}
    worst = [picture.id for picture in audited.pictures[:7]]
    assert len(planted & {*worst}) == 5
    assert len(audited.pictures) == 120
    qualities = [picture.quality for picture in audited.pictures]
    assert qualities == sorted(qualities)
    assert audited.pixel_accuracy > 0.8


def test_an_error_is_told_with_its_kind_classes_and_place(
    audited: AuditResult, erroneous: Erroneous
) -> None:
    found = {picture.id: picture for picture in audited.pictures}
    background = vocprep.load_label_space("voc21").class_name(0)
    told = []
    for image_id, kind in erroneous.errors.items():
        picture = found[image_id]
        assert picture.void_outlier == (kind == "void")
        if kind in ("class", "erased"):
            assert picture.suspected in (kind, None)
            told.append(picture.suspected == kind)
            assert picture.patches
            assert (picture.given == background) == (kind == "erased")
            assert picture.believed not in (background, picture.given)
            assert picture.patch_quality[picture.patches[0]] < 0.5
    assert sum(told) >= 2


def test_the_same_version_gives_the_same_json(audited: AuditResult, erroneous: Erroneous) -> None:
    again = vocprep.audit(str(erroneous.path))
    assert json.dumps(again.to_json()) == json.dumps(audited.to_json())


def test_a_fold_follows_from_the_id_alone() -> None:
    alone = {name: int(deal_folds([name], 5)[0]) for name in "abcdefgh"}
    together = deal_folds(list(alone), 5).tolist()
    assert together == list(alone.values())
    assert len(set(together)) > 1


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, list(map(str, words)))
    return done.exit_code, done.output


def test_the_command_writes_json_csv_and_a_page(erroneous: Erroneous, tmp_path: Path) -> None:
    outs = [tmp_path / f"a.{suffix}" for suffix in ("json", "csv", "html")]
    given = [word for out in outs for word in ("--out", str(out))]
    code, output = run("audit", str(erroneous.path), *given, "--top", "6")
    assert code == 0, output
    read = vocprep.read_audit(outs[0])
    assert read == vocprep.audit(erroneous.path, vocprep.AuditOptions(top=6))
    lines = outs[1].read_text().splitlines()
    assert len(lines) == 7
    assert lines[1].split(",")[:2] == ["1", read.pictures[0].id]
    page = outs[2].read_text()
    assert [picture.id in page for picture in read.pictures[:6]] == [True] * 6
    assert "http" not in page.split("<body")[1]
    assert "with likely errors" in output
    worst = next(picture for picture in read.pictures if picture.patches)
    assert "in the framed patch" in page
    assert_framed(page, worst)


def assert_framed(page: str, picture: AuditedPicture) -> None:
    """Assert that the patches of a likely error have a black and white frame, and no others."""
    found = re.search(rf'base64,([^"]+)" alt="Label map of {picture.id}"', page)
    assert found is not None
    pixels = np.asarray(Image.open(BytesIO(b64decode(found[1]))).convert("L"))
    edges = pixels.reshape(pixels.shape[0] // 32, 32, -1, 32)[:, 16, :, :4]
    is_framed = (edges[..., 1] < 60) & (edges[..., 2] > 200)
    assert np.flatnonzero(is_framed).tolist() == sorted(picture.patches)


def test_one_split_can_be_audited_alone(erroneous: Erroneous) -> None:
    found = vocprep.audit(erroneous.path, vocprep.AuditOptions(splits=("val",), folds=3))
    assert {picture.split for picture in found.pictures} == {"val"}
    assert len(found.pictures) == 30


def test_pictures_of_unequal_grids_are_audited(tmp_path: Path) -> None:
    grids = [(2, 3), (3, 2), (1, 1), (4, 1)] * 3
    dataset = make_dataset(tmp_path / "shards", {"train": random_records("train", grids)})
    found = vocprep.audit(dataset.path, vocprep.AuditOptions(folds=2))
    sizes = {picture.id: len(picture.patch_quality) for picture in found.pictures}
    assert sorted(sizes.values()) == sorted(ny * nx for ny, nx in grids)


def test_no_other_file_is_replaced(erroneous: Erroneous, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("{}")
    for path, words in (
        (other, "other.json: expected a new file or an earlier audit, found another file"),
        (erroneous.path / "dataset.json", "found a dataset version; choose another"),
        (erroneous.path / "labels.json", "found a dataset version; choose another"),
        (erroneous.path / "new.csv", "found a dataset version; choose another"),
    ):
        kept = path.read_bytes() if path.exists() else None
        code, output = run("audit", str(erroneous.path), "--out", str(path))
        assert code == 2
        assert words in output
        assert (path.read_bytes() if path.exists() else None) == kept


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--out", "a.txt"], "expected a name that ends in .json, .csv or .html"),
        (["--out", "a.csv", "--out", "a.csv"], "found one of them twice"),
        (["--folds", "1"], "folds 1: expected 2 or more"),
        (["--split", "test"], "no split 'test'"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    words: Sequence[str], expected: str, erroneous: Erroneous, tmp_path: Path
) -> None:
    code, output = run("audit", str(erroneous.path), *words)
    assert code == 2
    assert expected in output
    assert output.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_too_few_pictures_are_refused(tmp_path: Path) -> None:
    records = random_records("train", [(1, 2)] * 3)
    make_dataset(tmp_path / "shards", {"train": records})
    with pytest.raises(UsageError, match="3 pictures in train: expected 8 or more"):
        vocprep.audit(tmp_path / "shards")


def test_a_file_that_is_no_audit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text in ("{", "[]", '{"format": "vocprep-audit"}'):
        path.write_text(text)
        with pytest.raises(DataError, match="vocprep audit SHARDS --out"):
            vocprep.read_audit(path)


def test_patches_that_a_picture_has_not_are_refused(audited: AuditResult, tmp_path: Path) -> None:
    value = audited.to_json()
    path = tmp_path / "a.json"
    for patch in (-1, len(value["pictures"][0]["patch_quality"])):
        value["pictures"][0]["patches"] = [patch]
        path.write_text(json.dumps(value))
        with pytest.raises(DataError, match="expected numbers below"):
            vocprep.read_audit(path)


def test_a_report_has_the_audit_of_its_version_only(erroneous: Erroneous, tmp_path: Path) -> None:
    found = vocprep.audit(erroneous.path, vocprep.AuditOptions(top=5))
    path = tmp_path / "a.json"
    path.write_text(json.dumps(found.to_json()))
    words = ["report", str(erroneous.path), "--out", str(tmp_path / "r.html"), "--audit", str(path)]
    code, output = run(*words)
    assert code == 0, output
    page = (tmp_path / "r.html").read_text()
    assert "Likely label errors" in page
    assert found.pictures[0].id in page

    path.write_text(json.dumps({**found.to_json(), "content_id": "0" * 64}))
    code, output = run(*words)
    assert code == 3
    assert "run vocprep audit on it" in output


def test_a_version_in_an_object_store_has_the_same_audit(
    s3: S3, audited: AuditResult, erroneous: Erroneous
) -> None:
    s3.put_folder(erroneous.path, "voc")
    assert vocprep.audit(s3.url("voc")) == audited


def test_numbers_that_are_not_finite_do_not_spoil_the_rest(tmp_path: Path) -> None:
    records = random_records("train", [(2, 2)] * 10)
    for record, value in zip(records, (float("nan"), float("inf"), 65504.0), strict=False):
        record.embeddings[0] = value
    twin = replace(records[5], image_id="twin", image_sha256="22" * 32)
    made = make_dataset(tmp_path / "made", {"train": [*records, twin]})
    result = vocprep.audit(made.path)
    assert len(result.pictures) == 11
    assert {records[5].image_id, "twin"} in [{*group.ids} for group in result.duplicates.same]
