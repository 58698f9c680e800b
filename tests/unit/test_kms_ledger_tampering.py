"""Storage is not trusted: every flipped bit, every old copy, every swapped file is noticed."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from kms import store_seal
from kms.ledger import Ledger
from kms.store_seal import seal_path
from kms.vault import LedgerUntrusted, Vault, default_secret_path, read_secret
from topo.errors import LedgerError

NOW = datetime(2024, 11, 29, 22, 40, tzinfo=UTC)
MATERIAL = Random(1).randbytes(30_000)

_USE_AND_DIE = """
import os, signal, sys
from datetime import UTC, datetime
from kms.ledger import Ledger
from kms.store_seal import SealFile

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def begin_and_die(seal):
    begin(seal)
    die()

ledger, moment, begin = Ledger(sys.argv[1]), sys.argv[2], SealFile.checkpoint_begins
for number in range(5):
    ledger.take("a", "b", 256, 7, datetime.now(UTC))
if moment == "commit":  # done, and not sealed yet
    SealFile.committed = die
    ledger.take("a", "b", 256, 7, datetime.now(UTC))
elif moment == "checkpoint begun":
    SealFile.checkpoint_begins = begin_and_die
    ledger.stock.checkpoint()
elif moment == "checkpoint done":
    SealFile.checkpoint_ended = die
    ledger.stock.checkpoint()
die()
"""
TRIGGER = """
CREATE TABLE stash (id, sealed);
CREATE TRIGGER keep BEFORE INSERT ON chunks
BEGIN INSERT INTO stash SELECT id, sealed FROM chunks WHERE id = new.id; END;
"""


def fill(path: Path) -> None:
    """A ledger with something in every table."""
    with Ledger.create(path, "U") as ledger, Ledger.create(path.with_name("n"), "N") as other:
        for at in (ledger, other):
            at.add_block(1, MATERIAL, "one", NOW)
            at.add_block(2, MATERIAL[::-1], "two", NOW, expires=NOW)
        ledger.take("a", "b", 256, 30, NOW)
        for name, _ in other.take("b", ["a", "c"], 128, 3, NOW):
            ledger.fetch("b", "c", [name], NOW, others=["a"])


def use_and_die(path: Path, moment: str = "rest") -> None:
    """Deliver keys in a process that is killed; at `rest` they are in SQLite's log only."""
    died = subprocess.run([sys.executable, "-c", _USE_AND_DIE, path, moment], check=False)
    assert died.returncode == -signal.SIGKILL


def die_in_a_checkpoint(path: Path) -> None:
    use_and_die(path, "checkpoint done")


def copy(path: Path, folder: Path) -> Path:
    """All files of a ledger in a new folder; the path of the ledger there."""
    folder.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        shutil.copy(file, folder)
    return folder / path.name


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.mark.parametrize("flips", [100, pytest.param(1000, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("end", "suffix"),
    [
        pytest.param(fill, "", id="database of a closed ledger"),
        pytest.param(fill, ".seal", id="seal of a closed ledger"),
        pytest.param(fill, ".key", id="secret of a closed ledger"),
        pytest.param(use_and_die, "", id="database after a crash"),
        pytest.param(use_and_die, "-wal", id="log after a crash"),
        pytest.param(die_in_a_checkpoint, "", id="database, killed in a checkpoint"),
        pytest.param(die_in_a_checkpoint, ".seal", id="seal, killed in a checkpoint"),
    ],
)
def test_k6_every_flipped_bit(
    tmp_path: Path, end: Callable[[Path], None], suffix: str, flips: int
) -> None:
    path = tmp_path / "ledger"
    fill(path)
    if end is not fill:
        end(path)
    files = {file.name: file.read_bytes() for file in tmp_path.glob("ledger*")}
    target = path.with_name(path.name + suffix)
    rng = Random(6)
    size_bits = 8 * target.stat().st_size
    for bit in rng.sample(range(size_bits), min(flips, size_bits)):
        flip(target, bit)
        with pytest.raises(LedgerError):
            Ledger(path)
        for file in tmp_path.glob("ledger*"):
            file.unlink()
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
    with Ledger(path) as ledger:  # whole again, it opens
        assert ledger.stored_key_count(256) > 0


@pytest.mark.parametrize("flips", [60, pytest.param(1000, marks=pytest.mark.long)])
def test_k6_flipped_bits_when_the_checkpoint_had_only_begun(tmp_path: Path, flips: int) -> None:
    """Refused, or in a page that the checkpoint writes again: then it leaves no trace."""
    path = tmp_path / "ledger"
    fill(path)
    use_and_die(path, "checkpoint begun")
    crashed = copy(path, tmp_path / "crashed")
    Ledger(path).close()
    whole = path.read_bytes()
    rng, refused = Random(7), 0
    for bit in rng.sample(range(8 * crashed.stat().st_size), flips):
        for file in crashed.parent.iterdir():
            shutil.copy(file, tmp_path)
        flip(path, bit)
        try:
            Ledger(path).close()
        except LedgerUntrusted:
            refused += 1
        else:
            assert path.read_bytes() == whole
    assert refused > flips // 4


def reseal(path: Path) -> None:
    """What only a holder of the secret could do: vouch for the database file as it is."""
    salt, content = seal_path(path).read_bytes()[8:40], path.read_bytes()
    vault = Vault(read_secret(default_secret_path(path)), salt)
    version = store_seal._parse(seal_path(path).read_bytes(), vault, path).version
    seal = store_seal._at_rest(vault, salt, version, len(content), vault.mac("file", content))
    seal_path(path).write_bytes(store_seal._format(seal, vault))


def change(path: Path, statements: str) -> None:
    """With a SQLite of one's own, which puts the log away afterwards."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript(statements)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE site SET name = 'N'",
        "INSERT INTO site VALUES ('U')",
        "UPDATE state SET body = replace(body, '\"taken_keys\": 30', '\"taken_keys\": 29')",
        "UPDATE state SET tag = zeroblob(32)",
        "DELETE FROM state",
        "UPDATE blocks SET label = 'three' WHERE number = 2",
        "UPDATE blocks SET expires = NULL",
        "UPDATE blocks SET length = length + 1 WHERE number = 1",
        "UPDATE blocks SET sealed_keys = (SELECT sealed_keys FROM blocks WHERE number = 2)",
        "UPDATE blocks SET number = 3 WHERE number = 2",
        "UPDATE ranges SET length = length - 32 WHERE offset = 32",
        "UPDATE ranges SET state = 'FREE'",
        "UPDATE ranges SET state = CAST(state AS BLOB)",
        "DELETE FROM ranges",
        "INSERT INTO ranges VALUES (2, 5000, 16, 'DELIVERED')",
        'UPDATE pending SET waiting = \'["a", "c"]\'',
        "DELETE FROM pending",
        "DELETE FROM chunks WHERE id = 16777217",
        "UPDATE chunks SET sealed = (SELECT sealed FROM chunks WHERE id = 16777218)"
        " WHERE id = 16777217",
        "UPDATE chunks SET id = id + 100",
        "DELETE FROM audit",
        "DELETE FROM audit WHERE sequence = (SELECT max(sequence) FROM audit)",
        "UPDATE audit SET at = 'yesterday' WHERE sequence = 2",
        "UPDATE audit SET detail = CAST(detail AS BLOB) WHERE sequence = 2",
        "UPDATE audit SET sequence = -sequence WHERE sequence = 3",
        "INSERT INTO audit SELECT sequence + 100, at, event, detail FROM audit",
    ],
)
def test_rows_are_authentic_even_if_the_seal_is(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "ledger"
    fill(path)
    change(path, "VACUUM")
    reseal(path)
    Ledger(path).close()  # the same rows in another file are well
    with closing(sqlite3.connect(path)) as database:
        with database:
            assert database.execute(statement).rowcount > 0
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    reseal(path)
    for _ in range(2):  # and it stays so
        with pytest.raises(LedgerUntrusted):
            Ledger(path)


@pytest.mark.parametrize("statement", [TRIGGER, "CREATE VIEW v AS SELECT 1", "ANALYZE"])
def test_the_schema_is_ours_even_if_the_seal_is(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "ledger"
    fill(path)
    change(path, statement)
    reseal(path)
    with pytest.raises(LedgerUntrusted, match="schema"):
        Ledger(path)


def test_an_old_chunk_put_back_is_not_read(tmp_path: Path) -> None:
    """Its seal is genuine, of the same place, only older: delivered bytes would come again."""
    path = tmp_path / "ledger"
    fill(path)
    with closing(sqlite3.connect(path)) as database:
        [old] = database.execute("SELECT sealed FROM chunks WHERE id = 1 << 24").fetchone()
    with Ledger(path) as ledger:
        ledger.take("a", "b", 256, 1, NOW)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE chunks SET sealed = ? WHERE id = 1 << 24", (old,))
    reseal(path)
    with pytest.raises(LedgerUntrusted):
        Ledger(path)


def overwrite(ledger: Ledger, old: bytes, new: bytes) -> None:
    """In the main file under an open ledger, whose SQLite remembers no page of it."""
    content = ledger.path.read_bytes()
    assert content.count(old) == 1
    with ledger.path.open("r+b") as file:
        file.seek(content.index(old))
        file.write(new)
    ledger.stock._store.db.execute("PRAGMA shrink_memory")


def test_a_chunk_changed_under_an_open_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    fill(path)
    with Ledger(path) as ledger:
        before = ledger.counts()
        with closing(
            sqlite3.connect(f"file:{copy(path, tmp_path / 'copy')}", uri=True)
        ) as database:
            [chunk] = database.execute("SELECT sealed FROM chunks WHERE id = 1 << 24").fetchone()
        overwrite(ledger, chunk[-100:], bytes(100))
        with pytest.raises(LedgerUntrusted):
            ledger.take("a", "b", 256, 1, NOW)
        with pytest.raises(LedgerUntrusted):  # and from then on nothing is served
            ledger.take("a", "b", 256, 1, NOW)
        assert ledger.counts() == before


def test_another_secret_opens_nothing(tmp_path: Path) -> None:
    path, secret = tmp_path / "ledger", bytes(range(32))
    Ledger.create(path, "U", secret).close()
    assert not default_secret_path(path).exists()
    Ledger(path, secret).close()
    with pytest.raises(LedgerUntrusted, match="another secret"):
        Ledger(path, bytes(32))
    with pytest.raises(LedgerError, match="No such file"):
        Ledger(path)
    with pytest.raises(LedgerError, match="at least 32"):
        Ledger(path, bytes(16))


def test_the_files_of_two_ledgers_do_not_mix(tmp_path: Path) -> None:
    """Same secret, same blocks, same age: every ledger has keys of its own all the same."""
    secret = bytes(32)
    for name in ("one", "two"):
        with Ledger.create(tmp_path / name, "U", secret) as ledger:
            ledger.add_block(1, MATERIAL, "", NOW)
    shutil.copy(tmp_path / "two", tmp_path / "one")
    with pytest.raises(LedgerUntrusted):
        Ledger(tmp_path / "one", secret)


@pytest.mark.parametrize("killed", [False, True])
def test_k7_an_old_copy_of_the_database(tmp_path: Path, killed: bool) -> None:
    path = tmp_path / "ledger"
    fill(path)
    old = copy(path, tmp_path / "backup")
    if killed:
        use_and_die(path)
    else:
        with Ledger(path) as ledger:
            ledger.take("a", "b", 256, 1, NOW)
    path.with_name("ledger-wal").unlink(missing_ok=True)
    shutil.copy(old, path)
    for _ in range(2):
        with pytest.raises(LedgerUntrusted, match="old copy" if killed else "changed"):
            Ledger(path)


def test_k7_the_log_is_gone(tmp_path: Path) -> None:
    """Without its log the database is that of the last checkpoint: an old copy."""
    path = tmp_path / "ledger"
    fill(path)
    use_and_die(path)
    path.with_name("ledger-wal").unlink()
    with pytest.raises(LedgerUntrusted, match="old copy"):
        Ledger(path)


def test_k7_the_seal_is_gone_or_old(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    fill(path)
    old = copy(path, tmp_path / "backup")
    with Ledger(path) as ledger:
        ledger.take("a", "b", 256, 1, NOW)
    shutil.copy(seal_path(old), seal_path(path))
    with pytest.raises(LedgerUntrusted):
        Ledger(path)
    seal_path(path).unlink()
    with pytest.raises(LedgerError, match="seal"):
        Ledger(path)


def test_the_audit_trail_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    fill(path)
    with Ledger(path) as ledger:
        with ledger.batch():
            for number in range(1500):  # more than one segment of the chain
                ledger.take(f"o'{number}", "b", 8, 1, NOW)
        assert ledger.audit_trail()[-1].detail["master"] == "o'1499"
    with Ledger(path) as ledger:
        assert len(ledger.audit_trail()) == 6 + 1500
        overwrite(ledger, b"o'3\"", b"o'4\"")
        with pytest.raises(LedgerUntrusted, match="audit trail"):
            ledger.audit_trail()
