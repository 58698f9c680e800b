"""Authentication of a block's classical messages: Wegman and Carter, one tag a direction.

Whoever can change the messages of a block can sit in the middle of it, so both ends must know that
they saw the same ones. Each keeps the transcript of the block as it sent and received it; at the
end the ground station tags its transcript, the satellite compares and tags its own. Tags for every
message would cost a key for each of some hundred round trips; two tags for the block do.

The tag is Poly1305 (Bernstein, FSE 2005) with its one-time key: a polynomial over GF(2^130 - 5) at
a secret point r of 106 free bits, plus a secret pad s of 128 bits, both fresh for every tag. That is
an almost strongly universal family with a one-time pad, and no assumption about computing power is
made: a forger of one message of L bytes succeeds with probability at most 8 ceil(L / 16) / 2^106.
(Wegman and Carter's economy of keeping r for many tags is not taken: partly known pads would leak it
over the rounds, Abidin and Larsson, arXiv:1109.5168.)

The keys come out of what earlier passes yielded; the first pass needs a pre-shared start key.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.poly1305 import Poly1305

from topo.errors import InputError, ProtocolError

TAG_KEY_BYTES = 32
"""r and s of one tag."""
BLOCK_KEY_BYTES = 2 * TAG_KEY_BYTES
"""Secret key that a block uses up: a tag in each direction."""
TAG_BITS = 128


def forgery_probability(transcript_bytes: int) -> float:
    """Probability that a changed transcript of that length gets through, for one tag.

    Source: Bernstein, "The Poly1305-AES message-authentication code", theorem 3.3.
    """
    return 8 * -(-transcript_bytes // 16) / 2**106


@dataclass(frozen=True)
class BlockKeys:
    """The two tag keys of a block, the same at both ends, for this block only."""

    ground: bytes = field(repr=False)
    satellite: bytes = field(repr=False)

    @classmethod
    def of(cls, secret: bytes) -> BlockKeys:
        """From 64 secret bytes; `InputError` for another number."""
        if len(secret) != BLOCK_KEY_BYTES:
            raise InputError(
                f"authentication key of {len(secret)} bytes: a block takes {BLOCK_KEY_BYTES}, "
                "fresh ones, from the key of an earlier pass or a pre-shared start key"
            )
        return cls(secret[:TAG_KEY_BYTES], secret[TAG_KEY_BYTES:])


class Transcript:
    """The messages of a block as one end sent and received them, under the keys of both tags.

    `own` and `peer` are the tag keys of this end and of the other; `agreed` is what both knew before
    the first message. Frames say their own length, so that no two transcripts give the same bytes.
    """

    def __init__(self, own: bytes, peer: bytes, agreed: bytes) -> None:
        self._own, self._peer = Poly1305(own), Poly1305(peer)
        self.size_bytes = 0
        self.add(len(agreed).to_bytes(4, "big") + agreed)

    def add(self, frame: bytes) -> None:
        """The next message, whoever sent it."""
        self._own.update(frame)
        self._peer.update(frame)
        self.size_bytes += len(frame)

    def tag(self) -> bytes:
        """This end's tag; can be made once."""
        return self._own.finalize()

    def check(self, tag: bytes) -> None:
        """Raises `ProtocolError` unless the other end's tag is of this same transcript; once."""
        try:
            self._peer.verify(tag)
        except InvalidSignature:
            raise ProtocolError(
                "authentication failed: the ends did not see the same messages"
            ) from None
