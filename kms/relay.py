"""Key relay over a trusted satellite: K′ = K1 ⊕ K2, authenticated.

The satellite shares K1 with one ground station and K2 with another. It pads K1 with K2 and sends K′
over any classical channel; the second station removes the pad and both stations hold K1 (the paper,
figure 5). A one-time pad hides K1 perfectly but guards nothing against change, so the first bytes
of K2 are set aside as the key of an HMAC-SHA256 over everything in the message::

    K2:  0         32                              32 + block length
         | MAC key | pad for the first bytes of K1 |   … never used

Both keys are cut to what they can carry: the block is min(len K1, len K2 - 32) bytes long, and the
first station must store K1 cut to the same length (`RelayMessage.block_bytes`). K2 is spent by one
message: who holds it must drop it, for a second message under the same pad would give away K1 ⊕
K1′.
"""

from __future__ import annotations

import struct
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kms.key_id import MAX_BLOCK_NUMBER
from kms.ledger import MINIMUM_BLOCK_BYTES, Ledger
from kms.messages import Base64
from topo.errors import KeySupplyError, LedgerError, ProtocolError

MAC_KEY_BYTES = 32


class RelayMessage(BaseModel):
    """K′ and which block it is; as a file, JSON with base64. Tells nothing without K2."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    version: Literal[1] = 1
    block_number: int = Field(ge=0, le=MAX_BLOCK_NUMBER)
    label: str
    ciphertext: Base64
    tag: Base64

    @property
    def block_bytes(self) -> int:
        return len(self.ciphertext)

    def save(self, path: Path | str) -> None:
        Path(path).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """The message in a file; `ProtocolError` if it is none. Its truth shows in decryption."""
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "whole file"
            raise ProtocolError(f"{path}: not a relay message: {where}: {first['msg']}") from error


def relayed_bytes(k1_bytes: int, k2_bytes: int) -> int:
    """How long the common block is; `KeySupplyError` if that is too short to be a block."""
    length = min(k1_bytes, k2_bytes - MAC_KEY_BYTES)
    if length < MINIMUM_BLOCK_BYTES:
        raise KeySupplyError(
            f"relay needs K1 of at least {MINIMUM_BLOCK_BYTES} bytes and K2 of at least "
            f"{MINIMUM_BLOCK_BYTES + MAC_KEY_BYTES}: there are {k1_bytes} and {k2_bytes}"
        )
    return length


def encrypt_relay(k1: bytes, k2: bytes, block_number: int, label: str = "") -> RelayMessage:
    """K′ for the station that holds `k2` (at the satellite). `k2` is spent."""
    length = relayed_bytes(len(k1), len(k2))
    ciphertext = _xor(k1[:length], k2[MAC_KEY_BYTES : MAC_KEY_BYTES + length])
    tag = _mac(k2, block_number, label, ciphertext).finalize()
    return RelayMessage(block_number=block_number, label=label, ciphertext=ciphertext, tag=tag)


def decrypt_relay(message: RelayMessage, k2: bytes) -> bytes:
    """The block K1 out of K′ (at the station that holds `k2`). `k2` is spent.

    `ProtocolError` if any bit of the message is not what the holder of K2 sent, or K2 is another;
    `KeySupplyError` if K2 is too short.
    """
    if relayed_bytes(message.block_bytes, len(k2)) < message.block_bytes:
        raise KeySupplyError(f"K2 has {len(k2)} bytes, too few for {message.block_bytes} of K′")
    try:
        _mac(k2, message.block_number, message.label, message.ciphertext).verify(message.tag)
    except InvalidSignature as error:
        raise ProtocolError(f"relayed block {message.block_number} is not authentic") from error
    return _xor(message.ciphertext, k2[MAC_KEY_BYTES : MAC_KEY_BYTES + message.block_bytes])


def receive_relay(ledger: Ledger, message: RelayMessage, k2: bytes, now: datetime) -> None:
    """Check, decrypt and store a relayed block; `LedgerError` if that block number came before."""
    if ledger.has_block(message.block_number):
        raise LedgerError(f"relayed block {message.block_number} is a replay: it is stored already")
    k1 = decrypt_relay(message, k2)
    ledger.add_block(message.block_number, k1, message.label, now)


def _mac(k2: bytes, block_number: int, label: str, ciphertext: bytes) -> HMAC:
    encoded = label.encode()
    mac = HMAC(k2[:MAC_KEY_BYTES], SHA256())
    mac.update(b"qntn relay v1" + struct.pack("!HI", block_number, len(encoded)) + encoded)
    mac.update(ciphertext)
    return mac


def _xor(left: bytes, right: bytes) -> bytes:
    together = int.from_bytes(left, "big") ^ int.from_bytes(right, "big")
    return together.to_bytes(len(left), "big")
