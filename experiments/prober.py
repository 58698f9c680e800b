"""An isochronous ICMP echo prober: `python -m experiments.prober CONFIG.json`.

Probe i leaves at first + i * interval (+ a seeded draw from U(0, jitter)), whatever became of the
probes before it. The stock `ping` re-times itself after every reply and prints whole milliseconds
above 100 ms, so it serves only as a cross-check. With jitter zero the probes sample a periodic path
(a scheduling grid, DRX) at one drifting phase; RFC 3432 and RFC 7312 say when that misleads and why
to jitter.

The protocol is `experiments.echo.ProbeTrain`. This is the shell around it: a raw socket, kernel
receive time stamps, and a timer descriptor armed with the absolute time of the next event, so that
under a virtual clock a probe leaves on its very nanosecond.
"""

from __future__ import annotations

import csv
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

from experiments.echo import ECHO_REPLY, Probe, ProbeConfig, ProbeStatus, ProbeTrain
from experiments.summary import read_record
from topo.alarm import Alarm
from topo.errors import FeatureMissing, InputError, MeasurementError, QntnError
from topo.links.delays import ms_to_ns

__all__ = ["ProbeConfig", "ProbeStatus", "main", "run", "status_path"]

NS_PER_S = 1_000_000_000
START_MARGIN_NS = 20_000_000

# Python 3.11 names none of these (linux/icmp.h, asm-generic/socket.h).
SOL_RAW, ICMP_FILTER, SO_TIMESTAMPNS = 255, 1, 35


def open_socket(config: ProbeConfig) -> socket.socket:
    """A non-blocking raw ICMP socket that delivers echo replies only, with kernel time stamps."""
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    except PermissionError as error:
        raise FeatureMissing("CAP_NET_RAW", "Probing needs it: run inside a substrate.") from error
    sock.setblocking(False)
    sock.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("@I", ~(1 << ECHO_REPLY) & 0xFFFFFFFF))
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, config.ttl)
    if config.source is not None:
        try:
            sock.bind((str(config.source), 0))
        except OSError as error:
            sock.close()
            raise InputError(f"source {config.source}: {error.strerror}") from error
    return sock


def received(sock: socket.socket) -> Iterator[tuple[bytes, int]]:
    """Every packet waiting on the socket, with the Unix nanosecond at which the kernel got it."""
    while True:
        try:
            packet, ancillary, _, _ = sock.recvmsg(1 << 16, socket.CMSG_SPACE(16))
        except BlockingIOError:
            return
        stamps = [data for level, kind, data in ancillary if kind == SO_TIMESTAMPNS]
        if not stamps:
            raise MeasurementError("the kernel gave a packet without a receive time stamp")
        seconds, nanoseconds = struct.unpack("@ll", stamps[0])
        yield packet, seconds * NS_PER_S + nanoseconds


def run(config: ProbeConfig) -> ProbeStatus:
    """Send the probes, write samples and status, return the status.

    SIGTERM ends the run early; what is known by then is written. Raises `FeatureMissing` without
    the right to a raw socket, `InputError` for a source that is not ours or an output that cannot
    be written, `MeasurementError` when the kernel refuses to send.
    """
    warmup_ns = config.warmup_count * ms_to_ns(config.interval_ms)
    with (
        _create(config.out) as samples,
        _create(status_path(config.out)) as status_file,
        closing(open_socket(config)) as sock,
        closing(Alarm()) as alarm,
    ):
        print("READY", flush=True)
        now_ns = time.time_ns()
        # Where a slow machine's real clock has passed the time asked for: the next whole second that can be kept.
        soonest_ns = -(-(now_ns + warmup_ns + START_MARGIN_NS) // NS_PER_S) * NS_PER_S
        first_ns = max(config.first_probe_ns or 0, soonest_ns)
        train = ProbeTrain(config, first_ns)
        with suppress(_Terminated):
            _probe(train, sock, alarm)
        rows = csv.writer(samples, lineterminator="\n")
        rows.writerow(["arm", "seq", "sent_ns", "rtt_ns"])
        rows.writerows([config.arm, p.index, p.sent_ns, p.rtt_ns] for p in train.samples())
        status = train.status()
        status_file.write(status.model_dump_json(indent=2) + "\n")
    return status


def status_path(samples: Path) -> Path:
    """Where the status of the run that wrote `samples` is."""
    return samples.with_suffix(".status.json")


def _probe(train: ProbeTrain, sock: socket.socket, alarm: Alarm) -> None:
    target = (str(train.config.destination), 0)
    while not train.finished:
        alarm.set(train.next_event_ns())
        select.select([sock.fileno(), alarm.fileno()], [], [])
        # Sending first: packets received in the meantime carry their time stamps and can wait.
        while (due := train.next_due(time.time_ns())) is not None:
            probe, packet = due
            sent_ns = time.time_ns()
            try:
                sock.sendto(packet, target)
            except OSError as error:
                raise MeasurementError(f"cannot send to {target[0]}: {error.strerror}") from error
            train.sent(probe, sent_ns)
        for packet, received_ns in received(sock):
            outcome, answered = train.receive(packet, received_ns)
            if outcome == "answer" and answered is not None:
                _progress(answered)
        for lost in train.expire(time.time_ns()):
            _progress(lost)


def _progress(probe: Probe) -> None:
    if probe.index >= 0:
        fate = "lost" if probe.rtt_ns is None else f"{probe.rtt_ns / 1e6:.3f}"
        print(f"PROBE {probe.index} {fate}", flush=True)


def _create(path: Path) -> TextIO:
    """Open an output before the measurement, not after it, so that a bad path costs no run."""
    try:
        return path.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


class _Terminated(Exception):
    """SIGTERM arrived."""


def main(arguments: list[str]) -> int:
    """`python -m experiments.prober CONFIG.json`; returns the exit code."""

    def terminate(signal_number: int, frame: FrameType | None) -> NoReturn:
        raise _Terminated

    try:
        if len(arguments) != 1:
            raise InputError("usage: python -m experiments.prober CONFIG.json")
        config = read_record(Path(arguments[0]), ProbeConfig)
        signal.signal(signal.SIGTERM, terminate)
        run(config)
    except _Terminated:
        return 0
    except QntnError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
