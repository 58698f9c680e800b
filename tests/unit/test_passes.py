"""Pass geometry against closed forms and the tabulated pass of 22 November 2024 over Beijing."""

from __future__ import annotations

import numpy as np
import pytest

from topo.errors import InputError
from topo.space.passes import circular_pass, visibility_s


def test_the_beijing_pass_takes_448_seconds() -> None:
    # SGP4 and a turning Earth give 448.0 s for these elements; the analytic pass is 0.4 % longer.
    assert visibility_s(511, 77.9, 10) == pytest.approx(448, abs=2)
    pass_ = circular_pass(511, 77.9, 10)
    assert pass_.duration_s == pytest.approx(448, abs=2)
    assert pass_.elevation_deg.max() == pytest.approx(77.9)
    assert pass_.range_km.min() == pytest.approx(526.1, rel=0.01)


@pytest.mark.parametrize(
    ("from_rise_s", "elevation_deg", "range_km"),
    [(32, 13.698, 1506.28), (96, 24.339, 1077.49), (160, 44.863, 704.19), (192, 62.51, 574.88)],
)
def test_the_beijing_profile(from_rise_s: int, elevation_deg: float, range_km: float) -> None:
    """SGP4 profile of the same pass; the circular orbit follows it to 1.5 %."""
    pass_ = circular_pass(511, 77.9, 10)
    at = np.flatnonzero(pass_.t_s == from_rise_s - 224)[0]
    assert pass_.elevation_deg[at] == pytest.approx(elevation_deg, rel=0.015)
    assert pass_.range_km[at] == pytest.approx(range_km, rel=0.015)


def test_the_micius_pass_of_2016() -> None:
    """Liao et al. (2017): 273 s, 1200 km down to 645 km, 500 km orbit."""
    pass_ = circular_pass(500, 49, 20)
    assert visibility_s(500, 49, 20) == pytest.approx(273, abs=2)
    assert pass_.range_km.min() == pytest.approx(645, rel=0.005)
    assert pass_.range_km.max() == pytest.approx(1200, rel=0.01)


def test_a_zenith_pass_is_overhead_at_time_zero_and_symmetric() -> None:
    pass_ = circular_pass(500, 90, 0)
    middle = len(pass_.t_s) // 2
    assert pass_.t_s[middle] == 0
    assert pass_.elevation_deg[middle] == pytest.approx(90, abs=1e-4)
    assert pass_.range_km[middle] == pytest.approx(500)
    np.testing.assert_allclose(pass_.range_km, pass_.range_km[::-1])
    assert pass_.elevation_deg.min() >= 0


def test_a_window_keeps_its_seconds() -> None:
    window = circular_pass(511, 77.9, 10).window(-30, 29)
    np.testing.assert_array_equal(window.t_s, np.arange(-30, 30))
    assert window.duration_s == 60


def test_a_window_outside_the_pass_is_refused() -> None:
    with pytest.raises(InputError, match="window 300 s to 400 s"):
        circular_pass(511, 77.9, 10).window(300, 400)


@pytest.mark.parametrize(
    ("altitude_km", "culmination_deg", "mask_deg"),
    [
        (0, 50, 10),
        (-5, 50, 10),
        (500, 10, 10),
        (500, 91, 10),
        (500, 50, -1),
        (500, float("nan"), 0),
    ],
)
def test_impossible_passes_are_refused(
    altitude_km: float, culmination_deg: float, mask_deg: float
) -> None:
    with pytest.raises(InputError):
        circular_pass(altitude_km, culmination_deg, mask_deg)
