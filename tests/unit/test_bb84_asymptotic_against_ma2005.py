"""Vacuum + weak decoy key rates: Ma, Qi, Zhao, Lo, PRA 72, 012326 (2005)."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest

from quantum.bb84.asymptotic import Gain, two_decoys, vacuum_and_weak_decoy
from quantum.bb84.finite_key import BasisCounts, secret_key_length
from quantum.bb84.source import Bb84Parameters, Bound
from quantum.optics import click_probability, error_probability

MU, NU, Y0, E_D = 0.8, 0.1, 4e-7, 0.006


def seen(eta: float, mean_photons: float) -> Gain:
    gain = float(click_probability(eta, mean_photons, Y0))
    return Gain(mean_photons, gain, float(error_probability(eta, mean_photons, Y0, E_D)) / gain)


@pytest.mark.parametrize(
    ("loss_dB", "gain_and_error", "y1_and_e1", "rate"),
    [
        (30, (8.000798e-04, 0.006247), (9.455749e-04, 0.007235), 1.340425e-04),
        (35, (2.533501e-04, 0.006780), (2.992721e-04, 0.007709), 4.167195e-05),
        (40, (8.039677e-05, 0.008458), (9.490565e-05, 0.009203), 1.248818e-05),
        (45, (2.569789e-05, 0.013689), (3.028055e-05, 0.013871), 3.312803e-06),
    ],
)
def test_decoy_bounds(
    loss_dB: float,
    gain_and_error: tuple[float, float],
    y1_and_e1: tuple[float, float],
    rate: float,
) -> None:
    eta = 10 ** (-loss_dB / 10)
    signal = seen(eta, MU)
    found = vacuum_and_weak_decoy(signal, seen(eta, NU), Y0, efficiency=1.16)
    assert signal.gain == pytest.approx(gain_and_error[0], rel=1e-6)
    assert signal.qber == pytest.approx(gain_and_error[1], abs=1e-6)
    assert found.single_photon_yield == pytest.approx(y1_and_e1[0], rel=1e-6)
    assert found.single_photon_error == pytest.approx(y1_and_e1[1], abs=1e-6)
    assert found.single_photon_gain == pytest.approx(MU * exp(-MU) * y1_and_e1[0], rel=1e-6)
    assert found.bits_per_signal_pulse == pytest.approx(rate, rel=1e-6)


@pytest.mark.parametrize("eta", [1e-3, 1e-4])
def test_two_weak_decoys_bound_the_true_yields(eta: float) -> None:
    """Y_n is known in a simulation: bounds must hold, and tighten as both decoys go to zero."""
    y1 = Y0 + (1 - Y0) * eta
    e1 = (Y0 / 2 + E_D * eta) / y1
    errors = []
    for nu1, nu2 in ((0.2, 0.1), (0.02, 0.01), (0.002, 0.001)):
        found = two_decoys(seen(eta, MU), seen(eta, nu1), seen(eta, nu2))
        assert 0 <= found.vacuum_yield <= Y0 * (1 + 1e-9)
        assert found.single_photon_yield <= y1 * (1 + 1e-9)
        assert found.single_photon_error >= e1 * (1 - 1e-6)
        errors.append(y1 - found.single_photon_yield)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01 * y1


def test_no_single_photons_no_key() -> None:
    """Decoys that never click: everything that clicked may be multi-photon pulses."""
    found = vacuum_and_weak_decoy(Gain(MU, 1e-3, 0.01), Gain(NU, 1e-9, 0.01), 0.0)
    assert found.single_photon_yield < 0
    assert found.single_photon_gain == 0
    assert found.bits_per_signal_pulse < 0


@pytest.mark.parametrize("bound", ["hoeffding", "chernoff"])
def test_lim_2014_becomes_ma_2005_as_the_block_grows(bound: Bound) -> None:
    """With n -> infinity the single-photon bound tends to Ma's Y1, the residual as 1/sqrt(n)."""
    eta = 1e-4
    mu, p = np.array([MU, NU, 0.0]), np.array([0.5, 0.25, 0.25])
    clicks = p * click_probability(eta, mu, Y0)
    errors = p * error_probability(eta, mu, Y0, E_D)
    ma = vacuum_and_weak_decoy(seen(eta, MU), seen(eta, NU), Y0)
    tau1 = float((np.exp(-mu) * mu * p).sum())

    def residual(pulses: float, bound: Bound) -> float:
        parameters = Bb84Parameters(1e8, (MU, NU, 0.0), (0.5, 0.25, 0.25), bound=bound)
        block = BasisCounts(pulses * clicks, pulses * errors)
        length = secret_key_length(block, block, parameters, 0.0)
        return 1 - length.single_photon_events / (tau1 * pulses) / ma.single_photon_yield

    residuals = [residual(pulses, bound) for pulses in (1e16, 1e18, 1e20)]
    assert 0 < residuals[-1] < 1e-5
    assert residuals[0] / residuals[1] == pytest.approx(10, rel=0.01)
    assert residuals[1] / residuals[2] == pytest.approx(10, rel=0.01)
    assert residual(1e12, "asymptotic") == pytest.approx(0, abs=1e-9)
