"""A block of the ledger in memory: whose half is what, which bytes are in which state, its chunks.

Material is stored in chunks of `CHUNK_BYTES`, each sealed by itself (`kms.vault`). A chunk is sealed
anew, under a new data key and without the used bytes, whenever bytes of it are used, and dropped
when the last is.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kms.key_id import NAMING_AREA_BYTES, KeyLocation, derive_naming_key
from kms.ledger_store import Site
from kms.ranges import RangeMap, RangeState

CHUNK_BYTES = 3968
"""Payload of a chunk: with seal and header it fills one SQLite page of 4096 bytes."""
_CHUNK_NUMBER_BITS = 24


@dataclass(frozen=True)
class BlockKeys:
    """What is derived from a block when it is stored, and kept after its bytes have gone."""

    naming: bytes = field(repr=False)
    """Makes and checks key_IDs (`kms.key_id`)."""
    reconciling: bytes = field(repr=False)
    """Authenticates what the two sites tell each other about the block (`kms.reconcile`)."""

    @classmethod
    def derive(cls, material: bytes) -> BlockKeys:
        area = material[:NAMING_AREA_BYTES]
        reconciling = HKDF(SHA256(), 32, None, b"qntn reconciliation v1").derive(area)
        return cls(derive_naming_key(area), reconciling)

    def digest(self, material: bytes) -> bytes:
        """Equal at the two sites if and only if their blocks are; tells nobody else anything."""
        mac = HMAC(self.reconciling, SHA256())
        mac.update(b"block" + material)
        return mac.finalize()


def halves(site: Site, length: int) -> tuple[range, range]:
    """Of a block's bytes, those that masters at `site` draw from, and those of the other site's."""
    middle = NAMING_AREA_BYTES + (length - NAMING_AREA_BYTES) // 2
    for_u, for_n = range(NAMING_AREA_BYTES, middle), range(middle, length)
    return (for_u, for_n) if site == "U" else (for_n, for_u)


@dataclass
class Block:
    """A block at `site`; `own` is the half that its masters draw from, `peer` the other site's.

    `pending`: keys of several slaves of which some are still to come: offset → (length, who waits).
    """

    site: Site
    number: int
    label: str
    length: int
    added: datetime
    expires: datetime | None
    digest: bytes
    keys: BlockKeys
    own: RangeMap = field(init=False)
    peer: RangeMap = field(init=False)
    pending: dict[int, tuple[int, frozenset[str]]] = field(default_factory=dict)
    _pending_offsets: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        own, peer = halves(self.site, self.length)
        self.own, self.peer = RangeMap(own), RangeMap(peer)

    def half_of(self, offset: int) -> RangeMap:
        return self.own if offset in self.own.span else self.peer

    @property
    def gives(self) -> bool:
        """Whether a byte of our own half is FREE."""
        return self.own.totals[RangeState.FREE] > 0

    @property
    def empty(self) -> bool:
        """Whether no byte is stored any more."""
        return not (self.own.stored_bytes or self.peer.stored_bytes)

    def free_places(self, size_bytes: int) -> Iterator[KeyLocation]:
        """Places for keys of one size in our own half, from the front."""
        for run in self.own.free_runs():
            for offset in range(run.start, run.stop - size_bytes + 1, size_bytes):
                yield KeyLocation(self.number, offset, size_bytes)

    def free_keys(self, size_bytes: int) -> int:
        """How many keys of this size our own half can give."""
        return sum((run.stop - run.start) // size_bytes for run in self.own.free_runs())

    def waiting(self, at: KeyLocation, slaves: frozenset[str]) -> frozenset[str]:
        """Which of a key's slaves may still fetch it here; none if its bytes have been used."""
        offset, end = at.offset_bytes, at.offset_bytes + at.size_bytes
        if offset not in self.peer.span or not offset < end <= self.peer.span.stop:
            return frozenset()
        if not self.peer.is_stored(offset, end):
            return frozenset()
        index = bisect_left(self._pending_offsets, end)
        if index:  # the last one that begins before our end: does it reach into our place?
            start = self._pending_offsets[index - 1]
            length, left = self.pending[start]
            if start == offset and length == at.size_bytes:
                return left & slaves
            if start + length > offset:
                return frozenset()
        return slaves

    def set_pending(self, offset: int, length: int, waiting: frozenset[str]) -> None:
        if offset not in self.pending:
            insort(self._pending_offsets, offset)
        self.pending[offset] = (length, waiting)

    def drop_pending(self, offset: int) -> None:
        if self.pending.pop(offset, None) is not None:
            del self._pending_offsets[bisect_left(self._pending_offsets, offset)]

    def pending_within(self, start: int, stop: int) -> list[int]:
        """Offsets of pending keys with a byte in start … stop - 1. No two of them overlap."""
        found = []
        index = bisect_left(self._pending_offsets, stop)
        while index and (at := self._pending_offsets[index - 1]) + self.pending[at][0] > start:
            found.append(at)
            index -= 1
        return found

    def chunk_ids(self, start: int, stop: int) -> range:
        """The chunks that hold bytes start … stop - 1."""
        base = self.number << _CHUNK_NUMBER_BITS
        return range(base + start // CHUNK_BYTES, base + (stop - 1) // CHUNK_BYTES + 1)

    def any_stored(self, chunk_id: int) -> bool:
        """Whether a chunk holds bytes that somebody may still get."""
        start = chunk_start(chunk_id)
        stop = start + CHUNK_BYTES
        return any(
            half.any_stored(max(start, half.span.start), min(stop, half.span.stop))
            for half in (self.own, self.peer)
            if start < half.span.stop and stop > half.span.start
        )


def chunk_start(chunk_id: int) -> int:
    """Where in its block a chunk begins."""
    return chunk_id % (1 << _CHUNK_NUMBER_BITS) * CHUNK_BYTES


def block_number(chunk_id: int) -> int:
    return chunk_id >> _CHUNK_NUMBER_BITS
