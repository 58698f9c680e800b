"""The anti-replay window against WireGuard's cases (wireguard-go `replay/replay_test.go`).

WireGuard counts from 0, ESP from 1: every number is shifted by one. WireGuard's `T_LIM` is one more
than its window of positions *behind* the highest; ours counts the highest too, so T_LIM is our
size. WireGuard's refusals of counters at or above its message limit have no counterpart: a 32-bit
field cannot carry them.
"""

from __future__ import annotations

import pytest

from gateways.replay import ReplayWindow

LIM = 1024
LAST = 2**32 - 2  # the last counter, WireGuard's way of counting

CASES = [
    (0, True),
    (1, True),
    (1, False),
    (9, True),
    (8, True),
    (7, True),
    (7, False),
    (LIM, True),
    (LIM - 1, True),
    (LIM - 1, False),
    (LIM - 2, True),
    (2, True),
    (2, False),
    (LIM + 16, True),
    (3, False),
    (LIM + 16, False),
    (LIM * 4, True),
    (LIM * 4 - (LIM - 1), True),
    (10, False),
    (LIM * 4 - LIM, False),
    (LIM * 4 - (LIM + 1), False),
    (LIM * 4 - (LIM - 2), True),
    (LIM * 4 + 1 - LIM, False),
    (0, False),
    (LAST, True),
    (LAST, False),
    (LAST - 1, True),
    (LAST - 1, False),
    (LAST - 2, True),
    (0, False),
]

BULK = {
    "forward from 1": ([*range(1, LIM)], [(0, True), (0, False)]),
    "forward from 2": ([*range(2, LIM + 1)], [(1, True), (0, False)]),
    "backward to 1": ([*range(LIM, 0, -1)], []),
    "backward to 2": ([*range(LIM + 1, 1, -1)], [(0, False)]),
    "backward, then one forward, then too old": (
        [*range(LIM - 1, 0, -1)],
        [(LIM, True), (0, False)],
    ),
    "backward, zero last, then forward": ([*range(LIM - 1, 0, -1)], [(0, True), (LIM, True)]),
}


def accept(window: ReplayWindow, counter: int) -> bool:
    sequence = counter + 1
    if not window.check(sequence):
        return False
    window.update(sequence)
    return True


def test_wireguard_cases() -> None:
    window = ReplayWindow(LIM)
    for number, (counter, expected) in enumerate(CASES, 1):
        assert accept(window, counter) is expected, f"case {number}: {counter}"


@pytest.mark.parametrize("name", BULK)
def test_wireguard_bulk(name: str) -> None:
    window = ReplayWindow(LIM)
    run, after = BULK[name]
    for counter in run:
        assert accept(window, counter), counter
    for counter, expected in after:
        assert accept(window, counter) is expected, counter


def test_zero_is_never_valid() -> None:
    assert not ReplayWindow().check(0)


def test_check_changes_nothing() -> None:
    window = ReplayWindow()
    for _ in range(3):
        assert window.check(2**32 - 1)
    assert window.highest == 0
    assert accept(window, 0)


def test_reordering_of_the_whole_window_is_accepted() -> None:
    window = ReplayWindow(LIM)
    window.update(10 * LIM)
    assert all(accept(window, 10 * LIM - 1 - late) for late in range(1, LIM))
    assert not accept(window, 10 * LIM - 1 - LIM)


@pytest.mark.parametrize("size", [0, -64, 1000])
def test_size_is_checked(size: int) -> None:
    with pytest.raises(ValueError, match="window size"):
        ReplayWindow(size)
