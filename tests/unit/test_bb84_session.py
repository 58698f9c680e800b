"""Whole passes, end to end, against the published ones."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from quantum.bb84 import source
from quantum.bb84.classical import ClassicalChannel, Payload
from quantum.bb84.detections import Eavesdropper
from quantum.bb84.finite_key import BasisCounts, binary_entropy, secret_key_length
from quantum.bb84.session import PassKey, run_pass
from quantum.optics import MICIUS_2017, click_probability, error_probability, preset
from topo.errors import InputError, NoKeyFromPass
from topo.space.passes import circular_pass

BEIJING = circular_pass(511, 77.9, 10)
XINGLONG = circular_pass(500, 49, 20)
SHORT_S = (-4.0, 3.0)


def short_pass(seed: int = 7, **options: Any) -> PassKey:
    """8 s around culmination of the Jinan-1 pass."""
    return run_pass(
        BEIJING, preset("jinan1-typical"), source.JINAN1, seed=seed, window_s=SHORT_S, **options
    )


@pytest.fixture(scope="module")
def micius() -> PassKey:
    return run_pass(XINGLONG, MICIUS_2017, source.MICIUS_2017, seed=2016)


def test_the_micius_pass_of_2016(micius: PassKey) -> None:
    """Liao et al., Nature 549, 43 (2017): 273 s on 19 December 2016.

    Fitted: the rates at both ends of the range and the QBER. Predicted: the totals. The published
    sifted bits are those of the signal state (1 671 072 of 3 551 136 is 0.8/0.85 of a half). The
    published 300 939 secret bits paid for a Hamming code and fluctuating intensities as well.
    """
    report = micius.report
    assert report["detections"] == pytest.approx(3_551_136, rel=0.05)
    assert report["sifted_signal_bits"] == pytest.approx(1_671_072, rel=0.05)
    assert report["qber"] == pytest.approx(0.011, abs=0.002)
    assert report["qber_signal"] == pytest.approx(0.011, abs=0.002)
    assert 300_000 < report["secret_bits"] < 450_000


def test_both_ends_hold_the_same_whole_bytes(micius: PassKey) -> None:
    assert micius.key_alice == micius.key_bob
    assert 8 * len(micius.key_bob) == micius.report["secret_bits"]
    bits = np.unpackbits(np.frombuffer(micius.key_bob, np.uint8))
    assert bits.mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(len(bits)))


def test_the_report_adds_up_and_is_json(micius: PassKey) -> None:
    report = json.loads(json.dumps(micius.report))
    bases = report["bases"].values()
    assert sum(basis["sifted_bits"] for basis in bases) == report["sifted_bits"]
    assert sum(basis["leakage_bits"] for basis in bases) == report["leakage_bits"]
    assert 0 <= sum(basis["secret_bits"] for basis in bases) - report["secret_bits"] < 8
    assert 1.03 < report["efficiency"] < 1.25
    assert report["leakage_bits"] == report["classical"]["parity answers"]["bits"]
    assert report["failure_probability"] == pytest.approx(2e-9, rel=1e-5)
    for basis in bases:
        assert basis["qber"] < basis["phase_error_bound"] < 0.11
        assert sum(basis["detections_by_intensity"]) == basis["sifted_bits"]


def test_the_jinan_pass_of_448_s() -> None:
    """0.59 Mbit a pass (arXiv:2408.10994); the zenith loss was fitted to it, by expected counts."""
    made = run_pass(BEIJING, preset("jinan1-typical"), source.JINAN1, seed=2024)
    assert made.key_alice == made.key_bob
    assert made.report["pulses"] == pytest.approx(2.8e11, rel=0.01)
    assert made.report["secret_bits"] == pytest.approx(0.59e6, rel=0.1)
    assert made.report["qber"] == pytest.approx(0.0163, abs=0.001)


@pytest.mark.parametrize(("name", "Mbit"), [("jinan1-typical", 0.59), ("jinan1-clear", 1.07)])
def test_the_expected_key_of_the_jinan_presets(name: str, Mbit: float) -> None:
    """From expected counts and f = 1.16, without simulation."""
    link, parameters = preset(name), source.PRESETS[name]
    eta = link.transmittance(BEIJING.range_km, BEIJING.elevation_deg)[:, None]
    mu = np.array(parameters.intensities)
    pulses = 625e6 / 4 * np.array(parameters.intensity_probabilities)
    detections = (pulses * click_probability(eta, mu, link.vacuum_yield)).sum(axis=0)
    errors = (pulses * error_probability(eta, mu, link.vacuum_yield, link.misalignment)).sum(axis=0)
    n = float(detections.sum())
    block = BasisCounts(detections, errors)
    leakage = 1.16 * n * binary_entropy(float(errors.sum()) / n)
    length = secret_key_length(block, block, parameters, leakage)
    assert 2 * length.bits == pytest.approx(Mbit * 1e6, rel=0.1)


def test_a_seed_repeats_its_key_and_another_does_not() -> None:
    one, again, other = short_pass(7), short_pass(7), short_pass(8)
    assert one.key_bob == again.key_bob != other.key_bob
    for made in (one, again):
        made.report.pop("stages_s")
    assert one.report == again.report


def test_progress_hears_every_stage_to_its_end() -> None:
    heard: dict[str, list[float]] = {}
    short_pass(progress=lambda stage, done: heard.setdefault(stage, []).append(done))
    for stage in ("detections", "sifting", "error correction X", "privacy amplification"):
        assert heard[stage] == sorted(heard[stage])
        assert heard[stage][-1] == 1.0


def test_an_eavesdropper_costs_key_and_then_all_of_it() -> None:
    free = short_pass().report
    tapped = short_pass(eavesdropper=Eavesdropper(0.05)).report
    assert tapped["qber"] - free["qber"] == pytest.approx(0.05 / 4, abs=0.002)
    assert 0 < tapped["secret_bits"] < 0.9 * free["secret_bits"]
    with pytest.raises(NoKeyFromPass, match="no secret bits"):
        short_pass(eavesdropper=Eavesdropper(0.3))
    with pytest.raises(NoKeyFromPass, match=r"QBER in basis X about 2\d.*limit 11"):
        short_pass(eavesdropper=Eavesdropper(1.0))


class Tampering(ClassicalChannel):
    """Changes one message: the `number`-th of a kind."""

    def __init__(self, kind: str, number: int, change: Any) -> None:
        super().__init__()
        self._kind, self._number, self._change = kind, number, change

    def send(self, kind: str, payload: Payload, size_bits: int) -> Payload:
        carried = super().send(kind, payload, size_bits)
        if kind == self._kind and self.traffic[kind].messages == self._number:
            return self._change(carried)  # type: ignore[no-any-return]
        return carried


def flipped(bits: np.ndarray) -> np.ndarray:
    """The bits with the middle one changed."""
    changed = bits.copy()
    changed[len(changed) // 2] ^= 1
    return changed


@pytest.mark.parametrize(
    ("kind", "number", "change"),
    [
        ("verification key and tag", 1, lambda sent: (sent[0], sent[1] ^ 1)),
        ("shuffle seed", 1, lambda sent: sent ^ 1),
        ("parity answers", 2, flipped),
        ("parity questions", 1, lambda sent: sent + 1_000_000),
        ("key length", 1, lambda sent: sent - 1),
        ("Toeplitz seed", 1, flipped),
    ],
)
def test_a_message_changed_on_its_way_means_no_key(kind: str, number: int, change: Any) -> None:
    """The second parity answers are the first that correction, not the estimate, makes use of."""
    with pytest.raises(NoKeyFromPass, match="no key"):
        short_pass(classical=Tampering(kind, number, change))


def test_a_pass_too_short_or_too_dark_says_why() -> None:
    with pytest.raises(NoKeyFromPass, match=r"sifted bits, QBER .* phase error"):
        run_pass(XINGLONG, MICIUS_2017, source.MICIUS_2017, seed=1, window_s=(130, 132))
    one_pulse_a_second = source.Bb84Parameters(1, (0.8, 0.1, 0.0), (0.5, 0.25, 0.25))
    with pytest.raises(NoKeyFromPass, match="nothing was sifted"):
        run_pass(XINGLONG, MICIUS_2017, one_pulse_a_second, seed=1)


def test_a_window_beyond_the_pass_is_bad_input() -> None:
    with pytest.raises(InputError, match="window"):
        run_pass(XINGLONG, MICIUS_2017, source.MICIUS_2017, seed=1, window_s=(500, 600))
