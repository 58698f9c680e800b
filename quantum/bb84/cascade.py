"""Cascade: the receiver corrects its raw key by asking the sender for parities.

Brassard and Salvail (EUROCRYPT '93): passes over differently shuffled copies of the key, a binary
search in every odd block, and with each error found a fresh look at the blocks of earlier passes
that held it. Pairs of errors that shared a block each time are left for confirming passes over a few
large blocks, which go on until enough of them in a row have found nothing.

Two variants differ in how the first passes' blocks grow. "original" doubles them three times:
leakage 1.09 to 1.20 times Shannon's limit, 100 to 400 round trips for a key of 2 Mbit. "efficient" lets
them grow faster, as few errors are left after the first pass (Martinez-Mateo et al.,
arXiv:1407.3257): 1.03 to 1.07 times, for 200 to 1000 round trips. Block lengths are powers of 2, so that
what the estimate of the error rate asked is part of the first pass and costs nothing.

The ends are separate: `Sender` answers questions and sees none of the receiver's bits; `Corrector`
has its own bits and an `ask`. A question is always "the parity of your first `position` bits, in
the order of pass p". The parity of a block is the sum of two answers, and as every answer is kept,
no question is asked twice: the leakage is the number of answers, all of them unique parities.

Questions of a round go out together, so that a round trip serves thousands of blocks; array
operations over all of a round's blocks make this as quick as a compiled bit loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log2, sqrt
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quantum.bb84.detections import Bits, Indices
from topo.errors import ProtocolError

Ask = Callable[[int, Indices], Bits]
"""(pass number, positions) -> the sender's parities of its bits [0, position)."""

Variant = Literal["original", "efficient"]

FIRST_BLOCK = 0.75
"""Length of the very first blocks in units of 1/QBER, to the nearest power of 2."""
GROWTH: Mapping[Variant, tuple[int, ...]] = MappingProxyType(
    {"original": (1, 2, 4, 8), "efficient": (1, 4, 32)}
)
"""Block lengths of the first passes, in units of the very first."""
CONFIRMING_BITS = 16
"""Errors escape the last, clean confirming passes with probability 2^-16; verification sees these."""
MAX_CONFIRMING_BLOCKS = 64
ERRORS_PER_CONFIRMING_BLOCK = 40
"""So few blocks that what they cost stays below a per cent of the leakage of short keys too."""
MAX_PASSES = 100
"""Reached only with a guess of the QBER that is far too low, or answers that were changed."""

ESTIMATE_LONGEST = 1024
ESTIMATE_SHORTEST = 4
"""Blocks of the estimate, in bits; the shortest still tell 11 % from 25 %."""
ESTIMATE_MIN_BLOCKS = 32
ESTIMATE_ODD_SHARE = 0.46
"""Blocks of which more are odd hold so many errors that their parities look random;"""
ESTIMATE_SIGMAS = 3.0
"""and so do those of which not by so many standard deviations fewer than half are odd."""
UNKNOWN = 2

Order = NDArray[np.int32]


def shuffle(seed: int, pass_number: int, n: int) -> Order:
    """The order in which a pass takes the n bits: position -> bit; both ends derive it alike."""
    rng = np.random.default_rng([seed, pass_number])
    return rng.permutation(np.arange(n, dtype=np.int32))


class Sender:
    """The end whose bits are right: answers parity questions and counts what it disclosed."""

    def __init__(self, bits: Bits, seed: int) -> None:
        self._bits = bits
        self._seed = seed
        self._prefix_parity: dict[int, Bits] = {}
        self.disclosed_bits = 0

    def answer(self, pass_number: int, positions: Indices) -> Bits:
        """Parities of the first `position` bits in the order of a pass, for each position.

        Raises `ProtocolError` for a pass that cannot be, and for a position outside the key.
        """
        if not 0 <= pass_number < MAX_PASSES:
            raise ProtocolError(f"cascade: a parity was asked of pass {pass_number}")
        if len(positions) and not 0 <= positions.min() <= positions.max() <= len(self._bits):
            raise ProtocolError("cascade: a parity was asked of bits that are not in the key")
        if pass_number not in self._prefix_parity:
            order = shuffle(self._seed, pass_number, len(self._bits))
            self._prefix_parity[pass_number] = _prefix_parity(self._bits[order])
        self.disclosed_bits += len(positions)
        return self._prefix_parity[pass_number][positions]


@dataclass(frozen=True, eq=False)
class _Pass:
    """The receiver's view of one pass."""

    number: int
    block: int
    order: Order
    """Position -> bit."""
    position: Order
    """Bit -> position."""
    bits: Bits
    """The receiver's bits as they now are, in this pass's order, padded to whole blocks."""
    odd: Bits
    """1 for a block whose parity differs from the sender's; shape (blocks,)."""


class Corrector:
    """The end that corrects: `bits` are its own and become the sender's by `correct`.

    `round_trips` counts the questions' messages, `learned_bits` the parities answered;
    `qber_at_least` is what the estimate leaves no doubt of, by three standard deviations. Answers
    that no sender's key can give (someone changed them on the way) raise `ProtocolError`, or leave a
    key that verification refuses.
    """

    def __init__(self, bits: Bits, seed: int, ask: Ask) -> None:
        self.bits = bits.copy()
        self.round_trips = 0
        self.learned_bits = 0
        self.qber_at_least = 0.0
        self._seed = seed
        self._ask = ask
        self._passes: list[_Pass] = []
        self._answers: list[Bits] = []
        self._flipped = np.zeros(len(bits), np.bool_)

    @property
    def corrected(self) -> Indices:
        """Bits changed so far: when all is well, exactly where the errors were."""
        return np.flatnonzero(self._flipped)

    def estimate_qber(self) -> float:
        """Error rate estimated from the parities of blocks; 0.5 when even short ones look random.

        A block of k bits is odd with probability (1 - (1 - 2Q)^k) / 2. Blocks are halved until that
        is told from 1/2. The parities count as leakage; they are such as `correct` needs in its first
        pass, and it reuses them.
        """
        n = len(self.bits)
        mine = _prefix_parity(self.bits[shuffle(self._seed, 0, n)])
        longest = min(ESTIMATE_LONGEST, n // ESTIMATE_MIN_BLOCKS)
        block = max(1 << longest.bit_length() >> 1, ESTIMATE_SHORTEST)
        while True:
            edges = np.minimum(np.arange(-(-n // block) + 1) * block, n)
            odd = np.diff(mine[edges] ^ self._learn(0, edges)) != 0
            # No odd block does not mean no error: count half a block at least.
            odd_share = max(float(odd.mean()), 0.5 / len(odd))
            told = min(ESTIMATE_ODD_SHARE, 0.5 - ESTIMATE_SIGMAS * 0.5 / sqrt(len(odd)))
            if odd_share <= told or block == ESTIMATE_SHORTEST:
                break
            block //= 2
        spread = sqrt(odd_share * (1 - odd_share) / len(odd))
        self.qber_at_least = _qber_of(odd_share - 3 * spread, block)
        return _qber_of(odd_share, block)

    def correct(self, qber: float, variant: Variant = "efficient") -> None:
        """Find and flip the errors; `qber` sets the size of the first blocks."""
        n = len(self.bits)
        for block in block_sizes(n, qber, variant):
            self._run_pass(block)
        blocks = confirming_blocks(n, qber)
        clean_bits = 0
        while clean_bits < CONFIRMING_BITS:
            found = self._run_pass(max(-(-n // blocks), 2))
            clean_bits = 0 if found else clean_bits + blocks.bit_length() - 1

    def _run_pass(self, block: int) -> bool:
        """Make all blocks of one more pass even, and those of earlier passes; were there errors?"""
        number = len(self._passes)
        if number == MAX_PASSES:
            raise ProtocolError("cascade: the errors do not come to an end")
        self._passes.append(self._begin(number, block))
        found = False
        # The smallest odd blocks first: they cost least, and being disjoint share no error.
        while (odd := next((p for p in self._passes if p.odd.any()), None)) is not None:
            self._flip(odd.order[self._search(odd)])
            found = True
        return found

    def _begin(self, number: int, block: int) -> _Pass:
        """Shuffle for a pass, and compare the parities of its blocks with the sender's."""
        n = len(self.bits)
        blocks = -(-n // block)
        order = shuffle(self._seed, number, n)
        position = np.empty_like(order)
        position[order] = np.arange(n, dtype=np.int32)
        bits = np.zeros(blocks * block, np.uint8)
        bits[:n] = self.bits[order]
        edges = np.minimum(np.arange(blocks + 1) * block, n)
        sender_parity = np.diff(self._learn(number, edges)) & 1
        odd = sender_parity ^ np.bitwise_xor.reduce(bits.reshape(blocks, block), axis=1)
        return _Pass(number, block, order, position, bits, odd)

    def _search(self, p: _Pass) -> Indices:
        """Positions of one error in each odd block of a pass, by binary search in all at once."""
        blocks = np.flatnonzero(p.odd)
        row = np.arange(len(blocks))
        mine = _prefix_parity(p.bits.reshape(-1, p.block)[blocks])
        start = blocks * p.block
        low, high = start, np.minimum(start + p.block, len(self.bits))
        while (open_ := high - low > 1).any():
            middle = (low + high) // 2
            left_parity = self._learn(p.number, middle) ^ self._answers[p.number][low]
            left_odd = left_parity != mine[row, middle - start] ^ mine[row, low - start]
            high = np.where(open_ & left_odd, middle, high)
            low = np.where(open_ & ~left_odd, middle, low)
        return low

    def _flip(self, found: Order) -> None:
        """Correct the bits found, and mark the blocks of all passes whose parity this changes."""
        if self._flipped[found].any():
            # Each flip removes a true error, so an honest sender never has one taken back.
            raise ProtocolError("cascade: the sender's parities contradict each other")
        self._flipped[found] = True
        self.bits[found] ^= 1
        for p in self._passes:
            at = p.position[found]
            p.bits[at] ^= 1
            np.bitwise_xor.at(p.odd, at // p.block, 1)

    def _learn(self, number: int, positions: Indices) -> Bits:
        """The sender's prefix parities of a pass; asks, in one message, for those not yet known."""
        if number == len(self._answers):
            fresh = np.full(len(self.bits) + 1, UNKNOWN, np.uint8)
            fresh[0] = 0
            if number:  # the whole key's parity is the same in any order
                fresh[-1] = self._answers[0][-1]
            self._answers.append(fresh)
        answers = self._answers[number]
        unknown = positions[answers[positions] == UNKNOWN]
        if len(unknown):
            parities = self._ask(number, unknown)
            if len(parities) != len(unknown):
                raise ProtocolError("cascade: not as many answers as questions")
            answers[unknown] = parities
            self.round_trips += 1
            self.learned_bits += len(unknown)
        return answers[positions]


def block_sizes(n: int, qber: float, variant: Variant) -> list[int]:
    """Block lengths of the first passes over n bits; beyond the first, none as long as the key."""
    first = 1 << max(1, round(log2(FIRST_BLOCK / qber)))
    return [first, *(first * times for times in GROWTH[variant][1:] if first * times < n)]


def confirming_blocks(n: int, qber: float) -> int:
    """Into how many blocks a confirming pass divides n bits: a power of 2, from 2 to 64."""
    wanted = 1 << max(1, round(log2(max(n * qber / ERRORS_PER_CONFIRMING_BLOCK, 1))))
    return min(wanted, MAX_CONFIRMING_BLOCKS)


def _qber_of(odd_share: float, block: int) -> float:
    """The error rate at which that share of blocks of so many bits is odd, in [0, 1/2]."""
    even = 1 - 2 * min(max(odd_share, 0.0), 0.5)
    return float((1 - even ** (1 / block)) / 2)


def _prefix_parity(bits: Bits) -> Bits:
    """Parity of the first 0, 1, ... n bits along the last axis; shape (..., n) -> (..., n + 1)."""
    parity = np.zeros((*bits.shape[:-1], bits.shape[-1] + 1), np.uint8)
    np.bitwise_xor.accumulate(bits, axis=-1, out=parity[..., 1:])
    return parity
