"""Privacy amplification: a random Toeplitz matrix takes n bits to the l that nobody else knows.

Toeplitz matrices from n + l - 1 public random bits are a universal family, so the leftover hash
lemma holds. The product is a convolution, done by a float64 FFT; the sums must come out as
integers, and how far they are off is checked: a float32 FFT, say, gives wrong keys from 4 Mbit on.
"""

from __future__ import annotations

import numpy as np
from scipy import fft

from quantum.bb84.detections import Bits
from topo.errors import NoKeyFromPass, ProtocolError

MAX_ROUNDING_ERROR = 0.1
"""Largest accepted distance of a sum from an integer; 0.5 would be a wrong bit."""


def seed_bits(n: int, length: int) -> int:
    """Bits that define a Toeplitz matrix of `length` rows and n columns."""
    return n + length - 1


def whole_bytes(bits: Bits) -> bytes:
    """A key as bytes, first bit highest, without the bits that do not fill one."""
    return np.packbits(bits[: len(bits) // 8 * 8]).tobytes()


def toeplitz_hash(bits: Bits, seed: Bits, length: int) -> Bits:
    """The first `length` bits of T x mod 2 with T[i, j] = seed[i - j + n - 1].

    `bits` x has shape (n,), `seed` shape (n + length - 1,), the result shape (length,), all 0 or 1.
    Raises `ProtocolError` for a seed of another length, `NoKeyFromPass` if the FFT's rounding error
    comes near to mattering.
    """
    n = len(bits)
    if length < 1 or n < 1 or len(seed) != seed_bits(n, length):
        raise ProtocolError(f"Toeplitz hash of {n} to {length} bits: seed of {len(seed)} bits")
    # Circular wrap-around reaches the first n - 1 sums only, and these are not used.
    size = fft.next_fast_len(len(seed), real=True)
    spectrum = fft.rfft(bits.astype(np.float64), size) * fft.rfft(seed.astype(np.float64), size)
    sums = fft.irfft(spectrum, size)[n - 1 : n - 1 + length]
    rounded = np.rint(sums)
    error = float(np.abs(sums - rounded).max())
    if not error < MAX_ROUNDING_ERROR:
        raise NoKeyFromPass(
            f"no key: privacy amplification of {n} bits is off by {error:.2g} in its FFT"
        )
    return (rounded.astype(np.int64) & 1).astype(np.uint8)
