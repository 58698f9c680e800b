"""ESP in tunnel mode (RFC 4303) with AES-128-GCM-16 (RFC 4106). No socket, no clock.

::

    SPI (4) | sequence number (4) | IV (8) | AES-GCM( inner packet | padding 0..3 |
    pad length (1) | next header (1) ) | ICV (16)

An `OutboundSa` seals inner packets, an `InboundSa` opens what arrives. Both keep counters; their
`repr` shows no key.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateways.keys import SaKeys
from gateways.replay import ReplayWindow
from gateways.selectors import TrafficSelectors
from topo.errors import EspError

MIN_SPI = 256
"""SPIs 1 to 255 are IANA's, 0 is local (RFC 4303 §2.1)."""
MAX_SEQUENCE = 2**32 - 1
"""Last sequence number of an SA without extended sequence numbers: a new SA comes before it."""

_HEADER = struct.Struct("!II")
_IV = struct.Struct("!Q")
_NEXT_IPV4 = 4
_NEXT_DUMMY = 59
_PADDING = bytes(range(1, 256))
_TRAILERS = tuple(_PADDING[:pad] + bytes((pad, _NEXT_IPV4)) for pad in range(4))


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


class AesGcm16:
    """The cipher of one SA: AES-GCM, explicit 8-octet IV, 16-octet ICV (RFC 4106)."""

    IV_OCTETS = 8
    ICV_OCTETS = 16
    ALIGNMENT = 4

    __slots__ = ("_aead", "_salt")

    def __init__(self, keys: SaKeys) -> None:
        self._aead = AESGCM(keys.key)
        self._salt = keys.salt

    def protect(self, header: bytes, iv: bytes, plaintext: bytes) -> bytes:
        """The ESP packet: `header` (SPI, sequence number; authenticated), IV, ciphertext, ICV."""
        return header + iv + self._aead.encrypt(self._salt + iv, plaintext, header)

    def unprotect(self, packet: bytes) -> bytes:
        """The plaintext of an ESP packet. Raises `InvalidTag` if one bit of it was changed."""
        body = _HEADER.size + self.IV_OCTETS
        nonce = self._salt + packet[_HEADER.size : body]
        return self._aead.decrypt(nonce, packet[body:], packet[: _HEADER.size])


class OutboundSa:
    """The sending half of a tunnel: seals inner IPv4 packets, numbered from 1.

    The IV is the packet's number as a 64-bit counter, so no nonce repeats under the key. `limit` is
    the last sequence number that may be used: then the SA stops, it never wraps (RFC 4303 §3.3.3).
    """

    def __init__(self, spi: int, keys: SaKeys, limit: int = MAX_SEQUENCE) -> None:
        if not MIN_SPI <= spi < 2**32 or not 0 < limit <= MAX_SEQUENCE:
            raise ValueError(f"SPI {spi:#x} or sequence limit {limit} out of range")
        self.spi = spi
        self.sequence = 0
        self.limit = limit
        self.counters = SaCounters()
        self._cipher = AesGcm16(keys)

    def __repr__(self) -> str:
        return f"OutboundSa(spi={self.spi:#010x}, sequence={self.sequence})"

    def seal(self, inner: bytes) -> bytes:
        """The ESP packet that carries `inner`. Raises `EspRefused` when the SA is used up."""
        if self.sequence >= self.limit:
            self.counters.refuse(Refusal.EXHAUSTED, f"sequence limit {self.limit} reached")
        self.sequence = sequence = self.sequence + 1
        header = _HEADER.pack(self.spi, sequence)
        trailer = _TRAILERS[-(len(inner) + 2) % AesGcm16.ALIGNMENT]
        packet = self._cipher.protect(header, _IV.pack(sequence), inner + trailer)
        self.counters.packets += 1
        self.counters.bytes += len(inner)
        return packet


class InboundSa:
    """The receiving half of a tunnel: opens ESP packets in the order of RFC 4303 §3.4."""

    _OVERHEAD = _HEADER.size + AesGcm16.IV_OCTETS + AesGcm16.ICV_OCTETS

    def __init__(
        self, spi: int, keys: SaKeys, selectors: TrafficSelectors, window: int = 1024
    ) -> None:
        if not MIN_SPI <= spi < 2**32:
            raise ValueError(f"SPI {spi:#x} out of range")
        self.spi = spi
        self.window = ReplayWindow(window)
        self.counters = SaCounters()
        self._selectors = selectors
        self._cipher = AesGcm16(keys)

    def __repr__(self) -> str:
        return f"InboundSa(spi={self.spi:#010x}, highest={self.window.highest})"

    def open(self, packet: bytes) -> bytes:
        """The inner IPv4 packet of an ESP packet.

        Raises `EspRefused`, and counts, for anything else: too short or not a multiple of 4 octets,
        another SA's SPI, a replay, a wrong ICV, bad padding, a dummy packet, a next header that is
        not IPv4, addresses outside the traffic selectors. The window moves only after the ICV.
        """
        counters = self.counters
        ciphertext_octets = len(packet) - self._OVERHEAD
        if ciphertext_octets < AesGcm16.ALIGNMENT or ciphertext_octets % AesGcm16.ALIGNMENT:
            counters.refuse(Refusal.MALFORMED, f"{len(packet)} octets")
        spi, sequence = _HEADER.unpack_from(packet)
        if spi != self.spi:
            counters.refuse(Refusal.UNKNOWN_SPI, f"SPI {spi:#010x}")
        if not self.window.check(sequence):
            counters.refuse(Refusal.REPLAY, f"sequence number {sequence}")
        try:
            plaintext = self._cipher.unprotect(packet)
        except InvalidTag:
            counters.refuse(Refusal.ICV, f"sequence number {sequence}")
        self.window.update(sequence)

        pad, next_header = plaintext[-2], plaintext[-1]
        end = len(plaintext) - 2 - pad
        if end < 0 or plaintext[end:-2] != _PADDING[:pad]:
            counters.refuse(Refusal.PADDING, f"pad length {pad}")
        if next_header == _NEXT_DUMMY:
            counters.refuse(Refusal.DUMMY, "dummy packet")
        if next_header != _NEXT_IPV4:
            counters.refuse(Refusal.NEXT_HEADER, f"next header {next_header}")
        inner = self._selectors.incoming(plaintext[:end])
        if inner is None:
            counters.refuse(Refusal.SELECTOR, "inner packet outside the traffic selectors")
        counters.packets += 1
        counters.bytes += len(inner)
        return inner
