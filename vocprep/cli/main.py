"""The ``vocprep`` command and its error boundary."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from vocprep.cli.build import build_shards
from vocprep.cli.common import INTERRUPTED
from vocprep.cli.demo import demo
from vocprep.cli.diff import diff
from vocprep.cli.download import download
from vocprep.cli.evaluate import evaluate
from vocprep.cli.inspect import inspect
from vocprep.cli.predict import predict
from vocprep.cli.sources import decode, sample
from vocprep.cli.train import train
from vocprep.cli.verify import verify
from vocprep.errors import DataError, VocprepError
from vocprep.manifest_paths import ManifestPathWarning

BROKEN_PIPE = 141
"""What shells expect of a program whose output was closed by its reader."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _ErrorBoundary(click.Group):
    """Turns the errors that users can meet into one sentence and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _warnings_as_notes():
                return super().invoke(ctx)
        except VocprepError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            # The reader has closed the output; nothing more can be flushed to it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(BROKEN_PIPE)
        except OSError as error:
            advice = ""
            if error.errno in _NO_ROOM:
                advice = "; make room and run the same command again: finished work is kept"
            where = error.filename or "input or output"
            click.echo(f"error: {where}: {error.strerror}{advice}", err=True)
            ctx.exit(DataError.exit_code)


@contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Print warnings about a user's manifests as notes, all others as Python does."""
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, ManifestPathWarning):
            click.echo(f"note: {message}", err=True)
        else:
            before(message, category, *where, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


@click.group(cls=_ErrorBoundary, context_settings={"max_content_width": 100})
@click.version_option(package_name="vocprep")
def main() -> None:
    """Pascal VOC and Pascal Context as frozen embeddings and per-patch targets, in shards.

    \b
    The way of the data:
      sample | download -> decode -> build-shards -> train -> evaluate, predict
    """


for _command in (
    *(demo, sample, download, verify, decode),
    *(build_shards, inspect, diff, train, evaluate, predict),
):
    main.add_command(_command)
