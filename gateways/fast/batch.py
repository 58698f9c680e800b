"""Seal and open many equally long ESP packets at once: a packet is a row, and all rows lie back to back.

So they can go out in one call with UDP_SEGMENT, and are opened where one call with UDP_GRO put them. Everything that
does not depend on the packets is made once for each length and kept: the matrices' views, and for each row the slices
that the cipher reads and writes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import length_hint

import numpy as np
from cryptography.exceptions import InvalidTag

from gateways.esp import NEXT_IPV4, NEXT_IPV6
from gateways.fast.segmentation import Column, Rows
from gateways.sm4_gcrypt import Row, Sm4GcmGcrypt, rows_of
from gateways.suites import (
    ESP_HEADER_OCTETS,
    SM4_128_GCM,
    TRAILER_OCTETS,
    AesGcm16,
    PacketCipher,
    Suite,
)

MAX_ROWS = 192
"""Rows in one batch: the segments of a few 64 KiB super-packets."""
BATCH_OCTETS = 256 * 1024
"""Of a batch's ESP packets together."""
_LAYOUTS_KEPT = 64
_SALT_OCTETS, _IV_OCTETS = 4, 8
_NONCE_OCTETS = _SALT_OCTETS + _IV_OCTETS
_GCM_START = ESP_HEADER_OCTETS + _IV_OCTETS
_PADDING = bytes(range(1, 256))

_Slices = tuple[memoryview, memoryview, memoryview, memoryview]
"""Of one packet, what AES-GCM is called with: nonce, input, header, output."""


def trailer(length: int, version: int, suite: Suite) -> bytes:
    """Padding, pad length and next header behind an IP packet of `length` octets (RFC 4303 §2.4)."""
    pad = -(length + TRAILER_OCTETS) % suite.alignment
    return _PADDING[:pad] + bytes((pad, NEXT_IPV4 if version == 4 else NEXT_IPV6))


@dataclass(frozen=True, slots=True)
class Layout:
    """Rows of one length, at most `capacity`: `esp` and `plain` are matrices, each slice is of one packet.

    `headers` are SPI and sequence number, `ivs` the first 8 octets of the IVs, `nonces` the IVs of the nonces, all
    columns of big-endian 64-bit numbers. `sealing` and `opening` are for AES-GCM, `references` for libgcrypt.
    """

    capacity: int
    octets: int
    esp: Rows
    plain: Rows
    headers: Column
    ivs: Column
    nonces: Column
    packets: tuple[memoryview, ...]
    plaintexts: tuple[memoryview, ...]
    sealing: tuple[_Slices, ...]
    opening: tuple[_Slices, ...]
    references: tuple[Row, ...]
    _payloads: dict[tuple[int, int], list[memoryview]] = field(default_factory=dict)

    def payloads(self, start: int, end: int) -> list[memoryview]:
        """Octets `start` … `end` - 1 of each plaintext."""
        found = self._payloads.get((start, end))
        if found is None:
            if len(self._payloads) >= _LAYOUTS_KEPT:
                self._payloads.clear()
            found = [plaintext[start:end] for plaintext in self.plaintexts]
            self._payloads[start, end] = found
        return found


class Batch:
    """Room for a batch of ESP packets, `esp`, and for their plaintexts; any suite, any length.

    `spare_octets` more than that fit into `esp`, for a receiver to read beyond a batch.
    """

    def __init__(self, spare_octets: int = 0) -> None:
        self.esp = memoryview(bytearray(BATCH_OCTETS + spare_octets))
        self._plain = memoryview(bytearray(BATCH_OCTETS))
        self._nonces = memoryview(bytearray(MAX_ROWS * _NONCE_OCTETS))
        nonces = np.frombuffer(self._nonces, np.uint8).reshape(MAX_ROWS, _NONCE_OCTETS)
        self._salts = nonces[:, :_SALT_OCTETS]
        self._ivs = nonces[:, _SALT_OCTETS:].view(">u8")[:, 0]
        self._salt = b""
        self._count_up = np.arange(MAX_ROWS, dtype=np.uint64)
        self._layouts: dict[tuple[int, str], Layout] = {}

    def layout(self, octets: int, suite: Suite) -> Layout:
        """The layout of ESP packets of `octets` each, a length that is possible in the suite."""
        layout = self._layouts.get((octets, suite.name))
        if layout is None:
            if len(self._layouts) >= _LAYOUTS_KEPT:
                self._layouts.clear()
            layout = self._layouts[octets, suite.name] = self._make(octets, suite)
        return layout

    def seal(self, cipher: PacketCipher, spi: int, numbers: range, layout: Layout) -> None:
        """Make the first rows of `layout.esp` of those of `layout.plain`, padded and with their trailers.

        `numbers` are their sequence numbers, taken by the caller and never used before.
        """
        count = len(numbers)
        if not isinstance(cipher, AesGcm16 | Sm4GcmGcrypt):
            for number, packet, plaintext in zip(
                numbers, layout.packets, layout.plaintexts, strict=False
            ):
                packet[:] = cipher.protect(
                    spi.to_bytes(4) + number.to_bytes(4), number, bytes(plaintext)
                )
            return
        self._salted(cipher.salt)
        sequence = self._count_up[:count] + np.uint64(numbers.start)
        layout.headers[:count] = sequence + np.uint64(spi << 32)
        layout.ivs[:count] = sequence
        layout.nonces[:count] = sequence
        if isinstance(cipher, Sm4GcmGcrypt):
            cipher.seal_rows(layout.references[:count])
            return
        encrypt = cipher.aead.encrypt_into
        for nonce, plaintext, header, packet in layout.sealing[:count]:
            encrypt(nonce, plaintext, header, packet)

    def open(self, cipher: PacketCipher, count: int, layout: Layout) -> list[int]:
        """Make the first rows of `layout.plain` of the first `count` of `layout.esp`; which rows did not verify.

        A row that did not verify holds nothing that may be used.
        """
        if isinstance(cipher, AesGcm16 | Sm4GcmGcrypt):
            self._salted(cipher.salt)
            layout.nonces[:count] = layout.ivs[:count]
            if isinstance(cipher, Sm4GcmGcrypt):
                return cipher.open_rows(layout.references[:count])
            return self._open_gcm(cipher, count, layout)
        wrong = []
        for row in range(count):
            try:
                layout.plaintexts[row][:] = cipher.unprotect(bytes(layout.packets[row]))
            except InvalidTag:
                wrong.append(row)
        return wrong

    def _open_gcm(self, cipher: AesGcm16, count: int, layout: Layout) -> list[int]:
        decrypt = cipher.aead.decrypt_into
        rows = iter(layout.opening[:count])
        wrong: list[int] = []
        while True:
            try:
                for nonce, packet, header, plaintext in rows:
                    decrypt(nonce, packet, header, plaintext)
                return wrong
            except InvalidTag:
                wrong.append(count - length_hint(rows) - 1)

    def _salted(self, salt: bytes) -> None:
        if salt is not self._salt:
            self._salt = salt
            self._salts[:] = np.frombuffer(salt, np.uint8)

    def _make(self, octets: int, suite: Suite) -> Layout:
        plain_octets = octets - suite.overhead
        capacity = min(MAX_ROWS, BATCH_OCTETS // octets)
        esp = np.frombuffer(self.esp, np.uint8, capacity * octets).reshape(capacity, octets)
        plain = np.frombuffer(self._plain, np.uint8, capacity * plain_octets)
        packets = tuple(self.esp[at * octets : (at + 1) * octets] for at in range(capacity))
        plaintexts = tuple(
            self._plain[at * plain_octets : (at + 1) * plain_octets] for at in range(capacity)
        )
        nonces = [
            self._nonces[at * _NONCE_OCTETS : (at + 1) * _NONCE_OCTETS] for at in range(capacity)
        ]
        rows = list(zip(nonces, packets, plaintexts, strict=True))
        references: tuple[Row, ...] = ()
        if suite is SM4_128_GCM:
            references = rows_of(self._nonces, self.esp, self._plain, octets, capacity)
        return Layout(
            capacity=capacity,
            octets=octets,
            esp=esp,
            plain=plain.reshape(capacity, plain_octets),
            headers=esp[:, :ESP_HEADER_OCTETS].view(">u8")[:, 0],
            ivs=esp[:, ESP_HEADER_OCTETS:_GCM_START].view(">u8")[:, 0],
            nonces=self._ivs,
            packets=packets,
            plaintexts=plaintexts,
            sealing=tuple((n, p, e[:ESP_HEADER_OCTETS], e[_GCM_START:]) for n, e, p in rows),
            opening=tuple((n, e[_GCM_START:], e[:ESP_HEADER_OCTETS], p) for n, e, p in rows),
            references=references,
        )
