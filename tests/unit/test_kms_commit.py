"""Group commit: nothing is answered before its transaction is durable, and one serves many."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kms.commit import GroupCommit
from topo.errors import LedgerError


class Log:
    """A transaction that writes down when it begins and ends."""

    def __init__(self, fails: bool = False) -> None:
        self.lines: list[str] = []
        self.fails = fails

    @contextmanager
    def batch(self) -> Iterator[None]:
        self.lines.append("begin")
        yield
        if self.fails:
            raise LedgerError("disk full")
        self.lines.append("commit")


async def ask(commits: GroupCommit[int], log: Log, number: int) -> int:
    def call() -> int:
        log.lines.append(f"call {number}")
        return number

    result = await commits.run(call)
    log.lines.append(f"answer {number}")
    return result


def test_waiting_calls_share_one_commit_and_are_answered_after_it() -> None:
    log = Log()
    commits: GroupCommit[int] = GroupCommit(log.batch)

    async def many() -> list[int]:
        return await asyncio.gather(*(ask(commits, log, number) for number in range(3)))

    assert asyncio.run(many()) == [0, 1, 2]
    calls, answers = [f"call {n}" for n in range(3)], [f"answer {n}" for n in range(3)]
    assert log.lines == ["begin", *calls, "commit", *answers]
    assert (commits.counters.groups, commits.counters.calls) == (1, 3)


def test_calls_of_different_rounds_have_commits_of_their_own() -> None:
    log = Log()
    commits: GroupCommit[int] = GroupCommit(log.batch)

    async def one_after_the_other() -> list[int]:
        return [await ask(commits, log, number) for number in range(2)]

    assert asyncio.run(one_after_the_other()) == [0, 1]
    one, two = (["begin", f"call {n}", "commit", f"answer {n}"] for n in range(2))
    assert log.lines == one + two


def test_a_failed_commit_fails_all_of_its_group() -> None:
    log = Log(fails=True)
    commits: GroupCommit[int] = GroupCommit(log.batch)

    async def many() -> list[object]:
        asked = (ask(commits, log, number) for number in range(3))
        return list(await asyncio.gather(*asked, return_exceptions=True))

    assert [type(found) for found in asyncio.run(many())] == [LedgerError] * 3
    assert not [line for line in log.lines if line.startswith("answer")]


def test_who_has_gone_costs_nothing() -> None:
    log = Log()
    commits: GroupCommit[int] = GroupCommit(log.batch)

    async def gone_and_here() -> int:
        gone = asyncio.create_task(ask(commits, log, 1))
        here = asyncio.create_task(ask(commits, log, 2))
        asyncio.get_running_loop().call_soon(gone.cancel)
        return await here

    assert asyncio.run(gone_and_here()) == 2
    assert "call 1" not in log.lines


def test_a_fault_of_the_program_leaves_nobody_waiting() -> None:
    log = Log()
    commits: GroupCommit[int] = GroupCommit(log.batch)
    faults: list[str] = []

    async def fault() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: faults.append(repr(context["exception"]))
        )
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(commits.run(lambda: 1 // 0), 5)

    asyncio.run(fault())
    assert faults == ["ZeroDivisionError('integer division or modulo by zero')"]
