"""One-decoy key lengths (Rusca et al., APL 112, 171104, 2018) where the truth is known.

The channel is simulated in its means, so that how many vacuum and single-photon events a block holds
is known: every bound must be on its right side, and tend to what the paper claims.
"""

from __future__ import annotations

from math import log2

import numpy as np
import pytest
from scipy.optimize import minimize

from quantum.bb84.finite_key import BasisCounts, fixed_cost_bits, secret_key_length
from quantum.bb84.leakage import efficiency_leakage_bits
from quantum.bb84.lim_channel import LimChannel
from quantum.bb84.source import Bb84Parameters, Bound
from topo.errors import InputError

CHANNEL = LimChannel(extraneous=1e-7, misalignment=0.01)
ETA = 1e-3


def block_of(parameters: Bb84Parameters, pulses: float) -> tuple[BasisCounts, BasisCounts]:
    block = CHANNEL.block([ETA], parameters, slot_s=pulses / parameters.pulse_rate_hz)
    return block["X"], block["Z"]


def key_bits(parameters: Bb84Parameters, pulses: float) -> float:
    x, z = block_of(parameters, pulses)
    n, m = float(x.detections.sum()), float(x.errors.sum())
    return secret_key_length(x, z, parameters, efficiency_leakage_bits(n, m / n)).bits


@pytest.mark.parametrize("bound", ["hoeffding", "chernoff", "asymptotic"])
@pytest.mark.parametrize("pulses", [1e9, 1e11, 1e14])
def test_bounds_are_on_the_right_side_of_the_truth(bound: Bound, pulses: float) -> None:
    parameters = Bb84Parameters(1e9, (0.5, 0.15), (0.7, 0.3), bound=bound)
    x, z = block_of(parameters, pulses)
    found = secret_key_length(x, z, parameters, 0.0)
    mu, p = np.array(parameters.intensities), np.array(parameters.intensity_probabilities)
    sifted = pulses / 4
    vacuum = sifted * float((p * np.exp(-mu)).sum()) * 2e-7
    single = sifted * float((p * mu * np.exp(-mu)).sum()) * (1 - (1 - 2e-7) * (1 - ETA))
    assert 0 <= found.vacuum_events <= vacuum
    assert 0 < found.single_photon_events <= single
    phase_error = (1e-7 + 0.01 * ETA) / ETA
    assert found.phase_error >= phase_error
    if pulses == 1e14:
        assert found.single_photon_events > 0.9 * single
        assert found.phase_error < 2 * phase_error


def test_its_fixed_cost_splits_the_failure_probability_in_19() -> None:
    assert fixed_cost_bits(1e-9, 1e-15, decoys=1) == pytest.approx(
        fixed_cost_bits(1e-9, 1e-15) - 6 * log2(21 / 19)
    )


def best(decoys: int, pulses: float) -> float:
    """The most key of any intensities and probabilities."""

    def minus_bits(x: np.ndarray) -> float:
        try:
            if decoys == 1:
                mu, p = (x[0], x[1]), (x[2], 1 - x[2])
            else:
                mu, p = (x[0], x[1], 2e-4), (x[2], x[4], 1 - x[2] - x[4])
            parameters = Bb84Parameters(
                1e9, mu, p, basis_x_probability=float(x[3]), bound="hoeffding"
            )
        except InputError:
            return 0.0
        return -key_bits(parameters, pulses)

    start = [0.5, 0.15, 0.7, 0.9, 0.2][: 4 if decoys == 1 else 5]
    return -float(minimize(minus_bits, start, method="Nelder-Mead", options={"maxiter": 400}).fun)


def test_one_decoy_beats_two_in_blocks_of_practical_size() -> None:
    """The claim of Rusca et al., for blocks up to 1e8 bits; two decoys win in the limit."""
    assert best(1, 1e10) > best(2, 1e10) > 0
    two = Bb84Parameters(1e9, (0.5, 0.1, 0.0), (0.6, 0.3, 0.1), bound="asymptotic")
    one = Bb84Parameters(1e9, (0.5, 0.1), (0.6, 0.4), bound="asymptotic")
    assert key_bits(two, 1e16) > key_bits(one, 1e16) > 0


@pytest.mark.parametrize(
    ("intensities", "probabilities", "what"),
    [
        ((0.1, 0.5), (0.5, 0.5), "mu2"),
        ((0.5, 0.1), (0.5, 0.25, 0.25), "as many as the intensities"),
        ((0.5,), (1.0,), "two or three numbers"),
    ],
)
def test_intensities_that_are_no_protocol(
    intensities: tuple[float, ...], probabilities: tuple[float, ...], what: str
) -> None:
    with pytest.raises(InputError, match=what):
        Bb84Parameters(1e9, intensities, probabilities)
