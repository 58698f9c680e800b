"""Which state every byte of half a block is in, as runs.

The states, in the one order they are passed through (some may be skipped, none is returned to):

FREE       nobody has the bytes; they are stored, sealed, at this site
RESERVED   at the slave's site: the other site has given them to its master, our slave may still
           fetch them (learned by reconciliation, or because one of several slaves has fetched)
DELIVERED  this site has handed them to its SAE and erased them; whether the other site has too is
           not known
DESTROYED  settled: erased here, and to be had nowhere any more (delivered at both sites, expired,
           withdrawn, or found different at the two sites)
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple


class RangeState(StrEnum):
    FREE = "FREE"
    RESERVED = "RESERVED"
    DELIVERED = "DELIVERED"
    DESTROYED = "DESTROYED"

    @property
    def stored(self) -> bool:
        """Whether the bytes are still in the store."""
        return self in _STORED


_STORED = frozenset({RangeState.FREE, RangeState.RESERVED})
_CODED = tuple(RangeState)
_CODES = {state: code for code, state in enumerate(_CODED)}
_PACKED_BYTES = 5


class Run(NamedTuple):
    """Bytes `start` … `stop - 1`, all in one state."""

    start: int
    stop: int
    state: RangeState


class Runs:
    """The state of every byte in `span`, as runs that together fill it."""

    def __init__(self, span: range, starts: list[int], states: list[RangeState]) -> None:
        self.span = span
        self._starts, self._states = starts, states

    @staticmethod
    def unpack(span: range, packed: bytes) -> Runs:
        """What `pack` made of runs over `span`; `ValueError` if it did not."""
        number, rest = divmod(len(packed), _PACKED_BYTES)
        starts = list(struct.unpack_from(f"<{number}I", packed))
        codes = packed[4 * number :]
        if rest or starts[:1] != [span.start] or starts[-1] >= span.stop:
            raise ValueError(f"not runs over {span}")
        if any(one >= other for one, other in pairwise(starts)) or max(codes) >= len(_CODED):
            raise ValueError(f"not runs over {span}")
        return Runs(span, starts, [_CODED[code] for code in codes])

    def pack(self) -> bytes:
        """The runs in five bytes each: where they begin (32 bits, little-endian), then their states."""
        starts = struct.pack(f"<{len(self._starts)}I", *self._starts)
        return starts + bytes(_CODES[state] for state in self._states)

    def run_at(self, at: int) -> Run:
        """The run that holds byte `at`."""
        return self._run(bisect_right(self._starts, at) - 1)

    def _run(self, index: int) -> Run:
        stop = self._starts[index + 1] if index + 1 < len(self._starts) else self.span.stop
        return Run(self._starts[index], stop, self._states[index])


class RangeMap(Runs):
    """Runs that change: adjacent ones differ in state. `totals` counts the bytes in each state."""

    def __init__(self, span: range) -> None:
        super().__init__(span, [span.start], [RangeState.FREE])
        self.totals = dict.fromkeys(RangeState, 0)
        self.totals[RangeState.FREE] = len(span)

    @property
    def stored_bytes(self) -> int:
        return sum(self.totals[state] for state in _STORED)

    def restore(self, runs: Iterable[Run]) -> None:
        """Be as `runs` say, in order and none twice; whatever they leave out is FREE."""
        self._starts, self._states = [], []
        self.totals = dict.fromkeys(RangeState, 0)
        at = self.span.start
        for start, stop, state in [*runs, Run(self.span.stop, self.span.stop, RangeState.FREE)]:
            if not at <= start <= stop <= self.span.stop:
                raise ValueError(f"{start}…{stop} is not inside {at}…{self.span.stop}")
            for begin, end, each in ((at, start, RangeState.FREE), (start, stop, state)):
                if begin < end:
                    self._starts.append(begin)
                    self._states.append(each)
                    self.totals[each] += end - begin
            at = stop

    def runs(self, start: int | None = None, stop: int | None = None) -> Iterator[Run]:
        """The runs that overlap start … stop - 1, whole; all of them if nothing is given."""
        stop = self.span.stop if stop is None else stop
        index = 0 if start is None else max(0, bisect_right(self._starts, start) - 1)
        while index < len(self._starts) and self._starts[index] < stop:
            yield self._run(index)
            index += 1

    def free_runs(self) -> list[Run]:
        """The FREE runs in order. They are few and lie at the end: used bytes are not looked at."""
        found: list[Run] = []
        missing = self.totals[RangeState.FREE]
        index = len(self._starts) - 1
        while missing:
            run = self._run(index)
            if run.state is RangeState.FREE:
                found.append(run)
                missing -= run.stop - run.start
            index -= 1
        return found[::-1]

    def run_from(self, start: int) -> Run | None:
        """The run that begins exactly at `start`."""
        index = bisect_left(self._starts, start)
        if index < len(self._starts) and self._starts[index] == start:
            return self._run(index)
        return None

    def is_stored(self, start: int, stop: int) -> bool:
        """Whether every byte of start … stop - 1 is still in the store."""
        return all(run.state.stored for run in self.runs(start, stop))

    def any_stored(self, start: int, stop: int) -> bool:
        return any(run.state.stored for run in self.runs(start, stop))

    def assign(self, start: int, stop: int, state: RangeState) -> set[int]:
        """Put start … stop - 1 into a state; where runs began before or begin now, around it.

        Those are the starts under which a list of runs differs before and after.
        """
        if not self.span.start <= start < stop <= self.span.stop:
            raise ValueError(f"{start}…{stop} is not inside {self.span}")
        first = bisect_right(self._starts, start) - 1
        last = bisect_left(self._starts, stop) - 1
        for run in (self._run(index) for index in range(first, last + 1)):
            self.totals[run.state] -= min(run.stop, stop) - max(run.start, start)
        self.totals[state] += stop - start

        left, right = self._run(first), self._run(last)
        pieces = [(start, state)]
        if left.start < start:
            pieces.insert(0, (left.start, left.state))
        if right.stop > stop:
            pieces.append((stop, right.state))
        if first > 0:  # the neighbours may have the same state now: take them in
            first -= 1
            pieces.insert(0, (self._starts[first], self._states[first]))
        if last + 1 < len(self._starts):
            last += 1
            pieces.append((self._starts[last], self._states[last]))
        merged = [
            piece
            for before, piece in zip([None, *pieces], pieces, strict=False)
            if before is None or before[1] is not piece[1]
        ]
        touched = {*self._starts[first : last + 1], *(at for at, _ in merged)}
        self._starts[first : last + 1] = [at for at, _ in merged]
        self._states[first : last + 1] = [piece_state for _, piece_state in merged]
        return touched
