"""The commands of ``vocprep``: which there are, and each when it is needed.

A command's module is loaded when the command is called or its own help asked for, so that none of
them waits for what another needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import cast

import click

SENTENCES: Mapping[str, str] = {
    "demo": "Do the whole main job on generated data: offline, in minutes, no arguments needed.",
    "sample": (
        "Generate a small data dir in the official layout, to try and test everything offline."
    ),
    "init": "Recognise your own pictures and masks, and write the manifests that builds need.",
    "download": "Fetch, verify and unpack what datasets need.",
    "verify": "Check a data dir or a dataset version, and name every file that is not as expected.",
    "decode": "Write a dataset's label maps as 16-bit PNG, and print statistics of the classes.",
    "build-shards": "Build a dataset version: embeddings and targets of every image, in shards.",
    "inspect": "Print what a dataset version is and holds: its identities, recipe, splits, shards.",
    "diff": "Print what differs between two dataset versions, from A to B, and by which cause.",
    "push": "Publish a finished dataset version at the URL of an object store.",
    "pull": "Fetch the dataset version at the URL of an object store into a folder.",
    "train": (
        "Train the TFDet heads on a dataset version, in a folder or at a URL of an object store."
    ),
    "evaluate": "Score runs on a split, beside oracles and chance; several runs in one table.",
    "audit": "List the pictures whose labels are likely wrong, worst first.",
    "predict": (
        "Label new images: NAME.overlay.png with a legend, NAME.labels.png with 16-bit class ids."
    ),
    "report": (
        "Write a page about a dataset version, or about runs, as one HTML file to send or to print."
    ),
    "view": "Look at dataset versions and runs in the browser, until Ctrl-C.",
    "export": "Write a dataset version or a run in the files of another library.",
}
"""By command, in the order of the way of the data: the first sentence of its help."""
_MODULES = {
    "sample": "sources",
    "decode": "sources",
    "build-shards": "build",
    "push": "transfer",
    "pull": "transfer",
}
"""Of ``vocprep.cli``: those of commands that do not have one of their own name."""


class Commands(Mapping[str, click.Command]):
    """The commands by name, each loaded when it is asked for."""

    def __getitem__(self, name: str) -> click.Command:
        if name not in SENTENCES:
            raise KeyError(name)
        module = import_module(f"{__package__}.{_MODULES.get(name, name)}")
        return cast("click.Command", getattr(module, name.replace("-", "_")))

    def __iter__(self) -> Iterator[str]:
        return iter(SENTENCES)

    def __len__(self) -> int:
        return len(SENTENCES)


def list_commands(context: click.Context, formatter: click.HelpFormatter) -> None:
    """Write the list of commands as click does, without loading them."""
    named = {name: click.Command(name, help=text) for name, text in SENTENCES.items()}
    click.Group(commands=named).format_commands(context, formatter)
