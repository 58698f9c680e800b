"""How fast a pair of gateways carries packets, beside others in user space and beside no gateway at all.

`qntn bench gateways` runs client, two gateways and server in network namespaces of this machine, a chain for each
contender, and lets them take turns in every round: TCP with one stream and with eight, UDP of 64 and of 1300 octets as
fast as it goes, round trips of ICMP probes 5 ms apart on an idle tunnel and beside 100 Mbit/s of TCP. Then TCP and UDP
once more with every wire carrying single packets, as real interfaces do. What the gateways cost in CPU time is the
sturdier figure: everything shares the machine's cores, `external` tells how much of them others took meanwhile.

`pass_us` is what one gateway adds to one packet on its way, and the scenarios' `gateways.processing_us`: computation
takes no time on a virtual clock, so the plan has it as a term of its own.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from experiments.bench import gateway_strongswan, gateway_wireguard
from experiments.bench.gateway_chain import (
    GATEWAYS,
    INSIDE,
    OUTSIDE,
    PATIENCE_S,
    SERVER,
    Chain,
    missing,
    until,
)
from experiments.progress import Reporter
from gateways.checksum import checksum
from gateways.suites import SUITES, Suite
from topo.errors import FeatureMissing, MeasurementError

DIRECT, STRONGSWAN, WIREGUARD = "direct", "strongSwan", "wireguard-go"
PROBE_SPACING_S = 0.005
LOAD_MBPS = 100
_PATH_MTU = 1462
"""Leaves 1400 octets inside with AES-GCM, what strongSwan's tunnel has."""
_ICMP_FILTER, _SOL_RAW, _SO_TIMESTAMPNS = 1, 255, 35
_ECHO = 8
_PROBE_OCTETS = 64
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_CIPHER_OCTETS = 1400
_WARM_UP_S = 0.3
_ATTEMPTS = 4
_PAUSE_S = 1.0
_PASSES = 4
"""Of a probe and its answer: each gateway seals one of them and opens the other."""

Figures = dict[str, float]


@dataclass
class Contender:
    """A pair of gateways under test: how it is set up on a chain; `info` is what it then says of itself."""

    name: str
    start: Callable[[Chain, Path], dict[str, Any]]
    info: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, list[Figures]] = field(default_factory=dict)


def run(seconds: float, rounds: int, reporter: Reporter) -> dict[str, Any]:
    """Measure every contender `rounds` times, `seconds` each time; medians and single figures, JSON-able.

    Raises `FeatureMissing` without root or iperf3, `MeasurementError` where a tunnel does not come up. A peer that the
    machine lacks is left out, and its remedy noted.
    """
    if os.geteuid() != 0:
        raise FeatureMissing("root", "The benchmark makes network namespaces: run it with sudo.")
    if missing("iperf3", "ethtool"):
        raise FeatureMissing("iperf3 and ethtool", "apt install iperf3 ethtool")
    contenders = [Contender(DIRECT, lambda _chain, _folder: {})]
    left_out = {}
    for name, peer in ((STRONGSWAN, gateway_strongswan), (WIREGUARD, gateway_wireguard)):
        lacking = peer.lacking()
        if lacking:
            left_out[name] = lacking
            reporter.note(f"{name} is left out: {lacking}")
        else:
            contenders.append(Contender(name, peer.start))
    contenders += [Contender(f"qntn {suite.name}", ours(suite)) for suite in SUITES.values()]
    tests = _tests(seconds)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qntn-bench-")))
        reporter.stage("gateways come up", len(contenders))
        chains = []
        for number, contender in enumerate(contenders):
            folder = scratch / str(number)
            folder.mkdir()
            chain = stack.enter_context(Chain())
            contender.info = contender.start(chain, folder)
            chain.serve(folder / "iperf3.log")
            chains.append(chain)
            reporter.advance(number + 1, contender.name)
        for wires in ("shared", "segmented"):
            chosen = {
                name: test
                for name, test in tests.items()
                if wires == "shared" or name in _SEGMENTED
            }
            reporter.stage(f"{rounds} rounds, wires {wires}", rounds * len(chains) * len(chosen))
            done = 0
            for chain in chains:
                chain.segmented(wires == "segmented")
            for _ in range(rounds):
                for contender, chain in zip(contenders, chains, strict=True):
                    for name, test in chosen.items():
                        key = name if wires == "shared" else f"{name}_segmented"
                        contender.figures.setdefault(key, []).append(
                            _attempted(test, chain, f"{contender.name}: {key}", reporter)
                        )
                        done += 1
                        reporter.advance(done, f"{contender.name}: {key}")
    return _result(contenders, seconds, rounds, left_out)


def _attempted(
    test: Callable[[Chain], Figures], chain: Chain, name: str, reporter: Reporter
) -> Figures:
    """One measurement; again where it failed, since a flood of UDP may starve iperf3's own connection."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return test(chain)
        except MeasurementError as error:
            reporter.note(f"{name}: {error}; once more")
            time.sleep(_PAUSE_S)
    return test(chain)


_SEGMENTED: Final = ("tcp1", "udp64")


def _tests(seconds: float) -> dict[str, Callable[[Chain], Figures]]:
    return {
        "rtt_idle": lambda chain: _rtt(chain, seconds),
        "tcp1": lambda chain: _tcp(chain, seconds, 1),
        "tcp8": lambda chain: _tcp(chain, seconds, 8),
        "udp64": lambda chain: _udp(chain, seconds, 64),
        "udp1300": lambda chain: _udp(chain, seconds, 1300),
        "rtt_loaded": lambda chain: _rtt_loaded(chain, seconds),
    }


def ours(suite: Suite) -> Callable[[Chain, Path], dict[str, Any]]:
    """How to start our gateways on a chain, with one suite."""

    def start(chain: Chain, folder: Path) -> dict[str, Any]:
        for site in GATEWAYS:
            other = "b" if site == "a" else "a"
            config = {
                "name": site,
                "role": "initiator" if site == "a" else "responder",
                "outer_local": OUTSIDE[site],
                "outer_peer": OUTSIDE[other],
                "path_mtu": _PATH_MTU,
                "tun_address": f"10.81.9.{GATEWAYS.index(site) + 1}/30",
                "local": [INSIDE[site]],
                "remote": [INSIDE[other]],
                "suites": [suite.name],
                "psk": "00" * 16,
                "own_sae": site,
                "peer_sae": other,
                "kms": dict.fromkeys(("base_url", "ca", "cert", "key", "kme_id"), "unused"),
                "rekey_after_s": 3600,
            }
            path = folder / f"{site}.json"
            path.write_text(json.dumps(config))
            argv = [sys.executable, "-m", "experiments.bench.gateway_peer", str(path)]
            chain.gateways.append(chain.start(site, argv, folder / f"{site}.log"))
        for site in GATEWAYS:
            log = folder / f"{site}.log"
            until(lambda log=log: "READY" in log.read_text(), f"{suite.name} ({log})")  # type: ignore[misc]
        return {"cipher_mbit_per_s": _cipher_mbit_per_s(suite)}

    return start


def _cipher_mbit_per_s(suite: Suite) -> float:
    """How fast one core seals packets of 1400 octets with the suite and does nothing else, Mbit/s."""
    cipher = suite.cipher(bytes(suite.keymat_octets))
    octets = suite.inner_octets(suite.esp_octets(_CIPHER_OCTETS)) + 2
    plaintext, best_s = bytes(octets), float("inf")
    for _ in range(5):
        begin_s = time.thread_time()
        for number in range(500):
            cipher.protect(bytes(8), number, plaintext)
        best_s = min(best_s, time.thread_time() - begin_s)
    return 500 * octets * 8 / best_s / 1e6


def _tcp(chain: Chain, seconds: float, streams: int) -> Figures:
    """Goodput of TCP from client to server, and what the gateways spent on it."""
    report, spent = _iperf3(chain, seconds, "-C", "cubic", "-P", str(streams))
    received = report["end"]["sum_received"]
    return {
        "mbit_per_s": received["bits_per_second"] / 1e6,
        "retransmits": report["end"]["sum_sent"]["retransmits"],
        "cpu_s_per_gbit": spent["gateways_s"] * 1e9 / (received["bytes"] * 8),
        **spent,
    }


def _udp(chain: Chain, seconds: float, octets: int) -> Figures:
    """Datagrams a second that arrive when they are sent as fast as they go."""
    report, spent = _iperf3(chain, seconds, "-u", "-b", "0", "-l", str(octets))
    total = report["end"]["sum"]
    arrived = total["packets"] - total["lost_packets"]
    return {
        "pps": arrived / total["seconds"],
        "offered_pps": total["packets"] / total["seconds"],
        "cpu_us_per_packet": spent["gateways_s"] * 1e6 / max(arrived, 1),
        **spent,
    }


def _iperf3(chain: Chain, seconds: float, *options: str) -> tuple[dict[str, Any], Figures]:
    with _spent(chain) as spent:
        report = chain.iperf3("-t", f"{seconds:g}", *options, timeout_s=seconds + PATIENCE_S)
    return report, spent


def _rtt_loaded(chain: Chain, seconds: float) -> Figures:
    """Round trips beside one TCP stream of `LOAD_MBPS`."""
    argv = ["iperf3", "-c", SERVER, "-t", f"{seconds + 1:g}", "-C", "cubic", "-b", f"{LOAD_MBPS}M"]

    def popen() -> subprocess.Popen[bytes]:
        return subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    load = chain.hosts["client"].run(popen)
    try:
        time.sleep(_WARM_UP_S)
        return _rtt(chain, seconds)
    finally:
        try:
            load.wait(seconds + PATIENCE_S)
        except subprocess.TimeoutExpired:
            load.kill()
            load.wait()


def _rtt(chain: Chain, seconds: float) -> Figures:
    """Round trips of ICMP probes, from the system call to the kernel's receive time stamp, µs."""
    taken_us = []
    sent = int(seconds / PROBE_SPACING_S)
    with _spent(chain) as spent, chain.hosts["client"].run(_icmp_socket) as icmp:
        for number in range(sent):
            time.sleep(PROBE_SPACING_S)
            probe = struct.pack("!BBHHH", _ECHO, 0, 0, 1, number & 0xFFFF) + bytes(
                _PROBE_OCTETS - 8
            )
            probe = probe[:2] + checksum(probe).to_bytes(2) + probe[4:]
            begin_ns = time.time_ns()
            icmp.sendto(probe, (SERVER, 0))
            arrived_ns = _answer(icmp, number & 0xFFFF)
            if arrived_ns is not None:
                taken_us.append((arrived_ns - begin_ns) / 1e3)
    if len(taken_us) < 10:
        raise MeasurementError(f"{len(taken_us)} answers to {sent} probes")
    cut = statistics.quantiles(taken_us, n=100)
    return {"p50_us": cut[49], "p99_us": cut[98], "lost": sent - len(taken_us), **spent}


def _icmp_socket() -> socket.socket:
    icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    icmp.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("@I", ~1 & 0xFFFFFFFF))
    icmp.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    icmp.settimeout(0.5)
    return icmp


def _answer(icmp: socket.socket, number: int) -> int | None:
    """When the answer to a probe came, Unix ns; None if it did not."""
    while True:
        try:
            packet, ancillary, _, _ = icmp.recvmsg(2048, socket.CMSG_SPACE(16))
        except TimeoutError:
            return None
        if int.from_bytes(packet[26:28]) == number:
            seconds, nanoseconds = struct.unpack("@ll", ancillary[0][2])
            return int(seconds) * 10**9 + int(nanoseconds)


@contextmanager
def _spent(chain: Chain) -> Iterator[Figures]:
    """CPU seconds of the chain's gateways, and the share of all cores that programs outside the benchmark took."""
    spent: Figures = {}
    ours = [process.pid for process in chain.gateways]
    before = [_process_s(ours), _ours_s(chain), _busy_s(), time.monotonic()]
    yield spent
    after = [_process_s(ours), _ours_s(chain), _busy_s(), time.monotonic()]
    gateways_s, ours_s, busy_s, elapsed_s = (b - a for a, b in zip(before, after, strict=True))
    spent["gateways_s"] = gateways_s
    spent["external"] = max(0.0, busy_s - ours_s) / elapsed_s / (os.cpu_count() or 1)


def _ours_s(chain: Chain) -> float:
    """CPU seconds of all programs of a chain, and of this one and those it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    here_s = sum(usage.ru_utime + usage.ru_stime for usage in used)
    return here_s + _process_s([process.pid for process in chain.programs])


def _process_s(pids: list[int]) -> float:
    """CPU seconds of processes, all their threads."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def _busy_s() -> float:
    """Seconds that all cores spent in programs, not in interrupts."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return sum(int(value) for value in fields[1:4]) / _TICKS


def _result(
    contenders: list[Contender], seconds: float, rounds: int, left_out: dict[str, str]
) -> dict[str, Any]:
    direct = contenders[0]
    found: dict[str, Any] = {
        "seconds": seconds,
        "rounds": rounds,
        "machine": {
            "cores": os.cpu_count(),
            "kernel": os.uname().release,
            "load": os.getloadavg()[0],
        },
        "left_out": left_out,
        "contenders": {},
    }
    for contender in contenders:
        tests = {
            name: {key: _median([one[key] for one in taken]) for key in taken[0]}
            for name, taken in contender.figures.items()
        }
        for name in ("rtt_idle", "rtt_loaded"):
            nothing = statistics.median(one["p50_us"] for one in direct.figures["rtt_idle"])
            tests[name]["added_p50_us"] = tests[name]["p50_us"] - nothing
            tests[name]["added_p99_us"] = tests[name]["p99_us"] - nothing
        tests["rtt_idle"]["pass_us"] = tests["rtt_idle"]["added_p50_us"] / _PASSES
        speed = contender.info.get("cipher_mbit_per_s")
        if speed:
            tests["tcp1"]["of_cipher"] = tests["tcp1"]["mbit_per_s"] / speed
        found["contenders"][contender.name] = {
            "info": contender.info,
            "medians": tests,
            "rounds": contender.figures,
        }
    return found


def _median(values: list[float]) -> float:
    return statistics.median(values)
