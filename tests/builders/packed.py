"""A tiny source packed as the official archives are, and manifests that point at a mirror."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping

from vocprep.manifests import ExpectedFiles, SourceFile, SourceManifest, Unpack

IMAGES = {f"VOCdevkit/VOC2010/JPEGImages/2008_{i:06d}.jpg": b"jpeg %d" % i for i in range(1, 6)}
LABELS = {f"trainval/2008_{i:06d}.mat": b"mat %d" % i for i in range(1, 4)}
NAMES = b"1: accordion\n2: aeroplane\n"


def tar_of(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


FILES = {
    "VOCtrainval.tar": tar_of(IMAGES),
    "trainval.tar.gz": gzip.compress(tar_of(LABELS), mtime=0),
    "labels.txt": NAMES,
}


def digests(data: bytes) -> dict[str, str]:
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "sha1": hashlib.sha1(data).hexdigest(),
        "md5": hashlib.md5(data).hexdigest(),
    }


def voc(url: str) -> SourceManifest:
    """Images, with every digest published."""
    data = FILES["VOCtrainval.tar"]
    expect = ExpectedFiles(folder="VOCdevkit/VOC2010/JPEGImages", suffix=".jpg", count=len(IMAGES))
    file = SourceFile(
        path="downloads/VOCtrainval.tar",
        urls=(url + "VOCtrainval.tar",),
        bytes=len(data),
        **digests(data),
        unpack=Unpack(max_bytes=1 << 20, expect=(expect,)),
    )
    return SourceManifest(name="voc2010", title="Images", terms="none", files=(file,))


def context(url: str) -> SourceManifest:
    """Labels, with no sha256 published for the archive."""
    data = FILES["trainval.tar.gz"]
    archive = SourceFile(
        path="downloads/trainval.tar.gz",
        urls=(url + "trainval.tar.gz",),
        md5=hashlib.md5(data).hexdigest(),
        unpack=Unpack(max_bytes=1 << 20),
    )
    names = SourceFile(path="labels.txt", urls=(url + "labels.txt",), **digests(NAMES))
    return SourceManifest(
        name="pascal-context", title="Labels", terms="none", files=(archive, names)
    )
