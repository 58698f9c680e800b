"""What must hold for any key, any errors and any sizes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from quantum.bb84 import amplification, bitcoding, cascade, messages, verification
from quantum.bb84.detections import Bits
from topo.errors import ProtocolError


def bits_of(n: int, rng: np.random.Generator) -> Bits:
    return rng.integers(0, 2, n, np.uint8)


@settings(deadline=None)  # a busy machine is no error
@given(
    n=st.integers(1, 700),
    errors=st.floats(0, 0.5),
    guess=st.floats(1e-4, 0.5),
    seed=st.integers(0, 2**32),
)
def test_cascade_flips_errors_only_and_leaks_no_more_than_the_key(
    n: int, errors: float, guess: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    alice = bits_of(n, rng)
    bob = alice ^ (rng.random(n) < errors).astype(np.uint8)
    sender = cascade.Sender(alice, seed)
    corrector = cascade.Corrector(bob, seed, sender.answer)
    assert 0 < corrector.estimate_qber() <= 0.5
    try:
        corrector.correct(guess)
    except ProtocolError as hopeless:
        assert guess < 0.1 * errors
        assert "do not come to an end" in str(hopeless)
    assert set(corrector.corrected) <= set(np.flatnonzero(alice != bob))
    # What is left is even in every block of every pass, so in the whole key.
    assert np.count_nonzero(corrector.bits != alice) % 2 == 0
    assert sender.disclosed_bits == corrector.learned_bits <= cascade.MAX_PASSES * n


@given(data=st.binary(max_size=60), kind=st.sampled_from(messages.Message.__subclasses__()))
def test_any_bytes_are_a_message_or_refused(data: bytes, kind: type[messages.Message]) -> None:
    frame = messages.HEADER.pack(kind.kind, len(data)) + data
    try:
        message = messages.from_frame(frame, kind)
    except ProtocolError:
        return
    assert len(messages.to_frame(message)) <= len(frame) + 9


@given(gaps=st.lists(st.integers(1, 2**40), max_size=50))
def test_rice_codes_are_undone(gaps: list[int]) -> None:
    positions = np.cumsum(np.array(gaps, np.int64)) - 1
    reader = bitcoding.Reader(bitcoding.rice_coded(positions))
    np.testing.assert_array_equal(reader.positions(), positions)
    reader.end()


@given(n=st.integers(1, 200), length=st.integers(1, 200), seed=st.integers(0, 2**32))
def test_toeplitz_is_the_matrix_product(n: int, length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bits, diagonal = bits_of(n, rng), bits_of(amplification.seed_bits(n, length), rng)
    i, j = np.ogrid[:length, :n]
    matrix = diagonal[i - j + n - 1].astype(int)
    np.testing.assert_array_equal(
        amplification.toeplitz_hash(bits, diagonal, length), matrix @ bits % 2
    )


@given(n=st.integers(1, 400), place=st.integers(0, 399), seed=st.integers(0, 2**32))
def test_any_single_changed_bit_changes_the_tag(n: int, place: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bits = bits_of(n, rng)
    changed = bits.copy()
    changed[place % n] ^= 1
    key = verification.HashKey.draw(rng)
    assert verification.tag(bits, key, 50) != verification.tag(changed, key, 50)
