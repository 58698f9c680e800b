"""The keys of one store, and what they seal.

Everything comes from one secret kept outside the database (a file, a hardware token's answer) and
the store's own salt, by HKDF-SHA256 (RFC 5869), one key a purpose. Two uses:

* *MAC*: HMAC-SHA256 under the purpose's key.
* *seal*: AES-256-GCM under a **data key of its own for every sealing**::

      sealed  =  seed (32 random bytes)  |  AES-256-GCM(data key, material, context)
      data key = HMAC-SHA256(sealing key, seed | context)

  A data key encrypts once, so its nonce is constant and cannot be reused, however often a chunk is
  sealed. The seed is the erasable part: whoever overwrites 32 bytes has erased the material, also in
  copies of the ciphertext that a journal or a disk may keep. The context (which store, block and
  chunk) is authenticated, so a sealed value cannot stand in another's place.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from topo.errors import LedgerError

SECRET_BYTES = 32
SEED_BYTES = 32
SEAL_OVERHEAD_BYTES = SEED_BYTES + 16

Purpose = Literal["material", "rows", "state", "audit", "file", "seal"]
_PURPOSES: tuple[Purpose, ...] = ("material", "rows", "state", "audit", "file", "seal")
_ONLY_NONCE = bytes(12)  # every data key encrypts once


class LedgerUntrusted(LedgerError):
    """The store was changed, rolled back or swapped from outside: it is not served from."""


class Vault:
    """The keys derived from `secret` and `salt`; holds them in memory until it is dropped."""

    def __init__(self, secret: bytes, salt: bytes) -> None:
        if len(secret) < SECRET_BYTES:
            raise LedgerError(
                f"the store's secret has {len(secret)} bytes: at least {SECRET_BYTES} are needed"
            )
        self._macs = {
            purpose: HMAC(_derive(secret, salt, purpose), SHA256()) for purpose in _PURPOSES
        }

    def start_mac(self, purpose: Purpose) -> HMAC:
        """A running MAC: `update` it, `copy().finalize()` it."""
        return self._macs[purpose].copy()

    def mac(self, purpose: Purpose, *parts: bytes) -> bytes:
        """The MAC of the concatenated parts, 32 bytes."""
        running = self._macs[purpose].copy()
        for part in parts:
            running.update(part)
        return running.finalize()

    def seal(self, material: bytes | bytearray, context: bytes) -> bytes:
        """`material` encrypted and authenticated, `SEAL_OVERHEAD_BYTES` longer."""
        seed = os.urandom(SEED_BYTES)
        data_key = self.mac("material", seed, context)
        return seed + AESGCM(data_key).encrypt(_ONLY_NONCE, material, context)

    def unseal(self, sealed: bytes, context: bytes) -> bytearray:
        """What `seal` sealed in this context, the only copy of it: the caller's to overwrite.

        `LedgerUntrusted` if a bit of it is another.
        """
        data_key = self.mac("material", sealed[:SEED_BYTES], context)
        try:
            material = bytearray(len(sealed) - SEAL_OVERHEAD_BYTES)
            AESGCM(data_key).decrypt_into(_ONLY_NONCE, sealed[SEED_BYTES:], context, material)
        except (InvalidTag, ValueError) as error:
            raise LedgerUntrusted(f"{context.decode()}: the stored material was changed") from error
        return material


def default_secret_path(ledger_path: Path) -> Path:
    """Where the secret lies if nobody says: beside the ledger.

    That guards copies of the database alone (a backup, a disk sent in for repair). For more, keep
    the secret elsewhere and give it to `Ledger`.
    """
    return ledger_path.with_name(f"{ledger_path.name}.key")


def create_secret(path: Path) -> bytes:
    """A new secret in a new file that only its owner may read."""
    secret = os.urandom(SECRET_BYTES)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror}") from error
    return secret


def read_secret(path: Path) -> bytes:
    """The secret in a file; `LedgerError` if it is missing or not `SECRET_BYTES` long."""
    try:
        secret = path.read_bytes()
    except OSError as error:
        raise LedgerError(f"{path}: the ledger's secret: {error.strerror}") from error
    if len(secret) != SECRET_BYTES:
        raise LedgerError(f"{path}: {len(secret)} bytes, a ledger's secret has {SECRET_BYTES}")
    return secret


def _derive(secret: bytes, salt: bytes, purpose: Purpose) -> bytes:
    return HKDF(SHA256(), 32, salt, f"qntn ledger v1 {purpose}".encode()).derive(secret)
