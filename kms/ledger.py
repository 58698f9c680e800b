"""The key ledger of one site: which bits exist, and which have left the store.

A block is a run of secret bytes that two sites share (a relayed quantum key). Both ledgers hold the
same block under the same number and never talk at request time, because its use is split by
direction::

    0           32                    32 + (length - 32) // 2                  length
    | naming area | masters at site "U" | masters at site "N"                    |

The naming area only makes key_IDs (`kms.key_id`). A site *takes* keys for its own masters from its
own half, in order, and *fetches* keys for its own slaves from the other half, by key_ID. A range
leaves the store at most once at each site.

Ranges are FREE while no row names them, RESERVED (the naming area) or DELIVERED. Delivered bytes
are overwritten with zeros in the transaction that delivers them. That erasure is best effort: the
rollback journal held the old page until it was truncated, and a flash disk or a copying file system
may keep remnants; Python cannot promise to wipe its own memory either.

One SQLite file, rollback journal (no shared memory, so any file system will do), synchronous=FULL,
held by one process at a time. A transaction is committed before its keys are handed out: a crash
may lose keys, never deliver them twice.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from kms.key_id import (
    MAX_BLOCK_BYTES,
    MAX_BLOCK_NUMBER,
    MAX_KEY_BYTES,
    NAMING_AREA_BYTES,
    KeyLocation,
    KeyName,
    derive_naming_key,
    format_key_id,
    is_genuine,
    parse_key_id,
)
from kms.ledger_store import Site, create_store, open_store
from topo.errors import LedgerError, ProtocolError

MINIMUM_BLOCK_BYTES = NAMING_AREA_BYTES + 2 * 32
"""The smallest block worth storing: one 256-bit key in each direction."""


class PoolExhausted(LedgerError):
    """Fewer keys are left in this direction than were asked for; nothing was consumed."""


class KeyNotFound(LedgerError):
    """A key_ID that names no key still deliverable to this slave; nothing was consumed."""


class RangeState(StrEnum):
    RESERVED = "RESERVED"
    DELIVERED = "DELIVERED"


@dataclass(frozen=True)
class AuditEntry:
    """One line of the audit trail: what happened, when, to which keys. Never key material."""

    sequence: int
    at: str
    event: str
    detail: Mapping[str, object]


@dataclass(frozen=True)
class LedgerCounts:
    """How full a ledger is, in bytes: `own` is for this site's masters, `peer` for the other's."""

    blocks: int
    own_bytes: int
    own_free_bytes: int
    peer_bytes: int
    peer_fetched_bytes: int


@dataclass
class _Block:
    """A block in the running ledger; `next_offset` is the first free byte of our own half."""

    number: int
    own: range
    peer: range
    next_offset: int
    naming_key: bytes = field(repr=False)


class Ledger:
    """An open ledger. Methods are atomic and thread-safe; `now` goes into the audit trail."""

    def __init__(self, path: Path | str) -> None:
        """Open the ledger at `path`; `LedgerError` if it is missing, foreign, or open elsewhere."""
        self.path = Path(path)
        self._lock = threading.RLock()
        self._db = open_store(self.path)
        try:
            self.site: Site = cast(Site, self._db.execute("SELECT name FROM site").fetchone()[0])
            self._blocks = {
                number: self._load(number, length)
                for number, length in self._db.execute("SELECT number, length FROM blocks")
            }
        except sqlite3.Error as error:
            self._db.close()
            raise LedgerError(f"{path}: {error}") from error

    @classmethod
    def create(cls, path: Path | str, site: Site) -> Self:
        """A new, empty ledger for the site "U" or "N", its file readable by its owner only."""
        create_store(Path(path), site)
        return cls(path)

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def has_block(self, number: int) -> bool:
        return number in self._blocks

    def add_block(self, number: int, material: bytes, label: str, now: datetime) -> None:
        """Store a block that the other site stores too. A number is used once, ever."""
        if not 0 <= number <= MAX_BLOCK_NUMBER:
            raise LedgerError(f"block number {number} is outside 0…{MAX_BLOCK_NUMBER}")
        if not MINIMUM_BLOCK_BYTES <= len(material) <= MAX_BLOCK_BYTES:
            raise LedgerError(
                f"block {number}: {len(material)} bytes is under {MINIMUM_BLOCK_BYTES} or too long"
            )
        with self._lock:
            if self.has_block(number):
                raise LedgerError(f"block {number} is stored already")
            with self._transaction():
                self._db.execute(
                    "INSERT INTO blocks VALUES (?, ?, ?, ?)",
                    (number, label, len(material), material),
                )
                self._mark(KeyLocation(number, 0, NAMING_AREA_BYTES), RangeState.RESERVED)
                self._audit(now, "add_block", block=number, label=label, length_bytes=len(material))
            self._blocks[number] = self._load(number, len(material))

    def take(
        self, master: str, slave: str, size_bits: int, count: int, now: datetime
    ) -> list[tuple[str, bytes]]:
        """`count` fresh keys of `size_bits` (whole bytes) for our `master` to share with `slave`.

        Returns (key_ID, key) pairs. All or nothing: raises `PoolExhausted`, and consumes nothing,
        if the own halves of all blocks cannot give that many.
        """
        size_bytes = _key_bytes(size_bits)
        if count < 1:
            raise LedgerError(f"{count} keys asked for")
        with self._lock:
            locations = self._allocate(size_bytes, count)
            key_ids = [
                format_key_id(at, master, slave, self._blocks[at.block_number].naming_key)
                for at in locations
            ]
            with self._transaction():
                keys = self._deliver(locations)
                self._audit(now, "take", master=master, slave=slave, key_IDs=key_ids)
            for at in locations:  # only once it is committed
                self._blocks[at.block_number].next_offset = at.offset_bytes + at.size_bytes
        return list(zip(key_ids, keys, strict=True))

    def fetch(
        self, master: str, slave: str, key_ids: Sequence[str], now: datetime
    ) -> list[tuple[str, bytes]]:
        """The keys that the other site's `master` took for our `slave`, by key_ID, each one once.

        Returns (key_ID in lower case, key) pairs in the order asked. All or nothing: raises
        `KeyNotFound`, and consumes nothing, if any is unknown, forged, not for this pair, or
        delivered.
        """
        key_ids = [key_id.lower() for key_id in key_ids]
        locations = [self._resolve(key_id, master, slave) for key_id in key_ids]
        with self._transaction():
            keys = self._deliver(locations)
            self._audit(now, "fetch", master=master, slave=slave, key_IDs=key_ids)
        return list(zip(key_ids, keys, strict=True))

    def owner(self, key_id: str, pairs: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
        """Which of the (master, slave) `pairs` a key_ID was issued for, delivered or not."""
        name, block = self._lookup(key_id)
        if name is None or block is None:
            return None
        return next((pair for pair in pairs if is_genuine(name, *pair, block.naming_key)), None)

    def stored_key_count(self, size_bits: int) -> int:
        """How many keys of `size_bits` a master of this site can still take."""
        size_bytes = _key_bytes(size_bits)
        return sum(
            (block.own.stop - block.next_offset) // size_bytes for block in self._blocks.values()
        )

    def counts(self) -> LedgerCounts:
        blocks = list(self._blocks.values())
        with self._transaction():
            delivered = self._db.execute(
                "SELECT coalesce(sum(length), 0) FROM ranges WHERE state = ?",
                (RangeState.DELIVERED,),
            ).fetchone()[0]
            own_delivered = sum(
                self._db.execute(
                    "SELECT coalesce(sum(length), 0) FROM ranges"
                    " WHERE block = ? AND offset >= ? AND offset < ?",
                    (block.number, block.own.start, block.own.stop),
                ).fetchone()[0]
                for block in blocks
            )
        return LedgerCounts(
            blocks=len(blocks),
            own_bytes=sum(len(block.own) for block in blocks),
            own_free_bytes=sum(block.own.stop - block.next_offset for block in blocks),
            peer_bytes=sum(len(block.peer) for block in blocks),
            peer_fetched_bytes=delivered - own_delivered,
        )

    def audit_trail(self) -> list[AuditEntry]:
        with self._transaction():
            rows = self._db.execute("SELECT sequence, at, event, detail FROM audit").fetchall()
        return [
            AuditEntry(sequence, at, event, json.loads(detail))
            for sequence, at, event, detail in rows
        ]

    def _load(self, number: int, length: int) -> _Block:
        middle = NAMING_AREA_BYTES + (length - NAMING_AREA_BYTES) // 2
        halves = {"U": range(NAMING_AREA_BYTES, middle), "N": range(middle, length)}
        own, peer = halves[self.site], halves["N" if self.site == "U" else "U"]
        last = self._db.execute(
            "SELECT max(offset + length) FROM ranges"
            " WHERE block = ? AND offset >= ? AND offset < ?",
            (number, own.start, own.stop),
        ).fetchone()[0]
        with self._db.blobopen("blocks", "material", number, readonly=True) as material:
            naming_key = derive_naming_key(material.read(NAMING_AREA_BYTES))
        return _Block(number, own, peer, own.start if last is None else last, naming_key)

    def _allocate(self, size_bytes: int, count: int) -> list[KeyLocation]:
        """The first `count` places in our own halves, oldest block first; none spans two blocks."""
        locations: list[KeyLocation] = []
        for number in sorted(self._blocks):
            if len(locations) == count:
                break
            block = self._blocks[number]
            fitting = range(block.next_offset, block.own.stop - size_bytes + 1, size_bytes)
            for offset in fitting[: count - len(locations)]:
                locations.append(KeyLocation(number, offset, size_bytes))
        if len(locations) < count:
            raise PoolExhausted(f"{count} keys asked for, {len(locations)} in store")
        return locations

    def _lookup(self, key_id: str) -> tuple[KeyName | None, _Block | None]:
        try:
            name = parse_key_id(key_id)
        except ProtocolError:
            return None, None  # another KMS's UUID, perhaps: simply not one of ours
        return name, self._blocks.get(name.location.block_number)

    def _resolve(self, key_id: str, master: str, slave: str) -> KeyLocation:
        """The place a key_ID names, if it is genuine and lies in the other site's half."""
        name, block = self._lookup(key_id)
        if (
            name is None
            or block is None
            or not is_genuine(name, master, slave, block.naming_key)
            or name.location.offset_bytes not in block.peer
            or name.location.offset_bytes + name.location.size_bytes > block.peer.stop
        ):
            raise KeyNotFound(f"no key {key_id} from {master} for {slave}")
        return name.location

    def _deliver(self, locations: Sequence[KeyLocation]) -> list[bytes]:
        """Read, erase and mark each place; `KeyNotFound` if a byte of one was delivered before."""
        keys = []
        for at in locations:
            end = at.offset_bytes + at.size_bytes
            overlap = self._db.execute(
                "SELECT 1 FROM ranges WHERE block = ?"
                " AND offset > ? AND offset < ? AND offset + length > ?",
                (at.block_number, at.offset_bytes - MAX_KEY_BYTES, end, at.offset_bytes),
            ).fetchone()
            if overlap is not None:
                raise KeyNotFound(
                    f"block {at.block_number}, bytes {at.offset_bytes}…{end}: delivered before"
                )
            with self._db.blobopen("blocks", "material", at.block_number) as material:
                material.seek(at.offset_bytes)
                keys.append(material.read(at.size_bytes))
                material.seek(at.offset_bytes)
                material.write(bytes(at.size_bytes))
            self._mark(at, RangeState.DELIVERED)
        return keys

    def _mark(self, at: KeyLocation, state: RangeState) -> None:
        self._db.execute(
            "INSERT INTO ranges VALUES (?, ?, ?, ?)",
            (at.block_number, at.offset_bytes, at.size_bytes, state),
        )

    def _audit(self, now: datetime, event: str, **detail: object) -> None:
        self._db.execute(
            "INSERT INTO audit (at, event, detail) VALUES (?, ?, ?)",
            (now.isoformat(), event, json.dumps(detail)),
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit what the body did, or nothing of it if it raises."""
        with self._lock:
            try:
                with self._db:
                    self._db.execute("BEGIN IMMEDIATE")
                    yield
            except sqlite3.Error as error:
                raise LedgerError(f"{self.path}: {error}") from error


def _key_bytes(size_bits: int) -> int:
    size_bytes, odd_bits = divmod(size_bits, 8)
    if odd_bits or not 1 <= size_bytes <= MAX_KEY_BYTES:
        raise LedgerError(
            f"key size {size_bits} bits: a multiple of 8 from 8 to {8 * MAX_KEY_BYTES}"
        )
    return size_bytes
