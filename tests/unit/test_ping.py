"""Parsing what iputils ping 20221126 really printed."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from experiments.ping import parse_ping, ping_command
from topo.errors import MeasurementError

# A path of about 550 ms that lost probe 2 and answered probe 3 twice.
SATELLITE = """\
PING 10.99.0.2 (10.99.0.2) 56(84) bytes of data.
[1795405498.712705] 64 bytes from 10.99.0.2: icmp_seq=1 ttl=64 time=557 ms
[1795405500.130318] 64 bytes from 10.99.0.2: icmp_seq=3 ttl=64 time=548 ms
[1795405500.182152] 64 bytes from 10.99.0.2: icmp_seq=3 ttl=64 time=604 ms (DUP!)
[1795405500.835923] 64 bytes from 10.99.0.2: icmp_seq=4 ttl=64 time=557 ms
[1795405501.551084] 64 bytes from 10.99.0.2: icmp_seq=5 ttl=64 time=572 ms

--- 10.99.0.2 ping statistics ---
5 packets transmitted, 4 received, +1 duplicates, 20% packet loss, time 2823ms
rtt min/avg/max/mdev = 548.114/567.480/603.782/19.696 ms
"""

LOOPBACK = """\
PING 127.0.0.1 (127.0.0.1) 56(84) bytes of data.
64 bytes from 127.0.0.1: icmp_seq=1 ttl=64 time=0.251 ms

--- 127.0.0.1 ping statistics ---
1 packets transmitted, 1 received, 0% packet loss, time 0ms
rtt min/avg/max/mdev = 0.251/0.251/0.251/0.000 ms
"""

SILENCE = """\
PING 10.99.0.77 (10.99.0.77) 56(84) bytes of data.
[1795405502.814272] no answer yet for icmp_seq=1

--- 10.99.0.77 ping statistics ---
2 packets transmitted, 0 received, 100% packet loss, time 626ms

"""


def test_satellite_rtts_have_whole_milliseconds_and_a_finer_summary() -> None:
    result = parse_ping(SATELLITE)
    assert [(s.sequence, s.rtt_ms) for s in result.samples] == [
        (1, 557.0),
        (3, 548.0),
        (4, 557.0),
        (5, 572.0),
    ]
    assert {s.resolution_ms for s in result.samples} == {1.0}
    assert result.samples[0].printed_s == 1795405498.712705
    assert (result.transmitted, result.received, result.lost, result.duplicates) == (5, 4, 1, 1)
    assert (result.min_ms, result.mean_ms, result.max_ms) == (548.114, 567.480, 603.782)
    assert result.sigma_ms == 19.696


def test_short_rtts_have_microseconds_and_no_time_without_d() -> None:
    (sample,) = parse_ping(LOOPBACK).samples
    assert sample.rtt_ms == 0.251
    assert sample.resolution_ms == pytest.approx(0.001)
    assert sample.printed_s is None


def test_silence_is_a_result_without_figures() -> None:
    result = parse_ping(SILENCE)
    assert (result.samples, result.lost, result.mean_ms) == ((), 2, None)


def test_a_killed_ping_is_an_error() -> None:
    with pytest.raises(MeasurementError, match="no closing summary"):
        parse_ping(SATELLITE.split("---", maxsplit=1)[0])


def test_command_line_is_in_seconds() -> None:
    command = ping_command(
        IPv4Address("10.60.0.2"),
        count=100,
        interval_ms=1000,
        source=IPv4Address("10.45.0.2"),
        timeout_ms=2500,
    )
    assert " ".join(command) == "ping -n -D -c 100 -i 1 -s 56 -W 2.5 -I 10.45.0.2 10.60.0.2"
