"""``python -m vocprep``, and the command ``vocprep``."""

try:
    from vocprep.program import main
except KeyboardInterrupt:  # before signals are handled
    raise SystemExit(130) from None

if __name__ == "__main__":
    main()
