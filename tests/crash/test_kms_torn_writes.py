"""Power cuts: whatever part of the last writes reached the disk, a ledger opens as its seal says, which
is before or after the last transaction, or refuses; it never forgets one that had been told of.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from kms.ledger import Ledger
from kms.pools import LedgerCounts
from kms.store_seal import SealFile
from kms.vault import LedgerUntrusted, Vault
from topo.errors import LedgerError

pytestmark = pytest.mark.crash
NOW = datetime(2024, 11, 29, 22, 40, tzinfo=UTC)
SECRET = bytes(range(32))
IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
FILES = ("ledger", "ledger-wal", "ledger.seal")
Image = dict[str, bytes]
sizes = pytest.mark.parametrize("images", [150, pytest.param(10_000, marks=pytest.mark.long)])


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory: thousands of stores are made, and none needs a disk."""
    folder = Path(tempfile.mkdtemp(dir=IN_MEMORY))
    yield folder
    shutil.rmtree(folder)


@dataclass
class History:
    """The files of a ledger before and after its last transaction, and what it held."""

    before: Image
    after: Image
    counts_before: LedgerCounts
    counts_after: LedgerCounts

    @property
    def record(self) -> range:
        """Where in the log the last transaction is."""
        return range(len(self.before["ledger-wal"]), len(self.after["ledger-wal"]))


def image(folder: Path) -> Image:
    return {
        name: (folder / name).read_bytes() if (folder / name).exists() else b"" for name in FILES
    }


def write(folder: Path, files: Image) -> Path:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / "ledger"


@pytest.fixture(params=["after others", "first in the log"])
def history(folder: Path, request: pytest.FixtureRequest) -> History:
    with Ledger.create(folder / "ledger", "U", SECRET) as ledger:
        ledger.add_block(1, Random(1).randbytes(20_000), "", NOW)
        for _ in range(3):
            ledger.take("a", "b", 256, 5, NOW)
        if request.param == "first in the log":
            ledger.stock.checkpoint()
        before, counts_before = image(folder), ledger.counts()
        ledger.take("a", "b", 256, 5, NOW)
        after, counts_after = image(folder), ledger.counts()
    return History(before, after, counts_before, counts_after)


def state_of(folder: Path, files: Image) -> LedgerCounts | None:
    """What a ledger of these files holds; None if it refuses. A second opening tells the same."""
    path = write(folder, files)
    try:
        with Ledger(path, SECRET) as ledger:
            counts = ledger.counts()
    except LedgerError:
        return None
    with Ledger(path, SECRET) as ledger:
        assert ledger.counts() == counts
    return counts


def vouched(path: Path) -> bool:
    """Whether the seal knows every byte of the files."""
    seal = SealFile(path)
    before = image(path.parent)
    try:
        seal.check(Vault(SECRET, seal.salt))
    except LedgerUntrusted:
        return False
    finally:
        seal.close()
    return image(path.parent) == before


@sizes
def test_k5_a_torn_log_before_it_was_told_of(folder: Path, history: History, images: int) -> None:
    """The commit had not returned: the seal is the old one, any bytes of the record may be there."""
    rng = Random(5)
    record = history.after["ledger-wal"][history.record.start :]
    old_log = history.before["ledger-wal"]
    cuts = range(len(record))
    for cut in rng.sample(cuts, min(images // 3, len(cuts))):
        hole = rng.randrange(cut, len(record))
        sectors = [record[at : at + 512] for at in range(0, len(record), 512)]
        lost = set(rng.sample(range(len(sectors)), rng.randint(1, len(sectors))))
        for torn in (
            record[:cut],
            record[:cut] + bytes(hole - cut) + record[hole:],
            b"".join(bytes(len(s)) if at in lost else s for at, s in enumerate(sectors)),
        ):
            if torn != record:
                files = history.before | {"ledger-wal": old_log + torn}
                assert state_of(folder, files) == history.counts_before


@sizes
def test_k5_whole_but_the_seal_is_old(folder: Path, history: History, images: int) -> None:
    """The record is on the disk, once or twice, with parts of it again: nobody was told of it."""
    rng = Random(6)
    record = history.after["ledger-wal"][history.record.start :]
    for number in range(max(3, images // 50)):
        again = (b"", record, record[: rng.randrange(len(record))])[number % 3]
        files = history.before | {"ledger-wal": history.after["ledger-wal"] + again}
        assert state_of(folder, files) == history.counts_before


def test_the_seal_is_on_the_disk_before_anybody_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So what is cut off behind the seal has never been given out."""
    synced: list[str] = []
    sync = os.fdatasync

    def look(file: int) -> None:
        sync(file)
        synced.append(Path(f"/proc/self/fd/{file}").readlink().name)

    with Ledger.create(folder / "ledger", "U", SECRET) as ledger:
        ledger.add_block(1, Random(1).randbytes(20_000), "", NOW)
        monkeypatch.setattr(os, "fdatasync", look)
        for commits in range(1, 4):
            ledger.take("a", "b", 256, 5, NOW)
            assert synced == ["ledger.seal"] * commits


@sizes
def test_k5_told_of_and_then_torn(folder: Path, history: History, images: int) -> None:
    """The disk lost what it had promised to keep: those keys are out, so it must not go on."""
    rng = Random(7)
    for cut in rng.sample(history.record, min(images // 3, len(history.record))):
        torn = history.after["ledger-wal"][:cut]
        assert state_of(folder, history.after | {"ledger-wal": torn}) is None
    for cut in range(1, len(history.after["ledger.seal"])):
        mixed = history.after["ledger.seal"][:cut] + history.before["ledger.seal"][cut:]
        if mixed != history.before["ledger.seal"]:
            state = state_of(folder, history.after | {"ledger.seal": mixed})
            assert state in (None, history.counts_after)


@sizes
def test_k5_in_the_middle_of_a_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch, history: History, images: int
) -> None:
    """The log is whole, the main file between two states, at every byte; or only the seal is late."""
    path = write(folder, history.after)
    begun: list[Image] = []
    begin = SealFile.checkpoint_begins

    def look(seal: SealFile) -> None:
        begin(seal)
        begun.append(image(folder))

    monkeypatch.setattr(SealFile, "checkpoint_begins", look)
    Ledger(path, SECRET).close()
    monkeypatch.undo()
    ended = image(folder)
    [start] = begun
    assert start["ledger-wal"] == history.after["ledger-wal"]
    old, new = start["ledger"], ended["ledger"]
    rng = Random(8)
    for cut in rng.sample(range(len(new)), min(images // 3, len(new))):
        mixed = start | {"ledger": new[:cut] + old[cut:]}
        assert vouched(write(folder, mixed))
        assert state_of(folder, mixed) == history.counts_after
    late = start | {"ledger": new, "ledger-wal": b""}
    assert vouched(write(folder, late))
    assert state_of(folder, late) == history.counts_after
    with pytest.raises(LedgerUntrusted, match="old copy"):  # the log gone, and what was in it
        Ledger(write(folder, start | {"ledger-wal": b""}), SECRET)
