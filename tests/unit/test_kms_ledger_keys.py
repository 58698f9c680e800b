"""Many keys: each issued once, fetched by one of many, and gone from every file afterwards."""

from __future__ import annotations

import base64
import threading
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import NoReturn

import pytest

from kms.blocks import Block, BlockKeys
from kms.key_id import parse_key_id
from kms.ledger import Ledger
from kms.places import KeyNotFound, PoolExhausted
from kms.reconcile import reconcile, summarise
from topo.errors import LedgerError

NOW = datetime(2024, 11, 29, 22, 40, tzinfo=UTC)
PAIRS = 32


@pytest.mark.parametrize("keys", [10_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_k1_no_key_twice_over_32_pairs(tmp_path: Path, keys: int) -> None:
    """Threads take keys of several sizes for 32 pairs: no key_ID twice, no byte in two keys."""
    size_bytes = (16, 32, 44)
    blocks = {number: Random(number).randbytes(keys * 17 + 10_000) for number in (1, 2, 3, 4)}
    taken: list[list[tuple[str, bytes]]] = [[] for _ in range(PAIRS)]
    with Ledger.create(tmp_path / "u", "U") as ledger:
        for number, material in blocks.items():
            ledger.add_block(number, material, "", NOW)

        def take(thread: int) -> None:
            rng, left = Random(thread), keys // 4
            while left:
                with ledger.batch():
                    for pair in range(thread, PAIRS, 4):
                        size, count = 8 * rng.choice(size_bytes), min(left, rng.randint(1, 8))
                        if count:
                            taken[pair] += ledger.take(f"m{pair}", f"s{pair}", size, count, NOW)
                            left -= count

        threads = [threading.Thread(target=take, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ledger.consumption().taken_keys == keys

    everything = [key for pair in taken for key in pair]
    assert len({name for name, _ in everything}) == len(everything) == keys
    end: dict[int, int] = {}
    places = sorted(
        (at.block_number, at.offset_bytes, at.size_bytes, key)
        for at, key in ((parse_key_id(name).location, key) for name, key in everything)
    )
    for number, offset, size, key in places:
        assert offset >= end.get(number, 32), "two keys overlap"
        assert key == blocks[number][offset : offset + size]
        end[number] = offset + size


@pytest.mark.parametrize("keys", [100, pytest.param(10_000, marks=pytest.mark.long)])
def test_k2_exactly_one_of_64_threads_gets_a_key(tmp_path: Path, keys: int) -> None:
    with Ledger.create(tmp_path / "u", "U") as at_u, Ledger.create(tmp_path / "n", "N") as at_n:
        for ledger in (at_u, at_n):
            ledger.add_block(1, Random(2).randbytes(keys * 32 + 1000), "", NOW)
            ledger.add_block(2, Random(3).randbytes(keys * 32 + 1000), "", NOW)
        issued = at_u.take("a", "b", 256, keys, NOW)
        won: list[tuple[str, bytes]] = []
        refused = [0] * 64
        start = threading.Barrier(64)

        def race(thread: int) -> None:
            start.wait()
            for name, _ in issued:
                try:
                    won.extend(at_n.fetch("a", "b", [name], NOW))
                except KeyNotFound:
                    refused[thread] += 1

        threads = [threading.Thread(target=race, args=(number,)) for number in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(won) == sorted(issued)
    assert sum(refused) == 63 * keys


def traces(material: bytes) -> list[bytes]:
    """How a key may be spelt in a file."""
    standard, url = base64.b64encode(material), base64.urlsafe_b64encode(material)
    plain = material.hex().encode()
    return [material, plain, plain.upper(), standard.rstrip(b"="), url.rstrip(b"=")]


def test_k9_no_key_is_in_any_file(tmp_path: Path) -> None:
    """100 keys fetched at both sites; database, log, seal and the trail, open and closed."""
    material = Random(9).randbytes(20_000)
    with Ledger.create(tmp_path / "u", "U") as at_u, Ledger.create(tmp_path / "n", "N") as at_n:
        for ledger in (at_u, at_n):
            ledger.add_block(1, material, "", NOW)
        keys = at_u.take("a", "b", 256, 100, NOW)
        at_n.fetch("a", "b", [name for name, _ in keys], NOW)
        at_u.take("a", "b", 256, 3, NOW)

        def found() -> list[str]:
            files = {file: file.read_bytes() for file in tmp_path.iterdir()}
            assert sum(content.startswith(b"SQLite") for content in files.values()) == 2
            return [
                f"{name} in {file.name}"
                for name, key in keys
                for trace in traces(key)
                for file, content in files.items()
                if trace in content
            ]

        assert {file.suffix for file in tmp_path.iterdir()} >= {"", ".seal", ".key"}
        assert (tmp_path / "u-wal").stat().st_size > 0
        assert found() == []
    assert found() == []
    assert keys[0][0].encode() in (tmp_path / "u").read_bytes()  # the search does find key_IDs


def test_delivered_bytes_are_out_of_reach_of_the_secret(tmp_path: Path) -> None:
    """Whoever gets all files and the secret later finds zeros where delivered bytes were."""
    material = Random(9).randbytes(20_000)
    ledger = Ledger.create(tmp_path / "u", "U")
    ledger.add_block(1, material, "", NOW)
    ledger.take("a", "b", 256, 200, NOW)
    ledger.close()
    with Ledger(tmp_path / "u") as ledger:
        chunks = [row[0] for row in ledger.stock._store.db.execute("SELECT id FROM chunks")]
        stored = {chunk % 2**24: bytes(ledger.stock._open(chunk)) for chunk in chunks}
    gone = range(32, 32 + 200 * 32)
    assert 0 not in stored  # the first chunk went as a whole
    first = 1 * 3968
    assert stored[1][: gone.stop - first] == bytes(gone.stop - first)
    assert stored[1][gone.stop - first :] == material[gone.stop : first + 3968]


def test_no_old_page_is_left_after_a_checkpoint(tmp_path: Path) -> None:
    """A chunk's former seal, with its erasable seed, is overwritten and not merely unlinked."""
    ledger = Ledger.create(tmp_path / "u", "U")
    ledger.add_block(1, Random(9).randbytes(20_000), "", NOW)
    ledger.stock.checkpoint()
    rows = ledger.stock._store.db.execute("SELECT id, sealed FROM chunks").fetchall()
    before = dict(rows)
    ledger.take("a", "b", 256, 200, NOW)
    ledger.stock.checkpoint()
    files = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    base = 1 << 24
    assert before[base][:32] not in files
    assert before[base + 1][:32] not in files
    assert before[base + 1][-64:] not in files
    assert before[base + 3][:32] in files  # an unused one is still there
    ledger.close()


def test_exhaustion_and_the_next_pass(tmp_path: Path) -> None:
    """Both sites run dry and are filled again; summaries pass in between."""
    with Ledger.create(tmp_path / "u", "U") as at_u, Ledger.create(tmp_path / "n", "N") as at_n:
        for number in range(3):
            for ledger in (at_u, at_n):
                ledger.add_block(number, Random(number).randbytes(32 + 2 * 320), "", NOW)
            keys = at_u.take("a", "b", 256, 10, NOW)
            with pytest.raises(PoolExhausted):
                at_u.take("a", "b", 256, 1, NOW)
            assert at_u.stored_key_count(256) == 0
            assert at_n.fetch("a", "b", [name for name, _ in keys], NOW) == keys
            reconcile(at_n, summarise(at_u), NOW)
            reconcile(at_u, summarise(at_n), NOW)
        assert at_u.level("own").destroyed_bytes == at_u.level("own").total_bytes


def test_the_same_bytes_are_not_stored_as_another_block(tmp_path: Path) -> None:
    """Nor those of a block that is gone, nor a shorter or longer copy."""
    material = Random(4).randbytes(1000)
    ledger = Ledger.create(tmp_path / "u", "U")
    ledger.add_block(9, material, "", NOW)
    ledger.destroy_block(9, "withdrawn", NOW)
    ledger.close()
    with Ledger(tmp_path / "u") as again:
        for copy in (material, material[:500], material + bytes(10)):
            with pytest.raises(LedgerError, match="block 10: its bytes came before, as block 9"):
                again.add_block(10, copy, "", NOW)
        assert not again.has_block(10)
        again.add_block(10, material[1:], "", NOW)


def test_a_key_is_found_among_many_pending_without_looking_at_them() -> None:
    class Counted(dict[int, tuple[int, frozenset[str]]]):
        looks = 0

        def __getitem__(self, key: int) -> tuple[int, frozenset[str]]:
            self.looks += 1
            return super().__getitem__(key)

        def items(self) -> NoReturn:
            raise AssertionError("walks through all of them")

    material, rng = Random(1).randbytes(100_000), Random(2)
    keys = BlockKeys.derive(material)
    block = Block("U", 1, "", len(material), NOW, None, keys.digest(material), keys)
    block.pending = Counted()
    at = block.peer.span.start
    while at < block.peer.span.stop - 100:
        at += rng.choice((0, 0, 7, 32))
        length = rng.choice((8, 32, 60))
        block.set_pending(at, length, frozenset("b"))
        at += length
    places = {at: length for at, (length, _) in dict.items(block.pending)}
    for _ in range(200):
        start = rng.randrange(block.peer.span.start, block.peer.span.stop - 200)
        stop = start + rng.randint(1, 200)
        block.pending.looks = 0
        found = block.pending_within(start, stop)
        assert sorted(found) == [
            at for at, length in places.items() if at < stop and at + length > start
        ]
        assert block.pending.looks <= len(found) + 1
