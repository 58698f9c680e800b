"""Two gateways in memory with IKEv2 between them, 330 ms of virtual time apart, over a link that loses and reorders."""

from __future__ import annotations

import hashlib
import heapq
import random
import struct
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from gateways.encapsulation import NON_ESP_MARKER
from gateways.events import (
    Failed,
    FetchKey,
    FetchKeyById,
    SendControl,
)
from gateways.ike.auth import Psk
from gateways.ike.config import IkeConfig
from gateways.ike.endpoint import IkeEndpoint
from gateways.selectors import TrafficSelectors
from gateways.suites import ESP_HEADER_OCTETS
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
        self._sealed: set[tuple[int, bytes]] = set()
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
            self._assert_new(end, datagram)
            self.transmit(end, datagram, packet)
        self.settle(end)

    def _assert_new(self, end: int, datagram: bytes) -> None:
        """In no world is an SPI's sequence number ever used twice: with it the key and IV would be."""
        header = end, datagram[:ESP_HEADER_OCTETS]
        assert header not in self._sealed, f"sealed twice: {header[1].hex()}"
        self._sealed.add(header)

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

    def assert_one_pair(self) -> None:
        """Each end has one pair of SAs in use and, within its grace, the inbound half of the one before."""
        for end in (0, 1):
            installed = [sa for sa in self.status(end)["sas"] if sa["state"] == "installed"]
            directions = [sa["direction"] for sa in installed]
            assert directions.count("out") == 1
            assert directions.count("in") <= 2


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
