"""`qntn` inside the process of a test."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from experiments import cli


class Said(NamedTuple):
    """What a command left on the terminal."""

    code: int
    out: str
    err: str


Qntn = Callable[..., Said]


def command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> Qntn:
    """What runs `qntn WORDS ARGUMENTS` in the current folder; the signals' handlers are put back."""

    def run(*arguments: object) -> Said:
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
        monkeypatch.setattr(sys, "argv", ["qntn", *words, *map(str, arguments)])
        try:
            with pytest.raises(SystemExit) as exited:
                cli.main()
                sys.exit(0)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return Said(int(exited.value.code or 0), *capsys.readouterr())

    return run
