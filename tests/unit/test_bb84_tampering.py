"""Whatever is changed in a classical message of a block, no end keeps a key of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
import pytest
from bb84_blocks import SMALL, detected, first_clicks

from quantum.bb84 import sifting
from quantum.bb84.authentication import BlockKeys
from quantum.bb84.classical import ClassicalChannel
from quantum.bb84.detections import Detections
from quantum.bb84.messages import Kept, Kind, kind_of
from quantum.bb84.receiver import Receiver
from quantum.bb84.sender import Sender
from quantum.bb84.session import distil
from quantum.bb84.stages import Stages
from topo.errors import InputError, NoKeyFromPass, ProtocolError

SEED = 3
Change = Callable[[bytes], bytes]


@cache
def block() -> Detections:
    return first_clicks(detected(SMALL, seed=1), 1200)


@cache
def honest_frames() -> list[bytes]:
    frames: list[bytes] = []
    distil(
        block(), SMALL, seed=SEED, classical=ClassicalChannel(lambda _, f: frames.append(f) or f)
    )
    return frames


def refused(number: int, change: Change) -> str:
    """Why there was no key when the message of that number was changed."""
    channel = ClassicalChannel(lambda n, frame: change(frame) if n == number else frame)
    with pytest.raises(NoKeyFromPass, match="no key: ") as caught:
        distil(block(), SMALL, seed=SEED, classical=channel)
    return str(caught.value)


def flip(bit: int) -> Change:
    def change(frame: bytes) -> bytes:
        changed = bytearray(frame)
        changed[bit // 8] ^= 0x80 >> bit % 8
        return bytes(changed)

    return change


def first_of_each_kind() -> Iterable[int]:
    kinds = [kind_of(frame) for frame in honest_frames()]
    assert set(kinds) == set(Kind)
    return (kinds.index(kind) for kind in Kind)


def test_a_bit_of_every_kind_of_message() -> None:
    """The last bit of the body, which the decoders have the least to say about."""
    for number in first_of_each_kind():
        refused(number, flip(8 * len(honest_frames()[number]) - 1))


def test_bits_all_over_the_block() -> None:
    rng = np.random.default_rng(4)
    frames = honest_frames()
    for number in rng.integers(len(frames), size=25):
        refused(int(number), flip(int(rng.integers(8 * len(frames[number])))))


@pytest.mark.long
@pytest.mark.parametrize("eighth", range(8))
def test_every_bit_of_every_message(eighth: int) -> None:
    for number, frame in enumerate(honest_frames()):
        for bit in range(eighth, 8 * len(frame), 8):
            refused(number, flip(bit))


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: b"",
        lambda frame: frame[:-1],
        lambda frame: frame + b"\0",
        lambda frame: frame[:1] + bytes(4),
        lambda frame: frame[:5] + b"\xff" * (len(frame) - 5),
    ],
    ids=["lost", "cut", "longer", "length 0", "all ones"],
)
def test_frames_lost_cut_and_overwritten(change: Change) -> None:
    for number in first_of_each_kind():
        refused(number, change)


def test_a_message_of_an_earlier_block_is_not_taken() -> None:
    """Played back word for word, it fits neither this block's records nor its transcript."""
    other: list[bytes] = []
    older = ClassicalChannel(lambda _, frame: other.append(frame) or frame)
    distil(block(), SMALL, seed=SEED + 1, classical=older)
    for number in first_of_each_kind():
        if number < len(other) and other[number] != honest_frames()[number]:
            refused(number, lambda frame, again=other[number]: again)


def test_each_stage_gives_its_own_reason() -> None:
    kinds = [kind_of(frame) for frame in honest_frames()]
    last = {kind: 8 * len(honest_frames()[kinds.index(kind)]) - 1 for kind in Kind}

    def why(kind: Kind) -> str:
        return refused(kinds.index(kind), flip(last[kind]))

    assert "verification of basis X failed" in why(Kind.VERIFICATION)
    for kind in (Kind.TOEPLITZ_SEEDS, Kind.GROUND_TAG, Kind.SATELLITE_TAG):
        assert "did not see the same messages" in why(kind)


def test_ends_without_the_same_key_do_not_agree() -> None:
    """Someone who replaces one end altogether lacks the authentication key."""
    ours, theirs = BlockKeys.of(bytes(range(64))), BlockKeys.of(bytes(range(1, 65)))
    sender = Sender(block().sender, SMALL, theirs, np.random.default_rng(1))
    receiver = Receiver(block().receiver, SMALL, ours, sender.handle, Stages())
    with pytest.raises(ProtocolError, match="authentication failed"):
        receiver.agree()
    for end in (sender, receiver):
        with pytest.raises(ProtocolError, match="not authenticated"):
            end.key()


def test_ends_that_agreed_on_other_parameters_do_not_agree() -> None:
    keys = BlockKeys.of(bytes(range(64)))
    other = type(SMALL)(
        8e3, (0.8, 0.1, 0.0), (0.5, 0.25, 0.25), 0.5, 1e-9, 1e-15, 0.1, "asymptotic"
    )
    sender = Sender(block().sender, other, keys, np.random.default_rng(1))
    receiver = Receiver(block().receiver, SMALL, keys, sender.handle, Stages())
    with pytest.raises(ProtocolError, match="authentication failed"):
        receiver.agree()


def test_an_authentication_key_of_another_size_is_bad_input() -> None:
    with pytest.raises(InputError, match="63 bytes: a block takes 64"):
        distil(block(), SMALL, seed=1, authentication_key=bytes(63))


def test_after_a_refusal_the_sender_says_nothing_more() -> None:
    frames = honest_frames()
    sender = Sender(block().sender, SMALL, BlockKeys.of(bytes(range(64))), np.random.default_rng(1))
    with pytest.raises(ProtocolError, match="out of turn"):
        sender.handle(frames[2])
    with pytest.raises(ProtocolError, match="out of turn"):
        sender.handle(frames[0])


def test_a_reply_with_an_intensity_that_does_not_exist() -> None:
    """Two bits can say 3; with one decoy they can also say 2."""
    record = block().receiver
    kept = np.ones(len(record.bit), np.bool_)
    for intensities in (2, 3):
        said = Kept(kept, np.full(len(kept), intensities, np.uint8), (1, 2))
        with pytest.raises(ProtocolError, match="intensity that does not exist"):
            sifting.raw_keys(record, said, intensities)


def test_a_reply_about_other_clicks() -> None:
    said = Kept(np.ones(3, np.bool_), np.zeros(3, np.uint8), (1, 2))
    with pytest.raises(ProtocolError, match="does not fit"):
        sifting.raw_keys(block().receiver, said, 3)
