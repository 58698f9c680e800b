"""One pass, end to end: photons, sifting, error correction, verification, privacy amplification.

The satellite sends (its key is `key_alice`), the ground station receives (`key_bob`). Each end
works on its own record and on what the classical channel brought it. Everything random is drawn
from one seed, so that a run can be repeated: these are keys for experiments, and two passes of one
experiment need two seeds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from quantum.bb84 import amplification, authentication
from quantum.bb84.authentication import BlockKeys, forgery_probability
from quantum.bb84.block import CorrectedBasis
from quantum.bb84.cascade import Variant
from quantum.bb84.classical import ClassicalChannel
from quantum.bb84.detections import Detections, simulate
from quantum.bb84.eavesdropper import NOBODY, Eavesdropper
from quantum.bb84.finite_key import KeyLength
from quantum.bb84.receiver import Receiver
from quantum.bb84.sender import Sender
from quantum.bb84.source import BASES, Bb84Parameters
from quantum.bb84.stages import Progress, Stages, silent
from quantum.optics import Downlink
from topo.errors import NoKeyFromPass, ProtocolError
from topo.space.passes import Pass


@dataclass(frozen=True)
class PassKey:
    """The key block of one pass, as each end holds it, and how it came about."""

    key_alice: bytes
    """The satellite's bits, first bit highest."""
    key_bob: bytes
    """The ground station's: the same."""
    report: dict[str, Any]
    """JSON-able; all but `stages_s` repeats with the seed."""


def run_pass(
    pass_: Pass,
    downlink: Downlink,
    parameters: Bb84Parameters,
    *,
    seed: int,
    window_s: tuple[float, float] | None = None,
    eavesdropper: Eavesdropper = NOBODY,
    fading: ArrayLike | None = None,
    classical: ClassicalChannel | None = None,
    authentication_key: bytes | None = None,
    cascade: Variant = "original",
    progress: Progress = silent,
) -> PassKey:
    """Simulate decoy-state BB84 over a pass and distil its secret key, the same at both ends.

    `window_s` keeps the part of the pass between two times from culmination; `fading` multiplies
    the transmittance of each slot. `authentication_key` is 64 bytes that both ends share and use for
    nothing else; by default the seed stands in for a pre-shared start key. `cascade` "efficient" makes
    more key of more round trips. Raises `NoKeyFromPass`, saying why, when there are no detections,
    too many errors, ends that disagree, messages changed on their way, or fewer than 8 secret bits;
    `InputError` for a window outside the pass.
    """
    if window_s is not None:
        pass_ = pass_.window(*window_s)
    stages = Stages(progress)
    with stages.stage("detections"):
        detections = simulate(
            pass_,
            downlink,
            parameters,
            np.random.default_rng(seed),
            eavesdropper=eavesdropper,
            fading=fading,
            progress=lambda done: progress("detections", done),
        )
    made = distil(
        detections,
        parameters,
        seed=seed,
        classical=classical,
        authentication_key=authentication_key,
        cascade=cascade,
        stages=stages,
    )
    report = {
        "downlink": downlink.name,
        "seed": seed,
        "pass": _pass_report(pass_, downlink),
        "parameters": asdict(parameters),
        "eavesdropper": asdict(eavesdropper),
        **made.report,
    }
    return PassKey(made.key_alice, made.key_bob, report)


def distil(
    detections: Detections,
    parameters: Bb84Parameters,
    *,
    seed: int,
    classical: ClassicalChannel | None = None,
    authentication_key: bytes | None = None,
    cascade: Variant = "original",
    stages: Stages | None = None,
) -> PassKey:
    """The secret key in the records of a pass: all that follows once the photons are gone.

    Raises `NoKeyFromPass` as `run_pass` does.
    """
    channel, stages = classical or ClassicalChannel(), stages or Stages()
    own_rng = np.random.default_rng([seed, 1])
    start_key = own_rng.bytes(authentication.BLOCK_KEY_BYTES)
    keys = BlockKeys.of(start_key if authentication_key is None else authentication_key)
    sender = Sender(detections.sender, parameters, keys, own_rng)

    def request(frame: bytes) -> bytes:
        return channel.carry(sender.handle(channel.carry(frame)))

    receiver = Receiver(detections.receiver, parameters, keys, request, stages, cascade=cascade)
    try:
        receiver.agree()
        with stages.stage("privacy amplification"):
            key_alice, key_bob = (
                amplification.whole_bytes(end.key()) for end in (sender, receiver)
            )
    except ProtocolError as error:
        raise NoKeyFromPass(f"no key: {error}") from error
    if key_alice != key_bob:
        # Only a simulator sees both; real ends rely on verification and authentication for this.
        raise NoKeyFromPass("no key: the ends differ after privacy amplification")
    secret_bits = 8 * len(key_bob)
    report = {
        **_counts_report(detections, receiver.corrected),
        "bases": {
            basis: _basis_report(
                receiver.corrected[basis], receiver.lengths[basis], receiver.round_trips[basis]
            )
            for basis in BASES
        },
        "secret_bits": secret_bits,
        **_security_report(parameters, receiver.transcript.size_bytes, secret_bits),
        "classical": channel.report(),
        "classical_totals": channel.totals(),
        "stages_s": stages.times_s,
    }
    return PassKey(key_alice, key_bob, report)


def _counts_report(detections: Detections, corrected: dict[str, CorrectedBasis]) -> dict[str, Any]:
    """Totals over both bases."""
    detected = np.sum([c.counts.detections for c in corrected.values()], axis=0)
    errors = np.sum([c.counts.errors for c in corrected.values()], axis=0)
    leakage = sum(c.leakage_bits for c in corrected.values())
    limit_bits = sum(c.shannon_limit_bits for c in corrected.values())
    return {
        "pulses": int(detections.pulses.sum()),
        "detections": int(detections.clicks.sum()),
        "sifted_bits": int(detected.sum()),
        "sifted_signal_bits": int(detected[0]),
        "qber": float(errors.sum() / detected.sum()),
        "qber_signal": float(errors[0] / detected[0]),
        "leakage_bits": leakage,
        "efficiency": _efficiency(leakage, limit_bits),
    }


def _efficiency(leakage_bits: int, limit_bits: float) -> float | None:
    """f: leakage over Shannon's limit; None where there were no errors, and JSON has no infinity."""
    return leakage_bits / limit_bits if limit_bits else None


def _basis_report(corrected: CorrectedBasis, length: KeyLength, round_trips: int) -> dict[str, Any]:
    """Where the bits of one basis went.

    Of those sifted `private_bits` are nobody else's; less what error correction disclosed and the
    fixed cost, they are the secret bits.
    """
    return {
        "sifted_bits": len(corrected.bits),
        "detections_by_intensity": corrected.counts.detections.astype(int).tolist(),
        "errors_by_intensity": corrected.counts.errors.astype(int).tolist(),
        "qber": corrected.qber,
        "leakage_bits": corrected.leakage_bits,
        "efficiency": _efficiency(corrected.leakage_bits, corrected.shannon_limit_bits),
        "round_trips": round_trips,
        "vacuum_events": length.vacuum_events,
        "single_photon_events": length.single_photon_events,
        "phase_error_bound": length.phase_error,
        "private_bits": length.private_bits,
        "fixed_cost_bits": length.fixed_cost_bits,
        "secret_bits": length.whole_bits,
    }


def _security_report(
    parameters: Bb84Parameters, transcript_bytes: int, secret_bits: int
) -> dict[str, Any]:
    """Failure probabilities, which add up over the bases, and the key that authentication used up."""
    forgery = 2 * forgery_probability(transcript_bytes)
    secrecy = len(BASES) * parameters.eps_secrecy
    correctness = len(BASES) * parameters.eps_correctness
    used_bits = 8 * authentication.BLOCK_KEY_BYTES
    return {
        "authentication": {
            "tags": 2,
            "tag_bits": authentication.TAG_BITS,
            "transcript_bytes": transcript_bytes,
            "key_bits": used_bits,
        },
        "net_secret_bits": secret_bits - used_bits,
        "failure_probability": secrecy + correctness + forgery,
        "failure_probabilities": {
            "secrecy": secrecy,
            "correctness": correctness,
            "authentication": forgery,
        },
    }


def _pass_report(pass_: Pass, downlink: Downlink) -> dict[str, float]:
    loss_dB = -10 * np.log10(downlink.transmittance(pass_.range_km, pass_.elevation_deg))
    return {
        "duration_s": pass_.duration_s,
        "max_elevation_deg": float(pass_.elevation_deg.max()),
        "min_range_km": float(pass_.range_km.min()),
        "min_loss_dB": float(loss_dB.min()),
        "max_loss_dB": float(loss_dB.max()),
    }
