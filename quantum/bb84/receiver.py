"""The ground station's end of the post-processing: asks, corrects, compares, and says when it is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from quantum.bb84 import amplification, sifting, verification
from quantum.bb84.authentication import BlockKeys, Transcript
from quantum.bb84.block import CorrectedBasis, agreed, check_qber, key_lengths
from quantum.bb84.cascade import Corrector, Variant
from quantum.bb84.detections import Bits, Indices, ReceiverRecord
from quantum.bb84.finite_key import KeyLength
from quantum.bb84.messages import (
    Corrected,
    Errors,
    GroundTag,
    Kept,
    Message,
    ParityAnswers,
    ParityQuestions,
    SatelliteTag,
    ToeplitzSeeds,
    Verification,
    from_frame,
    to_frame,
)
from quantum.bb84.sifting import RawKey
from quantum.bb84.source import BASES, Bb84Parameters
from quantum.bb84.stages import Stages
from topo.errors import NoKeyFromPass, ProtocolError

Request = Callable[[bytes], bytes]
"""A frame to the satellite -> the frame that came back."""

M = TypeVar("M", bound=Message)


class Receiver:
    """A block at the ground station. `agree` talks it through; then there is a `key`.

    What is wrong with the block, or with an answer, is a `NoKeyFromPass` or a `ProtocolError`.
    """

    def __init__(
        self,
        record: ReceiverRecord,
        parameters: Bb84Parameters,
        keys: BlockKeys,
        request: Request,
        stages: Stages,
        *,
        cascade: Variant = "original",
    ) -> None:
        self.corrected: dict[str, CorrectedBasis] = {}
        self.lengths: dict[str, KeyLength] = {}
        self.round_trips: dict[str, int] = {}
        """Of error correction, by basis."""
        self.transcript = Transcript(keys.ground, keys.satellite, agreed(parameters))
        self._record = record
        self._parameters = parameters
        self._request = request
        self._stages = stages
        self._cascade: Variant = cascade
        self._seeds: dict[str, Bits] = {}
        self._accepted = False

    def agree(self) -> None:
        """Sifting, error correction, verification, key length and authentication with the satellite."""
        with self._stages.stage("sifting"):
            kept = self._ask(sifting.announce(self._record), Kept)
            raw = sifting.raw_keys(self._record, kept, len(self._parameters.intensities))
        with self._stages.stage("error correction"):
            for basis, seed in zip(BASES, kept.shuffle_seeds, strict=True):
                self.corrected[basis] = self._correct(basis, raw[basis], seed)
        with self._stages.stage("key length"):
            self._agree_on_length()
        with self._stages.stage("authentication"):
            answer = self._request(to_frame(GroundTag(self.transcript.tag())))
            self.transcript.check(from_frame(answer, SatelliteTag).tag)
            self._accepted = True

    def key(self) -> Bits:
        """The secret bits of both bases. Raises `ProtocolError` for a block that was not accepted."""
        if not self._accepted:
            raise ProtocolError("the block was not authenticated")
        return np.concatenate(
            [
                amplification.toeplitz_hash(
                    self.corrected[basis].bits, seed, self.lengths[basis].whole_bits
                )
                for basis, seed in self._seeds.items()
            ]
        )

    def _ask(self, message: Message, answer: type[M]) -> M:
        sent = to_frame(message)
        self.transcript.add(sent)
        heard = self._request(sent)
        self.transcript.add(heard)
        return from_frame(heard, answer)

    def _correct(self, basis: str, raw: RawKey, shuffle_seed: int) -> CorrectedBasis:
        """Error correction and verification of one basis."""
        progress = self._stages.progress
        progress(f"error correction {basis}", 0.0)

        def ask(pass_number: int, positions: Indices) -> Bits:
            question = ParityQuestions(basis, pass_number, positions)
            return self._ask(question, ParityAnswers).parities

        corrector = Corrector(raw.bits, shuffle_seed, ask)
        estimate = corrector.estimate_qber()
        limit = self._parameters.max_qber
        check_qber(basis, corrector.qber_at_least, limit, about="is at least")
        corrector.correct(estimate, self._cascade)
        self.round_trips[basis] = corrector.round_trips
        progress(f"error correction {basis}", 0.9)

        heard = self._ask(Corrected(basis), Verification)
        length_bits = verification.tag_bits(self._parameters.eps_correctness)
        if verification.tag(corrector.bits, heard.key, length_bits) != heard.tag:
            raise NoKeyFromPass(f"no key: verification of basis {basis} failed, the ends differ")
        # What was corrected is what was wrong: exact error counts without giving up a bit.
        errors = np.bincount(
            raw.intensity[corrector.corrected], minlength=len(self._parameters.intensities)
        )
        progress(f"error correction {basis}", 1.0)
        return CorrectedBasis.of(raw, corrector.bits, errors, corrector.learned_bits)

    def _agree_on_length(self) -> None:
        """Both ends know the counts, then the lengths, then the matrices."""
        self.lengths = key_lengths(self.corrected, self._parameters)
        counts = [self.corrected[basis].counts.errors for basis in BASES]
        heard = self._ask(Errors(np.array(counts, np.int64)), ToeplitzSeeds)
        for basis, seed in zip(BASES, heard.seeds, strict=True):
            n, length = len(self.corrected[basis].bits), self.lengths[basis].whole_bits
            if len(seed) != (amplification.seed_bits(n, length) if length else 0):
                raise ProtocolError(f"a Toeplitz seed of {len(seed)} bits does not fit the key")
            if length:
                self._seeds[basis] = seed
