"""The running program ``vocprep``: its signals, its streams and the end of it.

Loads nothing but what Python itself has loaded, so that signals are handled from the first moment.

A signal ends the work as an exception, so that files are cleaned up and bars closed; not in the
middle of an import, where other libraries lose it. The process ends at once, after its temporary
files, where the exception is lost all the same, as in a finaliser, where a library computes on, and
after a second signal.
"""

from __future__ import annotations

import codecs
import io
import os
import select
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, NoReturn

INTERRUPTED = 130
"""Exit code after Ctrl-C; after another signal 128 and its number, as shells expect it."""
BROKEN_PIPE = 141
"""Exit code when the reader of the output has closed it, as shells expect it."""
FAILED = 3
"""Exit code when the system refused something: no room for the output, no memory."""
BUG = 70
"""Exit code of an error that vocprep did not foresee (``EX_SOFTWARE`` of sysexits.h)."""
DEBUG_VARIABLE = "VOCPREP_DEBUG"
GRACE = 10.0
"""Seconds for cleaning up after a signal."""
_PAUSE = 0.02
"""Seconds after which an interruption that came in an import is tried again."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SIGNS = {"≥": ">=", "≤": "<=", "…": "...", "×": "x", "−": "-", "·": ".", "→": "->"}
"""ASCII in the place of signs that an encoding lacks; others become question marks."""

_state: dict[str, Any] = {"signal": None, "works": False}
"""The first signal that was received, and whether there is work for an exception to end."""


def main() -> None:
    """Run the command line in this process and end it with the command's exit code."""
    try:
        _open_descriptors()
        _handle_signals()
        _set_up_streams()
        code = _run()
        _state["works"] = False
    except KeyboardInterrupt:
        _state["works"] = False
        code = stop_code()
    code = _flush(code)
    if was_stopped():
        leave(stop_code())  # not waiting for threads that still compute
    sys.exit(code)


def was_stopped() -> bool:
    """Return whether a signal to end was received, whatever exception came of it."""
    return _state["signal"] is not None


def stop_code() -> int:
    """Return the exit code of the signal that was received, that of Ctrl-C where there was none."""
    return 128 + int(_state["signal"] or signal.SIGINT)


def end_after_interrupt() -> None:
    """End the process with exit code 0 after Ctrl-C, where that is how a command is ended.

    At once, not waiting for threads that still compute.
    """
    if _state["signal"] == signal.SIGINT:
        leave(_flush(0))


def leave(code: int) -> NoReturn:
    """End the process at once, after removing its temporary files."""
    files = sys.modules.get("vocprep.files.writing")
    if files is not None:
        files.remove_unfinished()
    os._exit(code)


def _run() -> int:
    """Return the exit code of the command; what no other place handles is an error of vocprep."""
    try:
        from vocprep.cli.main import run  # noqa: PLC0415  # takes long, under handled signals

        _state["works"] = True
        return run(sys.argv[1:])
    except KeyboardInterrupt:
        return stop_code()
    except BrokenPipeError:
        return BROKEN_PIPE
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:  # Rust libraries panic with one that is no Exception
        return stop_code() if was_stopped() else _report(error)


def _report(error: BaseException) -> int:
    """Print an error that the command line did not handle, and return its exit code."""
    if isinstance(error, OSError):  # of the output, such as a full disk's
        return _print_error(f"{error.filename or 'standard output'}: {error.strerror}", FAILED)
    try:
        from vocprep.memory import as_memory_error  # noqa: PLC0415  # seldom needed

        shortage = as_memory_error(error, "free memory")
    except Exception:  # for want of memory too
        shortage = None
    if shortage is not None:
        return _print_error(str(shortage), FAILED)
    if os.environ.get(DEBUG_VARIABLE):
        import traceback  # noqa: PLC0415  # seldom needed

        traceback.print_exception(error)
    reason = " ".join(str(error).split())[:500]
    return _print_error(
        f"a fault in vocprep itself, {type(error).__name__}: {reason}; please report it, with the "
        f"traceback that {DEBUG_VARIABLE}=1 shows",
        BUG,
    )


def _print_error(text: str, code: int) -> int:
    sys.stderr.write(f"error: {text}\n")
    return code


# Signals


def _handle_signals() -> None:
    """Turn signals into exceptions, those that the parent has not told to ignore."""
    handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    for number in (*handled, signal.SIGALRM):
        signal.signal(number, _on_signal)
    sys.unraisablehook = _on_lost_exception
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(readable,), daemon=True).start()


def _on_signal(number: int, frame: FrameType | None) -> None:
    is_again = number == signal.SIGALRM
    if is_again != was_stopped():
        return  # a second signal, after which _watch ends the process
    if not is_again:
        _state["signal"] = number
    if not _state["works"]:
        leave(stop_code())
    if _imports(frame):
        signal.setitimer(signal.ITIMER_REAL, _PAUSE)  # tries again
    else:
        raise KeyboardInterrupt


def _imports(frame: FrameType | None) -> bool:
    """Return whether a module is being imported, where exceptions get lost in other libraries."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _on_lost_exception(lost: sys.UnraisableHookArgs) -> None:
    """End the process on an interruption that was raised where no exception can be handled."""
    if issubclass(lost.exc_type, KeyboardInterrupt) and was_stopped():
        leave(stop_code())
    sys.__unraisablehook__(lost)


def _watch(descriptor: int) -> None:
    """End the process after a second signal, or when one was given and nothing came of it.

    In a thread, so that a library that computes on does not keep the process.
    """
    number = _wait_for_signal(descriptor, None)
    _wait_for_signal(descriptor, GRACE)
    leave(128 + number)  # which the handler may not have been told yet


def _wait_for_signal(descriptor: int, seconds: float | None) -> int:
    """Return the next signal to end, 0 where none comes in time."""
    ends = None if seconds is None else time.monotonic() + seconds
    left = seconds
    while select.select([descriptor], [], [], left)[0]:
        (number,) = os.read(descriptor, 1)
        if number in _SIGNALS:
            return number
        left = None if ends is None else max(0.0, ends - time.monotonic())
    return 0


# Streams


def _open_descriptors() -> None:
    """Let standard streams that are closed lead nowhere: other files would take their places."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number


def _set_up_streams() -> None:
    """Make standard output and error writable in any encoding, and the latter without errors."""
    codecs.register(_find_codec)
    codecs.register_error(_HANDLER, _replace_signs)
    sys.stdin = sys.stdin or io.TextIOWrapper(io.FileIO(0, closefd=False))
    sys.stdout = _printable(sys.stdout or _reopened(1))
    errors = _printable(sys.stderr or _reopened(2))
    sys.stderr = _Diagnostics(
        errors.detach(), encoding=errors.encoding, errors=_HANDLER, line_buffering=True
    )


def _reopened(descriptor: int) -> io.TextIOWrapper:
    """Return the stream of a descriptor that was closed and now leads nowhere."""
    return io.TextIOWrapper(io.BufferedWriter(io.FileIO(descriptor, "w", closefd=False)))


def _printable(stream: Any) -> io.TextIOWrapper:
    """Make a stream replace what its encoding lacks."""
    is_ascii = codecs.lookup(stream.encoding).name == "ascii"
    stream.reconfigure(encoding=_ASCII if is_ascii else None, errors=_HANDLER)
    return stream  # type: ignore[no-any-return]  # Python's own


_HANDLER = "vocprep"
_ASCII = "printable_ascii"
"""Another name for ASCII: click writes UTF-8 where it finds a stream of that encoding."""


def _find_codec(name: str) -> codecs.CodecInfo | None:
    if name != _ASCII:
        return None
    ascii_codec = codecs.lookup("ascii")
    return codecs.CodecInfo(
        *ascii_codec,
        incrementalencoder=ascii_codec.incrementalencoder,
        incrementaldecoder=ascii_codec.incrementaldecoder,
        name=_ASCII,
    )


def _replace_signs(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(_SIGNS.get(sign, "?") for sign in signs), error.end


class _Diagnostics(io.TextIOWrapper):
    """Standard error: messages that cannot be written are lost, and the work goes on."""

    def write(self, text: str) -> int:
        """Write a text, if that is possible."""
        try:
            return super().write(text)
        except OSError:
            return self._give_up(text)

    def flush(self) -> None:
        """Flush what was written, if that is possible."""
        try:
            super().flush()
        except OSError:
            self._give_up("")

    def _give_up(self, text: str) -> int:
        discard_output(self.fileno())
        return len(text)


def discard_output(descriptor: int) -> None:
    """Let all further output of a descriptor go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _flush(code: int) -> int:
    """Write what is left of the output; the exit code is that of a failure where there is none."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = code or BROKEN_PIPE
        discard_output(1)
    except OSError as error:
        code = code or _print_error(f"standard output: {error.strerror}", FAILED)
        discard_output(1)
    sys.stderr.flush()
    return code
