"""Parsing what iperf 2.1.8 really printed, over loopback and a relay of 600 ms and 2 % loss."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from experiments.iperf import client_command, parse_server_report, server_command
from topo.errors import MeasurementError

TCP_SERVER = "19700101000000,127.0.0.1,44920,127.0.0.1,5415,1,0.0-0.5,64860,1019707\n"
UDP_SERVER = (
    "19700101000000,127.0.0.1,60498,127.0.0.1,5422,1,0.0-2.0,492000,1963976,0.065,11,503,2.187,0\n"
)
UDP_CLIENT = (
    "19700101000000,127.0.0.1,60954,127.0.0.1,5432,1,0.0-2.0,503000,2007917,0.000,0,-1,-0.000,0\n"
)
# The server's report to the client was lost on the way: its own line is there all the same.
ACK_LOST = "[  3] WARNING: ack of last datagram failed.\n"
BANNER = """\
------------------------------------------------------------
Server listening on TCP port 5411 with pid 30435
"""


def test_tcp_goodput() -> None:
    (result,) = parse_server_report(BANNER + TCP_SERVER)
    assert (result.protocol, result.direction) == ("tcp", "up")
    assert result.goodput_mbps == pytest.approx(1.019707)
    assert result.duration_s == pytest.approx(64860 * 8 / 1019707)
    assert (result.lost, result.sent, result.jitter_ms) == (None, None, None)


def test_udp_loss_and_jitter_are_the_servers() -> None:
    (result,) = parse_server_report(UDP_SERVER + ACK_LOST, direction="down")
    assert (result.protocol, result.direction) == ("udp", "down")
    assert result.goodput_mbps == pytest.approx(1.963976)
    assert result.duration_s == pytest.approx(2.0041, abs=1e-4)
    assert (result.lost, result.sent, result.jitter_ms) == (11, 503, 0.065)


def test_transfers_come_in_order() -> None:
    assert [r.protocol for r in parse_server_report(TCP_SERVER + UDP_SERVER)] == ["tcp", "udp"]


def test_a_clients_line_is_not_taken_for_a_servers() -> None:
    with pytest.raises(MeasurementError, match="not a report of an iperf server"):
        parse_server_report(UDP_CLIENT)


@pytest.mark.parametrize("text", ["", BANNER, ACK_LOST])
def test_no_transfer_is_an_error(text: str) -> None:
    with pytest.raises(MeasurementError, match="no transfer"):
        parse_server_report(text)


def test_a_line_of_another_shape_is_an_error() -> None:
    with pytest.raises(MeasurementError, match="not a report"):
        parse_server_report(TCP_SERVER.replace("64860", "lots"))


def test_command_lines() -> None:
    server = IPv4Address("10.60.0.2")
    commands = [
        server_command("udp", address=server),
        server_command("tcp", window_bytes=4_000_000, port=5002),
        client_command("tcp", server, duration_s=6),
        client_command("udp", server, duration_s=2.5, rate_mbps=0.128),
    ]
    assert [" ".join(command) for command in commands] == [
        "iperf -s -y C -p 5001 -B 10.60.0.2 -u",
        "iperf -s -y C -p 5002 -w 4000000",
        "iperf -c 10.60.0.2 -p 5001 -t 6",
        "iperf -c 10.60.0.2 -p 5001 -t 2.5 -b 128000 -l 1200 -u",
    ]


def test_udp_needs_a_rate() -> None:
    with pytest.raises(MeasurementError, match="rate_mbps"):
        client_command("udp", IPv4Address("10.60.0.2"), duration_s=1)
