"""The command line: parse, build options, one library call, print."""

from vocprep.cli.main import main

__all__ = ["main"]
