"""Look into every picture and label map of a data dir: ``verify --level content``.

A picture must decode to the size that its header and, where there is one, its VOC annotation
state; a label map must decode under the dataset's schema, have its picture's size, and, where the
authors of the dataset logged them, exactly their areas.
"""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

from vocprep.checks.report import Difference, Report
from vocprep.data_dir.layout import read_split
from vocprep.errors import DataDirError, DataError, ImageDecodeError, LabelDecodeError
from vocprep.features.image import decode_jpeg, jpeg_size, read_image_file
from vocprep.labels.areas import load_label_areas
from vocprep.labels.decode import decode_label_map, read_label_file
from vocprep.labels.label_space import LabelSpace, load_label_space
from vocprep.labels.statistics import label_areas
from vocprep.manifests import DatasetManifest, load_dataset, manifest_names
from vocprep.progress import Progress
from vocprep.synthetic.dataset import MARKER

_BATCH = 32
"""Samples that one process takes at a time."""
_AHEAD = 4
"""Batches waiting for each process: the whole list is never pickled at once."""
_SIZE = re.compile(rb"<(width|height)>\s*(\d+)\s*</\1>")

Size = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """What is to be looked at for one image id."""

    image: Path | None
    label: Path | None
    annotation: Path
    """VOC's XML; need not be there."""
    schema: str
    areas: Mapping[int, int] | None
    """What the authors logged, where they did."""


def datasets_in(data_dir: Path) -> list[DatasetManifest]:
    """Return the shipped datasets whose pictures, label maps and splits are all in a data dir."""
    found = []
    for name in manifest_names("datasets"):
        dataset = load_dataset(name)
        folders = (dataset.images, dataset.labels, dataset.split_files)
        if all((data_dir / folder).is_dir() for folder in folders):
            found.append(dataset)
    return found


def verify_content(
    data_dir: Path,
    datasets: Sequence[DatasetManifest],
    workers: int,
    progress: Progress,
    *,
    partial: bool = False,
) -> Report:
    """Decode every picture and label map of the datasets, in ``workers`` processes.

    With ``partial`` nothing is missed that is not there. Raises DataDirError without any dataset,
    ManifestError when a dataset's schema or table of areas cannot be read.
    """
    if not datasets:
        raise DataDirError(
            f"{data_dir}: holds no folder layout of a shipped dataset; name your own with --dataset"
        )
    missing: dict[str, Difference] = {}
    samples: list[_Sample] = []
    seen: set[Path] = set()
    for dataset in datasets:
        samples += _samples(data_dir, dataset, seen)
        missing |= {item.path: item for item in _missing(data_dir, dataset)}
    progress.begin("pictures and label maps", len(samples), 0)
    try:
        found = list(_look_at_all(samples, workers, progress.advance))
    finally:
        progress.end()
    bad = {item.path: item for item in (_below(data_dir, item) for item in found)}
    files = {path for item in samples for path in (item.image, item.label) if path}
    kept = {**bad, **({} if partial else missing)}
    return Report(
        level="content",
        right=len(files) - len(bad),
        differences=tuple(kept[path] for path in sorted(kept)),
        pardoned=len(missing) if partial else 0,
    )


def _samples(data_dir: Path, dataset: DatasetManifest, seen: set[Path]) -> list[_Sample]:
    """List what is there of a dataset; a picture without a label map only if it is not ``seen``."""
    images = {path.stem: path for path in sorted((data_dir / dataset.images).glob("*.jpg"))}
    labels = _labels(data_dir, dataset)
    annotations = (data_dir / dataset.images).parent / "Annotations"
    areas = _areas(data_dir, dataset)
    samples = []
    for key in sorted(images.keys() | labels.keys()):
        if key not in labels and images[key] in seen:
            continue
        seen.update(path for path in (images.get(key),) if path)
        samples.append(
            _Sample(
                image=images.get(key),
                label=labels.get(key),
                annotation=annotations / f"{key}.xml",
                schema=dataset.schemas[0],
                areas=areas.get(key) if key in labels else None,
            )
        )
    return samples


def _labels(data_dir: Path, dataset: DatasetManifest) -> dict[str, Path]:
    folder, suffix = data_dir / dataset.labels, f".{dataset.label_kind}"
    return {path.stem: path for path in sorted(folder.glob(f"*{suffix}"))}


def _areas(data_dir: Path, dataset: DatasetManifest) -> Mapping[str, Mapping[int, int]]:
    """Return the authors' log; a generated sample shares names with real pictures, not areas."""
    if dataset.label_areas is None or (data_dir / MARKER).exists():
        return {}
    return load_label_areas(dataset.label_areas)


def _missing(data_dir: Path, dataset: DatasetManifest) -> Iterator[Difference]:
    """Yield the files that the splits or the authors' log promise and the folders lack."""
    promised = {key for split in dataset.splits for key in read_split(data_dir, dataset, split)}
    images, labels = data_dir / dataset.images, _labels(data_dir, dataset)
    pictures = {path.stem for path in images.glob("*.jpg")}
    for key in sorted(promised - pictures):
        path = f"{dataset.images}/{key}.jpg"
        yield Difference(path=path, state="missing", detail="expected the picture of a listed id")
    for key in sorted((promised | _areas(data_dir, dataset).keys()) - labels.keys()):
        path = f"{dataset.labels}/{key}.{dataset.label_kind}"
        yield Difference(path=path, state="missing", detail="expected the label map of a listed id")


def _look_at_all(
    samples: Sequence[_Sample], workers: int, advance: Callable[[int], None]
) -> Iterator[Difference]:
    """Yield what is wrong, in no particular order of finding but in that of the samples."""
    batches = [samples[start : start + _BATCH] for start in range(0, len(samples), _BATCH)]
    parallel = workers > 1 and len(batches) > 1
    # Forked children could inherit a lock that a thread of this process holds.
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, context) if parallel else nullcontext() as pool:
            waiting = iter(batches)
            ahead = [
                (batch, pool.submit(look_at, batch) if pool else None)
                for batch in islice(waiting, _AHEAD * workers)
            ]
            while ahead:
                batch, future = ahead.pop(0)
                yield from future.result() if future else look_at(batch)
                advance(len(batch))
                if following := next(waiting, None):
                    ahead.append((following, pool.submit(look_at, following) if pool else None))
    except BrokenProcessPool as error:
        raise DataError(
            "a process that decodes files was killed, probably for want of memory; run again with "
            "--workers 1"
        ) from error


def look_at(samples: Sequence[_Sample]) -> list[Difference]:
    """Decode the files of some samples; return what is wrong, with absolute paths."""
    found = []
    for sample in samples:
        size = None
        if sample.image is not None:
            size, problem = _look_at_image(sample.image, sample.annotation)
            if problem:
                found.append(_changed(sample.image, problem))
        if sample.label is not None:
            problem = _look_at_label(sample.label, sample, size)
            if problem:
                found.append(_changed(sample.label, problem))
    return found


def _look_at_image(path: Path, annotation: Path) -> tuple[Size | None, str | None]:
    """Return a picture's size as far as it is known, and what is wrong with it."""
    try:
        data = read_image_file(path)
        size = jpeg_size(data, str(path))
        pixels = decode_jpeg(data, str(path))
    except ImageDecodeError as error:
        return None, _without(path, error)
    decoded = (pixels.shape[0], pixels.shape[1])
    stated = _stated_size(annotation)
    for what, expected in (("its header", size), (annotation.name, stated)):
        if expected not in (None, decoded):
            return decoded, f"expected {_text(expected)} as {what} says, found {_text(decoded)}"
    return decoded, None


def _look_at_label(path: Path, sample: _Sample, size: Size | None) -> str | None:
    """Return what is wrong with a label map."""
    try:
        raw = decode_label_map(read_label_file(path), path)
        _schema(sample.schema).apply(raw, str(path))
    except LabelDecodeError as error:
        return _without(path, error)
    found = (raw.shape[0], raw.shape[1])
    if sample.image is None:
        return "expected a picture of the same name, found none"
    if size not in (None, found):
        return f"expected its picture's {_text(size)}, found {_text(found)}"
    if sample.areas is None:
        return None
    areas = label_areas(raw)
    for label in sorted(sample.areas.keys() | areas.keys()):
        logged, counted = sample.areas.get(label, 0), areas.get(label, 0)
        if logged != counted:
            return f"expected {logged} pixels of label {label} (the authors' log), found {counted}"
    return None


def _stated_size(annotation: Path) -> Size | None:
    """Return the size in a VOC annotation, None where there is no such file or it states none."""
    try:
        stated = dict(_SIZE.findall(annotation.read_bytes()))
    except OSError:
        return None
    if len(stated) != 2:
        return None
    return int(stated[b"height"]), int(stated[b"width"])


@cache
def _schema(name: str) -> LabelSpace:
    return load_label_space(name)


def _without(path: Path, error: Exception) -> str:
    """Return an error's message without the path, which the difference names already."""
    return str(error).removeprefix(f"{path}: ")


def _changed(path: Path, detail: str) -> Difference:
    return Difference(path=str(path), state="changed", detail=detail)


def _below(data_dir: Path, item: Difference) -> Difference:
    path = str(Path(item.path).relative_to(data_dir))
    return Difference(path=path, state=item.state, detail=item.detail)


def _text(size: Size | None) -> str:
    return "unknown size" if size is None else f"{size[1]}×{size[0]} pixels"
