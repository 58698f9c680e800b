"""Runs of states against the plain thing: one state for every byte, in a list."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms.ranges import RangeMap, RangeState, Run, Runs

START, STOP = 5, 60
places = st.tuples(st.integers(START, STOP - 1), st.integers(1, STOP)).map(
    lambda pair: (pair[0], min(STOP, pair[0] + pair[1]))
)
steps = st.lists(st.tuples(places, st.sampled_from(RangeState)), max_size=30)


def runs_of(states: list[RangeState]) -> list[Run]:
    runs, start = [], START
    for state, group in groupby(states):
        length = len(list(group))
        runs.append(Run(start, start + length, state))
        start += length
    return runs


@given(steps, places)
def test_against_a_list_of_bytes(
    steps: list[tuple[tuple[int, int], RangeState]], place: tuple[int, int]
) -> None:
    ranges = RangeMap(range(START, STOP))
    states = [RangeState.FREE] * (STOP - START)
    stored = {run.start: run for run in runs_of(states)}
    for (start, stop), state in steps:
        touched = ranges.assign(start, stop, state)
        states[start - START : stop - START] = [state] * (stop - start)
        for at in touched:  # who writes only what was touched has all of it
            stored.pop(at, None)
            run = ranges.run_from(at)
            if run is not None:
                stored[at] = run

    expected = runs_of(states)
    assert list(ranges.runs()) == expected
    assert [ranges.run_at(at) for at in range(START, STOP)] == [
        run for run in expected for _ in range(run.start, run.stop)
    ]
    packed = ranges.pack()
    assert len(packed) == 5 * len(expected)
    unpacked = Runs.unpack(range(START, STOP), packed)
    assert {unpacked.run_at(at) for at in range(START, STOP)} == set(expected)
    assert sorted(stored.values()) == expected
    again = RangeMap(range(START, STOP))
    again.restore(run for run in expected if run.state is not RangeState.FREE)
    assert list(again.runs()) == expected
    assert again.totals == ranges.totals
    assert ranges.free_runs() == [run for run in expected if run.state is RangeState.FREE]
    assert ranges.totals == {state: states.count(state) for state in RangeState}
    start, stop = place
    overlapping = [run for run in expected if run.start < stop and run.stop > start]
    assert list(ranges.runs(start, stop)) == overlapping
    assert ranges.is_stored(start, stop) == all(run.state.stored for run in overlapping)
    assert ranges.any_stored(start, stop) == any(run.state.stored for run in overlapping)
    assert {run.start: ranges.run_from(run.start) for run in expected} == {
        run.start: run for run in expected
    }


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\5\0\0\0",
        b"\5\0\0\0\0\0",
        b"\5\0\0\0\4",
        b"\6\0\0\0\0",
        b"\5\0\0\0\5\0\0\0\0\1",
        b"\5\0\0\0\x3c\0\0\0\0\1",
    ],
)
def test_what_are_no_runs(packed: bytes) -> None:
    with pytest.raises(ValueError, match="not runs over"):
        Runs.unpack(range(START, STOP), packed)
