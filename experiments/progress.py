"""Progress of a run: who is told what, the run's `log.txt`, and what the program inside a substrate says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from topo.errors import InputError, MeasurementError
from topo.scenario import Scenario


class Reporter(Protocol):
    """Where progress goes: the terminal, a log, nowhere."""

    def stage(self, name: str, total: float | None = None) -> None:
        """A new stage begins; `total` is what `advance` counts up to (1 where it is not given)."""

    def advance(self, done: float, detail: str = "") -> None:
        """So much of the stage is done."""

    def note(self, text: str) -> None:
        """Something worth a line."""


class Log:
    """A reporter that hands everything on to another one and keeps stages and notes in a file."""

    def __init__(self, path: Path, reporter: Reporter) -> None:
        self._path, self._reporter = path, reporter

    def stage(self, name: str, total: float | None = None) -> None:
        self._write(name)
        self._reporter.stage(name, total)

    def advance(self, done: float, detail: str = "") -> None:
        self._reporter.advance(done, detail)

    def note(self, text: str) -> None:
        self.keep(text)
        self._reporter.note(text)

    def keep(self, text: str) -> None:
        """Write a line to the file alone."""
        self._write(f"  {text}")

    def _write(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


@dataclass
class Listener:
    """Hears the events of `experiments.inside` and tells a reporter."""

    scenario: Scenario
    reporter: Reporter
    _error: tuple[str, int] | None = None

    def hear(self, line: str) -> None:
        """Take one line of the program's output."""
        match _event(line):
            case {"event": "arm", "arm": arm, "probes": probes}:
                title = getattr(self.scenario.arms.get(arm), "title", "the noise floor")
                self.reporter.stage(f"{arm}: {title}", probes)
            case {"event": "probe", "seq": seq, "rtt": rtt}:
                self.reporter.advance(seq + 1, rtt if rtt == "lost" else f"{rtt} ms")
            case {"event": "note", "text": text}:
                self.reporter.note(text)
            case {"event": "error", "message": message, "exit_code": code}:
                self._error = (message, code)
            case None:
                self.reporter.note(line)

    def raise_error(self) -> None:
        """Raise the error that ended the program inside, if it said one, with its exit code."""
        if self._error is not None:
            message, code = self._error
            raise (InputError if code == InputError.exit_code else MeasurementError)(message)


def _event(line: str) -> dict[str, Any] | None:
    """The event that a line is; None for anything else that a program inside may print."""
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return None
    return event if isinstance(event, dict) and "event" in event else None
