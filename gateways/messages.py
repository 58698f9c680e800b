"""The gateways' control messages: wire format and authentication.

They stand where IKEv2 will come, and carry what IKEv2 would: the ETSI key_ID and the two SPIs. All
integers are big-endian; the message follows the 4-octet non-ESP marker on UDP port 4500.

::

    version (1) | type (1) | algorithm (2) | exchange (16) | responder nonce (16) |
    initiator SPI (4) | responder SPI (4) | text length (1) | text | HMAC-SHA256 (32)

`exchange` is the initiator's session (8 random octets a process) and its message counter (8): it
names an exchange once and for ever, so that a replayed message can be told from a new one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateways.keys import ENCR_AES_GCM_16
from topo.errors import ControlError

SESSION_OCTETS = 8
EXCHANGE_OCTETS = 16
NONCE_OCTETS = 16
MAC_OCTETS = 32
MAX_TEXT_OCTETS = 255

_VERSION = 1
_FIXED = struct.Struct(f"!BBH{EXCHANGE_OCTETS}s{NONCE_OCTETS}sIIB")


class MessageType(IntEnum):
    """PROPOSE and CONFIRM are the initiator's, the others the responder's."""

    PROPOSE = 1
    ACCEPT = 2
    REJECT = 3
    CONFIRM = 4
    DONE = 5


class Role(IntEnum):
    """Who proposes new keys."""

    INITIATOR = 0
    RESPONDER = 1


@dataclass(frozen=True, slots=True)
class Message:
    """One control message; fields that its type does not use are zero or empty.

    `text` is the key_ID in a PROPOSE, the reason in a REJECT.
    """

    type: MessageType
    exchange: bytes
    spi_initiator: int = 0
    spi_responder: int = 0
    nonce_responder: bytes = bytes(NONCE_OCTETS)
    text: str = ""
    algorithm: int = ENCR_AES_GCM_16

    @property
    def session(self) -> bytes:
        """The initiator's session."""
        return self.exchange[:SESSION_OCTETS]

    @property
    def counter(self) -> int:
        """The initiator's message counter within its session, from 1."""
        return int.from_bytes(self.exchange[SESSION_OCTETS:])


class ControlCodec:
    """Packs, authenticates and checks control messages between two gateways.

    The two HMAC keys, one for each direction, come from the pre-shared key and both identities by
    HKDF-SHA256: a message reflected to its sender, or between differently named peers, is refused.
    """

    def __init__(self, psk: bytes, initiator_id: str, responder_id: str, role: Role) -> None:
        names = b"".join(
            len(name).to_bytes(2) + name for name in (initiator_id.encode(), responder_id.encode())
        )
        keys = [
            HKDF(SHA256(), MAC_OCTETS, None, b"qntn control 1" + bytes((sender,)) + names).derive(
                psk
            )
            for sender in (Role.INITIATOR, Role.RESPONDER)
        ]
        self._send_key, self._receive_key = keys if role is Role.INITIATOR else keys[::-1]

    def seal(self, message: Message) -> bytes:
        """The octets of a message with its HMAC."""
        text = message.text.encode()
        if len(text) > MAX_TEXT_OCTETS:
            raise ControlError(f"{message.type.name}: text of {len(text)} octets is too long")
        body = (
            _FIXED.pack(
                _VERSION,
                message.type,
                message.algorithm,
                message.exchange,
                message.nonce_responder,
                message.spi_initiator,
                message.spi_responder,
                len(text),
            )
            + text
        )
        mac = HMAC(self._send_key, SHA256())
        mac.update(body)
        return body + mac.finalize()

    def open(self, data: bytes) -> Message:
        """The message in `data`. Raises `ControlError` unless every octet is the peer's."""
        if not _FIXED.size + MAC_OCTETS <= len(data) <= _FIXED.size + MAX_TEXT_OCTETS + MAC_OCTETS:
            raise ControlError(f"control message of {len(data)} octets")
        body = data[:-MAC_OCTETS]
        mac = HMAC(self._receive_key, SHA256())
        mac.update(body)
        try:
            mac.verify(data[-MAC_OCTETS:])
        except InvalidSignature:
            raise ControlError("control message with a wrong HMAC") from None
        return _parse(body)


def _parse(body: bytes) -> Message:
    version, kind, algorithm, exchange, nonce, spi_i, spi_r, length = _FIXED.unpack_from(body)
    text = body[_FIXED.size :]
    if version != _VERSION:
        raise ControlError(f"control message of version {version}")
    if length != len(text):
        raise ControlError(f"text length {length} in a message with {len(text)} octets of text")
    try:
        return Message(MessageType(kind), exchange, spi_i, spi_r, nonce, text.decode(), algorithm)
    except ValueError as error:
        raise ControlError(f"control message: {error}") from None
