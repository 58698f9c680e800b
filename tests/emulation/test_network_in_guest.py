"""Networks in a guest: queues as asked for, teardown of nothing but one's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.emulation.conftest import GuestRun

pytestmark = pytest.mark.emulation


def test_netem_is_what_was_asked_for_whatever_was_there_before(
    in_guest: Callable[..., GuestRun],
) -> None:
    done = in_guest("netem.py")
    assert done.status == 0, done.errors
    assert done.lines[:4] == ["replaced True"] * 4
    assert done.lines[4] == "foreign netem holds what was never asked for: jitter"
    assert done.lines[5] == "cleaned True"
    assert done.lines[6] == "received 4000 True"


def test_a_network_takes_down_what_it_made_and_nothing_else(
    in_guest: Callable[..., GuestRun],
) -> None:
    done = in_guest("teardown.py")
    assert done.status == 0, done.errors
    assert done.lines == [
        "hosts 11",
        "same True {}",
        "ended True True",
        "after an error True",
        "after kill -9 True",
    ]
