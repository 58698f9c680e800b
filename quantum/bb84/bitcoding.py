"""Bits on the wire: packed bits, packed integers, and Rice-coded ascending positions.

A decoder takes bytes that anybody may have changed: whatever they are, it returns arrays of the
size it was told or raises `ProtocolError`, and never makes an array much larger than its input.
"""

from __future__ import annotations

import struct
from math import log, log2

import numpy as np
from numpy.typing import NDArray

from quantum.bb84.detections import Bits, Indices
from topo.errors import ProtocolError

MAX_WIDTH_BITS = 32
_CHUNK = 1 << 16
"""Integers expanded to bits at a time; a multiple of 8, so that chunks end on whole bytes."""


class Reader:
    """Takes a message apart from front to end."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0

    def take(self, size: int) -> memoryview:
        """The next `size` bytes. Raises `ProtocolError` when there are fewer."""
        if not 0 <= size <= len(self._data) - self._at:
            raise ProtocolError(f"a message ends at byte {len(self._data)}, before all of it came")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        """An unsigned big-endian integer of `size` bytes."""
        return int.from_bytes(self.take(size), "big")

    def bits(self, count: int) -> Bits:
        """Packed bits, shape (count,)."""
        return np.unpackbits(np.frombuffer(self.take(-(-count // 8)), np.uint8), count=count)

    def integers(self, count: int, width_bits: int) -> NDArray[np.uint32]:
        """Packed unsigned integers of `width_bits` each, shape (count,)."""
        octets = np.frombuffer(self.take(-(-count * width_bits // 8)), np.uint8)
        values = np.empty(count, np.uint32)
        for start in range(0, count, _CHUNK):
            stop = min(start + _CHUNK, count)
            rows = np.zeros((stop - start, MAX_WIDTH_BITS), np.uint8)
            if width_bits:
                part = octets[start * width_bits // 8 : -(-stop * width_bits // 8)]
                bits = np.unpackbits(part, count=(stop - start) * width_bits)
                rows[:, MAX_WIDTH_BITS - width_bits :] = bits.reshape(-1, width_bits)
            values[start:stop] = np.packbits(rows).view(">u4")
        return values

    def positions(self) -> Indices:
        """What `rice_coded` wrote, shape (positions,)."""
        count, width_bits, unary_bytes = struct.unpack(">IBI", self.take(9))
        if width_bits > MAX_WIDTH_BITS:
            raise ProtocolError(f"a Rice code of {width_bits} bits: at most {MAX_WIDTH_BITS}")
        stops = np.flatnonzero(np.unpackbits(np.frombuffer(self.take(unary_bytes), np.uint8)))
        if len(stops) != count:
            raise ProtocolError(f"a Rice code of {count} numbers has {len(stops)}")
        gaps = np.diff(stops, prepend=-1) - 1 << width_bits
        gaps += self.integers(count, width_bits)
        gaps += 1
        return np.cumsum(gaps) - 1

    def end(self) -> None:
        """Raises `ProtocolError` when something is left."""
        if self._at != len(self._data):
            raise ProtocolError(f"a message is {len(self._data) - self._at} bytes too long")


def packed(bits: NDArray[np.uint8] | NDArray[np.bool_]) -> bytes:
    """Eight bits a byte, first bit highest, the last byte filled up with zeros."""
    return np.packbits(bits).tobytes()


def packed_integers(values: NDArray[np.integer], width_bits: int) -> bytes:
    """Unsigned integers below 2**width_bits, one after the other, highest bit first."""
    parts = []
    for start in range(0, len(values), _CHUNK):
        octets = values[start : start + _CHUNK].astype(">u4").view(np.uint8)
        rows = np.unpackbits(octets).reshape(-1, MAX_WIDTH_BITS)
        parts.append(np.packbits(rows[:, MAX_WIDTH_BITS - width_bits :]).tobytes())
    return b"".join(parts)


def rice_coded(positions: Indices) -> bytes:
    """Ascending positions, each at least 0, by the gaps between them; shape (positions,).

    A gap's quotient by 2**width goes out in unary, its remainder in `width` bits (Rice, 1979); the
    quotients of all gaps stand before the remainders. For the geometric gaps of clicks this is
    within 3 % of their entropy.
    """
    gaps = np.diff(positions, prepend=-1) - 1
    mean = float(gaps.mean()) if len(gaps) else 0.0
    width_bits = min(max(0, round(log2(max(mean * log(2), 1)))), MAX_WIDTH_BITS)
    stops = np.cumsum((gaps >> width_bits) + 1) - 1
    unary = np.zeros(int(stops[-1]) + 1 if len(stops) else 0, np.uint8)
    unary[stops] = 1
    quotients = packed(unary)
    remainders = packed_integers(gaps & (1 << width_bits) - 1, width_bits)
    return struct.pack(">IBI", len(gaps), width_bits, len(quotients)) + quotients + remainders
