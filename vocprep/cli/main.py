"""The ``vocprep`` command and its error boundary."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import click

from vocprep.cli.commands import Commands, list_commands
from vocprep.cli.printing import AS_JSON, print_json_error
from vocprep.errors import DataError, VocprepError
from vocprep.program import BUG, stop_code, was_stopped

PROGRAM = "vocprep"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)


class _ErrorBoundary(click.Group):
    """Turns the errors that users can meet into one sentence and an exit code.

    With ``--json`` they are JSON on standard output too, unless the command has printed its result.
    Errors that nobody foresaw are raised on: ``vocprep.program`` reports them.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[AS_JSON] = "--json" in args
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        list_commands(ctx, formatter)

    def invoke(self, ctx: click.Context) -> None:
        try:
            with _warnings_as_notes():
                super().invoke(ctx)
            return
        except (click.exceptions.Exit, BrokenPipeError):
            raise
        except click.ClickException as error:
            print_json_error(error.format_message(), error.exit_code)
            raise
        except (Exception, KeyboardInterrupt) as error:
            text, code = _outcome(error, ctx)
        click.echo(text, err=True)
        print_json_error(text.removeprefix("error: "), code)
        ctx.exit(code)


def _outcome(error: BaseException, ctx: click.Context) -> tuple[str, int]:
    """Return what is printed of an error, and its exit code; raises it where nobody foresaw it."""
    from vocprep.validation import printable

    if isinstance(error, KeyboardInterrupt) or was_stopped():  # libraries replace an interruption
        advice = str(error) if isinstance(error, KeyboardInterrupt) else ""
        return advice or "interrupted", stop_code()
    found = _as_known(error, ctx)
    if found is None:
        print_json_error(printable(f"{type(error).__name__}: {error}"), BUG)
        raise error
    lines = str(found).split("\n") if found.is_list else [str(found)]
    return "error: " + "\n".join(map(printable, lines)), found.exit_code


def _as_known(error: BaseException, ctx: click.Context) -> VocprepError | None:
    """Return an error that a user can meet as one of vocprep, None for any other."""
    from vocprep.memory import as_memory_error
    from vocprep.validation import explain

    shortage = as_memory_error(error, _what_to_lower(ctx))
    if shortage is not None or isinstance(error, VocprepError):
        return shortage or cast("VocprepError", error)
    if not isinstance(error, OSError):
        return None
    return DataError(
        f"{error.filename or 'input or output'}: {explain(error)}{_advice_on_files(error)}"
    )


def _advice_on_files(error: OSError) -> str:
    """Return the end of a message on a file that the system refused; empty where none is known."""
    from vocprep.files.writing import disk_advice

    if error.errno in _NO_ROOM:
        return f"; {disk_advice(error)} and run the same command again: finished work is kept"
    if error.errno not in _NO_PERMISSION or not isinstance(error.filename, str):
        return ""
    path = Path(error.filename)
    if os.path.lexists(path):
        readable = os.access(path, os.R_OK)
        return f"; {disk_advice(error) if readable else 'make it readable'}, or choose another"
    return f"; make the folder {path.parent} writable, or choose another"


def _what_to_lower(ctx: click.Context) -> str:
    """Return what can be lowered where memory runs out: those of the options that a command has."""
    command = main.commands.get(ctx.invoked_subcommand or "")
    names = {option.name for option in command.params} if command else set()
    options = [words for name, words in _TAKE_MEMORY.items() if name in names]
    return f"use {' or '.join(options) or 'smaller inputs'}, or free memory"


_TAKE_MEMORY = {
    "batch_size": "a smaller --batch-size",
    "mode": "--mode streaming",
    "workers": "fewer --workers",
    "samples_per_shard": "fewer --samples-per-shard",
}


def run(words: Sequence[str]) -> int:
    """Run a command in this process and return its exit code."""
    if "_VOCPREP_COMPLETE" in os.environ:  # asked by a shell
        main(list(words), prog_name=PROGRAM)
    try:
        with main.make_context(PROGRAM, list(words)) as context:
            main.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return 0


@contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Print warnings about a user's manifests as notes, all others as Python does."""
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        from vocprep.manifest_paths import ManifestPathWarning

        if issubclass(category, ManifestPathWarning):
            click.echo(f"note: {message}", err=True)
        else:
            before(message, category, *where, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


@click.group(
    cls=_ErrorBoundary,
    commands=cast("MutableMapping[str, click.Command]", Commands()),
    context_settings={"max_content_width": 100},
)
@click.version_option(package_name="vocprep")
def main() -> None:
    """Pascal VOC and Pascal Context as frozen embeddings and per-patch targets, in shards.

    \b
    The way of the data:
      sample | download -> decode -> build-shards -> train -> evaluate, predict
    """
