"""The text of the manifests: ``dataset.toml`` and ``classes.toml``, with their open questions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

from vocprep.dataset_manifest import LABEL_SUFFIXES, DatasetManifest
from vocprep.errors import DataDirError
from vocprep.files.reading import parse_toml
from vocprep.labels.label_space_files import LabelSpaceManifest
from vocprep.open_questions import ANSWER, comment, question_lines
from vocprep.own_data.content.choices import Choices
from vocprep.own_data.description import Description
from vocprep.validation import explain

CLASSES_FILE = "classes.toml"
LISTS_FOLDER = "dataset-splits"
_ANY_ID = 65_534
"""Answer to a question, that no class has."""
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def dataset_text(described: Description) -> str:
    """Return the text of ``dataset.toml``."""
    found, choices, splits = described.found, described.choices, described.splits
    lines = [
        comment(f"Written by vocprep init: {found.layout}. Paths are below --data-dir."),
        *(comment(f"- {note}") for note in described.notes),
        _field("name", described.name),
        _field("title", described.name),
        _field("images", found.images),
        *([_field("image_suffixes", found.image_suffixes)] if found.image_suffixes else []),
        _field("labels", found.labels),
        _field("label_kind", choices.label_kind),
    ]
    if found.label_suffix != LABEL_SUFFIXES[choices.label_kind]:
        lines.append(_field("label_suffix", found.label_suffix))
    if described.rule.variable is not None:
        lines.append(_field("label_variable", described.rule.variable))
    if found.annotations:
        lines.append(_field("label_annotations", found.annotations))
    if splits.by == "files":
        lines.append(_field("split_files", splits.folder))
    lines.append(_field("splits", tuple(splits.members)))
    lines.append(_field("schemas", (CLASSES_FILE,)))
    if splits.by == "lists":
        lists = {split: f"{LISTS_FOLDER}/{split}.txt" for split in splits.members}
        lines += ["", "[split_lists]", *(_field(key, path) for key, path in lists.items())]
    if choices.label_colours:
        lines += ["", "[label_colours]", *_colour_lines(choices)]
    return "\n".join(lines) + "\n"


def _colour_lines(choices: Choices) -> Iterable[str]:
    for colour, key in choices.label_colours.items():
        if key is None:
            yield question_lines(choices.questions[colour], _text(colour))
        else:
            yield f"{_text(colour)} = {key}"


def classes_text(described: Description) -> str:
    """Return the text of ``classes.toml``."""
    choices = described.choices
    lines = [
        comment(f"Written by vocprep init. Names: {choices.names_note}."),
        _field("title", f"Classes of {described.name}"),
    ]
    if choices.void is None:
        lines.append(question_lines(choices.questions["void"], "void"))
    else:
        if choices.void_note:
            lines.append(comment(f"Void: {choices.void_note}."))
        lines.append(f"void = {choices.void}")
    lines += ["", "[names]", *(f"{key} = {_text(name)}" for key, name in choices.names.items())]
    if choices.colours:
        lines += ["", "[colours]", *_fields(choices.colours)]
    return "\n".join(lines) + "\n"


def check_texts(where: str, dataset: str, classes: str) -> None:
    """Raise DataDirError, with the data dir ``where``, for manifests that no reader would accept.

    Open questions are taken as answered.
    """
    for text, model in ((dataset, DatasetManifest), (classes, LabelSpaceManifest)):
        answered = text.replace(f"= {ANSWER}", f"= {_ANY_ID}")
        try:
            model.model_validate(parse_toml(answered))
        except ValueError as error:
            raise DataDirError(
                f"{where}: no manifest can describe it: {explain(error)}; rename what it names"
            ) from error


def split_text(image_ids: Sequence[str]) -> str:
    """Return the text of a split file."""
    return "".join(f"{image_id}\n" for image_id in image_ids)


def _fields(values: Mapping[int, str]) -> Iterable[str]:
    return (f"{key} = {_text(value)}" for key, value in sorted(values.items()))


def _field(key: str, value: str | tuple[str, ...]) -> str:
    shown = _text(value) if isinstance(value, str) else f"[{', '.join(map(_text, value))}]"
    return f"{key if _BARE_KEY.fullmatch(key) else _text(key)} = {shown}"


def _text(value: str) -> str:
    """Return a TOML string; JSON escapes the same characters but one."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
