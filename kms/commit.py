"""Group commit: what waits for the ledger at the same time shares one transaction and one fsync.

A durable commit costs the disk a fixed time, whatever is in it. All requests whose turn comes in
the same round of the event loop make up one group; while it commits, the next ones queue up in the
sockets. No call's result is seen by anybody before the group's commit has succeeded; if it fails,
all of the group have failed, and the ledger is as it was.

The commit holds up the event loop, on purpose: in a thread of its own, SQLite would have to win
back the interpreter's lock from a busy loop after each statement, which made it ten times slower.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, TypeVar

from topo.errors import QntnError

Result = TypeVar("Result")
_QUIET_ROUNDS = 4
"""Rounds of the event loop from a request's bytes to its call here, at most."""
_GATHER_S = 0.003
"""The longest that a call waits for others."""


@dataclass
class CommitCounters:
    """How many groups there were, and how many calls in them."""

    groups: int = 0
    calls: int = 0


class GroupCommit(Generic[Result]):
    """`batch` opens a transaction: it commits at the end of its `with`, or raises a `QntnError`.

    Of one event loop; no task, no thread, no polling.
    """

    def __init__(self, batch: Callable[[], AbstractContextManager[object]]) -> None:
        self.counters = CommitCounters()
        self._batch = batch
        self._waiting: list[tuple[Callable[[], Result], asyncio.Future[Result]]] = []

    async def run(self, call: Callable[[], Result]) -> Result:
        """The call's result, once it is committed. A call that raises spoils its whole group."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((call, future))
        if len(self._waiting) == 1:
            loop.call_soon(self._gather, 1, 0, loop.time() + _GATHER_S)
        return await future

    def _gather(self, known: int, quiet: int, end_s: float) -> None:
        """Once a round of the loop: commit when some rounds have brought nobody more."""
        loop = asyncio.get_running_loop()
        quiet = 0 if len(self._waiting) > known else quiet + 1
        if quiet < _QUIET_ROUNDS and loop.time() < end_s:
            loop.call_soon(self._gather, len(self._waiting), quiet, end_s)
        else:
            self._commit()

    def _commit(self) -> None:
        group = [(call, future) for call, future in self._waiting if not future.done()]
        self._waiting = []
        self.counters.groups += 1
        self.counters.calls += len(group)
        try:
            with self._batch():
                results = [call() for call, _ in group]
        except QntnError as error:
            for _, future in group:
                future.set_exception(error)
        else:
            for (_, future), result in zip(group, results, strict=True):
                future.set_result(result)
        finally:
            for _, future in group:  # a call failed in a way that nobody foresaw: the loop logs it
                future.cancel()
