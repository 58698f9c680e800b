"""Keys that wait on the satellites for their relay: to the byte, what became of the key of every pass.

A pass leaves one block with the satellite and the same with its station. When a pair of stations
has blocks from one satellite, the older is K1 and the newer K2: `kms.relay` makes one common block
of them, spends what it uses of both, and the rest of either waits on. The rest of a K2 that no K1
needed is key like any other: it is the K1 of a later relay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from kms.key_id import NAMING_AREA_BYTES
from kms.ledger import MINIMUM_BLOCK_BYTES
from kms.relay import MAC_KEY_BYTES, relayed_bytes

SHORTEST_BLOCK_BYTES = MINIMUM_BLOCK_BYTES + 2 * MAC_KEY_BYTES
"""Of a pass: enough to be either K1 or K2 of a relay."""


@dataclass(frozen=True)
class PassBlock:
    """The key block that one pass of `satellite` over `station` gave."""

    satellite: str
    station: str
    made_at: datetime
    size_bytes: int


@dataclass(frozen=True)
class Relay:
    """One relay: which blocks it took from, and how much."""

    at: datetime
    k1: PassBlock
    k2: PassBlock
    block_bytes: int
    """Length of the common block, as both stations store it."""

    @property
    def k1_spent_bytes(self) -> int:
        """The common block, and the key of the receipt."""
        return self.block_bytes + MAC_KEY_BYTES

    @property
    def k2_spent_bytes(self) -> int:
        """The pad for all that K1 gives, and the key of the tag."""
        return self.k1_spent_bytes + MAC_KEY_BYTES

    @property
    def pool_bits(self) -> int:
        """What the two KMSs can give out of it: all but the naming area of the block."""
        return 8 * (self.block_bytes - NAMING_AREA_BYTES)

    @property
    def waited_s(self) -> float:
        """How long K1 was on the satellite."""
        return (self.at - self.k1.made_at).total_seconds()


@dataclass
class _Waiting:
    block: PassBlock
    left_bytes: int


class WaitingKeys:
    """All blocks that wait, by satellite and station, oldest first."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], list[_Waiting]] = {}

    def add(self, block: PassBlock) -> None:
        """A pass has given a block."""
        queue = self._waiting.setdefault((block.satellite, block.station), [])
        queue.append(_Waiting(block, block.size_bytes))

    def left_bytes(self, satellite: str, station: str) -> int:
        """What waits of all blocks of a station on a satellite."""
        return sum(one.left_bytes for one in self._waiting.get((satellite, station), ()))

    def __iter__(self) -> Iterator[tuple[PassBlock, int]]:
        """Every block of which something waits, and how much."""
        for queue in self._waiting.values():
            for one in queue:
                if one.left_bytes:
                    yield one.block, one.left_bytes

    def relay(self, satellite: str, one: str, other: str, now: datetime) -> Relay | None:
        """Use the oldest blocks that wait for two stations; None if either has none that is long enough.

        A rest too short for a block of its own keeps waiting and is never used.
        """
        ours, theirs = self._oldest(satellite, one), self._oldest(satellite, other)
        if ours is None or theirs is None:
            return None
        k1, k2 = sorted((ours, theirs), key=lambda waiting: waiting.block.made_at)
        relay = Relay(now, k1.block, k2.block, relayed_bytes(k1.left_bytes, k2.left_bytes))
        k1.left_bytes -= relay.k1_spent_bytes
        k2.left_bytes -= relay.k2_spent_bytes
        return relay

    def _oldest(self, satellite: str, station: str) -> _Waiting | None:
        """The oldest block long enough to be either K1 or K2."""
        queue = self._waiting.get((satellite, station), ())
        return next((one for one in queue if one.left_bytes >= SHORTEST_BLOCK_BYTES), None)
