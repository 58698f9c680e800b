"""A detector's numbers against published ones and textbook limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from quantum.detector import (
    IDEAL,
    Detector,
    dark_probability,
    gate_fraction,
    leaked_fraction,
    live_fraction,
)
from topo.errors import InputError


def test_an_ideal_detector_does_nothing() -> None:
    assert (gate_fraction(IDEAL), leaked_fraction(IDEAL, 1e-9), dark_probability(IDEAL)) == (
        1,
        0,
        0,
    )
    assert float(live_fraction(IDEAL, 1e9)) == 1
    assert not IDEAL.remembers


def test_dark_counts_of_micius() -> None:
    """Four detectors of 25 Hz, gates of 2 ns: 2e-7 per gate (Liao et al., Nature 549, 43)."""
    assert dark_probability(Detector(dark_rate_hz=25, gate_s=2e-9)) == pytest.approx(2e-7, rel=1e-6)


@pytest.mark.parametrize(("sigmas", "inside"), [(2, 0.682689), (4, 0.954500), (6, 0.997300)])
def test_a_gate_of_so_many_sigmas(sigmas: float, inside: float) -> None:
    """The 68-95-99.7 rule."""
    detector = Detector(jitter_s=100e-12, gate_s=sigmas * 100e-12)
    assert gate_fraction(detector) == pytest.approx(inside, abs=1e-6)


def test_what_misses_its_gate_is_in_others_or_between() -> None:
    detector = Detector(jitter_s=0.5e-9, gate_s=1e-9)
    assert gate_fraction(detector) + leaked_fraction(detector, 1e-9) == pytest.approx(1, abs=1e-12)
    normal = stats.norm(scale=0.5e-9)
    beside = normal.cdf(2.1e-9) - normal.cdf(1.1e-9) + normal.cdf(3.7e-9) - normal.cdf(2.7e-9)
    assert leaked_fraction(detector, 1.6e-9) == pytest.approx(2 * beside, rel=1e-5)


def test_the_rate_saturates_at_one_click_a_dead_time() -> None:
    detector = Detector(dead_time_s=50e-9)
    rate_hz = np.array([1e3, 20e6, 1e12])
    counted_hz = rate_hz * live_fraction(detector, rate_hz)
    np.testing.assert_allclose(counted_hz, [1e3, 10e6, 20e6], rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("efficiency", 1.1),
        ("afterpulse_probability", 1.0),
        ("dead_time_s", -1e-9),
        ("trap_lifetime_s", float("inf")),
        ("jitter_s", float("nan")),
        ("dark_rate_hz", -1.0),
        ("gate_s", 0.0),
        ("detectors", 3),
    ],
)
def test_impossible_detectors_are_refused(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=name):
        Detector(**{name: value})
