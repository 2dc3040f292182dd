"""Progress bars: on a terminal only, for what takes long, and lines above them."""

from __future__ import annotations

import io
import threading
import time
from contextlib import redirect_stderr

import pytest

from vocprep.cli import bars as bars_module
from vocprep.cli.bars import Bars, print_above_bar


class _Terminal(io.StringIO):
    """A stderr that is a terminal; ``seen`` waits for what is drawn there."""

    def __init__(self) -> None:
        super().__init__()
        self._written = threading.Condition()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._written:
            self._written.notify_all()
            return super().write(text)

    def seen(self, text: str) -> bool:
        ends = time.monotonic() + 20
        with self._written:
            while text not in self.getvalue():
                if not self._written.wait(max(0.0, ends - time.monotonic())):
                    return False
        return True

    def screen(self) -> list[str]:
        """The lines as they stand at the end: a carriage return goes back, spaces delete."""
        return [line.split("\r")[-1].rstrip() for line in self.getvalue().split("\n")]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> _Terminal:
    """What stderr is redirected to; bars show at once."""
    monkeypatch.setattr(bars_module, "DELAY", 0.0)
    monkeypatch.setattr(bars_module, "_REDRAW", 0.01)
    return _Terminal()


def test_a_bar_moves_and_leaves_nothing(terminal: _Terminal) -> None:
    with redirect_stderr(terminal):
        bars = Bars(" images")
        bars.begin("images", 40, 10)
        assert terminal.seen("images:  25%")
        bars.advance(20)
        assert terminal.seen("30/40")
        bars.expect(60)
        assert terminal.seen("30/60")
        bars.advance(-10)
        assert terminal.seen("20/60")
        bars.end()
        assert terminal.screen() == [""]
        assert not any(thread.name == "progress-bar" for thread in threading.enumerate())


def test_bytes_are_written_as_people_read_them(terminal: _Terminal) -> None:
    with redirect_stderr(terminal):
        bars = Bars()
        bars.begin("file.tar", None, 0)
        bars.expect(2_000_000)
        bars.advance(500_000)
        assert terminal.seen("500k/2.00M")
        bars.end()


def test_it_moves_while_one_unit_takes_long(terminal: _Terminal) -> None:
    with redirect_stderr(terminal):
        bars = Bars("")
        bars.begin("epoch 1 of 3", 8, 0)
        assert terminal.seen("0/8 [00:00<")
        assert terminal.seen("0/8 [00:01<")  # nobody has advanced it
        bars.end()


def test_lines_stand_above_the_bar(terminal: _Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    with redirect_stderr(terminal):
        bars = Bars("")
        bars.begin("epoch 2 of 3", 8, 1)
        assert terminal.seen("1/8")
        bars.note("a note")
        print_above_bar("epoch 1 of 3  loss 2.000")
        bars.end()
        assert terminal.screen() == ["a note", ""]
        assert capsys.readouterr().out == "epoch 1 of 3  loss 2.000\n"


def test_short_tasks_show_no_bar(terminal: _Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    with redirect_stderr(terminal):
        monkeypatch.setattr(bars_module, "DELAY", 60.0)
        bars = Bars(" steps")
        for epoch in range(1, 61):
            bars.begin(f"epoch {epoch} of 60", 2, 0)
            bars.advance(2)
            bars.end()
        assert terminal.getvalue() == ""


def test_without_a_terminal_there_are_notes_only(capsys: pytest.CaptureFixture[str]) -> None:
    bars = Bars(" steps")
    bars.begin("epoch 1 of 1", 2, 0)
    bars.advance(2)
    bars.note("a note")
    bars.end()
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "a note\n")


def test_a_terminal_that_is_closed_ends_the_bar_alone(
    terminal: _Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redirect_stderr(terminal):

        def closed(_text: str) -> int:
            raise OSError(5, "Input/output error")

        bars = Bars("")
        monkeypatch.setattr(terminal, "write", closed)
        bars.begin("epoch 1 of 1", 2, 0)
        bars.advance(1)
        bars.end()
