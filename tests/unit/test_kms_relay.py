"""Relay of a key over the satellite: K′ = K1 ⊕ K2, and what must not get through."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kms.ledger import MINIMUM_BLOCK_BYTES, Ledger
from kms.relay import (
    RelayMessage,
    confirmed_block,
    decrypt_relay,
    encrypt_relay,
    make_receipt,
    receive_relay,
    relayed_bytes,
)
from topo.errors import KeySupplyError, LedgerError, ProtocolError

NOW = datetime(2024, 11, 29, 22, 40, tzinfo=UTC)
K1 = random.Random(1).randbytes(1000)
K2 = random.Random(2).randbytes(900)


def test_round_trip_over_a_file_into_both_ledgers(tmp_path: Path) -> None:
    message = encrypt_relay(K1, K2, 12, "Jinan-1, Beijing 22 November")
    message.save(tmp_path / "relay.json")
    received = RelayMessage.load(tmp_path / "relay.json")
    assert received == message
    assert received.block_bytes == 900 - 64

    with Ledger.create(tmp_path / "u", "U") as at_u, Ledger.create(tmp_path / "n", "N") as at_n:
        at_u.add_block(12, K1[: message.block_bytes], message.label, NOW)
        receipt = receive_relay(at_n, received, K2, NOW)
        assert confirmed_block(receipt, K1[: message.block_bytes + 32]) == K1[:836]
        keys = at_n.take("EG-N", "EG-U", 256, 12, NOW)
        assert at_u.fetch("EG-N", "EG-U", [name for name, _ in keys], NOW) == keys


def poly1305(key: bytes, data: bytes) -> bytes:
    """RFC 8439 §2.5, in integers."""
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    accumulator = 0
    for at in range(0, len(data), 16):
        accumulator += int.from_bytes(data[at : at + 16] + b"\1", "little")
        accumulator = accumulator * r % (2**130 - 5)
    total = accumulator + int.from_bytes(key[16:], "little")
    return (total % 2**128).to_bytes(16, "little")


def test_poly1305_against_rfc8439() -> None:
    """§2.5.2: the reference that the next test computes with."""
    key = "85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b"
    tag = poly1305(bytes.fromhex(key), b"Cryptographic Forum Research Group")
    assert tag.hex() == "a8061dc1305136c6c22b8baf0c0127a9"


def test_the_construction() -> None:
    """Against plain integers."""
    message = encrypt_relay(K1, K2, 258, "é", pad_number=3)
    assert message.ciphertext == bytes(a ^ b for a, b in zip(K1, K2[32:], strict=False))
    assert len(message.ciphertext) == 868
    header = b"qntn relay v2" + b"\x01\x02" + b"\0\0\0\x03" + b"\0\0\0\x02" + "é".encode()
    assert message.tag == poly1305(K2[:32], header + message.ciphertext)
    assert decrypt_relay(message, K2) == K1[:868]
    receipt = make_receipt(258, K1[:868])
    assert receipt.tag == poly1305(K1[836:868], b"qntn receipt v2" + b"\x01\x02" + K1[:836])


def test_every_flipped_bit_is_noticed() -> None:
    k1, k2 = K1[:128], K2[:160]
    message = encrypt_relay(k1, k2, 5, "label")
    changes: list[dict[str, object]] = [{"block_number": 5 ^ 1 << bit} for bit in range(16)]
    changes += [{"pad_number": 1 << bit} for bit in range(32)]
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


def test_every_flipped_bit_of_a_receipt_is_noticed() -> None:
    receipt = make_receipt(5, K1)
    changes: list[dict[str, object]] = [{"block_number": 5 ^ 1 << bit} for bit in range(16)]
    for bit in range(128):
        flipped = bytearray(receipt.tag)
        flipped[bit // 8] ^= 1 << bit % 8
        changes.append({"tag": bytes(flipped)})
    for change in changes:
        with pytest.raises(ProtocolError, match="not authentic"):
            confirmed_block(receipt.model_copy(update=change), K1)
    for bit in range(0, 8 * (len(K1) - 32), 7):  # the other station has another block
        other = bytearray(K1)
        other[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ProtocolError, match="not authentic"):
            confirmed_block(receipt, bytes(other))
    assert confirmed_block(receipt, K1) == K1[:-32]


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


def test_a_stuck_key_is_no_block(tmp_path: Path) -> None:
    with Ledger.create(tmp_path / "n", "N") as ledger:
        with pytest.raises(KeySupplyError, match="block 12 fails its health test"):
            receive_relay(ledger, encrypt_relay(bytes(1000), K2, 12), K2, NOW)
        assert ledger.counts().blocks == 0


def test_short_keys() -> None:
    shortest = MINIMUM_BLOCK_BYTES + 32
    assert relayed_bytes(shortest, 10**6) == MINIMUM_BLOCK_BYTES
    assert relayed_bytes(10**6, shortest + 32) == MINIMUM_BLOCK_BYTES
    for k1, k2 in ((K1[: shortest - 1], K2), (K1, K2[: shortest + 31])):
        with pytest.raises(KeySupplyError):
            encrypt_relay(k1, k2, 0)
    with pytest.raises(KeySupplyError, match="K2 has 899 bytes"):
        decrypt_relay(encrypt_relay(K1, K2, 0), K2[:-1])


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1},
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
