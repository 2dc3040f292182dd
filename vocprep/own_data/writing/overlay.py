"""The overlay sheet: three pictures with their masks over them, by the manifests' own rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from vocprep.drawing.labelled import LabelledImage, labelled_sheet
from vocprep.drawing.palette import ClassStyle, rgb_of
from vocprep.drawing.png import png_bytes
from vocprep.errors import DataError
from vocprep.features.image import decode_picture, read_image_file
from vocprep.labels.decode import read_label_file
from vocprep.own_data.content.choices import Choices
from vocprep.own_data.content.rules import NOT_ANSWERED
from vocprep.own_data.description import Description

PICTURES = 3


def draw_overlay(described: Description) -> bytes | None:
    """Return a PNG of pictures spread over the dataset; None where none of them decodes."""
    image_ids, choices = described.pairs.image_ids, described.choices
    places = np.linspace(0, len(image_ids) - 1, min(PICTURES, len(image_ids))).round().astype(int)
    items = [_item(described, image_ids[int(place)]) for place in places]
    style = _style(choices)
    sheets = [labelled_sheet(item, style) for item in items if item is not None]
    return png_bytes(_stacked(sheets)) if sheets else None


def _style(choices: Choices) -> ClassStyle:
    void = NOT_ANSWERED if choices.void is None else choices.void
    names: Mapping[int, str] = choices.names
    given = {key: rgb_of(colour) for key, colour in choices.colours.items()}

    def name(key: int) -> str:
        return "void" if key == void else names.get(key, f"class {key}")

    return ClassStyle.of(names, void, name, given)


def _item(described: Description, image_id: str) -> LabelledImage | None:
    """Return a picture with its mask; None for what does not decode or fit."""
    picture = described.root / described.pairs.pictures[image_id]
    mask = described.root / described.pairs.masks[image_id]
    try:
        image = decode_picture(read_image_file(picture), str(picture))
        ids = described.rule.decode(read_label_file(mask), mask)
    except DataError:
        return None
    if image.shape[:2] != ids.shape:
        return None
    return LabelledImage(name=image_id, image=image, truth=ids)


def _stacked(sheets: Sequence[Image.Image]) -> Image.Image:
    """Return sheets one below the other."""
    width, height = max(s.width for s in sheets), sum(s.height for s in sheets)
    stacked = Image.new("RGB", (width, height), "white")
    top = 0
    for sheet in sheets:
        stacked.paste(sheet, (0, top))
        top += sheet.height
    return stacked
