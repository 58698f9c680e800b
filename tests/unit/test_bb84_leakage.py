"""Models of how much error correction discloses."""

from __future__ import annotations

from math import log

import pytest

from quantum.bb84.finite_key import binary_entropy
from quantum.bb84.leakage import (
    cautious_leakage_bits,
    efficiency_leakage_bits,
    tomamichel_leakage_bits,
)


def test_efficiency_against_satquma() -> None:
    """Its `lambdaEC` of a pass of 57.7 Mbit."""
    found = efficiency_leakage_bits(57719770.63128808, 0.0055390206961468584, 1.16)
    assert found == pytest.approx(3313619.3522772803, rel=1e-9)


@pytest.mark.parametrize("qber", [0.01, 0.03, 0.05])
def test_the_least_possible_leakage_tends_to_shannons_limit(qber: float) -> None:
    """From above, as 1/sqrt(n): Tomamichel et al. (2017), eq. 6."""
    over = [
        tomamichel_leakage_bits(n, qber, 1e-10) / (n * binary_entropy(qber)) - 1
        for n in (1e4, 1e6, 1e8)
    ]
    assert 0 < over[2] < 0.01 < over[0]
    assert over[0] / over[1] == pytest.approx(10, rel=0.15)
    assert over[1] / over[2] == pytest.approx(10, rel=0.05)


def test_short_blocks_cannot_be_corrected_at_1_16() -> None:
    """1.16 n h is below what is possible at 1e4 bits, and above it at 1e6."""
    least = tomamichel_leakage_bits(1e4, 0.01, 1e-10)
    assert efficiency_leakage_bits(1e4, 0.01) < least
    assert cautious_leakage_bits(1e4, 0.01, 1e-10) == least
    assert cautious_leakage_bits(1e6, 0.01, 1e-10) == efficiency_leakage_bits(1e6, 0.01)


def test_natural_logarithms_shrink_the_second_order_by_ln_2() -> None:
    n, qber = 1e5, 0.02
    first = n * binary_entropy(qber)
    ours, natural = (tomamichel_leakage_bits(n, qber, 1e-10, *args) for args in ((), (log,)))
    assert (natural - first) / (ours - first) == pytest.approx(log(2), rel=1e-9)
