"""Slots of a constant rate: exact, never made up for."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from gateways.pacer import Pacer

NS = 10**9


def test_a_slot_is_exact_for_ever() -> None:
    """1500 octets at 1 Mbit/s are 12 ms; a third of a nanosecond never adds up."""
    pacer = Pacer(1_000_000, 1500, start_ns=5)
    for number in range(1000):
        assert pacer.next_ns() == 5 + number * 12_000_000
        assert not pacer.take(pacer.next_ns() - 1)
        assert pacer.take(pacer.next_ns())
    assert pacer.skipped == 0
    odd = Pacer(3_000_000, 1, start_ns=0)
    while odd.next_ns() < NS:
        assert odd.take(odd.next_ns())
    assert odd.next_ns() == NS


def test_every_slot_is_taken_once_at_the_very_nanosecond() -> None:
    """Rates at which a slot falls between two nanoseconds."""
    rng = random.Random(1)
    for _ in range(200):
        rate_bps, octets = rng.randrange(1, 10**10), rng.randrange(1, 65536)
        pacer = Pacer(rate_bps, octets, start_ns=0)
        interval_ns = Fraction(octets * 8 * NS, rate_bps)
        for number in range(20):
            assert pacer.next_ns() == int(number * interval_ns)
            assert pacer.take(pacer.next_ns())
        assert pacer.skipped == 0


def test_missed_slots_are_passed_over() -> None:
    pacer = Pacer(1_000_000, 1500, start_ns=0)
    assert pacer.take(0)
    assert pacer.take(50_000_000)  # the slots at 12, 24 and 36 ms have gone by, that of 48 is due
    assert (pacer.skipped, pacer.next_ns()) == (3, 60_000_000)
    assert not pacer.take(50_000_000)
    assert pacer.interval_ns == 12_000_000


@pytest.mark.parametrize(("rate_bps", "octets"), [(0, 1500), (-1, 1500), (1000, 0)])
def test_a_rate_is_positive(rate_bps: int, octets: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Pacer(rate_bps, octets, 0)
