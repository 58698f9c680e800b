"""The stock `ping` (iputils) as a cross-check of the prober: its command line and its output.

iputils prints an RTT in microseconds below 10 ms, but in whole milliseconds from 100 ms upwards.
Over a satellite only its closing summary has microseconds, so the two tools are compared by
minimum, mean and maximum. Duplicates enter that summary, though not the count of replies.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from topo.errors import MeasurementError

_REPLY = re.compile(
    r"^(?:\[(?P<at>\d+\.\d+)\] )?\d+ bytes from .*?icmp_seq=(?P<seq>\d+) ttl=(?P<ttl>\d+) "
    r"time=(?P<whole>\d+)(?:\.(?P<decimals>\d+))? ms(?P<duplicate> \(DUP!\))?",
    re.MULTILINE,
)
_COUNTS = re.compile(r"^(\d+) packets transmitted, (\d+) received", re.MULTILINE)
_SUMMARY = re.compile(
    r"^rtt min/avg/max/mdev = ([\d.]+)/([\d.]+)/([\d.]+)/([\d.]+) ms", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class PingSample:
    """One reply line."""

    sequence: int
    rtt_ms: float
    resolution_ms: float
    """Unit of the last digit printed."""
    printed_s: float | None
    """Unix time of printing, with `-D`."""


@dataclass(frozen=True, slots=True)
class PingResult:
    """One run of `ping`."""

    samples: tuple[PingSample, ...]
    """First reply to each request, in the order printed."""
    transmitted: int
    received: int
    duplicates: int
    min_ms: float | None
    mean_ms: float | None
    max_ms: float | None
    sigma_ms: float | None
    """ping's `mdev`, which is the population standard deviation."""

    @property
    def lost(self) -> int:
        """Requests without a reply."""
        return self.transmitted - self.received


def ping_command(
    destination: IPv4Address,
    *,
    count: int,
    interval_ms: float = 1000.0,
    source: IPv4Address | None = None,
    payload_bytes: int = 56,
    timeout_ms: float = 3000.0,
) -> list[str]:
    """Command line of the stock ping: numeric, print times, `timeout_ms` for the last reply."""
    command = ["ping", "-n", "-D", "-c", f"{count}", "-i", f"{interval_ms / 1e3:.6g}"]
    command += ["-s", f"{payload_bytes}", "-W", f"{timeout_ms / 1e3:.6g}"]
    if source is not None:
        command += ["-I", f"{source}"]
    return [*command, f"{destination}"]


def run_ping(command: Sequence[str], *, limit_s: float | None = None) -> PingResult:
    """Run a ping command line and parse it; a run that lost every probe is a result, not an error.

    `limit_s` is wall-clock time: under a virtual clock inside a guest, limit the guest instead.
    Raises `MeasurementError` when ping cannot run, overruns or reports an error of its own.
    """
    try:
        done = subprocess.run(
            [*command],
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
            env={"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
    except FileNotFoundError as error:
        raise MeasurementError("ping is not installed: apt install iputils-ping") from error
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(f"ping did not end within {limit_s} s") from error
    if done.returncode not in {0, 1}:  # 1: some or all replies missing
        reason = done.stderr.strip() or f"exit code {done.returncode}"
        raise MeasurementError(f"{' '.join(command)}: {reason}")
    return parse_ping(done.stdout)


def parse_ping(text: str) -> PingResult:
    """Samples and summary out of the output of iputils ping.

    Raises `MeasurementError` when the closing counts are missing, as when ping was killed.
    """
    counts = _COUNTS.search(text)
    if counts is None:
        raise MeasurementError("ping's output has no closing summary")
    samples: list[PingSample] = []
    duplicates = 0
    for reply in _REPLY.finditer(text):
        if reply["duplicate"]:
            duplicates += 1
            continue
        decimals = reply["decimals"] or ""
        samples.append(
            PingSample(
                sequence=int(reply["seq"]),
                rtt_ms=float(f"{reply['whole']}.{decimals or '0'}"),
                resolution_ms=10.0 ** -len(decimals),
                printed_s=float(reply["at"]) if reply["at"] else None,
            )
        )
    summary = _SUMMARY.search(text)
    figures = [float(value) for value in summary.groups()] if summary else [None] * 4
    return PingResult(tuple(samples), int(counts[1]), int(counts[2]), duplicates, *figures)
