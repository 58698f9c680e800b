"""The classical messages as bytes: what goes in comes out, and nothing else is let in."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest

from quantum.bb84 import messages
from quantum.bb84.bitcoding import Reader, packed_integers, rice_coded
from quantum.bb84.classical import ClassicalChannel
from quantum.bb84.messages import Kind, from_frame, to_frame
from quantum.bb84.verification import HashKey
from topo.errors import ProtocolError

RNG = np.random.default_rng(20)
BITS = RNG.integers(0, 2, 21, np.uint8)

SENT: list[messages.Message] = [
    messages.Clicks(np.sort(RNG.choice(10**9, 21, replace=False)), BITS),
    messages.Kept(BITS.astype(np.bool_), np.full(BITS.sum(), 2, np.uint8), (2**64 - 1, 5)),
    messages.ParityQuestions("Z", 7, np.array([3, 4, 900])),
    messages.ParityAnswers(BITS),
    messages.Corrected("X"),
    messages.Verification(HashKey(1, 2**127 - 2, 3), 2**49 + 1),
    messages.Errors(np.arange(6).reshape(2, 3)),
    messages.ToeplitzSeeds((BITS, BITS[:0])),
    messages.GroundTag(bytes(range(16))),
    messages.SatelliteTag(bytes(range(16, 32))),
]


@pytest.mark.parametrize("message", SENT, ids=lambda message: type(message).__name__)
def test_what_is_sent_is_what_is_heard(message: messages.Message) -> None:
    frame = to_frame(message)
    heard = from_frame(frame, type(message))
    assert vars(heard).keys() == vars(message).keys()
    for name, value in vars(message).items():
        np.testing.assert_equal(getattr(heard, name), value)
    assert to_frame(heard) == frame


def test_every_kind_of_message_is_among_these() -> None:
    assert {message.kind for message in SENT} == set(Kind)


@pytest.mark.parametrize("message", SENT, ids=lambda message: type(message).__name__)
def test_cut_and_lengthened_frames(message: messages.Message) -> None:
    frame = to_frame(message)
    for size in range(len(frame)):
        cut = frame[:size]
        with pytest.raises(ProtocolError):
            from_frame(cut, type(message))
        if size >= messages.HEADER.size:  # with a header that says so
            body = cut[messages.HEADER.size :]
            with pytest.raises(ProtocolError, match="a message"):
                from_frame(messages.HEADER.pack(message.kind, len(body)) + body, type(message))
    with pytest.raises(ProtocolError, match="has"):
        from_frame(frame + b"\0", type(message))


def test_a_message_where_another_was_due() -> None:
    with pytest.raises(
        ProtocolError, match="'parity answers' came where 'basis corrected' was due"
    ):
        from_frame(to_frame(messages.ParityAnswers(BITS)), messages.Corrected)
    with pytest.raises(ProtocolError, match="kind 99"):
        messages.kind_of(b"\x63\0\0\0\0")


def test_a_reply_about_more_clicks_than_it_has_room_for() -> None:
    body = bytes(16) + b"\xff\xff\xff\xff"
    with pytest.raises(ProtocolError, match="ends at byte"):
        from_frame(messages.HEADER.pack(Kind.KEPT, len(body)) + body, messages.Kept)


@pytest.mark.parametrize("probability", [3e-5, 1e-3, 0.1])
def test_clicks_cost_little_more_than_their_entropy(probability: float) -> None:
    gaps = np.random.default_rng(21).geometric(probability, 100_000)
    positions = np.cumsum(gaps) - 1
    coded = rice_coded(positions)
    np.testing.assert_array_equal(Reader(coded).positions(), positions)
    other = 1 - probability
    entropy = (-probability * log2(probability) - other * log2(other)) / probability
    assert entropy < 8 * len(coded) / len(positions) < 1.05 * entropy


@pytest.mark.parametrize("width_bits", [0, 1, 2, 7, 8, 17, 32])
def test_packed_integers(width_bits: int) -> None:
    values = np.random.default_rng(22).integers(0, 2**width_bits, 70_001)
    coded = packed_integers(values, width_bits)
    assert len(coded) == -(-70_001 * width_bits // 8)
    np.testing.assert_array_equal(Reader(coded).integers(len(values), width_bits), values)


@pytest.mark.parametrize(
    ("coded", "what"),
    [
        (b"\0\0\0\1\x21\0\0\0\1\x80", "33 bits"),
        (b"\0\0\0\2\0\0\0\0\1\x80", "2 numbers has 1"),
        (b"\0\0\0\1\x08\0\0\0\1\x80", "ends at byte"),
        (b"\0\0\0\1\0\xff\xff\xff\xff\x80", "ends at byte"),
    ],
)
def test_rice_codes_that_cannot_be(coded: bytes, what: str) -> None:
    with pytest.raises(ProtocolError, match=what):
        Reader(coded).positions()


def test_the_channel_counts_every_bit_and_round_trip() -> None:
    channel = ClassicalChannel()
    question, answer = to_frame(SENT[2]), to_frame(SENT[3])
    for frame in (question, answer, question, answer, to_frame(SENT[8]), to_frame(SENT[9])):
        assert channel.carry(frame) == frame
    report, totals = channel.report(), channel.totals()
    assert report["parity questions"] == {
        "source": "ground",
        "stage": "error correction",
        "messages": 2,
        "bits": 16 * len(question),
    }
    assert totals["round_trips"] == 3
    assert totals["ground_to_satellite_bits"] == 16 * len(question) + 8 * 21
    assert totals["satellite_to_ground_bits"] == 16 * len(answer) + 8 * 21
    assert totals["stages"]["error correction"]["round_trips"] == 2
    assert totals["stages"]["authentication"]["satellite_to_ground_bits"] == 8 * 21
