"""The store under a key ledger: durable, authenticated, held by one process at a time.

What is in its database (`kms.ledger_database`) is authenticated row by row and as a whole. Every row
of the tables of `_KEYS` has a MAC; the sum of these MACs modulo 2^256 (an incremental multiset hash)
is kept current as rows come and go, and is bound with the counters in `StoreState` and the head of the
audit trail into the one tag of the `state` row. A row changed, dropped, doubled or put back from
before makes the tag false.
Bytes that are no row's, and old copies of everything, are the business of `kms.store_seal`.

SQLite runs with a write-ahead log, synchronous = FULL: a transaction is one append to it and one sync,
and the same of the seal. In exclusive locking mode the log needs no shared memory, so any file system
will do. The log goes into the main file at checkpoints, which are ours alone to make (`_LOG_BYTES`);
old pages, and in them the seeds of erased chunks, are gone from the files after the next one.

After a failure the store is closed as if its process had been killed, and opened again: there is one
way back to a good state, and it is taken at each start.

The audit trail is chained: link n is the MAC of link n - 1 and the next `_SEGMENT` lines. Its text is
not secret and can be read with any SQLite, from a closed ledger or a copy (after a crash another SQLite
puts the log away, and the ledger is refused); without the store's secret it cannot be rewritten.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from cryptography.hazmat.primitives import constant_time
from cryptography.hazmat.primitives.hmac import HMAC

from kms.ledger_database import abandon, check_schema, connect, create_tables
from kms.store_seal import SALT_BYTES, SealFile, create_seal
from kms.vault import LedgerUntrusted, Vault, create_secret, default_secret_path, read_secret
from topo.errors import LedgerError

Site = Literal["U", "N"]
Row = tuple[Any, ...]

_KEYS = {  # of each authenticated table: its key columns, its number of columns
    "blocks": (("number",), 7),
    "chunks": (("id",), 2),
    "ranges": (("block", "offset"), 4),
    "pending": (("block", "offset"), 4),
}
_SEGMENT = 1024
_LOG_BYTES = 4 << 20
"""A checkpoint is due when the log is this long, and a quarter as long as the main file."""


@dataclass
class StoreState:
    """What a store knows besides its rows. Counters never go back."""

    version: int = 0
    """Number of the latest transaction."""
    audit_lines: int = 0
    audit_link: str = ""
    """Chain value after the last whole segment, hexadecimal."""
    distrust: str = ""
    """Why nothing is to be served from here any more; empty if all is well."""
    peer_version: int = 0
    """The latest version of the other site's ledger that has been reconciled with."""
    own_version_seen: int = 0
    """The latest version of this ledger that the other site has reconciled with."""
    taken_keys: int = 0
    taken_bytes: int = 0
    fetched_keys: int = 0
    fetched_bytes: int = 0
    pad_bytes: int = 0
    destroyed_bytes: int = 0


class Store:
    """An open store. Not thread-safe: the ledger has the lock."""

    def __init__(self, path: Path, secret: bytes | None) -> None:
        """Own the store at `path` until closed; `load` must follow.

        `LedgerError` if it is missing or open elsewhere.
        """
        if not path.is_file():
            raise LedgerError(f"{path}: no such ledger")
        self.path = path
        self.db: sqlite3.Connection
        self.site: Site
        self.state: StoreState
        self._macs: dict[Row, int]
        self._audit_mac: HMAC
        if secret is None:
            secret = read_secret(default_secret_path(path))
        self._connected = self._loaded = False
        self._seal = SealFile(path)
        try:
            self.vault = Vault(secret, self._seal.salt)
        except BaseException:
            self._seal.close()
            raise

    def load(self) -> dict[str, list[Row]]:
        """Open, or open again, and check everything; the rows of all authenticated tables but the chunks.

        What was left in the log is in the main file afterwards. `LedgerError` if the store is foreign;
        `LedgerUntrusted` if it is not as it was left.
        """
        self._loaded = False
        try:
            with self._disk():
                self._disconnect()
                self._seal.check(self.vault)
                self.db = connect(self.path)
                self._connected = True
                rows = self._read_and_check()
        except (TypeError, ValueError, OverflowError) as error:
            raise LedgerUntrusted(f"{self.path}: a row is none of ours: {error}") from error
        self.checkpoint()
        self._loaded = True
        return rows

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make what the body changed durable, all of it, or nothing if it raises.

        After an exception the memory is ahead of the database: `load` again.
        """
        try:
            if self._seal.in_checkpoint:  # it failed half way
                self.checkpoint()
            with self._disk():
                self.db.execute("BEGIN IMMEDIATE")
                self._changed = False
                yield
                if self._changed:
                    self.state.version += 1
                    self._write_state()
                    self.db.execute("COMMIT")
                    self._seal.committed(self.state.version)
                else:
                    self.db.execute("ROLLBACK")
        except BaseException:
            self._loaded = False
            raise
        if self._seal.log_bytes > max(_LOG_BYTES, self._seal.seal.main_bytes // 4):
            self.checkpoint()

    def checkpoint(self) -> None:
        """Put the log into the main file, wiping the old pages, and seal the file."""
        if self._seal.at_rest:
            return
        with self._disk():
            self._seal.checkpoint_begins()
            busy, _, _ = self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise LedgerError(f"{self.path}: another program is reading the database")
            self._seal.checkpoint_ended(self.state.version)

    def close(self) -> None:
        """Put everything into the main file, unless it is not to be trusted; let the store go."""
        try:
            if self._loaded:
                self.checkpoint()
        finally:
            self._disconnect()
            self._seal.close()

    def _disconnect(self) -> None:
        """Close the database and leave its log as it is."""
        if self._connected:
            self._connected = False
            abandon(self.db)

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(f"{self.path}: {error}") from error

    def put(self, table: str, *row: object) -> None:
        """Insert or replace a row."""
        keys, columns = _KEYS[table]
        marks = ", ".join("?" * columns)
        self.db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", row)
        self._account((table, *row[: len(keys)]), self._row_mac(table, row))

    def drop(self, table: str, *key: object) -> None:
        """Delete a row, if it is there."""
        if (table, *key) in self._macs:
            where = " AND ".join(f"{name} = ?" for name in _KEYS[table][0])
            self.db.execute(f"DELETE FROM {table} WHERE {where}", key)
            self._account((table, *key), 0)

    def chunk(self, chunk_id: int) -> bytes:
        """A sealed chunk; `LedgerUntrusted` if it is not the one last put."""
        row = self.db.execute("SELECT * FROM chunks WHERE id = ?", (chunk_id,)).fetchone()
        if row is None or self._row_mac("chunks", row) != self._macs.get(("chunks", chunk_id)):
            raise LedgerUntrusted(f"{self.path}: chunk {chunk_id:#x} was changed from outside")
        sealed: bytes = row[1]
        return sealed

    def audit(self, now: datetime, event: str, detail: dict[str, object]) -> None:
        """Append a line to the audit trail."""
        state = self.state
        line = (state.audit_lines + 1, now.isoformat(), event, json.dumps(detail))
        self.db.execute("INSERT INTO audit VALUES (?, ?, ?, ?)", line)
        self._audit_mac.update(repr(line).encode())
        state.audit_lines += 1
        if state.audit_lines % _SEGMENT == 0:
            state.audit_link = self._audit_mac.finalize().hex()
            self._audit_mac = self.vault.start_mac("audit")
            self._audit_mac.update(state.audit_link.encode())
        self._changed = True

    def keep_state(self) -> None:
        """Have `state` stored with the transaction under way even if nothing else changes."""
        self._changed = True

    def audit_lines(self) -> list[Row]:
        """The whole audit trail, its chain checked from the first line to the head."""
        state = self.state
        link, running = self._follow_audit(state.audit_lines, 0, "")
        head = self._audit_mac.copy().finalize()
        if link != state.audit_link or not constant_time.bytes_eq(running.finalize(), head):
            raise LedgerUntrusted(f"{self.path}: the audit trail was changed from outside")
        return self.db.execute("SELECT * FROM audit ORDER BY sequence").fetchall()

    def _read_and_check(self) -> dict[str, list[Row]]:
        check_schema(self.db, self.path)
        [(self.site,)] = self.db.execute("SELECT name FROM site").fetchall()
        self._macs, self._total = {}, 0
        rows: dict[str, list[Row]] = {table: [] for table in _KEYS}
        for table, (keys, _) in _KEYS.items():
            macs: dict[Row, int] = {}
            for row in self.db.execute(f"SELECT * FROM {table}"):
                macs[table, *row[: len(keys)]] = self._row_mac(table, row)
                if table != "chunks":
                    rows[table].append(row)
            self._macs |= macs
            self._total = (self._total + sum(macs.values())) % 2**256
        [(body, tag)] = self.db.execute("SELECT body, tag FROM state").fetchall()
        state = self.state = StoreState(**json.loads(body))

        # The seal vouches for the lines of older segments.
        open_segment = state.audit_lines // _SEGMENT
        _, self._audit_mac = self._follow_audit(state.audit_lines, open_segment, state.audit_link)
        sealed = self._seal.seal.version
        if not constant_time.bytes_eq(self._state_tag(body), tag) or state.version != sealed:
            raise LedgerUntrusted(f"{self.path}: its rows were changed from outside")
        return rows

    def _follow_audit(self, lines: int, segment: int, link: str) -> tuple[str, HMAC]:
        """From a segment on, and the link before it: the last link, the MAC of the open segment."""
        [(beyond,)] = self.db.execute(
            "SELECT count(*) FROM (SELECT 1 FROM audit WHERE sequence > ? LIMIT 1)", (lines,)
        )
        if beyond:
            raise LedgerUntrusted(f"{self.path}: the audit trail was changed from outside")
        while True:
            running = self.vault.start_mac("audit")
            running.update(link.encode())
            start = segment * _SEGMENT
            rows = self.db.execute(
                "SELECT * FROM audit WHERE sequence > ? ORDER BY sequence LIMIT ?",
                (start, _SEGMENT),
            ).fetchall()  # a statement left half way would keep the database open
            running.update("".join(map(repr, rows)).encode())
            segment += 1
            if segment > lines // _SEGMENT:
                return link, running
            link = running.finalize().hex()

    def _account(self, key: Row, mac: int) -> None:
        """Count a row's MAC in place of the one it had before; 0 for a row that is gone."""
        self._total = (self._total - self._macs.pop(key, 0) + mac) % 2**256
        if mac:
            self._macs[key] = mac
        self._changed = True

    def _row_mac(self, table: str, row: Row) -> int:
        if table == "chunks":
            mac = self.vault.mac("rows", b"chunks%d:" % row[0], row[1])
        else:
            mac = self.vault.mac("rows", f"{table}{row!r}".encode())
        return int.from_bytes(mac, "big")

    def _write_state(self) -> None:
        body = json.dumps(asdict(self.state))
        self.db.execute("UPDATE state SET body = ?, tag = ?", (body, self._state_tag(body)))

    def _state_tag(self, body: str) -> bytes:
        head = self._audit_mac.copy().finalize()
        total = self._total.to_bytes(32, "big")
        return self.vault.mac("state", self.site.encode(), total, head, body.encode())


def create_store(path: Path, site: Site, secret: bytes | None) -> None:
    """An empty store for one site, readable by its owner only; `LedgerError` if `path` exists.

    Without a `secret` one is made and kept in a file beside it (`kms.vault.default_secret_path`).
    """
    if site not in get_args(Site):
        raise LedgerError(f"site {site!r}: a ledger belongs to one of {get_args(Site)}")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror}") from error
    if secret is None:
        secret = create_secret(default_secret_path(path))
    salt = os.urandom(SALT_BYTES)
    vault = Vault(secret, salt)
    body = json.dumps(asdict(StoreState()))
    head = vault.mac("audit")
    tag = vault.mac("state", site.encode(), bytes(32), head, body.encode())
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            create_tables(db)
            db.execute("INSERT INTO site VALUES (?)", (site,))
            db.execute("INSERT INTO state VALUES (?, ?)", (body, tag))
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: {error}") from error
    create_seal(path, vault, salt)
