"""``python -m vocprep``."""

from vocprep.cli import main

main(prog_name="vocprep")
