"""A ``classes.toml`` that its user has edited, which is kept where it still fits the masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vocprep.errors import VocprepError
from vocprep.labels.label_space import load_label_space
from vocprep.own_data.content.choices import Choices
from vocprep.own_data.writing.files import is_edited
from vocprep.own_data.writing.texts import CLASSES_FILE


def kept_classes(out: Path, choices: Choices) -> Choices | None:
    """Return choices with the names of an edited ``classes.toml``, and with its answer on void.

    None where there is none, or where its void or its ids are not those chosen.
    """
    if not is_edited(out, CLASSES_FILE):
        return None
    try:
        space = load_label_space(out / CLASSES_FILE)
    except VocprepError:  # with open questions, or no label space
        return None
    void = space.void if choices.void is None else choices.void
    if space.void != void or space.names.keys() != choices.names.keys() - {void}:
        return None
    return replace(
        choices,
        names=space.names,
        void=void,
        void_note=choices.void_note or f"as {CLASSES_FILE} has it",
        questions={key: text for key, text in choices.questions.items() if key != "void"},
    )
