"""croissant.json: a dataset version described for other tools (MLCommons Croissant 1.0, JSON-LD).

It names the shards with their digests and describes samples.jsonl as records that Croissant's own
loader reads. The image ids are not among the fields: that loader reads 2008_000002 as a number.
It holds no date: the same version has the same bytes whenever it is built.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from vocprep.building.plan import BuildPlan
from vocprep.shards.index import DatasetIndex, FileEntry
from vocprep.shards.samples import SAMPLES_FILE

CROISSANT_FILE = "croissant.json"
_MIME_TYPES = {".h5": "application/x-hdf5", ".tar": "application/x-tar"}
_COLUMNS = {
    "split": ("sc:Text", "Split that the record belongs to."),
    "shard": ("sc:Text", "Name of the file that holds the record."),
    "row": ("sc:Integer", "Place of the record in its shard, from 0."),
    "image_sha256": ("sc:Text", "Digest of the picture's file."),
    "label_sha256": ("sc:Text", "Digest of the label map's file."),
    "targets_sha256": ("sc:Text", "Digest of top-4 targets and label map."),
    "embeddings_sha256": ("sc:Text", "Digest of the embeddings."),
    "record_sha256": ("sc:Text", "Digest of the whole record."),
}
_SCHEMA_ORG = "https://schema.org/"
_CROISSANT = "http://mlcommons.org/croissant/"
_TERMS = (
    *("citeAs", "column", "extract", "field", "fileProperty", "fileObject", "fileSet", "format"),
    *("includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet"),
    *("references", "regex", "repeated", "replace", "samplingRate", "separator", "source"),
    *("subField", "transform", "equivalentProperty"),
)


def croissant(index: DatasetIndex, samples: FileEntry, plan: BuildPlan) -> Iterator[bytes]:
    """Yield croissant.json, piece by piece, of a version with this samples.jsonl."""
    recipe = index.recipe
    shards = ", ".join(recipe.splits)
    description = (
        f"Frozen {recipe.backbone} embeddings ({recipe.precision}, {recipe.embedding_dtype}) and "
        f"top-4 targets of 32×32 patches under the label space {recipe.schema.name}: dataset "
        f"{recipe.dataset}, splits {shards}; weights {index.weights}; made by vocprep as "
        f"{index.short_id}."
    )
    if index.quarantined:
        description += f" {index.quarantined:,} pictures are missing: see quarantine.jsonl."
    cited = recipe.described_backbone.citation
    homepages = [source.homepage for source in plan.sources if source.homepage]
    value: dict[str, Any] = {
        "@context": _context(),
        "@type": "sc:Dataset",
        "conformsTo": f"{_CROISSANT}1.0",
        "name": f"{recipe.dataset}-{recipe.short_name}",
        "description": description,
        "identifier": f"urn:sha256:{index.content_id}",
        "url": homepages[0] if homepages else f"urn:sha256:{index.content_id}",
        "version": f"1.0.0+{index.content_id[:12]}",
        "license": [source.terms for source in plan.sources] or ["The terms of its pictures."],
        "citeAs": f"{cited}; see the card for the pictures and labels.",
        "distribution": [
            _file(samples, "application/jsonlines"),
            *(_file(shard, _MIME_TYPES[_suffix(shard.name)]) for shard in index.shards),
        ],
        "recordSet": [_record_set()],
    }
    for piece in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(value):
        yield piece.encode()
    yield b"\n"


def _suffix(name: str) -> str:
    return "." + name.rpartition(".")[2]


def _context() -> dict[str, Any]:
    """Return what the terms mean: schema.org's vocabulary and Croissant's own."""
    return {
        "@language": "en",
        "@vocab": _SCHEMA_ORG,
        "sc": _SCHEMA_ORG,
        "cr": _CROISSANT,
        "rai": f"{_CROISSANT}RAI/",
        "dct": "http://purl.org/dc/terms/",
        "conformsTo": "dct:conformsTo",
        "data": {"@id": "cr:data", "@type": "@json"},
        "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
        "examples": {"@id": "cr:examples", "@type": "@json"},
        **{term: f"cr:{term}" for term in _TERMS},
    }


def _file(entry: FileEntry, mime_type: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": entry.name,
        "name": entry.name,
        "contentUrl": entry.name,
        "contentSize": f"{entry.bytes} B",
        "encodingFormat": mime_type,
        "sha256": entry.sha256,
    }


def _record_set() -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "samples",
        "name": "samples",
        "description": "A record a line: where it is and what proves it.",
        "key": {"@id": "samples/record_sha256"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"samples/{name}",
                "name": name,
                "description": description,
                "dataType": kind,
                "source": {
                    "fileObject": {"@id": SAMPLES_FILE},
                    "extract": {"column": name},
                },
            }
            for name, (kind, description) in _COLUMNS.items()
        ],
    }
