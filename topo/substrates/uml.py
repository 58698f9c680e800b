"""The `uml` substrate: a User Mode Linux process on this machine's own root file system.

Needs no root, no KVM and no container. With `time-travel=inf-cpu` the guest's clock jumps to the next timer as soon
as all its processes sleep: delays are exact to the microsecond and take no wall time, and computation takes no
virtual time.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from topo.errors import GuestFailed
from topo.substrates.job import Clock, Job, OnLine, SubstrateName, check_guest_path
from topo.substrates.kernel import find_kernel

POLL_S = 0.05
"""How often the guest's output file is looked at, seconds."""
INIT = Path(__file__).parent / "guest-init.sh"


class UmlSubstrate:
    """Runs each job in a guest kernel of its own."""

    name: SubstrateName = "uml"

    def check(self, clock: Clock) -> None:
        """Raise `FeatureMissing` unless the guest kernel has been built."""
        find_kernel()

    def run(self, job: Job, on_line: OnLine) -> int:
        """Boot a guest for the job; see `Substrate.run`."""
        kernel = find_kernel()
        guest = _prepare(job)
        with tempfile.TemporaryDirectory(prefix="qntn-uml-") as scratch:
            command = boot_command(kernel, job, guest / "init", Path(scratch))
            with (
                (guest / "console").open("w") as console,
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                ) as process,
            ):
                try:
                    _follow(process, job, guest, on_line)
                finally:
                    _end(process)
        return _exit_status(guest)

    def run_interactive(self, job: Job) -> int:
        """Boot a guest whose console is this terminal, for a prompt; returns the job's exit status."""
        kernel = find_kernel()
        guest = _prepare(job)
        with tempfile.TemporaryDirectory(prefix="qntn-uml-") as scratch:
            command = boot_command(kernel, job, guest / "init", Path(scratch), interactive=True)
            with subprocess.Popen(
                command
            ) as process:  # of this session: the terminal is its console
                try:
                    process.wait()
                finally:
                    if process.poll() is None:
                        process.terminate()
        return _exit_status(guest)


def boot_command(
    kernel: Path, job: Job, init: Path, scratch: Path, interactive: bool = False
) -> list[str]:
    """The command line that boots the guest for a job; `scratch` takes User Mode Linux's own small files."""
    clock = []
    if job.clock == "virtual":
        start = job.start_unix_ns if job.start_unix_ns is not None else time.time_ns()
        clock = ["time-travel=inf-cpu", f"time-travel-start={start}"]
    return [
        # Should this program be killed outright, the guest goes with it.
        *("setpriv", "--pdeathsig", "KILL"),
        str(kernel),
        f"mem={job.memory_mb}M",
        *clock,
        "rootfstype=hostfs",
        "rootflags=/",
        "ro",
        f"init={init}",
        f"uml_dir={scratch}",
        "con=null",
        "con0=fd:0,fd:1" if interactive else "con0=null,fd:1",
        "quiet",
        "norandmaps",
        "panic=-1",
        f"QNTN_DIR={job.folder}",
        f"QNTN_INTERACTIVE={int(interactive)}",
    ]


def _prepare(job: Job) -> Path:
    """Write what the guest's first process needs into the run folder."""
    check_guest_path(job.folder)
    guest = job.folder / "guest"
    shutil.rmtree(guest, ignore_errors=True)
    guest.mkdir(parents=True)
    shutil.copy(INIT, guest / "init")
    (guest / "init").chmod(0o755)
    for stream in ("stdout", "stderr"):
        (guest / stream).touch()
    # The same locale, time zone and search path inside as outside; PYTHONDONTWRITEBYTECODE since the root is read-only.
    passed = {k: v for k, v in os.environ.items() if k in ("LANG", "LC_ALL", "TZ", "PATH")}
    passed |= {
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "QNTN_SUBSTRATE": "uml",
        "QNTN_CLOCK": job.clock,
    }
    exports = "".join(f"export {k}={shlex.quote(v)}\n" for k, v in passed.items())
    script = f"{exports}cd {shlex.quote(str(Path.cwd()))}\nexec {shlex.join(job.argv)}\n"
    (guest / "job.sh").write_text(script)
    return guest


def _follow(process: subprocess.Popen[bytes], job: Job, guest: Path, on_line: OnLine) -> None:
    """Hand on the guest's output until the guest ends; end it where it hangs."""
    begin = last_heard = time.monotonic()
    console = guest / "console"
    with (guest / "stdout").open("rb") as stream:
        lines = _lines(stream)
        running = True
        while running:
            running = process.poll() is None
            for line in lines:
                if line is None:
                    break
                last_heard = time.monotonic()
                on_line(line)
            now = time.monotonic()
            if running and now - begin > job.time_limit_s:
                raise GuestFailed(
                    f"the guest outlived its limit of {job.time_limit_s:.0f} s", console
                )
            if running and now - last_heard > job.silence_limit_s:
                raise GuestFailed(
                    f"the guest was silent for {job.silence_limit_s:.0f} s: it hangs", console
                )
            if running:
                time.sleep(POLL_S)


def _lines(stream: BinaryIO) -> Iterator[str | None]:
    """Whole lines of a growing file, which may end amid a character; None whenever there is no whole line yet."""
    rest = b""
    while True:
        rest += stream.read()
        *whole, rest = rest.split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)
        yield None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the guest: the whole group of processes that User Mode Linux made of it."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _exit_status(guest: Path) -> int:
    status = guest / "exit"
    if not status.exists():
        console = guest / "console"
        tail = [line for line in console.read_text(errors="replace").splitlines() if line.strip()]
        panic = next((line for line in tail if "anic" in line), None)
        reason = panic or (tail[-1] if tail else "no word on the console")
        raise GuestFailed(f"the guest kernel ended before its job did: {reason.strip()}", console)
    return int(status.read_text())
