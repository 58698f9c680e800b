"""Key from entangled pairs (BBM92): both ends measure their half of each pair, and talk about it afterwards.

A repeater chain heralds its pairs, so both ends know which attempts gave one; nobody in between knows, or need be
trusted with, a bit. The pairs are Werner states: in the same basis the ends' bits differ with probability
Q = (1 - W)/2, in different bases they have nothing to do with each other.

What follows the photons is that of `quantum.bb84`: sifting, Cascade, verification, privacy amplification and two
authenticated transcripts, every message encoded and decoded. Both bases are keyed, each being the test of the other;
there are no decoys, as a heralded pair is one photon at each end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import floor, log, log2, sqrt
from typing import Any, Final, TypeVar

import numpy as np

from quantum.bb84 import amplification, sifting, verification
from quantum.bb84.authentication import BLOCK_KEY_BYTES, BlockKeys, Transcript, forgery_probability
from quantum.bb84.block import check_qber
from quantum.bb84.cascade import Corrector
from quantum.bb84.cascade import Sender as ParitySender
from quantum.bb84.detections import Bits, Indices, ReceiverRecord, SenderRecord
from quantum.bb84.finite_key import binary_entropy
from quantum.bb84.messages import (
    Clicks,
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
from quantum.bb84.session import PassKey
from quantum.bb84.source import BASES
from quantum.bb84.stages import Progress, Stages, silent
from topo.errors import InputError, NoKeyFromPass

MAX_PAIRS: Final = 20_000_000
"""More than fit in memory with ease."""

M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Bbm92Parameters:
    """What both ends agree on before the first pair."""

    basis_x_probability: float = 0.2
    """How often each end takes the X basis: 0.2 keeps 68 % of the pairs and is near the best for a million."""
    eps_secrecy: float = 1e-9
    """Secrecy failure probability of the key from one basis."""
    eps_correctness: float = 1e-15
    """Probability that the two ends' keys differ, from one basis."""
    max_qber: float = 0.11
    """Above this error rate a block is abandoned: 1 - 2 h(QBER) is negative beyond 11 %."""

    def __post_init__(self) -> None:
        for name in ("basis_x_probability", "eps_secrecy", "eps_correctness"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}: must lie between 0 and 1")
        if not 0 < self.max_qber <= 0.5:
            raise InputError(f"max_qber {self.max_qber}: must lie in (0, 0.5]")


@dataclass(frozen=True)
class PairSource:
    """What a chain of repeaters brings to its ends."""

    pair_rate_hz: float
    """Heralded pairs a second, R P."""
    werner: float
    """W of each."""

    def __post_init__(self) -> None:
        if not self.pair_rate_hz > 0:
            raise InputError(f"pair rate {self.pair_rate_hz} Hz: must be positive")
        if not 0 <= self.werner <= 1:
            raise InputError(f"Werner parameter {self.werner}: must lie in [0, 1]")

    @property
    def qber(self) -> float:
        """(1 - W)/2"""
        return (1 - self.werner) / 2


def simulate(
    pairs: int, werner: float, parameters: Bbm92Parameters, rng: np.random.Generator
) -> tuple[SenderRecord, ReceiverRecord]:
    """What both ends hold after measuring `pairs` Werner states, as records of `pairs` detections each."""
    if not 1 <= pairs <= MAX_PAIRS:
        raise InputError(f"{pairs} pairs: from 1 to {MAX_PAIRS} can be simulated at once")
    number = np.arange(pairs, dtype=np.int64)
    basis_a, basis_b = (
        (rng.random(pairs) >= parameters.basis_x_probability).astype(np.uint8) for _ in range(2)
    )
    bit_a = rng.integers(0, 2, pairs, dtype=np.uint8)
    flipped = np.where(
        basis_a == basis_b, rng.random(pairs) < (1 - werner) / 2, rng.random(pairs) < 0.5
    )
    bit_b = bit_a ^ flipped.astype(np.uint8)
    intensity = np.zeros(pairs, np.uint8)  # a pair has none
    return SenderRecord(number, basis_a, bit_a, intensity), ReceiverRecord(number, basis_b, bit_b)


def key_length_bits(
    key_bits: int, test_bits: int, test_errors: int, leakage_bits: int, parameters: Bbm92Parameters
) -> float:
    """Secret bits in `key_bits` of one basis, the phase error bounded by the other; 0 or less is none.

    n [1 - h(Q + mu)] - leakage - log2(2/(eps_sec^2 eps_cor)), with n bits of key, k of test and
    mu = sqrt((n + k)/(n k) (k + 1)/k ln(4/eps_sec)). Source: Tomamichel, Lim, Gisin, Renner, Nature
    Communications 3, 634 (2012), for the quality q = 1 of two mutually unbiased bases.
    """
    n, k = key_bits, test_bits
    eps = parameters.eps_secrecy
    mu = sqrt((n + k) / (n * k) * (k + 1) / k * log(4 / eps))
    phase_error = min(0.5, test_errors / k + mu)
    fixed_bits = log2(2 / (eps**2 * parameters.eps_correctness))
    return n * (1 - binary_entropy(phase_error)) - leakage_bits - fixed_bits


def make_key(
    source: PairSource,
    duration_s: float,
    *,
    seed: int,
    max_pairs: int = 1_000_000,
    parameters: Bbm92Parameters | None = None,
    progress: Progress = silent,
) -> PassKey:
    """Collect pairs for a time and distil their key: the same bytes at both ends.

    A good chain brings more pairs than can be simulated: of these the first `max_pairs` are, and the report says what
    time they took. Raises `NoKeyFromPass`, saying why, for no pairs, too many errors or too few secret bits;
    `InputError` for impossible numbers. Repeats with the seed.
    """
    if not duration_s > 0:
        raise InputError(f"duration {duration_s} s: must be positive")
    if not 1 <= max_pairs <= MAX_PAIRS:
        raise InputError(f"{max_pairs} pairs at most: must be from 1 to {MAX_PAIRS}")
    parameters, stages = parameters or Bbm92Parameters(), Stages(progress)
    rng = np.random.default_rng([seed, 92])
    expected = source.pair_rate_hz * duration_s
    collected = int(rng.poisson(min(expected, 2.0 * MAX_PAIRS)))
    if collected == 0:
        raise NoKeyFromPass(
            f"no key: no pair in {duration_s:g} s at {source.pair_rate_hz:.3g} pairs a second"
        )
    pairs = min(collected, max_pairs)
    with stages.stage("detections"):
        sender, receiver = simulate(pairs, source.werner, parameters, rng)
    dialogue = _Dialogue(sender, receiver, parameters, rng, stages)
    key_a, key_b = dialogue.agree()
    if key_a != key_b:
        # Only a simulator sees both; real ends rely on verification and authentication for this.
        raise NoKeyFromPass("no key: the ends differ after privacy amplification")
    report = {
        "source": "entangled pairs (BBM92)",
        "seed": seed,
        "pair_rate_hz": source.pair_rate_hz,
        "werner": source.werner,
        "duration_s": duration_s,
        "simulated_s": duration_s if pairs == collected else pairs / source.pair_rate_hz,
        "parameters": asdict(parameters),
        "detections": pairs,
        **dialogue.report(),
        "secret_bits": 8 * len(key_b),
        "stages_s": stages.times_s,
    }
    return PassKey(key_a, key_b, report)


class _Dialogue:
    """Two ends, their records apart, and every message between them through the wire format.

    `_a` is what the answering end holds ("satellite" in the messages' names), `_b` the asking one ("ground").
    """

    def __init__(
        self,
        sender: SenderRecord,
        receiver: ReceiverRecord,
        parameters: Bbm92Parameters,
        rng: np.random.Generator,
        stages: Stages,
    ) -> None:
        self._record_a, self._record_b = sender, receiver
        self._parameters, self._rng, self._stages = parameters, rng, stages
        keys = BlockKeys.of(rng.bytes(BLOCK_KEY_BYTES))
        agreed = repr(parameters).encode()
        self._transcript_a = Transcript(keys.satellite, keys.ground, agreed)
        self._transcript_b = Transcript(keys.ground, keys.satellite, agreed)
        self._bits_a: dict[str, Bits] = {}
        self._bits_b: dict[str, Bits] = {}
        self._errors: dict[str, int] = {}
        self._leakage: dict[str, int] = {}
        self._lengths: dict[str, int] = {}

    def agree(self) -> tuple[bytes, bytes]:
        """The key as either end has it; `NoKeyFromPass` where there is none."""
        with self._stages.stage("sifting"):
            said = self._say(sifting.announce(self._record_b), Clicks)
            seeds = tuple(int(self._rng.integers(2**64, dtype=np.uint64)) for _ in BASES)
            kept = self._say(sifting.reply(self._record_a, said, seeds), Kept)
            raw_a = sifting.raw_keys(self._record_a, kept, 1)
            raw_b = sifting.raw_keys(self._record_b, kept, 1)
        with self._stages.stage("error correction"):
            for basis, seed in zip(BASES, kept.shuffle_seeds, strict=True):
                self._correct(basis, raw_a[basis].bits, raw_b[basis].bits, seed)
        with self._stages.stage("privacy amplification"):
            seeds_by_basis = self._agree_on_length()
        with self._stages.stage("authentication"):
            asked = to_frame(GroundTag(self._transcript_b.tag()))
            self._transcript_a.check(from_frame(asked, GroundTag).tag)
            answer = to_frame(SatelliteTag(self._transcript_a.tag()))
            self._transcript_b.check(from_frame(answer, SatelliteTag).tag)
        with self._stages.stage("privacy amplification"):
            return self._amplified(self._bits_a, seeds_by_basis), self._amplified(
                self._bits_b, seeds_by_basis
            )

    def report(self) -> dict[str, Any]:
        """Counts of the block, by the names that a pass's report has."""
        sifted = {basis: len(bits) for basis, bits in self._bits_b.items()}
        limit = sum(
            sifted[basis] * binary_entropy(self._errors[basis] / sifted[basis]) for basis in BASES
        )
        leakage = sum(self._leakage.values())
        security = self._parameters
        forgery = 2 * forgery_probability(self._transcript_b.size_bytes)
        return {
            "sifted_bits": sum(sifted.values()),
            "qber": sum(self._errors.values()) / sum(sifted.values()),
            "leakage_bits": leakage,
            "efficiency": leakage / limit if limit else 0.0,
            "bases": {
                basis: {
                    "sifted_bits": sifted[basis],
                    "errors": self._errors[basis],
                    "leakage_bits": self._leakage[basis],
                    "secret_bits": self._lengths.get(basis, 0),
                }
                for basis in BASES
            },
            "failure_probability": len(BASES) * (security.eps_secrecy + security.eps_correctness)
            + forgery,
        }

    def _say(self, message: Message, expected: type[M]) -> M:
        """One message from end to end."""
        frame = to_frame(message)
        self._transcript_a.add(frame)
        self._transcript_b.add(frame)
        return from_frame(frame, expected)

    def _correct(self, basis: str, bits_a: Bits, bits_b: Bits, seed: int) -> None:
        """Error correction and verification of one basis; `NoKeyFromPass` if it cannot be."""
        answering = ParitySender(bits_a, seed)

        def ask(pass_number: int, positions: Indices) -> Bits:
            heard = self._say(ParityQuestions(basis, pass_number, positions), ParityQuestions)
            answer = answering.answer(heard.pass_number, heard.positions)
            return self._say(ParityAnswers(answer), ParityAnswers).parities

        limit = self._parameters.max_qber
        corrector = Corrector(bits_b, seed, ask)
        estimate = corrector.estimate_qber()
        check_qber(basis, corrector.qber_at_least, limit, about="is at least")
        corrector.correct(estimate)
        self._say(Corrected(basis), Corrected)
        key = verification.HashKey.draw(self._rng)
        size = verification.tag_bits(self._parameters.eps_correctness)
        heard = self._say(Verification(key, verification.tag(bits_a, key, size)), Verification)
        if verification.tag(corrector.bits, heard.key, size) != heard.tag:
            raise NoKeyFromPass(f"no key: verification of basis {basis} failed, the ends differ")
        errors = len(corrector.corrected)
        check_qber(basis, errors / len(bits_b), limit)
        self._bits_a[basis], self._bits_b[basis] = bits_a, corrector.bits
        self._errors[basis], self._leakage[basis] = errors, corrector.learned_bits

    def _agree_on_length(self) -> Mapping[str, Bits]:
        """Both ends know the errors, so the lengths, then the Toeplitz matrices."""
        counts = np.array([[self._errors[basis]] for basis in BASES], np.int64)
        announced = self._say(Errors(counts), Errors).errors
        errors = dict(zip(BASES, announced[:, 0].tolist(), strict=True))
        x, z = BASES
        for key, test in ((x, z), (z, x)):
            n, k = len(self._bits_b[key]), len(self._bits_b[test])
            bits = key_length_bits(n, k, errors[test], self._leakage[key], self._parameters)
            self._lengths[key] = max(0, floor(bits))
        if sum(self._lengths.values()) < 8:
            sifted = ", ".join(f"{len(bits)} in {basis}" for basis, bits in self._bits_b.items())
            raise NoKeyFromPass(
                f"no key: the block holds no secret bits ({sifted} sifted); collect more pairs"
            )
        none = np.zeros(0, np.uint8)
        drawn = tuple(
            self._rng.integers(
                0, 2, amplification.seed_bits(len(self._bits_a[basis]), length)
            ).astype(np.uint8)
            if (length := self._lengths[basis])
            else none
            for basis in BASES
        )
        heard = self._say(ToeplitzSeeds(drawn), ToeplitzSeeds).seeds
        return {
            basis: seed for basis, seed in zip(BASES, heard, strict=True) if self._lengths[basis]
        }

    def _amplified(self, bits: Mapping[str, Bits], seeds: Mapping[str, Bits]) -> bytes:
        secret = np.concatenate(
            [
                amplification.toeplitz_hash(bits[basis], seed, self._lengths[basis])
                for basis, seed in seeds.items()
            ]
        )
        return amplification.whole_bytes(secret)
