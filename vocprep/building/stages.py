"""The stages of one sample: read, decode, place, make targets, embed, record.

What comes out is decided here; ``vocprep.building.pipeline`` decides on which threads and devices
the stages run. Between stages a sample travels as an ``Outcome``: what the last stage made of it,
or why no record can be made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vocprep.data_dir.layout import SampleRef
from vocprep.errors import DataError, LabelDecodeError
from vocprep.features.image import decode_picture, picture_size, read_image_file
from vocprep.features.on_device.placing import MOST_BYTES, Picture, Pixels
from vocprep.files.reading import open_regular
from vocprep.files.writing import sha256_hex
from vocprep.formats.orientations import UPRIGHT, orientation, swaps_sides
from vocprep.geometry import PATCH, Geometry, Grid, patch_grid
from vocprep.labels.advice import fit_to_picture, other_size
from vocprep.labels.decode import LabelRule, decode_label_map, read_label_file
from vocprep.labels.label_space import LabelSpace
from vocprep.labels.png import encode_png
from vocprep.labels.targets import Targets, targets_with_areas
from vocprep.parallel import StageTimes
from vocprep.placement import mirror, place_image, place_labels
from vocprep.recipe import EmbeddingDtype, Recipe
from vocprep.shards.record import Record, record_id
from vocprep.shards.samples import QuarantinedSample
from vocprep.storage.places import Place, path_below
from vocprep.storage.reading import facts_of_source
from vocprep.validation import explain
from vocprep.views import CROP_GEOMETRY

STAGES = ("read", "decode", "geometry", "targets", "embed", "write", "waiting")
"""``waiting`` is the time in which embedding threads had no input: where it is large, a stage
before or after the backbone limits the build."""

Embeddings = NDArray[np.float16] | NDArray[np.float32]
FindEmbeddings = Callable[[str, str], Embeddings | None]
"""Record id and the image file's sha256 → embeddings [P, D] of an earlier version, or None."""
FailingStage = Literal["read", "decode", "geometry"]
Made = TypeVar("Made")
Next = TypeVar("Next")


class SampleError(DataError):
    """No record can be made of a sample; the message names the file."""

    def __init__(self, message: str, quarantined: QuarantinedSample) -> None:
        super().__init__(message)
        self.quarantined = quarantined

    def __reduce__(self) -> tuple[type[SampleError], tuple[str, QuarantinedSample]]:
        return SampleError, (str(self), self.quarantined)


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[Made]):
    """What a stage made of one sample, or why no record can be made of it."""

    sample: SampleRef
    made: Made | None = None
    """None for a quarantined sample."""
    quarantined: QuarantinedSample | None = None
    problem: str = ""
    """Why it is quarantined, for people: the reason that is recorded keeps its words for ever."""

    def then(self, stage: Callable[[Made], Next]) -> Outcome[Next]:
        """Return the outcome of the next stage, which a quarantined sample skips."""
        if self.made is None:
            return Outcome(sample=self.sample, quarantined=self.quarantined, problem=self.problem)
        try:
            return Outcome(sample=self.sample, made=stage(self.made))
        except SampleError as error:
            return Outcome(sample=self.sample, quarantined=error.quarantined, problem=str(error))


def begin(sample: SampleRef) -> Outcome[SampleRef]:
    """Return the outcome that the first stage starts from."""
    return Outcome(sample=sample, made=sample)


@dataclass(frozen=True, kw_only=True)
class SampleFiles:
    """The two files of one sample, in memory, and what an earlier version has of it."""

    sample: SampleRef
    image_bytes: bytes
    label_bytes: bytes
    image_sha256: str
    label_sha256: str
    reused: dict[str, Embeddings]
    """Embeddings [P, D] that need not be computed, by view."""
    needs_pixels: bool
    """Whether embeddings of any view have to be computed."""

    @property
    def digests(self) -> dict[str, str]:
        """Digests of both files, by the names of a record's fields."""
        return {"image_sha256": self.image_sha256, "label_sha256": self.label_sha256}


@dataclass(frozen=True, kw_only=True)
class DecodedImage:
    """One sample whose image is decoded."""

    files: SampleFiles
    size: tuple[int, int]
    """Height and width."""
    pixels: Pixels | Tensor | None
    """[H, W, 3]; None where no embeddings have to be computed."""


@dataclass(frozen=True, kw_only=True)
class DecodedSample:
    """One sample whose image and label map are decoded."""

    files: SampleFiles
    pixels: Pixels | Tensor | None
    """[H, W, 3]; None where no embeddings have to be computed."""
    label_map: NDArray[np.uint16]
    """[H, W]; ids of the label space."""


@dataclass(frozen=True, kw_only=True)
class PlacedView:
    """One view of a sample on its patch grid."""

    view: str
    """One of the recipe's ``record_views``."""
    pixels: Pixels | Picture | None
    """[32·ny, 32·nx, 3]; None where the view's embeddings need not be computed."""
    label_map: NDArray[np.uint16]
    """[32·ny, 32·nx]; ids of the label space."""

    def mirrored(self) -> PlacedView:
        """Return the view ``flip`` of the same."""
        pixels = self.pixels
        if isinstance(pixels, Picture):
            pixels = replace(pixels, is_mirrored=True)
        elif pixels is not None:
            pixels = mirror(pixels)
        return PlacedView(view="flip", pixels=pixels, label_map=mirror(self.label_map))


@dataclass(frozen=True, kw_only=True)
class PlacedSample:
    """One sample whose views are on their patch grids."""

    files: SampleFiles
    views: tuple[PlacedView, ...]


@dataclass(frozen=True, kw_only=True)
class RecordDraft:
    """A record that may lack its embeddings: one view of one sample."""

    record_id: str
    split: str
    grid: Grid
    targets: Targets
    label_map: NDArray[np.uint16]
    """[32·ny, 32·nx]; of which ``label_png`` is made."""
    label_pixels: dict[int, int]
    """Pixels of each label id, void included."""
    label_png: bytes
    image_sha256: str
    label_sha256: str
    pixels: Pixels | Picture | None
    """[32·ny, 32·nx, 3]; None where the embeddings are there."""
    embeddings: Embeddings | None
    """[P, D] of an earlier version; None where they have to be computed."""

    @property
    def patches(self) -> int:
        """P, the patches of the grid."""
        return self.grid[0] * self.grid[1]

    def record(self, embeddings: NDArray[np.floating], dtype: EmbeddingDtype) -> Record:
        """Return the record with these embeddings [P, D], and with its digests."""
        record = Record(
            image_id=self.record_id,
            split=self.split,
            grid=self.grid,
            embeddings=embeddings.astype(dtype),
            slot_labels=self.targets.slot_labels,
            slot_pixels=self.targets.slot_pixels,
            label_count=self.targets.label_count,
            slot_planes=self.targets.slot_planes,
            label_png=self.label_png,
            image_sha256=self.image_sha256,
            label_sha256=self.label_sha256,
        )
        return record.described(self.label_map, self.label_pixels)


@dataclass(frozen=True, kw_only=True)
class SampleStages:
    """The stages before the backbone. Each raises SampleError for a sample that it cannot use."""

    recipe: Recipe
    label_space: LabelSpace
    data_dir: Place
    """Folder below which the samples' files are."""
    label_rule: LabelRule | None = None
    """How label files are decoded; by their suffix when None."""
    times: StageTimes = field(default_factory=lambda: StageTimes(STAGES))
    find_embeddings: FindEmbeddings = lambda _record_id, _image_sha256: None
    place_on_device: bool = False
    """Whether pictures of at most ``MOST_BYTES`` are brought to their patch grids by the device
    that embeds them, with the same bits, and not by ``place``."""
    turned: set[str] = field(default_factory=set)
    """Ids of images whose metadata state an orientation other than upright; ``read`` adds them."""

    def read(self, sample: SampleRef) -> SampleFiles:
        """Read and digest a sample's files, and look up embeddings of the same image."""
        with self._stage("read", sample, sample.image_path):
            image_bytes = read_image_file(sample.image_path)
            image_sha256 = sha256_hex(image_bytes)
            if orientation(image_bytes) != UPRIGHT:
                self.turned.add(sample.image_id)
        with self._stage("read", sample, sample.label_path, image_sha256=image_sha256):
            label_bytes = read_label_file(sample.label_path)
            label_sha256 = sha256_hex(label_bytes)
        views = self.recipe.record_views
        found = {
            view: self.find_embeddings(record_id(sample.image_id, view), image_sha256)
            for view in views
        }
        reused = {view: each for view, each in found.items() if each is not None}
        return SampleFiles(
            sample=sample,
            image_bytes=image_bytes,
            label_bytes=label_bytes,
            image_sha256=image_sha256,
            label_sha256=label_sha256,
            reused=reused,
            needs_pixels=len(reused) < len(views),
        )

    def decode_image(
        self,
        files: SampleFiles,
        decode: Callable[[bytes, str], Pixels | Tensor] = decode_picture,
    ) -> DecodedImage:
        """Decode the image, or only its size where no embeddings have to be computed.

        ``decode`` turns a picture's bytes and its name for errors into RGB [H, W, 3].
        """
        path = files.sample.image_path
        with self._stage("decode", files.sample, path, **files.digests):
            if not files.needs_pixels:
                size = picture_size(files.image_bytes, str(path))
                return DecodedImage(files=files, size=size, pixels=None)
            pixels = decode(files.image_bytes, str(path))
            return DecodedImage(files=files, size=tuple(pixels.shape[:2]), pixels=pixels)

    def decode_labels(self, image: DecodedImage) -> DecodedSample:
        """Decode the label map into ids of the label space."""
        files, sample = image.files, image.files.sample
        with self._stage("decode", sample, sample.label_path, **files.digests):
            raw = decode_label_map(files.label_bytes, sample.label_path, self.label_rule)
            label_map = self.label_space.apply(raw, str(sample.label_path))
            if raw.shape != image.size:
                problem = other_size(
                    (sample.label_path, raw.shape), (sample.image_path, image.size)
                )
                is_turned = raw.shape == image.size[::-1] and swaps_sides(files.image_bytes)
                raise LabelDecodeError(
                    f"{problem}; {fit_to_picture(is_turned=is_turned)}", recorded=problem
                )
        return DecodedSample(files=files, pixels=image.pixels, label_map=label_map)

    def place(self, decoded: DecodedSample) -> PlacedSample:
        """Bring image and label map onto the patch grid, in each view."""
        files = decoded.files
        with self._stage("geometry", files.sample, files.sample.image_path, **files.digests):
            return PlacedSample(files=files, views=tuple(self._views(decoded)))

    def _views(self, decoded: DecodedSample) -> Iterator[PlacedView]:
        """Yield the views of a sample in the order of the recipe."""
        recipe, reused = self.recipe, decoded.files.reused
        plain = self._placed("identity", decoded.pixels, decoded.label_map, recipe.geometry)
        for name in recipe.views:
            needed = replace(plain, pixels=None) if name in reused else plain
            yield needed.mirrored() if name == "flip" else needed
        if recipe.crops is not None:
            height, width = decoded.label_map.shape
            image_id = decoded.files.sample.image_id
            for view, box in recipe.crops.boxes(image_id, height, width):
                whole = None if view in reused else decoded.pixels
                pixels = None if whole is None else whole[box]
                yield self._placed(view, pixels, decoded.label_map[box], CROP_GEOMETRY)

    def _placed(
        self,
        view: str,
        pixels: Pixels | Tensor | None,
        label_map: NDArray[np.uint16],
        geometry: Geometry,
    ) -> PlacedView:
        return PlacedView(
            view=view,
            pixels=None if pixels is None else self._place_pixels(pixels, geometry),
            label_map=place_labels(label_map, geometry, self.label_space.void),
        )

    def _place_pixels(self, pixels: Pixels | Tensor, geometry: Geometry) -> Pixels | Picture:
        if isinstance(pixels, Tensor):
            return Picture(pixels, geometry)
        later = self.place_on_device and geometry.geometry != "native"
        if later and pixels.nbytes <= MOST_BYTES:
            return Picture(pixels, geometry)
        return place_image(pixels, geometry)

    def make_targets(self, placed: PlacedSample) -> list[RecordDraft]:
        """Make the targets of each view."""
        with self.times.stage("targets"):
            return [self._draft(placed.files, view) for view in placed.views]

    def _draft(self, files: SampleFiles, placed: PlacedView) -> RecordDraft:
        # A part of a map or a mirrored one is copied here once, not by each of what follows.
        label_map = np.ascontiguousarray(placed.label_map)
        targets, label_pixels = targets_with_areas(label_map, self.label_space.void)
        return RecordDraft(
            record_id=record_id(files.sample.image_id, placed.view),
            split=files.sample.split,
            grid=(label_map.shape[0] // PATCH, label_map.shape[1] // PATCH),
            targets=targets,
            label_map=label_map,
            label_pixels=label_pixels,
            label_png=encode_png(label_map),
            image_sha256=files.image_sha256,
            label_sha256=files.label_sha256,
            pixels=placed.pixels,
            embeddings=files.reused.get(placed.view),
        )

    def measure_grid(self, sample: SampleRef) -> Grid:
        """Return a sample's patch grid without decoding it: native geometry needs the header."""
        geometry, path = self.recipe.geometry, sample.image_path
        for file in (path, sample.label_path):
            with self._stage("read", sample, file):
                _check_readable(file)
        if geometry.geometry != "native":
            return patch_grid(0, 0, geometry)
        with self._stage("read", sample, path):
            data = read_image_file(path)
        with self._stage("decode", sample, path):
            size = picture_size(data, str(path))
        with self._stage("geometry", sample, path):
            return patch_grid(*size, geometry)

    @contextmanager
    def _stage(
        self, name: FailingStage, sample: SampleRef, file: Place, **digests: str
    ) -> Iterator[None]:
        """Time a block, and turn its DataError into a SampleError that says where it happened."""
        try:
            with self.times.stage(name):
                yield
        except DataError as error:
            # The words must not depend on where the data dir is.
            data_dir = self.data_dir
            below = path_below(file, data_dir)
            place = file.name if below is None else below.as_posix()
            reason = error.recorded.replace(f"{data_dir}/", "").removeprefix(f"{place}: ")
            message = str(error)
            if not message.startswith(str(file)):
                message = f"{file}: {message}"
            raise SampleError(
                message,
                QuarantinedSample(
                    id=sample.image_id,
                    split=sample.split,
                    stage=name,
                    file=place,
                    reason=reason,
                    **digests,
                ),
            ) from error


def _check_readable(file: Place) -> None:
    """Raise DataError where there is no file that can be opened."""
    missing = f"{file}: no such file"
    if not isinstance(file, Path):
        if facts_of_source(file) is None:
            raise DataError(missing)
        return
    try:
        open_regular(file).close()
    except FileNotFoundError as error:
        problem = f"{file}: {explain(error)}" if file.is_symlink() else missing
        raise DataError(problem, recorded=missing) from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {explain(error)}") from error
