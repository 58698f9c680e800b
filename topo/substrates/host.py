"""The `host` substrate: this machine's own kernel. Needs root, `sch_netem`, TUN and veth; the clock is real."""

from __future__ import annotations

import math
import os
import queue
import signal
import subprocess
import threading
import time
from pathlib import Path

from topo.errors import FeatureMissing, GuestFailed
from topo.substrates import features
from topo.substrates.job import Clock, Job, OnLine, SubstrateName

END_GRACE_S = 30.0
"""How long a job may take to take its network down, seconds."""


class HostSubstrate:
    """Runs jobs as processes of this machine."""

    name: SubstrateName = "host"

    def check(self, clock: Clock) -> None:
        """Raise `FeatureMissing` unless this kernel can carry the network in this clock."""
        if clock == "virtual" and not already_virtual():
            raise FeatureMissing(
                "a virtual clock on this kernel",
                "Only the `uml` substrate has one; take `--substrate uml` or `--clock real`.",
            )
        features.require(features.probe())

    def run(self, job: Job, on_line: OnLine) -> int:
        """Run the job as a child process; see `Substrate.run`."""
        log = job.folder / "guest" / "stderr"
        log.parent.mkdir(parents=True, exist_ok=True)
        with (
            log.open("w") as stderr,
            subprocess.Popen(
                job.argv, stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True
            ) as process,
        ):
            try:
                _follow(process, job, log, on_line)
            finally:
                _end(process)
        return process.returncode


def _follow(process: subprocess.Popen[str], job: Job, log: Path, on_line: OnLine) -> None:
    """Hand on the job's output until it ends; `GuestFailed` where it outlives a limit."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(process, lines), daemon=True).start()
    end_s = time.monotonic() + job.time_limit_s
    # On a virtual clock silence means nothing: waiting is free, and while anything hangs the clock stands still.
    silence_s = math.inf if already_virtual() else job.silence_limit_s
    while True:
        left_s = end_s - time.monotonic()
        try:
            line = lines.get(timeout=max(0.0, min(left_s, silence_s)))
        except queue.Empty:
            if left_s <= silence_s:
                reason = f"the job outlived its limit of {job.time_limit_s:.0f} s"
            else:
                reason = f"the job was silent for {silence_s:.0f} s: it hangs"
            raise GuestFailed(reason, log) from None
        if line is None:
            process.wait(max(1.0, end_s - time.monotonic()))
            return
        on_line(line)


def _read(process: subprocess.Popen[str], lines: queue.SimpleQueue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line.rstrip("\n"))
    lines.put(None)


def _end(process: subprocess.Popen[str]) -> None:
    """End the job: its own handler of SIGTERM takes the network down; what is left after a while is killed."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(END_GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def already_virtual() -> bool:
    """Whether this kernel is itself a User Mode Linux guest whose clock is virtual."""
    return "time-travel" in Path("/proc/cmdline").read_text()
