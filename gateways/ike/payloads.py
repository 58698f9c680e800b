"""IKEv2 headers and payloads: bytes to values and back (RFC 7296 §3). Knows no key and keeps no state.

The parser takes nothing that the RFC forbids, and its work is bounded by the length of the message and the
limits below: every length is checked before it is used, every element takes at least four octets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from gateways.ike.numbers import (
    KEY_LENGTH_ATTRIBUTE,
    TS_IPV4_RANGE,
    TS_IPV6_RANGE,
    Flag,
    Kind,
    Protocol,
)
from topo.errors import ControlError

HEADER_OCTETS = 28
GENERIC_OCTETS = 4
MAX_MESSAGE_OCTETS = 32_768
MAX_PAYLOADS = 64
MAX_TRANSFORMS = 255
MAX_SELECTORS = 255
"""Of one TSi or TSr payload."""
NONCE_OCTETS = range(16, 257)
"""Lengths a nonce may have (RFC 7296 §3.9)."""

_HEADER = struct.Struct("!8s8sBBBBII")
_GENERIC = struct.Struct("!BBH")
_PROPOSAL = struct.Struct("!BBHBBBB")
_TRANSFORM = struct.Struct("!BBHBBH")
_SELECTOR = struct.Struct("!BBHHH")
_VERSION = 0x20
_CRITICAL = 0x80
_MORE_PROPOSALS, _MORE_TRANSFORMS = 2, 3
_KNOWN = frozenset(range(Kind.SA, Kind.EAP + 1))


class UnknownPayload(ControlError):
    """A payload of unknown type `kind` that must be understood (RFC 7296 §2.5)."""

    def __init__(self, kind: int) -> None:
        self.kind = kind
        super().__init__(f"critical payload of unknown type {kind}")


@dataclass(frozen=True, slots=True)
class Header:
    """The IKE header, its length apart."""

    spi_i: bytes
    spi_r: bytes
    exchange: int
    flags: int
    message_id: int
    first: int = Kind.NONE

    @property
    def is_response(self) -> bool:
        """Whether the message answers a request."""
        return bool(self.flags & Flag.RESPONSE)

    @property
    def from_initiator(self) -> bool:
        """Whether the sender is the one who began the IKE SA."""
        return bool(self.flags & Flag.INITIATOR)

    def pack(self, first: int, body_octets: int) -> bytes:
        """The header of a message whose payloads take `body_octets`."""
        return _HEADER.pack(
            self.spi_i,
            self.spi_r,
            first,
            _VERSION,
            self.exchange,
            self.flags,
            self.message_id,
            HEADER_OCTETS + body_octets,
        )


def parse_header(datagram: bytes) -> Header:
    """The header of a message. Raises `ControlError` if the datagram is not one IKEv2 message."""
    if not HEADER_OCTETS <= len(datagram) <= MAX_MESSAGE_OCTETS:
        raise ControlError(f"IKE message of {len(datagram)} octets")
    spi_i, spi_r, first, version, exchange, flags, message_id, length = _HEADER.unpack_from(
        datagram
    )
    if version >> 4 != _VERSION >> 4:
        raise ControlError(f"IKE version {version >> 4}")
    if length != len(datagram):
        raise ControlError(f"IKE message of {len(datagram)} octets says {length}")
    if spi_i == bytes(8):
        raise ControlError("initiator's SPI is zero")
    return Header(spi_i, spi_r, exchange, flags, message_id, first)


@dataclass(frozen=True, slots=True)
class Payload:
    """One payload: its type and what follows its generic header."""

    kind: int
    body: bytes


def pack_payloads(payloads: Sequence[Payload]) -> tuple[int, bytes]:
    """The type of the first payload and the octets of all."""
    following = [*(payload.kind for payload in payloads[1:]), Kind.NONE]
    chain = b"".join(
        _GENERIC.pack(next_kind, 0, GENERIC_OCTETS + len(payload.body)) + payload.body
        for payload, next_kind in zip(payloads, following, strict=False)
    )
    return (payloads[0].kind if payloads else Kind.NONE), chain


def parse_payloads(first: int, chain: bytes) -> list[Payload]:
    """The payloads in `chain`, those of unknown type left out unless they are critical.

    Raises `ControlError` for a chain that does not add up, `UnknownPayload` for such a payload.
    """
    payloads: list[Payload] = []
    kind, offset = first, 0
    for _ in range(MAX_PAYLOADS):
        if kind == Kind.NONE:
            break
        if offset + GENERIC_OCTETS > len(chain):
            raise ControlError("payload cut short")
        following, critical, length = _GENERIC.unpack_from(chain, offset)
        if not GENERIC_OCTETS <= length <= len(chain) - offset:
            raise ControlError(f"payload of type {kind} says {length} octets")
        if kind in _KNOWN:
            payloads.append(Payload(kind, chain[offset + GENERIC_OCTETS : offset + length]))
        elif critical & _CRITICAL:
            raise UnknownPayload(kind)
        kind, offset = following, offset + length
    if kind != Kind.NONE or offset != len(chain):
        raise ControlError("payloads do not end with the message")
    return payloads


@dataclass(frozen=True, slots=True)
class Transform:
    """An algorithm of `type` (`TransformType`); `key_bits` only for ciphers with keys of several lengths."""

    type: int
    id: int
    key_bits: int | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """One proposal of an SA payload: of each type one of the transforms."""

    number: int
    protocol: int
    spi: bytes
    transforms: tuple[Transform, ...]


def sa_payload(proposals: Sequence[Proposal]) -> Payload:
    """An SA payload (RFC 7296 §3.3)."""
    parts = []
    for place, proposal in enumerate(proposals, 1):
        transforms = b"".join(
            _pack_transform(transform, last=index == len(proposal.transforms))
            for index, transform in enumerate(proposal.transforms, 1)
        )
        parts.append(
            _PROPOSAL.pack(
                0 if place == len(proposals) else _MORE_PROPOSALS,
                0,
                _PROPOSAL.size + len(proposal.spi) + len(transforms),
                proposal.number,
                proposal.protocol,
                len(proposal.spi),
                len(proposal.transforms),
            )
            + proposal.spi
            + transforms
        )
    return Payload(Kind.SA, b"".join(parts))


def _pack_transform(transform: Transform, *, last: bool) -> bytes:
    attributes = b""
    if transform.key_bits is not None:
        attributes = struct.pack("!HH", 0x8000 | KEY_LENGTH_ATTRIBUTE, transform.key_bits)
    length = _TRANSFORM.size + len(attributes)
    more = 0 if last else _MORE_TRANSFORMS
    return _TRANSFORM.pack(more, 0, length, transform.type, 0, transform.id) + attributes


def parse_sa(body: bytes) -> tuple[Proposal, ...]:
    """The proposals of an SA payload."""
    proposals: list[Proposal] = []
    offset = transforms_seen = 0
    more = _MORE_PROPOSALS
    while more:
        if more != _MORE_PROPOSALS or offset + _PROPOSAL.size > len(body):
            raise ControlError("SA payload cut short")
        more, _, length, number, protocol, spi_octets, count = _PROPOSAL.unpack_from(body, offset)
        start = offset + _PROPOSAL.size
        if not _PROPOSAL.size + spi_octets <= length <= len(body) - offset:
            raise ControlError(f"proposal says {length} octets")
        transforms_seen += count
        if transforms_seen > MAX_TRANSFORMS:
            raise ControlError("more transforms than anybody needs")
        spi, end = body[start : start + spi_octets], offset + length
        transforms = _parse_transforms(body[start + spi_octets : end], count)
        proposals.append(Proposal(number, protocol, spi, transforms))
        offset = end
    if offset != len(body):
        raise ControlError("octets behind the last proposal")
    return tuple(proposals)


def _parse_transforms(body: bytes, count: int) -> tuple[Transform, ...]:
    transforms: list[Transform] = []
    offset = 0
    for index in range(count):
        if offset + _TRANSFORM.size > len(body):
            raise ControlError("transform cut short")
        more, _, length, kind, _, number = _TRANSFORM.unpack_from(body, offset)
        if (
            more != (_MORE_TRANSFORMS if index < count - 1 else 0)
            or not _TRANSFORM.size <= length <= len(body) - offset
        ):
            raise ControlError("transforms do not add up")
        attributes = body[offset + _TRANSFORM.size : offset + length]
        # A transform with an attribute that is not understood is one that cannot be chosen: -1.
        key_bits: int | None = None
        if attributes:
            understood = len(attributes) == 4 and attributes[:2] == struct.pack(
                "!H", 0x8000 | KEY_LENGTH_ATTRIBUTE
            )
            key_bits = int.from_bytes(attributes[2:]) if understood else -1
        transforms.append(Transform(kind, number, key_bits))
        offset += length
    if offset != len(body):
        raise ControlError("octets behind the last transform")
    return tuple(transforms)


@dataclass(frozen=True, slots=True)
class KeyExchange:
    """A KE payload: method and public value (RFC 7296 §3.4)."""

    group: int
    data: bytes

    def payload(self) -> Payload:
        return Payload(Kind.KE, struct.pack("!HH", self.group, 0) + self.data)

    @classmethod
    def parse(cls, body: bytes) -> KeyExchange:
        if len(body) <= 4:
            raise ControlError("KE payload cut short")
        return cls(int.from_bytes(body[:2]), body[4:])


@dataclass(frozen=True, slots=True)
class Typed:
    """A payload of one octet of type, three reserved ones, and data: IDi, IDr and AUTH."""

    type: int
    data: bytes

    def body(self) -> bytes:
        return bytes((self.type, 0, 0, 0)) + self.data

    @classmethod
    def parse(cls, body: bytes) -> Typed:
        if len(body) <= 4:
            raise ControlError("payload cut short")
        return cls(body[0], body[4:])


@dataclass(frozen=True, slots=True)
class Notify:
    """A notification (RFC 7296 §3.10); `spi` only with `REKEY_SA` and `CHILD_SA_NOT_FOUND`."""

    type: int
    data: bytes = b""
    protocol: int = Protocol.NONE
    spi: bytes = b""

    def payload(self) -> Payload:
        head = struct.pack("!BBH", self.protocol, len(self.spi), self.type)
        return Payload(Kind.NOTIFY, head + self.spi + self.data)

    @classmethod
    def parse(cls, body: bytes) -> Notify:
        if len(body) < 4 or len(body) < 4 + body[1]:
            raise ControlError("notification cut short")
        protocol, spi_octets, kind = struct.unpack_from("!BBH", body)
        return cls(kind, body[4 + spi_octets :], protocol, body[4 : 4 + spi_octets])


@dataclass(frozen=True, slots=True)
class Delete:
    """What is deleted: the IKE SA (no SPIs), or the sender's inbound ESP SAs (RFC 7296 §3.11)."""

    protocol: int
    spis: tuple[bytes, ...] = ()

    def payload(self) -> Payload:
        size = len(self.spis[0]) if self.spis else 0
        head = struct.pack("!BBH", self.protocol, size, len(self.spis))
        return Payload(Kind.DELETE, head + b"".join(self.spis))

    @classmethod
    def parse(cls, body: bytes) -> Delete:
        if len(body) < 4:
            raise ControlError("delete payload cut short")
        protocol, size, count = struct.unpack_from("!BBH", body)
        if len(body) != 4 + size * count or (count and size != 4):
            raise ControlError("delete payload does not add up")
        spis = tuple(body[at : at + size] for at in range(4, len(body), size or 1))
        return cls(protocol, spis)


@dataclass(frozen=True, slots=True)
class Selector:
    """One traffic selector: addresses from `first` to `last`, IP protocol (0: any), ports."""

    first: IPv4Address | IPv6Address
    last: IPv4Address | IPv6Address
    protocol: int = 0
    first_port: int = 0
    last_port: int = 65535


def selectors_payload(kind: Kind, selectors: Iterable[Selector]) -> Payload:
    """A TSi or TSr payload (RFC 7296 §3.13). Raises `ControlError` for more selectors than it can hold."""
    parts: list[bytes] = []
    for selector in selectors:
        addresses = selector.first.packed + selector.last.packed
        of_type = TS_IPV4_RANGE if selector.first.version == 4 else TS_IPV6_RANGE
        length = _SELECTOR.size + len(addresses)
        ports = selector.first_port, selector.last_port
        parts.append(_SELECTOR.pack(of_type, selector.protocol, length, *ports) + addresses)
    if len(parts) > MAX_SELECTORS:
        raise ControlError(f"{len(parts)} traffic selectors; a payload holds {MAX_SELECTORS}")
    return Payload(kind, bytes((len(parts), 0, 0, 0)) + b"".join(parts))


def parse_selectors(body: bytes) -> tuple[Selector, ...]:
    """The traffic selectors of a TSi or TSr payload; types that are neither IPv4 nor IPv6 are left out."""
    if len(body) < 4 or not body[0]:
        raise ControlError("no traffic selector")
    selectors: list[Selector] = []
    offset = 4
    for _ in range(body[0]):
        if offset + _SELECTOR.size > len(body):
            raise ControlError("traffic selector cut short")
        of_type, protocol, length, low, high = _SELECTOR.unpack_from(body, offset)
        if not _SELECTOR.size <= length <= len(body) - offset:
            raise ControlError(f"traffic selector says {length} octets")
        addresses = body[offset + _SELECTOR.size : offset + length]
        half = len(addresses) // 2
        if of_type == TS_IPV4_RANGE and len(addresses) == 8:
            ends = IPv4Address(addresses[:half]), IPv4Address(addresses[half:])
            selectors.append(Selector(*ends, protocol, low, high))
        elif of_type == TS_IPV6_RANGE and len(addresses) == 32:
            wide = IPv6Address(addresses[:half]), IPv6Address(addresses[half:])
            selectors.append(Selector(*wide, protocol, low, high))
        elif of_type in (TS_IPV4_RANGE, TS_IPV6_RANGE):
            raise ControlError("traffic selector of a wrong length")
        offset += length
    if offset != len(body):
        raise ControlError("octets behind the last traffic selector")
    return tuple(selectors)


class Payloads:
    """The payloads of one message, looked up by type. What is missing raises `ControlError`."""

    def __init__(self, payloads: Iterable[Payload]) -> None:
        self.all = list(payloads)
        self.notifies = [Notify.parse(p.body) for p in self.all if p.kind == Kind.NOTIFY]

    def has(self, kind: Kind) -> bool:
        """Whether there is such a payload."""
        return any(payload.kind == kind for payload in self.all)

    def bodies(self, kind: Kind) -> list[bytes]:
        """The bodies of all payloads of this type."""
        return [payload.body for payload in self.all if payload.kind == kind]

    def one(self, kind: Kind) -> bytes:
        """The body of the one payload of this type."""
        bodies = self.bodies(kind)
        if len(bodies) != 1:
            raise ControlError(f"{len(bodies)} {kind.name} payloads")
        return bodies[0]

    def nonce(self) -> bytes:
        """The nonce."""
        nonce = self.one(Kind.NONCE)
        if len(nonce) not in NONCE_OCTETS:
            raise ControlError(f"nonce of {len(nonce)} octets")
        return nonce

    def notify(self, kind: int) -> Notify | None:
        """The first notification of this type."""
        return next((notify for notify in self.notifies if notify.type == kind), None)

    def error(self) -> Notify | None:
        """The first notification that is an error."""
        return next((notify for notify in self.notifies if notify.type < 16384), None)
