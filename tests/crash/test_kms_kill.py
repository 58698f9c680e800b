"""kill -9 at random moments under load: no key twice, hardly one lost, and both sites agree again.

A child process delivers keys at one site, several requests in one transaction, and writes each to a
pipe as soon as it may be released. It is killed at any moment: while it opens and recovers the store,
commits, or makes a checkpoint. What it had but could not write any more is lost, which is allowed,
one key for each worker; what it wrote must never appear again.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from kms import ledger_store
from kms.key_id import parse_key_id
from kms.ledger import Ledger
from kms.reconcile import disagreements, reconcile, summarise
from kms.store_seal import SealFile
from topo.errors import QntnError

pytestmark = pytest.mark.crash
NOW = datetime(2024, 11, 29, 22, 40, tzinfo=UTC)
WORKERS = 4
Told = list[tuple[str, str, bytes]]


def deliver(path: Path, to_fetch: Sequence[str], pipe: int) -> None:
    """Each worker takes a key and fetches one, in one transaction; then the keys are released."""
    with Ledger(path) as ledger:
        os.write(pipe, b"open\n")
        names = iter(to_fetch)
        while True:
            with ledger.batch():
                keys = [
                    ("take", *ledger.take(f"m{worker}", "s", 256, 1, NOW)[0])
                    for worker in range(WORKERS)
                ]
                for wanted in islice(names, WORKERS):
                    master, _, name = wanted.partition("=")
                    keys.append(("fetch", *ledger.fetch(master, "s", [name], NOW)[0]))
            told = "".join(f"{what} {name} {key.hex()}\n" for what, name, key in keys)
            os.write(pipe, told.encode())


def killed(path: Path, to_fetch: Sequence[str], rng: Random) -> Told:
    """Run `deliver` in a child and kill it, mostly under load; the keys it has told of."""
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            deliver(path, to_fetch, sink)
        except QntnError as error:
            os.write(2, f"child: {error}\n".encode())
        finally:
            os._exit(1)  # it is to be killed, not to end
    os.close(sink)
    with os.fdopen(source, "rb") as pipe:
        if rng.random() < 0.8:
            assert pipe.readline() == b"open\n"
        time.sleep(rng.uniform(0.0, 0.04))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        lines = pipe.read().decode().splitlines(keepends=True)
    assert os.WIFSIGNALED(status), "the child ended by itself"
    words = [line.split() for line in lines if line.endswith("\n") and line != "open\n"]
    return [(what, name, bytes.fromhex(key)) for what, name, key in words]


def killed_at(path: Path, step: str) -> None:
    """A child takes two keys, makes a checkpoint and is killed at a step of its seal.

    That is before SQLite has put the log into the main file, after, or after the second key's commit.
    """
    begin = SealFile.checkpoint_begins

    def die(seal: SealFile, *_: int) -> None:
        if step == "checkpoint_begins":
            begin(seal)
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            with Ledger(path) as ledger:
                ledger.take("m", "s", 256, 1, NOW)
                setattr(SealFile, step, die)
                ledger.take("m", "s", 256, 1, NOW)
                ledger.stock.checkpoint()
        finally:
            os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("records", [10_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_k4_recovery_takes_under_two_seconds(tmp_path: Path, records: int) -> None:
    """Of processor time, so that it does not matter what else runs; a record is a key asked for by itself."""
    path = tmp_path / "u"
    with Ledger.create(path, "U") as ledger:
        ledger.add_block(1, Random(1).randbytes(64 * records + 1000), "", NOW)
        for _ in range(records // 1000):
            with ledger.batch():
                for _ in range(1000):
                    ledger.take("m", "s", 256, 1, NOW)
    for step, told in (("checkpoint_begins", 2), ("checkpoint_ended", 4), ("committed", 5)):
        killed_at(path, step)
        begin_s = time.process_time()
        with Ledger(path) as ledger:
            spent_s = time.process_time() - begin_s
            assert ledger.consumption().taken_keys == records + told
        print(f"{step}: {spent_s:.2f} s")
        assert spent_s < 2


@contextmanager
def used(path: Path) -> Iterator[tuple[int, int]]:
    with Ledger(path) as ledger:
        spent = ledger.consumption()
    yield spent.taken_keys, spent.fetched_keys


@pytest.mark.parametrize("rounds", [40, pytest.param(1000, marks=pytest.mark.long)])
def test_k4_killed_under_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int) -> None:
    monkeypatch.setattr(ledger_store, "_LOG_BYTES", 60_000)  # checkpoints every few transactions
    rng = Random(rounds)
    paths = tmp_path / "u", tmp_path / "n"
    block = rng.randbytes(200_000 + 4_000 * rounds)
    for path, site in zip(paths, ("U", "N"), strict=True):
        with Ledger.create(path, site) as ledger:
            ledger.add_block(5, block, "", NOW)

    issued: tuple[dict[str, bytes], ...] = ({}, {})
    owner: dict[str, str] = {}
    fetched: set[str] = set()
    known = [(0, 0), (0, 0)]
    lost_names: set[str] = set()
    for number in range(rounds):
        side = number % 2
        gone = fetched | lost_names
        open_names = [name for name in issued[1 - side] if name not in gone][: 50 * WORKERS]
        to_fetch = [f"{owner[name]}={name}" for name in open_names]
        told = killed(paths[side], to_fetch, rng)
        taken = [(name, key) for what, name, key in told if what == "take"]
        got = [(name, key) for what, name, key in told if what == "fetch"]

        assert not {name for name, _ in taken} & issued[side].keys(), "a key_ID issued twice"
        assert len({name for name, _ in taken}) == len(taken)
        for index, (name, key) in enumerate(taken):
            issued[side][name] = key
            owner[name] = f"m{index % WORKERS}"
        for name, key in got:
            assert name not in fetched, "a key fetched twice"
            assert key == issued[1 - side][name]
            fetched.add(name)

        with used(paths[side]) as now_used:
            lost = [now - before for now, before in zip(now_used, known[side], strict=True)]
            lost = [lost[0] - len(taken), lost[1] - len(got)]
        assert all(0 <= keys <= WORKERS for keys in lost), "more than one key lost by a worker"
        lost_names.update(open_names[len(got) : len(got) + lost[1]])
        known[side] = now_used

    places = set()
    for name, key in {**issued[0], **issued[1]}.items():
        at = parse_key_id(name).location
        assert key == block[at.offset_bytes : at.offset_bytes + 32]
        places.add((at.offset_bytes - 32) // 32 if name in issued[0] else -at.offset_bytes)
    assert len(places) == len(issued[0]) + len(issued[1]) > rounds

    with Ledger(paths[0]) as at_u, Ledger(paths[1]) as at_n:
        sites = at_u, at_n
        for _ in range(2):
            assert reconcile(at_n, summarise(at_u), NOW).alarms == ()
            assert reconcile(at_u, summarise(at_n), NOW).alarms == ()
        assert disagreements(summarise(at_u), summarise(at_n)) == []
        gone = fetched | lost_names
        for side in (0, 1):  # every key that was told of can be fetched, if it has not been
            for name, key in issued[side].items():
                if name not in gone:
                    again = sites[1 - side].fetch(owner[name], "s", [name], NOW)
                    assert again == [(name, key)]
