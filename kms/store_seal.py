"""The seal of a store: one small file beside the database that counts, and vouches for every byte.

The database's rows are authenticated by themselves (`kms.ledger_store`). What that cannot show is
left to the seal: that an old copy of the whole database has been put back, and that something was
changed where no row is (free space, page headers, the schema).

The main database file changes at checkpoints only, and the write-ahead log only grows between two of
them. So one MAC over the main file, taken at each checkpoint, and a running MAC over the log cover
every byte after every transaction, and cost no more than reading what was just written. While a
checkpoint is under way, the seal has the MAC of what the main file will be after it
(`kms.write_ahead_log`), so that a crash in it leaves every byte vouched for too. **SQLite is shown no
byte that the seal does not vouch for**: another main file, another log or none is refused, and what
the log has beyond the seal is cut off. That was a transaction whose seal was not written, so nobody
had been told of it::

    magic | salt | version | phase | main length, MAC | log length, MAC | MAC of all before

Written in place and synced to the disk after each commit, which has synced the log: one sector, so a
power cut leaves the old or the new one. A seal is therefore never ahead of the files that it vouches
for, nor behind what has been given out. Whoever can put back an old seal *and* the files of its moment
is found out by the other site (`kms.reconcile`).

The file is also the lock that lets one process at a time have the store.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

from cryptography.hazmat.primitives import constant_time
from cryptography.hazmat.primitives.hmac import HMAC

from kms.vault import LedgerUntrusted, Vault
from kms.write_ahead_log import main_after_checkpoint
from topo.errors import LedgerError

SALT_BYTES = 32
_MAGIC = b"qntnseal"
_FORMAT = struct.Struct("!8s32sQB Q32s Q32s")
_SIZE = _FORMAT.size + 32
_READ_BYTES = 1 << 20
_HELD = (errno.EAGAIN, errno.EACCES)


class Phase(IntEnum):
    OPEN = 0
    """The main file is as it was at the last checkpoint."""
    CHECKPOINT = 1
    """A checkpoint is under way: what is said of the main file holds when the log is in it."""


@dataclass(frozen=True)
class Seal:
    """What the seal file says. `version` is the number of the transaction it was written after."""

    salt: bytes
    version: int
    phase: Phase
    main_bytes: int
    main_mac: bytes
    log_bytes: int
    log_mac: bytes


class SealFile:
    """The locked seal of the database at `path`; `seal` is what it says once it is checked."""

    salt: bytes

    seal: Seal

    def __init__(self, path: Path) -> None:
        """Lock and read; `LedgerError` if it is missing or another process has the store."""
        self._main_path, self._log_path = path, path.with_name(f"{path.name}-wal")
        self._journal_path = path.with_name(f"{path.name}-journal")
        self._seal_path = seal_path(path)
        self._log: int | None = None
        self._log_mac: HMAC | None = None
        try:
            self._file = os.open(self._seal_path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise LedgerError(f"{self._seal_path}: the ledger's seal: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Held until SQLite has closed: closing any descriptor of the main file before that
            # would drop SQLite's own lock with it (fcntl(2)).
            self._main = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            os.close(self._file)
            reason = "open in another process" if error.errno in _HELD else error.strerror
            raise LedgerError(f"{path}: {reason}") from error
        self.salt = os.pread(self._file, SALT_BYTES, len(_MAGIC))

    def check(self, vault: Vault) -> None:
        """Hold the files to the seal while SQLite has them closed, and cut off what was not sealed.

        `LedgerUntrusted` unless all that is left is vouched for.
        """
        self._vault = vault
        self.seal = seal = _parse(os.pread(self._file, _SIZE + 1, 0), vault, self._seal_path)
        if self._log is not None:  # SQLite may have made another since
            os.close(self._log)
        self._log = self._log_mac = None
        if self._journal_path.exists():  # SQLite would play it back into the main file
            raise LedgerUntrusted(f"{self._journal_path}: not of this ledger: take it away")
        log_bytes = self.log_bytes
        if log_bytes or seal.phase is Phase.OPEN:  # else the checkpoint had put it away
            running = vault.start_mac("file")
            end = _read_into(running, self._log, 0, seal.log_bytes)
            self._compare(self._log_path, (end, running.finalize()), (seal.log_bytes, seal.log_mac))
        checkpoint = seal.phase is Phase.CHECKPOINT
        self._compare_main(self._measure_after_checkpoint() if checkpoint else self._measure_main())
        if self._log is not None and log_bytes > seal.log_bytes:
            os.ftruncate(self._log, seal.log_bytes)

    @property
    def log_bytes(self) -> int:
        """How long SQLite's log is."""
        return self._open_log()

    @property
    def at_rest(self) -> bool:
        """Whether the main file has everything and the seal says so."""
        return self.seal.phase is Phase.OPEN and not self.seal.log_bytes

    @property
    def in_checkpoint(self) -> bool:
        """Whether a checkpoint has begun and not ended."""
        return self.seal.phase is Phase.CHECKPOINT

    def committed(self, version: int) -> None:
        """Vouch, durably, for what the last commit has appended to the log."""
        if self._log_mac is None:
            self._log_mac = self._vault.start_mac("file")
        self._open_log()
        end = _read_into(self._log_mac, self._log, self.seal.log_bytes, None)
        mac = self._log_mac.copy().finalize()
        self._write(replace(self.seal, version=version, log_bytes=end, log_mac=mac))

    def checkpoint_begins(self) -> None:
        """Foretell the main file, unless that was done before the last attempt."""
        if self.in_checkpoint:
            return
        main_bytes, main_mac = self._measure_after_checkpoint()
        after = replace(self.seal, main_bytes=main_bytes, main_mac=main_mac)
        self._write(replace(after, phase=Phase.CHECKPOINT))

    def checkpoint_ended(self, version: int) -> None:
        """Vouch for the main file, which is as it was foretold, with an empty log."""
        if self._open_log():
            raise LedgerError(f"{self._log_path}: SQLite has not emptied its log")
        self._log_mac = None
        main = self._measure_main()
        self._compare_main(main)
        self._write(_at_rest(self._vault, self.salt, version, *main))

    def close(self) -> None:
        """Let the store go, after SQLite has."""
        for file in (self._main, self._log, self._file):
            if file is not None:
                os.close(file)

    def _open_log(self) -> int:
        """Open SQLite's log as soon as there is one; its length now."""
        if self._log is None:
            try:
                self._log = os.open(self._log_path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                return 0
        return os.fstat(self._log).st_size

    def _measure_main(self) -> tuple[int, bytes]:
        """Length and MAC of the main file."""
        running = self._vault.start_mac("file")
        size = _read_into(running, self._main, 0, None)
        return size, running.finalize()

    def _measure_after_checkpoint(self) -> tuple[int, bytes]:
        """The same of what it will be with the log in it; the log has been checked."""
        if self._log is None or not self._open_log():
            return self._measure_main()
        running = self._vault.start_mac("file")
        size = 0
        for piece in main_after_checkpoint(self._main, self._log, self.seal.log_bytes):
            running.update(piece)
            size += len(piece)
        return size, running.finalize()

    def _compare_main(self, found: tuple[int, bytes]) -> None:
        self._compare(self._main_path, found, (self.seal.main_bytes, self.seal.main_mac))

    def _compare(self, path: Path, found: tuple[int, bytes], sealed: tuple[int, bytes]) -> None:
        if found[0] != sealed[0] or not _equal(found[1], sealed[1]):
            raise LedgerUntrusted(
                f"{path}: changed from outside, gone, or an old copy; its keys may be in use:"
                " put back the files as they were left, or make a new ledger, with new blocks"
            )

    def _write(self, seal: Seal) -> None:
        content = _format(seal, self._vault)
        if os.pwrite(self._file, content, 0) != len(content):
            raise LedgerError(f"{self._seal_path}: the disk took a part of the seal only")
        os.fdatasync(self._file)
        self.seal = seal


def seal_path(ledger_path: Path) -> Path:
    return ledger_path.with_name(f"{ledger_path.name}.seal")


def create_seal(ledger_path: Path, vault: Vault, salt: bytes) -> None:
    """The first seal of a new, closed database; both are on the disk then."""
    with ledger_path.open("rb") as file:
        content = file.read()
        os.fsync(file.fileno())
    seal = _at_rest(vault, salt, 0, len(content), vault.mac("file", content))
    with os.fdopen(
        os.open(seal_path(ledger_path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb"
    ) as file:
        file.write(_format(seal, vault))
        file.flush()
        os.fsync(file.fileno())


def _at_rest(vault: Vault, salt: bytes, version: int, main_bytes: int, main_mac: bytes) -> Seal:
    return Seal(salt, version, Phase.OPEN, main_bytes, main_mac, 0, vault.mac("file"))


def _format(seal: Seal, vault: Vault) -> bytes:
    content = _FORMAT.pack(
        _MAGIC,
        seal.salt,
        seal.version,
        seal.phase,
        seal.main_bytes,
        seal.main_mac,
        seal.log_bytes,
        seal.log_mac,
    )
    return content + vault.mac("seal", content)


def _parse(content: bytes, vault: Vault, path: Path) -> Seal:
    if len(content) != _SIZE or not _equal(vault.mac("seal", content[:-32]), content[-32:]):
        raise LedgerUntrusted(f"{path}: the seal is broken, or of another secret")
    _, salt, version, phase, *files = _FORMAT.unpack(content[:-32])
    return Seal(salt, version, Phase(phase), *files)


def _equal(left: bytes, right: bytes) -> bool:
    return constant_time.bytes_eq(left, right)


def _read_into(running: HMAC, file: int | None, start: int, stop: int | None) -> int:
    """Feed bytes start … stop - 1 of a file (to its end if None) to a MAC; where they ended."""
    while file is not None and (stop is None or start < stop):
        size = _READ_BYTES if stop is None else min(_READ_BYTES, stop - start)
        piece = os.pread(file, size, start)
        if not piece:
            break
        running.update(piece)
        start += len(piece)
    return start
