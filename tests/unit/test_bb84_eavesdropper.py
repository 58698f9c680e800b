"""What each attack does to error rates, decoy yields and the key, and what it earns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from quantum.bb84.detections import Detections, simulate
from quantum.bb84.eavesdropper import NOBODY, Eavesdropper, forwarding, split_gain
from quantum.bb84.finite_key import BasisCounts, KeyLength, binary_entropy, secret_key_length
from quantum.bb84.source import JINAN1
from quantum.optics import JINAN1_CLEAR
from topo.errors import InputError
from topo.space.passes import circular_pass

HALF_A_MINUTE = circular_pass(511, 77.9, 10).window(-15, 15)


def under_attack(**shares: Any) -> Detections:
    return simulate(
        HALF_A_MINUTE,
        JINAN1_CLEAR,
        JINAN1,
        np.random.default_rng(5),
        eavesdropper=Eavesdropper(**shares),
    )


def lengths(found: Detections) -> tuple[KeyLength, KeyLength]:
    """The finite key of each basis, were error correction to leak 1.16 n h(QBER)."""
    sifted, errors = found.sifted.sum(axis=0), found.errors.sum(axis=0)
    blocks = [BasisCounts.of(sifted[basis], errors[basis]) for basis in (0, 1)]
    leaked = [
        1.16 * n * binary_entropy(float(m / n))
        for n, m in zip(sifted.sum(axis=1), errors.sum(axis=1), strict=True)
    ]
    return (
        secret_key_length(blocks[0], blocks[1], JINAN1, leaked[0]),
        secret_key_length(blocks[1], blocks[0], JINAN1, leaked[1]),
    )


def key_bits(found: Detections) -> int:
    return sum(length.whole_bits for length in lengths(found))


def qber(found: Detections) -> np.ndarray:
    """By basis."""
    return np.asarray(
        found.errors.sum(axis=(0, 2)) / found.sifted.sum(axis=(0, 2)), dtype=np.float64
    )


def gains(found: Detections) -> np.ndarray:
    """By intensity."""
    return np.asarray(found.clicks.sum(axis=0) / found.pulses.sum(axis=0), dtype=np.float64)


@pytest.fixture(scope="module")
def free() -> Detections:
    return under_attack()


def test_nobody_knows_nothing(free: Detections) -> None:
    assert Eavesdropper() == NOBODY
    assert not free.known.any()
    assert key_bits(free) > 100_000


def test_intercept_resend_shows_in_the_errors(free: Detections) -> None:
    """p/4 more errors, the same yields, half of the intercepted bits known."""
    found = under_attack(intercept_resend_fraction=0.25)
    np.testing.assert_allclose(qber(found) - qber(free), 0.25 / 4, atol=0.003)
    np.testing.assert_allclose(gains(found)[:2], gains(free)[:2], rtol=0.02)
    known = found.known.sum() / found.sifted.sum()
    assert known == pytest.approx(0.25 / 2, rel=0.02)
    assert key_bits(found) == 0


def test_photon_number_splitting_shows_in_the_decoys_only(free: Detections) -> None:
    """The signal's gain and QBER stay; the decoys' gain and with it all single photons go."""
    found = under_attack(photon_number_splitting_fraction=1.0)
    before, after = gains(free), gains(found)
    assert after[0] == pytest.approx(before[0], rel=0.005)
    # At such losses clicks are as the photons left over: the mean of n - 1 where n >= 2.
    spare = [mu - 1 + np.exp(-mu) for mu in JINAN1.intensities]
    decoy = JINAN1_CLEAR.vacuum_yield + after[0] * spare[1] / spare[0]
    assert after[1] == pytest.approx(decoy, abs=4 * np.sqrt(decoy / found.pulses[:, 1].sum()))
    assert after[1] < 0.25 * before[1]
    np.testing.assert_allclose(qber(found), qber(free), atol=0.002)
    assert found.known.sum() > 0.97 * found.sifted.sum()
    assert all(length.single_photon_events == 0 for length in lengths(found))
    assert key_bits(found) == 0


def test_every_pulse_may_be_attacked() -> None:
    """Shares that sum to 1 but for rounding."""
    found = under_attack(
        intercept_resend_fraction=0.7, photon_number_splitting_fraction=0.1, blinding_fraction=0.2
    )
    assert found.known.sum() > 0.5 * found.sifted.sum()


def test_half_of_photon_number_splitting_is_enough(free: Detections) -> None:
    found = under_attack(photon_number_splitting_fraction=0.6)
    assert key_bits(found) == 0
    single = [length.single_photon_events for length in lengths(found)]
    assert 0 < single[0] < 0.5 * lengths(free)[0].single_photon_events


def test_blinding_shows_between_the_bases(free: Detections) -> None:
    """Half the pulses: the other basis halves, the blinded one keeps its counts, all too clean."""
    found = under_attack(blinding_fraction=0.5, blinded_basis="Z")
    x, z = found.sifted.sum(axis=(0, 2)) / free.sifted.sum(axis=(0, 2))
    assert x == pytest.approx(0.5, abs=0.01)
    assert z == pytest.approx(1.0, abs=0.01)
    before, after = qber(free), qber(found)
    assert after[0] > 1.2 * before[0]
    assert after[1] == pytest.approx(before[1] / 2, rel=0.1)
    known = found.known.sum(axis=0) / found.sifted.sum(axis=(0, 2))
    assert known[0] == 0
    assert known[1] == pytest.approx(0.5, abs=0.01)
    assert key_bits(found) < 0.9 * key_bits(free)


@pytest.mark.parametrize(("basis", "blinded"), [("X", 0), ("Z", 1)])
def test_blinding_for_good_leaves_no_key(basis: Any, blinded: int) -> None:
    """Every bit of the blinded basis known and right, not one dark count; background elsewhere."""
    found = under_attack(blinding_fraction=1.0, blinded_basis=basis)
    errors = found.errors.sum(axis=0)
    assert errors[blinded].sum() == 0
    assert found.sifted.sum(axis=0)[blinded, 2] == 0
    assert found.known.sum(axis=0)[blinded] == found.sifted.sum(axis=(0, 2))[blinded]
    assert qber(found)[1 - blinded] == pytest.approx(0.5, abs=0.05)
    assert key_bits(found) == 0


@pytest.mark.parametrize(
    "shares",
    [
        {"intercept_resend_fraction": 0.05},
        {"photon_number_splitting_fraction": 0.3},
        {"intercept_resend_fraction": 0.05, "photon_number_splitting_fraction": 0.2},
    ],
)
def test_the_key_is_never_longer_than_what_is_not_known(shares: dict[str, float]) -> None:
    found = under_attack(**shares)
    assert 0 < key_bits(found) < found.sifted.sum() - found.known.sum()


def test_split_gain_is_the_sum_over_photon_numbers() -> None:
    n, forwarded, mu = np.arange(2, 40), 0.3, 0.8
    poisson = np.exp(n * np.log(mu) - mu - np.cumsum(np.log(np.arange(1, 40)))[1:])
    direct = (poisson * (1 - (1 - forwarded) ** (n - 1))).sum()
    assert float(split_gain(forwarded, mu)) == pytest.approx(direct, rel=1e-12)
    assert float(split_gain(0.0, mu)) == pytest.approx(0.0, abs=1e-16)
    assert float(split_gain(1.0, mu)) == pytest.approx(1 - np.exp(-mu) * (1 + mu))


def test_forwarding_keeps_the_gain_where_it_can() -> None:
    gain = np.array([1e-7, 1e-4, 0.1, 0.19, 0.5])
    found = forwarding(gain, 0.8)
    np.testing.assert_allclose(split_gain(found[:4], 0.8), gain[:4], rtol=1e-7)
    assert found[4] == pytest.approx(1.0)  # 0.19 is all that multi-photon pulses can give


@pytest.mark.parametrize(
    ("shares", "named"),
    [
        ({"intercept_resend_fraction": 1.1}, "intercept_resend_fraction 1.1"),
        ({"photon_number_splitting_fraction": -0.1}, "photon_number_splitting_fraction -0.1"),
        ({"blinding_fraction": float("nan")}, "blinding_fraction nan"),
        ({"blinding_fraction": 0.6, "intercept_resend_fraction": 0.6}, "is 1.2: must be at most"),
        ({"blinded_basis": "Y"}, "blinded_basis 'Y'"),
    ],
)
def test_impossible_eavesdroppers_are_refused(shares: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        Eavesdropper(**shares)
