"""A version whose embeddings carry their classes, with known errors in its label maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from builders.heads import DIM, VOID, make_dataset, make_record
from numpy.typing import NDArray

from vocprep.shards.record import Record

GRID = (4, 5)
CLASSES = 6


@dataclass(frozen=True)
class Erroneous:
    """A version, and which of its pictures have which error."""

    path: Path
    errors: dict[str, str]


def scene(random: np.random.Generator) -> NDArray[np.uint16]:
    """A background with one large object of a class of its own."""
    label_map = np.zeros((GRID[0] * 32, GRID[1] * 32), dtype=np.uint16)
    top, left = random.integers(0, 40), random.integers(0, 60)
    height, width = random.integers(50, 80), random.integers(50, 90)
    label_map[top : top + height, left : left + width] = random.integers(1, CLASSES)
    return label_map


def embeddings_of(
    label_map: NDArray[np.uint16], directions: NDArray[np.floating], random: np.random.Generator
) -> NDArray[np.float16]:
    tiles = label_map.reshape(GRID[0], 32, GRID[1], 32).swapaxes(1, 2).reshape(-1, 1024)
    shares = np.stack([(tiles == label).mean(axis=1) for label in range(CLASSES)], axis=1)
    noise = random.normal(scale=1.0, size=(len(tiles), DIM))
    return (shares @ directions + noise).astype(np.float16)


def with_error(kind: str, label_map: NDArray[np.uint16], seed: int) -> NDArray[np.uint16]:
    """A label map that is wrong in a known way, of 30 % more void in one of them."""
    wrong = label_map.copy()
    label = int(label_map.max())
    if kind == "class":
        wrong[wrong == label] = label % (CLASSES - 1) + 1
    elif kind == "other picture":
        wrong = scene(np.random.default_rng([99, seed]))
    elif kind == "moved":
        wrong = wrong[::-1, ::-1]
    elif kind == "erased":
        wrong[:] = 0
    else:
        wrong[:, : wrong.shape[1] // 3] = VOID
    return wrong


@pytest.fixture(scope="session")
def erroneous(tmp_path_factory: pytest.TempPathFactory) -> Erroneous:
    random = np.random.default_rng(5)
    directions = random.normal(scale=0.5, size=(CLASSES, DIM))
    kinds = ["class", "class", "other picture", "erased", "erased", "void"]
    errors, splits = {}, {"train": list[Record](), "val": list[Record]()}
    for number in range(120):
        split = "val" if number % 4 == 0 else "train"
        image_id = f"{split}_{number:03d}"
        label_map = scene(random)
        embeddings = embeddings_of(label_map, directions, random)
        if number % 20 == 7:
            errors[image_id] = kinds[number // 20]
            label_map = with_error(errors[image_id], label_map, number)
        record = make_record(image_id, split, label_map, embeddings)
        object.__setattr__(record, "image_sha256", f"{number:064x}")
        splits[split].append(record)
    path = tmp_path_factory.mktemp("audit") / "shards"
    make_dataset(path, splits)
    return Erroneous(path, errors)
