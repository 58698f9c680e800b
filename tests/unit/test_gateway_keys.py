"""Keying material: HKDF against its definition, and what must differ does."""

from __future__ import annotations

import hashlib
import hmac
from itertools import combinations

import pytest

from gateways.keys import Direction, SaKeys, derive_sa_keys

SECRET = bytes(range(32))
KEY_ID = "5b6c1f0e-9a52-8000-8000-0123456789ab"
FRESH = bytes(range(100, 132))


def test_against_the_definition_of_hkdf() -> None:
    """RFC 5869 §2 by hand: extract, then one and a bit blocks of expand."""
    info = b"".join(
        len(part).to_bytes(2, "big") + part
        for part in (
            b"qntn ESP keying material 1",
            KEY_ID.encode(),
            b"initiator to responder",
            bytes.fromhex("00001001"),
            bytes.fromhex("0014"),
        )
    )
    prk = hmac.digest(FRESH, SECRET, hashlib.sha256)
    block = hmac.digest(prk, info + b"\x01", hashlib.sha256)
    keys = derive_sa_keys(
        SECRET,
        key_id=KEY_ID,
        direction=Direction.TO_RESPONDER,
        spi=0x1001,
        freshness=FRESH,
    )
    assert keys == SaKeys(block[:16], block[16:20])


def test_every_input_matters() -> None:
    base = {
        "key_id": KEY_ID,
        "direction": Direction.TO_RESPONDER,
        "spi": 0x1001,
        "freshness": FRESH,
        "algorithm": 20,
    }
    changes: list[dict[str, object]] = [
        {},
        {"key_id": KEY_ID[:-1] + "c"},
        {"direction": Direction.TO_INITIATOR},
        {"spi": 0x1002},
        {"freshness": FRESH[::-1]},
        {"algorithm": 19},
    ]
    made = [derive_sa_keys(SECRET, **(base | change)) for change in changes]  # type: ignore[arg-type]
    made.append(derive_sa_keys(SECRET[::-1], **base))  # type: ignore[arg-type]
    for one, other in combinations(made, 2):
        assert one.key != other.key
        assert one.salt != other.salt


@pytest.mark.parametrize(("key", "salt"), [(b"", b"salt"), (bytes(32), b"salt"), (bytes(16), b"")])
def test_lengths_are_checked(key: bytes, salt: bytes) -> None:
    with pytest.raises(ValueError, match="KEYMAT"):
        SaKeys(key, salt)
