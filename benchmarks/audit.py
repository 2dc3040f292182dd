"""How many planted label errors an audit puts among its worst pictures.

In 5 % of the pictures an error of one of four kinds is planted: an object gets another class of
the dataset, the label map is another picture's, it is moved by 64 pixels in one of eight directions
(the edge repeated), or an object is filled with the class around it. Objects cover 2 % of their
picture or more. The version is built again, with the embeddings of the unchanged one, and audited.

Beside the audit stand the order of the mean loss of its own out-of-fold predictions, and a random
one. Label maps are PNG files; without ``--data-dir``, generated pictures.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _pictures import Photographs, find_photographs, weights_at_hand
from _report import Cell, Column, Report, Table, command_line
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from vocprep.auditing.audit import audit
from vocprep.auditing.options import AuditOptions
from vocprep.auditing.out_of_fold import deal_folds, predict_out_of_fold
from vocprep.auditing.patches import label_shares, read_patches
from vocprep.building.local import build
from vocprep.data_dir.layout import SampleRef, list_samples
from vocprep.labels.png import decode_png, encode_png
from vocprep.manifests import load_dataset
from vocprep.options import BuildChoices, BuildOptions
from vocprep.progress import NO_PROGRESS
from vocprep.shards.reader import ShardDataset
from vocprep.storage.places import local_path

KINDS = ("class swapped", "mask of another picture", "mask moved by 64 px", "object erased")
SHARES = (0.05, 0.1, 0.2)
MOVE = 64
LEAST_OBJECT = 0.02
RING = 8
COLUMNS = (
    Column("name", ""),
    Column("errors", "errors", ".0f"),
    *(Column(f"worst_{100 * share:.0f}", f"worst {100 * share:.0f} %", ".0f") for share in SHARES),
)
WIDE = BuildChoices(windows=(32, 64, 128), layers=("layer3", "layer2"))
LabelMap = NDArray[np.uint16]


@dataclass(frozen=True)
class Base:
    """The version without errors, and what it was built with."""

    path: Path
    choices: BuildChoices


@dataclass(frozen=True)
class Planted:
    """A version with errors, and the kind of each picture's."""

    path: Path
    errors: dict[str, int]


def main() -> None:
    """Plant, audit, and print the tables."""
    parser = command_line(__doc__)
    parser.add_argument("--data-dir", type=Path, help="real pictures and label maps")
    parser.add_argument("--dataset", default="voc2012", help="of the data dir")
    parser.add_argument("--images", type=int, default=240, help="generated without --data-dir")
    parser.add_argument("--share", type=float, default=0.05, help="of pictures with an error")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--wide", action="store_true", help="embeddings of 2,304 numbers")
    parser.add_argument("--reuse", type=Path, help="version whose embeddings are taken over")
    arguments = parser.parse_args()
    choices = WIDE if arguments.wide else BuildChoices()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = (
            find_photographs(folder, arguments.images)
            if arguments.data_dir is None
            else Photographs(arguments.data_dir, load_dataset(arguments.dataset), "real pictures")
        )
        samples = list_samples(pictures.data_dir, pictures.dataset, pictures.dataset.splits)
        base = arguments.reuse or folder / "base"
        if arguments.reuse is None:
            build(
                pictures.dataset,
                out=base,
                data_dir=pictures.data_dir,
                weights=weights_at_hand(),
                choices=choices,
                options=BuildOptions(device="cpu"),
            )
        errors = round(arguments.share * len(samples))
        report = Report(
            "audit",
            {"pictures": len(samples), "errors": errors, "seeds": arguments.seeds},
            f"{len(samples):,} {pictures.kind}, {errors} of them with a planted error, "
            f"{arguments.seeds} seeds, {'2,304' if arguments.wide else '256'} numbers per patch; "
            "found among the worst, %",
        )
        found: dict[tuple[str, int], list[float]] = {}
        for seed in range(arguments.seeds):
            planted = plant(samples, Base(base, choices), folder / f"seed{seed}", errors, seed)
            for order, places in orders(planted, seed).items():
                for image_id, kind in planted.errors.items():
                    found.setdefault((order, kind), []).append(places[image_id])
        rows = [
            row(f"{title}: {order}", values)
            for kind, title in enumerate(KINDS)
            for (order, of), values in found.items()
            if of == kind
        ]
        report.add(Table("", COLUMNS, rows))
        report.write(arguments.json)


def row(name: str, places: Sequence[float]) -> dict[str, Cell]:
    """Return how many of the errors are at places, from 0 to 1, within each share."""
    line: dict[str, Cell] = {"name": name, "errors": float(len(places))}
    for column, share in zip(COLUMNS[2:], SHARES, strict=True):
        line[column.key] = 100 * sum(place < share for place in places) / len(places)
    return line


def plant(
    samples: Sequence[SampleRef], base: Base, folder: Path, errors: int, seed: int
) -> Planted:
    """Build a version in which some label maps are wrong."""
    random = np.random.default_rng(seed)
    void = ShardDataset.open(base.path).label_space.void
    maps = [read_map(sample) for sample in samples]
    objects = [largest_object(label_map, void) for label_map in maps]
    classes = sorted({label for label in objects if label is not None})
    possible = [number for number, label in enumerate(objects) if label is not None]
    chosen = random.permutation(possible)[:errors].tolist()
    planted = {}
    for turn, number in enumerate(chosen):
        kind, label = turn % len(KINDS), objects[number]
        assert label is not None
        other = maps[(number + int(random.integers(1, len(maps)))) % len(maps)]
        planted[samples[number].image_id] = kind
        maps[number] = with_error(maps[number], label, kind, (other, classes, void), random)
    manifest = lay_out(samples, maps, folder)
    build(
        str(manifest),
        out=folder / "shards",
        data_dir=folder,
        weights=weights_at_hand(),
        choices=base.choices,
        options=BuildOptions(device="cpu", reuse=base.path),
    )
    return Planted(folder / "shards", planted)


def with_error(
    label_map: LabelMap,
    label: int,
    kind: int,
    around: tuple[LabelMap, Sequence[int], int],
    random: np.random.Generator,
) -> LabelMap:
    """Return a label map with an error; ``around`` are another map, the classes, the void id."""
    other, classes, void = around
    wrong = label_map.copy()
    if kind == 0:
        present = {*np.unique(label_map).tolist()}
        free = [each for each in classes if each not in present] or list(classes)
        wrong[label_map == label] = free[random.integers(len(free))]
    elif kind == 1:
        size = label_map.shape[1], label_map.shape[0]
        wrong = np.asarray(Image.fromarray(other).resize(size, Image.Resampling.NEAREST))
    elif kind == 2:
        steps = [(y, x) for y in (-MOVE, 0, MOVE) for x in (-MOVE, 0, MOVE) if (y, x) != (0, 0)]
        y, x = steps[random.integers(len(steps))]
        padded = np.pad(label_map, MOVE, mode="edge")
        height, width = label_map.shape
        wrong = padded[MOVE - y : MOVE - y + height, MOVE - x : MOVE - x + width]
    else:
        inside = label_map == label
        near = ndimage.binary_dilation(inside, iterations=RING)
        ring = label_map[near & ~inside & (label_map != void)]
        counts = np.bincount(ring, minlength=1)
        wrong[inside | (near & (label_map == void))] = counts.argmax()
    return wrong


def read_map(sample: SampleRef) -> LabelMap:
    """Return a label map as its file has it."""
    path = local_path(sample.label_path)
    return decode_png(path.read_bytes(), str(path))


def largest_object(label_map: LabelMap, void: int) -> int | None:
    """Return the largest class of 2 % of a picture or more that is not 0, background."""
    counts = np.bincount(label_map.ravel(), minlength=void + 1)
    counts[[0, void]] = 0
    label = int(counts.argmax())
    return label if counts[label] >= LEAST_OBJECT * label_map.size else None


def lay_out(samples: Sequence[SampleRef], maps: Sequence[LabelMap], folder: Path) -> Path:
    """Write a data dir with links to the images, and return its manifest."""
    for name in ("pictures", "masks", "splits"):
        (folder / name).mkdir(parents=True)
    splits: dict[str, list[str]] = {}
    for sample, label_map in zip(samples, maps, strict=True):
        target = local_path(sample.image_path).resolve()
        (folder / "pictures" / f"{sample.image_id}.jpg").symlink_to(target)
        (folder / "masks" / f"{sample.image_id}.png").write_bytes(encode_png(label_map))
        splits.setdefault(sample.split, []).append(sample.image_id)
    for split, ids in splits.items():
        (folder / "splits" / f"{split}.txt").write_text("".join(f"{each}\n" for each in ids))
    manifest = folder / "planted.toml"
    names = ", ".join(f'"{split}"' for split in splits)
    manifest.write_text(
        'title = "Pictures with errors"\nimages = "pictures"\nlabels = "masks"\n'
        f'label_kind = "png"\nsplit_files = "splits"\nsplits = [{names}]\nschemas = ["voc21"]\n'
    )
    return manifest


def orders(planted: Planted, seed: int) -> dict[str, dict[str, float]]:
    """Return the place of each picture, from 0 for the worst to 1, in each order."""
    options = AuditOptions()
    audited = [picture.id for picture in audit(planted.path, options).pictures]
    losses = dict(mean_losses(planted.path, options))
    by_loss = sorted(losses, key=lambda image_id: -losses[image_id])
    by_chance = np.random.default_rng([seed, 1]).permutation(sorted(losses)).tolist()
    named = {"audit": audited, "mean loss": by_loss, "random": by_chance}
    return {
        name: {image_id: place / len(ids) for place, image_id in enumerate(ids)}
        for name, ids in named.items()
    }


def mean_losses(path: Path, options: AuditOptions) -> Iterator[tuple[str, float]]:
    """Yield the mean cross-entropy of each picture by the audit's own predictions."""
    dataset = ShardDataset.open(path)
    patches = read_patches(dataset, dataset.splits, NO_PROGRESS)
    logs = predict_out_of_fold(patches, deal_folds(patches.ids, options.folds), NO_PROGRESS)
    for number, image_id in enumerate(patches.ids):
        rows = patches.rows(number)
        shares = label_shares(patches, rows)
        loss = -(shares * logs[rows].astype(np.float32)).sum() / max(float(shares.sum()), 1e-6)
        yield image_id, float(loss)


if __name__ == "__main__":
    main()
