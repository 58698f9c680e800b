"""Programs started inside a network, and how one waits for what they say."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from topo.errors import MeasurementError
from topo.network import Network

PYTHON = (sys.executable, "-m")
"""How a module of this project is run."""
_END_OF_OUTPUT = None


class Service:
    """A program in a host, its standard output read line by line by a thread, its errors in a log file."""

    def __init__(
        self, network: Network, host: str, argv: Sequence[str], log: Path, merge: bool = False
    ) -> None:
        """Start it. `merge`: what it writes to standard error counts as output (dumpcap speaks there)."""
        self.name = (
            f"{Path(argv[0]).name} at {host}" if argv[0] != PYTHON[0] else f"{argv[2]} at {host}"
        )
        self._network = network
        self._log = log
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        with log.open("w") as errors:
            self._process = network.popen(host, argv, subprocess.STDOUT if merge else errors)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(_END_OF_OUTPUT)

    @property
    def pid(self) -> int:
        """The program's process."""
        return self._process.pid

    def wait_for(self, word: str, timeout_s: float) -> str:
        """Wait for a line that begins with `word` and return it; the lines before it are passed over.

        Raises `MeasurementError` with the program's last words where it ends or stays silent instead.
        """
        end = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise MeasurementError(
                    f"{self.name} has not said {word} within {timeout_s:g} s: {self.last_words()}"
                ) from None
            if line is _END_OF_OUTPUT:
                self._lines.put(_END_OF_OUTPUT)
                raise MeasurementError(f"{self.name} ended before {word}: {self.last_words()}")
            if line.startswith(word):
                return line

    def lines_until_exit(self, timeout_s: float, on_line: Callable[[str], None]) -> int:
        """Hand every further line to `on_line`, wait for the program's end and return its exit status."""
        end = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise MeasurementError(
                    f"{self.name} is still running after {timeout_s:g} s"
                ) from None
            if line is _END_OF_OUTPUT:
                return self._network.end(self._process)
            on_line(line)

    def end(self) -> int:
        """End it with SIGTERM and return its exit status."""
        status = self._network.end(self._process)
        self._reader.join()
        return status

    def finish(self) -> None:
        """End it; raise `MeasurementError` with its last words unless it ends with status 0."""
        status = self.end()
        if status != 0:
            raise MeasurementError(f"{self.name} ended with status {status}: {self.last_words()}")

    def last_words(self) -> str:
        """The last line of the program's log."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"nothing on standard error ({self._log})"
