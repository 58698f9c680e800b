"""The vault: sealed values, put together again from the primitives by themselves."""

from __future__ import annotations

import hashlib
import hmac
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM

from kms.vault import (
    SEAL_OVERHEAD_BYTES,
    LedgerUntrusted,
    Vault,
    create_secret,
    default_secret_path,
    read_secret,
)
from topo.errors import LedgerError

SECRET, SALT = bytes(range(32)), bytes(32)


def hkdf(purpose: str) -> bytes:
    """RFC 5869 with SHA-256 and one block of output, by hand."""
    extracted = hmac.digest(SALT, SECRET, "sha256")
    return hmac.digest(extracted, f"qntn ledger v1 {purpose}".encode() + b"\x01", "sha256")


def test_the_construction() -> None:
    sealed = Vault(SECRET, SALT).seal(b"material", b"context")
    assert len(sealed) == len(b"material") + SEAL_OVERHEAD_BYTES
    seed, ciphertext, tag = sealed[:32], sealed[32:-16], sealed[-16:]
    data_key = hmac.new(hkdf("material"), seed + b"context", hashlib.sha256).digest()
    opened = Cipher(AES(data_key), GCM(bytes(12), tag)).decryptor()
    opened.authenticate_additional_data(b"context")
    assert opened.update(ciphertext) + opened.finalize() == b"material"
    assert Vault(SECRET, SALT).mac("rows", b"a", b"b") == hmac.digest(hkdf("rows"), b"ab", "sha256")


def test_no_data_key_is_used_twice() -> None:
    vault = Vault(SECRET, SALT)
    sealed = [vault.seal(b"the same", b"place") for _ in range(1000)]
    assert len({each[:32] for each in sealed}) == 1000
    assert len({each[32:] for each in sealed}) == 1000
    assert {bytes(vault.unseal(each, b"place")) for each in sealed} == {b"the same"}


def test_every_flipped_bit_and_every_other_place_is_refused() -> None:
    vault = Vault(SECRET, SALT)
    sealed = vault.seal(b"material", b"place")
    for bit in range(8 * len(sealed)):
        changed = (int.from_bytes(sealed, "big") ^ 1 << bit).to_bytes(len(sealed), "big")
        with pytest.raises(LedgerUntrusted):
            vault.unseal(changed, b"place")
    for other, context in (
        (vault, b"another place"),
        (Vault(SECRET[::-1], SALT), b"place"),
        (Vault(SECRET, SECRET), b"place"),
    ):
        with pytest.raises(LedgerUntrusted):
            other.unseal(sealed, context)
    for short in (b"", sealed[:32], sealed[:-1]):
        with pytest.raises(LedgerUntrusted):
            vault.unseal(short, b"place")


def test_secret_files(tmp_path: Path) -> None:
    path = default_secret_path(tmp_path / "u.ledger")
    assert path == tmp_path / "u.ledger.key"
    secret = create_secret(path)
    assert read_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(LedgerError, match="exists"):
        create_secret(path)
    path.write_bytes(secret[:-1])
    with pytest.raises(LedgerError, match="31 bytes"):
        read_secret(path)
    with pytest.raises(LedgerError, match="No such file"):
        read_secret(tmp_path / "missing")
