"""The blocks of a ledger, in memory and in its store, kept the same.

Reading, marking and erasing bytes inside transactions; who may have them is the ledger's business.
"""

from __future__ import annotations

import json
import threading
import weakref
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from kms.blocks import CHUNK_BYTES, Block, BlockKeys, block_number, chunk_start
from kms.key_id import KeyLocation
from kms.ledger_store import Row, Site, Store, StoreState
from kms.ranges import RangeState, Run
from topo.errors import LedgerError


def wipe(buffer: bytearray) -> None:
    """Overwrite in place; whoever made the buffer does it when it has served."""
    buffer[:] = bytes(len(buffer))


class Stock:
    """The open blocks of the store at `path`. Changes are made inside `transaction` only."""

    def __init__(self, path: Path, secret: bytes | None) -> None:
        self.path = path
        self.lock = threading.RLock()
        self.blocks: dict[int, Block] = {}
        self._loaded = self._inside = self._spoiled = False
        self._opened: dict[int, bytearray] = {}  # chunks in the clear, of the transaction under way
        self._changed: set[int] = set()  # those of them, or dropped ones, to be written
        self._touched: set[tuple[int, int]] = set()  # (block, start) where runs began or begin
        self._store = Store(path, secret)
        self._close = weakref.finalize(self, self._store.close)  # also if nobody closes it
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        with self.lock:
            self._close()

    @property
    def site(self) -> Site:
        return self._store.site

    @property
    def state(self) -> StoreState:
        """Counters and flags; what is changed in a transaction is stored with it."""
        return self._store.state

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that the body does, durably, or nothing of it; one inside another joins it."""
        with self.lock:
            if self._inside:
                try:
                    yield
                except BaseException:
                    self._spoiled = True  # half of it is done: then nothing must be
                    raise
                return
            if not self._loaded:
                self._load()  # a transaction failed, and so did going back; perhaps it works now
            self._inside, self._spoiled = True, False
            try:
                with self._store.transaction():
                    yield
                    if self._spoiled:
                        raise LedgerError(f"{self.path}: a request of this batch failed half way")
                    self._flush()
            except BaseException:
                self._loaded = False
                self._load()
                raise
            finally:
                self._inside = False

    def keep_state(self) -> None:
        """Have `state` stored with the transaction under way even if nothing else changes."""
        self._store.keep_state()

    def audit(self, now: datetime, event: str, **detail: object) -> None:
        self._store.audit(now, event, detail)

    def audit_lines(self) -> list[Row]:
        with self.lock:
            return self._store.audit_lines()

    def checkpoint(self) -> None:
        """Wipe what was erased from the files too, now instead of at the next checkpoint due."""
        with self.lock:
            self._store.checkpoint()

    def add(self, block: Block, material: bytes) -> None:
        self._put_block(block)
        for chunk_id in block.chunk_ids(0, len(material)):
            start = chunk_start(chunk_id)
            self._put_chunk(chunk_id, material[start : start + CHUNK_BYTES])
        self.blocks[block.number] = block

    def read(self, at: KeyLocation) -> bytes:
        """Bytes of a block, as long as they are stored."""
        start, stop = at.offset_bytes, at.offset_bytes + at.size_bytes
        pieces = []
        for chunk_id in self.blocks[at.block_number].chunk_ids(start, stop):
            base = chunk_start(chunk_id)
            pieces.append(self._open(chunk_id)[max(0, start - base) : stop - base])
        material = b"".join(pieces)
        for piece in pieces:
            wipe(piece)
        return material

    def assign(self, block: Block, start: int, stop: int, state: RangeState) -> None:
        """Put bytes start … stop - 1, all of one half, into a state, and erase them if it says so."""
        half = block.half_of(start)
        stored = half.stored_bytes
        touched = half.assign(start, stop, state)
        if state is RangeState.DESTROYED:
            self.state.destroyed_bytes += stored - half.stored_bytes
        self._touched.update((block.number, at) for at in touched)
        if state.stored:
            return
        for offset in block.pending_within(start, stop):
            self.set_waiting(block, offset, 0, frozenset())
        for chunk_id in block.chunk_ids(start, stop):
            self._changed.add(chunk_id)
            if block.any_stored(chunk_id):
                content, base = self._open(chunk_id), chunk_start(chunk_id)
                first, end = max(0, start - base), min(len(content), stop - base)
                content[first:end] = bytes(end - first)

    def set_waiting(self, block: Block, offset: int, length: int, slaves: frozenset[str]) -> None:
        """Which slaves of the key at `offset` are still to fetch it; none: all have, or may not."""
        if slaves:
            block.set_pending(offset, length, slaves)
            waiting = json.dumps(sorted(slaves))
            self._store.put("pending", block.number, offset, length, waiting)
        else:
            block.drop_pending(offset)
            self._store.drop("pending", block.number, offset)

    def _flush(self) -> None:
        """Write the runs and chunks that the transaction has changed."""
        for number, start in self._touched:
            run = self.blocks[number].half_of(start).run_from(start)
            if run is None or run.state is RangeState.FREE:
                self._store.drop("ranges", number, start)
            else:
                self._store.put("ranges", number, start, run.stop - start, run.state.value)
        for chunk_id in self._changed:
            if self.blocks[block_number(chunk_id)].any_stored(chunk_id):
                self._put_chunk(chunk_id, self._open(chunk_id))
            else:
                self._store.drop("chunks", chunk_id)
        self._forget()

    def _forget(self) -> None:
        for content in self._opened.values():
            wipe(content)
        self._opened.clear()
        self._changed.clear()
        self._touched.clear()

    def _load(self) -> None:
        """Memory as the store has it, once all of it is checked."""
        self._loaded = False
        self._forget()
        rows = self._store.load()
        self.blocks = {row[0]: self._block_of(row) for row in rows["blocks"]}
        runs = defaultdict(list)
        for number, offset, length, state in sorted(rows["ranges"]):
            half = self.blocks[number].half_of(offset)
            runs[half].append(Run(offset, offset + length, RangeState(state)))
        for half, its_runs in runs.items():
            half.restore(its_runs)
        for number, offset, length, waiting in rows["pending"]:
            self.blocks[number].set_pending(offset, length, frozenset(json.loads(waiting)))
        self._loaded = True

    def _block_of(self, row: Row) -> Block:
        number, label, length, added, expires, digest, sealed = row
        keys = self._store.vault.unseal(sealed, f"{self.site} block {number}".encode())
        return Block(
            self.site,
            number,
            label,
            length,
            datetime.fromisoformat(added),
            None if expires is None else datetime.fromisoformat(expires),
            digest,
            BlockKeys(bytes(keys[:32]), bytes(keys[32:])),
        )

    def _put_block(self, block: Block) -> None:
        keys = block.keys.naming + block.keys.reconciling
        sealed = self._store.vault.seal(keys, f"{self.site} block {block.number}".encode())
        added = block.added.isoformat()
        expires = None if block.expires is None else block.expires.isoformat()
        self._store.put(
            "blocks", block.number, block.label, block.length, added, expires, block.digest, sealed
        )

    def _put_chunk(self, chunk_id: int, content: bytes | bytearray) -> None:
        sealed = self._store.vault.seal(content, self._chunk_context(chunk_id))
        self._store.put("chunks", chunk_id, sealed)

    def _open(self, chunk_id: int) -> bytearray:
        content = self._opened.get(chunk_id)
        if content is None:
            sealed = self._store.chunk(chunk_id)
            content = self._store.vault.unseal(sealed, self._chunk_context(chunk_id))
            self._opened[chunk_id] = content
        return content

    def _chunk_context(self, chunk_id: int) -> bytes:
        chunk = chunk_start(chunk_id) // CHUNK_BYTES
        return f"{self.site} block {block_number(chunk_id)} chunk {chunk}".encode()
