"""The verb ``predict``: image files in, label maps, class shares and overlays out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator

from vocprep.data_dir.place import default_data_dir
from vocprep.drawing.labelled import LabelledImage, labelled_sheet
from vocprep.drawing.png import grey_png, png_bytes
from vocprep.errors import DataError
from vocprep.features.devices import choose_device
from vocprep.features.embed import Embedder, EmbeddingSpec
from vocprep.features.image import decode_image, read_image_file
from vocprep.features.image_errors import listed
from vocprep.features.libraries.own_file import allow
from vocprep.files.locking import alone_in
from vocprep.files.names import check_names_differ
from vocprep.files.writing import check_output_folder, write_atomic
from vocprep.formats.orientations import UPRIGHT, orientation
from vocprep.geometry import Geometry, GeometryKind
from vocprep.heads.model.config import PriorPower, Tta
from vocprep.heads.predict_image import Prediction, predict_image
from vocprep.heads.runs.class_shares import decoding_of
from vocprep.heads.runs.run import Run, load_run
from vocprep.heads.runs.weights import find_components, find_weights
from vocprep.labels.label_space import LabelSpace
from vocprep.labels.png import decode_png, encode_png
from vocprep.labels.statistics import label_areas
from vocprep.memory import memory_errors
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.storage.places import LocalPath, local_path
from vocprep.validation import checked


def _as_geometry(value: Geometry | GeometryKind | None) -> Geometry | None:
    """Return the geometry of a name; ``native`` then keeps the borders of an image."""
    if not isinstance(value, str):
        return value
    return Geometry(geometry=value, edge="pad" if value == "native" else "drop")


@checked
class PredictOptions:
    """How images are brought to the heads."""

    weights: str | Path | None = None
    """Path or ``random:SEED`` of the run's backbone; by default those of the run's
    ``weights.json``, else the official weights."""
    data_dir: LocalPath | None = None
    """Where the official weights are: ``$VOCPREP_DATA_DIR`` or ``./data`` when None."""
    backbone: str | None = None
    """``FILE.py:FUNCTION`` of a run whose backbone a file of one's own makes; its code is run."""
    geometry: Annotated[Geometry | GeometryKind | None, BeforeValidator(_as_geometry)] = None
    """Geometry or its name: ``native`` labels every pixel of an image of any size, ``crop`` and
    ``squash`` 224×224; that of the run's shards when None."""
    device: str = "auto"
    """``auto`` (the GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``."""
    confidence: bool = False
    """Also return or write how certain each pixel's class is, and draw it in the overlay."""
    prior_power: PriorPower = 0.0
    """Divide each class's probability by its share of the pixels trained on to this power, 0 to
    1."""
    tta: Tta = "none"
    """``flip``: predict the mean of each image and its mirror image."""


@dataclass(frozen=True, kw_only=True)
class ClassShare:
    """One class of a predicted label map."""

    id: int
    name: str
    pixels: int
    percent: float
    """Of the pixels that the geometry covers."""


@dataclass(frozen=True, kw_only=True)
class PredictedFiles:
    """The files of one prediction."""

    overlay: str
    """PNG: the image, the label map laid over it, and a legend."""
    labels: str
    """PNG with 16-bit class ids."""
    confidence: str | None = None
    """8-bit grey PNG, 0 to 255 for confidences from 0 to 1; None unless it was asked for."""

    def to_json(self) -> dict[str, str]:
        """Return the paths by kind, those of files that were written."""
        return {kind: path for kind, path in asdict(self).items() if path is not None}


@dataclass(frozen=True, kw_only=True)
class ImagePrediction:
    """The label map of one image file."""

    image: Path
    classes: tuple[ClassShare, ...]
    """Classes of the label map, the largest first."""
    files: PredictedFiles | None
    """Where it was written; None without an output folder."""
    label_map_held: NDArray[np.uint16] | None
    """The label map, unless it was written."""
    confidence: NDArray[np.float32] | None = None
    """[h, w] probability of what decided each pixel's class, 0..1, where it was asked for and not
    written."""
    is_turned: bool = False
    """Whether the image was turned upright, as its metadata state, before it was labelled."""

    @property
    def label_map(self) -> NDArray[np.uint16]:
        """Class ids uint16 [h, w]; read from the file where the label map was written to one."""
        if self.label_map_held is not None:
            return self.label_map_held
        path = Path(self.files.labels) if self.files else self.image
        return decode_png(path.read_bytes(), str(path))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "image": str(self.image),
            **(self.files.to_json() if self.files else {}),
            "classes": [asdict(share) for share in self.classes],
        }


@dataclass(frozen=True, kw_only=True)
class ImageError:
    """An image file that no label map could be made of."""

    image: Path
    error: str
    """One sentence, which names the file."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"image": str(self.image), "error": self.error}


@dataclass(frozen=True, kw_only=True)
class PredictionResult:
    """What ``predict`` made of a number of image files."""

    run: str
    images: tuple[ImagePrediction, ...]
    errors: tuple[ImageError, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every image was labelled."""
        return not self.errors

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "ok": self.ok,
            "run": self.run,
            "images": [item.to_json() for item in self.images],
            "errors": [item.to_json() for item in self.errors],
            "notes": list(self.notes),
        }


def predict(
    run: str | Path | Run,
    images: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    options: PredictOptions | None = None,
    progress: Progress = NO_PROGRESS,
) -> PredictionResult:
    """Label image files with a run's heads.

    With ``out``, ``NAME.overlay.png`` and ``NAME.labels.png`` of each image are written into that
    folder, with ``options.confidence`` ``NAME.confidence.png`` too. An image that cannot be read or
    is too small is listed in ``errors`` of the result; the others are done. Raises RunError when
    the run cannot be used or ``weights`` are not those of its shards, SourceUnavailableError when
    there are none, UsageError when two images would be written to one name or the run has no class
    shares for ``options.prior_power``, OutOfMemoryError.
    """
    options = options or PredictOptions()
    given = [images] if isinstance(images, str | Path) else images
    paths = list(dict.fromkeys(local_path(path) for path in given))
    folder = None if out is None else local_path(out)
    if folder is not None:
        check_output_folder(folder)
        check_names_differ(paths, [path.stem for path in paths], "predictions")
    trained = run if isinstance(run, Run) else load_run(run)
    decoding = decoding_of(trained, options.prior_power, options.tta)
    embedder = make_embedder(trained, options)

    def predicted(image: NDArray[np.uint8]) -> Prediction:
        return predict_image(trained, image, embedder, _as_geometry(options.geometry), decoding)

    label = partial(_predict_file, trained, predicted, options=options, out=folder)
    with memory_errors("use smaller images or --geometry crop, or free memory"):
        made, errors = _predict_files(paths, label, progress)
    return PredictionResult(
        run=str(trained.path),
        images=tuple(made),
        errors=tuple(errors),
        notes=(
            *(() if trained.unfinished is None else (f"{trained.path}: {trained.unfinished}",)),
            *decoding.notes,
            *_turned_note(made),
        ),
    )


def _predict_files(
    paths: Sequence[Path], label: Callable[[Path], ImagePrediction], progress: Progress
) -> tuple[list[ImagePrediction], list[ImageError]]:
    """Label image files one after the other; a DataError of one does not stop the others."""
    made: list[ImagePrediction] = []
    errors: list[ImageError] = []
    progress.begin("images", len(paths), 0)
    try:
        for path in paths:
            try:
                made.append(label(path))
            except DataError as error:
                errors.append(ImageError(image=path, error=str(error)))
            progress.advance(1)
    finally:
        progress.end()
    return made, errors


def _turned_note(made: Sequence[ImagePrediction]) -> Iterator[str]:
    """Describe the images that were turned upright, if there are any."""
    names = [item.image.name for item in made if item.is_turned]
    if names:
        yield (
            f"images whose metadata state an orientation: {listed(names)}; they were turned "
            "upright, and their label maps fit the upright images, not the stored pixels"
        )


def make_embedder(run: Run, options: PredictOptions) -> Embedder:
    """Return the embedder that a run's shards were built with; errors are ``find_weights``'s."""
    recipe = run.config.recipe
    allow(options.backbone, recipe.backbone, recipe.network)
    weights = find_weights(run, options.weights, options.data_dir or default_data_dir())
    spec, device = EmbeddingSpec.of(recipe), choose_device(options.device)
    return Embedder(weights, spec, device=device, components=find_components(run))


def _predict_file(
    run: Run,
    predicted: Callable[[NDArray[np.uint8]], Prediction],
    path: Path,
    options: PredictOptions,
    out: Path | None,
) -> ImagePrediction:
    """Label one image file; a DataError names it."""
    data = read_image_file(path)
    image = decode_image(data, str(path))
    try:
        found = predicted(image)
    except DataError as error:
        raise type(error)(f"{path}: {error}") from error
    space, confidence = run.config.labels, found.confidence if options.confidence else None
    return ImagePrediction(
        image=path,
        classes=_class_shares(found.label_map, space),
        files=None if out is None else _write(found, space, out / path.stem, confidence),
        label_map_held=found.label_map if out is None else None,
        confidence=confidence if out is None else None,
        is_turned=orientation(data) != UPRIGHT,
    )


def _class_shares(label_map: NDArray[np.uint16], space: LabelSpace) -> tuple[ClassShare, ...]:
    """Return the classes of a label map, the largest first, ties by id."""
    areas = sorted(label_areas(label_map).items(), key=lambda item: (-item[1], item[0]))
    return tuple(
        ClassShare(
            id=class_id,
            name=space.class_name(class_id),
            pixels=pixels,
            percent=100 * pixels / label_map.size,
        )
        for class_id, pixels in areas
    )


def _write(
    found: Prediction, space: LabelSpace, stem: Path, confidence: NDArray[np.float32] | None
) -> PredictedFiles:
    """Write STEM.overlay.png and STEM.labels.png, with a confidence STEM.confidence.png too."""
    item = LabelledImage(
        name=stem.name, image=found.image, predicted=found.label_map, confidence=confidence
    )
    contents = {
        "overlay": png_bytes(labelled_sheet(item, space.style)),
        "labels": encode_png(found.label_map),
    }
    if confidence is not None:
        contents["confidence"] = grey_png(confidence)
    paths = {kind: stem.with_name(f"{stem.name}.{kind}.png") for kind in contents}
    stem.parent.mkdir(parents=True, exist_ok=True)
    with alone_in(stem.parent):  # so that all files are of one run
        for kind, data in contents.items():
            write_atomic(paths[kind], data)
    return PredictedFiles(**{kind: str(path) for kind, path in paths.items()})
