"""Key from entangled pairs: the law of the pairs, both ends' keys, the key length against its limits."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest

from quantum.bbm92 import (
    MAX_PAIRS,
    Bbm92Parameters,
    PairSource,
    key_length_bits,
    make_key,
    simulate,
)
from quantum.repeaters.parameters import Parameters
from quantum.repeaters.werner import secret_fraction
from topo.errors import InputError, NoKeyFromPass

PAIRS = 60_000
GOOD = PairSource(1e5, 0.95)


@pytest.mark.parametrize("werner", [1.0, 0.95, 0.5, 0.0])
def test_bits_differ_as_a_werner_state_says(werner: float) -> None:
    parameters = Bbm92Parameters(basis_x_probability=0.3)
    a, b = simulate(PAIRS, werner, parameters, np.random.default_rng(1))
    for basis, share in ((0, 0.3), (1, 0.7)):
        assert np.mean(a.basis == basis) == pytest.approx(share, abs=0.01)
        mine = (a.basis == basis) & (b.basis == basis)
        qber = (1 - werner) / 2
        sigma = (qber * (1 - qber) / mine.sum()) ** 0.5
        assert np.mean(a.bit[mine] != b.bit[mine]) == pytest.approx(qber, abs=5 * sigma)
    crossed = a.basis != b.basis
    assert np.mean(a.bit[crossed] != b.bit[crossed]) == pytest.approx(0.5, abs=0.02)


def test_both_ends_get_the_same_key_and_the_seed_repeats_it() -> None:
    key = make_key(GOOD, 1.0, seed=5, max_pairs=PAIRS)
    assert key.key_alice == key.key_bob
    assert 8 * len(key.key_bob) == key.report["secret_bits"] > 10_000
    again = make_key(GOOD, 1.0, seed=5, max_pairs=PAIRS)
    assert again.key_bob == key.key_bob
    assert make_key(GOOD, 1.0, seed=6, max_pairs=PAIRS).key_bob != key.key_bob
    ones = np.unpackbits(np.frombuffer(key.key_bob, np.uint8))
    assert ones.mean() == pytest.approx(0.5, abs=5 / 2 / len(ones) ** 0.5)


def test_report_adds_up() -> None:
    report = make_key(GOOD, 1.0, seed=5, max_pairs=PAIRS).report
    assert report["detections"] == PAIRS
    assert report["simulated_s"] == pytest.approx(PAIRS / 1e5)
    assert report["sifted_bits"] == sum(of["sifted_bits"] for of in report["bases"].values())
    assert report["sifted_bits"] == pytest.approx(PAIRS * (0.2**2 + 0.8**2), rel=0.02)
    assert report["qber"] == pytest.approx(GOOD.qber, abs=0.004)
    assert report["leakage_bits"] == sum(of["leakage_bits"] for of in report["bases"].values())
    assert 1 < report["efficiency"] < 1.3
    by_basis = sum(of["secret_bits"] for of in report["bases"].values())
    assert by_basis - 8 < report["secret_bits"] <= by_basis


def test_a_block_gives_less_than_the_model_s_limit_of_long_blocks() -> None:
    report = make_key(PairSource(1e6, 0.95), 1.0, seed=5, max_pairs=4 * PAIRS).report
    limit = float(secret_fraction(0.95, Parameters(correction_inefficiency=1.0)))
    assert 0.5 * limit < report["secret_bits"] / report["sifted_bits"] < limit


def test_key_length_tends_to_the_asymptotic_fraction() -> None:
    """1 - h(Q) - f h(Q), from the repeater model; the finite terms die like 1/sqrt(n)."""
    p, werner, n = Parameters(), 0.95, 10**14
    qber = (1 - werner) / 2
    entropy = -qber * log2(qber) - (1 - qber) * log2(1 - qber)
    leakage = round(p.correction_inefficiency * n * entropy)
    found = key_length_bits(n, n, round(n * qber), leakage, Bbm92Parameters()) / n
    assert found == pytest.approx(float(secret_fraction(werner, p)), abs=1e-5)


def test_key_length_by_hand() -> None:
    """n = k = 10^6, no errors: mu = sqrt(2 10^-6 (1 + 10^-6) ln(4/eps)) with eps = 4 e^-18 is 0.006."""
    parameters = Bbm92Parameters(eps_secrecy=4 * np.exp(-18), eps_correctness=2**-50)
    mu = 6e-3
    entropy = -mu * log2(mu) - (1 - mu) * log2(1 - mu)
    fixed = 1 + 2 * (18 / np.log(2) - 2) + 50
    found = key_length_bits(10**6, 10**6, 0, 1000, parameters)
    assert found == pytest.approx(1e6 * (1 - entropy) - 1000 - fixed, rel=1e-6)


def test_fewer_pairs_than_there_could_be_take_the_whole_time() -> None:
    report = make_key(PairSource(2e4, 0.97), 2.0, seed=1, max_pairs=PAIRS).report
    assert report["detections"] == pytest.approx(40_000, abs=1000)  # Poisson, sigma 200
    assert report["simulated_s"] == report["duration_s"] == 2.0


@pytest.mark.parametrize(
    ("source", "pairs", "why"),
    [
        (PairSource(1e5, 0.7), PAIRS, r"QBER in basis X is .*limit 11\.0%"),
        (PairSource(1e5, 0.95), 2_000, "holds no secret bits .*collect more pairs"),
        (PairSource(1e-9, 0.95), PAIRS, "no pair in 1 s"),
        (PairSource(1e5, 0.0), PAIRS, "QBER"),
    ],
    ids=["too many errors", "too few pairs", "no pair", "random"],
)
def test_why_there_is_no_key(source: PairSource, pairs: int, why: str) -> None:
    with pytest.raises(NoKeyFromPass, match=why):
        make_key(source, 1.0, seed=1, max_pairs=pairs)


def test_what_cannot_be() -> None:
    with pytest.raises(InputError, match="pair rate 0"):
        PairSource(0.0, 0.9)
    with pytest.raises(InputError, match=r"Werner parameter 1\.1"):
        PairSource(1.0, 1.1)
    with pytest.raises(InputError, match="duration 0"):
        make_key(GOOD, 0.0, seed=1)
    with pytest.raises(InputError, match=f"from 1 to {MAX_PAIRS}"):
        make_key(GOOD, 1.0, seed=1, max_pairs=MAX_PAIRS + 1)
    with pytest.raises(InputError, match="eps_secrecy"):
        Bbm92Parameters(eps_secrecy=0.0)
    with pytest.raises(InputError, match="max_qber"):
        Bbm92Parameters(max_qber=0.6)
