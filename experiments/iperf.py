"""iperf version 2: command lines, and what its server reports.

Version 2, because iperf3 spins in `select` and never ends under a virtual clock. The figures are
the server's, for two reasons: the receiver is who knows what arrived, and over a 600 ms round trip
the report that a UDP server sends back is easily lost ("ack of last datagram failed"). They are
taken from `-y C`, whose bytes, bits per second and datagram counts are whole numbers; the text
report, even the enhanced one, rounds to three digits in units of its own choice.

One line of `-y C` (iperf 2.1.8)::

    19700101000000,10.0.0.1,60954,10.0.8.2,5001,1,0.0-2.0,492000,1963976,0.065,11,503,2.187,0
    time           client   port  server   port id span   bytes  bit/s   jitter lost sent % order

TCP lines end after bit/s. The time is always 1970; the span is rounded to 0.1 s although the bit/s
are not. A *client* line of a UDP test has the same fields, but there they are what it sent, with
-1 datagrams: `parse_server_report` refuses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Literal

from experiments.summary import Goodput
from topo.errors import MeasurementError

Protocol = Literal["tcp", "udp"]

PORT = 5001
TCP_FIELDS, UDP_FIELDS = 9, 14
UDP_PAYLOAD_BYTES = 1200
"""Fits a 1280-byte path with UDP, IP and the tunnel's headers around it."""


def server_command(
    protocol: Protocol,
    *,
    address: IPv4Address | None = None,
    port: int = PORT,
    window_bytes: int | None = None,
) -> list[str]:
    """Command line of the receiving side. It runs until terminated and prints a line per
    transfer."""
    command = ["iperf", "-s", "-y", "C", "-p", f"{port}"]
    if address is not None:
        command += ["-B", f"{address}"]
    return command + _options(protocol, window_bytes)


def client_command(
    protocol: Protocol,
    server: IPv4Address,
    *,
    duration_s: float,
    rate_mbps: float | None = None,
    port: int = PORT,
    payload_bytes: int = UDP_PAYLOAD_BYTES,
    window_bytes: int | None = None,
) -> list[str]:
    """Command line of the sending side.

    `rate_mbps` is the offered rate of payload, 10^6 bit/s: required for UDP, a ceiling for TCP.
    `window_bytes` fixes TCP's socket buffers; left to itself the kernel grows them to
    `net.ipv4.tcp_rmem`, which may be less than rate x delay over a satellite.
    """
    command = ["iperf", "-c", f"{server}", "-p", f"{port}", "-t", f"{duration_s:g}"]
    if rate_mbps is not None:
        command += ["-b", f"{round(rate_mbps * 1e6)}"]
    elif protocol == "udp":
        raise MeasurementError("UDP has no rate of its own: give rate_mbps")
    if protocol == "udp":
        command += ["-l", f"{payload_bytes}"]
    return command + _options(protocol, window_bytes)


def parse_server_report(text: str, direction: Literal["up", "down"] = "up") -> list[Goodput]:
    """Every transfer that a server's `-y C` output reports, in order.

    `goodput_mbps` counts payload between the first and the last arrival. Raises `MeasurementError`
    when there is none (nothing arrived, or the server was stopped before the transfer ended) or
    when a line is not a server's.
    """
    results = list(_results(text, direction))
    if not results:
        raise MeasurementError("the iperf server reported no transfer")
    return results


def _results(text: str, direction: Literal["up", "down"]) -> Iterator[Goodput]:
    for line in text.splitlines():
        fields = line.strip().split(",")
        if len(fields) not in {TCP_FIELDS, UDP_FIELDS}:
            continue  # warnings and banners
        try:
            size_bytes, bits_per_s = int(fields[7]), float(fields[8])
            datagrams = [float(value) for value in fields[9:12]]
        except ValueError as error:
            raise MeasurementError(f"not a report of iperf 2: {line!r}") from error
        if bits_per_s <= 0 or (datagrams and datagrams[2] < 0):
            raise MeasurementError(f"not a report of an iperf server: {line!r}")
        yield Goodput(
            protocol="udp" if datagrams else "tcp",
            direction=direction,
            goodput_mbps=bits_per_s / 1e6,
            duration_s=size_bytes * 8 / bits_per_s,
            lost=int(datagrams[1]) if datagrams else None,
            sent=int(datagrams[2]) if datagrams else None,
            jitter_ms=datagrams[0] if datagrams else None,
        )


def _options(protocol: Protocol, window_bytes: int | None) -> list[str]:
    options = ["-u"] if protocol == "udp" else []
    return options + (["-w", f"{window_bytes}"] if window_bytes is not None else [])
