"""The anti-replay window of an inbound security association (RFC 4303 §3.4.3)."""

from __future__ import annotations

MIN_SIZE = 32
"""The smallest window an implementation may have (RFC 4303 §3.4.3)."""


class ReplayWindow:
    """Which sequence numbers an inbound SA has already accepted.

    A ring of `size` places; number s goes to place s mod `size`, which keeps the last number accepted there. A
    number inside the window was accepted if and only if its place holds that very number, because whatever
    overwrote it would be `size` or more above it. Nothing is shifted and nothing is cleared (RFC 6479 goes half
    this way, with a bit for each number and whole words to clear): check and update take the same short time
    however far the window moves. `size` counts sequence numbers, the highest one included. Sequence number 0
    is never valid: the first packet on an SA carries 1.
    """

    __slots__ = ("_places", "highest", "size")

    def __init__(self, size: int = 1024) -> None:
        if size < MIN_SIZE:
            raise ValueError(f"window size {size} is less than {MIN_SIZE}")
        self.size = size
        self.highest = 0
        self._places = [0] * size

    def check(self, seq: int) -> bool:
        """Whether `seq` is new and not older than the window. Changes nothing."""
        if seq > self.highest:
            return True
        size = self.size
        return self.highest - seq < size and 0 < seq != self._places[seq % size]

    def update(self, seq: int) -> None:
        """Record `seq` as accepted: only after `check` and only once its ICV has been verified."""
        self._places[seq % self.size] = seq
        self.highest = max(self.highest, seq)

    def check_batch(self, first: int, count: int) -> bool:
        """Whether the `count` numbers from `first` on are all new and above every number accepted.

        False only means that they must be checked one by one. Changes nothing.
        """
        return first > self.highest and count > 0

    def update_batch(self, first: int, count: int) -> None:
        """Record the `count` numbers from `first` on: only after `check_batch` and every one's ICV."""
        if count <= 0:
            return
        self.highest = end = first + count - 1
        size = self.size
        first = max(first, end - size + 1)
        place = first % size
        ahead = min(size - place, end - first + 1)
        self._places[place : place + ahead] = range(first, first + ahead)
        self._places[: end - first + 1 - ahead] = range(first + ahead, end + 1)
