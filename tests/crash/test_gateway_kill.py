"""kill -9 of real gateways under traffic: every one begins with a new key, and no key and IV come together twice.

A GCM nonce used twice gives the authentication key away, so a gateway must never go on counting from where, or begin
where, one before it was. What is looked at is what an eavesdropper has: a capture of all packets between the gateways.
"""

from __future__ import annotations

import hashlib
import re
import signal
import subprocess
import time
from itertools import cycle
from pathlib import Path
from random import Random

import pytest

from tests.gateway_pair import INNER, OUTER, SITES, Pair, dissected, make_kms, pair, run

__all__ = ["pair"]
pytestmark = [pytest.mark.crash, pytest.mark.interop]

QUICK = {
    "rekey_after_s": 1.0,
    "retransmit_s": 0.1,
    "grace_s": 0.2,
    "attempts": 3,
    "dpd_after_s": 0.3,
}
SITE_OF = {address: site for site, address in OUTER.items()}


@pytest.mark.parametrize("kills", [6, pytest.param(200, marks=pytest.mark.long)])
def test_no_key_and_iv_pair_is_used_twice_across_kills(pair: Pair, kills: int) -> None:
    """The initiator, the responder and both in turn, at random moments, also while they agree on keys."""
    start_sites(pair)
    capture = pair.directory / "outer.pcap"
    pair.capture(capture)
    pair.up()
    start_pings(pair)
    rng, logs = Random(6), []
    for number, victims in zip(range(kills), cycle([("u",), ("n",), SITES]), strict=False):
        established = number % 5 != 4
        for site in victims if established else ():
            pair.wait_for(site, "READY")
        time.sleep(rng.uniform(0, 1.0))
        for site in victims:
            process = pair.processes.pop(site)
            process.kill()
            assert process.wait() == -signal.SIGKILL, pair.log(site)
            logs.append((site, pair.log(site)))
        for site in victims:
            pair.start(site)
    for site in SITES:
        pair.wait_for(site, "READY")
    time.sleep(0.2)
    for site in SITES:
        pair.stop(site)
        logs.append((site, pair.log(site)))
    pair.end_capture(capture)
    assert_unique(pair.directory, capture, logs)


def start_sites(pair: Pair) -> None:
    pair.program = ("-m", "gateways.gateway")
    for site, other in (SITES, SITES[::-1]):
        kms = make_kms(pair.directory / f"kms-{site}", site, other, key_octets=400_000)
        pair.configure(site, kms=kms, **QUICK)
        pair.start_kms(site)
        # The capture is of single packets, as on a real wire.
        run(*pair.inside(site, "ethtool", "-K", "veth", "tx-udp-segmentation", "off", "gso", "off"))


def start_pings(pair: Pair) -> None:
    """500 echo requests a second each way, tunnel or none."""
    for site, other in (SITES, SITES[::-1]):
        command = ["ping", "-q", "-i", "0.002", "-I", INNER[site], INNER[other]]
        pair.processes[f"ping-{site}"] = subprocess.Popen(
            pair.inside(site, *command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


def assert_unique(directory: Path, capture: Path, logs: list[tuple[str, str]]) -> None:
    fields = ("frame.time_epoch", "ip.src", "esp.spi", "esp.iv", "esp.icv_good", "ip.proto")
    # ESP in UDP; not what ICMP quotes of it when it finds no gateway.
    rows = [row for row in dissected(capture, directory, *fields) if row[2] and row[5][:2] == "17"]
    records = re.findall(
        r'"([\d.]+)","[\d.]+","(0x\w{8})",".*?","(0x\w+)"', (directory / "esp_sa").read_text()
    )
    keys = {(source, spi): key for source, spi, key in records}
    assert len(keys) == len(set(records)), "one SA, two keys"
    assert len(keys) == len(set(keys.values())), "two SAs, one key"
    assert all(row[4] == "1" for row in rows), "the exported key is that of the packet"

    used, seen = set(), set()
    sent: dict[str, list[int]] = {site: [] for site in SITES}
    for at_s, addresses, spi, iv, *_ in rows:
        source = addresses.split(",")[0]
        seen.add((source, spi))
        used.add((hashlib.sha256(keys[source, spi].encode()).digest(), iv))
        sent[SITE_OF[source]].append(round(float(at_s) * 1e9))
    assert len(used) == len(rows)

    offset_ns = time.time_ns() - time.monotonic_ns()
    named: dict[str, list[str]] = {site: [] for site in SITES}
    installed = set()
    for site, log in logs:
        fetch = re.search(r"^(\d+) FetchKey", log, re.MULTILINE)
        first = re.search(r"^(\d+) InstallOutbound", log, re.MULTILINE)
        for spi, key_id in re.findall(r"InstallOutbound .*spi=(\S+) key_id=(\S+)", log):
            installed.add((OUTER[site], spi))
            named[site].append(key_id)
        if first is None:  # killed before it had a key, or had said anything
            continue
        assert fetch is not None
        assert fetch.start() < first.start()
        began, fetched = int(log.split()[0]) + offset_ns, int(fetch[1]) + offset_ns
        assert not any(began < at < fetched for at in sent[site]), "a packet before a key"
    assert seen <= installed
    for key_ids in named.values():
        assert len(key_ids) == len(set(key_ids)) >= len(logs) // 3
    print(
        f"{len(logs)} processes, {len(rows)} packets, {len(keys)} keys, no pair of key and IV twice"
    )
