"""Key relay over a trusted satellite: K′ = K1 ⊕ K2, authenticated, each key used once.

The satellite shares K1 with one ground station and K2 with another. It pads K1 with K2 and sends K′
over any classical channel; the second station removes the pad and both stations hold K1 (the paper,
figure 5). A one-time pad hides K1 perfectly but guards nothing against change, so each key gives 32
bytes to a one-time authenticator, Poly1305, whose key has just that length::

    K1:                        0                            n                        n + 32
                               | block that both stations keep | key of the receipt's tag |
    K2:  0                     32                                                     n + 64
         | key of the tag of K′ | pad for both                                             |

    n = min(len K1, len K2 - 32) - 32; what is over is never used

The tag of K′ shows the second station that no bit of it was changed. The *receipt* that it sends
back is a keyed hash of the block under the end of K1: it shows the first station, end to end, that
the other has the same bytes. Only then does the first station put them in its own pool, so both
pools stay equal whatever is lost, changed, repeated or swapped on the way.

With a truly random key used once, Poly1305 binds an adversary without limits: a forged message of m
bytes passes with a probability of at most 8 ⌈m/16⌉ / 2^106 (D. J. Bernstein, FSE 2005), some 10^-27
for a whole pass. So a relayed key fails with eps(K1) + eps(K2) + twice that.

K2 is spent by one message: a second message under the same pad would give away K1 ⊕ K1′.
"""

from __future__ import annotations

import struct
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.poly1305 import Poly1305
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kms.health import require_healthy
from kms.key_id import MAX_BLOCK_NUMBER
from kms.ledger import MINIMUM_BLOCK_BYTES, Ledger
from kms.messages import Base64
from topo.errors import KeySupplyError, LedgerError, ProtocolError

MAC_KEY_BYTES = 32
"""What each of K1 and K2 gives to authentication: one Poly1305 key."""


class _Message(BaseModel):
    """What the relay sends; as a file, JSON with base64. Tells nothing without the keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    version: Literal[2] = 2
    block_number: int = Field(ge=0, le=MAX_BLOCK_NUMBER)

    def save(self, path: Path | str) -> None:
        Path(path).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """The message in a file; `ProtocolError` if it is none. Its truth shows in its tag."""
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "whole file"
            raise ProtocolError(f"{path}: not a relay message: {where}: {first['msg']}") from error


class RelayMessage(_Message):
    """K′, which block it is, and which of the receiver's K2 opens it."""

    pad_number: int = Field(default=0, ge=0, lt=2**32)
    label: str
    ciphertext: Base64
    tag: Base64

    @property
    def block_bytes(self) -> int:
        """How long the common block is: K′ without what hides the key of the receipt."""
        return len(self.ciphertext) - MAC_KEY_BYTES


class RelayReceipt(_Message):
    """That a block has arrived: its keyed hash, for the station that holds the same K1."""

    tag: Base64


def relayed_bytes(k1_bytes: int, k2_bytes: int) -> int:
    """How long the common block is; `KeySupplyError` if that is too short to be a block."""
    length = min(k1_bytes, k2_bytes - MAC_KEY_BYTES) - MAC_KEY_BYTES
    if length < MINIMUM_BLOCK_BYTES:
        raise KeySupplyError(
            f"relay needs K1 of at least {MINIMUM_BLOCK_BYTES + MAC_KEY_BYTES} bytes and K2 of at "
            f"least {MINIMUM_BLOCK_BYTES + 2 * MAC_KEY_BYTES}: there are {k1_bytes} and {k2_bytes}"
        )
    return length


def encrypt_relay(
    k1: bytes, k2: bytes, block_number: int, label: str = "", pad_number: int = 0
) -> RelayMessage:
    """K′ for the station that holds `k2` (at the satellite). `k2` is spent."""
    length = relayed_bytes(len(k1), len(k2)) + MAC_KEY_BYTES
    message = RelayMessage(
        block_number=block_number,
        pad_number=pad_number,
        label=label,
        ciphertext=_xor(k1[:length], k2[MAC_KEY_BYTES : MAC_KEY_BYTES + length]),
        tag=b"",
    )
    tag = Poly1305.generate_tag(k2[:MAC_KEY_BYTES], _authenticated(message))
    return message.model_copy(update={"tag": tag})


def decrypt_relay(message: RelayMessage, k2: bytes) -> bytes:
    """K1 as far as K′ carries it, the block and the receipt's key (at the station that holds `k2`).

    `ProtocolError` if any bit of the message is not what the holder of K2 sent, or K2 is another;
    `KeySupplyError` if K2 is too short.
    """
    length = len(message.ciphertext)
    if relayed_bytes(length, len(k2)) < message.block_bytes:
        raise KeySupplyError(f"K2 has {len(k2)} bytes, too few for {length} of K′")
    try:
        Poly1305.verify_tag(k2[:MAC_KEY_BYTES], _authenticated(message), message.tag)
    except InvalidSignature as error:
        raise ProtocolError(f"relayed block {message.block_number} is not authentic") from error
    return _xor(message.ciphertext, k2[MAC_KEY_BYTES : MAC_KEY_BYTES + length])


def receive_relay(ledger: Ledger, message: RelayMessage, k2: bytes, now: datetime) -> RelayReceipt:
    """Check, decrypt and store a relayed block, and make the receipt for it. `k2` is spent.

    `LedgerError` if that block number came before; `ProtocolError` if the message is not authentic;
    `KeySupplyError` if K2 is too short or the block fails its health test. Nothing is stored then.
    """
    if ledger.has_block(message.block_number):
        raise LedgerError(f"relayed block {message.block_number} is a replay: it is stored already")
    k1 = decrypt_relay(message, k2)
    block = k1[: message.block_bytes]
    require_healthy(block, f"relayed block {message.block_number}")
    ledger.add_block(message.block_number, block, message.label, now)
    return make_receipt(message.block_number, k1)


def make_receipt(block_number: int, k1: bytes) -> RelayReceipt:
    """That `k1`, as `decrypt_relay` gives it, has arrived. The end of K1 is spent."""
    tag = Poly1305.generate_tag(k1[-MAC_KEY_BYTES:], _received(block_number, k1))
    return RelayReceipt(block_number=block_number, tag=tag)


def confirmed_block(receipt: RelayReceipt, k1: bytes) -> bytes:
    """The block that the receipt confirms, at the station whose pass gave K1.

    `k1` is cut to what K′ carried, `message.block_bytes + MAC_KEY_BYTES`. `ProtocolError` if the
    receipt is not authentic for these very bytes.
    """
    try:
        Poly1305.verify_tag(k1[-MAC_KEY_BYTES:], _received(receipt.block_number, k1), receipt.tag)
    except InvalidSignature as error:
        raise ProtocolError(f"receipt for block {receipt.block_number} is not authentic") from error
    return k1[:-MAC_KEY_BYTES]


def _authenticated(message: RelayMessage) -> bytes:
    label = message.label.encode()
    head = struct.pack("!HII", message.block_number, message.pad_number, len(label))
    return b"qntn relay v2" + head + label + message.ciphertext


def _received(block_number: int, k1: bytes) -> bytes:
    return b"qntn receipt v2" + struct.pack("!H", block_number) + k1[:-MAC_KEY_BYTES]


def _xor(left: bytes, right: bytes) -> bytes:
    together = int.from_bytes(left, "big") ^ int.from_bytes(right, "big")
    return together.to_bytes(len(left), "big")
