"""A day's rekeys under 20 Mbit/s: no memory or descriptors are lost, and both KMSs gave away what the gateways used.

A rekey a second makes a day of rekeys a minute apart last 24 minutes; what leaks with a rekey leaks as much. Memory
grows at first, while histories of bounded length fill.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.bench.gateway_chain import missing
from kms.ledger import Ledger
from tests.gateway_pair import INNER, PATIENCE_S, SITES, Pair, make_kms, pair

__all__ = ["pair"]
pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(bool(missing("iperf3")), reason="needs iperf3"),
]

RATE_BPS = 20_000_000
KEY_OCTETS = 32
MIB_AN_HOUR = 2**20 / 60
"""In bytes a rekey, at a rekey a minute."""


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def delivered_octets(path: Path) -> int:
    """What a KMS gave away: to its own master, and to its slave of the other's keys."""
    with Ledger(path) as ledger:
        counts = ledger.counts()
    return counts.own_bytes - counts.own_free_bytes + counts.peer_fetched_bytes


@pytest.mark.parametrize(
    ("seconds", "most_bytes_a_rekey"),
    [(25, 4 * MIB_AN_HOUR), pytest.param(1440, MIB_AN_HOUR, marks=pytest.mark.long)],
)
def test_rekeys_under_load_leak_nothing(
    pair: Pair, seconds: int, most_bytes_a_rekey: float
) -> None:
    pair.program = ("-m", "gateways.gateway")
    for site, other in (SITES, SITES[::-1]):
        kms = make_kms(pair.directory / f"kms-{site}", site, other, key_octets=400_000)
        pair.configure(site, kms=kms, rekey_after_s=1.0, esp_sa=None)
        pair.start_kms(site)
    pair.up()
    server = ["iperf3", "-s", "-1", "-B", INNER["n"]]
    pair.processes["server"] = subprocess.Popen(
        pair.inside("n", *server), stdout=subprocess.DEVNULL
    )
    client = ["iperf3", "-c", INNER["n"], "-B", INNER["u"], "-u", "-b", str(RATE_BPS), "-l", "1300"]
    client += ["-t", str(seconds), "-J", "--logfile", str(pair.directory / "iperf3.json")]
    time.sleep(0.5)
    traffic = subprocess.Popen(pair.inside("u", *client))
    pair.processes["traffic"] = traffic

    warm_s, begin_s = seconds / 3, time.monotonic()
    taken: dict[str, list[tuple[int, int]]] = {site: [] for site in SITES}
    fds: dict[str, set[int]] = {site: set() for site in SITES}
    while traffic.poll() is None:
        assert time.monotonic() < begin_s + seconds + PATIENCE_S
        time.sleep(0.5)
        for site in SITES if time.monotonic() > begin_s + warm_s else ():
            pid, rekeys = pair.processes[site].pid, pair.log(site).count(" Established ")
            taken[site].append((rekeys, resident_bytes(pid)))
            fds[site].add(descriptors(pid))
    report = json.loads((pair.directory / "iperf3.json").read_text())["end"]["sum"]

    status = {site: pair.stop(site) for site in SITES}
    growth = {}
    for site in SITES:
        rekeys, octets = np.array(taken[site], dtype=float).T
        growth[site] = float(np.polyfit(rekeys, octets, 1)[0])
    print(
        f"{seconds} s, {status['u']['rekeys']} rekeys, {report['packets']} packets, "
        f"{report['lost_packets']} lost, descriptors {fds}, "
        + ", ".join(f"{site}: {octets:+.0f} bytes a rekey" for site, octets in growth.items())
    )
    for site in SITES:
        sas = status[site]["sas"]
        assert sum(sa["icv_failures"] + sa["replays"] for sa in sas) == 0
        assert status[site]["rekeys"] >= seconds / 2
        # A rekey or a request to the KMS in its course holds one or two for a moment.
        assert max(fds[site]) - min(fds[site]) <= 2
        assert growth[site] < most_bytes_a_rekey
        kms_process = pair.processes.pop(f"kms-{site}")
        kms_process.terminate()
        kms_process.wait(PATIENCE_S)
    for site in SITES:
        log = pair.log(site)
        asked = len(re.findall(r" FetchKey(?:ById)? ", log))
        used = len(set(re.findall(r" InstallInbound .*key_id=(\S+)", log)))
        given = delivered_octets(pair.directory / f"kms-{site}" / "ledger") / KEY_OCTETS
        print(
            f"{site}: {asked} keys asked for, {given:g} given, {used} in use, {status[site]['keys']}"
        )
        assert not re.search(r" Failed .*no key", log)
        # A rekey that was under way at the end may have got a key, or no longer; not every one came into use.
        assert 0 <= asked - given <= 1
        assert 0 <= given - used <= 2
