"""Files laid beside a ledger, put back or taken away: SQLite is shown nothing that was not sealed."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from kms.ledger import Ledger
from kms.store_seal import SealFile, seal_path
from kms.vault import LedgerUntrusted
from tests.unit.test_kms_ledger_tampering import (
    NOW,
    TRIGGER,
    change,
    copy,
    fill,
    flip,
    use_and_die,
)
from topo.errors import LedgerError


@pytest.mark.parametrize("statements", ["SELECT count(*) FROM audit", TRIGGER])
def test_another_program_has_opened_it_after_a_crash(tmp_path: Path, statements: str) -> None:
    """Its SQLite puts the log away, and whatever it wrote: no seal vouches for that."""
    path = tmp_path / "ledger"
    fill(path)
    use_and_die(path)
    crashed = copy(path, tmp_path / "crashed")
    change(path, statements)
    with pytest.raises(LedgerUntrusted, match="put back the files as they were left"):
        Ledger(path)
    for file in crashed.parent.iterdir():
        shutil.copy(file, tmp_path)
    with Ledger(path) as ledger:
        assert ledger.consumption().taken_keys == 30 + 35


def test_a_look_with_sqlite_at_a_closed_ledger_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    fill(path)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM audit").fetchone()[0] > 2
    with Ledger(path) as ledger:
        assert ledger.consumption().taken_keys == 30


@pytest.mark.parametrize("moment", ["closed", "rest"])
def test_a_log_made_elsewhere_is_not_played(tmp_path: Path, moment: str) -> None:
    """Its checksums are right and need no secret; what the seal does not know is cut off."""
    path = tmp_path / "ledger"
    fill(path)
    if moment == "rest":
        use_and_die(path)
    mine = copy(path, tmp_path / "mine")
    with closing(sqlite3.connect(mine, isolation_level=None)) as database:
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.executescript(TRIGGER + "UPDATE audit SET at = 'never' WHERE sequence = 2;")
        log = mine.with_name("ledger-wal").read_bytes()
    crashed = path.with_name("ledger-wal").read_bytes() if moment == "rest" else b""
    assert log.startswith(crashed)
    assert len(log) > len(crashed)
    path.with_name("ledger-wal").write_bytes(log)
    with Ledger(path) as ledger:
        assert ledger.consumption().taken_keys == (65 if moment == "rest" else 30)
        assert "never" not in {entry.at for entry in ledger.audit_trail()}


def test_a_journal_made_elsewhere_is_not_played(tmp_path: Path) -> None:
    """SQLite would write its pages into the main file, after that had been checked."""
    path = tmp_path / "ledger"
    fill(path)
    mine = copy(path, tmp_path / "mine")
    change(mine, TRIGGER)
    journal = path.with_name("ledger-journal")
    journal.write_bytes(rollback_journal(path.read_bytes(), mine.read_bytes()))
    with pytest.raises(LedgerUntrusted, match="take it away"):
        Ledger(path)
    journal.unlink()
    Ledger(path).close()


def rollback_journal(now: bytes, then: bytes, page_bytes: int = 4096) -> bytes:
    """What makes one database of the other (https://www.sqlite.org/fileformat2.html#the_rollback_journal)."""
    records = []
    for number, at in enumerate(range(0, len(then), page_bytes), 1):
        page = then[at : at + page_bytes]
        if page != now[at : at + page_bytes]:
            check = sum(page[page_bytes - 200 : 0 : -200])
            records.append(number.to_bytes(4, "big") + page + check.to_bytes(4, "big"))
    sizes = (len(records), 0, len(then) // page_bytes, 512, page_bytes)
    header = bytes.fromhex("d9d505f920a163d7") + b"".join(n.to_bytes(4, "big") for n in sizes)
    return header.ljust(512, b"\0") + b"".join(records)


def test_a_commit_without_its_seal_cannot_be_put_back(tmp_path: Path) -> None:
    """The transaction after the sealed one, done twice: of two futures only the sealed one opens."""
    path = tmp_path / "ledger"
    fill(path)
    use_and_die(path, "commit")
    other = copy(path, tmp_path / "other")
    with Ledger(path) as ledger:
        assert ledger.consumption().taken_keys == 30 + 35  # nobody was told of the last seven
    change(other, "")
    use_and_die(path)
    log = path.with_name("ledger-wal")
    for put_back in (log.read_bytes(), b""):
        shutil.copy(other, path)
        log.write_bytes(put_back)
        with pytest.raises(LedgerUntrusted):
            Ledger(path)


def test_the_seal_of_an_old_checkpoint_vouches_for_nothing_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger"
    fill(path)
    begin, kept = SealFile.checkpoint_begins, []

    def look(seal: SealFile) -> None:
        begin(seal)
        kept.append(seal_path(path).read_bytes())

    monkeypatch.setattr(SealFile, "checkpoint_begins", look)
    for _ in range(2):
        with Ledger(path) as ledger:
            ledger.take("a", "b", 256, 1, NOW)
    seal_path(path).write_bytes(kept[0])
    with pytest.raises(LedgerUntrusted):
        Ledger(path)


def test_a_file_changed_in_the_middle_of_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not what was foretold, and what was foretold stays."""
    path = tmp_path / "ledger"
    fill(path)
    end = SealFile.checkpoint_ended

    def change_before(seal: SealFile, version: int) -> None:
        flip(path, 8 * path.stat().st_size - 1)
        end(seal, version)

    ledger = Ledger(path)
    ledger.take("a", "b", 256, 1, NOW)
    monkeypatch.setattr(SealFile, "checkpoint_ended", change_before)
    with pytest.raises(LedgerUntrusted):
        ledger.stock.checkpoint()
    monkeypatch.undo()
    with pytest.raises(LedgerUntrusted):
        ledger.stock.checkpoint()
    with pytest.raises(LedgerUntrusted):
        ledger.take("a", "b", 256, 1, NOW)
    ledger.close()
    with pytest.raises(LedgerUntrusted):
        Ledger(path)


def test_a_seal_written_in_part_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys are not handed out, and the ledger is not trusted until its seal is whole again."""
    path = tmp_path / "ledger"
    fill(path)
    write = os.pwrite
    with Ledger(path) as ledger:
        seal = seal_path(path).read_bytes()
        monkeypatch.setattr(os, "pwrite", lambda file, data, at: write(file, data[:50], at))
        with pytest.raises(LedgerError):
            ledger.take("a", "b", 256, 1, NOW)
        monkeypatch.undo()
        with pytest.raises(LedgerUntrusted, match="seal is broken"):
            ledger.take("a", "b", 256, 1, NOW)
        seal_path(path).write_bytes(seal)
        ledger.take("a", "b", 256, 1, NOW)
        assert ledger.consumption().taken_keys == 30 + 1


def test_a_checkpoint_that_fails_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the next transaction, or else at the next start: closing leaves the log as it is."""
    path = tmp_path / "ledger"
    fill(path)

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    for failing in ("checkpoint_begins", "checkpoint_ended"):
        ledger = Ledger(path)
        ledger.take("a", "b", 256, 1, NOW)
        monkeypatch.setattr(SealFile, failing, fail)
        with pytest.raises(LedgerError):
            ledger.stock.checkpoint()
        monkeypatch.undo()
        ledger.take("a", "b", 256, 1, NOW)
        crashed = copy(path, tmp_path / failing)
        monkeypatch.setattr(SealFile, failing, fail)
        with pytest.raises(LedgerError):
            ledger.close()
        monkeypatch.undo()
        for folder in (crashed, path):
            Ledger(folder).close()
    with Ledger(path) as ledger:
        assert ledger.consumption().taken_keys == 30 + 4
