"""Error correction, verification and privacy amplification, each on its own."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import fft

from quantum.bb84 import amplification, cascade, verification
from quantum.bb84.detections import Bits, Indices
from quantum.bb84.finite_key import binary_entropy
from topo.errors import NoKeyFromPass, ProtocolError


def noisy_pair(n: int, qber: float, seed: int) -> tuple[Bits, Bits]:
    rng = np.random.default_rng(seed)
    alice = rng.integers(0, 2, n, np.uint8)
    errors: Bits = (rng.random(n) < qber).astype(np.uint8)
    return alice, alice ^ errors


class RecordingSender(cascade.Sender):
    """Keeps every question, and may lie once."""

    def __init__(self, bits: Bits, seed: int, lie_at: int | None = None) -> None:
        super().__init__(bits, seed)
        self.asked: list[tuple[int, int]] = []
        self._lie_at = lie_at

    def answer(self, pass_number: int, positions: Indices) -> Bits:
        said = super().answer(pass_number, positions)
        if self._lie_at is not None and len(self.asked) <= self._lie_at < len(self.asked) + len(
            positions
        ):
            said[self._lie_at - len(self.asked)] ^= 1
        self.asked += [(pass_number, int(position)) for position in positions]
        return said


VARIANTS = get_args(cascade.Variant)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("qber", [0.005, 0.01, 0.02, 0.03, 0.05])
def test_cascade_leaves_no_error_and_leaks_little(qber: float, variant: cascade.Variant) -> None:
    alice, bob = noisy_pair(200_000, qber, seed=11)
    sender = cascade.Sender(alice, seed=1)
    corrector = cascade.Corrector(bob, 1, sender.answer)
    estimate = corrector.estimate_qber()
    assert estimate == pytest.approx(qber, rel=0.4)
    assert corrector.qber_at_least < qber
    corrector.correct(estimate, variant)
    np.testing.assert_array_equal(corrector.bits, alice)
    np.testing.assert_array_equal(corrector.corrected, np.flatnonzero(alice != bob))
    limit = len(alice) * binary_entropy(float(np.mean(alice != bob)))
    assert 1.03 < sender.disclosed_bits / limit < (1.2 if variant == "original" else 1.12)


def frames(
    count: int, qber: float, variant: cascade.Variant, n: int = 10_000, first: int = 0
) -> tuple[int, float]:
    """Of so many frames, how many keep errors; and the leakage over Shannon's limit of all."""
    wrong, disclosed, limit = 0, 0, 0.0
    for seed in range(first, first + count):
        alice, bob = noisy_pair(n, qber, seed)
        sender = cascade.Sender(alice, seed)
        corrector = cascade.Corrector(bob, seed, sender.answer)
        corrector.correct(corrector.estimate_qber(), variant)
        wrong += not np.array_equal(corrector.bits, alice)
        assert corrector.learned_bits == sender.disclosed_bits
        disclosed += sender.disclosed_bits
        limit += n * binary_entropy(float(np.mean(alice != bob)))
    return wrong, disclosed / limit


@pytest.mark.parametrize("variant", VARIANTS)
def test_cascade_over_short_frames(variant: cascade.Variant) -> None:
    """With the parities that the estimate of the QBER takes."""
    wrong, efficiency = frames(15, 0.02, variant)
    assert wrong == 0
    assert 1.03 < efficiency < 1.25


@pytest.mark.long
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("qber", [0.005, 0.01, 0.02, 0.03, 0.05])
def test_cascade_over_a_thousand_short_frames(qber: float, variant: cascade.Variant) -> None:
    wrong, efficiency = frames(1000, qber, variant)
    assert wrong == 0
    assert 1.03 < efficiency < 1.25


def test_the_estimate_of_the_qber_costs_nothing() -> None:
    """Its parities are all of the first pass, so that asking for it discloses no more."""
    alice, bob = noisy_pair(200_000, 0.02, seed=19)
    sender = RecordingSender(alice, seed=7)
    corrector = cascade.Corrector(bob, 7, sender.answer)
    estimate = corrector.estimate_qber()
    asked = len(sender.asked)
    first = cascade.block_sizes(len(alice), estimate, "original")[0]
    assert asked == -(-len(alice) // first)
    corrector.correct(estimate, "original")
    assert (
        sender.asked[asked][0] == 0
    )  # a search in an odd block: no edge of pass 0 was left to ask
    assert sender.asked[asked][1] % first == first // 2


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_frame_leaks_out_of_proportion(variant: cascade.Variant) -> None:
    """The estimate errs towards longer blocks, which cost round trips and no parities."""
    for seed in range(10):
        assert frames(1, 0.01, variant, n=50_000, first=seed)[1] < 1.25


def test_cascade_with_a_guess_far_too_low() -> None:
    """First blocks as long as the key: the confirming passes go on until the errors are gone."""
    alice, bob = noisy_pair(4000, 0.01, seed=9)
    corrector = cascade.Corrector(bob, 9, cascade.Sender(alice, 9).answer)
    corrector.correct(1e-4)
    np.testing.assert_array_equal(corrector.bits, alice)


def test_cascade_refuses_to_go_on_for_ever() -> None:
    """A sender whose answers are coin tosses."""
    rng = np.random.default_rng(10)
    corrector = cascade.Corrector(
        np.zeros(3000, np.uint8), 10, lambda _, asked: rng.integers(0, 2, len(asked), np.uint8)
    )
    with pytest.raises(ProtocolError, match="contradict"):
        corrector.correct(0.02)


def test_cascade_never_asks_twice_so_leakage_is_unique_parities() -> None:
    alice, bob = noisy_pair(50_000, 0.02, seed=12)
    sender = RecordingSender(alice, seed=2)
    corrector = cascade.Corrector(bob, 2, sender.answer)
    corrector.correct(corrector.estimate_qber())
    assert len(sender.asked) == len(set(sender.asked)) == sender.disclosed_bits
    # The empty prefix, and the whole key in a second order, would be answers known beforehand.
    assert not [position for _, position in sender.asked if position == 0]
    assert [number for number, position in sender.asked if position == len(alice)] == [0]


def test_cascade_corrector_reads_only_the_parities() -> None:
    """Shown a different sender's parities, the receiver ends with that sender's key."""
    alice, bob = noisy_pair(20_000, 0.02, seed=13)
    other = alice.copy()
    other[::400] ^= 1
    corrector = cascade.Corrector(bob, 3, cascade.Sender(other, seed=3).answer)
    corrector.correct(0.025)
    np.testing.assert_array_equal(corrector.bits, other)


@pytest.mark.parametrize("lie_at", [0, 100, 1000, 2500])
def test_cascade_with_one_false_parity(lie_at: int) -> None:
    """It is contradicted by the others, or leaves a difference that verification sees."""
    alice, bob = noisy_pair(20_000, 0.02, seed=14)
    sender = RecordingSender(alice, 4, lie_at)
    corrector = cascade.Corrector(bob, 4, sender.answer)
    try:
        corrector.correct(0.02)
    except ProtocolError as error:
        assert "contradict" in str(error)
    else:
        key = verification.HashKey.draw(np.random.default_rng(0))
        assert verification.tag(alice, key, 50) != verification.tag(corrector.bits, key, 50)


def test_cascade_refuses_questions_about_bits_it_has_not() -> None:
    sender = cascade.Sender(np.zeros(10, np.uint8), seed=5)
    for outside in (-1, 11):
        with pytest.raises(ProtocolError, match="not in the key"):
            sender.answer(0, np.array([outside]))
    with pytest.raises(ProtocolError, match="pass 100"):
        sender.answer(cascade.MAX_PASSES, np.array([1]))
    assert sender.disclosed_bits == 0


def test_qber_of_unrelated_keys_is_estimated_as_hopeless() -> None:
    alice, bob = noisy_pair(100_000, 0.5, seed=15)
    corrector = cascade.Corrector(bob, 6, cascade.Sender(alice, 6).answer)
    assert corrector.estimate_qber() > corrector.qber_at_least > 0.11


def test_tag_length_is_what_the_key_length_pays_for() -> None:
    assert verification.tag_bits(1e-15) == 50
    assert verification.tag_bits(2**-50) == 51
    assert 2 ** -verification.tag_bits(1e-15) < 1e-15


def test_tags_of_equal_and_of_nearly_equal_keys() -> None:
    rng = np.random.default_rng(16)
    bits = rng.integers(0, 2, 100_003, np.uint8)
    key = verification.HashKey.draw(rng)
    tag = verification.tag(bits, key, 50)
    assert tag == verification.tag(bits.copy(), key, 50) < 2**50
    for place in (0, 1, 50_000, 100_002):
        changed = bits.copy()
        changed[place] ^= 1
        assert verification.tag(changed, key, 50) != tag
    assert verification.tag(np.append(bits, np.uint8(0)), key, 50) != tag
    assert verification.tag(bits, verification.HashKey.draw(rng), 50) != tag


def test_short_tags_collide_as_often_as_they_may() -> None:
    """Universality, where it can be seen: 8-bit tags of two fixed keys agree 1 time in 256."""
    rng = np.random.default_rng(17)
    one = rng.integers(0, 2, 500, np.uint8)
    other = one.copy()
    other[123] ^= 1
    trials = 20_000
    hits = 0
    for _ in range(trials):
        key = verification.HashKey.draw(rng)
        hits += verification.tag(one, key, 8) == verification.tag(other, key, 8)
    assert abs(hits - trials / 256) < 4 * np.sqrt(trials / 256)


def test_toeplitz_against_the_direct_product_on_random_rows() -> None:
    rng = np.random.default_rng(18)
    n, length = 200_000, 60_000
    bits = rng.integers(0, 2, n, np.uint8)
    seed = rng.integers(0, 2, amplification.seed_bits(n, length), np.uint8)
    hashed = amplification.toeplitz_hash(bits, seed, length)
    assert hashed.shape == (length,)
    for i in [0, length - 1, *rng.integers(0, length, 200)]:
        row = seed[i : i + n][::-1]  # T[i, j] = seed[i - j + n - 1]
        assert hashed[i] == np.count_nonzero(row & bits) % 2


def test_toeplitz_refuses_a_seed_of_another_length() -> None:
    with pytest.raises(ProtocolError, match="Toeplitz"):
        amplification.toeplitz_hash(np.ones(8, np.uint8), np.ones(10, np.uint8), 4)


def test_toeplitz_watches_its_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """An FFT as inexact as a float32 one over many Mbit is caught before it makes a wrong key."""
    exact = fft.irfft

    def noisy(spectrum: NDArray[np.complex128], size: int) -> NDArray[np.float64]:
        return np.asarray(exact(spectrum, size)) + 0.3

    monkeypatch.setattr(fft, "irfft", noisy)
    with pytest.raises(NoKeyFromPass, match="FFT"):
        amplification.toeplitz_hash(np.ones(8, np.uint8), np.ones(11, np.uint8), 4)
