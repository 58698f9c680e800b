"""Programs started inside a network, and how one waits for what they say.

Two kinds: other people's programs, started as Mininet starts them, and this project's own processes, forked from a
server that has imported them already. Starting Python and importing the libraries takes seconds in a guest kernel,
a fork a tenth of one.
"""

from __future__ import annotations

import ctypes
import importlib
import multiprocessing
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, Protocol

from topo.errors import MeasurementError
from topo.namespaces import CLONE_NEWNET
from topo.network import Network

OWN_MODULES = ("topo.links.waiter", "kms.server", "gateways.gateway", "experiments.prober")
"""The modules whose `main` runs in a host; the fork server imports them once."""
END_GRACE_S = 5.0
"""How long a process may take to end after SIGTERM, seconds."""

_forks = multiprocessing.get_context("forkserver")


class _Process(Protocol):
    """What a service needs of its process, however it was started."""

    pid: int

    def end(self) -> int:
        """End it, forcefully where SIGTERM does not do, and return its exit status."""


class Service:
    """A running program: its standard output is read line by line by a thread, its errors are in a log file."""

    def __init__(self, name: str, process: _Process, output: int, log: Path) -> None:
        self.name, self.pid = name, process.pid
        self._process, self._log = process, log
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._last_line = ""
        self._reader = threading.Thread(target=self._read, args=(output,), daemon=True)
        self._reader.start()

    def _read(self, output: int) -> None:
        with os.fdopen(output, errors="replace") as stream:
            for line in stream:
                self._last_line = line.rstrip("\n")
                self._lines.put(self._last_line)
        self._lines.put(None)

    def _next(self, end_s: float, otherwise: str) -> str | None:
        """The next line, None at the end of the output; `MeasurementError` when time is up."""
        try:
            return self._lines.get(timeout=max(0.0, end_s - time.monotonic()))
        except queue.Empty:
            raise MeasurementError(f"{self.name} {otherwise}: {self.last_words()}") from None

    def wait_for(self, word: str, timeout_s: float) -> str:
        """Wait for a line that begins with `word` and return it; the lines before it are passed over.

        Raises `MeasurementError` with the program's last words where it ends or stays silent instead.
        """
        end_s = time.monotonic() + timeout_s
        while True:
            line = self._next(end_s, f"has not said {word} within {timeout_s:g} s")
            if line is None:
                raise MeasurementError(f"{self.name} ended before {word}: {self.last_words()}")
            if line.startswith(word):
                return line

    def lines_until_exit(self, timeout_s: float, on_line: Callable[[str], None]) -> int:
        """Hand every further line to `on_line`, wait for the program's end and return its exit status."""
        end_s = time.monotonic() + timeout_s
        while (line := self._next(end_s, f"still runs after {timeout_s:g} s")) is not None:
            on_line(line)
        return self.end()

    def end(self) -> int:
        """End it with SIGTERM and return its exit status."""
        status = self._process.end()
        self._reader.join()
        return status

    def finish(self) -> None:
        """End it; raise `MeasurementError` with its last words unless it ends with status 0."""
        status = self.end()
        if status != 0:
            raise MeasurementError(f"{self.name} ended with status {status}: {self.last_words()}")

    def last_words(self) -> str:
        """The last line of the program's log, or of its output where the log is empty."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else self._last_line or f"nothing said ({self._log})"


# -- other people's programs ---------------------------------------------------------------------


class _Foreign:
    """A program started the way Mininet starts one."""

    def __init__(self, network: Network, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self._network, self._process = network, process

    def end(self) -> int:
        return self._network.end(self._process)


def start_program(
    network: Network, host: str, argv: Sequence[str], log: Path, *, merge: bool = False
) -> Service:
    """Start a program in a host. `merge`: what it writes to standard error counts as output (dumpcap speaks there)."""
    with log.open("w") as errors:
        process = network.popen(host, argv, subprocess.STDOUT if merge else errors)
    assert process.stdout is not None
    output = os.dup(process.stdout.fileno())
    process.stdout.close()
    return Service(f"{argv[0]} at {host}", _Foreign(network, process), output, log)


# -- this project's own processes ----------------------------------------------------------------


class _Fork:
    """A process forked from the server."""

    def __init__(self, process: Any) -> None:
        self.pid: int = process.pid
        self._process = process

    def end(self) -> int:
        if self._process.exitcode is None:
            self._process.terminate()
            self._process.join(END_GRACE_S)
        if self._process.exitcode is None:
            self._process.kill()
        self._process.join()
        return int(self._process.exitcode)


def prepare_forks(*also: str) -> None:
    """Say what the fork server is to import; it starts with the first service.

    `also` names what the main program imports: every fork runs through the main program's top level once more.
    """
    _forks.set_forkserver_preload([*also, *OWN_MODULES])


def start_module(network: Network, host: str, module: str, config: Path, log: Path) -> Service:
    """Run `module.main([config])` in a host, as a process of its own."""
    output, their_output = os.pipe()
    with log.open("w") as errors:
        process = _forks.Process(
            target=_run_in_namespace,
            args=(
                network.host(host).pid,
                module,
                str(config),
                DupFd(their_output),
                DupFd(errors.fileno()),
            ),
            name=f"{module} at {host}",
            daemon=True,
        )
        process.start()
    os.close(their_output)
    return Service(f"{module} at {host}", _Fork(process), output, log)


def _run_in_namespace(pid: int, module: str, config: str, output: Any, errors: Any) -> None:
    """The life of a forked process: enter the host's namespace, take the streams, run."""
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "setns")
    os.close(namespace)
    for stream, number in ((output, 1), (errors, 2)):
        taken = stream.detach()
        os.dup2(taken, number)
        os.close(taken)
    sys.exit(importlib.import_module(module).main([config]))
