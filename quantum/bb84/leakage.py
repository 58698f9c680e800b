"""How much error correction will disclose: models for when it has not yet been run, in bits.

`secret_key_length` takes any of these, or the parities that a run did disclose.
"""

from __future__ import annotations

from collections.abc import Callable
from math import floor, log2, sqrt

from scipy.stats import binom

from quantum.bb84.finite_key import binary_entropy

EFFICIENCY = 1.16
"""f: leakage over Shannon's limit n h(QBER) where none is given."""


def efficiency_leakage_bits(n: float, qber: float, efficiency: float = EFFICIENCY) -> float:
    """f n h(QBER): so many times Shannon's limit for n bits."""
    return efficiency * n * binary_entropy(qber)


def tomamichel_leakage_bits(
    n: float, qber: float, eps_correctness: float, log: Callable[[float], float] = log2
) -> float:
    """The least that any one-way code discloses on n bits, to second order; n >= 1, 0 < QBER < 1/2.

    n h(Q) + [n(1-Q) - F^-1(eps (1 + 1/sqrt n); n, 1-Q) - 1] log2((1-Q)/Q) - log2(n)/2 - log2(1/eps), F^-1
    being the binomial quantile. Source: Tomamichel, Martinez-Mateo, Pacher, Elkouss, Quantum
    Information Processing 16, 280 (2017). SatQuMA's `logM` has natural logarithms (`log=math.log`) in
    all but the first term, which makes these smaller by ln 2.
    """
    quantile = float(binom.ppf(eps_correctness * (1 + 1 / sqrt(floor(n))), floor(n), 1 - qber))
    spread = (n * (1 - qber) - quantile - 1) * log((1 - qber) / qber)
    return n * binary_entropy(qber) + spread - log(n) / 2 - log(1 / eps_correctness)


def cautious_leakage_bits(
    n: float,
    qber: float,
    eps_correctness: float,
    efficiency: float = EFFICIENCY,
    log: Callable[[float], float] = log2,
) -> float:
    """The larger of f n h(QBER) and the least possible: f alone is too little for short blocks.

    Source: Sidhu et al., npj Quantum Information 8, 18 (2022).
    """
    return max(
        efficiency_leakage_bits(n, qber, efficiency),
        tomamichel_leakage_bits(n, qber, eps_correctness, log),
    )
