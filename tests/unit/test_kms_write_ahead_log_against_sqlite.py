"""What the main file will be after a checkpoint, against the checkpoint that SQLite makes."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from kms.write_ahead_log import main_after_checkpoint


def foretold(path: Path) -> bytes:
    with path.open("rb") as main, path.with_name("db-wal").open("rb") as log:
        length = os.fstat(log.fileno()).st_size
        return b"".join(main_after_checkpoint(main.fileno(), log.fileno(), length))


@pytest.mark.parametrize("page_bytes", [512, 4096])
def test_growing_shrinking_and_rewriting(tmp_path: Path, page_bytes: int) -> None:
    rng = Random(page_bytes)
    path = tmp_path / "db"
    sizes = []
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for pragma in (
            f"page_size = {page_bytes}",
            "auto_vacuum = FULL",
            "journal_mode = WAL",
            "locking_mode = EXCLUSIVE",
            "wal_autocheckpoint = 0",
        ):
            db.execute(f"PRAGMA {pragma}").fetchall()
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, content BLOB)")
        for rounds in range(20):
            for _ in range(rng.randint(1, 8)):
                many = [(rng.randrange(300), rng.randbytes(rng.randrange(3000))) for _ in range(20)]
                db.execute("BEGIN")
                db.executemany("INSERT OR REPLACE INTO t VALUES (?, ?)", many)
                db.execute("DELETE FROM t WHERE id % 20 < ?", (rounds % 20,))
                db.execute("COMMIT")
            later, before = foretold(path), path.read_bytes()
            assert db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[0] == 0
            after = path.read_bytes()
            assert later == after
            for _ in range(5):  # however much of it has been done
                cut = rng.randrange(max(len(before), len(after)))
                path.write_bytes(after[:cut] + before[cut:])
                assert foretold(path) == after
            path.write_bytes(after)
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            sizes.append(len(after))
    assert any(a > b for a, b in pairwise(sizes)), "it never shrank"
