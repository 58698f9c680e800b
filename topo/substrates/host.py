"""The `host` substrate: this machine's own kernel. Needs root, `sch_netem`, TUN and veth; the clock is real."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

from topo.errors import FeatureMissing, GuestFailed
from topo.substrates import features
from topo.substrates.job import Clock, Job, OnLine, SubstrateName


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
            expired = threading.Event()
            timer = threading.Timer(job.time_limit_s, _end, (process.pid, expired))
            timer.start()
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    on_line(line.rstrip("\n"))
                status = process.wait()
            except BaseException:
                # Ctrl-C or a failing reader: the job's own handler takes the network down.
                process.send_signal(signal.SIGTERM)
                raise
            finally:
                timer.cancel()
        if expired.is_set():
            raise GuestFailed(f"the job outlived its limit of {job.time_limit_s:.0f} s", log)
        return status


def _end(pid: int, expired: threading.Event) -> None:
    expired.set()
    os.killpg(pid, signal.SIGTERM)


def already_virtual() -> bool:
    """Whether this kernel is itself a User Mode Linux guest whose clock is virtual."""
    return "time-travel" in Path("/proc/cmdline").read_text()
