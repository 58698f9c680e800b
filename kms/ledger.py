"""The key ledger of one site: which bits exist, and which have left the store.

A block is a run of secret bytes that two sites share (a relayed quantum key). Both ledgers hold the
same block under the same number and never talk at request time, because its use is split by
direction::

    0           32                    32 + (length - 32) // 2                  length
    | naming area | masters at site "U" | masters at site "N"                    |

The naming area only makes key_IDs (`kms.key_id`). A site *takes* keys for its own masters from its
own half, in order, and *fetches* keys for its own slaves from the other half, by key_ID. A range
leaves the store at most once at each site: its states go FREE → RESERVED → DELIVERED → DESTROYED
(`kms.ranges`), never back, and the change is on the disk before the bytes are handed out. A crash
may lose the keys of the transaction under way, never deliver one twice. Time plays no part in that:
a clock that jumps may expire blocks too early or too late, and makes no byte FREE again.

Material is sealed at rest (`kms.vault`), every row is authenticated and the store is one process's
(`kms.ledger_store`), the files are sealed and counted (`kms.store_seal`), what the two sites know of
each other is compared after a partition or a crash (`kms.reconcile`).

Delivered bytes are erased in the transaction that delivers them: what is left of their chunk is
sealed under a new data key, the old key overwritten. The erasure is best effort: the write-ahead log
and the main file hold the old pages until the next checkpoint, and a flash disk or a copying file
system may keep remnants; Python cannot promise to wipe its own memory either.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from kms.blocks import Block, BlockKeys
from kms.key_id import (
    MAX_BLOCK_BYTES,
    MAX_BLOCK_NUMBER,
    NAMING_AREA_BYTES,
    KeyLocation,
    format_key_id,
)
from kms.ledger_store import Site, create_store
from kms.places import (
    KeyNotFound,
    check_apart,
    key_bytes,
    named_key,
    next_keys,
    next_pad,
    recipients,
)
from kms.pools import (
    AuditEntry,
    Consumption,
    Direction,
    LedgerCounts,
    Pad,
    PoolLevel,
    consumption_of,
    level_of,
)
from kms.ranges import RangeState
from kms.stock import Stock
from kms.vault import LedgerUntrusted
from topo.errors import LedgerError

MINIMUM_BLOCK_BYTES = NAMING_AREA_BYTES + 2 * 32
"""The smallest block worth storing: one 256-bit key in each direction."""
MOST_SLAVES = 8
"""How many slaves one key is looked for at once."""


class Ledger:
    """An open ledger. Methods are atomic and thread-safe; `now` goes into the audit trail."""

    def __init__(
        self, path: Path | str, secret: bytes | None = None, *, wait_for_peer: bool = False
    ) -> None:
        """Open the ledger at `path`, and recover it if its last process did not close it.

        `secret` (at least 32 bytes) opens the store; by default it is read from the file beside it.
        With `wait_for_peer` no key is given out before the other site has been heard
        (`kms.reconcile`): that alone shows a roll-back of all files together.

        `LedgerError` if it is missing, foreign, or open elsewhere; `LedgerUntrusted` if it is not
        as it was left.
        """
        self.path = Path(path)
        self.stock = Stock(self.path, secret)
        self.peer_heard = not wait_for_peer
        self.summary_version = self.stock.state.peer_version
        """The other site's version whose summary was acted on; it may have announced later ones."""

    @classmethod
    def create(cls, path: Path | str, site: Site, secret: bytes | None = None) -> Self:
        """A new, empty ledger for the site "U" or "N", its files readable by their owner only."""
        create_store(Path(path), site, secret)
        return cls(path, secret)

    def close(self) -> None:
        self.stock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def site(self) -> Site:
        return self.stock.site

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Several requests in one durable transaction: release no result before it has ended.

        Each request inside is all or nothing by itself. If the batch fails, nothing of it is done.
        """
        with self.stock.transaction():
            yield

    def has_block(self, number: int) -> bool:
        return number in self.stock.blocks

    def add_block(
        self,
        number: int,
        material: bytes,
        label: str,
        now: datetime,
        expires: datetime | None = None,
    ) -> None:
        """Store a block that the other site stores too. A number is used once, ever; so are its bytes.

        What is left of it at `expires` is destroyed by the next `expire`. `LedgerError` if a block
        that was ever here has the same naming area: then its keys would be given again.
        """
        if not 0 <= number <= MAX_BLOCK_NUMBER:
            raise LedgerError(f"block number {number} is outside 0…{MAX_BLOCK_NUMBER}")
        if not MINIMUM_BLOCK_BYTES <= len(material) <= MAX_BLOCK_BYTES:
            raise LedgerError(
                f"block {number}: {len(material)} bytes is under {MINIMUM_BLOCK_BYTES} or too long"
            )
        keys = BlockKeys.derive(material)
        digest = keys.digest(material)
        with self.stock.lock:
            self._check_trusted()
            if self.has_block(number):
                raise LedgerError(f"block {number} is stored already")
            for other in self.stock.blocks.values():
                if other.keys.naming == keys.naming:
                    raise LedgerError(
                        f"block {number}: its bytes came before, as block {other.number}"
                    )
            block = Block(self.site, number, label, len(material), now, expires, digest, keys)
            with self.stock.transaction():
                self.stock.add(block, material)
                self.stock.audit(
                    now, "add_block", block=number, label=label, length_bytes=len(material)
                )

    def take(
        self,
        master: str,
        slave: str | Sequence[str],
        size_bits: int,
        count: int,
        now: datetime,
        *,
        added_after: datetime | None = None,
    ) -> list[tuple[str, bytes]]:
        """`count` fresh keys of `size_bits` (whole bytes) for our `master` to share with `slave`.

        Several slaves (all at the other site) get the same keys, each once. With `added_after`,
        keys come from blocks stored then or later only. Returns (key_ID, key) pairs. All or
        nothing: raises `PoolExhausted`, and consumes nothing, if there are not that many.
        """
        size_bytes = key_bytes(size_bits)
        slaves = [slave] if isinstance(slave, str) else sorted(set(slave))
        if count < 1 or not 1 <= len(slaves) <= MOST_SLAVES:
            raise LedgerError(f"{count} keys for {len(slaves)} slaves asked for")
        with self.stock.lock:
            self._check_serving()
            places = next_keys(self.stock.blocks, size_bytes, count, added_after)
            with self.stock.transaction():
                keys = [self._use(at) for at in places]
                key_ids = [
                    format_key_id(
                        at, master, slaves, self.stock.blocks[at.block_number].keys.naming
                    )
                    for at in places
                ]
                self.stock.state.taken_keys += count
                self.stock.state.taken_bytes += count * size_bytes
                named = slaves[0] if len(slaves) == 1 else slaves
                self.stock.audit(now, "take", master=master, slave=named, key_IDs=key_ids)
        return list(zip(key_ids, keys, strict=True))

    def fetch(
        self,
        master: str,
        slave: str,
        key_ids: Sequence[str],
        now: datetime,
        others: Sequence[str] = (),
        *,
        most: int = MOST_SLAVES,
    ) -> list[tuple[str, bytes]]:
        """The keys that the other site's `master` took for our `slave`, by key_ID, each one once.

        `others` are SAEs that may be slaves of the same keys, `most` at once. Returns (key_ID in lower case, key)
        pairs in the order asked. All or nothing: raises `KeyNotFound`, and consumes nothing, if any
        is unknown, forged, not for this pair, or delivered.
        """
        key_ids = [key_id.lower() for key_id in key_ids]
        candidates = {slave, *others}
        with self.stock.lock:
            self._check_serving()
            found = [
                named_key(
                    self.stock.blocks, key_id, master, slave, candidates=candidates, most=most
                )
                for key_id in key_ids
            ]
            check_apart([at for at, _ in found])
            with self.stock.transaction():
                keys = [self._hand_over(at, waiting - {slave}) for at, waiting in found]
                self.stock.state.fetched_keys += len(keys)
                self.stock.audit(now, "fetch", master=master, slave=slave, key_IDs=key_ids)
        return list(zip(key_ids, keys, strict=True))

    def take_pad(self, size_bytes: int, purpose: str, now: datetime) -> list[Pad]:
        """`size_bytes` of our own half as one-time pad; tell the other site each piece's `place`.

        `PoolExhausted`, and nothing consumed, if there is less.
        """
        if size_bytes < 1:
            raise LedgerError(f"{size_bytes} bytes of pad asked for")
        with self.stock.lock:
            self._check_serving()
            places = next_pad(self.stock.blocks, size_bytes)
            with self.stock.transaction():
                pads = [Pad(at.block_number, at.offset_bytes, self._use(at)) for at in places]
                self.stock.state.pad_bytes += size_bytes
                listed = [list(pad.place) for pad in pads]
                self.stock.audit(now, "take_pad", purpose=purpose, places=listed)
        return pads

    def fetch_pad(
        self, places: Sequence[tuple[int, int, int]], purpose: str, now: datetime
    ) -> bytes:
        """The pad that the other site took at `places`, once.

        `KeyNotFound`, and nothing consumed, if a byte of it is not in the other site's half or used.
        """
        wanted = [KeyLocation(*place) for place in places]
        with self.stock.lock:
            self._check_serving()
            for at in wanted:
                block = self.stock.blocks.get(at.block_number)
                if block is None or not block.waiting(at, frozenset({purpose})):
                    raise KeyNotFound(f"no pad at {at}")
            check_apart(wanted)
            with self.stock.transaction():
                pad = b"".join(self._use(at) for at in wanted)
                self.stock.state.pad_bytes += len(pad)
                listed = [list(place) for place in places]
                self.stock.audit(now, "fetch_pad", purpose=purpose, places=listed)
        return pad

    def destroy_block(self, number: int, reason: str, now: datetime) -> int:
        """Erase what is left of a block; how many bytes that was."""
        with self.stock.lock:
            block = self.stock.blocks.get(number)
            if block is None:
                raise LedgerError(f"block {number}: not in store")
            with self.stock.transaction():
                return self._destroy(block, reason, now)

    def expire(self, now: datetime) -> int:
        """Erase what is left of every block whose time is over; how many bytes that was."""
        with self.stock.lock:
            due = [
                block
                for block in self.stock.blocks.values()
                if block.expires is not None and block.expires <= now and not block.empty
            ]
            if not due:
                return 0
            with self.stock.transaction():
                return sum(self._destroy(block, "expired", now) for block in due)

    def start_over(self, now: datetime) -> int:
        """Erase all that is left and serve again, from blocks to come; how many bytes that was.

        The way on after a roll-back: what the ledger holds may have been given out before.
        """
        with self.stock.lock, self.stock.transaction():
            state = self.stock.state
            destroyed = sum(
                self._destroy(block, "start over", now) for block in self.stock.blocks.values()
            )
            self.stock.audit(now, "start_over", distrust=state.distrust)
            state.distrust = ""
            state.version = max(state.version, state.own_version_seen)
        return destroyed

    def recipients(
        self, key_id: str, master: str, candidates: Iterable[str], most: int = MOST_SLAVES
    ) -> frozenset[str]:
        """For which of the `candidates` (`most` at once) `master` took this key, delivered or not."""
        return recipients(self.stock.blocks, key_id, master, candidates, most)

    def stored_key_count(self, size_bits: int) -> int:
        """How many keys of `size_bits` a master of this site can still take."""
        size_bytes = key_bytes(size_bits)
        with self.stock.lock:
            return sum(block.free_keys(size_bytes) for block in self.stock.blocks.values())

    def level(self, direction: Direction) -> PoolLevel:
        """One direction's pool, in bytes by state."""
        with self.stock.lock:
            return level_of(self.stock.blocks.values(), direction)

    def consumption(self) -> Consumption:
        """What has left the store since it was made."""
        with self.stock.lock:
            return consumption_of(self.stock.state)

    def counts(self) -> LedgerCounts:
        """How full the ledger is."""
        with self.stock.lock:
            own, peer = self.level("own"), self.level("peer")
            fetched, blocks = self.stock.state.fetched_bytes, len(self.stock.blocks)
        return LedgerCounts(blocks, own.total_bytes, own.free_bytes, peer.total_bytes, fetched)

    def audit_trail(self) -> list[AuditEntry]:
        """The audit trail, after checking its chain; `LedgerUntrusted` if it was changed."""
        return [
            AuditEntry(sequence, at, event, json.loads(detail))
            for sequence, at, event, detail in self.stock.audit_lines()
        ]

    @property
    def distrust(self) -> str:
        """Why nothing is served from here any more; empty if all is well."""
        return self.stock.state.distrust

    def _check_trusted(self) -> None:
        if self.distrust:
            raise LedgerUntrusted(f"{self.path}: {self.distrust}")

    def _check_serving(self) -> None:
        self._check_trusted()
        if not self.peer_heard:
            raise LedgerError(f"{self.path}: waits for the other site's summary")

    def _use(self, at: KeyLocation) -> bytes:
        """Read and erase bytes that are given away for good."""
        material = self.stock.read(at)
        block = self.stock.blocks[at.block_number]
        end = at.offset_bytes + at.size_bytes
        self.stock.assign(block, at.offset_bytes, end, RangeState.DELIVERED)
        return material

    def _hand_over(self, at: KeyLocation, waiting: frozenset[str]) -> bytes:
        """A key for one of its slaves, while others may be `waiting` for theirs."""
        if not waiting:
            self.stock.state.fetched_bytes += at.size_bytes
            return self._use(at)
        block = self.stock.blocks[at.block_number]
        end = at.offset_bytes + at.size_bytes
        self.stock.assign(block, at.offset_bytes, end, RangeState.RESERVED)
        self.stock.set_waiting(block, at.offset_bytes, at.size_bytes, waiting)
        return self.stock.read(at)

    def _destroy(self, block: Block, reason: str, now: datetime) -> int:
        stored = [
            run for half in (block.own, block.peer) for run in half.runs() if run.state.stored
        ]
        for run in stored:
            self.stock.assign(block, run.start, run.stop, RangeState.DESTROYED)
        destroyed = sum(run.stop - run.start for run in stored)
        if destroyed:
            self.stock.audit(now, "destroy", block=block.number, reason=reason, bytes=destroyed)
        return destroyed
