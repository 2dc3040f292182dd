"""``python -m vocprep``, and the command ``vocprep``."""

from vocprep.program import main

if __name__ == "__main__":
    main()
