"""The satellite's end of the post-processing: answers what the ground station asks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from quantum.bb84 import amplification, sifting, verification
from quantum.bb84.authentication import BlockKeys, Transcript
from quantum.bb84.block import CorrectedBasis, agreed, key_lengths
from quantum.bb84.cascade import Sender as CascadeSender
from quantum.bb84.detections import Bits, SenderRecord
from quantum.bb84.messages import (
    Clicks,
    Corrected,
    Errors,
    GroundTag,
    Kind,
    Message,
    ParityAnswers,
    ParityQuestions,
    SatelliteTag,
    ToeplitzSeeds,
    Verification,
    from_frame,
    kind_of,
    to_frame,
)
from quantum.bb84.sifting import RawKey
from quantum.bb84.source import BASES, Bb84Parameters
from topo.errors import ProtocolError


class Sender:
    """A block at the satellite. `handle` takes frames in the order of `quantum.bb84.messages`.

    Draws all public randomness of the block from `rng`. Every refusal is a `ProtocolError` or a
    `NoKeyFromPass`, and ends the block: there is no key to be had afterwards.
    """

    def __init__(
        self,
        record: SenderRecord,
        parameters: Bb84Parameters,
        keys: BlockKeys,
        rng: np.random.Generator,
    ) -> None:
        self.accepted = False
        """The ground station's tag was good: both ends saw the same messages."""
        self._record = record
        self._parameters = parameters
        self._rng = rng
        self._transcript = Transcript(keys.satellite, keys.ground, agreed(parameters))
        self._raw: dict[str, RawKey] = {}
        self._cascade: dict[str, CascadeSender] = {}
        self._verified: list[str] = []
        self._corrected: dict[str, CorrectedBasis] = {}
        self._seeds: dict[str, Bits] = {}
        self._lengths: dict[str, int] = {}
        self._due: set[Kind] = {Kind.CLICKS}
        self._answer: dict[Kind, Callable[[bytes], Message]] = {
            Kind.CLICKS: self._sift,
            Kind.PARITY_QUESTIONS: self._answer_parities,
            Kind.CORRECTED: self._verify,
            Kind.ERRORS: self._amplify,
        }

    def handle(self, frame: bytes) -> bytes:
        """The answer to a frame of the ground station."""
        kind, due = kind_of(frame), self._due
        self._due = set()
        if kind not in due:
            raise ProtocolError(f"{kind.label!r} came out of turn")
        if kind is Kind.GROUND_TAG:
            self._transcript.check(from_frame(frame, GroundTag).tag)
            self.accepted = True
            return to_frame(SatelliteTag(self._transcript.tag()))
        self._transcript.add(frame)
        answer = to_frame(self._answer[kind](frame))
        self._transcript.add(answer)
        return answer

    def key(self) -> Bits:
        """The secret bits of both bases. Raises `ProtocolError` for a block that was not accepted."""
        if not self.accepted:
            raise ProtocolError("the block was not authenticated")
        return np.concatenate(
            [
                amplification.toeplitz_hash(self._corrected[basis].bits, self._seeds[basis], length)
                for basis, length in self._lengths.items()
            ]
        )

    def _sift(self, frame: bytes) -> Message:
        seeds = tuple(int(self._rng.integers(2**64, dtype=np.uint64)) for _ in BASES)
        answer = sifting.reply(self._record, from_frame(frame, Clicks), seeds)
        self._raw = sifting.raw_keys(self._record, answer, len(self._parameters.intensities))
        for basis, seed in zip(BASES, seeds, strict=True):
            self._cascade[basis] = CascadeSender(self._raw[basis].bits, seed)
        self._due = {Kind.PARITY_QUESTIONS, Kind.CORRECTED}
        return answer

    def _answer_parities(self, frame: bytes) -> Message:
        asked = from_frame(frame, ParityQuestions)
        if asked.basis in self._verified:
            raise ProtocolError("a parity was asked of a basis that is verified")
        self._due = {Kind.PARITY_QUESTIONS, Kind.CORRECTED}
        return ParityAnswers(self._cascade[asked.basis].answer(asked.pass_number, asked.positions))

    def _verify(self, frame: bytes) -> Message:
        """The hash key is drawn only now that both ends' bits are fixed."""
        basis = from_frame(frame, Corrected).basis
        if basis in self._verified:
            raise ProtocolError("a basis was to be verified twice")
        self._verified.append(basis)
        done = len(self._verified) == len(BASES)
        self._due = {Kind.ERRORS} if done else {Kind.PARITY_QUESTIONS, Kind.CORRECTED}
        key = verification.HashKey.draw(self._rng)
        length_bits = verification.tag_bits(self._parameters.eps_correctness)
        return Verification(key, verification.tag(self._raw[basis].bits, key, length_bits))

    def _amplify(self, frame: bytes) -> Message:
        """Both ends work out the key lengths; a basis too short for a key needs no seed."""
        announced = from_frame(frame, Errors).errors
        if announced.shape != (len(BASES), len(self._parameters.intensities)):
            raise ProtocolError("errors of another number of intensities were announced")
        for basis, errors in zip(BASES, announced, strict=True):
            raw, leaked = self._raw[basis], self._cascade[basis].disclosed_bits
            self._corrected[basis] = CorrectedBasis.of(raw, raw.bits, errors, leaked)
        for basis, length in key_lengths(self._corrected, self._parameters).items():
            if length.whole_bits:
                size = amplification.seed_bits(len(self._raw[basis].bits), length.whole_bits)
                self._seeds[basis] = self._rng.integers(0, 2, size, np.uint8)
                self._lengths[basis] = length.whole_bits
        self._due = {Kind.GROUND_TAG}
        none = np.zeros(0, np.uint8)
        return ToeplitzSeeds(tuple(self._seeds.get(basis, none) for basis in BASES))
