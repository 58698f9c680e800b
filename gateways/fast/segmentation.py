"""Cut super-packets into IP packets, many at once: a packet is a row of a matrix, a field a column.

Sums are modulo 65535 (`gateways.checksum`), so they may be taken over 32-bit words, and in the machine's byte order if
they are stored in it too (RFC 1071 §2 B). The words here are little-endian on every machine.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gateways.fast.vnet import CHECKSUM_AT, TCP, UDP, SuperPacket

Rows: TypeAlias = npt.NDArray[np.uint8]
"""A matrix of octets, one packet a row; the row's length is a multiple of 4."""
Column: TypeAlias = npt.NDArray[Any]

MODULUS = 0xFFFF
_DF = 0x40
_FIN_PSH, _CWR = 0x09, 0x80


def row_sums(rows: Rows) -> Column:
    """The sum of each row's little-endian words, not reduced; shape (n,), 64 bits unsigned."""
    return np.add.reduce(rows.view("<u4"), axis=1, dtype=np.uint64)  # type: ignore[no-any-return]


def sum_at(data: bytes, offset: int) -> int:
    """What `data` adds to the little-endian sum of a row in which it lies at `offset`."""
    return int.from_bytes(bytes(offset % 2) + data, "little") % MODULUS


def swapped(total: int) -> int:
    """A sum of words in the other byte order."""
    total %= MODULUS
    return (total & 0xFF) << 8 | total >> 8


class Cutter:
    """Cuts one super-packet into `count` packets, `length` octets each but perhaps the last, `last_length`."""

    def __init__(self, packet: memoryview, what: SuperPacket) -> None:
        self._packet, self._what = packet, what
        self._head = bytes(packet[: what.header])
        self.count = -(-what.payload // what.gso)
        self.length = what.header + what.gso
        self.last_length = what.header + what.payload - (self.count - 1) * what.gso
        # The partial sum in the checksum field counts the super-packet's length, a packet's counts its own.
        at = what.transport + CHECKSUM_AT[what.protocol]
        whole = what.header - what.transport + what.payload
        self._pseudo_sum = int.from_bytes(self._head[at : at + 2]) - whole

    def fill(self, rows: Rows, first: int, length: int, tail: bytes) -> None:
        """Write packets `first` … into `rows`, each of `length` octets and followed by `tail` to the row's end."""
        what, count = self._what, len(rows)
        size, transport = length - what.header, what.transport
        head = self._header(length)
        ip_sum = 0  # of IPv4: its checksum makes it so
        if what.version == 6:
            ip_sum = sum_at(bytes(head[:transport]), 0)
        start = what.header + first * what.gso
        payload = np.frombuffer(self._packet, np.uint8, count * size, start)
        rows[:, : what.header] = np.frombuffer(head, np.uint8)
        rows[:, what.header : length] = payload.reshape(count, size)
        rows[:, length:] = np.frombuffer(tail, np.uint8)
        if what.version == 4 and not head[6] & _DF:
            self._number(rows, first, head)
        if what.protocol == TCP:
            self._sequence(rows, first)
        pseudo_sum = swapped(self._pseudo_sum + length - transport)
        known = np.int64(pseudo_sum - ip_sum - sum_at(tail, length))
        check = -(row_sums(rows).astype(np.int64) + known) % MODULUS
        if what.protocol == UDP:
            check[check == 0] = MODULUS
        field = transport + CHECKSUM_AT[what.protocol]
        rows[:, field : field + 2].view("<u2")[:, 0] = check

    def sample(self) -> bytes:
        """The headers as a packet of their own, which a policy judges as it would judge every packet."""
        return bytes(self._header(self._what.header))

    def packets(self) -> list[bytes]:
        """All packets, one by one, as octets."""
        made = []
        for number in range(self.count):
            length = self.length if number < self.count - 1 else self.last_length
            row = np.empty((1, length + 3 & ~3), np.uint8)
            self.fill(row, number, length, bytes(-length % 4))
            made.append(row.tobytes()[:length])
        return made

    def _header(self, length: int) -> bytearray:
        """The headers of a packet of `length` octets, its transport checksum 0, its flags those of a middle one."""
        what = self._what
        head = bytearray(self._head)
        transport = what.transport
        if what.version == 4:
            head[2:4] = length.to_bytes(2)
            head[10:12] = bytes(2)
            head[10:12] = (-int.from_bytes(head[:transport]) % MODULUS).to_bytes(2)
        else:
            head[4:6] = (length - 40).to_bytes(2)
        if what.protocol == TCP:
            head[transport + 13] &= ~(_FIN_PSH | _CWR) & 0xFF
        else:
            head[transport + 4 : transport + 6] = (length - transport).to_bytes(2)
        field = transport + CHECKSUM_AT[what.protocol]
        head[field : field + 2] = bytes(2)
        return head

    def _number(self, rows: Rows, first: int, head: bytearray) -> None:
        """Give each packet that may be fragmented on its way an identification of its own (RFC 6864 §4)."""
        base = int.from_bytes(head[4:6])
        numbers = (np.arange(first, first + len(rows)) + base) & 0xFFFF
        check = int.from_bytes(head[10:12]) + base
        rows[:, 4:6].view(">u2")[:, 0] = numbers
        rows[:, 10:12].view(">u2")[:, 0] = (check - numbers) % MODULUS

    def _sequence(self, rows: Rows, first: int) -> None:
        """TCP: each packet's sequence number, and the flags that only the first or the last one has."""
        what, at = self._what, self._what.transport
        numbers = np.arange(first, first + len(rows), dtype=np.int64) * what.gso
        sequence = int.from_bytes(self._head[at + 4 : at + 8])
        rows[:, at + 4 : at + 8].view(">u4")[:, 0] = numbers + sequence & 0xFFFFFFFF
        flags = self._head[at + 13]
        if first == 0:
            rows[0, at + 13] |= flags & _CWR
        if first + len(rows) == self.count:
            rows[-1, at + 13] |= flags & _FIN_PSH
