"""Health tests of incoming key: a stuck or biased source must not fill a pool.

The two continuous tests of NIST SP 800-90B §4.4 over a whole block, once on its bits (claimed
min-entropy H = 1 a sample) and once on its bytes (H = 8), which also sees short patterns that have
balanced bits. They notice gross failure, not a clever adversary: key whose secrecy is in doubt is
the business of privacy amplification.
"""

from __future__ import annotations

from functools import cache
from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from topo.errors import KeySupplyError

FALSE_ALARM_EXPONENT = 40
"""A good sample or window fails with probability 2^-40, the strict end of SP 800-90B's advice: one block of a
million bits in a million is refused for nothing."""
BIT_WINDOW, BYTE_WINDOW = 1024, 512
"""Samples in a window of the adaptive proportion test, binary and not (SP 800-90B §4.4.2)."""

Samples = NDArray[np.uint8]


def repetition_cutoff(
    min_entropy_bits: float, false_alarm_exponent: int = FALSE_ALARM_EXPONENT
) -> int:
    """How many equal samples in a row are too many: 1 + ceil(-log2 alpha / H) (SP 800-90B §4.4.1)."""
    return 1 + ceil(false_alarm_exponent / min_entropy_bits)


@cache
def proportion_cutoff(
    window: int, min_entropy_bits: float, false_alarm_exponent: int = FALSE_ALARM_EXPONENT
) -> int:
    """How many samples of a window may not equal its first one (SP 800-90B §4.4.2).

    C = 2 + critbinom(W - 1, 2^-H, 1 - alpha): the first sample equals itself, so only W - 1 are
    drawn (J. Hill's correction to the standard's formula); at most W.
    """
    tail = 2.0**-false_alarm_exponent
    return min(window, 2 + int(binom.isf(tail, window - 1, 2.0**-min_entropy_bits)))


def complaint(material: bytes) -> str | None:
    """Why a key block looks like no random one, in words; None if nothing is wrong with it."""
    octets = np.frombuffer(material, np.uint8)
    for samples, name, entropy_bits, longest_window in (
        (np.unpackbits(octets), "bits", 1.0, BIT_WINDOW),
        (octets, "bytes", 8.0, BYTE_WINDOW),
    ):
        run, most = _longest_run(samples), repetition_cutoff(entropy_bits)
        if run >= most:
            return f"repetition count: {run} equal {name} in a row, limit {most - 1}"
        window = min(longest_window, len(samples))
        count, most = _most_like_the_first(samples, window), proportion_cutoff(window, entropy_bits)
        if count >= most:
            return f"adaptive proportion: {count} equal {name} among {window}, limit {most - 1}"
    return None


def require_healthy(material: bytes, what: str) -> None:
    """`KeySupplyError` that names `what` and the test it fails, if the key block fails one."""
    if (why := complaint(material)) is not None:
        raise KeySupplyError(f"{what} fails its health test: {why}")


def _longest_run(samples: Samples) -> int:
    changes = np.flatnonzero(np.diff(samples)) + 1
    return int(np.diff(changes, prepend=0, append=len(samples)).max())


def _most_like_the_first(samples: Samples, window: int) -> int:
    """Over all windows one after the other, and the last `window` samples: how many equal the first."""
    if not window:
        return 0
    whole = len(samples) // window * window
    windows = np.vstack([samples[:whole].reshape(-1, window), samples[-window:]])
    return int((windows == windows[:, :1]).sum(axis=1).max())
