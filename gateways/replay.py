"""The anti-replay window of an inbound security association (RFC 4303 §3.4.3, RFC 6479)."""

from __future__ import annotations

_WORD_BITS = 64


class ReplayWindow:
    """Which sequence numbers an inbound SA has already accepted.

    The bitmap is a ring of 64-bit words (RFC 6479): moving the window forward clears whole words
    and never shifts. One word more than the window needs is kept, so that the word being filled is
    never one the window still reads. `size` counts sequence numbers, the highest one included, and
    is a multiple of 64. Sequence number 0 is never valid: the first packet on an SA carries 1.
    """

    __slots__ = ("_words", "highest", "size")

    def __init__(self, size: int = 1024) -> None:
        if size <= 0 or size % _WORD_BITS:
            raise ValueError(f"window size {size} is not a positive multiple of {_WORD_BITS}")
        self.size = size
        self.highest = 0
        self._words = [0] * (size // _WORD_BITS + 1)

    def check(self, seq: int) -> bool:
        """Whether `seq` is new and not older than the window. Changes nothing."""
        if seq > self.highest:
            return True
        if seq <= 0 or self.highest - seq >= self.size:
            return False
        word = self._words[seq // _WORD_BITS % len(self._words)]
        return not word >> seq % _WORD_BITS & 1

    def update(self, seq: int) -> None:
        """Record `seq` as accepted: only after `check` and only once its ICV has been verified."""
        words = self._words
        if seq > self.highest:
            first_stale = self.highest // _WORD_BITS + 1
            newest = seq // _WORD_BITS
            for index in range(first_stale, min(newest, first_stale + len(words) - 1) + 1):
                words[index % len(words)] = 0
            self.highest = seq
        words[seq // _WORD_BITS % len(words)] |= 1 << seq % _WORD_BITS
