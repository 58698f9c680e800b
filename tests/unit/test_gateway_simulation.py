"""Two gateways in memory, 330 ms of virtual time apart, over a link that loses and reorders."""

from __future__ import annotations

import hashlib
import heapq
import random
import struct
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from gateways.control import (
    ControlConfig,
    Endpoint,
    Failed,
    FetchKey,
    FetchKeyById,
    Policy,
    SendControl,
)
from gateways.encapsulation import KEEPALIVE, NON_ESP_MARKER
from gateways.initiator import Initiator
from gateways.messages import ControlCodec, MessageType, Role
from gateways.responder import Responder
from gateways.selectors import TrafficSelectors
from gateways.tunnel import Tunnel

MS = 10**6
S = 10**9
ONE_WAY = 330 * MS
PSK = b"a pre-shared key of 32 octets..."
NETS = IPv4Network("10.1.0.0/24"), IPv4Network("10.2.0.0/24")
CONFIG = ControlConfig(rekey_after_ns=5 * S, hard_after_ns=60 * S, grace_ns=2 * S, retransmit_ns=S)


@dataclass
class Kms:
    """Both sites' KMS: keys out of a seed, until `down`."""

    down: bool = False
    wrong: bool = False
    issued: list[str] = field(default_factory=list)

    def fetch(self) -> str:
        self.issued.append(str(uuid.UUID(int=len(self.issued) + 1)))
        return self.issued[-1]

    def key(self, key_id: str, end: int) -> bytes:
        key = hashlib.sha256(key_id.encode()).digest()
        return bytes((key[0] ^ (self.wrong and end == 1),)) + key[1:]


@dataclass
class Link:
    """What happens to a datagram, by its kind: probability of loss, copy, lateness."""

    control_loss: float = 0.0
    data_loss: float = 0.0
    copies: float = 0.0
    late: float = 0.0
    control_lateness_ns: int = 200 * MS
    data_lateness_ns: int = 200 * MS


class World:
    """Time, the link, the KMS and traffic in both directions."""

    def __init__(
        self,
        config: ControlConfig = CONFIG,
        link: Link | None = None,
        seed: int = 1,
        sequence_limit: int = 2**32 - 1,
    ) -> None:
        self.rng = random.Random(seed)
        self.link = link or Link()
        self.kms = Kms()
        self.now = 0
        self.ends: list[Tunnel] = []
        self.seen: Counter[str] = Counter()
        self.failures: list[str] = []
        self.wire: list[tuple[int, bytes]] = []
        self.sent, self.carried, self.received = (
            [Counter[bytes](), Counter[bytes]()] for _ in "123"
        )
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._tie = 0
        for end, role in enumerate(Role):
            endpoint = self.endpoint(role, config)
            selectors = TrafficSelectors([NETS[end]], [NETS[1 - end]])
            self.ends.append(Tunnel(endpoint, selectors, sequence_limit=sequence_limit))

    def endpoint(self, role: Role, config: ControlConfig) -> Endpoint:
        kind = Initiator if role is Role.INITIATOR else Responder
        return kind(config, ControlCodec(PSK, "SAE-U", "SAE-N", role), self.rng.randbytes)

    def start(self) -> World:
        self.ends[0].start(self.now)
        self.settle(0)
        return self

    def at(self, delay_ns: int, action: Callable[[], None]) -> None:
        self._tie += 1
        heapq.heappush(self._agenda, (self.now + delay_ns, self._tie, action))

    def run(self, seconds: float) -> World:
        until = self.now + round(seconds * S)
        while True:
            deadlines = [
                at for tunnel in self.ends if (at := tunnel.next_deadline_ns()) is not None
            ]
            times = [*deadlines, *(at for at, _, _ in self._agenda[:1])]
            if not times or min(times) > until:
                self.now = until
                return self
            self.now = max(self.now, min(times))
            if self._agenda and self._agenda[0][0] <= self.now:
                heapq.heappop(self._agenda)[2]()
                continue
            for end, tunnel in enumerate(self.ends):
                at = tunnel.next_deadline_ns()
                if at is not None and at <= self.now:
                    tunnel.tick(self.now)
                    self.settle(end)

    def traffic(self, every_ns: int, seconds: float, ends: tuple[int, ...] = (0, 1)) -> None:
        for number in range(round(seconds * S) // every_ns):
            for end in ends:
                self.at(number * every_ns, lambda end=end: self.send(end))  # type: ignore[misc]

    def send(self, end: int) -> None:
        number = self.sent[end].total()
        packet = inner(end, number)
        self.sent[end][packet] += 1
        datagram = self.ends[end].from_inside(packet, self.now)
        if datagram is not None:
            self.transmit(end, datagram, packet)
        self.settle(end)

    def transmit(self, end: int, datagram: bytes, packet: bytes | None = None) -> None:
        link = self.link
        self.wire.append((end, datagram))
        if self.rng.random() < (link.control_loss if packet is None else link.data_loss):
            return
        if packet is not None:
            self.carried[end][packet] += 1
        lateness = link.control_lateness_ns if packet is None else link.data_lateness_ns
        for _ in range(1 + (self.rng.random() < link.copies)):
            extra = self.rng.randrange(lateness) if self.rng.random() < link.late else 0
            self.at(ONE_WAY + extra, lambda: self.arrive(1 - end, datagram))

    def arrive(self, end: int, datagram: bytes) -> None:
        packet = self.ends[end].from_outside(datagram, self.now)
        if packet is not None:
            self.received[1 - end][packet] += 1
        self.settle(end)

    def settle(self, end: int) -> None:
        tunnel = self.ends[end]
        for event in tunnel.events():
            self.seen[type(event).__name__] += 1
            match event:
                case SendControl(message):
                    self.transmit(end, NON_ESP_MARKER + message)
                case FetchKey(exchange):
                    self.at(20 * MS, lambda x=exchange: self.answer(end, x, None))  # type: ignore[misc]
                case FetchKeyById(exchange, key_id):
                    self.at(20 * MS, lambda x=exchange, k=key_id: self.answer(end, x, k))  # type: ignore[misc]
                case Failed(reason):
                    self.failures.append(reason)

    def answer(self, end: int, exchange: bytes, key_id: str | None) -> None:
        if self.kms.down:
            self.ends[end].key_refused(exchange, "no keys", self.now)
        else:
            name = key_id or self.kms.fetch()
            self.ends[end].key_fetched(exchange, name, self.kms.key(name, end), self.now)
        self.settle(end)

    def refusals(self, end: int) -> Counter[str]:
        total = Counter(self.ends[end].drops)
        for record in self.status(end)["sas"]:
            for name, value in record.items():
                if isinstance(value, int) and name not in ("packets", "bytes"):
                    total[name] += value
        return +total

    def status(self, end: int) -> dict[str, Any]:
        return self.ends[end].status()

    def assert_nothing_lost(self, *expected: str) -> None:
        """Whatever the link carried was received, once; `expected` refusals are no loss."""
        for end in (0, 1):
            assert self.carried[end].total() > 0
            assert self.received[end] == self.carried[end]
            assert set(self.refusals(end)) <= {"replays", "control_refused", *expected}


def inner(end: int, number: int) -> bytes:
    source, destination = NETS[end][5], NETS[1 - end][7]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, 17, 0)
    return head + source.packed + destination.packed + number.to_bytes(8)


def up(**arguments: Any) -> World:
    world = World(**arguments).start().run(3)
    assert world.ends[0].usable
    assert world.ends[1].usable
    return world


def test_first_key_and_rekeys_without_a_lost_packet() -> None:
    world = up()
    assert world.kms.issued == world.ends[0].key_ids == world.ends[1].key_ids
    world.traffic(20 * MS, 60)
    world.run(70)
    world.assert_nothing_lost()
    assert world.sent == world.received
    assert world.ends[0].rekeys == world.ends[1].rekeys >= 10
    assert world.ends[0].retransmissions == 0
    assert world.kms.issued == world.ends[0].key_ids == world.ends[1].key_ids
    for end in (0, 1):
        installed = [sa for sa in world.status(end)["sas"] if sa["state"] == "installed"]
        assert sorted(sa["direction"] for sa in installed) == ["in", "out"]


def test_loss_copies_and_reordering() -> None:
    config = replace(CONFIG, rekey_after_ns=2 * S)
    link = Link(control_loss=0.05, data_loss=0.05, copies=0.05, late=0.1)
    world = up(config=config, link=link, seed=4)
    world.traffic(20 * MS, 120)
    world.run(125)
    world.assert_nothing_lost()
    assert world.ends[0].rekeys >= 40
    assert world.ends[0].retransmissions > 0
    assert world.refusals(0)["replays"] > 100  # the copies
    assert world.failures == []


@pytest.mark.parametrize("seed", range(5))
def test_control_messages_mostly_lost_or_very_late(seed: int) -> None:
    link = Link(control_loss=0.5, copies=0.2, late=0.5, control_lateness_ns=10 * S)
    world = World(link=link, seed=seed).start().run(60)
    world.traffic(50 * MS, 120)
    world.run(140)
    world.assert_nothing_lost("no_outbound_sa")
    assert world.ends[0].rekeys > 3
    assert world.ends[0].retransmissions > 10


def test_rekey_of_an_idle_tunnel_retires_the_old_pair() -> None:
    world = up().run(30)
    assert world.ends[1].rekeys >= 4
    for end in (0, 1):
        installed = [sa for sa in world.status(end)["sas"] if sa["state"] == "installed"]
        assert len(installed) <= 4  # the pair in use and, within its grace, the one before
    world.run(CONFIG.grace_ns / S)
    world.traffic(100 * MS, 1)
    world.run(2)
    world.assert_nothing_lost()


def test_responder_switches_on_data_when_every_confirm_is_lost() -> None:
    world = World()
    lose_confirms(world, 1000)
    world.start()
    world.traffic(100 * MS, 20)
    world.run(21)
    assert world.ends[0].rekeys == world.ends[1].rekeys >= 3
    world.assert_nothing_lost("no_outbound_sa")
    assert world.failures == []


def test_old_pair_lives_until_the_responder_has_switched() -> None:
    """Only the responder sends, and CONFIRM comes later than the grace period is long."""
    world = up()
    lose_confirms(world, 3)
    world.traffic(50 * MS, 20, ends=(1,))
    world.run(25)
    assert world.received[1] == world.sent[1]
    assert world.ends[0].retransmissions >= 3
    assert world.ends[1].rekeys >= 1


def lose_confirms(world: World, number: int) -> None:
    transmit, left = world.transmit, [number]

    def selective(end: int, datagram: bytes, packet: bytes | None = None) -> None:
        confirm = datagram[:4] == NON_ESP_MARKER and datagram[5] == MessageType.CONFIRM
        left[0] -= confirm
        if not confirm or left[0] < 0:
            transmit(end, datagram, packet)

    world.transmit = selective  # type: ignore[method-assign]


def test_wrong_key_lets_nothing_pass_and_says_so() -> None:
    world = World()
    world.kms.wrong = True
    world.start().run(3)
    world.traffic(50 * MS, 20)
    world.run(25)
    for end in (0, 1):
        assert world.received[end].total() == 0
        assert world.refusals(1 - end)["icv_failures"] == world.carried[end].total() > 350


def test_sequence_limit_stops_the_sa() -> None:
    config = replace(CONFIG, rekey_after_ns=50 * S)
    world = up(config=config, sequence_limit=100)
    world.traffic(10 * MS, 2, ends=(0,))
    world.run(5)
    assert world.received[0].total() == 100
    assert world.refusals(0)["exhausted"] == 100
    world.run(50)
    world.traffic(10 * MS, 0.5, ends=(0,))
    world.run(5)
    assert world.received[0].total() == 150


@pytest.mark.parametrize("sender", [0, 1])
def test_soft_packet_limit_rekeys_before_the_sequence_limit(sender: int) -> None:
    config = replace(CONFIG, rekey_after_ns=50 * S, soft_packets=100)
    world = up(config=config, sequence_limit=400)
    world.traffic(10 * MS, 20, ends=(sender,))
    world.run(25)
    assert world.received[sender] == world.sent[sender]
    assert world.received[sender].total() == 2000
    assert world.ends[0].rekeys >= 8


def test_fail_closed_ends_the_sa_and_recovers() -> None:
    config = replace(CONFIG, hard_after_ns=10 * S)
    world = up(config=config)
    world.kms.down = True
    world.run(30)
    assert not world.ends[0].usable
    assert not world.ends[1].usable
    assert world.seen["RetireOutbound"] == 2
    assert "no keys" in world.failures
    assert "hard lifetime reached without a new key" in world.failures
    world.traffic(100 * MS, 1)
    world.run(2)
    assert world.received[0].total() == world.received[1].total() == 0
    assert world.refusals(0)["no_outbound_sa"] == world.refusals(1)["no_outbound_sa"] == 10
    world.kms.down = False
    world.run(62)
    assert world.ends[0].usable
    assert world.ends[1].usable


def test_hold_keeps_the_sa_and_counts_it() -> None:
    config = replace(CONFIG, hard_after_ns=10 * S, policy=Policy.HOLD)
    world = up(config=config)
    world.kms.down = True
    world.run(100)
    assert (world.ends[0].held, world.ends[1].held) == (1, 1)
    world.traffic(100 * MS, 1)
    world.run(2)
    world.assert_nothing_lost()
    world.kms.down = False
    world.run(65)
    assert world.ends[0].rekeys >= 1
    assert len([sa for sa in world.status(1)["sas"] if sa["state"] == "installed"]) <= 4


def test_responder_without_the_key_refuses_and_a_later_key_is_taken() -> None:
    world = World()
    answer = world.answer
    refused: list[str | None] = []

    def first_refused(end: int, exchange: bytes, key_id: str | None) -> None:
        if end == 1 and not refused:
            refused.append(key_id)
            world.ends[1].key_refused(exchange, "never heard of it", world.now)
            world.settle(1)
        else:
            answer(end, exchange, key_id)

    world.answer = first_refused  # type: ignore[method-assign]
    world.start().run(10)
    assert world.failures == [
        "never heard of it",
        "peer refused the key: no such key at this site",
    ]
    assert world.ends[0].usable
    assert world.ends[0].key_ids[0] != refused[0]


def test_restarted_initiator_is_taken_on() -> None:
    world = up()
    old = list(world.wire)
    endpoint = world.endpoint(Role.INITIATOR, CONFIG)
    world.ends[0] = Tunnel(endpoint, TrafficSelectors([NETS[0]], [NETS[1]]))
    world.ends[0].start(world.now)
    world.settle(0)
    world.run(3)
    world.traffic(100 * MS, 1)
    world.run(2)
    world.assert_nothing_lost()
    fetches = world.seen["FetchKeyById"]
    for end, datagram in old:  # the first session, replayed whole
        world.arrive(1 - end, datagram)
    assert world.seen["FetchKeyById"] == fetches == 2
    assert world.failures == []


def test_replayed_conversation_changes_nothing() -> None:
    world = up()
    world.traffic(100 * MS, 30)
    world.run(33)
    keys, received = list(world.kms.issued), world.received[0].total()
    fetches = world.seen["FetchKeyById"]
    for end, datagram in list(world.wire):
        world.arrive(1 - end, datagram)
    assert world.seen["FetchKeyById"] == fetches
    assert world.kms.issued == keys
    assert world.received[0].total() == received
    assert world.refusals(1)["control_refused"] > 0


def test_stray_datagrams_are_dropped_in_silence() -> None:
    world = up()
    wire = len(world.wire)
    strays = [b"", b"\xff", b"\0", bytes(4), bytes(300), b"\0\0\x10\x01" + bytes(60), b"x" * 2000]
    for end in (0, 1):
        for stray in strays:
            world.arrive(end, stray)
        assert world.ends[end].drops["keepalives"] == 1
        assert world.ends[end].drops["control_refused"] == 2
        assert world.ends[end].drops["unknown_spi"] == 4
    assert KEEPALIVE in strays
    assert len(world.wire) == wire


def test_outside_the_selectors_nothing_is_sealed() -> None:
    world = up()
    strangers = [
        inner(1, 1),
        b"\x60" + bytes(60),
        inner(0, 1)[:12] + IPv4Address("10.9.9.9").packed + inner(0, 1)[16:],
    ]
    for packet in strangers:
        assert world.ends[0].from_inside(packet, world.now) is None
    assert world.refusals(0) == {"outside_selectors": 3}


def test_no_key_and_iv_pair_ever_repeats() -> None:
    config = replace(CONFIG, rekey_after_ns=2 * S)
    world = up(config=config, link=Link(control_loss=0.2, data_loss=0.1), seed=9)
    world.traffic(20 * MS, 60)
    world.run(65)
    sealed = [(end, d[:16]) for end, d in world.wire if d[:4] != NON_ESP_MARKER]
    assert len(sealed) == len(set(sealed)) > 5000
    assert len({header[:4] for _, header in sealed}) >= 2 * world.ends[0].rekeys
