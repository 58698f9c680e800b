"""How long does one gateway hold one packet? A measurement that ends in a decision.

The plan's virtual clock counts no computation, so the cost of sealing and opening is a term of the
plan, `processing_us`, for each gateway and direction. This note measures it on the machine's own
kernel: two namespaces on one veth pair, a gateway in each, and two `ping`s at a time, one to the
other gateway directly, one through the tunnel, taking turns. The difference of the medians is what
two gateways add in both directions: four passes.

Needs root, /dev/net/tun, iproute2 and ping. Run: `sudo python docs/notes/gateway_processing.py`.

Decision
--------
`processing_us` = 125 for each gateway and direction: 0.5 ms in the RTT.

On two cores of a shared AMD EPYC virtual machine (Linux 6.18, Python 3.11), three runs of this note
gave medians between 122 and 188 µs a pass; the payload's length is lost in the noise. Little of it
is work: with flood pings, when no process sleeps between packets, a pass costs 15 to 40 µs, of
which the cipher takes 1 or 2. The rest is waking a sleeping process on a halted core. Probes of the
experiments come once a second, so they meet sleeping gateways, and the plan takes the sleeping
figure. Against the 5 ms that the paper ascribes to its tunnel, any value in this range says the
same.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateways.config import load_config
from gateways.gateway import Gateway, harden

DECISION_US = 125.0
"""`processing_us` of the plan, for each gateway and direction."""

ROUNDS = 5
PINGS = 200
INTERVAL_S = 0.02
OUTER = ("192.0.2.1", "192.0.2.2")
INNER = ("10.81.1.1", "10.81.2.1")
PREFIX = ("10.81.1.0/24", "10.81.2.0/24")
PATIENCE_S = 30.0


class KeysFromNames:
    """Stands where the KMS is: the time of a key request is no part of a packet's."""

    def fetch(self) -> tuple[str, bytes]:
        key_id = str(uuid.uuid4())
        return key_id, self.fetch_by_id(key_id)

    def fetch_by_id(self, key_id: str) -> bytes:
        return hashlib.sha256(key_id.encode()).digest()


def run(*command: str) -> None:
    subprocess.run(command, check=True)


@contextmanager
def namespaces() -> Iterator[tuple[str, str]]:
    """Two namespaces on one veth pair, with names of their own, removed by name."""
    tag = f"qnote{uuid.uuid4().hex[:6]}"
    names = (f"{tag}a", f"{tag}b")
    made: list[str] = []
    try:
        for name in names:
            run("ip", "netns", "add", name)
            made.append(name)
        peer = ("peer", "name", "veth", "netns", names[1])
        run("ip", "link", "add", "name", "veth", "netns", names[0], "type", "veth", *peer)
        for name, outer, inner in zip(names, OUTER, INNER, strict=True):
            run("ip", "-n", name, "link", "set", "lo", "up")
            run("ip", "-n", name, "address", "add", f"{inner}/32", "dev", "lo")
            run("ip", "-n", name, "address", "add", f"{outer}/24", "dev", "veth")
            run("ip", "-n", name, "link", "set", "veth", "up")
        yield names
    finally:
        for name in made:
            run("ip", "netns", "del", name)


@contextmanager
def gateways(names: tuple[str, str], folder: Path) -> Iterator[None]:
    """A gateway in each namespace, ready."""
    processes = []
    try:
        for site in (1, 0):  # the responder first: it must hear the first proposal
            config = folder / f"{site}.json"
            config.write_text(
                json.dumps(
                    {
                        "name": names[site],
                        "role": ("initiator", "responder")[site],
                        "outer_local": OUTER[site],
                        "outer_peer": OUTER[1 - site],
                        "tun_address": f"10.81.9.{site + 1}/30",
                        "local": [PREFIX[site]],
                        "remote": [PREFIX[1 - site]],
                        "psk": "00" * 32,
                        "own_sae": str(site),
                        "peer_sae": str(1 - site),
                        "kms": dict.fromkeys(("base_url", "ca", "cert", "key", "kme_id"), "none"),
                    }
                )
            )
            said = folder / f"{site}.out"
            with said.open("wb") as out, (folder / f"{site}.err").open("wb") as err:
                command = [sys.executable, __file__, "gateway", str(config)]
                processes.append(
                    subprocess.Popen(
                        ["ip", "netns", "exec", names[site], *command], stdout=out, stderr=err
                    )
                )
            wait_for(said, "LISTENING")
        for site in (0, 1):
            wait_for(folder / f"{site}.out", "READY")
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_S)


def wait_for(file: Path, word: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while word not in file.read_text():
        if time.monotonic() > deadline:
            raise SystemExit(f"no {word} within {PATIENCE_S} s")
        time.sleep(0.02)


def interleaved_rtts_us(name: str, octets: int) -> tuple[list[float], list[float]]:
    """RTTs of the direct path and of the tunnel, µs: two pings at half an interval's distance."""
    pings = []
    for source, destination in ((OUTER[0], OUTER[1]), (INNER[0], INNER[1])):
        command = ["ping", "-n", "-s", str(octets), "-c", str(PINGS), "-i", str(INTERVAL_S)]
        pings.append(
            subprocess.Popen(
                ["ip", "netns", "exec", name, *command, "-I", source, destination],
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        time.sleep(INTERVAL_S / 2)
    direct, tunnel = (
        [1000 * float(ms) for ms in re.findall(r"time=([0-9.]+) ms", ping.communicate()[0])]
        for ping in pings
    )
    if not len(direct) == len(tunnel) == PINGS:
        raise SystemExit(f"{len(direct)} and {len(tunnel)} answers to {PINGS} pings each")
    return direct, tunnel


def awake_rtt_us(name: str, source: str, destination: str) -> float:
    """Mean RTT when the next packet follows each answer at once, so that nobody sleeps, µs."""
    command = ["ping", "-q", "-f", "-c", "5000", "-I", source, destination]
    done = subprocess.run(
        ["ip", "netns", "exec", name, *command], check=True, capture_output=True, text=True
    )
    found = re.search(r"= [0-9.]+/([0-9.]+)/", done.stdout)
    if found is None:
        raise SystemExit(done.stdout)
    return 1000 * float(found[1])


def measure() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        namespaces() as names,
        gateways(names, Path(folder)),
    ):
        print("payload  round  direct µs  tunnel µs  added µs  tunnel p10 µs  p90 µs  load")
        for octets in (56, 1364):
            added = []
            for number in range(1, ROUNDS + 1):
                direct, tunnel = interleaved_rtts_us(names[0], octets)
                middle = statistics.median(direct), statistics.median(tunnel)
                added.append(middle[1] - middle[0])
                tenths = statistics.quantiles(tunnel, n=10)
                print(
                    f"{octets:7}{number:7}{middle[0]:11.0f}{middle[1]:11.0f}{added[-1]:10.0f}"
                    f"{tenths[0]:15.0f}{tenths[-1]:8.0f}{os.getloadavg()[0]:6.1f}"
                )
            print(
                f"{octets:7}  added RTT: median of {ROUNDS} rounds {statistics.median(added):.0f} µs, "
                f"least {min(added):.0f} µs; "
                f"a quarter of the median: {statistics.median(added) / 4:.0f} µs"
            )
        awake = [awake_rtt_us(names[0], INNER[0], INNER[1]), awake_rtt_us(names[0], *OUTER)]
        print(
            f"without sleeping (flood): {awake[1]:.0f} µs direct, {awake[0]:.0f} µs through the "
            f"tunnel; a quarter of the difference: {(awake[0] - awake[1]) / 4:.0f} µs"
        )
    print(f"decision: processing_us = {DECISION_US:g} for each gateway and direction")


if __name__ == "__main__":
    if sys.argv[1:2] == ["gateway"]:
        harden()
        Gateway(load_config(Path(sys.argv[2])), KeysFromNames()).run()
    elif os.geteuid() != 0:
        sys.exit("needs root, for network namespaces and TUN")
    else:
        measure()
