"""Two real gateways in constant-rate mode: what goes over the wire is alike, what it carries arrives; their metrics."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from experiments.decrypt import decrypt_capture, frames, read_esp_sa
from gateways.encapsulation import Kind, kind_of
from tests.gateway_pair import SITES, Pair, pair, run, until

__all__ = ["pair"]  # the fixture
pytestmark = pytest.mark.interop

RATE_BPS = 2_000_000
"""1500 octets every 6 ms."""
IP_UDP_OCTETS = 28
METRICS_PORT = 9464


def esp_lengths(capture: Path) -> set[int]:
    """Lengths of the outer IP packets that hold ESP; all else must be IKE."""
    lengths = set()
    for _, frame in frames(capture):
        if frame[12:14] == b"\x08\0" and frame[23] == 17:
            kind = kind_of(frame[14 + IP_UDP_OCTETS :])
            if kind is Kind.ESP:
                lengths.add(int.from_bytes(frame[16:18]))
            else:
                assert kind is Kind.IKE
    return lengths


def total(status: dict[str, Any], direction: str, name: str) -> int:
    return sum(sa[name] for sa in status["sas"] if sa["direction"] == direction)


@pytest.mark.parametrize("suite", ["AES-128-GCM", "SM4-128-CBC+HMAC-SM3-128"])
def test_ping_through_rekeys_in_packets_of_one_length(pair: Pair, suite: str) -> None:
    for site in SITES:
        pair.configure(site, constant_rate_bps=RATE_BPS, suites=[suite])
    outer = pair.directory / "outer.pcap"
    pair.capture(outer)
    pair.up()
    assert pair.ping(60, 0.03) == (60, 60)
    assert pair.ping(3, 0.05, "-s", "1300", "-M", "do") == (3, 3)
    until(lambda: pair.log("u").count(" Established ") >= 4, "three rekeys")
    assert pair.ping(20, 0.03) == (20, 20)
    status = {site: pair.stop(site) for site in SITES}
    pair.end_capture(outer)

    (octets,) = esp_lengths(outer)
    assert 1484 <= octets <= 1500
    table, known = read_esp_sa(pair.directory / "esp_sa")
    found = decrypt_capture(outer, table, known)
    assert found.sound
    assert sum(sa.protocols["ICMP"] for sa in found.sas) == len(found.inner) == 2 * 83
    assert sum(sa.dummies for sa in found.sas) > 0
    for site, other in (SITES, SITES[::-1]):
        mine, its = status[site], status[other]
        assert mine["drops"] == {}
        assert total(mine, "in", "packets") == 83
        assert mine["constant_rate"]["sent_payloads"] == total(mine, "out", "packets")
        assert mine["constant_rate"]["sent_octets"] == 80 * 84 + 3 * 1328
        assert its["constant_rate"]["received_packets"] == 83
        for name in ("replays", "icv_failures", "selector_drops", "bad_next_header"):
            assert total(mine, "in", name) == 0


def test_one_end_alone_in_the_mode_gets_nothing_through(pair: Pair) -> None:
    pair.configure("u", constant_rate_bps=RATE_BPS)
    pair.up()
    assert pair.ping() == (5, 0)
    pair.stop("u")
    assert total(pair.stop("n"), "in", "bad_next_header") > 0


def test_status_and_metrics_of_a_running_gateway(pair: Pair) -> None:
    pair.configure("u", metrics_port=METRICS_PORT, constant_rate_bps=RATE_BPS)
    pair.configure("n", constant_rate_bps=RATE_BPS)
    pair.up()
    assert pair.ping() == (5, 5)
    where = f"http://127.0.0.1:{METRICS_PORT}"
    qntn = (sys.executable, "-c", "from experiments.cli import main; main()")
    status = json.loads(run(*pair.inside("u", *qntn, "gateway", "status", where, "--json")))
    assert status["name"] == "EG-U"
    assert total(status, "in", "packets") == 5
    assert status["constant_rate"]["sent_payloads"] > 0
    said = run(*pair.inside("u", "curl", "-s", f"{where}/metrics"))
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(said)
        for sample in family.samples
    }
    assert samples["qntn_gateway_usable"] == 1
    assert "qntn_gateway_sa_packets_total" in samples
    # Nobody else may ask: it listens on the loopback alone.
    listening = run(*pair.inside("u", "ss", "-Hlnt"))
    assert [line.split()[3] for line in listening.splitlines()] == [f"127.0.0.1:{METRICS_PORT}"]
