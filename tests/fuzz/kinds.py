"""The table of what is damaged: every kind of file that the program reads, how, and what reads it.

A new kind of file is one more entry of ``KINDS``; its sound file is written by ``fuzz.world``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from builders.fuzzing import mutate

from fuzz import world
from fuzz.damage import archives, arrays, pictures, seals, texts

Damage = Callable[[random.Random, bytes], bytes]


def _below_first_line(draw: random.Random, data: bytes) -> bytes:
    first, newline, rest = data.partition(b"\n")
    return first + newline + texts.damaged_json(draw, rest)


def _by_suffix(draw: random.Random, data: bytes) -> bytes:
    """Damage a picture of any format."""
    if data.startswith(b"\x89PNG"):
        return pictures.damaged_png(draw, data)
    if data.startswith(b"\xff\xd8"):
        return pictures.damaged_jpeg(draw, data)
    if data.startswith((b"II*", b"MM\0")):
        return pictures.damaged_tiff(draw, data)
    return mutate(draw, [data])


@dataclass(frozen=True)
class Kind:
    """A kind of file."""

    name: str
    files: Mapping[str, tuple[str, ...]]
    """Verbs by the pattern of files in the world."""
    damage: Damage | None = None
    """Damage that keeps the structure; None where bytes are just bytes."""
    seal: seals.Seal | None = None
    weight: int = 3


def _version_verbs(name: str, *more: str) -> tuple[str, ...]:
    verbs = ("read", "verify", "content", "inspect", "lock", "build again", "reuse")
    return (*(f"{verb} {name}" for verb in verbs), "diff", *more)


def _of_versions(file: str, *more: str) -> dict[str, tuple[str, ...]]:
    return {
        f"{name}/{file}": _version_verbs(name, *(more if name == "h5" else ()))
        for name in world.LAYOUTS
    }


_VOC = f"data/{world.VOC}"
_USES = ("evaluate", "train", "recompute")
_DATASETS = ("mat", "palette", "grey", "deep", *world.OWN)


def _of_datasets(*verbs: str) -> tuple[str, ...]:
    return tuple(f"{verb} {name}" for verb in verbs for name in _DATASETS)


def _masks(folder: str, dataset: str) -> dict[str, tuple[str, ...]]:
    verbs = (f"build {dataset}", f"decode {dataset}", f"check {dataset}", "check files")
    return {folder: verbs}


KINDS = (
    Kind("index", _of_versions("dataset.json", *_USES), texts.damaged_json, seals.seal_version, 12),
    Kind(
        "samples", _of_versions("samples.jsonl", *_USES), texts.damaged_jsonl, seals.seal_version, 8
    ),
    Kind("quarantine", _of_versions("quarantine.jsonl"), texts.damaged_jsonl, seals.seal_version),
    Kind(
        "labels.json", _of_versions("labels.json", *_USES), texts.damaged_json, seals.seal_version
    ),
    Kind(
        "card",
        {
            f"{name}/{file}": (f"read {name}", f"verify {name}", f"build again {name}")
            for name in world.LAYOUTS
            for file in ("README.md", "croissant.json")
        },
        texts.changed_lines,
        seals.seal_version,
        1,
    ),
    Kind(
        "file lock",
        {f"{name}/.lock": (f"build again {name}", f"verify {name}") for name in world.LAYOUTS}
        | {"unfinished/.lock": ("build on",), "data/.vocprep/locks/*": ("download",)},
        None,
        None,
        1,
    ),
    Kind(
        "lock",
        {
            f"{name}.lock.json": (f"lock {name}", f"lock {name}", f"build locked {name}")
            for name in world.LAYOUTS
        },
        texts.damaged_json,
        seals.seal_lock,
        8,
    ),
    Kind(
        "hdf5",
        {"h5/*.h5": _version_verbs("h5", *_USES)},
        arrays.damaged_hdf5,
        seals.seal_version,
        12,
    ),
    Kind("tar", {"tar/*.tar": _version_verbs("tar")}, archives.damaged_tar, seals.seal_version, 12),
    Kind(
        "staged",
        {"unfinished/.tmp-build/*.h5": ("build on",)},
        arrays.damaged_hdf5,
        seals.seal_staged,
        1,
    ),
    Kind(
        "staging",
        {
            "unfinished/.tmp-build/*.about": ("build on",),
            "unfinished/.tmp-build/build.json": ("build on",),
        },
        _below_first_line,
        seals.seal_staged,
        2,
    ),
    Kind(
        "run.json",
        {
            "run/run.json": ("open run", "open run", "open run", "evaluate", "predict"),
            "begun/run.json": ("train on",),
        },
        texts.damaged_json,
        seals.seal_run,
        4,
    ),
    Kind(
        "options.toml",
        {"run/options.toml": ("manifests", "open run"), "begun/options.toml": ("train on",)},
        texts.damaged_toml,
    ),
    Kind(
        "metrics",
        {"begun/metrics.jsonl": ("train on",), "run/metrics.jsonl": ("open run",)},
        texts.damaged_jsonl,
        None,
        2,
    ),
    Kind(
        "weights.json", {"run/weights.json": ("predict", "open run")}, texts.damaged_json, None, 2
    ),
    Kind(
        "model",
        {
            "run/model.safetensors": ("open run", "open run", "evaluate", "predict"),
            "begun/model.safetensors": ("train on",),
        },
        arrays.damaged_safetensors,
        None,
        3,
    ),
    Kind(
        "checkpoint",
        {"begun/checkpoint.safetensors": ("train on",)},
        arrays.damaged_safetensors,
        None,
        2,
    ),
    Kind(
        "receipt",
        {"data/.vocprep/receipts/*": ("check files", "download", "list")},
        texts.damaged_json,
        None,
        4,
    ),
    Kind(
        "unpacked",
        {"data/.vocprep/trees/*": ("check files", "download")},
        archives.damaged_gzip,
        None,
        5,
    ),
    Kind(
        "source digests",
        {"data/sources.lock.json": ("check files", "download", "list")},
        texts.damaged_json,
        None,
        4,
    ),
    Kind(
        "partial",
        {
            "partial/downloads/*.json": ("download on",),
            "partial/downloads/*.part": ("download on",),
        },
        texts.damaged_json,
        None,
        4,
    ),
    Kind("source manifest", {"tiny.toml": ("manifests", "download")}, texts.damaged_toml, None, 5),
    Kind(
        "dataset manifest",
        {
            f"{name}.toml": ("manifests", f"build {name}", f"decode {name}", f"check {name}")
            for name in _DATASETS
        },
        texts.damaged_toml,
        None,
        5,
    ),
    Kind(
        "label space",
        {"space.toml": ("manifests", "build mat", "decode mat", "check deep")},
        texts.damaged_toml,
        None,
        5,
    ),
    Kind(
        "preset",
        {"mine.toml": ("manifests", "manifests", "manifests", "train")},
        texts.damaged_toml,
        None,
        4,
    ),
    Kind(
        "split",
        {f"{_VOC}/ImageSets/Main/*.txt": (*_of_datasets("build", "decode", "check"),)},
        texts.changed_lines,
        seals.seal_unpacked,
        6,
    ),
    Kind(
        "labels.txt", {"data/labels.txt": ("check files", "download")}, texts.changed_lines, None, 1
    ),
    Kind(
        "archive",
        {"archives/*": ("download",)},
        lambda draw, data: (
            archives.damaged_gzip if data[:2] == b"\x1f\x8b" else archives.damaged_tar
        )(draw, data),
        seals.seal_archive,
        8,
    ),
    Kind(
        "downloaded",
        {"data/downloads/*": ("check files", "download")},
        archives.damaged_tar,
        None,
        1,
    ),
    Kind(
        "JPEG",
        {
            f"{_VOC}/JPEGImages/*": ("build mat", "build deep", "check mat", "check files"),
            "pictures/*.jpg": ("predict",),
        },
        pictures.damaged_jpeg,
        None,
        8,
    ),
    Kind("picture", {"pictures/*": ("predict",)}, _by_suffix, None, 3),
    Kind(
        "palette mask",
        _masks(f"{_VOC}/SegmentationClass/*", "palette"),
        pictures.damaged_png,
        seals.seal_unpacked,
        5,
    ),
    Kind(
        "grey mask", _masks(f"{_VOC}/Grey/*", "grey"), pictures.damaged_png, seals.seal_unpacked, 4
    ),
    Kind(
        "16-bit mask",
        _masks(f"{_VOC}/Deep/*", "deep"),
        pictures.damaged_png,
        seals.seal_unpacked,
        5,
    ),
    Kind(
        "own picture",
        {f"{_VOC}/Own/*": ("build npy", "build tiff", "check npy", "check colours")},
        _by_suffix,
        seals.seal_unpacked,
        8,
    ),
    Kind(
        "array mask",
        _masks(f"{_VOC}/Arrays/*", "npy"),
        arrays.damaged_npy,
        seals.seal_unpacked,
        5,
    ),
    Kind(
        "TIFF mask",
        _masks(f"{_VOC}/Tiff/*", "tiff"),
        pictures.damaged_tiff,
        seals.seal_unpacked,
        5,
    ),
    Kind(
        "colour mask",
        _masks(f"{_VOC}/Colours/*", "colours"),
        pictures.damaged_png,
        seals.seal_unpacked,
        5,
    ),
    Kind(
        "panoptic mask",
        _masks(f"{_VOC}/Panoptic/*", "panoptic"),
        pictures.damaged_png,
        seals.seal_unpacked,
        3,
    ),
    Kind(
        "annotations",
        _masks(f"{_VOC}/segments.json", "panoptic"),
        texts.damaged_json,
        seals.seal_unpacked,
        4,
    ),
    Kind(
        "named mat",
        _masks(f"{_VOC}/Named/*", "named"),
        arrays.damaged_mat,
        seals.seal_unpacked,
        4,
    ),
    Kind("mat", _masks("data/trainval/*", "mat"), arrays.damaged_mat, seals.seal_unpacked, 9),
    Kind(
        "safetensors", {"weights/*.safetensors": ("weights",)}, arrays.damaged_safetensors, None, 3
    ),
    Kind("torch file", {"weights/*.pth": ("weights",)}, arrays.damaged_torch, None, 4),
    Kind("sample marker", {"sample/sample.json": ("sample",)}, texts.damaged_json, None, 1),
)
