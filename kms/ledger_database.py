"""The SQLite database of a key ledger: its tables, and the one connection that may be to it.

The schema is the whole of what a ledger's database may define. A table, view, index or trigger more
is refused: a trigger could keep what is to be erased.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kms.vault import LedgerUntrusted
from topo.errors import LedgerError

_MARKS = {"application_id": 0x716E746E, "user_version": 3}  # "qntn" and the schema's version
_SCHEMA = """
CREATE TABLE site (name TEXT NOT NULL);
CREATE TABLE state (body TEXT NOT NULL, tag BLOB NOT NULL);
CREATE TABLE blocks (
    number INTEGER PRIMARY KEY,
    label TEXT NOT NULL,
    length INTEGER NOT NULL,
    added TEXT NOT NULL,
    expires TEXT,
    digest BLOB NOT NULL,
    sealed_keys BLOB NOT NULL
);
CREATE TABLE chunks (id INTEGER PRIMARY KEY, sealed BLOB NOT NULL);
CREATE TABLE ranges (
    block INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (block, offset)
) WITHOUT ROWID;
CREATE TABLE pending (
    block INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    waiting TEXT NOT NULL,
    PRIMARY KEY (block, offset)
) WITHOUT ROWID;
CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    event TEXT NOT NULL,
    detail TEXT NOT NULL
);
"""


def create_tables(db: sqlite3.Connection) -> None:
    """In a new, empty database."""
    db.execute("PRAGMA synchronous = OFF")  # nothing is in it; the seal waits for the disk
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
    for name, value in _MARKS.items():
        db.execute(f"PRAGMA {name} = {value}")


def check_schema(db: sqlite3.Connection, path: Path) -> None:
    """`LedgerError` unless it is a ledger of this version, `LedgerUntrusted` if it defines anything else."""
    marks = [db.execute(f"PRAGMA {name}").fetchone()[0] for name in _MARKS]
    if marks != list(_MARKS.values()):
        raise LedgerError(f"{path}: not a key ledger of schema {_MARKS['user_version']}")
    with closing(sqlite3.connect(":memory:")) as ours:
        ours.executescript(_SCHEMA)
        if _definitions(db) != _definitions(ours):
            raise LedgerUntrusted(f"{path}: its schema was changed from outside")


def connect(path: Path) -> sqlite3.Connection:
    """A connection that owns the file until it is closed or its process dies."""
    db = sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw&psow=1",  # psow: the log is never padded
        uri=True,
        timeout=0,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        for pragma in (
            "locking_mode = EXCLUSIVE",  # before the first access: then no shared memory is used
            "synchronous = FULL",
            "secure_delete = ON",
            "wal_autocheckpoint = 0",
            "cache_spill = OFF",  # nothing reaches the log before its commit
            "temp_store = MEMORY",
            "mmap_size = 0",
        ):
            db.execute(f"PRAGMA {pragma}").fetchall()
        db.execute("BEGIN EXCLUSIVE")  # takes the lock; the locking mode keeps it
        db.execute("COMMIT")
        [(mode,)] = db.execute("PRAGMA journal_mode").fetchall()
    except sqlite3.Error as error:
        abandon(db)
        busy = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
        raise LedgerError(f"{path}: {'open in another process' if busy else error}") from error
    if mode != "wal":
        abandon(db)
        raise LedgerUntrusted(f"{path}: its journal mode was changed from outside")
    return db


def abandon(db: sqlite3.Connection) -> None:
    """Close a connection and leave the log as it is."""
    db.interrupt()  # else SQLite makes a checkpoint of its own, which no seal foretells
    db.close()


def _definitions(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """All tables, indices, triggers and views."""
    select = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"
    return db.execute(select).fetchall()
