"""Fading against its analytic mean, variance and density."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
from scipy import integrate, stats

from quantum.fading import fading_factors, pointing_index
from topo.errors import InputError

CORRELATION_S = 0.01


def variance_of_mean(variance: float, index: float, slot_s: float) -> float:
    """Variance of the mean over a slot: (2/T^2) Int_0^T (T - t) (c(t) - 1) dt.

    c is the autocorrelation of a log-normal factor times two squared Gaussians' exponentials.
    With r = exp(-t/tau): exp(s^2 r), and per axis E[exp(-(x^2 + x'^2)/2g)] over its mean squared.
    """

    def covariance(t: float) -> float:
        r = np.exp(-t / CORRELATION_S)
        turbulence = np.exp(variance * r)
        aim = 1.0
        if index < inf:
            aim = (1 + 1 / index) ** 2 / ((1 + 1 / index) ** 2 - (r / index) ** 2)
        return float(turbulence * aim - 1)

    whole, _ = integrate.quad(lambda t: (slot_s - t) * covariance(t), 0, slot_s, limit=200)
    return 2 * whole / slot_s**2


@pytest.mark.parametrize(
    ("variance", "index", "slot_s"),
    [(0.1, inf, 1.0), (0.5, 4.0, 1.0), (0.0, 2.0, 0.1), (0.3, 2.4, 0.005)],
)
def test_the_mean_and_variance_of_slots(variance: float, index: float, slot_s: float) -> None:
    """Mean 1 and the analytic variance within 4 standard errors and 1 % of discretisation."""
    rng = np.random.default_rng(2016)
    slots = 4000
    factors = np.concatenate(
        [
            fading_factors(
                np.full(slots // 40, variance), index, slot_s, rng, correlation_s=CORRELATION_S
            )
            for _ in range(40)
        ]
    )
    expected = variance_of_mean(variance, index, slot_s)
    independent = slots * min(1.0, slot_s / (2 * CORRELATION_S))
    assert factors.mean() == pytest.approx(1, abs=4 * np.sqrt(expected / independent))
    spread = np.sqrt((stats.kurtosis(factors, fisher=False) - 1) / independent)
    assert factors.var() == pytest.approx(expected, rel=4 * spread + 0.01)


def test_still_air_and_a_steady_aim_do_not_fade() -> None:
    rng = np.random.default_rng(1)
    factors = fading_factors(np.zeros(5), inf, 1.0, rng, correlation_s=CORRELATION_S)
    np.testing.assert_array_equal(factors, np.ones(5))


def test_short_slots_remember_and_long_ones_forget() -> None:
    rng = np.random.default_rng(3)

    def neighbours(slot_s: float) -> float:
        f = fading_factors(np.full(4000, 0.2), 3.0, slot_s, rng, correlation_s=CORRELATION_S)
        return float(np.corrcoef(f[:-1], f[1:])[0, 1])

    assert neighbours(0.001) > 0.8
    assert abs(neighbours(1.0)) < 0.07


def test_each_slot_has_its_own_variance() -> None:
    rng = np.random.default_rng(4)
    variance = np.repeat([0.01, 0.5], 1000)
    factors = fading_factors(variance, inf, 1.0, rng, correlation_s=CORRELATION_S)
    assert factors[:1000].std() * 5 < factors[1000:].std()


def test_the_same_seed_gives_the_same_fading() -> None:
    one, two = (
        fading_factors(
            np.full(8, 0.2), 3.0, 1.0, np.random.default_rng(9), correlation_s=CORRELATION_S
        )
        for _ in range(2)
    )
    np.testing.assert_array_equal(one, two)


def test_the_density_of_pointing_fades() -> None:
    """f(h) = g h^(g-1), 0 < h < 1, whose mean g/(g+1) is divided out: moments too short to average."""
    index = pointing_index(5.0, 1.6)
    assert index == pytest.approx(25 / (4 * 1.6**2))
    assert pointing_index(5.0, 0.0) == inf
    moment_s, apart = CORRELATION_S / 4, 40  # ten correlation times: independent
    factors = fading_factors(
        np.zeros(5000 * apart),
        index,
        moment_s,
        np.random.default_rng(5),
        correlation_s=CORRELATION_S,
    )
    fades = factors[::apart] * index / (index + 1)
    assert fades.min() > 0
    assert fades.max() < 1
    assert fades.mean() == pytest.approx(index / (index + 1), rel=0.02)
    assert stats.kstest(fades, lambda h: h**index).pvalue > 1e-3


def test_bad_input_is_named() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="log_variance"):
        fading_factors([-0.1], 3.0, 1.0, rng, correlation_s=0.01)
    with pytest.raises(InputError, match="slot_s"):
        fading_factors([0.1], 3.0, 0.0, rng, correlation_s=0.01)
    with pytest.raises(InputError, match="correlation_s"):
        fading_factors([0.1], 3.0, 1.0, rng, correlation_s=0.0)
    with pytest.raises(InputError, match="index"):
        fading_factors([0.1], 0.0, 1.0, rng, correlation_s=0.01)
