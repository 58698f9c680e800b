"""kill -9 in the middle of deliveries: after a restart no key is delivered a second time.

The worker is a process that writes each delivered key to a pipe as soon as it has it. What it got
but could not write any more is lost, which is allowed; what it wrote must never appear again.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from kms.key_id import parse_key_id
from kms.ledger import KeyNotFound, Ledger

pytestmark = pytest.mark.crash
NOW = datetime(2024, 11, 29, 22, 40, tzinfo=UTC)
BATCH = 3

_TAKE = """
import sys
from datetime import UTC, datetime
from kms.ledger import Ledger, PoolExhausted
ledger = Ledger(sys.argv[1])
print("OPEN", flush=True)
while True:
    keys = ledger.take("a", "b", 256, 3, datetime.now(UTC))
    print(*(f"{name}={key.hex()}" for name, key in keys), flush=True)
"""

_FETCH = """
import sys
from datetime import UTC, datetime
from kms.ledger import Ledger
ledger = Ledger(sys.argv[1])
print("OPEN", flush=True)
for line in sys.stdin:
    keys = ledger.fetch("a", "b", line.split(), datetime.now(UTC))
    print(*(f"{name}={key.hex()}" for name, key in keys), flush=True)
"""


def killed_after(code: str, path: Path, lines: int, asks: str = "") -> dict[str, bytes]:
    """Run a worker, kill it at some moment after its `lines`-th line; the keys it has told of."""
    worker = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(asks)
    worker.stdin.flush()
    told = [worker.stdout.readline() for _ in range(lines + 1)]
    worker.kill()
    told += worker.communicate()[0].splitlines(keepends=True)
    assert told[0] == "OPEN\n"
    whole = [line for line in told[1:] if line.endswith("\n")]
    pairs = [word.split("=") for line in whole for word in line.split()]
    return {name: bytes.fromhex(key) for name, key in pairs}


@pytest.mark.parametrize("rounds", [20, pytest.param(1000, marks=pytest.mark.long)])
def test_no_key_is_taken_twice(tmp_path: Path, rounds: int) -> None:
    path, rng = tmp_path / "u", Random(1)
    blocks = {number: rng.randbytes(60_000) for number in range(1 + rounds // 4)}
    with Ledger.create(path, "U") as ledger:
        for number, material in blocks.items():
            ledger.add_block(number, material, "", NOW)

    seen: dict[str, bytes] = {}
    for _ in range(rounds):
        told = killed_after(_TAKE, path, lines=rng.randint(0, 25))
        assert not told.keys() & seen.keys()
        seen |= told
        with Ledger(path) as ledger:  # recovers, and is whole
            counts = ledger.counts()
            assert len(ledger.audit_trail()) == len(blocks) + (
                (counts.own_bytes - counts.own_free_bytes) // 32 // BATCH
            )
    assert len(seen) > 5 * rounds

    places: set[tuple[int, int]] = set()
    for name, key in seen.items():
        at = parse_key_id(name).location
        assert key == blocks[at.block_number][at.offset_bytes : at.offset_bytes + 32]
        assert at.offset_bytes % 32 == 0  # keys of one size lie on a grid: distinct means disjoint
        places.add((at.block_number, at.offset_bytes))
    assert len(places) == len(seen)


@pytest.mark.parametrize("rounds", [20, pytest.param(1000, marks=pytest.mark.long)])
def test_no_key_is_fetched_twice(tmp_path: Path, rounds: int) -> None:
    rng = Random(2)
    with Ledger.create(tmp_path / "u", "U") as at_u:
        Ledger.create(tmp_path / "n", "N").close()
        for number in range(1 + rounds // 10):
            block = rng.randbytes(60_000)
            at_u.add_block(number, block, "", NOW)
            with Ledger(tmp_path / "n") as at_n:
                at_n.add_block(number, block, "", NOW)

        for _ in range(rounds):
            issued = dict(at_u.take("a", "b", 256, 60, NOW))
            names = list(issued)
            asks = "".join(" ".join(names[i : i + BATCH]) + "\n" for i in range(0, 60, BATCH))
            told = killed_after(_FETCH, tmp_path / "n", lines=rng.randint(0, 15), asks=asks)
            assert told.items() <= issued.items()
            with Ledger(tmp_path / "n") as at_n:
                for start in range(0, 60, BATCH):
                    batch = names[start : start + BATCH]
                    try:
                        keys = at_n.fetch("a", "b", batch, NOW)
                    except KeyNotFound:
                        for name in batch:  # a batch went as a whole or stayed as a whole
                            with pytest.raises(KeyNotFound):
                                at_n.fetch("a", "b", [name], NOW)
                    else:
                        assert not told.keys() & set(batch)
                        assert keys == [(name, issued[name]) for name in batch]
