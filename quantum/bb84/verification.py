"""Verification: do the two ends hold the same bits? A universal hash with a key made afterwards.

A polynomial over GF(2^127 - 1) with the message as coefficients, evaluated at a random point, then
cut to the tag's length by a random affine map (Carter and Wegman, 1979). Two different messages of
n bits get the same tag with probability at most 2^-tag_bits + (n/120 + 1) 2^-126, whatever the
messages, as long as the key is drawn after both are fixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log2

import numpy as np

from quantum.bb84.detections import Bits

_PRIME = (1 << 127) - 1
_CHUNK_BYTES = 15  # 120 bits: every chunk is a field element


@dataclass(frozen=True)
class HashKey:
    """A key of the hash family, drawn afresh for every message; three field elements, public."""

    point: int
    factor: int
    offset: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> HashKey:
        """A uniformly random key."""
        point, factor, offset = (int.from_bytes(rng.bytes(16), "big") & _PRIME for _ in range(3))
        return cls(point % _PRIME, factor % _PRIME or 1, offset % _PRIME)


def tag_bits(eps_correctness: float) -> int:
    """Tag length whose collision probability is below `eps_correctness`: floor(log2(2/eps)).

    This is what the term log2(2/eps_cor) of the secret key length pays for (Lim et al. 2014).
    """
    return floor(log2(2 / eps_correctness))


def tag(bits: Bits, key: HashKey, length_bits: int) -> int:
    """The tag of a bit string, an integer below 2**length_bits; bits have shape (n,)."""
    message = np.packbits(bits).tobytes()
    # The length goes first, so that strings that differ in trailing zeros only are different.
    value = len(bits)
    for start in range(0, len(message), _CHUNK_BYTES):
        chunk = int.from_bytes(message[start : start + _CHUNK_BYTES], "big")
        value = (value * key.point + chunk) % _PRIME
    return (key.factor * value + key.offset) % _PRIME % (1 << length_bits)
