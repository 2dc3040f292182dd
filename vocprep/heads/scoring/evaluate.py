"""The verb ``evaluate``: runs and dataset versions in, the scores of each run out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from vocprep.drawing.png import png_bytes
from vocprep.errors import DataError, UsageError
from vocprep.files.locking import alone_in
from vocprep.files.names import check_names_differ, found_at, names_in
from vocprep.files.writing import check_output_folder, write_atomic
from vocprep.heads.example_sheets import ExampleSheets
from vocprep.heads.runs.class_shares import Decoding, decoding_for
from vocprep.heads.runs.options import EvaluateOptions
from vocprep.heads.runs.run import CONFIG_FILE, Run, load_run, several_runs
from vocprep.heads.scoring.comparison import Comparison, compare_runs
from vocprep.heads.scoring.groups import (
    GivenRuns,
    GroupComparison,
    RunGroup,
    compare_groups,
    given_runs,
    group_of,
    mixed_note,
)
from vocprep.heads.scoring.matching import choose_dataset, default_split, require_one_truth
from vocprep.heads.scoring.measures.image_scores import Group, examples
from vocprep.heads.scoring.run_scores import score_run
from vocprep.heads.scoring.scores import DrawnImage, RunScores, write_confusion
from vocprep.memory import memory_errors
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.shards.index import DATASET_FILE
from vocprep.shards.reader import ShardDataset
from vocprep.storage.places import Place, local_path, parse_place

T = TypeVar("T")
RunLike = str | Path | Run
ShardsLike = str | Place | ShardDataset
ScoredRun = tuple[Run, ShardDataset, Decoding]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of runs on the same images and ground truth."""

    runs: tuple[RunScores, ...]
    differences: tuple[Comparison, ...]
    """Each further run beside the first."""
    notes: tuple[str, ...]
    """On the evaluation as a whole: dataset versions that no run was scored on."""
    groups: tuple[RunGroup, ...] = ()
    """Where a folder with runs of several seeds was given: it, and each other path, as a group."""
    group_differences: tuple[GroupComparison, ...] = ()
    """Each further group beside the first; runs are then not compared one by one."""

    def to_json(self) -> dict[str, Any] | list[dict[str, Any]]:
        """Return plain JSON values: the scores of one run, or a list of those of several.

        Each further run has a key ``difference``: a ``Comparison`` with the first. With groups an
        object with the ``groups``, their ``differences``, and the ``runs``.
        """
        if self.groups:
            return {
                "groups": [group.to_json() for group in self.groups],
                "differences": [found.to_json() for found in self.group_differences],
                "runs": [scores.to_json() for scores in self.runs],
            }
        first, *others = (scores.to_json() for scores in self.runs)
        if not others:
            return first
        pairs = zip(others, self.differences, strict=True)
        return [first, *({**values, "difference": found.to_json()} for values, found in pairs)]


def evaluate(
    runs: RunLike | Sequence[RunLike],
    shards: ShardsLike | Sequence[ShardsLike],
    split: str | None = None,
    options: EvaluateOptions | None = None,
    out: str | Path | None = None,
    progress: Progress = NO_PROGRESS,
) -> Evaluation:
    """Score one or several runs on a split, beside oracles and a constant prediction.

    The folder of runs of several seeds or of a sweep stands for all of them; those of seeds have
    mean and spread besides.
    Each run is scored on the dataset version that it was trained on, else on the first of
    ``shards`` whose embeddings and labels fit it; all must hold the same images and ground truth. A
    path that is given twice counts once. ``split`` is ``val`` unless it is named; where there is
    none, the split that the first run was validated on, else trained on. Mirrored views are not
    scored by themselves. With ``out``, the confusion
    matrix of each run is written into that folder, as PNG and CSV, and with ``options.pictures``
    ``RUN.worst-1.png`` and the like: images with their truth and prediction. Raises RunError when
    no dataset version fits a run, UsageError when there is no such split, no pixel to score, what
    ``options.prior_power`` or ``options.tta`` need is missing, or
    when scores could not be compared, OutOfMemoryError, and what ``load_run`` and
    ``ShardDataset.open`` raise.
    """
    options = options or EvaluateOptions()
    items = _distinct([runs] if isinstance(runs, str | Path | Run) else runs)
    given = [each for item in items for each in given_runs(item)]
    run_list = _distinct(run for each in given for run in each.runs)
    shards_list = _distinct([shards] if isinstance(shards, ShardsLike) else shards)
    if not (run_list and shards_list):
        raise UsageError("expected at least one run and the shards to score it on, found none")
    folder = None if out is None else _output_folder(local_path(out), run_list)
    if options.pictures and folder is None:
        raise UsageError("pictures: expected a folder to write them into, found none; give --out")
    datasets = [s if isinstance(s, ShardDataset) else ShardDataset.open(s) for s in shards_list]
    # Everything is opened before the first run is scored, which may take minutes.
    trained = [item if isinstance(item, Run) else load_run(item) for item in run_list]
    chosen = [choose_dataset(run, datasets) for run in trained]
    split = split or default_split(trained[0], chosen[0])
    require_one_truth(chosen, split)
    decodings = [
        decoding_for(run, dataset, options.prior_power, options.tta)
        for run, dataset in zip(trained, chosen, strict=True)
    ]
    scored = list(zip(trained, chosen, decodings, strict=True))
    sheets = _sheets(scored, options)
    with memory_errors("use a smaller --batch-size, or free memory"):
        scores = _score_all(scored, split, options, progress)
    if folder is not None:
        scores = _write(scores, sheets, folder, options.pictures)
    notes = [f"no run is scored on {each.path}" for each in datasets if each not in chosen]
    notes += dict.fromkeys(note for each in sheets for note in each.notes)
    if any(each.is_folder for each in given):
        return _grouped(given, run_list, trained, scores, notes)
    return Evaluation(
        runs=tuple(scores),
        differences=tuple(compare_runs(scores[0], other) for other in scores[1:]),
        notes=tuple(notes),
    )


def _grouped(
    given: Sequence[GivenRuns],
    run_list: Sequence[RunLike],
    trained: Sequence[Run],
    scores: Sequence[RunScores],
    notes: Sequence[str],
) -> Evaluation:
    """Return the scores of runs with those of the groups that were given of them."""
    place = {_key(item): number for number, item in enumerate(run_list)}
    are_distinct = len({each.name for each in given}) == len(given)
    groups, mixed = [], []
    for each in given:
        own = [place[_key(run)] for run in each.runs]
        path = trained[own[0]].path
        whole = path.parent if each.is_folder else path
        name = each.name if are_distinct else str(whole)
        groups.append(group_of(name, [scores[number] for number in own]))
        mixed.append(mixed_note(name, [trained[number] for number in own]))
    return Evaluation(
        runs=tuple(scores),
        differences=(),
        notes=(*notes, *(note for note in mixed if note)),
        groups=tuple(groups),
        group_differences=tuple(compare_groups(groups[0], other) for other in groups[1:]),
    )


def _sheets(scored: Sequence[ScoredRun], options: EvaluateOptions) -> list[ExampleSheets]:
    """Return what draws the images of each run; nothing where no pictures are asked for."""
    if not options.pictures:
        return []
    return [
        ExampleSheets.of(run, dataset, decoding, options.data_dir, options.dataset)
        for run, dataset, decoding in scored
    ]


def _write(
    scores: Sequence[RunScores], sheets: Sequence[ExampleSheets], out: Path, most: int
) -> list[RunScores]:
    """Write confusion matrices and pictures into a folder; return the scores with the pictures."""
    out.mkdir(parents=True, exist_ok=True)
    with alone_in(out):  # so that all files are of one evaluation
        for item in scores:
            write_confusion(item, out)
        if not sheets:
            return list(scores)
        return [
            replace(item, pictures=tuple(_draw_examples(item, drawer, out, most)))
            for item, drawer in zip(scores, sheets, strict=True)
        ]


def _draw_examples(
    scores: RunScores, sheets: ExampleSheets, out: Path, most: int
) -> Iterator[DrawnImage]:
    """Write RUN.worst-1.png and so on, in place of earlier ones; yield what was drawn."""
    is_earlier = re.compile(rf"{re.escape(scores.run)}\.({'|'.join(get_args(Group))})-[0-9]+\.png")
    for name in names_in(out):
        if is_earlier.fullmatch(name):
            (out / name).unlink()
    for group, chosen in examples(scores.confusions.scores, most).items():
        for rank, image in enumerate(chosen, start=1):
            path = out / f"{scores.run}.{group}-{rank}.png"
            title = (
                f"{scores.run}, {scores.split}, {group} {rank} of {scores.images:,} images: "
                f"pixel accuracy {100 * image.pixel_accuracy:.1f} %, mIoU {100 * image.miou:.1f} %"
            )
            write_atomic(path, png_bytes(sheets.draw(image.image_id, title)))
            yield DrawnImage(**vars(image), group=group, rank=rank, file=str(path))


def runs_and_shards(paths: Sequence[Place]) -> tuple[list[Path], list[Place]]:
    """Separate the paths of runs from those of dataset versions, of which both must be there.

    A folder with runs of several seeds or of a sweep stays one path.
    Raises what ``runs_and_versions`` does, and UsageError where one of the two is missing.
    """
    _, shards = runs_and_versions(paths)
    runs = _distinct(_run_paths(paths))
    if not (runs and shards):
        raise UsageError(
            "expected at least one run and the shards to score it on, found "
            f"{' and '.join(map(str, paths))} alone; give RUN... SHARDS..."
        )
    return runs, shards


def runs_and_versions(paths: Sequence[Place]) -> tuple[list[Path], list[Place]]:
    """Separate the paths of runs from those of dataset versions, by the files in them.

    A URL is taken for a dataset version; a run that is given twice counts once, and a folder with
    several runs counts as these. Raises DataError for a path that is neither.
    """
    found = _run_paths(paths)
    runs = _distinct(run for path in found for run in several_runs(path) or [path])
    shards = [
        path for path in paths if not isinstance(path, Path) or (path / DATASET_FILE).is_file()
    ]
    for path in paths:
        if isinstance(path, Path) and path not in found and path not in shards:
            raise DataError(
                f"{path}: expected a run or a dataset version, found {found_at(path)}; check the "
                "path"
            )
    return runs, shards


def _run_paths(paths: Sequence[Place]) -> list[Path]:
    """Return the paths of runs, and of folders with several runs."""
    folders = [path for path in paths if isinstance(path, Path)]
    return [path for path in folders if (path / CONFIG_FILE).is_file() or several_runs(path)]


def _output_folder(out: Path, runs: Sequence[RunLike]) -> Path:
    """Return the folder of the confusion matrices; UsageError where they cannot be written."""
    check_output_folder(out)
    paths = [item.path if isinstance(item, Run) else local_path(item) for item in runs]
    check_names_differ(paths, [path.resolve().name for path in paths], "confusion matrices")
    return out


def _distinct(items: Iterable[T]) -> list[T]:
    """Return runs or dataset versions in their order, equal paths once."""
    distinct: dict[object, T] = {}
    for item in items:
        distinct.setdefault(_key(item), item)
    return list(distinct.values())


def _key(item: object) -> object:
    """Return one value for all ways to give a run or a dataset version."""
    return _place_key(item) if isinstance(item, str | Place) else id(item)


def _place_key(item: str | Place) -> Place:
    """Return one value for all ways to name a place."""
    place = parse_place(item)
    return place.resolve() if isinstance(place, Path) else place


def _score_all(
    scored: Sequence[ScoredRun],
    split: str,
    options: EvaluateOptions,
    progress: Progress,
) -> list[RunScores]:
    """Score each run on its dataset version; runs that share a name get their paths as names."""
    scores = [
        score_run(run, dataset, split, options, progress, decoding)
        for run, dataset, decoding in scored
    ]
    if len({item.run for item in scores}) == len(scores):
        return scores
    return [
        replace(item, run=str(run.path)) for item, (run, _, _) in zip(scores, scored, strict=True)
    ]
