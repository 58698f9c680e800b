"""A line between two gateways, simulated, with plain ESP or constant-rate ESP (RFC 9347) on it.

The gateways' own cores (`gateways.esp`, `gateways.aggfrag`, `gateways.pacer`) carry real packets; the line has the
slowest rate and the constant delay between the gateways of a scenario. Time is computed, nothing waits.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Final, Literal

import numpy as np
from numpy.random import Generator

from gateways.aggfrag import NEXT_AGGFRAG, Receiver, Sender
from gateways.encapsulation import Encapsulation, inner_mtu, outer_length
from gateways.esp import InboundSa, OutboundSa
from gateways.keys import SaKeys
from gateways.pacer import Pacer
from gateways.selectors import TrafficSelectors
from gateways.suites import AES_128_GCM, Suite
from topo.errors import InputError
from topo.planner import build_plan
from topo.scenario import Scenario

Arrivals = list[tuple[int, bytes]]
"""(ns since the start, inner packet), in order."""
Way = Literal["up", "down"]

NS_PER_S: Final = 1_000_000_000
PATH_MTU: Final = 1500
QUEUE_S: Final = 1.0
"""What waits for the line or for a slot is bounded by this time's worth of octets, in both modes."""
_SPI: Final = 0x1000
_HERE, _THERE = IPv4Network("10.1.0.0/16"), IPv4Network("10.2.0.0/16")


@dataclass(frozen=True, slots=True)
class TfsLine:
    """The line between the gateways, one way, and what travels on it."""

    rate_bps: int
    delay_ns: int
    suite: Suite = AES_128_GCM

    @property
    def payload_octets(self) -> int:
        """The longest AGGFRAG payload that a path of `PATH_MTU` carries."""
        return inner_mtu(PATH_MTU, self.suite)

    @property
    def slot_octets(self) -> int:
        """Length of the outer packet in each slot, octets."""
        return outer_length(self.payload_octets, self.suite)

    @property
    def queue_octets(self) -> int:
        return round(self.rate_bps * QUEUE_S / 8)

    def interval_ns(self, rate_bps: int) -> float:
        """From slot to slot at a constant rate, ns."""
        return Pacer(rate_bps, self.slot_octets, 0).interval_ns

    def serialisation_ns(self, octets: int) -> int:
        return octets * 8 * NS_PER_S // self.rate_bps


def line_of(scenario: Scenario, way: Way = "up", suite: Suite = AES_128_GCM) -> TfsLine:
    """The line between the gateways of a scenario's first arm with a tunnel.

    Raises `InputError` where there is none.
    """
    name = next((name for name, arm in scenario.arms.items() if arm.tunnel), None)
    if name is None:
        raise InputError(f"{scenario.name}: no arm with a tunnel; set arms.NAME.tunnel = true")
    ends = ("EG-U", "EG-N") if way == "up" else ("EG-N", "EG-U")
    hops = [direction for _, _, direction in build_plan(scenario, name).directions(*ends)]
    delay_ns = sum(hop.netem.delay_ns for hop in hops)
    return TfsLine(min(hop.rate_bps for hop in hops), delay_ns, suite)


# -- traffic --------------------------------------------------------------------------------------


def inner_packet(octets: int, number: int = 0) -> bytes:
    """An IPv4 packet of UDP from one side to the other; no two of 65536 are equal. Its checksums are left 0."""
    head = bytes((0x45, 0)) + octets.to_bytes(2) + (number & 0xFFFF).to_bytes(2)
    head += bytes((0x40, 0, 64, 17, 0, 0))
    head += IPv4Address("10.1.0.2").packed + IPv4Address("10.2.0.2").packed
    return head + bytes(octets - len(head))


def _silence(seconds: float, rng: Generator) -> Iterator[tuple[float, int]]:
    return iter(())


def _sensor(seconds: float, rng: Generator) -> Iterator[tuple[float, int]]:
    """100 octets at random, once a second on average."""
    at = rng.exponential(1.0)
    while at < seconds:
        yield at, 100
        at += rng.exponential(1.0)


def _voice(seconds: float, rng: Generator) -> Iterator[tuple[float, int]]:
    """G.711 over RTP: 200 octets every 20 ms."""
    at = rng.uniform(0, 0.020)
    while at < seconds:
        yield at, 200
        at += 0.020


def _web(seconds: float, rng: Generator) -> Iterator[tuple[float, int]]:
    """Pages at random, one in 4 s: bursts of 20 packets of 1400 octets on average, 10 ms, one behind the other."""
    at = rng.exponential(4.0)
    while at < seconds:
        for number in range(int(rng.geometric(1 / 20))):
            yield at + number * 0.0005, 1400
        at += 0.01 + rng.exponential(4.0)


TRAFFIC: Final[Mapping[str, Callable[[float, Generator], Iterator[tuple[float, int]]]]] = {
    "silence": _silence,
    "sensor": _sensor,
    "voice": _voice,
    "web": _web,
}
"""Kinds of traffic: (seconds, generator) -> (time in s, octets) of each packet."""


def arrivals(kind: str, seconds: float, seed: int) -> Arrivals:
    """The packets of one kind of traffic during `seconds`, in order."""
    drawn = sorted(TRAFFIC[kind](seconds, np.random.default_rng([seed, *kind.encode()])))
    return [
        (round(at * NS_PER_S), inner_packet(octets, number))
        for number, (at, octets) in enumerate(drawn)
        if at < seconds
    ]


# -- the two modes --------------------------------------------------------------------------------


@dataclass
class Passage:
    """What happened on the line and behind it."""

    sent: list[tuple[int, int]] = field(default_factory=list)
    """Of each outer packet: when its first bit left, ns, and its length, octets."""
    delays_ns: list[int] = field(default_factory=list)
    """Of each inner packet that came through."""
    dropped: int = 0
    """Inner packets for which the queue had no room."""
    inner_octets: int = 0

    @property
    def useful_share(self) -> float:
        """Inner octets for one octet on the line."""
        return self.inner_octets / max(1, sum(octets for _, octets in self.sent))


class _Wire:
    """One way of the line, with a pair of SAs at its ends."""

    def __init__(self, line: TfsLine) -> None:
        keys = SaKeys.from_keymat(line.suite, os.urandom(line.suite.keymat_octets))
        self.line = line
        self.outbound = OutboundSa(_SPI, keys)
        self.inbound = InboundSa(_SPI, keys, TrafficSelectors([_THERE], [_HERE]))
        self.passage = Passage()
        self.free_ns = 0

    def send(self, now_ns: int, esp: bytes) -> int:
        """Put an outer packet on the line, behind what is there; when its last bit arrives, ns."""
        octets = Encapsulation.UDP.octets + len(esp)
        begins_ns = max(now_ns, self.free_ns)
        self.free_ns = begins_ns + self.line.serialisation_ns(octets)
        self.passage.sent.append((begins_ns, octets))
        return self.free_ns + self.line.delay_ns

    def delivered(self, sent: tuple[int, bytes], packet: bytes, at_ns: int) -> None:
        """Note an inner packet that came out, which must be the one that went in."""
        put_ns, original = sent
        assert packet == original
        self.passage.delays_ns.append(at_ns - put_ns)
        self.passage.inner_octets += len(packet)


def plain(line: TfsLine, packets: Arrivals) -> Passage:
    """Every inner packet in an ESP packet of its own, sent as soon as the line is free."""
    wire = _Wire(line)
    longest_wait_ns = line.serialisation_ns(line.queue_octets)
    for at_ns, packet in packets:
        if wire.free_ns - at_ns > longest_wait_ns:
            wire.passage.dropped += 1
            continue
        esp = wire.outbound.seal(packet)
        arrived_ns = wire.send(at_ns, esp)
        wire.delivered((at_ns, packet), wire.inbound.open(esp), arrived_ns)
    return wire.passage


def constant(line: TfsLine, packets: Arrivals, rate_bps: int, seconds: float) -> Passage:
    """A payload every slot for `seconds`, and on until nothing waits. Raises `InputError` for more than the line."""
    if rate_bps > line.rate_bps:
        raise InputError(
            f"constant rate {rate_bps / 1e6:g} Mbit/s: the line has {line.rate_bps / 1e6:g}"
        )
    wire = _Wire(line)
    sender, receiver = Sender(line.payload_octets, line.queue_octets), Receiver()
    pacer = Pacer(rate_bps, line.slot_octets, 0)
    coming, under_way = deque(packets), deque[tuple[int, bytes]]()
    end_ns = round(seconds * NS_PER_S)
    while (slot_ns := pacer.next_ns()) < end_ns or coming or sender.waiting_octets:
        while coming and coming[0][0] <= slot_ns:
            if sender.put(coming[0][1]):
                under_way.append(coming[0])
            else:
                wire.passage.dropped += 1
            coming.popleft()
        pacer.take(slot_ns)
        esp = wire.outbound.seal_payload(NEXT_AGGFRAG, sender.next_payload())
        arrived_ns = wire.send(slot_ns, esp)
        _, payload = wire.inbound.open_payload(esp)
        for packet in receiver.take(wire.outbound.sequence, payload):
            wire.delivered(under_way.popleft(), packet, arrived_ns)
    return wire.passage
