"""One contract for all containers, and what is particular to each."""

from __future__ import annotations

import io
import json
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote

import h5py
import numpy as np
import pytest
from builders.records import (
    assert_same_batch,
    assert_same_record,
    assert_same_records,
    make_record,
    records_of_a_shard,
)
from hypothesis import HealthCheck, given, settings

from vocprep.errors import ShardError
from vocprep.options import ShardFormat
from vocprep.shards.codecs import hdf5, tar
from vocprep.shards.columns import Columns
from vocprep.shards.containers import CONTAINERS, Container, ShardReader
from vocprep.shards.feed.batches import collate
from vocprep.shards.feed.gathering import BatchPart, gather_columns
from vocprep.shards.record import Record

ODD_IDS = [
    *("a", "a#flip", "a#crop1", "a#crop10", "a b", "a/b c.d", "a#b", "a#b#flip", "a#b#crop2"),
    *("x%20y", "дом/кошка.1", "дом/кошка.1#crop99", "猫 (2)"),
]


def three_records() -> list[Record]:
    return [make_record("a", (1, 2)), make_record("b", (3, 1)), make_record("b#flip", (3, 1))]


@contextmanager
def suppress_errors_that_name(path: Path) -> Iterator[None]:
    """Let a ShardError pass that names the path, or the record whose label map is damaged.

    A label map is decoded when it is needed, from a record that no longer knows its shard.
    """
    try:
        yield
    except ShardError as error:
        if str(path) not in str(error) and "label map of record" not in str(error):
            raise


def assert_columns_are_those(columns: Columns, records: Sequence[Record]) -> None:
    """Batches of any rows are those of the records, bit for bit, at whichever places."""
    rows = np.random.default_rng(len(records)).integers(len(records), size=5)
    expected = collate([records[row] for row in rows], label_maps=True)
    for places in ([[0, 1, 2, 3, 4]], [[0, 2, 4], [1, 3]], [[1, 2, 4], [3], [0]]):
        parts = [BatchPart(columns, rows[part], np.array(part)) for part in places]
        assert_same_batch(gather_columns(parts, label_maps=True), expected)
    chosen = columns.part(rows)
    assert_same_record(chosen.read(4), records[rows[4]])
    whole = [BatchPart(chosen, np.arange(5), np.arange(5))]
    assert_same_batch(gather_columns(whole, label_maps=True), expected)


ZEROS = np.zeros(7, dtype="u1")
PROPERTY = settings(
    deadline=None,
    # Both containers inherit the same test functions, which is what they are for.
    suppress_health_check=[HealthCheck.differing_executors],
)


class ContainerContract:
    """What docs/format.md promises of every container."""

    codec: Container

    def write(self, folder: Path, records: Sequence[Record]) -> Path:
        path = folder / f"train-00000-of-00001{self.codec.suffix}"
        path.write_bytes(self.codec.encode(records))
        return path

    def parse(self, path: Path) -> ShardReader:
        return self.codec.parse(np.fromfile(path, dtype=np.uint8), str(path))

    def read_all(self, path: Path) -> list[Record]:
        """Read all records one by one, and as columns, which are the same or the same error."""
        shard = self.parse(path)
        try:
            records = list(shard)
        except ShardError as error:
            with pytest.raises(ShardError, match=f"^{re.escape(str(error))}$"):
                shard.columns()
            raise
        assert_columns_are_those(shard.columns(), records)
        return records

    def test_ids_of_any_script_are_read_back(self, tmp_path: Path) -> None:
        records = [make_record(image_id, dim=4) for image_id in ODD_IDS]
        found = self.parse(self.write(tmp_path, records))
        assert found.image_ids == ODD_IDS
        assert_same_records(list(found), records)

    @pytest.mark.parametrize("image_id", ["../a", "/a", "a/../b", "a/.b", "a\\b", "a\nb"])
    def test_ids_that_lead_elsewhere_are_refused(self, image_id: str, tmp_path: Path) -> None:
        path = self.write(tmp_path, [make_record(image_id, dim=4)])
        self.assert_refused(path)

    def assert_refused(self, path: Path, said: str = "") -> None:
        """Opening or reading is a ShardError of one line that names the path."""
        with pytest.raises(ShardError) as caught:
            self.read_all(path)
        assert str(path) in str(caught.value)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)

    @PROPERTY
    @given(records=records_of_a_shard())
    def test_records_come_back_as_they_were(self, records: list[Record]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = self.write(Path(folder), records)
            shard = self.parse(path)
            assert shard.image_ids == [record.image_id for record in records]
            assert len(shard) == len(records)
            found = list(shard)
            assert_same_records(found, records)
            for row in reversed(range(len(records))):
                assert_same_record(shard.read(row), found[row])
                assert shard.read(row).record_sha256 == records[row].record_sha256

    @PROPERTY
    @given(records=records_of_a_shard())
    def test_same_records_give_the_same_bytes(self, records: list[Record]) -> None:
        assert self.codec.encode(records) == self.codec.encode(list(records))

    def test_memory_layout_of_a_record_does_not_change_the_bytes(self) -> None:
        record = make_record()
        fields = {**vars(record), "embeddings": np.asfortranarray(record.embeddings)}
        fields = {name: value for name, value in fields.items() if not name.endswith("sha256")}
        turned = Record(
            **fields, image_sha256=record.image_sha256, label_sha256=record.label_sha256
        )
        assert self.codec.encode([turned]) == self.codec.encode([record])

    def test_reading_after_iterating_and_twice_gives_the_same(self, tmp_path: Path) -> None:
        records = three_records()
        shard = self.parse(self.write(tmp_path, records))
        first = list(shard)
        assert_same_record(shard.read(1), records[1])
        assert_same_records(list(shard), first)

    @pytest.mark.parametrize(
        "data",
        [b"", b"\0", b"hello, world\n" * 200, bytes(1024), bytes(20480), b"\x1f\x8b" + bytes(600)],
        ids=["empty", "one byte", "text", "two zero blocks", "a tar's padding", "gzip magic"],
    )
    def test_file_of_another_kind_is_a_shard_error(self, data: bytes, tmp_path: Path) -> None:
        path = tmp_path / f"other{self.codec.suffix}"
        path.write_bytes(data)
        self.assert_refused(path)

    def test_shard_of_the_other_container_is_a_shard_error(self, tmp_path: Path) -> None:
        (other,) = (codec for codec in CONTAINERS.values() if codec is not self.codec)
        path = tmp_path / f"train{self.codec.suffix}"
        path.write_bytes(other.encode(three_records()))
        self.assert_refused(path)

    @pytest.mark.parametrize("kept", [0.01, 0.1, 0.25, 0.5, 0.75, 0.9])
    def test_truncated_file_is_a_shard_error(self, kept: float, tmp_path: Path) -> None:
        path = self.write(tmp_path, three_records())
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * kept)])
        self.assert_refused(path)

    def test_file_cut_at_any_block_is_a_shard_error_or_whole(self, tmp_path: Path) -> None:
        """A cut that leaves something readable behind must not pass for fewer records."""
        records = three_records()
        path = self.write(tmp_path, records)
        data = path.read_bytes()
        for length in range(0, len(data), 512):
            path.write_bytes(data[:length])
            with suppress_errors_that_name(path):
                assert_same_records(self.read_all(path), records)

    def test_damaged_bytes_are_a_shard_error_or_unseen_but_never_another_error(
        self, tmp_path: Path
    ) -> None:
        path = self.write(tmp_path, three_records())
        data = path.read_bytes()
        rng = np.random.default_rng(0)
        for _ in range(150):
            damaged = bytearray(data)
            # The first kilobytes hold most of the structure, and are hit half of the time.
            end = len(data) if rng.random() < 0.5 else 4096
            damaged[rng.integers(end)] = rng.integers(256)
            path.write_bytes(damaged)
            with suppress_errors_that_name(path):
                self.read_all(path)


def test_every_container_has_its_name_in_the_options_and_a_suffix_of_its_own() -> None:
    assert tuple(CONTAINERS) == get_args(ShardFormat)
    assert len({container.suffix for container in CONTAINERS.values()}) == len(CONTAINERS)


class TestHdf5(ContainerContract):
    codec = CONTAINERS["hdf5"]

    def edited(self, folder: Path, edit: Callable[[h5py.File], None]) -> Path:
        path = self.write(folder, three_records())
        with h5py.File(path, "r+", libver="v108") as file:
            edit(file)
        return path

    @staticmethod
    def replace(name: str, change: Callable[[Any], Any]) -> Callable[[h5py.File], None]:
        def edit(file: h5py.File) -> None:
            value = change(file[name][:])
            del file[name]
            file[name] = value

        return edit

    def test_another_programs_file_is_a_shard_error(self, tmp_path: Path) -> None:
        path = tmp_path / "other.h5"
        with h5py.File(path, "w") as file:
            file["embeddings"] = np.zeros((4, 256), dtype=np.float16)
        self.assert_refused(path, "not a vocprep shard")

    @pytest.mark.parametrize("version", [0, 2, "1", None])
    def test_other_format_version_is_a_shard_error(self, version: Any, tmp_path: Path) -> None:
        def edit(file: h5py.File) -> None:
            del file.attrs["format_version"]
            if version is not None:
                file.attrs["format_version"] = version

        self.assert_refused(self.edited(tmp_path, edit), f"format version {version}")

    @pytest.mark.parametrize(
        "name",
        [
            "image_id",
            "image_sha256",
            "label_sha256",
            "grid",
            "offsets",
            "embeddings",
            "slot_labels",
            "slot_pixels",
            "label_count",
            "slot_planes",
            "label_map_offsets",
            "label_map",
        ],
    )
    def test_missing_group_in_a_datasets_place_and_scalar_are_shard_errors(
        self, name: str, tmp_path: Path
    ) -> None:
        def delete(file: h5py.File) -> None:
            del file[name]

        def to_group(file: h5py.File) -> None:
            del file[name]
            file.create_group(name)

        def to_scalar(file: h5py.File) -> None:
            del file[name]
            file[name] = 7

        for edit in (delete, to_group, to_scalar):
            self.assert_refused(self.edited(tmp_path, edit), "damaged")

    def test_missing_split_is_a_shard_error(self, tmp_path: Path) -> None:
        self.assert_refused(self.edited(tmp_path, lambda file: file.attrs.__delitem__("split")))

    @pytest.mark.parametrize(
        "name",
        ["image_id", "image_sha256", "label_sha256", "grid", "offsets", "label_map_offsets"],
    )
    def test_tables_of_different_length_are_a_shard_error(self, name: str, tmp_path: Path) -> None:
        path = self.edited(tmp_path, self.replace(name, lambda value: value[:-1]))
        self.assert_refused(path, "differ in length")

    def test_tables_of_no_record_are_a_shard_error(self, tmp_path: Path) -> None:
        def edit(file: h5py.File) -> None:
            for name in file:
                self.replace(name, lambda value: value[:0])(file)

        self.assert_refused(self.edited(tmp_path, edit), "damaged")

    @pytest.mark.parametrize("name", ["offsets", "label_map_offsets"])
    @pytest.mark.parametrize(
        "change",
        [
            lambda value: value + 1,
            lambda value: value[::-1].copy(),
            lambda value: -value,
            lambda value: value * 2,
            lambda value: np.concatenate([value[:-1], [value[-1] - 1]]),
            lambda value: np.concatenate([value[:1], [10**9], value[2:]]),
            lambda value: value.astype(np.float64) + 0.5,
        ],
        ids=["shifted", "falling", "negative", "beyond", "short", "leap", "broken"],
    )
    def test_offsets_out_of_range_are_a_shard_error(
        self, name: str, change: Callable[[Any], Any], tmp_path: Path
    ) -> None:
        self.assert_refused(self.edited(tmp_path, self.replace(name, change)), "damaged")

    def test_offsets_that_move_a_border_between_records_are_a_shard_error(
        self, tmp_path: Path
    ) -> None:
        change = self.replace("offsets", lambda value: value + np.array([0, 1, 0, 0]))
        self.assert_refused(self.edited(tmp_path, change), "expected")

    @pytest.mark.parametrize(
        "grid", [[[1, 2], [3, 1], [0, 0]], [[1, 2, 1]] * 3, [1, 2, 3], [[1, 2], [3, 1], [1, 4]]]
    )
    def test_grid_that_is_none_is_a_shard_error(self, grid: Any, tmp_path: Path) -> None:
        path = self.edited(tmp_path, self.replace("grid", lambda _: np.array(grid)))
        self.assert_refused(path)

    @pytest.mark.parametrize(
        ("name", "dtype"),
        [("embeddings", "f8"), ("slot_labels", "i4"), ("slot_planes", "i1"), ("image_id", "i8")],
    )
    def test_array_of_another_type_is_a_shard_error(
        self, name: str, dtype: str, tmp_path: Path
    ) -> None:
        edit = self.replace(name, lambda value: np.zeros(value.shape, dtype=dtype))
        self.assert_refused(self.edited(tmp_path, edit), "")

    @pytest.mark.slow
    def test_value_of_one_byte_in_the_heap_does_not_hang(self) -> None:
        """Sizes of 0 there make the HDF5 library loop for ever."""
        good = hdf5.encode(three_records())
        heap = good.index(b"GCOL")
        for place in range(heap, heap + 128):
            for value in (0, 1, 255):
                data = np.frombuffer(good, dtype=np.uint8).copy()
                data[place] = value
                with suppress_errors_that_name(Path("x.h5")):
                    assert len(list(hdf5.Hdf5Shard(data, "x.h5"))) == 3

    @staticmethod
    def label_map_of(**options: Any) -> Callable[[h5py.File, Path], object]:
        return lambda file, _: file.create_dataset("label_map", **options)

    @staticmethod
    def external(file: h5py.File, folder: Path) -> None:
        ZEROS.tofile(folder / "outside")
        outside = [(str(folder / "outside"), 0, 7)]
        file.create_dataset("label_map", shape=(7,), dtype="u1", external=outside)

    @staticmethod
    def virtual(file: h5py.File, folder: Path) -> None:
        with h5py.File(folder / "other.h5", "w") as other:
            other["label_map"] = ZEROS
        layout = h5py.VirtualLayout(shape=(7,), dtype="u1")
        layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "label_map", shape=(7,))
        file.create_virtual_dataset("label_map", layout)

    @staticmethod
    def compact(file: h5py.File, _: Path) -> None:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((7,))
        h5py.h5d.create(file.id, b"label_map", h5py.h5t.STD_U8LE, space, properties)

    @staticmethod
    def with_named_type(file: h5py.File, _: Path) -> None:
        file["kind"] = np.dtype("u1")
        file.create_dataset("label_map", data=ZEROS, dtype=file["kind"])
        del file["kind"]

    @staticmethod
    def linked(link: Any) -> Callable[[h5py.File, Path], None]:
        return lambda file, _: file.__setitem__("label_map", link)

    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (external, "is stored in other files"),
            (virtual, "is not contiguous"),
            (compact, "is not contiguous"),
            (label_map_of(data=np.zeros(7, "u1"), chunks=(7,)), "is not contiguous"),
            (label_map_of(data=np.zeros(7, "u1"), compression="gzip"), "is not contiguous"),
            (with_named_type, "has a named type"),
            (linked(h5py.SoftLink("/offsets")), "is a link to elsewhere"),
            (linked(h5py.ExternalLink("other.h5", "/label_map")), "is a link to elsewhere"),
            (lambda file, _: file.create_group("label_map"), "is no dataset"),
            (label_map_of(shape=(7,), dtype="u1"), "has no data"),
            (label_map_of(data=np.uint8(7)), "has the shape ()"),
            (label_map_of(data=np.zeros((7, 1), "u1")), "has the shape (7, 1)"),
            (label_map_of(data=np.zeros(7, ">u2")), "is of type >u2"),
            (label_map_of(data=[b"a"], dtype=h5py.string_dtype()), "is of type object"),
        ],
    )
    def test_dataset_that_is_no_plain_array_is_a_shard_error(
        self, make: Callable[[h5py.File, Path], object], said: str, tmp_path: Path
    ) -> None:
        def edit(file: h5py.File) -> None:
            del file["label_map"]
            make(file, tmp_path)

        self.assert_refused(self.edited(tmp_path, edit), f"damaged HDF5 shard: label_map {said}")

    def test_two_names_of_the_same_data_are_a_shard_error(self, tmp_path: Path) -> None:
        def edit(file: h5py.File) -> None:
            del file["label_map_offsets"]
            file["label_map_offsets"] = file["offsets"]

        self.assert_refused(self.edited(tmp_path, edit), "overlap")

    def test_data_that_are_declared_beyond_the_file_are_a_shard_error(self, tmp_path: Path) -> None:
        """The object header is of version 1, which has no checksum."""
        count, much = 77777, 1 << 40

        def edit(file: h5py.File) -> None:
            del file["label_map"]
            file["label_map"] = np.ones(count, dtype="u1")

        path = self.write(tmp_path, three_records())
        with h5py.File(path, "r+", libver="earliest") as file:
            edit(file)
        data = path.read_bytes()
        assert data.count(count.to_bytes(8, "little")) > 1
        path.write_bytes(data.replace(count.to_bytes(8, "little"), much.to_bytes(8, "little")))
        self.assert_refused(path, "damaged HDF5 shard")

    @pytest.mark.parametrize("kind", ["dataset", "group", "attribute"])
    def test_anything_more_in_the_file_is_a_shard_error(self, kind: str, tmp_path: Path) -> None:
        def edit(file: h5py.File) -> None:
            if kind == "dataset":
                file["more"] = np.zeros(3)
            elif kind == "group":
                file.create_group("more")
            else:
                file.attrs["more"] = 1

        self.assert_refused(self.edited(tmp_path, edit), "expected the ")

    def test_file_of_another_size_than_it_declares_is_a_shard_error(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, three_records())
        path.write_bytes(path.read_bytes() + b"\0")
        self.assert_refused(path, "it declares")

    @pytest.mark.parametrize(
        "value", [np.bytes_(b"train"), 1.5, [1, 2], np.zeros(3), h5py.Empty("f4")]
    )
    def test_attribute_of_another_type_is_a_shard_error(self, value: Any, tmp_path: Path) -> None:
        def edit(file: h5py.File) -> None:
            del file.attrs["split"]
            file.attrs["split"] = value

        self.assert_refused(self.edited(tmp_path, edit), "attribute 'split'")

    @pytest.mark.parametrize("dtype", ["float16", "float32"])
    def test_datasets_have_the_documented_types_and_shapes(self, dtype: str) -> None:
        records = [make_record("a", (1, 2), dtype=dtype), make_record("bcd", (3, 1), dtype=dtype)]
        with h5py.File(io.BytesIO(hdf5.encode(records)), "r") as file:
            assert dict(file.attrs) == {
                "format": "vocprep-shard",
                "format_version": 1,
                "split": "train",
            }
            found = {name: (str(file[name].dtype), file[name].shape) for name in file}
        png_bytes = sum(len(record.label_png) for record in records)
        assert found == {
            "image_id": ("|S3", (2,)),
            "image_sha256": ("|S64", (2,)),
            "label_sha256": ("|S64", (2,)),
            "grid": ("int32", (2, 2)),
            "offsets": ("int64", (3,)),
            "embeddings": (dtype, (5, 256)),
            "slot_labels": ("int16", (5, 4)),
            "slot_pixels": ("uint16", (5, 4)),
            "label_count": ("uint8", (5,)),
            "slot_planes": ("uint8", (5, 3, 128)),
            "label_map_offsets": ("int64", (3,)),
            "label_map": ("uint8", (png_bytes,)),
        }

    def test_the_file_holds_no_time(self) -> None:
        with h5py.File(io.BytesIO(hdf5.encode(three_records())), "r") as file:
            for name in file:
                assert h5py.h5o.get_info(file[name].id).mtime == 0

    def test_datasets_are_contiguous_and_uncompressed(self) -> None:
        with h5py.File(io.BytesIO(hdf5.encode(three_records())), "r") as file:
            for name in file:
                assert file[name].chunks is None
                assert file[name].compression is None


class TestTar(ContainerContract):
    codec = CONTAINERS["webdataset"]

    def edited(self, folder: Path, edit: Callable[[str, bytes], list[tuple[str, bytes]]]) -> Path:
        """Write a shard with each member replaced by what ``edit`` makes of it."""
        path = folder / "train.tar"
        with (
            tarfile.open(fileobj=io.BytesIO(tar.encode(three_records()))) as source,
            tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as target,
        ):
            for member in source:
                stream = source.extractfile(member)
                assert stream is not None
                for name, data in edit(member.name, stream.read()):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    target.addfile(info, io.BytesIO(data))
        return path

    def json_edited(self, folder: Path, **changes: Any) -> Path:
        def edit(name: str, data: bytes) -> list[tuple[str, bytes]]:
            if name == "b.json":
                data = json.dumps({**json.loads(data), **changes}).encode()
            return [(name, data)]

        return self.edited(folder, edit)

    def test_stock_webdataset_gives_keys_that_decode_to_the_ids(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, [make_record(image_id, dim=4) for image_id in ODD_IDS])
        wds = pytest.importorskip("webdataset")
        with path.open("rb") as stream:
            opened = [{"url": path.name, "stream": stream}]
            members = wds.tariterators.tar_file_expander(opened)
            samples = list(wds.tariterators.group_by_keys(members))
        assert [unquote(each["__key__"]) for each in samples] == ODD_IDS
        assert all(
            json.loads(each["json"])["image_id"] == image_id and "embeddings.npy" in each
            for each, image_id in zip(samples, ODD_IDS, strict=True)
        )

    def test_unedited_copy_reads(self, tmp_path: Path) -> None:
        assert len(self.read_all(self.edited(tmp_path, lambda name, data: [(name, data)]))) == 3

    def test_arrays_are_the_readers_own_to_write_to(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, three_records())
        first, second, _ = self.read_all(path)
        first.embeddings[:] = 0
        first.slot_planes[:] = 0
        assert_same_record(second, three_records()[1])
        assert_same_records(self.read_all(path), three_records())

    def test_another_programs_tar_is_a_shard_error(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("hello")
        path = tmp_path / "other.tar"
        with tarfile.open(path, "w") as archive:
            archive.add(tmp_path / "a.txt", "a.txt")
        self.assert_refused(path, "docs/format.md")

    @pytest.mark.parametrize("version", [0, 1, 3])
    def test_other_format_version_is_a_shard_error(self, version: Any, tmp_path: Path) -> None:
        path = self.json_edited(tmp_path, format_version=version)
        self.assert_refused(path, f"format version {version}")

    @pytest.mark.parametrize(
        "suffix",
        [
            "embeddings.npy",
            "slot_labels.npy",
            "slot_pixels.npy",
            "label_count.npy",
            "slot_planes.npy",
            "label_map.png16",
            "json",
        ],
    )
    def test_missing_renamed_or_doubled_member_is_a_shard_error(
        self, suffix: str, tmp_path: Path
    ) -> None:
        target = f"b.{suffix}"
        for edit in (
            lambda name, data: [] if name == target else [(name, data)],
            lambda name, data: [("b.x" if name == target else name, data)],
            lambda name, data: [(name, data)] * (2 if name == target else 1),
        ):
            self.assert_refused(self.edited(tmp_path, edit), "record b")

    def test_additional_member_is_a_shard_error(self, tmp_path: Path) -> None:
        path = self.edited(
            tmp_path,
            lambda name, data: [(name, data), *([("b.cls", b"1")] if name == "b.json" else [])],
        )
        self.assert_refused(path, "cls")

    def test_record_that_comes_again_later_is_a_shard_error(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, [make_record(name) for name in ("a", "b", "a")])
        self.assert_refused(path, "record a")

    def test_members_of_a_record_that_are_not_together_are_a_shard_error(
        self, tmp_path: Path
    ) -> None:
        late: list[tuple[str, bytes]] = []

        def edit(name: str, data: bytes) -> list[tuple[str, bytes]]:
            if name == "a.json":
                late.append((name, data))
                return []
            return [(name, data), *(late if name == "b#flip.json" else [])]

        self.assert_refused(self.edited(tmp_path, edit), "record a")

    @pytest.mark.parametrize("suffix", ["embeddings", "slot_labels", "label_count", "slot_planes"])
    @pytest.mark.parametrize("kind", ["cut", "empty", "text", "pickle", "rows", "type"])
    def test_array_member_that_is_none_is_a_shard_error(
        self, suffix: str, kind: str, tmp_path: Path
    ) -> None:
        def npy(array: Any) -> bytes:
            stream = io.BytesIO()
            np.save(stream, array, allow_pickle=True)
            return stream.getvalue()

        def edit(name: str, data: bytes) -> list[tuple[str, bytes]]:
            if name == f"b.{suffix}.npy":
                array = np.load(io.BytesIO(data))
                data = {
                    "cut": data[:-5],
                    "empty": b"",
                    "text": b"hello",
                    "pickle": npy(np.array([{}], dtype=object)),
                    "rows": npy(array[:-1]),
                    "type": npy(array.astype(np.complex64)),
                }[kind]
            return [(name, data)]

        self.assert_refused(self.edited(tmp_path, edit), "record b")

    @pytest.mark.parametrize(
        "changes",
        [
            {"grid": None},
            {"grid": [3]},
            {"grid": ["3", "1"]},
            {"grid": [3.0, 1.0]},
            {"grid": [1, 1]},
            {"grid": 3},
            {"image_id": "c"},
            {"image_id": 5},
            {"split": None},
        ],
        ids=str,
    )
    def test_json_member_that_lies_is_a_shard_error(
        self, changes: dict[str, Any], tmp_path: Path
    ) -> None:
        self.assert_refused(self.json_edited(tmp_path, **changes), "record b")

    @pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b"\xff\xfe"])
    def test_json_member_that_is_none_is_a_shard_error(self, data: bytes, tmp_path: Path) -> None:
        path = self.edited(tmp_path, lambda name, old: [(name, data if name == "b.json" else old)])
        self.assert_refused(path, "record b")

    def test_members_stand_in_the_documented_order_and_versions(self) -> None:
        record = make_record("a")
        with tarfile.open(fileobj=io.BytesIO(tar.encode([record]))) as archive:
            members = {}
            for member in archive:
                stream = archive.extractfile(member)
                assert stream is not None
                members[member.name] = stream.read()
        arrays = ("embeddings", "slot_labels", "slot_pixels", "label_count", "slot_planes")
        assert list(members) == [
            *(f"a.{name}.npy" for name in arrays),
            "a.label_map.png16",
            "a.json",
        ]
        for name in arrays:
            assert members[f"a.{name}.npy"].startswith(b"\x93NUMPY\x01\x00")
        info = {
            "format_version": 2,
            "grid": [2, 3],
            "image_id": "a",
            "image_sha256": record.image_sha256,
            "label_sha256": record.label_sha256,
            "record_sha256": record.record_sha256,
            "split": "train",
        }
        assert members["a.json"] == json.dumps(info, separators=(",", ":")).encode()

    def test_the_file_holds_no_time_owner_or_mode_of_this_machine(self) -> None:
        with tarfile.open(fileobj=io.BytesIO(tar.encode(three_records()))) as archive:
            for member in archive:
                assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
                assert (member.uname, member.gname, member.mode) == ("", "", 0o644)
                assert member.pax_headers == {}
