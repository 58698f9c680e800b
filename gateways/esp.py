"""ESP in tunnel mode (RFC 4303): IPv4 and IPv6 inside, any suite. No socket, no clock.

::

    SPI (4) | sequence number (4) | IV | encrypted( inner packet | padding | pad length (1) |
    next header (1) ) | ICV

An `OutboundSa` seals inner packets, an `InboundSa` opens what arrives; whether the ESP packet travels raw (IP
protocol 50) or in UDP (RFC 3948) makes no difference here. Both keep counters; their `repr` shows no key.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

from cryptography.exceptions import InvalidTag

from gateways.keys import SaKeys
from gateways.replay import ReplayWindow
from gateways.selectors import TrafficSelectors
from gateways.suites import TRAILER_OCTETS, PacketCipher
from topo.errors import EspError

MIN_SPI = 256
"""SPIs 1 to 255 are IANA's, 0 is local (RFC 4303 §2.1)."""
MAX_SEQUENCE = 2**32 - 1
"""Last sequence number of an SA without extended sequence numbers: a new SA comes before it."""
NEXT_IPV4, NEXT_IPV6, NEXT_DUMMY = 4, 41, 59
"""Next headers of tunnel mode, and of a packet that the receiver drops (RFC 4303 §2.6)."""

_HEADER = struct.Struct("!II")
_PADDING = bytes(range(1, 256))
_IP_VERSIONS = {NEXT_IPV4: 4, NEXT_IPV6: 6}
_VERSION_OF_TRAILER = {
    _PADDING[:pad] + bytes((pad, next_header)): version
    for next_header, version in _IP_VERSIONS.items()
    for pad in range(256)
}
"""IP version that a right trailer announces. A trailer longer than its plaintext is in no way in here."""


class Refusal(StrEnum):
    """Why a packet was refused; each value names the counter that counted it."""

    MALFORMED = "malformed"
    UNKNOWN_SPI = "unknown_spi"
    REPLAY = "replays"
    ICV = "icv_failures"
    PADDING = "bad_padding"
    DUMMY = "dummies"
    NEXT_HEADER = "bad_next_header"
    SELECTOR = "selector_drops"
    EXHAUSTED = "exhausted"


class EspRefused(EspError):
    """A packet refused for `reason`; nothing of it may be used."""

    def __init__(self, reason: Refusal, detail: str) -> None:
        self.reason = reason
        super().__init__(f"{reason}: {detail}")


@dataclass(slots=True)
class SaCounters:
    """What happened on one SA: packets and inner octets that passed, and refusals by reason."""

    packets: int = 0
    bytes: int = 0
    malformed: int = 0
    unknown_spi: int = 0
    replays: int = 0
    icv_failures: int = 0
    bad_padding: int = 0
    dummies: int = 0
    bad_next_header: int = 0
    selector_drops: int = 0
    exhausted: int = 0

    def refuse(self, reason: Refusal, detail: str) -> NoReturn:
        setattr(self, reason, getattr(self, reason) + 1)
        raise EspRefused(reason, detail)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """What an SA may carry: packets and inner octets until it is to be replaced, octets until it ends."""

    soft_packets: int = MAX_SEQUENCE
    soft_bytes: int = sys.maxsize
    hard_bytes: int = sys.maxsize


def _trailers(next_header: int, alignment: int) -> tuple[bytes, ...]:
    """The shortest trailer for each inner length modulo `alignment`."""
    pads = (-(residue + TRAILER_OCTETS) % alignment for residue in range(alignment))
    return tuple(_PADDING[:pad] + bytes((pad, next_header)) for pad in pads)


class OutboundSa:
    """The sending half of a tunnel: seals inner IP packets, numbered from 1.

    The cipher is given the packet's number as its counter, and a number is taken before it is used, so no GCM
    nonce repeats under the key. `limit` is the last sequence number that may be used: then the SA stops, it
    never wraps (RFC 4303 §3.3.3). Nothing here is ever stored: after a restart there is a new key. Whoever holds
    the keys makes this object of them once, and hands the object on: a second one would begin at 1 again.
    """

    def __init__(self, spi: int, keys: SaKeys, limit: int = MAX_SEQUENCE) -> None:
        if not MIN_SPI <= spi < 2**32 or not 0 < limit <= MAX_SEQUENCE:
            raise ValueError(f"SPI {spi:#x} or sequence limit {limit} out of range")
        self.spi = spi
        self.suite = keys.suite
        self.sequence = 0
        self.limit = limit
        self.lifetime = Lifetime()
        self.counters = SaCounters()
        self._cipher: PacketCipher | None = keys.cipher()
        self._trailers_of_version = {
            4: _trailers(NEXT_IPV4, self.suite.alignment),
            6: _trailers(NEXT_IPV6, self.suite.alignment),
        }

    def __repr__(self) -> str:
        return (
            f"OutboundSa(spi={self.spi:#010x}, suite={self.suite.name}, sequence={self.sequence})"
        )

    @property
    def cipher(self) -> PacketCipher:
        """The cipher, for a caller that lays out packets by itself. Raises `EspRefused` once erased."""
        if self._cipher is None:
            self.counters.refuse(Refusal.EXHAUSTED, "the SA was erased")
        return self._cipher

    def take(self, count: int) -> range:
        """The next `count` sequence numbers, which the caller alone may now use.

        Fewer when the SA ends before; the missing ones are counted as exhausted.
        """
        first = self.sequence + 1
        granted = min(count, self.limit - self.sequence)
        self.counters.exhausted += count - granted
        self.sequence += granted
        return range(first, first + granted)

    def seal(self, inner: bytes) -> bytes:
        """The ESP packet that carries `inner`. Raises `EspRefused`, and counts.

        That is when the SA is used up, or when `inner` is neither IPv4 nor IPv6.
        """
        trailers = self._trailers_of_version.get(inner[0] >> 4) if inner else None
        if trailers is None:
            self.counters.refuse(Refusal.MALFORMED, "neither IPv4 nor IPv6")
        return self._seal(inner, inner + trailers[len(inner) % self.suite.alignment])

    def seal_payload(self, next_header: int, payload: bytes, padding: int = 0) -> bytes:
        """An ESP packet with any next header: a dummy (59), AGGFRAG (144), or IP with padding behind it.

        `padding` octets of traffic-flow-confidentiality padding, zeros, follow the payload (RFC 4303 §2.7).
        """
        padded = payload + bytes(padding)
        alignment = self.suite.alignment
        return self._seal(
            payload, padded + _trailers(next_header, alignment)[len(padded) % alignment]
        )

    def _seal(self, inner: bytes, plaintext: bytes) -> bytes:
        counters, cipher = self.counters, self._cipher
        if self.sequence >= self.limit or cipher is None:
            counters.refuse(Refusal.EXHAUSTED, f"sequence limit {self.limit} reached")
        self.sequence = sequence = self.sequence + 1
        packet = cipher.protect(_HEADER.pack(self.spi, sequence), sequence, plaintext)
        counters.packets += 1
        counters.bytes += len(inner)
        return packet

    def seal_batch(self, packets: Sequence[bytes]) -> list[bytes]:
        """The ESP packets that carry `packets`, in order; what `seal` would refuse is left out and counted."""
        cipher = self._cipher
        numbers = self.take(len(packets))
        if cipher is None:
            return []
        spi, alignment, protect = self.spi, self.suite.alignment, cipher.protect
        trailers_of_version, pack = self._trailers_of_version, _HEADER.pack
        sealed: list[bytes] = []
        octets = 0
        for sequence, inner in zip(numbers, packets, strict=False):
            trailers = trailers_of_version.get(inner[0] >> 4) if inner else None
            if trailers is None:
                self.counters.malformed += 1
                continue
            length = len(inner)
            octets += length
            sealed.append(
                protect(pack(spi, sequence), sequence, inner + trailers[length % alignment])
            )
        self.counters.packets += len(sealed)
        self.counters.bytes += octets
        return sealed

    def erase(self) -> None:
        """Let go of the key: OpenSSL wipes its contexts when they go. Nothing can be sealed any more."""
        self._cipher = None
        self.limit = self.sequence


class InboundSa:
    """The receiving half of a tunnel: opens ESP packets in the order of RFC 4303 §3.4."""

    def __init__(
        self, spi: int, keys: SaKeys, selectors: TrafficSelectors, window: int = 1024
    ) -> None:
        if not MIN_SPI <= spi < 2**32:
            raise ValueError(f"SPI {spi:#x} out of range")
        self.spi = spi
        self.suite = keys.suite
        self.window = ReplayWindow(window)
        self.counters = SaCounters()
        self.selectors = selectors
        self.lifetime = Lifetime()
        self._cipher: PacketCipher | None = keys.cipher()

    def __repr__(self) -> str:
        return f"InboundSa(spi={self.spi:#010x}, suite={self.suite.name}, highest={self.window.highest})"

    @property
    def cipher(self) -> PacketCipher:
        """The cipher, for a caller that takes packets apart by itself. Raises `EspRefused` once erased."""
        if self._cipher is None:
            self.counters.refuse(Refusal.UNKNOWN_SPI, "the SA was erased")
        return self._cipher

    def open(self, packet: bytes) -> bytes:
        """The inner IP packet of an ESP packet.

        Raises `EspRefused`, and counts, for anything else: too short or not on the suite's alignment, another
        SA's SPI, a replay, a wrong ICV, bad padding, a dummy packet, a next header that is neither IPv4 nor
        IPv6, an inner packet of the other version or outside the traffic selectors. The window moves only
        after the ICV.
        """
        next_header, payload = self.open_payload(packet)
        inner = self._admitted(next_header, payload)
        counters = self.counters
        counters.packets += 1
        counters.bytes += len(inner)
        return inner

    def admit(self, inner: bytes) -> bytes:
        """An inner packet that shared its ESP packets with others (AGGFRAG), as `open` would give it.

        Raises `EspRefused`, and counts, for one that is no whole IP packet or outside the traffic selectors.
        """
        inner = self._admitted(NEXT_IPV6 if inner[:1] >= b"\x60" else NEXT_IPV4, inner)
        self.counters.packets += 1
        self.counters.bytes += len(inner)
        return inner

    def open_payload(self, packet: bytes) -> tuple[int, bytes]:
        """Next header and payload of an ESP packet, before any selector has seen them.

        For next headers of one's own, AGGFRAG (144) say. A dummy is refused here like in `open`, and so is
        whatever else `open` refuses before it looks at the inner packet; nothing is counted as passed.
        """
        sequence = self._expected(packet)
        if not self.window.check(sequence):
            self.counters.refuse(Refusal.REPLAY, f"sequence number {sequence}")
        plaintext = self._unprotected(packet, sequence)
        self.window.update(sequence)
        return self._unpadded(plaintext)

    def open_batch(self, packets: Iterable[bytes]) -> list[bytes]:
        """The inner packets of a burst of ESP packets, in order; what `open` would refuse is left out and counted.

        Packets numbered on from the highest so far need no look into the window, and it is told of the whole run
        in one go. Any other packet goes through `open`.
        """
        cipher, window, counters = self._cipher, self.window, self.counters
        spi, overhead, alignment = self.spi, self.suite.overhead, self.suite.alignment
        incoming, unpack = self.selectors.incoming, _HEADER.unpack_from
        opened: list[bytes] = []
        packets_in_runs = octets_in_runs = 0
        first = following = (
            window.highest + 1
        )  # the run first … following - 1 is opened but not yet recorded
        for packet in packets:
            size = len(packet) - overhead
            if size <= 0 or size % alignment or unpack(packet) != (spi, following) or not cipher:
                window.update_batch(first, following - first)
                with suppress(EspRefused):
                    opened.append(self.open(packet))
                first = following = window.highest + 1
                continue
            try:
                plaintext = cipher.unprotect(packet)
            except InvalidTag:
                counters.icv_failures += 1
                continue
            following += 1
            end = len(plaintext) - TRAILER_OCTETS - plaintext[-2]
            version = _VERSION_OF_TRAILER.get(plaintext[end:])
            inner = incoming(plaintext[:end]) if version else None
            if inner is None or inner[0] >> 4 != version:
                with suppress(EspRefused):
                    self._admitted(*self._unpadded(plaintext))
                continue
            opened.append(inner)
            packets_in_runs += 1
            octets_in_runs += len(inner)
        window.update_batch(first, following - first)
        counters.packets += packets_in_runs
        counters.bytes += octets_in_runs
        return opened

    def erase(self) -> None:
        """Let go of the key: OpenSSL wipes its contexts when they go. Nothing can be opened any more."""
        self._cipher = None

    def _expected(self, packet: bytes) -> int:
        """The sequence number of a packet that has this SA's SPI and a possible length."""
        suite = self.suite
        ciphertext_octets = len(packet) - suite.overhead
        if ciphertext_octets <= 0 or ciphertext_octets % suite.alignment:
            self.counters.refuse(Refusal.MALFORMED, f"{len(packet)} octets")
        spi, sequence = _HEADER.unpack_from(packet)
        if spi != self.spi:
            self.counters.refuse(Refusal.UNKNOWN_SPI, f"SPI {spi:#010x}")
        return int(sequence)

    def _unprotected(self, packet: bytes, sequence: int) -> bytes:
        try:
            return self.cipher.unprotect(packet)
        except InvalidTag:
            self.counters.refuse(Refusal.ICV, f"sequence number {sequence}")

    def _unpadded(self, plaintext: bytes) -> tuple[int, bytes]:
        pad, next_header = plaintext[-2], plaintext[-1]
        end = len(plaintext) - TRAILER_OCTETS - pad
        if end < 0 or plaintext[end:-TRAILER_OCTETS] != _PADDING[:pad]:
            self.counters.refuse(Refusal.PADDING, f"pad length {pad}")
        if next_header == NEXT_DUMMY:
            self.counters.refuse(Refusal.DUMMY, "dummy packet")
        return next_header, plaintext[:end]

    def _admitted(self, next_header: int, payload: bytes) -> bytes:
        version = _IP_VERSIONS.get(next_header)
        if version is None:
            self.counters.refuse(Refusal.NEXT_HEADER, f"next header {next_header}")
        inner = self.selectors.incoming(payload)
        if inner is None or inner[0] >> 4 != version:
            self.counters.refuse(Refusal.SELECTOR, "inner packet outside the traffic selectors")
        return inner
