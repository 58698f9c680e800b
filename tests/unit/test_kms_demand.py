"""The pool of a pair over time: exact corners, alarms, outages, against hand calculation."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kms.alarms import AlarmKind
from kms.demand import DAY_S, Demand, Outage, PairPool
from topo.errors import InputError

START = datetime(2024, 11, 22, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def pool(rate: float, initial: float, low: float, **more: Any) -> PairPool:
    demand = Demand(("A", "B"), rate, low_water_bits=low, initial_bits=initial, **more)
    return PairPool(demand, START)


def test_a_pool_runs_low_then_dry_then_recovers() -> None:
    one = pool(2.0, 1000.0, 400.0)
    one.advance(at(600))
    assert [(alarm.kind, alarm.at) for alarm in one.alarms] == [
        (AlarmKind.LOW_WATER, at(300)),
        (AlarmKind.EXHAUSTED, at(500)),
    ]
    assert (one.level_bits, one.consumed_bits, one.refused_bits) == (0, 1000, 200)
    assert one.outages == [Outage(at(500))]
    one.add(700, at(650))
    assert one.outages == [Outage(at(500), at(650))]
    assert (one.level_bits, one.refused_bits) == (700, 300)
    one.advance(at(850))
    assert [alarm.at for alarm in one.alarms[2:]] == [
        at(800)
    ]  # low again: the mark was passed upwards
    assert one.levels == [
        (START, 1000),
        (at(300), 400),
        (at(500), 0),
        (at(600), 0),
        (at(650), 0),
        (at(650), 700),
        (at(800), 400),
        (at(850), 300),
    ]


def test_a_small_refill_does_not_repeat_the_low_water_alarm() -> None:
    one = pool(1.0, 500.0, 400.0)
    one.advance(at(200))
    one.add(50, at(200))
    one.advance(at(400))
    assert [alarm.kind for alarm in one.alarms] == [AlarmKind.LOW_WATER]


def test_an_empty_pool_at_the_start() -> None:
    one = pool(1.0, 0.0, 100.0)
    assert [alarm.kind for alarm in one.alarms] == [AlarmKind.LOW_WATER, AlarmKind.EXHAUSTED]
    one.advance(at(10))
    assert one.outages == [Outage(START)]
    assert one.refused_bits == 10


def test_steps_of_the_rate_and_the_forecast() -> None:
    one = pool(1.0, 1e6, 0.0, steps=((1.0, 3.0), (2.0, 0.0)))
    one.advance(at(DAY_S))
    assert one.level_bits == pytest.approx(1e6 - DAY_S)
    assert one.forecast().exhausted_in_s == pytest.approx(1e6 - DAY_S)
    one.advance(at(2.5 * DAY_S))
    assert one.level_bits == pytest.approx(1e6 - 4 * DAY_S)
    one.advance(at(20 * DAY_S))
    assert one.level_bits == pytest.approx(1e6 - 4 * DAY_S)
    assert one.forecast().rate_bits_per_s < 1e-6
    # One long advance is the same as many short ones.
    other = pool(1.0, 1e6, 0.0, steps=((1.0, 3.0), (2.0, 0.0)))
    for quarter in range(81):
        other.advance(at(quarter * DAY_S / 4))
    assert other.level_bits == pytest.approx(one.level_bits)
    assert other.forecast().rate_bits_per_s == pytest.approx(one.forecast().rate_bits_per_s)


def test_what_is_refused_still_counts_as_demand() -> None:
    one = pool(5.0, 0.0, 0.0)
    one.advance(at(DAY_S))
    assert one.forecast().rate_bits_per_s == pytest.approx(5.0)
    assert one.forecast().exhausted_in_s == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"pair": ("A", "A")}, "two stations"),
        ({"bits_per_s": -1.0}, "-1: must not be negative"),
        ({"bits_per_s": float("nan")}, "nan"),
        ({"initial_bits": float("inf")}, "inf"),
        ({"steps": ((2.0, 1.0), (1.0, 1.0))}, "one after the other"),
        ({"steps": ((0.0, 1.0),)}, "one after the other"),
        ({"steps": ((1.0, -1.0),)}, "negative"),
    ],
)
def test_bad_demands(change: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        replace(Demand(("A", "B"), 1.0), **change)
