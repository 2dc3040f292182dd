"""Folders of own data with one fault each: one right sentence, or the job is done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders.own_data import file_digests, write_plain_data
from click.testing import Result
from PIL import Image

pytestmark = pytest.mark.slow

Run = Callable[..., Result]
Job = Callable[..., tuple[Result, Result]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """images/a.jpg … f.jpg and masks/a.png … f.png, whose values are 0 to 3."""
    return write_plain_data(tmp_path / "pets")


@pytest.fixture
def build(tmp_path: Path, vocprep: Run) -> Job:
    """Call init on a folder and build-shards on what it wrote; return both results."""

    def call(data: Path, *init_words: object) -> tuple[Result, Result]:
        begun = vocprep("init", data, *(init_words or ("--void", "none")))
        done(begun)
        words = ["--data-dir", data, "--out", tmp_path / "shards", "--weights", "random:0"]
        return begun, vocprep("build-shards", data / "dataset.toml", *words, "--device", "cpu")

    return call


def done(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.output


def refused(result: Result, code: int = 3) -> str:
    """Return the sentence of a command that refuses."""
    assert result.exit_code == code, result.output
    lines = [line for line in result.stderr.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1, result.output
    return lines[0].removeprefix("error: ")


def ids(tmp_path: Path) -> list[str]:
    lines = (tmp_path / "shards" / "samples.jsonl").read_text().splitlines()
    return sorted(json.loads(line)["id"] for line in lines)


def go_on(tmp_path: Path, vocprep: Run, picture: Path) -> None:
    """Train on the shards and predict a picture."""
    run, words = tmp_path / "run", ["--weights", "random:0", "--device", "cpu"]
    done(vocprep("train", tmp_path / "shards", "--out", run, "--preset", "quick", "--epochs", 1))
    done(vocprep("predict", run, picture, "--out", tmp_path / "out", *words))
    assert (tmp_path / "out" / f"{picture.stem}.labels.png").is_file()


def notes(result: Result) -> list[str]:
    """The notes of an init but that on its only split."""
    lines = result.stdout.splitlines()
    found = [line.removeprefix("note: ") for line in lines if line.startswith("note: ")]
    return [note for note in found if not note.startswith("all pictures are split train: ")]


def colour(mask: Path) -> None:
    """Make an RGB mask of a grey one."""
    colours = np.array([(0, 0, 0), (200, 30, 30), (30, 200, 30), (30, 30, 200)], dtype=np.uint8)
    Image.fromarray(colours[np.asarray(Image.open(mask))]).save(mask)


def convert(path: Path, suffix: str) -> Path:
    """Write an image in another format instead."""
    Image.open(path).save(path.with_suffix(suffix))
    path.unlink()
    return path.with_suffix(suffix)


def test_rgb_masks_become_classes_by_their_colours(
    data: Path, tmp_path: Path, build: Job, vocprep: Run
) -> None:
    for mask in (data / "masks").iterdir():
        colour(mask)
    begun, built = build(data)
    assert "6 RGB PNG" in begun.stdout
    for shown in ("#000000", "#c81e1e", "#1ec81e", "#1e1ec8"):
        assert shown in begun.stdout
    done(built)
    names = json.loads((tmp_path / "shards" / "labels.json").read_text())
    assert len(names["names"]) == 4
    go_on(tmp_path, vocprep, data / "images" / "a.jpg")


def test_one_rgb_mask_among_grey_ones_is_refused(data: Path, vocprep: Run) -> None:
    colour(data / "masks" / "c.png")
    said = refused(vocprep("init", data))
    assert "c.png" in said
    assert not (data / "dataset.toml").exists()


def test_a_picture_without_a_mask_is_left_out(data: Path, tmp_path: Path, build: Job) -> None:
    (data / "masks" / "c.png").unlink()
    begun, built = build(data)
    assert notes(begun) == ["1 picture without a mask, left out: images/c.jpg"]
    done(built)
    assert ids(tmp_path) == list("abdef")


def test_a_mask_without_a_picture_is_passed_over(data: Path, tmp_path: Path, build: Job) -> None:
    (data / "images" / "c.jpg").unlink()
    begun, built = build(data)
    assert notes(begun) == ["1 mask without a picture: masks/c.png"]
    done(built)
    assert ids(tmp_path) == list("abdef")


def test_a_mask_of_another_size_is_named_by_both(data: Path, build: Job, vocprep: Run) -> None:
    mask = data / "masks" / "c.png"
    Image.open(mask).resize((40, 32), Image.Resampling.NEAREST).save(mask)
    begun, built = build(data)
    assert notes(begun) == [
        "1 mask has another size than the picture, which builds quarantine: c, mask 40×32, "
        "picture 80×64"
    ]
    said = refused(built, 5)
    assert "masks/c.png: label map of 40×32 pixels: expected 80×64 as its picture" in said
    assert "by nearest neighbour" in said
    more = ["--max-failures", 1, "--weights", "random:0", "--device", "cpu"]
    words = ["--data-dir", data, "--out", data.parent / "shards"]
    done(vocprep("build-shards", data / "dataset.toml", *words, *more))
    assert ids(data.parent) == list("abdef")


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".JPEG"])
def test_other_suffixes_of_jpeg_are_read(
    data: Path, tmp_path: Path, build: Job, suffix: str
) -> None:
    for picture in list((data / "images").iterdir()):
        picture.rename(picture.with_suffix(suffix))
    begun, built = build(data)
    assert notes(begun) == []
    done(built)
    assert ids(tmp_path) == list("abcdef")


def test_pictures_of_many_formats_are_read(
    data: Path, tmp_path: Path, build: Job, vocprep: Run
) -> None:
    for name, suffix in zip("bcde", (".png", ".webp", ".bmp", ".tif"), strict=True):
        convert(data / "images" / f"{name}.jpg", suffix)
    begun, built = build(data, "--split", "70/30", "--void", "none")
    assert "2 .jpg, 1 .bmp, 1 .png, 1 .tif, 1 .webp" in begun.stdout
    done(built)
    assert ids(tmp_path) == list("abcdef")
    go_on(tmp_path, vocprep, data / "images" / "c.webp")


@pytest.mark.parametrize("kind", [".tif", ".npy"])
def test_masks_of_other_formats_are_read(data: Path, tmp_path: Path, build: Job, kind: str) -> None:
    for mask in list((data / "masks").iterdir()):
        if kind == ".npy":
            np.save(mask.with_suffix(kind), np.asarray(Image.open(mask)).astype(np.int64))
            mask.unlink()
        else:
            convert(mask, kind)
    _, built = build(data)
    done(built)
    assert ids(tmp_path) == list("abcdef")


def test_a_picture_whose_name_says_another_format_is_refused(data: Path, build: Job) -> None:
    path = data / "images" / "c.jpg"
    Image.open(path).save(path, format="PNG")
    begun, built = build(data)
    sentence = (
        "images/c.jpg: a PNG picture, where a JPEG picture is expected; give its name the suffix "
        ".png, or convert it to JPEG"
    )
    assert notes(begun) == [f"1 file does not decode, which builds quarantine: {data}/{sentence}"]
    assert sentence in refused(built, 5)


def test_two_pictures_of_one_name_are_refused(data: Path, build: Job) -> None:
    picture = Image.open(data / "images" / "c.jpg")
    picture.save(data / "images" / "c.png")
    begun, built = build(data)
    assert notes(begun) == [
        "1 picture is there twice, which builds refuse: images/c.jpg and images/c.png; remove one "
        "of each"
    ]
    assert "image id c has the files c.jpg and c.png: expected one" in refused(built)


def test_names_may_be_unicode_and_in_folders(tmp_path: Path, build: Job, vocprep: Run) -> None:
    names = ("Straße/Küche 1.b", "東京/写真", "été (2)", "a b/c.d/e+f", "x", "y")
    data = write_plain_data(tmp_path / "Meine Bilder", names)
    begun, built = build(data, "--split", "70/30", "--void", "none")
    assert notes(begun) == []
    done(built)
    assert ids(tmp_path) == sorted(names)
    go_on(tmp_path, vocprep, data / "images" / f"{names[0]}.jpg")


def test_one_class_only_is_built_with_a_note(
    data: Path, tmp_path: Path, build: Job, vocprep: Run
) -> None:
    for mask in (data / "masks").iterdir():
        Image.fromarray(np.ones((64, 80), dtype=np.uint8)).save(mask)
    _, built = build(data)
    done(built)
    assert "note: label maps hold one class only in label space classes: found 1 " in built.stderr
    go_on(tmp_path, vocprep, data / "images" / "a.jpg")


def test_masks_of_black_and_white_are_a_question(
    data: Path, tmp_path: Path, vocprep: Run, build: Job
) -> None:
    for mask in (data / "masks").iterdir():
        Image.fromarray(np.where(np.asarray(Image.open(mask)) > 1, 255, 0).astype(np.uint8)).save(
            mask
        )
    said = done(vocprep("init", data, "--dry-run"))
    assert "is white the second class, or void?" in said
    assert "none in these masks" not in said
    words = ["--data-dir", data, "--out", tmp_path / "shards", "--weights", "random:0"]
    done(vocprep("init", data))
    said = refused(vocprep("build-shards", data / "dataset.toml", *words), 3)
    assert "dataset.toml: line " in said
    assert '"#ffffff" is not answered: ' in said
    _, built = build(data, "--void", "none")
    done(built)
    assert ids(tmp_path) == list("abcdef")


@pytest.mark.parametrize("is_named_png", [False, True])
def test_masks_as_jpeg_are_refused(data: Path, vocprep: Run, is_named_png: bool) -> None:
    for mask in list((data / "masks").iterdir()):
        if is_named_png:
            Image.open(mask).save(mask, format="JPEG")
        else:
            convert(mask, ".jpg")
    said = refused(vocprep("init", data))
    assert f"{data}/masks/a.{'png' if is_named_png else 'jpg'}: " in said
    assert "JPEG" in said
    assert said.endswith(("as PNG",))


def test_one_mask_as_jpeg_under_the_name_of_a_png_is_named(data: Path, build: Job) -> None:
    mask = data / "masks" / "c.png"
    Image.open(mask).save(mask, format="JPEG")
    begun, built = build(data)
    (note,) = notes(begun)
    assert note.startswith("1 file does not decode, which builds quarantine: ")
    assert "masks/c.png: a JPEG picture, where a PNG label map is expected" in refused(built, 5)


def test_names_that_do_not_fit_are_shown(data: Path, vocprep: Run) -> None:
    for number, mask in enumerate(sorted((data / "masks").iterdir())):
        mask.rename(mask.with_name(f"m{number}.png"))
    said = refused(vocprep("init", data))
    assert "no mask has the name of a picture: images/a.jpg, but masks/m0.png" in said


def test_masks_with_an_ending_are_found(data: Path, tmp_path: Path, build: Job) -> None:
    for mask in list((data / "masks").iterdir()):
        mask.rename(mask.with_name(f"{mask.stem}_mask.png"))
    _, built = build(data)
    done(built)
    assert ids(tmp_path) == list("abcdef")


@pytest.mark.parametrize(
    ("what", "found"),
    [
        ("nothing", "found no file"),
        ("no masks", "found pictures, but no masks, in images"),
        ("no pictures", "found pictures in masks"),
        ("no folder", "expected a folder of pictures and masks, found nothing"),
    ],
)
def test_folders_without_pictures_or_masks_are_refused(
    data: Path, vocprep: Run, what: str, found: str
) -> None:
    gone = {"nothing": ["images", "masks"], "no masks": ["masks"], "no pictures": ["images"]}
    for name in gone.get(what, ["."]):
        shutil.rmtree(data / name)
    assert refused(vocprep("init", data)).endswith(found)


def test_no_file_of_the_user_is_changed(data: Path, vocprep: Run) -> None:
    (data / "classes.toml").write_text("mine")
    before = file_digests(data)
    assert "classes.toml: is there already" in refused(vocprep("init", data), 2)
    assert file_digests(data) == before
