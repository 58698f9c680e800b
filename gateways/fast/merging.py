"""Merge packets of one flow into super-packets, many at once: a packet is a row of a matrix, a field a column.

Only neighbours are merged, so no packet overtakes another. Two packets join where the receiver could not tell them
from two segments of one super-packet: the same headers but for what each segment has of its own, checksums that are
right (a wrong one must stay wrong, so it is verified before it is made anew), TCP sequence numbers that follow each
other, no flag but ACK, and PSH at the end only. What cannot join goes alone, as it came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from gateways.checksum import pseudo_header
from gateways.fast.segmentation import MODULUS, Column, Rows, row_sums, sum_at, swapped
from gateways.fast.vnet import CHECKSUM_AT, PLAIN, TCP, UDP, UDP_OCTETS, merged
from gateways.selectors import IPV4_HEADER_OCTETS, IPV6_HEADER_OCTETS

MAX_IP_OCTETS = 65535
MAX_UDP_SEGMENTS = 64
"""What every kernel cuts (UDP_MAX_SEGMENTS; 128 since Linux 6.9)."""
_DF = b"\x40\x00"
_ACK, _PSH = 0x10, 0x08
_MIN_TCP_OCTETS = 20


class Run(NamedTuple):
    """Rows `start` … `stop` - 1 as one packet to write: `head`, then of each row what follows its `skip` octets.

    `head` begins with the virtio header. A row that goes alone is there whole: its `skip` is 0. An empty `head`: the
    rows are refused.
    """

    start: int
    stop: int
    skip: int
    head: bytes


class _Shape(NamedTuple):
    """Where the headers of a packet that may be merged lie, octets."""

    version: int
    protocol: int
    transport: int
    header: int


def runs(rows: Rows, length: int, tail: bytes, admits: Callable[[bytes], bool]) -> Iterator[Run]:
    """How to write the packets in `rows`, in order: which go together and which alone.

    Each row holds `length` octets, then `tail`, the same in all of them. `admits` judges a packet; it is asked about
    one of those that have all headers in common. What it refuses comes back as refused.
    """
    start, count = 0, len(rows)
    while start < count:
        packet = rows[start, :length].tobytes()
        shape = _shape(packet, length)
        if shape is None:
            yield Run(start, start + 1, 0, PLAIN if admits(packet) else b"")
            start += 1
            continue
        stop = start + _alike(rows[start:], shape)
        if admits(packet):
            yield from _merged(rows, start, stop, (length, tail, shape))
        else:
            yield Run(start, stop, 0, b"")
        start = stop


def _merged(rows: Rows, start: int, stop: int, what: tuple[int, bytes, _Shape]) -> Iterator[Run]:
    """The runs in rows that have their headers in common."""
    if stop - start == 1:
        yield Run(start, stop, 0, PLAIN)
        return
    length, tail, shape = what
    joins = _joins(rows[start:stop], shape, length, tail)
    most = (MAX_IP_OCTETS - shape.header) // (length - shape.header)
    if shape.protocol == UDP:
        most = min(most, MAX_UDP_SEGMENTS)
    breaks = [] if joins.all() else (np.flatnonzero(~joins) + (start + 1)).tolist()
    for begin, end in pairwise([start, *breaks, stop]):
        for first in range(begin, end, most):
            last = min(first + most, end)
            if last - first == 1:
                yield Run(first, last, 0, PLAIN)
            else:
                yield Run(first, last, shape.header, _head(rows, first, last, length, shape))


def _shape(packet: bytes, length: int) -> _Shape | None:
    """The shape of a packet that begins so, or None: it goes alone."""
    if packet[0] == 0x45 and packet[6:8] == _DF:
        version, protocol, transport = 4, packet[9], IPV4_HEADER_OCTETS
    elif packet[0] >> 4 == 6:
        version, protocol, transport = 6, packet[6], IPV6_HEADER_OCTETS
    else:
        return None
    if protocol == UDP and length > transport + UDP_OCTETS:
        stated = int.from_bytes(packet[transport + 4 : transport + 6])
        checked = packet[transport + 6 : transport + 8] != b"\0\0"
        if checked and stated == length - transport:
            return _Shape(version, protocol, transport, transport + UDP_OCTETS)
    elif protocol == TCP and length > transport + _MIN_TCP_OCTETS:
        header = transport + (packet[transport + 12] >> 4) * 4
        plain = packet[transport + 13] & ~_PSH == _ACK
        if plain and transport + _MIN_TCP_OCTETS <= header < length:
            return _Shape(version, protocol, transport, header)
    return None


@cache
def _mask(shape: _Shape) -> Column:
    """The bits of the headers that all segments of a super-packet have in common, as words; shape (header / 4,)."""
    octets = bytearray(b"\xff" * shape.header)
    own = [shape.transport + CHECKSUM_AT[shape.protocol] + at for at in (0, 1)]
    if shape.version == 4:
        own += [4, 5, 10, 11]  # identification, header checksum
    if shape.protocol == TCP:
        own += range(shape.transport + 4, shape.transport + 8)  # sequence number
        octets[shape.transport + 13] = 0xFF & ~_PSH
    for at in own:
        octets[at] = 0
    return np.frombuffer(octets, "<u4")


def _alike(rows: Rows, shape: _Shape) -> int:
    """How many of the first rows have the headers that the segments of one super-packet have in common."""
    common = rows.view("<u4")[:, : shape.header // 4] & _mask(shape)
    other = (common != common[0]).any(axis=1)
    return int(other.argmax()) or len(rows)


def _joins(rows: Rows, shape: _Shape, length: int, tail: bytes) -> Column:
    """Whether each row but the first joins the one before it, all having one shape; shape (n - 1,)."""
    right = _right(rows, rows.view("<u4"), shape, length, tail)
    joins: Column = right[1:] & right[:-1]
    if shape.protocol == TCP:
        at = shape.transport
        sequence = rows[:, at + 4 : at + 8].view(">u4")[:, 0].astype(np.int64)
        joins &= (sequence[1:] - sequence[:-1]) & 0xFFFFFFFF == length - shape.header
        joins &= rows[:-1, at + 13] == _ACK
    return joins


def _right(rows: Rows, words: Column, shape: _Shape, length: int, tail: bytes) -> Column:
    """Whether the checksums of each row are right; shape (n,)."""
    pseudo_sum = swapped(shape.protocol + length - shape.transport) - sum_at(tail, length)
    total = row_sums(rows).astype(np.int64)
    if shape.version == 6:
        outside = words[:, :2].sum(axis=1, dtype=np.int64)
        right: Column = (total - outside + pseudo_sum) % MODULUS == 0
    else:
        addresses = words[:, 3:5].sum(axis=1, dtype=np.int64)
        right = (total + addresses + pseudo_sum) % MODULUS == 0  # the IP header's own sum is 0 …
        right &= words[:, :5].sum(axis=1, dtype=np.int64) % MODULUS == 0  # … if this holds
    if shape.protocol == UDP:
        right &= rows[:, shape.transport + 6 : shape.transport + 8].any(axis=1)
    return right


def _head(rows: Rows, start: int, stop: int, length: int, shape: _Shape) -> bytes:
    """Virtio header and headers of the super-packet of rows `start` … `stop` - 1."""
    head = bytearray(rows[start, : shape.header].tobytes())
    transport, gso = shape.transport, length - shape.header
    total = shape.header + (stop - start) * gso
    if shape.version == 4:
        head[2:4] = total.to_bytes(2)
        head[10:12] = bytes(2)
        head[10:12] = (-int.from_bytes(head[:transport]) % MODULUS).to_bytes(2)
    else:
        head[4:6] = (total - transport).to_bytes(2)
    if shape.protocol == TCP:
        head[transport + 13] |= int(rows[stop - 1, transport + 13]) & _PSH
    else:
        head[transport + 4 : transport + 6] = (total - transport).to_bytes(2)
    pseudo = pseudo_header(bytes(head), shape.protocol, total - transport)
    field = transport + CHECKSUM_AT[shape.protocol]
    head[field : field + 2] = (int.from_bytes(pseudo) % MODULUS).to_bytes(2)
    return merged(shape.version, shape.protocol, transport, shape.header, gso) + bytes(head)
