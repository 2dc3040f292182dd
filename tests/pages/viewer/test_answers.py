"""What the viewer tells of a version and its runs is what the records and evaluations hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from builders.heads import make_dataset, random_records
from builders.records import make_record
from builders.shown import MARKUP, Shown
from builders.versions import write_records
from builders.viewing import get, refused, send
from PIL import Image

from vocprep.drawing.label_maps import paint_label_map
from vocprep.errors import RunError, UsageError
from vocprep.geometry import Geometry
from vocprep.heads.predict_image import predict_label_map
from vocprep.heads.runs.options import EvaluateOptions
from vocprep.heads.runs.run import load_run
from vocprep.heads.scoring.evaluate import evaluate
from vocprep.pages.viewer.options import ViewOptions
from vocprep.pages.viewer.shown.session import Session
from vocprep.pages.viewer.web.server import Server
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import Record

pytestmark = pytest.mark.slow


@cache
def records_of(path: Path) -> dict[str, Record]:
    dataset = ShardDataset.open(path)
    found = [r for shard in dataset.index.shards for r in dataset.read_shard(shard.name)]
    return {record.image_id: record for record in sorted(found, key=lambda r: r.image_id)}


def areas(record: Record) -> Counter[int]:
    return Counter(record.label_map.ravel().tolist())


@pytest.fixture(scope="module")
def records(shown: Shown) -> dict[str, Record]:
    return records_of(shown.version)


def listed(viewer: Server, **query: object) -> list[dict[str, Any]]:
    answer = get(viewer, "pictures", **query)
    assert len(answer["pictures"]) <= answer["total"]
    return list(answer["pictures"])


def ids(viewer: Server, **query: object) -> list[str]:
    return [row["id"] for row in listed(viewer, **query)]


# Lists


def test_the_state_describes_versions_and_runs(viewer: Server, shown: Shown) -> None:
    dataset = ShardDataset.open(shown.version)
    state = get(viewer, "state")
    (version,) = state["versions"]
    assert (version["key"], version["content_id"]) == ("a", dataset.content_id)
    assert version["name"] == shown.version.name
    assert version["splits"] == [
        {"name": "train", "pictures": dataset.count("train") + 1},  # one is in quarantine
        {"name": "val", "pictures": dataset.count("val")},
    ]
    assert MARKUP in [each["name"] for each in version["classes"]]
    style = dataset.label_space.style
    colours = {each["id"]: each["colour"] for each in version["classes"]}
    assert colours[98] == "#" + bytes(style.colour(98)).hex()
    assert version["has_photographs"]
    assert [(run["key"], run["name"], run["version"]) for run in state["runs"]] == [
        ("0", "first", "a"),
        ("1", "second", "a"),
    ]


def test_all_pictures_are_listed_by_id(viewer: Server, records: dict[str, Record]) -> None:
    rows = listed(viewer)
    assert [row["id"] for row in rows] == sorted([*records, *bad_ids(rows)])
    assert ids(viewer, order="desc") == ids(viewer)[::-1]
    assert ids(viewer, offset=3, limit=4) == ids(viewer)[3:7]
    assert ids(viewer, offset=10_000) == []
    get(viewer, "classes", split="val")  # waits until all are read
    for row in listed(viewer, status="record"):
        found = areas(records[row["id"]])
        del found[0]
        expected = sorted(found, key=lambda class_id: (-found[class_id], class_id))[:4]
        assert row["classes"] == expected
        assert (row["split"], row["grid"]) == (records[row["id"]].split, [7, 7])


def bad_ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows if row["status"] == "quarantined"]


def test_quarantined_pictures_say_why(viewer: Server, shown: Shown) -> None:
    (bad,) = ShardDataset.open(shown.version).quarantined
    (row,) = listed(viewer, status="quarantined")
    assert (row["id"], row["reason"], row["stage"]) == (bad.id, bad.reason, bad.stage)
    assert bad.reason in refused(viewer, 404, "picture", id=bad.id)
    assert "no such picture" in refused(viewer, 404, "picture", id="2010_999999")
    assert refused(viewer, 404, "image", id="../../etc/passwd", layer="photo")


def test_filters_and_orders(viewer: Server, records: dict[str, Record]) -> None:
    held = Counter(label for r in records.values() for label in areas(r))
    label = next(label for label, count in held.most_common() if 1 < count < len(records))
    sizes = {i: areas(r)[label] for i, r in records.items() if areas(r)[label]}
    assert ids(viewer, class_=label) == sorted(sizes)
    falling = sorted(sizes, key=lambda i: (-sizes[i], i))
    assert ids(viewer, class_=label, sort="size", order="desc") == falling
    assert ids(viewer, class_=459 if held[459] == 0 else 458) == []
    split = [i for i, r in records.items() if r.split == "val"]
    assert ids(viewer, split="val") == split
    part = split[0][-3:]
    assert ids(viewer, text=part) == [i for i in sorted(ids(viewer)) if part in i]
    assert ids(viewer, text="%00") == []
    found = get(viewer, "pictures", split="val", find=split[2], limit=1)
    assert found["position"] == 2
    assert get(viewer, "pictures", split="train", find=split[2])["position"] is None


# One picture


def test_a_picture_has_its_labels_and_patches(viewer: Server, records: dict[str, Record]) -> None:
    record = next(iter(records.values()))
    answer = get(viewer, "picture", id=record.image_id)
    found = areas(record)
    void = found.pop(0, 0)
    assert {each["id"]: each["pixels"] for each in answer["classes"]} == dict(found)
    total = sum(each["percent"] for each in answer["classes"]) + answer["void_percent"]
    assert total == pytest.approx(100, abs=0.01)
    assert answer["void_percent"] == pytest.approx(100 * void / record.label_map.size, abs=0.01)
    assert (answer["width"], answer["height"], answer["grid"]) == (224, 224, [7, 7])
    assert answer["image_sha256"] == record.image_sha256
    assert len(answer["patches"]) == 49
    for number, patch in enumerate(answer["patches"]):
        labels = [label for label in record.slot_labels[number].tolist() if label >= 0]
        assert [each["id"] for each in patch["labels"]] == labels
        norm = np.linalg.norm(record.embeddings[number].astype(np.float64))
        assert patch["norm"] == pytest.approx(norm, rel=1e-6)


def test_predictions_are_those_of_the_run(
    viewer: Server, shown: Shown, records: dict[str, Record]
) -> None:
    record = records[ids(viewer, split="val")[1]]
    answer = get(viewer, "picture", id=record.image_id)
    for key, path in zip("01", shown.runs, strict=True):
        found = predict_label_map(load_run(path), record.embeddings, record.grid)
        shares = {each["id"]: each["pixels"] for each in answer["runs"][key]["classes"]}
        assert shares == dict(Counter(found.label_map.ravel().tolist()))
        for number in (0, 17, 48):
            said = answer["patches"][number]["predicted"][key]
            assert [each["id"] for each in said] == found.patch_labels[number].tolist()
            probabilities = [each["probability"] for each in said]
            assert probabilities == sorted(probabilities, reverse=True)
            assert 0 < sum(probabilities) <= 1.00001


# Runs


def test_scores_are_those_of_an_evaluation(
    viewer: Server, shown: Shown, records: dict[str, Record]
) -> None:
    run = load_run(shown.runs[1])
    options = EvaluateOptions(device="cpu", worst=100)
    (scores,) = evaluate(run, shown.version, "val", options).runs
    table = get(viewer, "classes", r=1, split="val")
    same = ("miou_frequent", "pixel_accuracy", "boundary_iou_3", "boundary_iou_8")
    fields = ("miou", *same, "mask_iou", "own_mask_iou")
    rows = {row["name"]: [row[name] for name in fields] for row in table["rows"]}
    assert rows == {
        scores.row_name(row): [
            *(row.miou_present, *(getattr(row, name) for name in same), *scores.mask_ious(row))
        ]
        for row in scores.rows
    }
    known = {each["id"]: each for each in table["classes"]}
    assert list(known) == sorted(run.config.labels.names)
    for each in scores.classes:
        assert known[each.id]["pixels"] == each.pixels
        assert known[each.id]["iou"] == pytest.approx(each.iou)
        assert known[each.id]["accuracy"] == pytest.approx(each.accuracy)
    held = {label for r in records.values() if r.split == "val" for label in areas(r)}
    assert {i for i, each in known.items() if each["pictures"]} == held - {0}

    worst = [(each.image_id, each.pixel_accuracy, each.loss) for each in scores.worst_images]
    rows_ = listed(viewer, split="val", sort="score:1")
    assert [row["id"] for row in rows_] == [record_id for record_id, *_ in worst]
    for row, (_, accuracy, loss) in zip(rows_, worst, strict=True):
        assert row["scores"]["1"] == pytest.approx(accuracy, abs=1e-5)
        assert row["losses"]["1"] == pytest.approx(loss, abs=1e-4)
    by_loss = sorted(rows_, key=lambda row: (-row["losses"]["1"], row["id"]))
    assert listed(viewer, split="val", sort="loss:1", order="desc") == by_loss


def test_pictures_without_a_score_come_last(viewer: Server) -> None:
    get(viewer, "confusion", r=1, split="train")  # waits for the scores
    get(viewer, "confusion", r=0, split="train")
    for order in ("asc", "desc"):
        rows = listed(viewer, sort="difference:0:1", order=order)
        assert rows[-1]["status"] == "quarantined"
        gaps = [abs(row["scores"]["0"] - row["scores"]["1"]) for row in rows[:-1]]
        assert gaps == sorted(gaps, reverse=order == "desc")


def test_cells_of_the_confusion_matrix_open_patches(
    viewer: Server, shown: Shown, records: dict[str, Record]
) -> None:
    run = load_run(shown.runs[0])
    expected: Counter[tuple[int, int, str, int]] = Counter()
    cells: Counter[tuple[int, int]] = Counter()
    for record in records.values():
        if record.split != "val":
            continue
        found = predict_label_map(run, record.embeddings, record.grid).label_map
        for (y, x), truth in np.ndenumerate(record.label_map):
            if truth:
                cells[int(truth), int(found[y, x])] += 1
                if truth != found[y, x]:
                    patch = y // 32 * 7 + x // 32
                    expected[int(truth), int(found[y, x]), record.image_id, patch] += 1
    table = get(viewer, "confusion", r=0, split="val", limit=5)
    assert len(table["classes"]) == 5
    for row, truth in enumerate(table["classes"]):
        for column, predicted in enumerate(table["classes"]):
            assert table["counts"][row][column] == cells[truth, predicted]
        whole = sum(count for (label, _), count in cells.items() if label == truth)
        assert sum(table["counts"][row]) + table["other"][row] == whole

    for truth, predicted in {pair[:2] for pair in list(expected)[:4]}:
        entries = {e[2:]: c for e, c in expected.items() if e[:2] == (truth, predicted)}
        query = {"r": 0, "split": "val", "truth": truth, "predicted": predicted}
        answer = get(viewer, "confused", **query, limit=500)
        assert answer["total"] == len(entries)
        assert {(p["id"], p["patch"]): p["pixels"] for p in answer["patches"]} == entries
        pixels = [each["pixels"] for each in answer["patches"]]
        assert pixels == sorted(pixels, reverse=True)
        second = get(viewer, "confused", **query, offset=1, limit=1)["patches"]
        assert second == answer["patches"][1:2]
        for each in answer["patches"]:
            assert each["patch"] == each["row"] * 7 + each["column"]
    none = get(viewer, "confused", r=0, split="val", truth=459, predicted=459)
    assert none == {"total": 0, "patches": []}


def test_a_run_that_fits_no_version_is_refused(shown: Shown) -> None:
    with pytest.raises(RunError, match="trained on other embeddings or labels"):
        Session.open([shown.other, shown.runs[0]], shown.options)
    with pytest.raises(UsageError, match="expected one or two dataset versions, found none"):
        Session.open([shown.runs[0]], shown.options)
    with pytest.raises(UsageError, match="found 3"):
        Session.open([shown.version] * 3, shown.options)


# Similar patches


def test_similar_patches_are_the_nearest(viewer: Server, records: dict[str, Record]) -> None:
    own = [record for record in records.values() if record.split == "train"]
    patches = [(r.image_id, n) for r in own for n in range(49)]
    rows = np.concatenate([r.embeddings for r in own]).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    at = patches.index((own[3].image_id, 20))
    near = rows @ rows[at]
    near[at] = -2
    answer = get(viewer, "similar", id=own[3].image_id, patch=20, limit=10)
    assert answer["seconds"] > 0
    found = [(each["id"], each["patch"]) for each in answer["patches"]]
    assert len(set(found)) == 10
    assert [near[patches.index(each)] for each in found] == pytest.approx(sorted(near)[:-11:-1])
    for each in answer["patches"]:
        record = records[each["id"]]
        labels = [label for label in record.slot_labels[each["patch"]].tolist() if label >= 0]
        assert [label["id"] for label in each["labels"]] == labels
        assert each["grid"] == [7, 7]
    other = get(viewer, "similar", id=own[3].image_id, patch=20, split="val", limit=3)
    assert {records[each["id"]].split for each in other["patches"]} == {"val"}
    assert "0 to 48" in refused(viewer, 400, "similar", id=own[3].image_id, patch=49)


# Pictures


def image(viewer: Server, record: Record, layer: str, **query: object) -> np.ndarray[Any, Any]:
    fields = "&".join(f"{name}={value}" for name, value in query.items())
    path = f"/{viewer.token}/api/image?v=a&id={record.image_id}&layer={layer}&{fields}"
    answer = send(viewer, path.rstrip("&"))
    assert answer.status == 200, answer.body
    assert answer.headers["cache-control"].startswith("private")
    return answer.pixels()


def test_layers_are_pictures_of_the_record(
    viewer: Server, shown: Shown, records: dict[str, Record]
) -> None:
    record = records[ids(viewer, split="val")[0]]
    style = ShardDataset.open(shown.version).label_space.style
    plain = image(viewer, record, "truth", plain=1)
    np.testing.assert_array_equal(plain, paint_label_map(record.label_map, style))
    photograph = image(viewer, record, "photo")
    assert photograph.shape == (224, 224, 3)
    jpeg = next((shown.data_dir / "VOCdevkit/VOC2010/JPEGImages").glob(f"{record.image_id}*"))
    assert abs(photograph.mean() - np.asarray(Image.open(jpeg)).mean()) < 20
    over = image(viewer, record, "truth")
    assert over.shape == (224, 224, 3)
    assert (over != plain).any()
    for layer, query in (
        ("thumbnail", {}),
        ("components", {}),
        ("similarity", {"patch": 3}),
        ("prediction", {"r": 0}),
        ("prediction", {"r": 0, "plain": 1}),
        ("error", {"r": 1}),
        ("confidence", {"r": 1}),
    ):
        assert image(viewer, record, layer, **query).shape == (224, 224, 3)
    patches = image(viewer, record, "components").reshape(7, 32, 7, 32, 3)
    assert (patches == patches[:, :1, :, :1]).all()
    similarity = image(viewer, record, "similarity", patch=3)
    assert similarity[0, 3 * 32].tolist() == [253, 231, 37]  # itself: the largest value


def test_layers_that_cannot_be_drawn(viewer: Server, records: dict[str, Record]) -> None:
    record_id = next(iter(records))
    assert "expected a value" in refused(viewer, 400, "image", id=record_id, layer="prediction")
    assert "no such run" in refused(viewer, 404, "image", id=record_id, layer="error", r=7)
    assert "expected one of" in refused(viewer, 400, "image", id=record_id, layer="secret")
    assert "patch" in refused(viewer, 400, "image", id=record_id, layer="similarity")


# Two versions


def test_two_versions_tell_where_they_differ(compared_viewer: Server, shown: Shown) -> None:
    one, other = records_of(shown.version), records_of(shown.other)
    rows = listed(compared_viewer, sort="changed:b")
    for row in rows[:-1]:
        targets = one[row["id"]].targets_sha256 != other[row["id"]].targets_sha256
        assert row["changed"] == ("targets" if targets else "same")
    assert (rows[-1]["status"], rows[-1]["changed"]) == ("quarantined", None)
    words = [row["changed"] for row in rows[:-1]]
    assert words == sorted(words, reverse=True)  # targets before same
    picture = get(compared_viewer, "picture", v="b", id=rows[0]["id"])
    found = areas(other[rows[0]["id"]])
    assert {each["id"] for each in picture["classes"]} == set(found) - {0}


def test_a_run_says_nothing_of_other_classes(shown: Shown) -> None:
    paths = [shown.version, shown.other, shown.runs[0]]
    with Server(Session.open(paths, shown.options)) as server:
        record_id = ids(server, v="b", status="record")[0]
        one, other = (get(server, "picture", v=key, id=record_id) for key in "ab")
        assert (list(one["runs"]), list(other["runs"])) == (["0"], [])
        assert [list(patch["predicted"]) for patch in other["patches"]] == [[]] * 49
        cell = {"truth": 1, "predicted": 2}
        for name, more in (("classes", {}), ("confusion", {}), ("confused", cell)):
            said = refused(server, 404, name, v="b", r=0, split="val", **more)
            assert said == "run first: is scored on version a, not on b"


# Versions of other kinds


@pytest.fixture(scope="module")
def odd_viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Ids of any kind, grids of any size, no photographs and no run."""
    names = [
        "<img src=x onerror=alert(1)>",
        "a&b=c d/e..f",
        "ångström ☂",
        "\u202egpj.exe",
        "z" * 255,
    ]
    records = [make_record(name, grid=(1 + n, 2)) for n, name in enumerate(sorted(names))]
    folder = tmp_path_factory.mktemp("odd") / "out"
    write_records(folder, records, geometry=Geometry(geometry="native"))
    with Server(Session.open([folder], ViewOptions())) as server:
        yield server


def test_ids_of_any_kind_are_found_again(odd_viewer: Server) -> None:
    rows = listed(odd_viewer)
    assert len(rows) == 5
    for row in rows:
        picture = get(odd_viewer, "picture", id=row["id"])
        assert picture["id"] == row["id"]
        assert len(picture["patches"]) == picture["grid"][0] * 2
        assert ids(odd_viewer, text=row["id"]) == [row["id"]]
        near = get(odd_viewer, "similar", id=row["id"], patch=1, limit=100)["patches"]
        assert len(near) == sum(each["grid"][0] * 2 for each in rows) - 1
    sizes = [row["grid"][0] for row in listed(odd_viewer, sort="size", order="desc")]
    assert sizes == [5, 4, 3, 2, 1]


def test_label_maps_stand_in_for_photographs(odd_viewer: Server) -> None:
    row = listed(odd_viewer)[4]
    assert "--data-dir" in refused(odd_viewer, 404, "image", id=row["id"], layer="photo")
    query = {"id": row["id"], "layer": "thumbnail"}
    answer = send(odd_viewer, f"/{odd_viewer.token}/api/image?{encoded(query)}")
    assert answer.status == 200
    assert max(answer.pixels().shape[:2]) == 160


def encoded(query: dict[str, Any]) -> str:
    return urlencode(query)


def test_another_data_dir_is_told(shown: Shown, tmp_path: Path) -> None:
    images = tmp_path / "VOCdevkit/VOC2010/JPEGImages"
    images.mkdir(parents=True)
    record_id, other_id = sorted(records_of(shown.version))[:2]
    original = shown.data_dir / f"VOCdevkit/VOC2010/JPEGImages/{record_id}.jpg"
    (images / f"{other_id}.jpg").write_bytes(original.read_bytes())
    options = ViewOptions(data_dir=tmp_path, dataset=str(shown.manifest))
    with Server(Session.open([shown.version], options)) as server:
        wrong = refused(server, 500, "image", id=other_id, layer="photo")
        assert "expected the image that the record was made of" in wrong
        missing = refused(server, 500, "image", id=record_id, layer="photo")
        assert "cannot be read" in missing
        assert get(server, "picture", id=record_id)["id"] == record_id


def test_a_damaged_shard_is_told_and_others_are_shown(tmp_path: Path) -> None:
    splits = {name: random_records(name, [(1, 2), (2, 1)]) for name in ("train", "val")}
    path = make_dataset(tmp_path / "out", splits).path
    assert isinstance(path, Path)
    session = Session.open([path], ViewOptions())
    shard = next(path.glob("val-*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with Server(session) as server:
        assert len(listed(server)) == 4
        assert get(server, "picture", id="train_00")["id"] == "train_00"
        assert "val-" in refused(server, 500, "picture", id="val_00")
        assert "val-" in refused(server, 500, "classes", split="train")
        state = get(server, "state")["versions"][0]["columns"]
        assert state["state"] == "failed"
        assert shard.name in state["error"]
