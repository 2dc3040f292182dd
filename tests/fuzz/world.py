"""A small sound file of every kind that the program reads, in one folder.

``prepare`` makes them with the program itself; ``copy`` gives an input its own. All paths in them
are relative to that folder, which is the current one while an input runs.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import chdir, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

from vocprep.building.local import build
from vocprep.checks.lock import lock
from vocprep.data_dir.digests import ExpectedDigests
from vocprep.downloading.download import DownloadOptions, download
from vocprep.downloading.outcomes import raise_failures
from vocprep.downloading.partial import PartFile
from vocprep.features.weights import load_weights
from vocprep.geometry import Geometry
from vocprep.heads.runs.presets import load_options
from vocprep.heads.training.train import train
from vocprep.manifests import load_source
from vocprep.options import BuildChoices, BuildOptions, Layout, MaxFailures
from vocprep.progress import NoProgress
from vocprep.synthetic.dataset import sample

VOC = "VOCdevkit/VOC2010"
SPLITS = {"train": ("a1", "a2", "a3"), "val": ("b1", "b2"), "all": ("a1", "a2", "a3", "a4")}
"""Datasets have train and val, versions all and val."""
ARCHIVES = ("pictures.tar", "labels.tar.gz", "labels.txt")
DAMAGED = "a4"
"""Its MATLAB file ends early, so that every version has a quarantined sample."""
SIZES = {"a1": (64, 64), "a2": (64, 96), "a3": (80, 70), "a4": (64, 64), "b1": (64, 64)}
LINKED_FROM = 1 << 20
"""Bytes from which on a file is linked and never copied: verbs replace it, if they write it."""

OWN = {
    "npy": ("Arrays", 'label_kind = "npy"\n'),
    "tiff": ("Tiff", 'label_kind = "tiff"\n'),
    "named": ("Named", 'label_kind = "mat"\nlabel_variable = "ids"\n'),
    "panoptic": (
        "Panoptic",
        f'label_kind = "panoptic"\nlabel_annotations = "{VOC}/segments.json"\n',
    ),
    "colours": (
        "Colours",
        'label_kind = "colours"\n[label_colours]\n'
        + "".join(f'"#{40 * label:02x}0010" = {label}\n' for label in range(6)),
    ),
}
"""Datasets over pictures of all formats: the folder of their label maps, and what says its kind."""
OWN_FORMATS = ("PNG", "WEBP", "TIFF", "BMP", "PNG", "WEBP")

CHOICES = BuildChoices(geometry=Geometry(geometry="native"), views=("identity", "flip"))
WITH_DAMAGED = replace(CHOICES, splits=("all", "val"))
LAYOUTS = {
    "h5": Layout(samples_per_shard=2),
    "tar": Layout(format="webdataset", samples_per_shard=2),
}
ENGINE = BuildOptions(device="cpu", workers=1, max_failures=MaxFailures(count=1), compiled=False)
WEIGHTS = "random:0"

SPACE = 'title = "five classes"\nvoid = 0\n\n[names]\n' + "".join(
    f'{number} = "class {number}"\n' for number in range(1, 6)
)
SPACE += '\n[colours]\n2 = "#1e90ff"\n'
PRESET = (
    'encoder = "none"\nepochs = 2\nbatch_size = 2\nvalidate_every = 1\nwarmup = 0.0\nlr = 1e-4\n'
    'train_split = "all"\n'
)


def prepare(folder: Path) -> None:
    """Write the world into a new folder."""
    folder.mkdir(parents=True)
    with chdir(folder):
        _write_sources()
        _write_manifests()
        options = DownloadOptions(from_dir=Path("archives"), offline=True)
        raise_failures(download("tiny.toml", "data", options))
        _write_versions()
        _write_weights()
        _write_runs()
        _write_partial()
        sample("sample", images=1)


def _label_map(image_id: str) -> NDArray[np.uint16]:
    height, width = SIZES.get(image_id, (64, 64))
    draw = np.random.default_rng(list(image_id.encode()))
    blocks = draw.integers(0, 6, size=(-(-height // 8), -(-width // 8)))
    return np.kron(blocks, np.ones((8, 8))).astype(np.uint16)[:height, :width]


def _picture(label_map: NDArray[np.uint16]) -> Image.Image:
    draw = np.random.default_rng(0)
    colours = draw.integers(0, 256, size=(256, 3))
    noise = draw.integers(-8, 9, size=(*label_map.shape, 3))
    return Image.fromarray(np.clip(colours[label_map] + noise, 0, 255).astype(np.uint8))


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _mat(label_map: NDArray[np.uint16], *, compressed: bool) -> bytes:
    stream = io.BytesIO()
    savemat(stream, {"LabelMap": label_map}, do_compression=compressed)
    return b"MATLAB 5.0 MAT-file".ljust(116) + stream.getvalue()[116:]


def _write_sources() -> None:
    """Write the archives that the data dir is filled from, and pictures to predict."""
    images: dict[str, bytes] = {}
    labels: dict[str, bytes] = {}
    for number, image_id in enumerate((*SPLITS["all"], *SPLITS["val"])):
        label_map = _label_map(image_id)
        jpeg = _encoded(_picture(label_map), "JPEG", quality=90, progressive=number % 2 == 1)
        images[f"{VOC}/JPEGImages/{image_id}.jpg"] = jpeg
        grey = Image.fromarray(label_map.astype(np.uint8))
        palette = grey.copy()
        palette.putpalette(list(range(256)) * 3)
        images[f"{VOC}/SegmentationClass/{image_id}.png"] = _encoded(palette, "PNG")
        images[f"{VOC}/Grey/{image_id}.png"] = _encoded(grey, "PNG")
        images[f"{VOC}/Deep/{image_id}.png"] = _encoded(Image.fromarray(label_map), "PNG")
        mat = _mat(label_map, compressed=number % 2 == 0)
        labels[f"trainval/{image_id}.mat"] = mat[:300] if image_id == DAMAGED else mat
    images |= _own_files()
    for split, ids in SPLITS.items():
        text = "".join(f"{image_id}\n" for image_id in ids)
        images[f"{VOC}/ImageSets/Main/{split}.txt"] = text.encode()
    _write("archives/pictures.tar", tar_of(images))
    _write("archives/labels.tar.gz", gzip.compress(tar_of(labels), mtime=0))
    _write("archives/labels.txt", b"1: class 1\n2: class 2\n")
    base = _picture(_label_map("a1"))
    _write("pictures/base.jpg", _encoded(base, "JPEG"))
    _write("pictures/progressive.jpg", _encoded(base, "JPEG", progressive=True))
    _write("pictures/true.png", _encoded(base, "PNG"))
    _write("pictures/palette.png", _encoded(base.quantize(16), "PNG"))
    _write("pictures/base.bmp", _encoded(base.crop((0, 0, 32, 32)), "BMP"))
    _write("pictures/base.gif", _encoded(base, "GIF"))
    _write("pictures/base.webp", _encoded(base, "WEBP"))
    _write("pictures/base.tiff", _encoded(base, "TIFF", compression="tiff_lzw"))


def _own_files() -> dict[str, bytes]:
    """Return pictures of all formats, and label maps of all kinds over them."""
    files: dict[str, bytes] = {}
    annotations = []
    for number, image_id in enumerate((*SPLITS["all"], *SPLITS["val"])):
        label_map = _label_map(image_id)
        kind = OWN_FORMATS[number]
        options = {"TIFF": {"compression": "tiff_lzw"}, "WEBP": {"lossless": number == 1}}
        encoded = _encoded(_picture(label_map), kind, **options.get(kind, {}))
        suffix = {"TIFF": "tif"}.get(kind, kind.lower())
        files[f"{VOC}/Own/{image_id}.{suffix}"] = encoded
        array = label_map.astype(np.int16) if number % 2 else np.asfortranarray(label_map)
        stream = io.BytesIO()
        np.save(stream, array)
        files[f"{VOC}/Arrays/{image_id}.npy"] = stream.getvalue()
        compression = ("raw", "tiff_lzw", "packbits")[number % 3]
        packed = _encoded(Image.fromarray(label_map), "TIFF", compression=compression)
        files[f"{VOC}/Tiff/{image_id}.tif"] = packed
        stream = io.BytesIO()
        savemat(stream, {"ids": label_map.astype(float)}, do_compression=number % 2 == 0)
        named = b"MATLAB 5.0 MAT-file".ljust(116) + stream.getvalue()[116:]
        files[f"{VOC}/Named/{image_id}.mat"] = named
        colours = np.stack([label_map * 40, label_map * 0, label_map * 0 + 16], axis=2)
        files[f"{VOC}/Colours/{image_id}.png"] = _encoded(
            Image.fromarray(colours.astype(np.uint8)), "PNG"
        )
        segments = label_map.astype(np.uint32) * 300
        numbers = np.stack([segments % 256, segments // 256, segments * 0], axis=2)
        files[f"{VOC}/Panoptic/{image_id}.png"] = _encoded(
            Image.fromarray(numbers.astype(np.uint8)), "PNG"
        )
        info = [{"id": 300 * label, "category_id": label, "area": 9} for label in range(1, 6)]
        annotations.append({"file_name": f"{image_id}.png", "segments_info": info})
    files[f"{VOC}/segments.json"] = json.dumps({"annotations": annotations}).encode()
    return files


def tar_of(files: dict[str, bytes]) -> bytes:
    """Return a tar of some files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def source_manifest(archives: Mapping[str, bytes]) -> str:
    """Return the manifest of a source that consists of some archives, by their names."""
    parts = ['title = "tiny"\nterms = "none"\n']
    for name, data in archives.items():
        place = name if name == "labels.txt" else f"downloads/{name}"
        # Of one archive no sha256 is published: its digest is recorded when it is fetched.
        algorithm = "md5" if name == "labels.tar.gz" else "sha256"
        digest = hashlib.new(algorithm, data).hexdigest()
        parts.append(
            f'[[files]]\npath = "{place}"\nurls = ["https://127.0.0.1:9/{name}"]\n'
            f'bytes = {len(data)}\n{algorithm} = "{digest}"\n'
        )
        if place != name:
            parts.append("[files.unpack]\nmax_bytes = 1000000\n")
    return "\n".join(parts)


def read_archives(folder: Path) -> dict[str, bytes]:
    """Return the archives of the world, or of an input, by name."""
    return {name: (folder / "archives" / name).read_bytes() for name in ARCHIVES}


def _write_manifests() -> None:
    """Write the source, datasets over two sets of pictures, the label space and the preset."""
    _write("space.toml", SPACE.encode())
    _write("tiny.toml", source_manifest(read_archives(Path())).encode())
    _write("mine.toml", PRESET.encode())
    for name, labels, kind in (
        ("mat", "trainval", "mat"),
        ("palette", f"{VOC}/SegmentationClass", "png"),
        ("grey", f"{VOC}/Grey", "png"),
        ("deep", f"{VOC}/Deep", "png"),
    ):
        text = (
            f'title = "{name}"\nimages = "{VOC}/JPEGImages"\nlabels = "{labels}"\n'
            f'label_kind = "{kind}"\nsplit_files = "{VOC}/ImageSets/Main"\n'
            'splits = ["train", "val"]\nschemas = ["space.toml"]\n'
        )
        _write(f"{name}.toml", text.encode())
    for name, (folder, kind) in OWN.items():
        text = (
            f'title = "{name}"\nimages = "{VOC}/Own"\nlabels = "{VOC}/{folder}"\n'
            f'split_files = "{VOC}/ImageSets/Main"\nsplits = ["train", "val"]\n'
            f'schemas = ["space.toml"]\n{kind}'
        )
        _write(f"{name}.toml", text.encode())


class _StopAfter(NoProgress):
    """Interrupts a build after so many images."""

    def __init__(self, images: int) -> None:
        self._left = images

    def advance(self, count: int) -> None:
        """Count down, then do what Ctrl-C does."""
        self._left -= count
        if self._left < 0:
            raise KeyboardInterrupt


def build_version(
    out: str, layout: str, weights: str = WEIGHTS, options: BuildOptions = ENGINE, **more: object
) -> None:
    """Build the world's version of one layout into a folder."""
    build(
        "mat.toml",
        out=out,
        data_dir="data",
        weights=weights,
        choices=WITH_DAMAGED,
        layout=LAYOUTS[layout],
        options=options,
        **more,
    )


def _write_versions() -> None:
    """Write a version of either container, their lock files, and an unfinished build."""
    build_version("h5", "h5")
    build_version("tar", "tar", options=replace(ENGINE, reuse=Path("h5")))
    for name in LAYOUTS:
        lock(name, f"{name}.lock.json")
    with suppress(KeyboardInterrupt):
        build_version("unfinished", "h5", progress=_StopAfter(4))


def _write_weights() -> None:
    state = dict(load_weights(WEIGHTS, Path()))
    Path("weights").mkdir()
    safetensors.torch.save_file(state, "weights/net.safetensors")
    torch.save(state, "weights/net.pth")


def train_tiny(shards: str, out: str, on_epoch: Callable[[object], None] | None = None) -> None:
    """Train small heads, or go on with them."""
    overrides = {"device": "cpu", "resume": True, "checkpoint_every": 0.0, "precision": "fp32"}
    options = load_options("mine.toml", (), overrides)
    train(shards, out, options, on_epoch or (lambda _: None))


def _write_runs() -> None:
    """Write a finished run, and one that was interrupted after its first epoch."""
    train_tiny("h5", "run")

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        train_tiny("h5", "begun", stop)


def _write_partial() -> None:
    """Write a data dir in which one download ends in the middle."""
    file = load_source("tiny.toml").files[0]
    data = Path("archives/pictures.tar").read_bytes()
    with PartFile(Path("partial") / file.path, ExpectedDigests.of(file)) as part:
        part.add_source(file.urls[0], len(data), '"etag"')
        part.append(data[: len(data) // 2])


def _write(name: str, data: bytes) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def copy(world: Path, target: Path, names: Sequence[str], changed: Collection[str]) -> None:
    """Give an input its own copy of some entries.

    Files are linked, which is faster, but for small ones of the entries that a verb may change.
    """
    for name in names:
        source = world / name
        copy_file = _copy_small if name in changed else _link
        if source.is_dir():
            shutil.copytree(source, target / name, copy_function=copy_file)
        else:
            copy_file(str(source), str(target / name))


def _copy_small(source: str, target: str) -> str:
    is_large = Path(source).stat().st_size >= LINKED_FROM
    return _link(source, target) if is_large else shutil.copy2(source, target)


def _link(source: str, target: str) -> str:
    os.link(source, target)
    return target
