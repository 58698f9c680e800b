"""Finite key lengths against SatQuMA, an independent implementation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import satquma_cases
from satquma_cases import CASES, transmittance

from quantum.bb84.finite_key import (
    BasisCounts,
    binary_entropy,
    fixed_cost_bits,
    secret_key_length,
)
from quantum.bb84.leakage import efficiency_leakage_bits
from quantum.bb84.lim_channel import LimChannel
from quantum.bb84.source import Bb84Parameters

ZERO = 1e-10
"""What SatQuMA puts for a bound that is not positive."""

Three = tuple[float, float, float]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_output_from_transmittance_to_key_length(case: dict[str, Any]) -> None:
    given, expected = case["params"], case["outputs"]
    parameters = satquma_cases.parameters(case)
    channel = LimChannel(given["Pec"], given["QBERI"], given["Pap"])
    block = channel.block(transmittance(case), parameters, pooled_errors=True)
    x, z = block["X"], block["Z"]
    qber = float(x.errors.sum() / x.detections.sum())
    leakage = efficiency_leakage_bits(float(x.detections.sum()), qber, given["fEC"])
    found = secret_key_length(x, z, parameters, leakage)
    outputs = {
        "nX": x.detections.sum(),
        "nZ": z.detections.sum(),
        "mX": x.errors.sum(),
        "QBERx": qber,
        "lambdaEC": leakage,
        "mpn": np.dot(parameters.intensities, parameters.intensity_probabilities),
        "sX0": found.vacuum_events,
        "sX1": found.single_photon_events,
        "sZ1": found.test_single_photon_events,
        "vZ1": found.test_single_photon_errors,
        "phi_x": found.phase_error,
        "SKL": found.bits,
    }
    assert outputs.keys() == expected.keys()
    for name, value in outputs.items():
        assert float(value) == pytest.approx(expected[name], rel=1e-6, abs=2 * ZERO), name


def test_the_detection_probability_published_by_lim_2014() -> None:
    """100 km of fibre at 0.2 dB/km, Bob's efficiency 10 %, p_dc = 6e-7, mean photon number 0.5."""
    channel = LimChannel(extraneous=6e-7, misalignment=0.0)
    gain = channel.detection_probability(0.1 * 10 ** (-0.2 * 100 / 10), 0.5)
    assert float(gain) == pytest.approx(5.010744e-4, rel=1e-6)


def test_errors_by_intensity_add_up_however_they_are_shared() -> None:
    channel = LimChannel(2e-7, 0.006, 0.001)
    own = channel.block([1e-4, 3e-4], PARAMETERS)["Z"]
    pooled = channel.block([1e-4, 3e-4], PARAMETERS, pooled_errors=True)["Z"]
    assert own.errors.sum() == pytest.approx(pooled.errors.sum())
    assert own.errors[2] / own.detections[2] == pytest.approx(0.5, abs=0.01)
    assert pooled.errors[2] / pooled.detections[2] < 0.05


def test_the_fixed_cost_of_a_block() -> None:
    assert fixed_cost_bits(1e-9, 1e-15) == pytest.approx(256.6, abs=0.05)


def test_binary_entropy() -> None:
    assert binary_entropy(0.5) == 1
    assert binary_entropy(0) == binary_entropy(1) == 0
    assert binary_entropy(0.11) == pytest.approx(0.4999, abs=1e-4)


PARAMETERS = Bb84Parameters(1e8, (0.8, 0.1, 0.0), (0.5, 0.25, 0.25))


@pytest.mark.parametrize(
    ("detections", "errors"),
    [
        ((0, 0, 0), (0, 0, 0)),
        ((1000, 60, 5), (10, 1, 2)),
        ((1e6, 6e4, 500), (0, 0, 0)),
        ((1e6, 6e4, 500), (5e5, 3e4, 250)),
    ],
    ids=["nothing", "too few", "no errors to sample", "all random"],
)
def test_blocks_that_hold_no_key(detections: Three, errors: Three) -> None:
    block = BasisCounts.of(detections, errors)
    length = secret_key_length(block, block, PARAMETERS, leakage_bits=0)
    assert length.phase_error == 0.5
    assert length.whole_bits <= length.vacuum_events


def test_more_leakage_is_less_key_bit_for_bit() -> None:
    block = BasisCounts.of((1e6, 7e4, 500), (1e4, 900, 250))
    none = secret_key_length(block, block, PARAMETERS, 0)
    some = secret_key_length(block, block, PARAMETERS, 100_000)
    assert none.bits - some.bits == pytest.approx(100_000)
    assert some.whole_bits == int(np.floor(some.bits)) > 0
    assert some.bits == some.private_bits - some.leakage_bits - some.fixed_cost_bits


def test_a_decoy_that_is_not_the_vacuum_takes_from_the_bounds() -> None:
    """Lim's eq. 2 with mu3 > 0: counts of the second intensity hide vacuum events."""
    block = BasisCounts.of((1e8, 7e6, 9e5), (1e6, 9e4, 2e4))
    weak = Bb84Parameters(1e8, (0.8, 0.1, 0.01), (0.5, 0.25, 0.25), bound="asymptotic")
    length = secret_key_length(block, block, weak, 0)
    mu, p = np.array(weak.intensities), np.array(weak.intensity_probabilities)
    n = np.exp(mu) / p * block.detections
    tau0 = float((np.exp(-mu) * p).sum())
    assert length.vacuum_events == pytest.approx(tau0 * (0.1 * n[2] - 0.01 * n[1]) / 0.09)
    tighter = Bb84Parameters(1e8, (0.8, 0.1, 0.01), (0.5, 0.25, 0.25))
    assert secret_key_length(block, block, tighter, 0).vacuum_events < length.vacuum_events
