"""``--to fiftyone``: the folder that FiftyOne imports as ``fiftyone.types.FiftyOneDataset``.

The files are those of the library's own exporter, so that ids, splits, class names, colours and
embeddings arrive with the pictures; it need not be installed to write them. ``metadata.json``
describes the data set and its fields, ``samples.json`` has a document per picture, in the JSON of
BSON.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocprep.drawing.palette import hex_of
from vocprep.drawing.png import png_bytes
from vocprep.exporting.pictures import Picture, Pictures, write_file, write_json_lists
from vocprep.exporting.version_source import VersionSource
from vocprep.files.ids import image_id_of, view_suffix
from vocprep.files.writing import canonical_json, write_json
from vocprep.labels.label_space import LabelSpace

FORMAT_VERSION = "1.1.0"
"""Release of FiftyOne whose documents these are: it and newer ones read them."""
LABELS = "ground_truth"
"""Field of the label maps, as FiftyOne calls them."""


def write_fiftyone(source: VersionSource, folder: Path) -> None:
    """Write ``metadata.json`` and ``samples.json``, and of each picture two PNG.

    They are ``data/SPLIT/ID.png`` and its label map, ``fields/ground_truth/SPLIT/ID.png``.
    """
    pictures = Pictures(source)
    write = partial(_write_picture, folder, source)
    samples = (
        canonical_json(sample) for split in source.splits for sample in pictures.map(split, write)
    )
    write_json_lists(folder / "samples.json", {}, {"samples": samples})
    write_json(folder / "metadata.json", _metadata(source))


def _write_picture(folder: Path, source: VersionSource, picture: Picture) -> dict[str, Any]:
    """Write the files of a picture, and return its document."""
    record, space = picture.record, source.label_space
    photograph = f"data/{record.split}/{picture.file_name}"
    label_map = f"fields/{LABELS}/{record.split}/{picture.file_name}"
    write_file(folder / label_map, _mask(picture, space))
    if picture.photograph is not None:
        write_file(folder / photograph, png_bytes(picture.photograph))
    height, width = picture.label_map.shape
    key = f"{source.dataset.index.content_id}\0{record.image_id}"
    labels = [label for label in np.unique(picture.label_map).tolist() if label != space.void]
    return {
        "_id": _object_id(key),
        "_rand": _object_number(key),
        "_media_type": "image",
        "filepath": photograph,
        "tags": [record.split],
        "metadata": {"_cls": "ImageMetadata", "width": width, "height": height, "num_channels": 3},
        "record_id": record.image_id,
        "image_id": image_id_of(record.image_id),
        "view": view_suffix(record.image_id).removeprefix("#") or "identity",
        "classes": [space.class_name(label) for label in labels],
        "embedding": _vector(record.embeddings.mean(axis=0, dtype=np.float32)),
        LABELS: {
            "_id": _object_id(f"{key}\0{LABELS}"),
            "_cls": "Segmentation",
            "tags": [],
            "mask_path": label_map,
        },
    }


def _mask(picture: Picture, space: LabelSpace) -> bytes:
    """Return the label map as a PNG of 8 bits where all ids of the label space have no more."""
    if max(space.void, *space.names) < 256:
        return png_bytes(picture.label_map.astype(np.uint8))
    return picture.record.label_png


def _object_id(key: str) -> dict[str, str]:
    """Return an id as MongoDB has them, the same whenever this record is exported."""
    return {"$oid": hashlib.sha256(key.encode()).hexdigest()[:24]}


def _object_number(key: str) -> float:
    """Return the number from 0 to 1 by which FiftyOne draws samples at random."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[-4:]) / (1 << 32)


def _vector(numbers: NDArray[np.float32]) -> dict[str, Any]:
    """Return numbers [D] as FiftyOne stores arrays: a file of numpy within zlib."""
    stream = io.BytesIO()
    np.save(stream, numbers.astype("<f4"))
    packed = zlib.compress(stream.getvalue(), 0)  # of the same bytes in every release of zlib
    return {"$binary": {"base64": base64.b64encode(packed).decode(), "subType": "00"}}


def _metadata(source: VersionSource) -> dict[str, Any]:
    """Return the document of the data set; FiftyOne gives it its own name and dates."""
    index, space = source.dataset.index, source.label_space
    targets = {str(label): name for label, name in sorted(space.names.items())}
    targets[str(space.void)] = space.class_name(space.void)
    return {
        "name": f"{index.recipe.dataset}-{index.short_id}",
        "version": FORMAT_VERSION,
        "media_type": "image",
        "tags": [],
        "info": dict(source.about),
        "default_classes": [name for _, name in sorted(space.names.items())],
        "default_mask_targets": targets,
        "app_config": {"color_scheme": _colour_scheme(space)},
        "sample_fields": _SAMPLE_FIELDS,
        "frame_fields": [],
    }


def _colour_scheme(space: LabelSpace) -> dict[str, Any]:
    """Return the colours of classes, by which FiftyOne draws label maps."""
    colours = [
        {"intTarget": label, "color": hex_of(space.style.colour(label))}
        for label in sorted(space.names)
    ]
    return {"color_by": "value", "default_mask_targets_colors": colours}


def _field(name: str, kind: str, **more: Any) -> dict[str, Any]:
    """Return the description of a field, whose kind is one of ``fiftyone.core.fields``."""
    described: dict[str, Any] = {
        **{"name": name, "ftype": f"fiftyone.core.fields.{kind}"},
        **{"embedded_doc_type": None, "subfield": None, "fields": []},
        "db_field": "_id" if name == "id" else name,
    }
    return {**described, **more}


def _document(name: str, kind: str, fields: Mapping[str, str]) -> dict[str, Any]:
    """Return the description of a field that holds documents of a kind of ``fiftyone.core``."""
    inner = [_field(key, value) for key, value in fields.items()]
    return _field(
        name, "EmbeddedDocumentField", embedded_doc_type=f"fiftyone.core.{kind}", fields=inner
    )


_TEXTS = {"subfield": "fiftyone.core.fields.StringField"}
_SAMPLE_FIELDS = [
    _field("id", "ObjectIdField"),
    _field("filepath", "StringField"),
    _field("tags", "ListField", **_TEXTS),
    _document(
        "metadata",
        "metadata.ImageMetadata",
        {
            "size_bytes": "IntField",
            "mime_type": "StringField",
            "width": "IntField",
            "height": "IntField",
            "num_channels": "IntField",
        },
    ),
    _field("_media_type", "StringField"),
    _field("_rand", "FloatField"),
    _field("_dataset_id", "ObjectIdField"),
    _field("created_at", "DateTimeField", read_only=True),
    _field("last_modified_at", "DateTimeField", read_only=True),
    _field("record_id", "StringField"),
    _field("image_id", "StringField"),
    _field("view", "StringField"),
    _field("classes", "ListField", **_TEXTS),
    _field("embedding", "VectorField"),
    _document(
        LABELS,
        "labels.Segmentation",
        {
            "id": "ObjectIdField",
            "mask": "ArrayField",
            "mask_path": "StringField",
        },
    ),
]
