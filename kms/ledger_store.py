"""The SQLite file under a key ledger: its schema, its durability, and that one process owns it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Literal, get_args

from topo.errors import LedgerError

Site = Literal["U", "N"]

_APPLICATION_ID = 0x716E746E  # "qntn", in the SQLite file header
_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE site (name TEXT NOT NULL CHECK (name IN ('U', 'N')));
CREATE TABLE blocks (
    number INTEGER PRIMARY KEY,
    label TEXT NOT NULL,
    length INTEGER NOT NULL,
    material BLOB NOT NULL
);
CREATE TABLE ranges (
    block INTEGER NOT NULL REFERENCES blocks (number),
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (block, offset)
) WITHOUT ROWID;
CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    event TEXT NOT NULL,
    detail TEXT NOT NULL
);
"""


def create_store(path: Path, site: Site) -> None:
    """An empty store for one site, readable by its owner only; `LedgerError` if `path` exists."""
    if site not in get_args(Site):
        raise LedgerError(f"site {site!r}: a ledger belongs to one of {get_args(Site)}")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror}") from error
    try:
        with closing(sqlite3.connect(path)) as db:
            db.executescript(
                f"BEGIN; {_SCHEMA}"
                f"INSERT INTO site VALUES ('{site}');"
                f"PRAGMA application_id = {_APPLICATION_ID};"
                f"PRAGMA user_version = {_SCHEMA_VERSION};"
                "COMMIT;"
            )
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: {error}") from error


def open_store(path: Path) -> sqlite3.Connection:
    """A connection that owns the file until it is closed or its process dies.

    `LedgerError` if the file is missing, is no ledger, or another process (or connection) owns it.
    """
    if not path.is_file():
        raise LedgerError(f"{path}: no such ledger")
    db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        for pragma in (
            "locking_mode = EXCLUSIVE",
            "journal_mode = TRUNCATE",  # PERSIST would leave erased key material in the journal
            "synchronous = FULL",
            "secure_delete = ON",
            "temp_store = MEMORY",
            "foreign_keys = ON",
        ):
            db.execute(f"PRAGMA {pragma}").fetchall()
        db.execute("BEGIN EXCLUSIVE")  # takes the lock; the locking mode keeps it
        db.execute("COMMIT")
        marks = tuple(
            db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version")
        )
    except sqlite3.Error as error:
        db.close()
        busy = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
        reason = "open in another process" if busy else str(error)
        raise LedgerError(f"{path}: {reason}") from error
    if marks != (_APPLICATION_ID, _SCHEMA_VERSION):
        db.close()
        raise LedgerError(f"{path}: not a key ledger of schema {_SCHEMA_VERSION}")
    return db
