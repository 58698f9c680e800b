"""Relay of a key over the satellite: K′ = K1 ⊕ K2, and what must not get through."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kms.ledger import MINIMUM_BLOCK_BYTES, Ledger
from kms.relay import RelayMessage, decrypt_relay, encrypt_relay, receive_relay, relayed_bytes
from topo.errors import KeySupplyError, LedgerError, ProtocolError

NOW = datetime(2024, 11, 29, 22, 40, tzinfo=UTC)
K1 = random.Random(1).randbytes(1000)
K2 = random.Random(2).randbytes(900)


def test_round_trip_over_a_file_into_both_ledgers(tmp_path: Path) -> None:
    message = encrypt_relay(K1, K2, 12, "Jinan-1, Beijing 22 November")
    message.save(tmp_path / "relay.json")
    received = RelayMessage.load(tmp_path / "relay.json")
    assert received == message
    assert received.block_bytes == 900 - 32

    with Ledger.create(tmp_path / "u", "U") as at_u, Ledger.create(tmp_path / "n", "N") as at_n:
        at_u.add_block(12, K1[: message.block_bytes], message.label, NOW)
        receive_relay(at_n, received, K2, NOW)
        keys = at_n.take("EG-N", "EG-U", 256, 13, NOW)
        assert at_u.fetch("EG-N", "EG-U", [name for name, _ in keys], NOW) == keys


def test_the_construction() -> None:
    """Against the standard library's HMAC and a plain XOR."""
    message = encrypt_relay(K1, K2, 258, "é")
    assert message.ciphertext == bytes(a ^ b for a, b in zip(K1, K2[32:], strict=False))
    assert len(message.ciphertext) == 868
    header = b"qntn relay v1" + b"\x01\x02" + b"\0\0\0\x02" + "é".encode()
    assert message.tag == hmac.digest(K2[:32], header + message.ciphertext, hashlib.sha256)
    assert decrypt_relay(message, K2) == K1[:868]


def test_every_flipped_bit_is_noticed() -> None:
    k1, k2 = K1[:96], K2[:128]
    message = encrypt_relay(k1, k2, 5, "label")
    changes: list[dict[str, object]] = [{"block_number": 5 ^ 1 << bit} for bit in range(16)]
    changes += [{"label": "labeM"}, {"label": ""}, {"ciphertext": message.ciphertext[:-1]}]
    for name in ("ciphertext", "tag"):
        value: bytes = getattr(message, name)
        for bit in range(8 * len(value)):
            flipped = bytearray(value)
            flipped[bit // 8] ^= 1 << bit % 8
            changes.append({name: bytes(flipped)})
    for change in changes:
        with pytest.raises((ProtocolError, KeySupplyError)):
            decrypt_relay(message.model_copy(update=change), k2)
    assert decrypt_relay(message, k2) == k1


def test_a_corrupted_or_replayed_block_changes_nothing(tmp_path: Path) -> None:
    message = encrypt_relay(K1, K2, 12)
    with Ledger.create(tmp_path / "n", "N") as ledger:
        broken = message.model_copy(update={"ciphertext": message.ciphertext[:-1] + b"?"})
        with pytest.raises(ProtocolError, match="not authentic"):
            receive_relay(ledger, broken, K2, NOW)
        assert ledger.counts().blocks == 0
        receive_relay(ledger, message, K2, NOW)
        before = ledger.counts(), ledger.audit_trail()
        with pytest.raises(LedgerError, match="replay"):
            receive_relay(ledger, message, K2, NOW)
        assert (ledger.counts(), ledger.audit_trail()) == before


def test_another_k2_opens_nothing() -> None:
    message = encrypt_relay(K1, K2, 12)
    with pytest.raises(ProtocolError):
        decrypt_relay(message, K2[1:] + b"\0")


def test_short_keys() -> None:
    assert relayed_bytes(MINIMUM_BLOCK_BYTES, 10**6) == MINIMUM_BLOCK_BYTES
    for k1, k2 in ((K1[: MINIMUM_BLOCK_BYTES - 1], K2), (K1, K2[: MINIMUM_BLOCK_BYTES + 31])):
        with pytest.raises(KeySupplyError):
            encrypt_relay(k1, k2, 0)
    with pytest.raises(KeySupplyError, match="K2 has 899 bytes"):
        decrypt_relay(encrypt_relay(K1, K2, 0), K2[:-1])


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"block_number": 65536},
        {"block_number": "3"},
        {"tag": "####"},
        {"tag": "QQ"},
        {"tag": "QR=="},
        {"more": 1},
        {"label": None},
    ],
)
def test_files_that_are_no_message(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "relay.json"
    encrypt_relay(K1, K2, 3).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ProtocolError, match="not a relay message"):
        RelayMessage.load(path)
