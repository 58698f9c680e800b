"""Measured consumption and the forecast of exhaustion."""

from __future__ import annotations

from math import exp, inf

import pytest

from kms.forecast import ConsumptionRate, forecast
from topo.errors import InputError

HOUR_S = 3600.0


def test_a_steady_stream_shows_its_rate_from_the_start() -> None:
    measured = ConsumptionRate(HOUR_S, start_s=1000.0)
    assert measured.bits_per_s(1000.0) == 0
    for minute in range(1, 600):
        now_s = 1000.0 + 60 * minute
        measured.record_steadily(256, now_s)
        assert measured.bits_per_s(now_s) == pytest.approx(256 / 60, rel=1e-9)


def test_single_requests() -> None:
    """256 bits every minute: right on average, and never far off once an hour has gone by."""
    measured = ConsumptionRate(HOUR_S, start_s=0.0)
    for minute in range(1, 600):
        measured.record(256, 60.0 * minute)
        if minute > 60:
            assert measured.bits_per_s(60.0 * minute + 30) == pytest.approx(256 / 60, rel=0.01)


def test_a_change_is_followed_with_the_time_constant() -> None:
    measured = ConsumptionRate(HOUR_S, start_s=0.0)
    long_s = 100 * HOUR_S
    measured.record_steadily(1.0 * long_s, long_s)
    for hours in (1, 2, 5):
        now_s = long_s + hours * HOUR_S
        measured.record_steadily(10.0 * HOUR_S * (1 if hours < 5 else 3), now_s)
        assert measured.bits_per_s(now_s) == pytest.approx(10 - 9 * exp(-hours), rel=1e-9)
    # And falls to nothing when nothing is asked for any more.
    assert measured.bits_per_s(now_s + 20 * HOUR_S) < 1e-6


def test_a_clock_that_goes_back_stands_still() -> None:
    measured = ConsumptionRate(HOUR_S, start_s=0.0)
    measured.record_steadily(HOUR_S, HOUR_S)
    before = measured.bits_per_s(HOUR_S)
    measured.record(0, 0.0)
    measured.record_steadily(0, 0.0)
    assert measured.bits_per_s(10.0) == before


def test_forecast() -> None:
    coming = forecast(1000.0, 10.0, low_water_bits=400.0)
    assert (coming.low_water_in_s, coming.exhausted_in_s, coming.is_low) == (60, 100, False)
    coming = forecast(400.0, 10.0, low_water_bits=400.0)
    assert (coming.low_water_in_s, coming.exhausted_in_s, coming.is_low) == (0, 40, True)
    assert forecast(0.0, 10.0).exhausted_in_s == 0
    assert forecast(1.0, 0.0).exhausted_in_s == inf


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan")])
def test_bad_time_constants(bad: float) -> None:
    with pytest.raises(InputError, match="time constant"):
        ConsumptionRate(bad, 0.0)
