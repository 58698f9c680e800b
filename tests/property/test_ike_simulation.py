"""Two gateways in memory with IKEv2 between them, 330 ms of virtual time apart, over a link that loses and reorders."""

from __future__ import annotations

import hashlib
import heapq
import random
import struct
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from gateways.encapsulation import KEEPALIVE, NON_ESP_MARKER
from gateways.events import (
    Failed,
    FetchKey,
    FetchKeyById,
    Policy,
    SendControl,
)
from gateways.ike.auth import Psk
from gateways.ike.config import IkeConfig, Keying
from gateways.ike.endpoint import IkeEndpoint
from gateways.ike.numbers import Exchange
from gateways.selectors import TrafficSelectors
from gateways.suites import SUITES, Suite
from gateways.tunnel import Tunnel

MS = 10**6
S = 10**9
ONE_WAY = 330 * MS
PSK = b"a pre-shared key of 32 octets..."
NETS = IPv4Network("10.1.0.0/24"), IPv4Network("10.2.0.0/24")
NAMES = "EG-U", "EG-N"
CONFIG: dict[str, Any] = {
    "rekey_after_ns": 5 * S,
    "hard_after_ns": 60 * S,
    "grace_ns": 2 * S,
    "retransmit_ns": S,
}


def ike_config(end: int, changes: dict[str, Any]) -> IkeConfig:
    """The configuration of the initiator (end 0) or the responder."""
    addresses = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
    base = {
        "own_id": NAMES[end],
        "peer_id": NAMES[1 - end],
        "credentials": Psk(PSK),
        "begins": end == 0,
        "local": (NETS[end],),
        "remote": (NETS[1 - end],),
        "own_address": addresses[end],
        "peer_address": addresses[1 - end],
    }
    return IkeConfig(**base | CONFIG | changes)


@dataclass
class Kms:
    """Both sites' KMS: keys out of a seed, until `down`."""

    down: bool = False
    delay_ns: int = 20 * MS
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
        config: dict[str, Any] | None = None,
        responder: dict[str, Any] | None = None,
        link: Link | None = None,
        seed: int = 1,
        sequence_limit: int = 2**32 - 1,
    ) -> None:
        self.rng = random.Random(seed)
        self.link = link or Link()
        self.kms = Kms()
        self.now = 0
        self.ends: list[Tunnel] = []
        self.ikes: list[IkeEndpoint] = []
        self.seen: Counter[str] = Counter()
        self.failures: list[str] = []
        self.wire: list[tuple[int, bytes]] | deque[tuple[int, bytes]] = []
        self.sent, self.carried, self.received = (
            [Counter[bytes](), Counter[bytes]()] for _ in "123"
        )
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._tie = 0
        both = config or {}
        # As configured in earnest, the responder rekeys only when the initiator does not.
        patient = {"rekey_after_ns": 6 * both.get("rekey_after_ns", CONFIG["rekey_after_ns"]) // 5}
        self.settings = both, both | patient | (responder or {})
        for end in (0, 1):
            endpoint = self.endpoint(end)
            self.ikes.append(endpoint)
            selectors = TrafficSelectors([NETS[end]], [NETS[1 - end]])
            self.ends.append(Tunnel(endpoint, selectors, sequence_limit=sequence_limit))

    def endpoint(self, end: int) -> IkeEndpoint:
        return IkeEndpoint(ike_config(end, self.settings[end]), self.rng.randbytes)

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
                    self.at(self.kms.delay_ns, lambda x=exchange: self.answer(end, x, None))  # type: ignore[misc]
                case FetchKeyById(exchange, key_id):
                    self.at(self.kms.delay_ns, lambda x=exchange, k=key_id: self.answer(end, x, k))  # type: ignore[misc]
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


def message_kind(datagram: bytes) -> tuple[int, bool] | None:
    """Exchange type of an IKE message, and whether it is a response; None for another datagram."""
    if datagram[:4] != NON_ESP_MARKER:
        return None
    return datagram[22], bool(datagram[23] & 0x20)


def up(**arguments: Any) -> World:
    world = World(**arguments).start().run(3)
    assert world.ends[0].usable
    assert world.ends[1].usable
    return world


@pytest.mark.parametrize("keying", [Keying.PPK, Keying.DIRECT])
def test_first_key_and_rekeys_without_a_lost_packet(keying: Keying) -> None:
    world = up(config={"keying": keying})
    assert world.kms.issued == world.ends[0].key_ids == world.ends[1].key_ids
    world.traffic(20 * MS, 60)
    world.run(70)
    world.assert_nothing_lost()
    assert world.sent == world.received
    assert world.ends[0].rekeys == world.ends[1].rekeys >= 10
    assert world.ends[0].retransmissions == 0
    assert world.kms.issued == world.ends[0].key_ids == world.ends[1].key_ids  # each used once
    assert world.failures == []
    for end in (0, 1):
        installed = [sa for sa in world.status(end)["sas"] if sa["state"] == "installed"]
        directions = [sa["direction"] for sa in installed]
        assert directions.count("out") == 1
        assert directions.count("in") <= 2  # the pair in use and, within its grace, the one before


def test_ike_sa_is_replaced_under_the_child_sas() -> None:
    world = up(config={"ike_rekey_after_ns": 7 * S, "ml_kem": True, "child_groups": (31,)})
    world.traffic(20 * MS, 100)
    world.run(110)
    world.assert_nothing_lost()
    assert world.ends[0].rekeys >= 15
    assert world.failures == []
    keyed_children = set(world.ends[0].key_ids)
    assert len(world.kms.issued) - len(keyed_children) >= 10  # the other keys are in IKE SAs
    assert world.ikes[0].half_open == world.ikes[1].half_open == 0


def test_loss_copies_and_reordering() -> None:
    link = Link(control_loss=0.05, data_loss=0.05, copies=0.05, late=0.1)
    world = up(config={"rekey_after_ns": 2 * S}, link=link, seed=4)
    world.traffic(20 * MS, 60)
    world.run(65)
    world.assert_nothing_lost()
    assert world.ends[0].rekeys >= 15
    assert world.ends[0].retransmissions > 0
    assert world.refusals(0)["replays"] > 50  # the copies
    assert world.failures == []


@pytest.mark.long
def test_200_rekeys_under_load() -> None:
    """250 packets a second each way, 330 ms one way, 5 % loss, 10 % reordering."""
    link = Link(control_loss=0.05, data_loss=0.05, late=0.1)
    world = World(config={"rekey_after_ns": 2 * S}, link=link, seed=5).start().run(20)
    world.wire = deque(maxlen=1)  # nobody looks at so many
    while world.ends[0].rekeys < 200:
        world.traffic(4 * MS, 10)
        world.run(10)
    world.run(5)
    world.assert_nothing_lost()
    assert world.failures == []


def test_both_ends_rekey_at_the_same_time() -> None:
    """Lifetimes alike: the two ends collide again and again, and one pair of SAs remains (RFC 7296 §2.8.1)."""
    same = {"rekey_after_ns": 4 * S, "jitter": 0.02}
    world = up(config=same, responder=same, link=Link(data_loss=0.05, late=0.1))
    collisions, settled = [0], world.settle

    def watch(end: int) -> None:
        current = world.ikes[end].children.current
        collisions[0] += (
            current is not None and current.rival is not None and current.ike.task is not None
        )
        settled(end)

    world.settle = watch  # type: ignore[method-assign]
    world.traffic(20 * MS, 100)
    world.run(110)
    world.assert_nothing_lost()
    assert collisions[0] > 10
    assert world.ends[0].rekeys == world.ends[1].rekeys >= 15
    assert world.ends[0].key_ids == world.ends[1].key_ids
    for end in (0, 1):
        installed = [sa for sa in world.status(end)["sas"] if sa["state"] == "installed"]
        directions = [sa["direction"] for sa in installed]
        assert directions.count("out") == 1
        assert directions.count("in") <= 2  # the pair in use and, within its grace, the one before


def test_both_ends_replace_the_ike_sa_at_the_same_time() -> None:
    same = {"ike_rekey_after_ns": 6 * S, "rekey_after_ns": 40 * S, "jitter": 0.0}
    world = up(config=same, responder=same | {"ike_rekey_after_ns": 24 * S // 5})
    world.traffic(50 * MS, 60)
    world.run(70)
    world.assert_nothing_lost()
    assert len(world.kms.issued) > 8
    assert world.failures == []


@pytest.mark.parametrize("seed", range(4))
def test_control_messages_mostly_lost_or_very_late(seed: int) -> None:
    link = Link(control_loss=0.5, copies=0.2, late=0.5, control_lateness_ns=10 * S)
    patient = {"half_open_ns": 300 * S, "hard_after_ns": 300 * S}
    world = World(config=patient, link=link, seed=seed).start()
    while not world.ends[0].usable:
        world.run(1)
    world.traffic(50 * MS, 120)
    world.run(140)
    world.assert_nothing_lost("no_outbound_sa")
    assert world.ends[0].rekeys >= 1
    assert world.ends[0].retransmissions > 10


def test_rekey_of_an_idle_tunnel_retires_the_old_pair() -> None:
    world = up().run(30)
    assert world.ends[1].rekeys >= 4
    for end in (0, 1):
        installed = [sa for sa in world.status(end)["sas"] if sa["state"] == "installed"]
        assert len(installed) <= 4  # the pair in use and, within its grace, the one before
    world.run(CONFIG["grace_ns"] / S)
    world.traffic(100 * MS, 1)
    world.run(2)
    world.assert_nothing_lost()


def test_responder_switches_on_data_when_every_delete_is_lost() -> None:
    world = up()
    lose_deletes(world, 1000)
    world.traffic(100 * MS, 5)
    world.run(6)
    assert world.ends[1].rekeys == 1
    world.assert_nothing_lost()


def test_old_pair_lives_until_the_responder_has_switched() -> None:
    """Only the responder sends, and the delete comes later than the grace period is long."""
    world = up()
    lose_deletes(world, 3)
    world.traffic(50 * MS, 20, ends=(1,))
    world.run(25)
    assert world.received[1] == world.sent[1]
    assert world.ends[0].retransmissions >= 3
    assert world.ends[1].rekeys >= 1


def lose_deletes(world: World, number: int) -> None:
    transmit, left = world.transmit, [number]

    def selective(end: int, datagram: bytes, packet: bytes | None = None) -> None:
        delete = message_kind(datagram) == (Exchange.INFORMATIONAL, False)
        left[0] -= delete
        if not delete or left[0] < 0:
            transmit(end, datagram, packet)

    world.transmit = selective  # type: ignore[method-assign]


def test_wrong_ppk_is_noticed_before_anything_is_established() -> None:
    world = World()
    world.kms.wrong = True
    world.start().run(20)
    assert not world.ends[0].usable
    assert not world.ends[1].usable
    assert any("is not the peer's" in reason for reason in world.failures)
    assert any("AUTHENTICATION_FAILED" in reason for reason in world.failures)
    assert world.seen["InstallInbound"] == world.seen["InstallOutbound"] == 0


def test_wrong_ppk_at_a_rekey_is_noticed_and_the_old_pair_goes_on() -> None:
    world = up()
    world.kms.wrong = True
    world.traffic(50 * MS, 20)
    world.run(25)
    world.assert_nothing_lost()
    assert world.ends[0].rekeys == 0
    assert any("NO_PROPOSAL_CHOSEN" in reason for reason in world.failures)
    world.kms.wrong = False
    world.run(65)
    assert world.ends[0].rekeys >= 1


def test_wrong_key_in_direct_mode_lets_nothing_pass() -> None:
    world = World(config={"keying": Keying.DIRECT})
    world.kms.wrong = True
    world.start().run(3)
    world.traffic(50 * MS, 20)
    world.run(25)
    for end in (0, 1):
        assert world.received[end].total() == 0
        assert world.refusals(1 - end)["icv_failures"] == world.carried[end].total() > 350


def test_wrong_psk_is_refused() -> None:
    world = World()
    world.ikes[1].config = replace(world.ikes[1].config, credentials=Psk(bytes(32)))
    world.start().run(60)
    assert any("pre-shared key" in reason for reason in world.failures)
    assert world.seen["InstallInbound"] == 0
    world.link.control_loss = 1.0
    world.run(31)
    assert world.ikes[1].half_open == 0


def test_sequence_limit_stops_the_sa() -> None:
    world = up(config={"rekey_after_ns": 50 * S}, sequence_limit=100)
    world.traffic(10 * MS, 2, ends=(0,))
    world.run(5)
    assert world.received[0].total() == 100
    assert world.refusals(0)["exhausted"] == 100
    world.run(50)
    world.traffic(10 * MS, 0.5, ends=(0,))
    world.run(5)
    assert world.received[0].total() == 150


@pytest.mark.parametrize("sender", [0, 1])
@pytest.mark.parametrize("limit", [{"soft_packets": 100}, {"soft_bytes": 2800}])
def test_soft_limits_rekey_before_the_sequence_limit(sender: int, limit: dict[str, int]) -> None:
    world = up(config={"rekey_after_ns": 50 * S} | limit, sequence_limit=400)
    world.traffic(10 * MS, 20, ends=(sender,))
    world.run(25)
    assert world.received[sender] == world.sent[sender]
    assert world.received[sender].total() == 2000
    assert world.ends[0].rekeys >= 8


def test_hard_limit_of_octets_ends_the_sa() -> None:
    world = up(config={"soft_bytes": 2800, "hard_bytes": 5600, "rekey_after_ns": 50 * S})
    world.kms.down = True
    world.traffic(10 * MS, 4, ends=(0,))
    world.run(6)
    assert world.received[0].total() == 200
    assert "an SA has carried all it may" in world.failures
    world.kms.down = False
    world.run(62)
    assert world.ends[0].usable


def test_fail_closed_ends_the_sa_and_recovers() -> None:
    world = up(config={"hard_after_ns": 10 * S})
    world.kms.down = True
    world.run(30)
    assert not world.ends[0].usable
    assert not world.ends[1].usable
    assert world.seen["RetireOutbound"] == 2
    used = [world.status(end)["policies_used"].get("fail-closed", 0) for end in (0, 1)]
    assert sum(used) == world.seen["PolicyUsed"] >= 1  # one end may have told the other in time
    assert any("no keys" in reason for reason in world.failures)
    assert "hard lifetime reached without a new key" in world.failures
    world.traffic(100 * MS, 1)
    world.run(2)
    assert world.received[0].total() == world.received[1].total() == 0
    assert world.refusals(0)["no_outbound_sa"] == world.refusals(1)["no_outbound_sa"] == 10
    world.kms.down = False
    world.run(65)
    assert world.ends[0].usable
    assert world.ends[1].usable


def test_hold_keeps_the_sa_and_counts_it() -> None:
    world = up(config={"hard_after_ns": 10 * S, "policy": Policy.HOLD})
    world.kms.down = True
    world.run(100)
    assert (world.ends[0].held, world.ends[1].held) == (1, 1)
    for end in (0, 1):
        assert world.status(end)["policy"] == "hold"
        assert world.status(end)["policies_used"] == {"hold": 1}
    world.traffic(100 * MS, 1)
    world.run(2)
    world.assert_nothing_lost()
    world.kms.down = False
    world.run(65)
    assert world.ends[0].rekeys >= 1
    assert len([sa for sa in world.status(1)["sas"] if sa["state"] == "installed"]) <= 4


@pytest.mark.parametrize("keying", [Keying.PPK, Keying.DIRECT])
def test_hybrid_goes_on_without_keys_and_counts_it(keying: Keying) -> None:
    world = World(config={"policy": Policy.HYBRID, "keying": keying, "child_groups": (31,)})
    world.kms.down = True
    world.start().run(5)
    world.traffic(20 * MS, 20)
    world.run(25)
    world.assert_nothing_lost()
    assert world.ends[0].rekeys >= 3
    assert set(world.ends[0].key_ids) == {""}
    used = world.status(0)["policies_used"]["hybrid"]
    assert used == world.ikes[0].used[Policy.HYBRID]
    assert used - world.ends[0].rekeys in (1, 2)  # the first, and perhaps one under way
    world.kms.down = False
    world.traffic(20 * MS, 10)
    world.run(15)
    world.assert_nothing_lost()
    assert "" != world.ends[1].key_ids[-1] in world.ends[0].key_ids


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
    world.start().run(15)
    assert "never heard of it" in world.failures[0]
    assert "AUTHENTICATION_FAILED" in world.failures[1]
    assert world.ends[0].usable
    assert world.ends[0].key_ids[0] != refused[0]


def test_restarted_initiator_is_taken_on() -> None:
    world = up(config={"rekey_after_ns": 50 * S})
    old = list(world.wire)
    world.ends[0] = Tunnel(world.endpoint(0), TrafficSelectors([NETS[0]], [NETS[1]]))
    world.ends[0].start(world.now)
    world.settle(0)
    world.run(3)
    world.traffic(100 * MS, 1)
    world.run(3)
    world.assert_nothing_lost()
    fetches = world.seen["FetchKeyById"]
    installed = world.seen["InstallInbound"]
    for end, datagram in old:  # the first session, replayed whole
        world.arrive(1 - end, datagram)
    world.run(5)
    assert world.seen["FetchKeyById"] == fetches == 2
    assert world.seen["InstallInbound"] == installed
    assert world.failures == []


def test_dead_peer_is_given_up_and_taken_on_again() -> None:
    world = up(config={"dpd_after_ns": 3 * S, "attempts": 3})
    world.link.control_loss = world.link.data_loss = 1.0
    world.run(30)
    for end in (0, 1):
        assert not world.ends[end].usable
    assert sum("no answer to 3 transmissions" in reason for reason in world.failures) >= 2
    world.link.control_loss = world.link.data_loss = 0.0
    world.run(130)
    world.traffic(100 * MS, 1)
    world.run(2)
    world.assert_nothing_lost()


def test_slow_kms_is_asked_once_and_waited_for() -> None:
    world = World()
    world.kms.delay_ns = 4 * S
    world.start().run(15)
    world.traffic(50 * MS, 60)
    world.run(65)
    world.assert_nothing_lost()
    assert world.ends[0].rekeys >= 3
    assert world.ends[0].retransmissions > 0  # while the responder's KMS is thinking
    assert world.seen["FetchKeyById"] <= len(world.kms.issued)
    assert world.failures == []


def test_new_ike_sa_before_the_old_one_ends() -> None:
    """For a peer without RFC 9867: each IKE SA has a PPK of its own, and no packet is lost between them."""
    world = up(config={"reauth_after_ns": 6 * S, "rekey_after_ns": 50 * S})
    world.traffic(20 * MS, 30)
    world.run(40)
    world.assert_nothing_lost()
    assert world.sent == world.received
    assert world.ends[0].key_ids == world.ends[1].key_ids
    assert len(set(world.ends[0].key_ids)) >= 4
    assert world.seen["RetireOutbound"] == 0
    assert world.failures == []


def test_ike_sa_that_cannot_be_replaced_is_kept_and_tried_again_ever_more_rarely() -> None:
    world = up(
        config={"ike_rekey_after_ns": 5 * S, "rekey_after_ns": 500 * S, "hard_after_ns": 999 * S}
    )
    world.kms.down = True
    world.run(300)
    assert 3 <= sum("rekey IKE" in reason for reason in world.failures) <= 30
    world.kms.down = False
    world.traffic(100 * MS, 70)
    world.run(75)
    world.assert_nothing_lost()
    assert len(world.kms.issued) >= 2


def test_farewell_ends_the_tunnel_at_once() -> None:
    world = up()
    world.ends[0].stop(world.now)
    world.settle(0)
    world.run(1)
    assert not world.ends[1].usable
    assert "the peer ended the IKE SA" in world.failures


def test_replayed_conversation_changes_nothing() -> None:
    world = up()
    world.traffic(100 * MS, 30)
    world.run(33)
    keys, received = list(world.kms.issued), world.received[0].total()
    fetches, installed = world.seen["FetchKeyById"], world.seen["InstallInbound"]
    for end, datagram in list(world.wire):
        world.arrive(1 - end, datagram)
    assert world.seen["FetchKeyById"] == fetches
    assert world.seen["InstallInbound"] == installed
    assert world.kms.issued == keys
    assert world.received[0].total() == received
    assert world.refusals(1)["control_refused"] > 0
    assert world.ikes[1].half_open <= 1  # a replayed IKE_SA_INIT request begins anew,
    world.run(31)
    assert world.ikes[1].half_open == 0  # and leads nowhere


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


def test_no_half_open_state_outlives_its_time_and_cookies_stop_a_flood() -> None:
    world = up()
    request = next(d for end, d in world.wire if message_kind(d) == (Exchange.IKE_SA_INIT, False))
    sent = len(world.wire)
    for number in range(1000):
        world.arrive(1, request[:4] + number.to_bytes(8, "little") + request[12:])
    answers = [datagram for end, datagram in world.wire[sent:]]
    assert world.ikes[1].half_open == world.ikes[1].config.cookies_from
    assert all(len(answer) < 80 for answer in answers[10:])  # a cookie is all there is
    world.run(31)
    assert world.ikes[1].half_open == 0
    assert world.ends[0].usable


def test_cookie_is_returned() -> None:
    world = up(responder={"cookies_from": 0})
    world.traffic(100 * MS, 1)
    world.run(2)
    world.assert_nothing_lost()


def test_other_key_exchange_method_is_taken_up() -> None:
    up(responder={"groups": (19,)})


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_every_suite(suite: Suite) -> None:
    world = up(config={"suites": (suite,)})
    world.traffic(100 * MS, 10)
    world.run(12)
    world.assert_nothing_lost()
    assert world.ends[0].rekeys >= 1


def test_the_responder_chooses_and_nothing_in_common_is_refused() -> None:
    both = tuple(SUITES.values())
    world = up(config={"suites": both}, responder={"suites": both[2:]})
    assert world.ends[0].usable
    world = World(config={"suites": both[:1]}, responder={"suites": both[1:]}).start().run(20)
    assert not world.ends[0].usable
    assert any("NO_PROPOSAL_CHOSEN" in reason for reason in world.failures)


def test_narrowed_selectors_bind_both_ends() -> None:
    half = next(iter(NETS[1].subnets()))
    world = up(responder={"local": (half,)})
    world.ends[0].from_inside(inner(0, 1), world.now)
    outside = inner(0, 1)[:16] + NETS[1][200].packed + inner(0, 1)[20:]
    assert world.ends[0].from_inside(outside, world.now) is None
    assert world.refusals(0) == {"outside_selectors": 1}


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
    link = Link(control_loss=0.2, data_loss=0.1)
    world = World(config={"rekey_after_ns": 2 * S}, link=link, seed=9).start().run(10)
    world.traffic(20 * MS, 60)
    world.run(65)
    sealed = [(end, d[:16]) for end, d in world.wire if d[:4] != NON_ESP_MARKER]
    assert len(sealed) == len(set(sealed)) > 4000
    assert len({header[:4] for _, header in sealed}) >= 40
