"""What may be wrong with a file; its name is added where it is known."""


class FormatError(Exception):
    """A defect of a file, without the file's name."""


class UnreadError(FormatError):
    """A sound file of a kind that is not read; the message says what to do instead."""
