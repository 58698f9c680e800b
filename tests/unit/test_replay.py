"""The anti-replay window: cases from what RFC 4303 §3.4.3 and RFC 6479 say it must do."""

from __future__ import annotations

import pytest

from gateways.replay import ReplayWindow

W = 1024
LAST = 2**32 - 1

ACCEPTED, REFUSED = True, False

CASES: dict[str, list[tuple[int, bool]]] = {
    "zero is never sent": [(0, REFUSED), (1, ACCEPTED), (0, REFUSED)],
    "the first packets in order, each once": [
        (1, ACCEPTED),
        (1, REFUSED),
        (2, ACCEPTED),
        (2, REFUSED),
        (1, REFUSED),
    ],
    "late ones inside the window, each once": [
        (10, ACCEPTED),
        (9, ACCEPTED),
        (8, ACCEPTED),
        (8, REFUSED),
        (3, ACCEPTED),
        (9, REFUSED),
        (10, REFUSED),
    ],
    "the first packet may be the last to come": [(W, ACCEPTED), (1, ACCEPTED), (1, REFUSED)],
    "one more step and the first is too old": [(W + 1, ACCEPTED), (1, REFUSED), (2, ACCEPTED)],
    "the left edge moves with the right": [
        (W, ACCEPTED),
        (W + 5, ACCEPTED),
        (5, REFUSED),
        (6, ACCEPTED),
        (6, REFUSED),
    ],
    "same place in the ring, one window on": [
        (7, ACCEPTED),
        (W + 7, ACCEPTED),
        (7, REFUSED),
        (W + 7, REFUSED),
        (2 * W + 7, ACCEPTED),
        (W + 7, REFUSED),
        (W + 8, ACCEPTED),
    ],
    "a jump over the whole window forgets nothing it must know": [
        (1, ACCEPTED),
        (2, ACCEPTED),
        (5 * W, ACCEPTED),
        (1, REFUSED),
        (2, REFUSED),
        (4 * W, REFUSED),
        (4 * W + 1, ACCEPTED),
        (5 * W - 1, ACCEPTED),
        (5 * W, REFUSED),
        (5 * W + 1, ACCEPTED),
        (4 * W + 1, REFUSED),
    ],
    "jumps that end on, before and behind a word of 64": [
        (63, ACCEPTED),
        (64, ACCEPTED),
        (65, ACCEPTED),
        (W + 63, ACCEPTED),
        (63, REFUSED),
        (64, REFUSED),
        (W + 64, ACCEPTED),
        (65, REFUSED),
        (66, ACCEPTED),
        (W + 63, REFUSED),
    ],
    "the end of the sequence space": [
        (LAST - W, ACCEPTED),
        (LAST, ACCEPTED),
        (LAST, REFUSED),
        (LAST - 1, ACCEPTED),
        (LAST - 1, REFUSED),
        (LAST - W, REFUSED),
        (LAST - W + 1, ACCEPTED),
        (1, REFUSED),
        (0, REFUSED),
    ],
}

BULK = {
    "forward": (range(1, 3 * W), W, 3 * W - 1),
    "backward": (range(W, 0, -1), 1, W),
    "forward in twos, then the others": ([*range(2, W + 1, 2), *range(1, W, 2)], 1, W),
    "forward in steps of a window": (range(W, 9 * W, W), 8 * W - W + 1, 8 * W),
    "each pair swapped": ([n + d for n in range(1, 4 * W, 2) for d in (1, 0)], 3 * W + 1, 4 * W),
}


def accept(window: ReplayWindow, seq: int) -> bool:
    if not window.check(seq):
        return False
    window.update(seq)
    return True


@pytest.mark.parametrize("name", CASES)
def test_cases(name: str) -> None:
    window = ReplayWindow(W)
    for number, (seq, expected) in enumerate(CASES[name], 1):
        assert accept(window, seq) is expected, f"case {number}: {seq}"


@pytest.mark.parametrize("name", BULK)
def test_bulk(name: str) -> None:
    """All of a run is accepted once; afterwards nothing of it, and nothing before the window."""
    window = ReplayWindow(W)
    run, oldest, highest = BULK[name]
    for seq in run:
        assert accept(window, seq), seq
    assert window.highest == highest
    taken = set(run)
    for seq in range(highest + 1):
        assert window.check(seq) is (seq >= oldest and seq > highest - W and seq not in taken), seq


def test_check_changes_nothing() -> None:
    window = ReplayWindow()
    for _ in range(3):
        assert window.check(LAST)
        assert window.check_batch(1, LAST)
    assert window.highest == 0
    assert accept(window, 1)


@pytest.mark.parametrize("size", [32, 64, 128, 1000, W, 8192])
def test_reordering_of_the_whole_window_is_accepted(size: int) -> None:
    window = ReplayWindow(size)
    window.update(10 * size)
    assert all(accept(window, 10 * size - late) for late in range(1, size))
    assert not accept(window, 10 * size - size)
    assert not any(accept(window, 10 * size - late) for late in range(size + 1))


@pytest.mark.parametrize("size", [32, 1000, W])
@pytest.mark.parametrize("start", [1, 5, 31, 32, 999, W, W + 1])
@pytest.mark.parametrize("count", [0, 1, 2, 44, W - 1, W, W + 1, 3 * W])
def test_a_batch_is_its_packets(size: int, start: int, count: int) -> None:
    batch, single = ReplayWindow(size), ReplayWindow(size)
    for window in (batch, single):
        for seq in range(1, start, 3):
            window.update(seq)
    if count:
        assert batch.check_batch(start, count)
    batch.update_batch(start, count)
    for seq in range(start, start + count):
        single.update(seq)
    assert batch.highest == single.highest
    for seq in range(start + count + 2):
        assert batch.check(seq) is single.check(seq), seq


def test_a_batch_that_touches_the_window_is_not_waved_through() -> None:
    window = ReplayWindow(W)
    window.update(100)
    assert not window.check_batch(100, 5)
    assert not window.check_batch(99, 5)
    assert not window.check_batch(101, 0)
    assert window.check_batch(101, 5)


@pytest.mark.parametrize("size", [0, -64, 31])
def test_size_is_checked(size: int) -> None:
    with pytest.raises(ValueError, match="window size"):
        ReplayWindow(size)
