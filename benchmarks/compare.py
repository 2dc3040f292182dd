"""Features on disk by other means: ``datasets.map`` and a file per picture beside `build-shards`.

The same pictures through the same network with the same weights, in fp32: (a) ``datasets.map`` with
batches of two pictures, over a list of files or over the folder as ``imagefolder`` has it; (b) a
loop that writes one HDF5 file per picture and skips those that are there, as TRIDENT does; (c) and
(d) `vocprep build-shards` in fp32 and in exact arithmetic. All of them keep 49 x 256 numbers in
float16 and masks of each patch; the versions of vocprep keep label maps and an index besides.

The second table is of few pictures: each way is run again after a label map was changed, after a
picture was changed, and after a bit of its output was flipped, and its output is read. Then a run
of its own is stopped after half of the pictures and run again.

Run: python benchmarks/compare.py [--images 1200] [--noticing 8], where the extra ``export`` is
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from _compare_ways import WORK, Way, all_ways, noticing_ways
from _pictures import Pictures, make_pictures
from _report import Cell, Column, Report, Table, command_line
from PIL import Image

from vocprep.storage.places import Place, local_path

SPEEDS = (
    Column("name", ""),
    Column("seconds", "s", ".1f"),
    Column("images_per_s", "images/s", ".1f"),
    Column("of_map", "of (a)", ".2f"),
    Column("megabytes", "MB", ".1f"),
    Column("files", "files", ",d"),
    Column("again_seconds", "again, s", ".2f"),
)
NOTICED = (
    Column("name", ""),
    Column("label", "label map"),
    Column("picture", "picture"),
    Column("bit", "flipped bit"),
    Column("made_again", "made for a label map", ".0f"),
    Column("kept", "kept when stopped", ".0f"),
    Column("pictures", "of", ".0f"),
)


def main() -> None:
    """Measure and print the tables."""
    parser = command_line(__doc__)
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--noticing", type=int, default=8, help="pictures of the second table")
    parser.add_argument("--ways", default="abcd", help="letters of the first table's rows")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = make_pictures(arguments.images, folder / "data")
        report = Report(
            "compare",
            {"images": arguments.images, "noticing": arguments.noticing},
            f"on cpu; {pictures.title}, weights {Path(pictures.weights).name}",
            ("datasets", "pyarrow", "h5py", "pillow", "simplejpeg"),
        )
        ways = [way for way in all_ways() if way.title[1] in arguments.ways]
        report.add(Table("", SPEEDS, speeds(ways, pictures, folder)))
        few = make_pictures(arguments.noticing, folder / "few")
        again = noticing_ways(samples_per_shard=max(1, arguments.noticing // 4))
        rows = [noticed(way, few, folder / f"noticed{n}") for n, way in enumerate(again)]
        report.add(Table("noticed by a second run", NOTICED, rows))
        report.write(arguments.json)


def speeds(ways: list[Way], pictures: Pictures, folder: Path) -> list[dict[str, Cell]]:
    """Return a row for each way: all pictures from nothing, then the same command again."""
    images, rows = len(pictures.samples()), []
    for number, way in enumerate(ways):
        out = folder / f"speed{number}"
        seconds = taken(way, pictures, out)
        sizes = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
        row: dict[str, Cell] = {
            "name": way.title,
            "seconds": seconds,
            "images_per_s": images / seconds,
            "megabytes": sum(sizes) / 1e6,
            "files": len(sizes),
            "again_seconds": taken(way, pictures, out),
        }
        rows.append(row)
        row["of_map"] = images / seconds / float(rows[0]["images_per_s"] or 0)
    return rows


def taken(way: Way, pictures: Pictures, out: Path) -> float:
    """Return the seconds of one run."""
    started = time.perf_counter()
    way.run(pictures, out)
    return time.perf_counter() - started


def noticed(way: Way, pictures: Pictures, out: Path) -> dict[str, Cell]:
    """Return what a second run does about changes of what it was made of, and of its output."""
    sample = pictures.samples()[1]
    way.run(pictures, out)

    def follows(place: Place) -> tuple[str, int]:
        before = way.read(out, sample.image_id)
        mirror(local_path(place))
        made = way.run(pictures, out)
        return ("yes" if way.read(out, sample.image_id).differs(before) else "no"), made

    label, made_again = follows(sample.label_path)
    picture, _ = follows(sample.image_path)
    return {
        "name": way.title,
        "label": label,
        "picture": picture,
        "bit": after_flip(way, pictures, out, sample.image_id),
        "made_again": made_again,
        "kept": kept(way, pictures, out.with_name(f"{out.name}-stopped")),
        "pictures": float(len(pictures.samples())),
    }


def mirror(path: Path) -> None:
    """Replace a picture or label map by its mirror image."""
    with Image.open(path) as image:
        changed = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    path.unlink()
    changed.save(path)


def after_flip(way: Way, pictures: Pictures, out: Path, image_id: str) -> str:
    """Flip a bit of a stored feature, as a failing disk does; return who notices it."""
    before = way.read(out, image_id)
    flip(way.file_of(out, image_id), before.features[0].tobytes())
    try:
        read = "given out" if way.read(out, image_id).differs(before) else "not read"
    except Exception:  # whatever the library raises: it has noticed
        read = "refused"
    way.run(pictures, out)
    mended = not way.read(out, image_id).differs(before)
    return f"{read}, {'mended' if mended else 'kept'}"


def flip(path: Path, row: bytes) -> None:
    """Flip one bit of the file where it holds ``row``; its times stay as they were."""
    times, held = path.stat(), bytearray(path.read_bytes())
    held[held.index(row) + len(row) // 2] ^= 1
    path.write_bytes(held)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def kept(way: Way, pictures: Pictures, out: Path) -> float:
    """Stop a run with Ctrl-C after half of the pictures; return how many need not be made again."""
    images = len(pictures.samples())
    WORK.made, WORK.stop_after = 0, images // 2 + 1
    with suppress(KeyboardInterrupt):
        way.run(pictures, out)
    WORK.stop_after = None
    return float(images - way.run(pictures, out))


if __name__ == "__main__":
    main()
