"""Tags of transcripts: Poly1305 with one-time keys."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.poly1305 import Poly1305

from quantum.bb84.authentication import (
    BLOCK_KEY_BYTES,
    BlockKeys,
    Transcript,
    forgery_probability,
)
from topo.errors import InputError, ProtocolError

KEYS = BlockKeys.of(bytes(range(64)))
FRAMES = [b"first", b"", b"third"]


def transcript(frames: list[bytes], *, ground: bool, agreed: bytes = b"agreed") -> Transcript:
    own, peer = (KEYS.ground, KEYS.satellite) if ground else (KEYS.satellite, KEYS.ground)
    made = Transcript(own, peer, agreed)
    for frame in frames:
        made.add(frame)
    return made


def test_both_ends_accept_each_others_tags() -> None:
    ground, satellite = transcript(FRAMES, ground=True), transcript(FRAMES, ground=False)
    satellite.check(ground.tag())
    ground.check(satellite.tag())
    assert ground.size_bytes == satellite.size_bytes == 4 + 6 + 10


@pytest.mark.parametrize(
    ("frames", "agreed"),
    [
        (FRAMES[:2], b"agreed"),
        ([b"firsT", b"", b"third"], b"agreed"),
        ([b"third", b"", b"first"], b"agreed"),
        (FRAMES, b"agreeD"),
        ([b"dfirst", b"", b"third"], b"agree"),
    ],
    ids=["missing", "changed", "reordered", "agreed on other things", "moved over the head's end"],
)
def test_other_transcripts_are_refused(frames: list[bytes], agreed: bytes) -> None:
    tag = transcript(frames, ground=True, agreed=agreed).tag()
    with pytest.raises(ProtocolError, match="did not see the same messages"):
        transcript(FRAMES, ground=False).check(tag)


def test_a_tag_is_not_taken_for_the_other_directions() -> None:
    """Else whoever sits in the middle could send a tag back where it came from."""
    ground = transcript(FRAMES, ground=True)
    with pytest.raises(ProtocolError, match="authentication failed"):
        ground.check(transcript(FRAMES, ground=True).tag())


def test_the_tag_against_rfc_8439() -> None:
    """RFC 8439, section 2.5.2, whose message is here cut in two, as frames are."""
    key = bytes.fromhex("85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b")
    message = b"Cryptographic Forum Research Group"
    whole = Poly1305.generate_tag(key, message)
    assert whole.hex() == "a8061dc1305136c6c22b8baf0c0127a9"
    made = Transcript(key, KEYS.ground, b"")
    for frame in (message[:7], message[7:]):
        made.add(frame)
    assert made.tag() == Poly1305.generate_tag(key, bytes(4) + message)


def test_key_consumption_and_forgery_probability() -> None:
    assert BLOCK_KEY_BYTES == 64
    with pytest.raises(InputError, match="32 bytes: a block takes 64"):
        BlockKeys.of(bytes(32))
    assert forgery_probability(16) == 8 / 2**106
    assert forgery_probability(30_000_000) < 2e-25
