"""The card of an exported dataset, for people: how it is loaded, what it holds, on which terms."""

from __future__ import annotations

from collections.abc import Mapping

from vocprep.building.description.card import stated_terms
from vocprep.exporting.options import Rows
from vocprep.exporting.parquet import Written
from vocprep.exporting.version_source import VersionSource

CARD_FILE = "README.md"
_ROWS: Mapping[Rows, str] = {
    "pictures": "A row is a picture in one view, with lists over its P = ny·nx patches, row-major.",
    "patches": "A row is a patch of a picture in one view.",
}
_READING: Mapping[Rows, str] = {
    "pictures": """\
row = dataset["{split}"][0]
embeddings = np.array(row["embeddings"], dtype=np.{dtype})  # [P, {size}]
slot_labels = np.array(row["slot_labels"], dtype=np.int16)  # [P, 4]
slot_planes = np.frombuffer(row["slot_planes"], np.uint8).reshape(-1, 3, 128)  # [P, 3, 128]
label_map = np.array(row["label_map"])  # uint16 [32·ny, 32·nx]
""",
    "patches": """\
rows = dataset["{split}"].select_columns(["embedding", "label"]).with_format("arrow")[:1000]
embeddings = np.stack(rows["embedding"].to_numpy())  # {dtype} [rows, {size}]
labels = rows["label"].fill_null(-1).to_numpy()  # of the class that covers most; -1 for void
""",
}
"""Code that reads some rows of a loaded dataset."""
_SLOTS = "the four classes that cover most of a patch, −1 for none, and their pixels"
_PLANES = (
    "three bit planes of the state of each of 1,024 pixels: 0 to 3 its slot, 4 another class, "
    "5 void; `numpy.unpackbits` order"
)
_NAMED = "their names are in the features and in `labels.json`"
_SHARED = {"`record_id`, `image_id`, `view`, `split`": "the picture and its view"}
_COLUMNS: Mapping[Rows, Mapping[str, str]] = {
    "pictures": {
        **_SHARED,
        "`ny`, `nx`": "the patch grid",
        "`embeddings`": "a list of numbers per patch",
        "`slot_labels`, `slot_pixels`": _SLOTS,
        "`label_count`": "how many classes each patch has",
        "`slot_planes`": f"uint8 [P, 3, 128]: {_PLANES}",
        "`labels`, `label_pixels`, `class_names`": "the classes of the label map by falling area; "
        + _NAMED,
        "`void_pixels`": "pixels of the label map without a class",
        "`label_map`": "a class id per pixel, an image of 16 bits",
        "`image_sha256`, `label_sha256`": "digests of the files that it was made of",
    },
    "patches": {
        **_SHARED,
        "`patch`, `patch_row`, `patch_column`": "its place in the patch grid, row-major",
        "`embedding`": "a list of numbers",
        "`slot_labels`, `slot_pixels`": _SLOTS,
        "`label_count`": "how many classes it has",
        "`slot_planes`": f"uint8 [3, 128]: {_PLANES}",
        "`label`, `class_name`": f"the class that covers most of it, null for void; {_NAMED}",
        "`label_map`": "a class id per pixel, uint16 [32, 32], little-endian",
    },
}


def card_text(source: VersionSource, written: Mapping[str, Written]) -> str:
    """Return the card as Markdown, without its front matter."""
    index, rows = source.dataset.index, source.options.rows
    recipe = index.recipe
    reading = _READING[rows].format(
        split=next(iter(written)), dtype=recipe.embedding_dtype, size=source.embedding_size
    )
    counts = {name: f"{each.rows:,}" for name, each in written.items()}
    sections = (
        f"# {recipe.dataset}: {index.short_id}",
        f"Embeddings of {recipe.backbone} (frozen, {recipe.precision}, stored as "
        f"{recipe.embedding_dtype}; weights: {index.weights})\n"
        f"and top-4 targets for each 32×32 patch, under the label space `{recipe.schema.name}`, "
        f"void {source.label_space.void}.\n{_ROWS[rows]}\n"
        f"Exported from the dataset version `{index.content_id}` (content_id).",
        "```python\nimport numpy as np\nfrom datasets import load_dataset\n\n"
        f'dataset = load_dataset("path/to/this/folder")\n\n{reading}```',
        _table("split", "rows", counts) + _missing(index.quarantined),
        "## Columns",
        _table("column", "content", _COLUMNS[rows]),
        "## Terms of use",
        f"{stated_terms(source.dataset)}\n",
    )
    return "\n\n".join(sections)


def _missing(quarantined: int) -> str:
    if not quarantined:
        return ""
    return f"\n\n**Missing pictures: {quarantined:,}.** No record could be made of them."


def _table(left: str, right: str, rows: Mapping[str, str]) -> str:
    lines = [(left, right), ("---", "---"), *rows.items()]
    return "\n".join(f"| {a} | {b} |" for a, b in lines)
