"""Keying material: HKDF against its definition, and what must differ does."""

from __future__ import annotations

import hashlib
import hmac
from itertools import combinations

import pytest

from gateways.keys import Direction, SaKeys, derive_sa_keys
from gateways.suites import (
    AES_128_CBC_SHA256,
    AES_128_GCM,
    SM4_128_CBC_SM3,
    SM4_128_GCM,
    SUITES,
    Suite,
)

SECRET = bytes(range(32))
KEY_ID = "5b6c1f0e-9a52-8000-8000-0123456789ab"
FRESH = bytes(range(100, 132))


def hkdf(identifiers: tuple[str, ...], octets: int) -> bytes:
    """RFC 5869 §2 by hand: extract, then as many blocks of expand as it takes."""
    info = b"".join(
        len(part).to_bytes(2, "big") + part
        for part in (
            b"qntn ESP keying material 1",
            KEY_ID.encode(),
            b"initiator to responder",
            bytes.fromhex("00001001"),
            *map(bytes.fromhex, identifiers),
        )
    )
    prk = hmac.digest(FRESH, SECRET, hashlib.sha256)
    block, made = b"", b""
    while len(made) < octets:
        block = hmac.digest(prk, block + info + bytes((len(made) // 32 + 1,)), hashlib.sha256)
        made += block
    return made[:octets]


@pytest.mark.parametrize(
    ("suite", "identifiers"),
    [
        (AES_128_GCM, ("0014",)),
        (SM4_128_GCM, ("0408",)),
        (AES_128_CBC_SHA256, ("000c", "000c")),
        (SM4_128_CBC_SM3, ("0407", "0407")),
    ],
    ids=lambda value: value.name if isinstance(value, Suite) else "",
)
def test_against_the_definition_of_hkdf(suite: Suite, identifiers: tuple[str, ...]) -> None:
    keys = derive_sa_keys(
        SECRET,
        key_id=KEY_ID,
        direction=Direction.TO_RESPONDER,
        spi=0x1001,
        freshness=FRESH,
        suite=suite,
    )
    keymat = hkdf(identifiers, suite.keymat_octets)
    assert keys == SaKeys.from_keymat(suite, keymat)
    assert keys.keymat == keymat


def test_keymat_is_cut_in_the_order_of_rfc_7296() -> None:
    """Encryption key, then integrity key; GCM's salt is the tail of its encryption key."""
    gcm = SaKeys.from_keymat(AES_128_GCM, bytes(range(20)))
    assert (gcm.key, gcm.salt, gcm.integrity_key) == (bytes(range(16)), bytes(range(16, 20)), b"")
    cbc = SaKeys.from_keymat(AES_128_CBC_SHA256, bytes(range(48)))
    assert (cbc.key, cbc.salt, cbc.integrity_key) == (bytes(range(16)), b"", bytes(range(16, 48)))


def test_every_input_matters() -> None:
    base = {
        "key_id": KEY_ID,
        "direction": Direction.TO_RESPONDER,
        "spi": 0x1001,
        "freshness": FRESH,
    }
    changes: list[dict[str, object]] = [
        {},
        {"key_id": KEY_ID[:-1] + "c"},
        {"direction": Direction.TO_INITIATOR},
        {"spi": 0x1002},
        {"freshness": FRESH[::-1]},
        *(dict[str, object](suite=suite) for suite in SUITES.values() if suite is not AES_128_GCM),
    ]
    made = [derive_sa_keys(SECRET, **(base | change)) for change in changes]  # type: ignore[arg-type]
    made.append(derive_sa_keys(SECRET[::-1], **base))  # type: ignore[arg-type]
    for one, other in combinations(made, 2):
        assert one.key != other.key
        assert one.keymat[16:20] != other.keymat[16:20]


@pytest.mark.parametrize(("key", "salt"), [(b"", b"salt"), (bytes(32), b"salt"), (bytes(16), b"")])
def test_lengths_are_checked(key: bytes, salt: bytes) -> None:
    with pytest.raises(ValueError, match="KEYMAT"):
        SaKeys(key, salt)


@pytest.mark.parametrize("suite", SUITES.values(), ids=list(SUITES))
def test_length_of_keymat_is_checked(suite: Suite) -> None:
    for octets in (0, suite.keymat_octets - 1, suite.keymat_octets + 1):
        with pytest.raises(ValueError, match="KEYMAT"):
            SaKeys.from_keymat(suite, bytes(octets))
        with pytest.raises(ValueError, match="KEYMAT"):
            suite.cipher(bytes(octets))
