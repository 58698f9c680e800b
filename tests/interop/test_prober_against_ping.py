"""The prober beside the stock `ping` and a capture of dumpcap, all three in one network namespace.

The other host is this file, run as a program at the far end of a veth: it loses and duplicates
fixed echo requests, so that the three must agree on each probe's fate. Times are compared only
where one cannot precede another.
"""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether

from experiments.captures import rtts_from_capture
from experiments.echo import ProbeStatus
from experiments.ping import ping_command, run_ping
from experiments.prober import status_path

pytestmark = pytest.mark.interop

HERE, THERE, NOWHERE = "10.99.0.1", "10.99.0.2", "10.98.0.1"
DEVICE, FAR_DEVICE, FAR_MAC = "near", "far", "02:00:00:00:00:02"
ETH_P_IP = 0x0800
LOST, DUPLICATED = {4, 9}, {6}  # sequence numbers


def be_the_other_host() -> None:
    """Answer every echo request from the far end of a veth but the `LOST` ones, until killed."""
    for command in (
        f"link add {DEVICE} type veth peer name {FAR_DEVICE}",
        f"address add {HERE}/24 dev {DEVICE}",
        f"link set {DEVICE} up",
        f"link set {FAR_DEVICE} address {FAR_MAC} up",
        f"neighbour replace {THERE} lladdr {FAR_MAC} dev {DEVICE} nud permanent",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))
    sock.bind((FAR_DEVICE, ETH_P_IP))
    print("READY", flush=True)
    while True:
        frame = Ether(sock.recv(2048))
        if frame.dst != FAR_MAC or ICMP not in frame or frame[ICMP].type != 8:
            continue
        ip, echo = frame[IP], frame[ICMP]
        back = Ether(src=frame.dst, dst=frame.src) / IP(src=ip.dst, dst=ip.src)
        reply = back / ICMP(type=0, id=echo.id, seq=echo.seq) / bytes(echo.payload)
        for _ in range(0 if echo.seq in LOST else 2 if echo.seq in DUPLICATED else 1):
            sock.send(bytes(reply))


@dataclass(frozen=True)
class Lab:
    """A network namespace that lives as long as process `pid`, the other host."""

    pid: int

    def command(self, *arguments: str) -> list[str]:
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", str(self.pid), "--net", *user, *arguments]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A namespace of its own, for an ordinary user inside a user namespace."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", "--net", *user, sys.executable, __file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other_host:
        assert other_host.stdout is not None
        try:
            assert other_host.stdout.readline() == "READY\n"
            yield Lab(other_host.pid)
        finally:
            other_host.kill()


@contextmanager
def capturing(lab: Lab, path: Path, packets: int) -> Iterator[None]:
    """dumpcap running, ready once it says so; left when it has written that many packets.

    Counting, because dumpcap drops what is still in the kernel's buffer when it is interrupted.
    """
    arguments = ["-i", DEVICE, "-w", str(path), "-f", "icmp", "-c", str(packets)]
    with subprocess.Popen(
        lab.command("dumpcap", *arguments), stderr=subprocess.PIPE, text=True
    ) as dumpcap:
        assert dumpcap.stderr is not None
        for line in dumpcap.stderr:
            if line.startswith("File:"):
                break
        try:
            yield
            dumpcap.communicate(timeout=60)
        finally:
            dumpcap.kill()


def configuration(folder: Path, **changes: Any) -> Path:
    values = {
        "arm": "plain",
        "source": HERE,
        "destination": THERE,
        "count": 12,
        "interval_ms": 20.0,
        "timeout_ms": 200.0,
        "out": str(folder / "samples.csv"),
    }
    path = folder / "probe.json"
    path.write_text(json.dumps(values | changes), encoding="utf-8")
    return path


def prober(lab: Lab, config: Path) -> list[str]:
    return lab.command(sys.executable, "-m", "experiments.prober", str(config))


def samples(folder: Path) -> list[dict[str, str]]:
    with (folder / "samples.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_prober_ping_and_capture_agree_on_every_probe(lab: Lab, tmp_path: Path) -> None:
    config = configuration(tmp_path, warmup_count=1)
    on_the_wire = 13 + 13 - len(LOST) + len(DUPLICATED)
    with capturing(lab, tmp_path / "ue.pcapng", on_the_wire):
        done = subprocess.run(
            prober(lab, config), capture_output=True, text=True, check=True, timeout=60
        )
    rows = samples(tmp_path)
    assert [int(row["seq"]) for row in rows] == list(range(12))
    assert {int(row["seq"]) for row in rows if not row["rtt_ns"]} == LOST
    status = ProbeStatus.model_validate_json(status_path(tmp_path / "samples.csv").read_text())
    assert (status.complete, status.sent, status.lost) == (True, 12, len(LOST))
    assert (status.duplicates, status.corrupt, status.late) == (len(DUPLICATED), 0, 0)
    assert len(status.warmup_rtt_ns) == 1

    progress = done.stdout.splitlines()
    assert progress[0] == "READY"
    assert {line for line in progress if line.endswith("lost")} == {f"PROBE {i} lost" for i in LOST}
    assert len(progress) == 1 + 12

    command = ping_command(
        IPv4Address(THERE), count=12, interval_ms=20, source=IPv4Address(HERE), timeout_ms=200
    )
    ping = run_ping(lab.command(*command), limit_s=60)
    fates = {s.sequence for s in ping.samples}
    assert fates == set(range(1, 13)) - LOST  # ping counts from 1
    assert (ping.transmitted, ping.lost, ping.duplicates) == (12, len(LOST), len(DUPLICATED))

    captured = rtts_from_capture(tmp_path / "ue.pcapng")
    assert captured.pop(0xFFFF) is not None  # the warm-up probe
    assert sorted(captured) == list(range(12))
    for row in rows:
        on_the_wire_ns = captured[int(row["seq"])]
        if not row["rtt_ns"]:
            assert on_the_wire_ns is None
            continue
        # The prober's clock starts before the packet passes the capture and stops with it.
        assert on_the_wire_ns is not None
        assert 0 < on_the_wire_ns <= int(row["rtt_ns"])


@pytest.mark.parametrize("asked_ns", [None, 1], ids=["when it can", "when it was too late"])
def test_probes_leave_on_schedule_or_later_never_earlier(
    lab: Lab, tmp_path: Path, asked_ns: int | None
) -> None:
    config = configuration(tmp_path, count=5, jitter_ms=20.0, seed=3, first_probe_ns=asked_ns)
    subprocess.run(prober(lab, config), check=True, capture_output=True, timeout=60)
    status = ProbeStatus.model_validate_json(status_path(tmp_path / "samples.csv").read_text())
    first_ns = status.config.first_probe_ns
    assert first_ns is not None
    assert first_ns % 10**9 == 0
    rows = samples(tmp_path)
    assert all(int(row["sent_ns"]) >= first_ns for row in rows)
    assert status.worst_lateness_ns >= status.p99_lateness_ns >= 0


def test_sigterm_ends_the_run_and_keeps_what_is_known(lab: Lab, tmp_path: Path) -> None:
    config = configuration(tmp_path, count=1000, interval_ms=1000.0)
    with subprocess.Popen(prober(lab, config), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("PROBE 0"):
                break
        process.terminate()
        assert process.wait(timeout=60) == 0
    rows = samples(tmp_path)
    assert [row["seq"] for row in rows] == [str(i) for i in range(len(rows))]
    assert rows[0]["rtt_ns"]
    status = ProbeStatus.model_validate_json(status_path(tmp_path / "samples.csv").read_text())
    assert not status.complete
    assert status.sent == len(rows) < 1000


@pytest.mark.parametrize(
    ("changes", "message", "code"),
    [
        ({"destination": NOWHERE}, "cannot send to 10.98.0.1: Network is unreachable", 1),
        ({"source": NOWHERE}, "source 10.98.0.1: Cannot assign requested address", 2),
        ({"out": "/nonexistent/samples.csv"}, "No such file or directory", 2),
        ({"jitter": 1.0}, "jitter: Extra inputs are not permitted", 2),
    ],
)
def test_errors_are_one_line(
    lab: Lab, tmp_path: Path, changes: dict[str, Any], message: str, code: int
) -> None:
    config = configuration(tmp_path, **changes)
    done = subprocess.run(
        prober(lab, config), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


if __name__ == "__main__":
    be_the_other_host()
