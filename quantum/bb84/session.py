"""One pass, end to end: photons, sifting, error correction, verification, privacy amplification.

The satellite sends (its key is `key_alice`), the ground station receives (`key_bob`). Each end
works on its own record and on what the classical channel brought it. Everything random is drawn
from one seed, so that a run can be repeated: these are keys for experiments, and two passes of one
experiment need two seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from quantum.bb84 import amplification, cascade, sifting, verification
from quantum.bb84.classical import ClassicalChannel
from quantum.bb84.detections import NOBODY, Bits, Detections, Eavesdropper, Indices, simulate
from quantum.bb84.finite_key import (
    BasisCounts,
    KeyLength,
    binary_entropy,
    secret_key_length,
)
from quantum.bb84.sifting import RawKey
from quantum.bb84.source import BASES, Bb84Parameters
from quantum.optics import Downlink
from topo.errors import NoKeyFromPass, ProtocolError
from topo.space.passes import Pass

Progress = Callable[[str, float], None]
"""(stage, share of it done in [0, 1])."""


@dataclass(frozen=True)
class PassKey:
    """The key block of one pass, as each end holds it, and how it came about."""

    key_alice: bytes
    """The satellite's bits, first bit highest."""
    key_bob: bytes
    """The ground station's: the same."""
    report: dict[str, Any]
    """JSON-able; all but `stages_s` repeats with the seed."""


@dataclass(frozen=True, eq=False)
class _Corrected:
    """One basis after verified error correction."""

    alice: Bits
    bob: Bits
    counts: BasisCounts
    leakage_bits: int
    round_trips: int

    @property
    def qber(self) -> float:
        return float(self.counts.errors.sum() / self.counts.detections.sum())

    @property
    def efficiency(self) -> float:
        """f: leakage over the Shannon limit n h(QBER)."""
        limit = len(self.bob) * binary_entropy(self.qber)
        return self.leakage_bits / limit if limit else float("inf")


def run_pass(
    pass_: Pass,
    downlink: Downlink,
    parameters: Bb84Parameters,
    *,
    seed: int,
    window_s: tuple[float, float] | None = None,
    eavesdropper: Eavesdropper = NOBODY,
    classical: ClassicalChannel | None = None,
    progress: Progress = lambda stage, done: None,
) -> PassKey:
    """Simulate decoy-state BB84 over a pass and distil its secret key, the same at both ends.

    `window_s` keeps the part of the pass between two times from culmination. Raises
    `NoKeyFromPass`, saying why, when there are no detections, too many errors, ends that disagree,
    or fewer than 8 secret bits; `InputError` for a window outside the pass.
    """
    if window_s is not None:
        pass_ = pass_.window(*window_s)
    session = _Session(
        parameters, classical or ClassicalChannel(), progress, np.random.default_rng(seed)
    )
    try:
        return session.run(pass_, downlink, eavesdropper, seed)
    except ProtocolError as error:
        raise NoKeyFromPass(f"no key: {error}") from error


@dataclass
class _Session:
    """The run of one pass."""

    parameters: Bb84Parameters
    classical: ClassicalChannel
    progress: Progress
    rng: np.random.Generator
    stages_s: dict[str, float] = field(default_factory=dict)

    def run(
        self, pass_: Pass, downlink: Downlink, eavesdropper: Eavesdropper, seed: int
    ) -> PassKey:
        with self._stage("detections"):
            detections = simulate(
                pass_,
                downlink,
                self.parameters,
                self.rng,
                eavesdropper=eavesdropper,
                progress=lambda done: self.progress("detections", done),
            )
        with self._stage("sifting"):
            alice, bob = self._sift(detections)
        with self._stage("error correction"):
            corrected = {basis: self._correct(basis, alice[basis], bob[basis]) for basis in BASES}
        with self._stage("key length"):
            lengths = self._key_lengths(corrected)
        with self._stage("privacy amplification"):
            keys = [
                self._amplify(corrected[basis], lengths[basis].whole_bits)
                for basis in BASES
                if lengths[basis].whole_bits > 0
            ]
        key_alice, key_bob = (_packed(half) for half in zip(*keys, strict=True))
        if key_alice != key_bob:
            # Only a simulator sees both; real ends rely on an authenticated channel for this.
            raise NoKeyFromPass("no key: the ends differ after privacy amplification")
        report = {
            "downlink": downlink.name,
            "seed": seed,
            "pass": _pass_report(pass_, downlink),
            "parameters": asdict(self.parameters),
            "eavesdropper": asdict(eavesdropper),
            **self._counts_report(detections, corrected),
            "bases": {basis: _basis_report(corrected[basis], lengths[basis]) for basis in BASES},
            "secret_bits": 8 * len(key_alice),
            "failure_probability": 2
            * (self.parameters.eps_secrecy + self.parameters.eps_correctness),
            "classical": {kind: asdict(sent) for kind, sent in self.classical.traffic.items()},
            "stages_s": self.stages_s,
        }
        return PassKey(key_alice, key_bob, report)

    def _sift(self, detections: Detections) -> tuple[dict[str, RawKey], dict[str, RawKey]]:
        """Both ends' raw keys by basis: the sender's, then the receiver's."""
        announced = sifting.announce(detections.receiver)
        heard = self.classical.send("clicks and bases", announced, announced.size_bits)
        reply = sifting.reply(detections.sender, heard)
        answer = self.classical.send("kept and intensities", reply, reply.size_bits)
        alice = sifting.raw_keys(detections.sender, reply)
        bob = sifting.raw_keys(detections.receiver, answer)
        for basis in BASES:
            if not len(bob[basis].bits):
                raise NoKeyFromPass(f"no key: nothing was sifted in basis {basis}")
        return alice, bob

    def _correct(self, basis: str, alice: RawKey, bob: RawKey) -> _Corrected:
        """Error correction and verification of one basis, from both ends."""
        self.progress(f"error correction {basis}", 0.0)
        n, limit = len(bob.bits), self.parameters.max_qber
        shuffle_seed = int(self.rng.integers(2**63))
        sender = cascade.Sender(alice.bits, shuffle_seed)

        def ask(number: int, positions: Indices) -> Bits:
            question = self.classical.send(
                "parity questions", positions, len(positions) * n.bit_length()
            )
            answer = sender.answer(number, question)
            return self.classical.send("parity answers", answer, len(answer))

        receiver = cascade.Corrector(
            bob.bits, self.classical.send("shuffle seed", shuffle_seed, 63), ask
        )
        estimate = receiver.estimate_qber()
        if estimate > limit:
            raise NoKeyFromPass(
                f"no key: QBER in basis {basis} about {estimate:.1%}, limit {limit:.1%}"
            )
        receiver.correct(estimate)
        self.progress(f"error correction {basis}", 0.9)

        # The hash key is drawn only now that both strings are fixed.
        key = verification.HashKey.draw(self.rng)
        tag_bits = verification.tag_bits(self.parameters.eps_correctness)
        sent_key, sent_tag = self.classical.send(
            "verification key and tag",
            (key, verification.tag(alice.bits, key, tag_bits)),
            key.size_bits + tag_bits,
        )
        if verification.tag(receiver.bits, sent_key, tag_bits) != sent_tag:
            raise NoKeyFromPass(f"no key: verification of basis {basis} failed, the ends differ")

        # What was corrected is what was wrong: exact error counts without giving up a bit.
        errors = np.bincount(bob.intensity[receiver.corrected], minlength=3)
        corrected = _Corrected(
            alice.bits,
            receiver.bits,
            BasisCounts.of(bob.counts, errors),
            sender.disclosed_bits,
            receiver.round_trips,
        )
        if corrected.qber > limit:
            raise NoKeyFromPass(
                f"no key: QBER in basis {basis} is {corrected.qber:.1%}, limit {limit:.1%}"
            )
        self.progress(f"error correction {basis}", 1.0)
        return corrected

    def _key_lengths(self, corrected: dict[str, _Corrected]) -> dict[str, KeyLength]:
        """The receiver's key lengths by basis, each basis being the test of the other."""
        x, z = BASES
        lengths = {
            key: secret_key_length(
                corrected[key].counts,
                corrected[test].counts,
                self.parameters,
                corrected[key].leakage_bits,
            )
            for key, test in ((x, z), (z, x))
        }
        if sum(length.whole_bits for length in lengths.values()) < 8:
            why = "; ".join(
                f"{basis}: {len(corrected[basis].bob)} sifted bits, "
                f"QBER {corrected[basis].qber:.1%}, "
                f"phase error up to {length.phase_error:.1%}, length {length.bits:.0f}"
                for basis, length in lengths.items()
            )
            raise NoKeyFromPass(f"no key: the block holds no secret bits ({why})")
        return lengths

    def _amplify(self, corrected: _Corrected, length: int) -> tuple[Bits, Bits]:
        """Secret bits of one basis, at the sender and at the receiver."""
        heard_length = self.classical.send("key length", length, 32)
        size = amplification.seed_bits(len(corrected.alice), heard_length)
        seed = self.rng.integers(0, 2, size, np.uint8)
        heard_seed = self.classical.send("Toeplitz seed", seed, size)
        alice = amplification.toeplitz_hash(corrected.alice, seed, heard_length)
        return alice, amplification.toeplitz_hash(corrected.bob, heard_seed, length)

    def _counts_report(
        self, detections: Detections, corrected: dict[str, _Corrected]
    ) -> dict[str, Any]:
        """The report's totals over both bases."""
        detected = np.sum([c.counts.detections for c in corrected.values()], axis=0)
        errors = np.sum([c.counts.errors for c in corrected.values()], axis=0)
        leakage = sum(c.leakage_bits for c in corrected.values())
        limit = sum(len(c.bob) * binary_entropy(c.qber) for c in corrected.values())
        return {
            "pulses": int(detections.pulses.sum()),
            "detections": int(detections.clicks.sum()),
            "sifted_bits": int(detected.sum()),
            "sifted_signal_bits": int(detected[0]),
            "qber": float(errors.sum() / detected.sum()),
            "qber_signal": float(errors[0] / detected[0]),
            "leakage_bits": leakage,
            "efficiency": leakage / limit,
        }

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self.progress(name, 0.0)
        start = perf_counter()
        yield
        self.stages_s[name] = perf_counter() - start
        self.progress(name, 1.0)


def _packed(halves: tuple[Bits, ...]) -> bytes:
    """The bases' bits one after the other, cut to whole bytes."""
    bits = np.concatenate(halves)
    return np.packbits(bits[: len(bits) // 8 * 8]).tobytes()


def _pass_report(pass_: Pass, downlink: Downlink) -> dict[str, float]:
    loss_dB = -10 * np.log10(downlink.transmittance(pass_.range_km, pass_.elevation_deg))
    return {
        "duration_s": pass_.duration_s,
        "max_elevation_deg": float(pass_.elevation_deg.max()),
        "min_range_km": float(pass_.range_km.min()),
        "min_loss_dB": float(loss_dB.min()),
        "max_loss_dB": float(loss_dB.max()),
    }


def _basis_report(corrected: _Corrected, length: KeyLength) -> dict[str, Any]:
    return {
        "sifted_bits": len(corrected.bob),
        "detections_by_intensity": corrected.counts.detections.astype(int).tolist(),
        "errors_by_intensity": corrected.counts.errors.astype(int).tolist(),
        "qber": corrected.qber,
        "leakage_bits": corrected.leakage_bits,
        "efficiency": corrected.efficiency,
        "round_trips": corrected.round_trips,
        "vacuum_events": length.vacuum_events,
        "single_photon_events": length.single_photon_events,
        "phase_error_bound": length.phase_error,
        "secret_bits": length.whole_bits,
    }
