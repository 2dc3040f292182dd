"""The ``vocprep`` command and its error boundary."""

from __future__ import annotations

from typing import Any

import click

from vocprep.cli.build import build_shards
from vocprep.cli.common import INTERRUPTED
from vocprep.cli.demo import demo
from vocprep.cli.diff import diff
from vocprep.cli.download import download
from vocprep.cli.evaluate import evaluate, predict
from vocprep.cli.inspect import inspect
from vocprep.cli.sources import decode, sample
from vocprep.cli.train import train
from vocprep.cli.verify import verify
from vocprep.errors import DataError, VocprepError


class _ErrorBoundary(click.Group):
    """Turns the errors that users can meet into one sentence and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except VocprepError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            raise
        except OSError as error:
            click.echo(f"error: {error.filename or 'input or output'}: {error.strerror}", err=True)
            ctx.exit(DataError.exit_code)


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
