"""Wall-clock time that does not jump: set once, then driven by a clock that only goes forward."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


class SteadyClock:
    """The time of day as read at the start, plus what a monotonic clock has counted since.

    Somebody who sets the machine's clock a day back or forth makes no key live longer or expire
    early while a process runs; `wall` is looked at again by the next one. Certificates are checked
    by the wall clock all the same.
    """

    def __init__(
        self,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._monotonic_ns = monotonic_ns
        self._start, self._start_ns = wall(), monotonic_ns()

    def __call__(self) -> datetime:
        elapsed_ns = self._monotonic_ns() - self._start_ns
        return self._start + timedelta(microseconds=elapsed_ns // 1000)
