"""Chains of trusted nodes: a key relayed hop by hop, each hop under a one-time pad of its own.

Neighbours (fibre QKD links; a satellite and a station it has passed) share a pool of secret bytes.
The key is what the source shares with the next node of the path; each node after that sends it on
as K ⊕ pad, so a key of n bits costs n bits of the pool of every hop, the first one included. With
one satellite in the middle that is K′ = K1 ⊕ K2 (`kms.relay`). Every node of the path knows the key:
that is what *trusted* means (ITU-T Y.3803, key relay).

A controller (`KeyNetwork`; the QSOCC of the paper, figure 5) knows how full the pools are, but no
key. It chooses the path and has every hop set the pad aside before any node spends a byte, so a
relay that one hop cannot pay for costs nothing. Messages between nodes carry an HMAC-SHA256 under
the first 32 bytes that a link ever had; a one-time authenticator would double the price of a 256-bit
key. A message is bound to its order, whose pad exists once: changed or repeated ones are dropped with
an alarm. A relay that fails midway is written off at both ends of every hop alike.
"""

from __future__ import annotations

import secrets
import struct
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from kms.alarms import AlarmKind, AlarmLog
from kms.health import require_healthy
from topo.errors import InputError, KeySupplyError

LINK_MAC_KEY_BYTES = 32
"""What a new link's first block gives to authentication, once."""

Preference = Literal["shortest", "most_key"]


@dataclass(frozen=True)
class RelayOrder:
    """What the controller tells every node of a path. Numbers are never used twice."""

    number: int
    path: tuple[str, ...]
    size_bytes: int

    @property
    def hops(self) -> tuple[tuple[str, str], ...]:
        return tuple(pairwise(self.path))


@dataclass(frozen=True)
class HopMessage:
    """A key on its way over hop `hop` of an order's path, padded and authenticated."""

    order: int
    hop: int
    ciphertext: bytes
    tag: bytes


Carry = Callable[[HopMessage], Iterable[HopMessage]]
"""A classical channel: what arrives when a message is sent. It may lose, change, repeat and delay."""


class _LinkEnd:
    """One node's copy of what it shares with a neighbour. Bytes leave from the front, once."""

    def __init__(self, material: bytes) -> None:
        self._mac_key = material[:LINK_MAC_KEY_BYTES]
        self._free = bytearray(material[LINK_MAC_KEY_BYTES:])
        self._reserved: dict[int, bytes] = {}

    @property
    def free_bytes(self) -> int:
        return len(self._free)

    def add(self, material: bytes) -> None:
        self._free += material

    def reserve(self, order: RelayOrder) -> None:
        self._reserved[order.number] = bytes(self._free[: order.size_bytes])
        del self._free[: order.size_bytes]

    def spend(self, order: int) -> bytes | None:
        """The pad set aside for an order, and never again."""
        return self._reserved.pop(order, None)

    def mac(self, hop: tuple[str, str], message: HopMessage) -> HMAC:
        mac = HMAC(self._mac_key, SHA256())
        mac.update(b"qntn hop v1" + struct.pack("!QI", message.order, message.hop))
        for name in (*hop, ""):  # length first, so that no two hops share an encoding
            encoded = name.encode()
            mac.update(struct.pack("!I", len(encoded)) + encoded)
        mac.update(message.ciphertext)
        return mac


@dataclass
class TrustedNode:
    """A node with its ends of its links; the only place where pads and keys are."""

    name: str
    alarms: AlarmLog
    _links: dict[str, _LinkEnd] = field(default_factory=dict, repr=False)
    _orders: dict[int, RelayOrder] = field(default_factory=dict)

    def add_key(self, neighbour: str, material: bytes) -> None:
        """A block that both ends of a link have got; the first 32 bytes of the first authenticate."""
        if neighbour in self._links:
            self._links[neighbour].add(material)
        else:
            self._links[neighbour] = _LinkEnd(material)

    def free_bits(self, neighbour: str) -> int:
        """Bits of the pool shared with a neighbour that no order has set aside."""
        link = self._links.get(neighbour)
        return 8 * link.free_bytes if link else 0

    def reserve(self, order: RelayOrder) -> None:
        """Set aside the pads of the node's hops of an order. The controller has seen that they are there."""
        self._orders[order.number] = order
        for neighbour in self._neighbours(order):
            self._links[neighbour].reserve(order)

    def write_off(self, order: RelayOrder) -> None:
        """Erase what an order has set aside and not spent."""
        self._orders.pop(order.number, None)
        for neighbour in self._neighbours(order):
            self._links[neighbour].spend(order.number)

    def first_key(self, order: RelayOrder) -> bytes:
        """The key itself, at the two ends of the first hop: what they share there."""
        neighbour = order.path[1] if order.path[0] == self.name else order.path[0]
        return self._spend(neighbour, order.number)

    def forward(self, order: RelayOrder, key: bytes) -> HopMessage:
        """The key for the next node of the path, under the pad of that hop, which is spent."""
        hop = order.path.index(self.name)
        neighbour = order.path[hop + 1]
        message = HopMessage(
            order.number, hop, _xor(key, self._spend(neighbour, order.number)), b""
        )
        tag = self._links[neighbour].mac(order.hops[hop], message).finalize()
        return HopMessage(message.order, hop, message.ciphertext, tag)

    def receive(self, message: HopMessage, now: datetime) -> bytes | None:
        """The key in a message from the node before; None, with an alarm, if it must be dropped.

        An unauthentic message leaves the pad for the genuine one.
        """
        what = f"order {message.order}, hop {message.hop}"
        order = self._orders.get(message.order)
        if order is None:
            self.alarms.sound(AlarmKind.REPLAYED, self.name, f"{what}: no such order is open", now)
            return None
        at = order.path.index(self.name)
        if message.hop != at - 1 or at < 2:
            self.alarms.sound(AlarmKind.OUT_OF_ORDER, self.name, f"{what}: not to this node", now)
            return None
        link = self._links[order.path[at - 1]]
        try:
            link.mac(order.hops[message.hop], message).verify(message.tag)
        except InvalidSignature:
            self.alarms.sound(AlarmKind.CORRUPTED, self.name, f"{what}: not authentic", now)
            return None
        if (pad := link.spend(message.order)) is None:
            self.alarms.sound(AlarmKind.REPLAYED, self.name, f"{what}: the pad is spent", now)
            return None
        return _xor(message.ciphertext, pad)

    def _neighbours(self, order: RelayOrder) -> list[str]:
        """The other ends of the node's hops of an order, the one before first."""
        at = order.path.index(self.name)
        return [order.path[i] for i in (at - 1, at + 1) if 0 <= i < len(order.path)]

    def _spend(self, neighbour: str, order: int) -> bytes:
        pad = self._links[neighbour].spend(order)
        if pad is None:
            raise KeySupplyError(f"{self.name}: order {order} has no pad with {neighbour} any more")
        return pad


@dataclass(frozen=True)
class RelayedKey:
    """A key that both ends of a path hold now."""

    path: tuple[str, ...]
    at_source: bytes = field(repr=False)
    at_target: bytes = field(repr=False)


class KeyNetwork:
    """The controller of a network of trusted nodes, whose messages a classical channel carries."""

    def __init__(
        self, alarms: AlarmLog | None = None, carry: Carry = lambda message: (message,)
    ) -> None:
        self.alarms = alarms or AlarmLog()
        self.carry = carry
        self._nodes: dict[str, TrustedNode] = {}
        self._links: set[frozenset[str]] = set()
        self._digest_key = secrets.token_bytes(32)
        self._digests: set[bytes] = set()  # of all key that any link ever had
        self._next_order = 1

    @property
    def nodes(self) -> Mapping[str, TrustedNode]:
        return self._nodes

    def add_key(self, one: str, other: str, material: bytes) -> None:
        """A block that quantum key distribution has given to two neighbours; makes the link if it is new.

        `KeySupplyError` for a block that fails its health test or that a link had before: its bytes
        would be spent twice. `InputError` for one too short.
        """
        link = frozenset((one, other))
        if len(link) != 2:
            raise InputError(f"link {one} – {other}: a link has two ends")
        if link not in self._links and len(material) <= LINK_MAC_KEY_BYTES:
            raise InputError(
                f"link {one} – {other}: its first block must have more than {LINK_MAC_KEY_BYTES} "
                f"bytes, which authenticate; it has {len(material)}"
            )
        require_healthy(material, f"key of link {one} – {other}")
        pool = material if link in self._links else material[LINK_MAC_KEY_BYTES:]
        digests = {self._digest(material), self._digest(pool)}
        if digests & self._digests:
            raise KeySupplyError(f"key of link {one} – {other}: a link had these bytes before")
        self._digests |= digests
        for name, neighbour in ((one, other), (other, one)):
            node = self._nodes.setdefault(name, TrustedNode(name, self.alarms))
            node.add_key(neighbour, material)
        self._links.add(link)

    def _digest(self, material: bytes) -> bytes:
        mac = HMAC(self._digest_key, SHA256())
        mac.update(material)
        return mac.finalize()

    def free_bits(self, one: str, other: str) -> int:
        """Bits that two neighbours can still spend; `InputError` if they are none."""
        if frozenset((one, other)) not in self._links:
            raise InputError(f"no link {one} – {other}")
        return self._nodes[one].free_bits(other)

    def route(
        self, source: str, target: str, size_bits: int, prefer: Preference = "shortest"
    ) -> tuple[str, ...]:
        """The path of a relay, all of whose hops have `size_bits` left.

        `shortest`: fewest hops, and of those the one whose poorest hop has most key. `most_key`: the
        richest poorest hop, and of those the fewest hops. `KeySupplyError` if there is none, naming
        the hop that lacks key if that is why.
        """
        for name in (source, target):
            if name not in self._nodes:
                raise InputError(f"no node {name}: there are {', '.join(sorted(self._nodes))}")
        if source == target:
            raise InputError(f"relay from {source} to itself")
        paths = self._paths(source, target, size_bits)
        if not paths:
            raise KeySupplyError(self._refusal(source, target, size_bits))
        return paths[0] if prefer == "most_key" else min(paths, key=len)

    def relay(
        self,
        source: str,
        target: str,
        size_bits: int,
        now: datetime,
        prefer: Preference = "shortest",
    ) -> RelayedKey:
        """A new key of `size_bits` at both ends; costs each hop of the path that many bits.

        `KeySupplyError`, and nothing spent, if no path has enough; `KeySupplyError`, and the pads of
        the path written off at both ends of every hop, if no authentic message gets over a hop.
        """
        if size_bits < 8 or size_bits % 8:
            raise InputError(f"key of {size_bits} bits: must be whole bytes, at least one")
        path = self.route(source, target, size_bits, prefer)
        order = RelayOrder(self._next_order, path, size_bits // 8)
        self._next_order += 1
        for name in path:
            self._nodes[name].reserve(order)
        try:
            at_source = self._nodes[path[0]].first_key(order)
            key = self._nodes[path[1]].first_key(order)
            for hop in order.hops[1:]:
                key = self._over_one_hop(order, hop, key, now)
            return RelayedKey(path, at_source, key)
        finally:
            for name in path:
                self._nodes[name].write_off(order)

    def _over_one_hop(
        self, order: RelayOrder, hop: tuple[str, str], key: bytes, now: datetime
    ) -> bytes:
        sender, receiver = hop
        arrived = None
        for message in self.carry(self._nodes[sender].forward(order, key)):
            opened = self._nodes[receiver].receive(message, now)
            arrived = opened if arrived is None else arrived
        if arrived is None:
            raise KeySupplyError(
                f"relay {' – '.join(order.path)} failed: nothing authentic from {sender} to {receiver}"
            )
        return arrived

    def _paths(self, source: str, target: str, at_least_bits: int) -> list[tuple[str, ...]]:
        """The shortest path over all links that hold a level of key, for each level, fullest first."""
        free = {self.free_bits(*link) for link in self._links}
        levels = sorted((bits for bits in free if bits >= at_least_bits), reverse=True)
        paths = (self._fewest_hops(source, target, level) for level in levels)
        return [path for path in paths if path is not None]

    def _refusal(self, source: str, target: str, size_bits: int) -> str:
        paths = self._paths(source, target, 0)
        if not paths:
            return f"no path from {source} to {target}"
        poorest = min(pairwise(paths[0]), key=lambda hop: self.free_bits(*hop))
        return (
            f"{source} to {target}: {size_bits} bits asked for, link {poorest[0]} – {poorest[1]} has "
            f"{self.free_bits(*poorest)}, and no other path has more; nothing was spent"
        )

    def _fewest_hops(self, source: str, target: str, at_least_bits: int) -> tuple[str, ...] | None:
        """Breadth first over the links that have that much key; neighbours by name, so that it repeats."""
        before = {source: source}
        ahead = deque([source])
        while ahead and target not in before:
            here = ahead.popleft()
            for there in sorted(self._nodes):
                link = frozenset((here, there))
                if there not in before and link in self._links:
                    if self.free_bits(here, there) < at_least_bits:
                        continue
                    before[there] = here
                    ahead.append(there)
        if target not in before:
            return None
        path = [target]
        while path[-1] != source:
            path.append(before[path[-1]])
        return tuple(reversed(path))


def _xor(left: bytes, right: bytes) -> bytes:
    together = int.from_bytes(left, "big") ^ int.from_bytes(right, "big")
    return together.to_bytes(len(left), "big")
