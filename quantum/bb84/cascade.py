"""Cascade: the receiver corrects its raw key by asking the sender for parities.

Brassard and Salvail (EUROCRYPT '93): passes over differently shuffled copies of the key, blocks
doubling from 0.73/QBER, a binary search in every odd block, and with each error found a fresh look
at the blocks of earlier passes that held it. Four such passes can leave a pair of errors that
shared a block each time; two passes over a few large blocks then look for it, for 16 parities.

The ends are separate: `Sender` answers questions and sees none of the receiver's bits; `Corrector`
has its own bits and an `ask`. A question is always "the parity of your first `position` bits, in
the order of pass p". The parity of a block is the sum of two answers, and as every answer is kept,
no question is asked twice: the leakage is the number of answers, all of them unique parities.

Questions of a round go out together, so that a round trip serves thousands of blocks; array
operations over all of a round's blocks make this as quick as a compiled bit loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantum.bb84.detections import Bits, Indices
from topo.errors import ProtocolError

Ask = Callable[[int, Indices], Bits]
"""(pass number, positions) -> the sender's parities of its bits [0, position)."""

DOUBLING_PASSES = 4
CONFIRMING_PASSES = 2
CONFIRMING_BLOCKS = 8
"""A pair of errors escapes a confirming pass with probability 1/8."""

ESTIMATE_BLOCK_BITS = 4
"""Short enough for the estimate to tell 11 % from 25 %."""
ESTIMATE_MAX_BLOCKS = 2048
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

        Raises `ProtocolError` for a position outside the key.
        """
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

    `round_trips` counts the questions' messages. Answers that no sender's key can give (someone
    changed them on the way) raise `ProtocolError`, or leave a key that verification refuses.
    """

    def __init__(self, bits: Bits, seed: int, ask: Ask) -> None:
        self.bits = bits.copy()
        self.round_trips = 0
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
        """Error rate estimated from the parities of short blocks; 0.5 when these look random.

        A block of k bits is odd with probability (1 - (1 - 2Q)^k) / 2. The parities count as
        leakage; `correct` reuses those it comes across.
        """
        n, k = len(self.bits), ESTIMATE_BLOCK_BITS
        blocks = max(min(ESTIMATE_MAX_BLOCKS, max(n // 512, 64), n // k), 1)
        edges = np.minimum(np.arange(blocks + 1) * k, n)
        sampled = self.bits[shuffle(self._seed, 0, n)[: edges[-1]]]
        differs = _prefix_parity(sampled)[edges] ^ self._learn(0, edges)
        # No odd block does not mean no error: count half a block at least.
        odd_share = max(int((np.diff(differs) != 0).sum()), 0.5) / blocks
        return 0.5 if odd_share >= 0.5 else (1 - (1 - 2 * odd_share) ** (1 / k)) / 2

    def correct(self, qber: float) -> None:
        """Find and flip the errors; `qber` sets the size of the first blocks."""
        for number, block in enumerate(block_sizes(len(self.bits), qber)):
            self._passes.append(self._begin(number, block))
            # The smallest odd blocks first: they cost least, and being disjoint share no error.
            while (odd := next((p for p in self._passes if p.odd.any()), None)) is not None:
                self._flip(odd.order[self._search(odd)])

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
            answers[unknown] = self._ask(number, unknown)
            self.round_trips += 1
        return answers[positions]


def block_sizes(n: int, qber: float) -> list[int]:
    """Block length of each pass over n bits: 0.73/QBER, thrice doubled, then n/8 twice."""
    first = max(2, round(0.73 / qber))
    doubling = [min(first << i, n) for i in range(DOUBLING_PASSES)]
    confirming = [max(-(-n // CONFIRMING_BLOCKS), 2)] * CONFIRMING_PASSES
    return doubling + confirming


def _prefix_parity(bits: Bits) -> Bits:
    """Parity of the first 0, 1, ... n bits along the last axis; shape (..., n) -> (..., n + 1)."""
    parity = np.zeros((*bits.shape[:-1], bits.shape[-1] + 1), np.uint8)
    np.bitwise_xor.accumulate(bits, axis=-1, out=parity[..., 1:])
    return parity
