"""Health tests of key: cutoffs against jitterentropy's published table, and what they catch."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from kms.health import complaint, proportion_cutoff, repetition_cutoff, require_healthy
from topo.errors import KeySupplyError

# jitterentropy-library, src/jitterentropy-health.c, jent_apt_cutoff_lookup: window 512, alpha 2^-30,
# min-entropy 1/osr a sample, osr = 1 to 15. Its repetition count test uses 30 osr + 1.
JITTERENTROPY = (325, 422, 459, 477, 488, 494, 499, 502, 505, 507, 508, 509, 510, 511, 512)


def test_adaptive_proportion_cutoffs() -> None:
    assert tuple(proportion_cutoff(512, 1 / osr, 30) for osr in range(1, 16)) == JITTERENTROPY


def test_repetition_cutoffs() -> None:
    assert [repetition_cutoff(1 / osr, 30) for osr in (1, 2, 4)] == [31, 61, 121]
    assert repetition_cutoff(8.0, 20) == 4  # 1 + ceil(20/8)


def test_good_key_passes() -> None:
    for seed in range(100):
        assert complaint(Random(seed).randbytes(5000)) is None
    assert complaint(Random(1).randbytes(140_000)) is None  # a pass of 1.1 Mbit
    assert complaint(Random(1).randbytes(96)) is None  # the smallest block
    require_healthy(Random(1).randbytes(96), "")


@pytest.mark.parametrize("length", [96, 5000, 74_000])
@pytest.mark.parametrize("pattern", [b"\0", b"\xff", b"\x55", b"\x55\xaa", b"\x0f\x1e\x2d\x3c"])
def test_constant_and_short_patterns_are_caught(pattern: bytes, length: int) -> None:
    assert complaint((pattern * length)[:length]) is not None


@pytest.mark.parametrize("ones", [0.35, 0.65])
def test_bias_is_caught(ones: float) -> None:
    for seed in range(20):
        bits = np.random.default_rng(seed).random(592_000) < ones
        assert "adaptive proportion" in (complaint(np.packbits(bits).tobytes()) or "")


@pytest.mark.parametrize("at", [0, 37_000, 74_000 - 6])
def test_a_stuck_stretch_is_caught_wherever_it_is(at: int) -> None:
    material = bytearray(Random(3).randbytes(74_000))
    material[at : at + 6] = bytes(6)
    assert "equal bits in a row" in (complaint(bytes(material)) or "")


def test_the_exact_limits() -> None:
    """40 equal bits in a row pass, 41 do not."""
    good = np.unpackbits(np.frombuffer(Random(3).randbytes(1000), np.uint8))
    for run, passes in ((40, True), (41, False)):
        bits = good.copy()
        bits[999] = bits[1000 + run] = 0
        bits[1000 : 1000 + run] = 1
        why = complaint(np.packbits(bits).tobytes())
        assert (why is None) is passes
        if why:
            assert why == "repetition count: 41 equal bits in a row, limit 40"


def test_the_error_names_the_block() -> None:
    with pytest.raises(KeySupplyError, match=r"^K1 fails its health test: repetition count: 800 "):
        require_healthy(bytes(100), "K1")
