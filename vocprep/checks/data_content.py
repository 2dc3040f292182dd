"""Decode every image and label map of a data dir: ``verify --level content`` of a data dir.

An image must decode to the size that its header and, where there is one, its VOC annotation
state; a label map must decode under the dataset's label space, have its image's size, and, where
the authors of the dataset logged them, exactly their label areas.

Files are decoded in several processes, because the readers of label files hold the interpreter.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Self

from vocprep.checks.report import Difference, Report, changed
from vocprep.data_dir.folders import Codes, FileNames, all_files, inner_folder
from vocprep.data_dir.image_ids import ImageIds
from vocprep.data_dir.missing_files import SearchedFolder
from vocprep.data_dir.presence import find_images, find_listed, missing_ids
from vocprep.data_dir.splits import (
    ListedSplit,
    SplitFolders,
    image_names,
    label_names,
    list_split,
)
from vocprep.errors import DataDirError, DataError, ImageDecodeError, LabelDecodeError
from vocprep.features.image import decode_picture, picture_size, read_image_file
from vocprep.features.image_errors import turned_note
from vocprep.files.reading import read_file
from vocprep.formats.orientations import UPRIGHT, orientation
from vocprep.labels.decode import LabelRule, label_rule, read_label_file
from vocprep.labels.label_space import LabelSpace, load_label_space
from vocprep.labels.statistics import label_areas, label_notes, load_label_areas
from vocprep.manifests import DatasetManifest, load_dataset, manifest_names
from vocprep.parallel import map_in_processes
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.storage.places import Place
from vocprep.synthetic.dataset import MARKER
from vocprep.validation import explain

_BATCH = 32
"""Samples that a process checks at a time."""
_MAX_ANNOTATION_BYTES = 1 << 20
_SIZE = re.compile(rb"<(width|height)>\s*(\d{1,9})\s*</\1>")

Size = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True, kw_only=True)
class ExpectedSample:
    """The files of one image id, and what they must agree with."""

    image_id: str
    image: Path | None
    label: Path | None
    annotation: Path
    """VOC's XML; need not exist."""
    schema: str
    """Label space of the label map."""
    rule: LabelRule
    """How the label file is decoded."""
    areas: Mapping[int, int] | None
    """Pixels by raw label id as the authors logged them, where they did."""


def datasets_in(data_dir: Path) -> list[DatasetManifest]:
    """Return the shipped datasets whose images, label maps and splits are all in a data dir."""
    found = []
    for name in manifest_names("datasets"):
        dataset = load_dataset(name)
        folders = (dataset.images, dataset.labels, dataset.split_files or ".")
        if all((data_dir / folder).is_dir() for folder in folders):
            found.append(dataset)
    return found


def verify_data_content(
    data_dir: Path,
    datasets: Sequence[DatasetManifest],
    workers: int,
    progress: Progress = NO_PROGRESS,
    *,
    partial: bool = False,
) -> Report:
    """Decode every image and label map of the datasets, in ``workers`` processes.

    With ``partial`` a listed file that does not exist is allowed. Raises DataDirError without any
    dataset, ManifestError when a dataset's label space or table of areas cannot be read.
    """
    if not datasets:
        raise DataDirError(
            f"{data_dir}: holds no folder layout of a shipped dataset; name your own with --dataset"
        )
    missing: dict[str, Difference] = {}
    samples: list[ExpectedSample] = []
    listed: set[Path] = set()
    for dataset in datasets:
        samples += _samples(data_dir, dataset, listed)
        for item in _missing(data_dir, dataset):
            path = str(Path(item.path).relative_to(data_dir))
            missing[path] = replace(item, path=path)
    findings = _check(samples, workers, progress)
    found = _by_path(data_dir, findings)
    files = {path for item in samples for path in (item.image, item.label) if path}
    reported = found if partial else missing | found
    return Report.of(
        "content",
        matching=len(files) - len(found),
        differences=reported.values(),
        allowed_missing=len(missing) if partial else 0,
        notes=findings.notes,
    )


def _check(samples: Sequence[ExpectedSample], workers: int, progress: Progress) -> Findings:
    findings = Findings()
    progress.begin("images and label maps", len(samples), 0)
    try:
        with closing(_check_all(samples, workers)) as checked:
            for batch in checked:
                progress.advance(batch.samples)
                findings += batch
    finally:
        progress.end()
    return findings


def _by_path(data_dir: Path, findings: Findings) -> dict[str, Difference]:
    """Return what is wrong with the files, by path below the data dir.

    Files of two datasets are checked twice and reported once.
    """
    found: dict[str, Difference] = {}
    for item in findings.differences:
        path = str(Path(item.path).relative_to(data_dir))
        found[path] = changed(path, item.detail)
    return found


def _samples(
    data_dir: Path, dataset: DatasetManifest, listed: set[Path]
) -> Iterator[ExpectedSample]:
    """Yield the files of a dataset; an image without a label map only if it is not yet listed."""
    areas, rule = _areas(data_dir, dataset), label_rule(dataset, data_dir)
    done: set[SplitFolders] = set()
    for split in dataset.splits:
        folders = SplitFolders.of(data_dir, dataset, split)
        if (key := replace(folders, split="")) in done:
            continue
        done.add(key)
        images, labels = (
            _files(names, folder, folders, inner)
            for names, folder, inner in (
                (image_names(dataset), folders.images, folders.labels),
                (label_names(dataset), folders.labels, folders.images),
            )
        )
        annotations = Path(str(folders.images)).parent / "Annotations"
        for image_id in sorted(images.keys() | labels.keys()):
            image = images.get(image_id)
            if image_id not in labels and image in listed:
                continue
            if image is not None:
                listed.add(image)
            yield ExpectedSample(
                image_id=image_id,
                image=image,
                label=labels.get(image_id),
                annotation=annotations / f"{image_id.removeprefix(folders.prefix)}.xml",
                schema=dataset.schemas[0],
                rule=rule.only([labels[image_id]] if image_id in labels else []),
                areas=areas.get(image_id) if image_id in labels else None,
            )


def _files(names: FileNames, folder: Place, folders: SplitFolders, other: Place) -> dict[str, Path]:
    """Return the files of one kind by image id, none where there is no folder.

    ``other`` is the folder of the files of the other kind. DataDirError if it cannot be read.
    """
    try:
        ids, codes = all_files(folder, names, folders.prefix, inner_folder(other, folder))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise DataDirError(f"{folder}: cannot be read: {explain(error)}") from error
    return {
        image_id: Path(str(folder)) / f"{image_id.removeprefix(folders.prefix)}{names.end_of(code)}"
        for image_id, code in zip(ids, codes.tolist(), strict=True)
    }


def _areas(data_dir: Path, dataset: DatasetManifest) -> Mapping[str, Mapping[int, int]]:
    """Return the authors' log; none for generated samples, whose ids are those of other images."""
    if dataset.label_areas is None or (data_dir / MARKER).exists():
        return {}
    return load_label_areas(dataset.label_areas)


def _missing(data_dir: Path, dataset: DatasetManifest) -> Iterator[Difference]:
    """Yield the files that the splits or the authors' log list and the folders lack."""
    splits = [list_split(data_dir, dataset, split) for split in dataset.splits]
    images, labels = image_names(dataset), label_names(dataset)
    yield from _missing_of(images, splits, find_images(images, splits), lambda each: each.images)
    logged = _areas(data_dir, dataset).keys()
    for row, each in enumerate(splits):
        others = [split.image_ids for split in splits[:row]]
        ids = ImageIds.union([each.image_ids, *([] if row else [ImageIds.of(logged)])])
        for other in others:
            ids = ids.without(other)
        splits[row] = replace(each, image_ids=ids)
    codes = find_listed(labels, lambda each: each.labels, splits)
    yield from _missing_of(labels, splits, codes, lambda each: each.labels)


def _missing_of(
    names: FileNames,
    splits: Sequence[ListedSplit],
    codes: Sequence[Codes],
    folder_of: Callable[[SplitFolders], Place],
) -> Iterator[Difference]:
    """Yield the files of some ids that a folder lacks, by their absolute paths."""
    searched: dict[Place, SearchedFolder] = {}
    missing = dict(missing_ids(splits, codes))
    for image_id, folders in sorted(missing.items(), key=lambda item: item[0]):
        below, _, stem = image_id.removeprefix(folders.prefix).rpartition("/")
        place = folder_of(folders) / below
        if place not in searched:
            searched[place] = SearchedFolder.of_any(names, place)
        there = searched[place].what_to_do(stem)
        detail = f"expected the {names.kind} of a listed id{f', {there}' if there else ''}"
        path = str(searched[place].expected(stem))
        yield Difference(path=path, state="missing", detail=detail)


@dataclass(kw_only=True)
class Findings:
    """What the files of some samples hold; ``+=`` adds those of others."""

    samples: int = 0
    differences: list[Difference] = field(default_factory=list)
    """With absolute paths."""
    turned: set[str] = field(default_factory=set)
    """Ids of images whose metadata state an orientation other than upright."""
    pixels_of: dict[str, Counter[int]] = field(default_factory=dict)
    """Pixels by label id, void too, in each label space that label maps were read in."""

    def __iadd__(self, other: Self) -> Self:
        self.samples += other.samples
        self.differences += other.differences
        self.turned |= other.turned
        for schema, pixels in other.pixels_of.items():
            self.pixels_of.setdefault(schema, Counter()).update(pixels)
        return self

    @property
    def notes(self) -> tuple[str, ...]:
        """What is odd about the files as a whole, in words."""
        notes: list[str] = []
        for schema, pixels in self.pixels_of.items():
            space = _label_space(schema)
            classes = {label: count for label, count in pixels.items() if label != space.void}
            notes += label_notes(space, classes, pixels[space.void])
        if self.turned:
            notes.append(turned_note(self.turned))
        return tuple(notes)


def _check_all(samples: Sequence[ExpectedSample], workers: int) -> Generator[Findings, None, None]:
    """Yield the findings of each batch, in order."""
    batches = [samples[start : start + _BATCH] for start in range(0, len(samples), _BATCH)]
    if workers == 1 or len(batches) <= 1:
        yield from (check_samples(batch) for batch in batches)
        return
    try:
        with closing(map_in_processes(check_samples, batches, workers)) as checked:
            yield from checked
    except BrokenProcessPool as error:
        raise DataError(
            "a process that decodes files ended early, probably for lack of memory; run again with "
            "--workers 1, and call it below if __name__ == '__main__' in a script of your own"
        ) from error


def check_samples(samples: Sequence[ExpectedSample]) -> Findings:
    """Decode the files of some samples; return what is wrong, and counts."""
    findings = Findings(samples=len(samples))
    for sample in samples:
        size, detail = None, None
        if sample.image is not None:
            size, detail = _check_image(sample, sample.image, findings)
            if detail:
                findings.differences.append(changed(str(sample.image), detail))
        if sample.label is not None:
            detail = _check_label(sample.label, sample, size, findings)
            if detail:
                findings.differences.append(changed(str(sample.label), detail))
    return findings


def _check_image(
    sample: ExpectedSample, path: Path, findings: Findings
) -> tuple[Size | None, str | None]:
    """Return an image's size as far as it is known, and what is wrong with it."""
    try:
        data = read_image_file(path)
        size = picture_size(data, str(path))
        pixels = decode_picture(data, str(path))
    except ImageDecodeError as error:
        return None, _without_path(error, path)
    if orientation(data) != UPRIGHT:
        findings.turned.add(sample.image_id)
    decoded = (pixels.shape[0], pixels.shape[1])
    stated = _annotated_size(sample.annotation)
    for what, expected in (("its header", size), (sample.annotation.name, stated)):
        if expected not in (None, decoded):
            return decoded, f"expected {_text(expected)} as {what} says, found {_text(decoded)}"
    return decoded, None


def _check_label(
    path: Path, sample: ExpectedSample, size: Size | None, findings: Findings
) -> str | None:
    """Return what is wrong with a label map, None when nothing is."""
    space = _label_space(sample.schema)
    try:
        raw = sample.rule.decode(read_label_file(path), path)
        space.apply(raw, str(path))
    except LabelDecodeError as error:
        return _without_path(error, path)
    found, areas = (raw.shape[0], raw.shape[1]), label_areas(raw)
    pixels = findings.pixels_of.setdefault(sample.schema, Counter())
    for label, count in areas.items():
        pixels[space.raw_to_class[label]] += count
    if sample.image is None:
        return "expected an image of the same name, found none"
    if size not in (None, found):
        return f"expected its image's {_text(size)}, found {_text(found)}"
    if sample.areas is None:
        return None
    for label in sorted(sample.areas.keys() | areas.keys()):
        logged, counted = sample.areas.get(label, 0), areas.get(label, 0)
        if logged != counted:
            return f"expected {logged} pixels of label {label} (the authors' log), found {counted}"
    return None


def _annotated_size(annotation: Path) -> Size | None:
    """Return the size in a VOC annotation, None where there is no such file or it states none."""
    try:
        stated = dict(_SIZE.findall(read_file(annotation, _MAX_ANNOTATION_BYTES)))
    except OSError:
        return None
    if len(stated) != 2:
        return None
    return int(stated[b"height"]), int(stated[b"width"])


@cache
def _label_space(name: str) -> LabelSpace:
    return load_label_space(name)


def _without_path(error: Exception, path: Path) -> str:
    """Return an error's message without the path, which the difference states already."""
    return str(error).removeprefix(f"{path}: ")


def _text(size: Size | None) -> str:
    return "unknown size" if size is None else f"{size[1]}×{size[0]} pixels"
