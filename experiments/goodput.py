"""Goodput of an arm: iperf (version 2) transfers between the two ends of a running network."""

from __future__ import annotations

import time
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal

from experiments.iperf import PORT, Protocol, client_command, parse_server_report, server_command
from experiments.services import start_program
from experiments.summary import Goodput
from topo import scenario
from topo.errors import MeasurementError
from topo.network import Network

LISTEN_TIMEOUT_S = 30.0
REPORT_BEGINS = "19700101"
"""The time that iperf 2.1 writes into every line of its comma-separated reports."""
MARGIN_S = 30.0
"""How much longer than its nominal time a transfer may take: hand-shakes and the last bytes over the satellite."""


@dataclass(frozen=True)
class _Transfer:
    """One iperf transfer."""

    protocol: Protocol
    direction: Literal["up", "down"]
    duration_s: float
    rate_mbps: float | None = None


def measure_goodput(
    network: Network, ends: tuple[str, str], settings: scenario.Goodput, logs: Path
) -> list[Goodput]:
    """TCP up, TCP down, UDP up between the two ends, one after the other; what each receiver saw."""
    transfers = [
        _Transfer("tcp", "up", settings.tcp_s),
        _Transfer("tcp", "down", settings.tcp_s),
        _Transfer("udp", "up", settings.udp_s, settings.udp_mbps),
    ]
    return [_carry_out(network, ends, t, logs) for t in transfers if t.duration_s > 0]


def _carry_out(network: Network, ends: tuple[str, str], transfer: _Transfer, logs: Path) -> Goodput:
    sender, receiver = ends if transfer.direction == "up" else ends[::-1]
    address = IPv4Address(network.plan.address(receiver))
    label = f"iperf-{transfer.protocol}-{transfer.direction}"
    listen = server_command(transfer.protocol, address=address)
    server = start_program(network, receiver, listen, logs / f"{label}-server.log")
    _await_bound(server.pid, transfer.protocol)
    send = client_command(
        transfer.protocol,
        address,
        duration_s=transfer.duration_s,
        rate_mbps=transfer.rate_mbps,
    )
    client = start_program(network, sender, send, logs / f"{label}-client.log")
    try:
        client.lines_until_exit(transfer.duration_s + MARGIN_S, lambda line: None)
        report = server.wait_for(REPORT_BEGINS, MARGIN_S)
    except MeasurementError:
        # Nothing came through, not even the end of the transfer: a result, and a bad one.
        client.end()
        return Goodput(
            protocol=transfer.protocol,
            direction=transfer.direction,
            goodput_mbps=0.0,
            duration_s=transfer.duration_s,
        )
    finally:
        server.end()
    return parse_server_report(report, transfer.direction)[-1]


def _await_bound(pid: int, protocol: Protocol) -> None:
    """Wait until a process's namespace has a socket on iperf's port."""
    table = Path(f"/proc/{pid}/net/{protocol}")
    wanted = f":{PORT:04X} "
    end = time.monotonic() + LISTEN_TIMEOUT_S
    while time.monotonic() < end:
        if wanted in table.read_text():
            return
        time.sleep(0.01)
    raise MeasurementError(f"iperf does not listen on {protocol} port {PORT}")
