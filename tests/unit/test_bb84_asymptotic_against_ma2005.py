"""Vacuum + weak decoy key rates: Ma, Qi, Zhao, Lo, PRA 72, 012326 (2005)."""

from __future__ import annotations

import numpy as np
import pytest

from quantum.bb84.finite_key import BasisCounts, asymptotic_rate, secret_key_length
from quantum.bb84.source import Bb84Parameters
from quantum.optics import click_probability, error_probability

MU, NU, Y0, E_D = 0.8, 0.1, 4e-7, 0.006


def gain_and_qber(eta: float, mean_photons: float) -> tuple[float, float]:
    gain = float(click_probability(eta, mean_photons, Y0))
    return gain, float(error_probability(eta, mean_photons, Y0, E_D)) / gain


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
    signal, decoy = gain_and_qber(eta, MU), gain_and_qber(eta, NU)
    found = asymptotic_rate((MU, *signal), (NU, *decoy), vacuum_gain=Y0, efficiency=1.16)
    assert signal[0] == pytest.approx(gain_and_error[0], rel=1e-6)
    assert signal[1] == pytest.approx(gain_and_error[1], abs=1e-6)
    assert found.single_photon_yield == pytest.approx(y1_and_e1[0], rel=1e-6)
    assert found.single_photon_error == pytest.approx(y1_and_e1[1], abs=1e-6)
    assert found.bits_per_signal_pulse == pytest.approx(rate, rel=1e-6)


@pytest.mark.parametrize("bound", ["hoeffding", "chernoff"])
def test_lim_2014_becomes_ma_2005_as_the_block_grows(bound: str) -> None:
    """With n -> infinity the single-photon bound tends to Ma's Y1, the residual as 1/sqrt(n)."""
    eta = 1e-4
    mu, p = np.array([MU, NU, 0.0]), np.array([0.5, 0.25, 0.25])
    clicks = p * click_probability(eta, mu, Y0)
    errors = p * error_probability(eta, mu, Y0, E_D)
    ma = asymptotic_rate((MU, *gain_and_qber(eta, MU)), (NU, *gain_and_qber(eta, NU)), Y0)
    parameters = Bb84Parameters(1e8, (MU, NU, 0.0), (0.5, 0.25, 0.25), bound=bound)  # type: ignore[arg-type]
    tau1 = float((np.exp(-mu) * mu * p).sum())
    residuals = []
    for pulses in (1e16, 1e18, 1e20):
        block = BasisCounts(pulses * clicks, pulses * errors)
        length = secret_key_length(block, block, parameters, 0.0)
        yield_ = length.single_photon_events / (tau1 * pulses)
        residuals.append(1 - yield_ / ma.single_photon_yield)
    assert 0 < residuals[-1] < 1e-5
    assert residuals[0] / residuals[1] == pytest.approx(10, rel=0.01)
    assert residuals[1] / residuals[2] == pytest.approx(10, rel=0.01)
