"""Control messages: what is sealed opens at the other end only, and nothing else does."""

from __future__ import annotations

import pytest

from gateways.messages import ControlCodec, Message, MessageType, Role
from topo.errors import ControlError

PSK = bytes(range(32))
INITIATOR = ControlCodec(PSK, "SAE-U", "SAE-N", Role.INITIATOR)
RESPONDER = ControlCodec(PSK, "SAE-U", "SAE-N", Role.RESPONDER)
PROPOSE = Message(
    MessageType.PROPOSE,
    exchange=b"sessions" + (7).to_bytes(8),
    spi_initiator=0x1001,
    text="5b6c1f0e-9a52-8000-8000-0123456789ab",
)


@pytest.mark.parametrize("kind", MessageType)
def test_round_trip_each_way(kind: MessageType) -> None:
    message = Message(kind, b"x" * 16, 0xFFFFFFFF, 0x100, b"n" * 16, "Ünïcode", 20)
    assert RESPONDER.open(INITIATOR.seal(message)) == message
    assert INITIATOR.open(RESPONDER.seal(message)) == message


def test_session_and_counter() -> None:
    assert (PROPOSE.session, PROPOSE.counter) == (b"sessions", 7)


def test_reflection_is_refused() -> None:
    with pytest.raises(ControlError, match="HMAC"):
        INITIATOR.open(INITIATOR.seal(PROPOSE))


@pytest.mark.parametrize(
    "stranger",
    [
        ControlCodec(PSK[::-1], "SAE-U", "SAE-N", Role.RESPONDER),
        ControlCodec(PSK, "SAE-X", "SAE-N", Role.RESPONDER),
        ControlCodec(PSK, "SAE-US", "AE-N", Role.RESPONDER),
    ],
)
def test_another_key_or_name_is_refused(stranger: ControlCodec) -> None:
    with pytest.raises(ControlError, match="HMAC"):
        stranger.open(INITIATOR.seal(PROPOSE))


def test_every_flipped_bit_is_refused() -> None:
    data = INITIATOR.seal(PROPOSE)
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ControlError):
            RESPONDER.open(bytes(flipped))


def test_every_other_length_is_refused() -> None:
    data = INITIATOR.seal(PROPOSE)
    for octets in range(len(data)):
        with pytest.raises(ControlError):
            RESPONDER.open(data[:octets])
    with pytest.raises(ControlError):
        RESPONDER.open(data + b"\0")


def test_text_is_bounded() -> None:
    with pytest.raises(ControlError, match="too long"):
        INITIATOR.seal(Message(MessageType.REJECT, b"x" * 16, text="x" * 256))


@pytest.mark.parametrize(
    ("offset", "value", "complaint"),
    [(0, 2, "version 2"), (1, 0, "0 is not"), (1, 6, "6 is not"), (44, 35, "text length 35")],
)
def test_authenticated_nonsense_is_refused(offset: int, value: int, complaint: str) -> None:
    """What a peer with the right key but another idea of the protocol would send."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.hmac import HMAC

    body = bytearray(INITIATOR.seal(PROPOSE)[:-32])
    body[offset] = value
    mac = HMAC(INITIATOR._send_key, SHA256())
    mac.update(bytes(body))
    with pytest.raises(ControlError, match=complaint):
        RESPONDER.open(bytes(body) + mac.finalize())
