"""From one picture's two files to records: read, decode, place, make targets, embed.

The engines decide where and in which order this happens; what comes out is decided here. A picture
that no record can be made of comes out as a QuarantinedSample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from vocprep.building.plan import BuildPlan
from vocprep.building.stage_times import StageTimes
from vocprep.data_dir.layout import SampleRef
from vocprep.errors import DataError, LabelDecodeError
from vocprep.features.embed import Embedder
from vocprep.features.image import decode_jpeg, jpeg_size, read_image_file
from vocprep.files import sha256_hex
from vocprep.geometry import PATCH, Grid, mirror, place_image, place_labels
from vocprep.labels.decode import decode_label_map, read_label_file
from vocprep.labels.png import encode_png
from vocprep.labels.targets import Targets, make_targets
from vocprep.recipe import EmbeddingDtype, View
from vocprep.shards.record import FLIP_SUFFIX, Record
from vocprep.shards.samples import QuarantinedSample

Embeddings = NDArray[np.float16] | NDArray[np.float32]
FindEmbeddings = Callable[[str, str], Embeddings | None]
"""Record id and the picture's sha256 → embeddings that were made before, if there are any."""
Stage = Literal["read", "decode", "geometry"]
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class SourceFiles:
    """One picture's two files, in memory."""

    sample: SampleRef
    image_bytes: bytes
    label_bytes: bytes
    image_sha256: str
    label_sha256: str


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One view of one picture, ready to be embedded or embedded before."""

    record_id: str
    files: SourceFiles
    grid: Grid
    targets: Targets
    label_png: bytes
    image: NDArray[np.uint8] | None
    """[32·ny, 32·nx, 3]; None where ``embeddings`` are there."""
    embeddings: Embeddings | None
    """[P, D] of an earlier version, or None."""


class SampleError(DataError):
    """One picture that no record can be made of."""

    def __init__(self, stage: Stage, file: Path, reason: str) -> None:
        super().__init__(reason)
        self.stage: Stage = stage
        self.file = file


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What all pictures of a build are prepared with."""

    plan: BuildPlan
    stage_times: StageTimes
    find_embeddings: FindEmbeddings = lambda _record_id, _image_sha256: None

    def read(self, sample: SampleRef) -> SourceFiles | QuarantinedSample:
        """Read and digest one picture's files."""
        digests: dict[str, str] = {}
        try:
            with self._step("read", sample.image_path):
                image_bytes = read_image_file(sample.image_path)
                digests["image_sha256"] = sha256_hex(image_bytes)
            with self._step("read", sample.label_path):
                label_bytes = read_label_file(sample.label_path)
                digests["label_sha256"] = sha256_hex(label_bytes)
        except SampleError as error:
            return self._quarantined(sample, error, **digests)
        return SourceFiles(
            sample=sample, image_bytes=image_bytes, label_bytes=label_bytes, **digests
        )

    def prepare(
        self, files: SourceFiles, decode: Callable[[], NDArray[np.uint8]] | None = None
    ) -> list[Prepared] | QuarantinedSample:
        """Decode, place and make targets: one entry a view.

        ``decode`` returns the picture [H, W, 3] where it was decoded elsewhere, or raises its
        error.
        """
        try:
            return self._prepare(files, decode or files_decoder(files))
        except SampleError as error:
            return self._quarantined(
                files.sample,
                error,
                image_sha256=files.image_sha256,
                label_sha256=files.label_sha256,
            )

    def _prepare(
        self, files: SourceFiles, decode: Callable[[], NDArray[np.uint8]]
    ) -> list[Prepared]:
        sample, schema = files.sample, self.plan.schema
        geometry = self.plan.recipe.geometry
        found = {
            view: self.find_embeddings(record_id(sample, view), files.image_sha256)
            for view in self.plan.recipe.views
        }
        is_needed = any(embeddings is None for embeddings in found.values())
        image = placed = None
        with self._step("decode", sample.image_path):
            if is_needed:
                image = decode()
                size = image.shape[:2]
            else:
                size = jpeg_size(files.image_bytes, str(sample.image_path))
        with self._step("decode", sample.label_path):
            raw = decode_label_map(files.label_bytes, sample.label_path)
            label_map = schema.apply(raw, str(sample.label_path))
            _check_size(sample, raw.shape, size)
        with self._step("geometry", sample.image_path):
            if image is not None:
                placed = place_image(image, geometry)
            labels = place_labels(label_map, geometry, schema.void)
        self.stage_times.count_reused(sum(embeddings is not None for embeddings in found.values()))
        with self.stage_times.stage("targets"):
            return [
                _prepare_view(files, view, placed, labels, schema.void, embeddings)
                for view, embeddings in found.items()
            ]

    @contextmanager
    def _step(self, stage: Stage, file: Path) -> Iterator[None]:
        """Account for a block, and say of its failure where it happened."""
        try:
            with self.stage_times.stage(stage):
                yield
        except DataError as error:
            raise SampleError(stage, file, str(error)) from error

    def _quarantined(
        self, sample: SampleRef, error: SampleError, **digests: str
    ) -> QuarantinedSample:
        """Describe a failure so that the words do not depend on where the data dir is."""
        file = _below(self.plan.data_dir, error.file)
        reason = str(error).replace(f"{self.plan.data_dir}/", "")
        return QuarantinedSample(
            id=sample.image_id,
            split=sample.split,
            stage=error.stage,
            file=file,
            reason=reason.removeprefix(f"{file}: "),
            **digests,
        )


def files_decoder(files: SourceFiles) -> Callable[[], NDArray[np.uint8]]:
    """Return the function that decodes a picture on the CPU."""
    return lambda: decode_jpeg(files.image_bytes, str(files.sample.image_path))


def record_id(sample: SampleRef, view: View) -> str:
    """Return the id of a picture's record in a view."""
    return sample.image_id + (FLIP_SUFFIX if view == "flip" else "")


def _below(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _check_size(sample: SampleRef, found: tuple[int, ...], expected: tuple[int, int]) -> None:
    if found != expected:
        raise LabelDecodeError(
            f"{sample.label_path}: label map of {found[1]}×{found[0]} pixels: expected "
            f"{expected[1]}×{expected[0]} as its picture {sample.image_path}"
        )


def _prepare_view(
    files: SourceFiles,
    view: View,
    image: NDArray[np.uint8] | None,
    labels: NDArray[np.uint16],
    void: int,
    embeddings: Embeddings | None,
) -> Prepared:
    is_flipped = view == "flip"
    labels = mirror(labels) if is_flipped else labels
    if embeddings is not None:
        image = None
    elif image is not None and is_flipped:
        image = mirror(image)
    return Prepared(
        record_id=record_id(files.sample, view),
        files=files,
        grid=(labels.shape[0] // PATCH, labels.shape[1] // PATCH),
        targets=make_targets(labels, void),
        label_png=encode_png(labels),
        image=image,
        embeddings=embeddings,
    )


def embed_group(
    group: Sequence[list[Prepared] | QuarantinedSample],
    embedder: Embedder,
    dtype: EmbeddingDtype,
    stage_times: StageTimes,
) -> list[list[Record] | QuarantinedSample]:
    """Turn prepared pictures into records, embedding the patches of all of them together."""
    images = [
        view.image
        for views in group
        if not isinstance(views, QuarantinedSample)
        for view in views
        if view.image is not None
    ]
    with stage_times.stage("embed"):
        made = iter(embedder.embed_images(images))
    return [
        views
        if isinstance(views, QuarantinedSample)
        else [
            _record(view, next(made) if view.embeddings is None else view.embeddings, dtype)
            for view in views
        ]
        for views in group
    ]


def _record(view: Prepared, embeddings: NDArray[np.floating], dtype: EmbeddingDtype) -> Record:
    return Record(
        image_id=view.record_id,
        split=view.files.sample.split,
        grid=view.grid,
        embeddings=embeddings.astype(dtype),
        slot_labels=view.targets.slot_labels,
        slot_pixels=view.targets.slot_pixels,
        label_count=view.targets.label_count,
        slot_planes=view.targets.slot_planes,
        label_png=view.label_png,
        image_sha256=view.files.image_sha256,
        label_sha256=view.files.label_sha256,
    )
