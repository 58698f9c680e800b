"""The ledger: every key once, both sites the same, all or nothing, one process, no remnants."""

from __future__ import annotations

import random
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kms.key_id import NAMING_AREA_BYTES, KeyLocation, derive_naming_key, format_key_id
from kms.ledger import MINIMUM_BLOCK_BYTES, Ledger
from kms.places import KeyNotFound, PoolExhausted
from topo.errors import LedgerError

NOW = datetime(2024, 11, 29, 22, 40, tzinfo=UTC)
Sites = tuple[Ledger, Ledger]


def load(sites: Sites, number: int, length: int) -> bytes:
    material = random.Random(number).randbytes(length)
    for ledger in sites:
        ledger.add_block(number, material, f"block {number}", NOW)
    return material


@pytest.fixture
def sites(tmp_path: Path) -> Sites:
    """A ledger at U and one at N, both empty."""
    return Ledger.create(tmp_path / "u.ledger", "U"), Ledger.create(tmp_path / "n.ledger", "N")


def test_every_key_once_and_the_same_at_both_sites(sites: Sites) -> None:
    site_u, site_n = sites
    material = load(sites, 7, NAMING_AREA_BYTES + 2 * 20 * 32)
    for _ in range(3):
        site_u.take("EG-U", "EG-N", 256, 5, NOW)
    taken = site_u.take("EG-U", "EG-N", 256, 5, NOW)
    back = site_n.take("EG-N", "EG-U", 256, 20, NOW)

    assert site_n.fetch("EG-U", "EG-N", [name for name, _ in taken], NOW) == taken
    assert site_u.fetch("EG-N", "EG-U", [name for name, _ in reversed(back)], NOW) == back[::-1]
    assert b"".join(key for _, key in taken) == material[32 + 15 * 32 : 32 + 20 * 32]
    assert b"".join(key for _, key in back) == material[32 + 20 * 32 :]
    for name, _ in taken:
        with pytest.raises(KeyNotFound):
            site_n.fetch("EG-U", "EG-N", [name], NOW)


def test_the_halves_of_an_odd_block_meet_without_a_gap(sites: Sites) -> None:
    material = load(sites, 0, 101)
    assert sites[0].take("a", "b", 8 * 34, 1, NOW)[0][1] == material[32:66]
    assert sites[1].take("b", "a", 8 * 35, 1, NOW)[0][1] == material[66:]


def test_exhaustion_consumes_nothing(sites: Sites) -> None:
    load(sites, 1, NAMING_AREA_BYTES + 2 * 100)
    site_u, _ = sites
    before = site_u.counts(), site_u.audit_trail()
    with pytest.raises(PoolExhausted):
        site_u.take("a", "b", 256, 4, NOW)
    assert (site_u.counts(), site_u.audit_trail()) == before
    assert site_u.stored_key_count(256) == 3
    assert len(site_u.take("a", "b", 256, 3, NOW)) == 3
    assert len(site_u.take("a", "b", 32, 1, NOW)) == 1  # the 4 bytes left over
    assert site_u.stored_key_count(8) == 0


def test_keys_come_from_the_oldest_block_and_span_none(sites: Sites) -> None:
    blocks = {number: load(sites, number, NAMING_AREA_BYTES + 2 * 40) for number in (9, 2)}
    assert sites[0].stored_key_count(256) == 2
    keys = [key for _, key in sites[0].take("a", "b", 256, 2, NOW)]
    assert keys == [blocks[2][32:64], blocks[9][32:64]]


def test_refused_fetch_leaves_the_known_keys(sites: Sites) -> None:
    load(sites, 1, 500)
    site_u, site_n = sites
    (first, second) = site_u.take("a", "b", 128, 2, NOW)
    unknown = "0b9b1f3c-55e3-4a6f-9f4e-3f8f3c8f1f10"
    for ids in ([first[0], unknown], [first[0], first[0]], [unknown]):
        with pytest.raises(KeyNotFound):
            site_n.fetch("a", "b", ids, NOW)
    assert site_n.fetch("a", "b", [second[0], first[0]], NOW) == [second, first]


@pytest.mark.parametrize("pair", [("a", "c"), ("c", "b"), ("b", "a"), ("a", "a"), ("ab", "")])
def test_a_key_id_is_bound_to_its_pair(sites: Sites, pair: tuple[str, str]) -> None:
    load(sites, 1, 500)
    [(name, key)] = sites[0].take("a", "b", 128, 1, NOW)
    with pytest.raises(KeyNotFound):
        sites[1].fetch(*pair, [name], NOW)
    assert sites[1].fetch("a", "b", [name.upper()], NOW) == [(name, key)]


def test_no_site_fetches_what_it_issued(sites: Sites) -> None:
    load(sites, 1, 500)
    [(name, _)] = sites[0].take("a", "b", 128, 1, NOW)
    with pytest.raises(KeyNotFound):
        sites[0].fetch("a", "b", [name], NOW)


def test_a_block_number_is_used_once(sites: Sites) -> None:
    load(sites, 3, 200)
    with pytest.raises(LedgerError, match="stored already"):
        sites[0].add_block(3, bytes(300), "again", NOW)
    for number, length in ((-1, 200), (65536, 200), (4, MINIMUM_BLOCK_BYTES - 1)):
        with pytest.raises(LedgerError):
            sites[0].add_block(number, bytes(length), "bad", NOW)
    assert sites[0].counts().blocks == 1


@pytest.mark.parametrize(("size_bits", "count"), [(0, 1), (12, 1), (32768, 1), (256, 0), (256, -1)])
def test_impossible_requests(sites: Sites, size_bits: int, count: int) -> None:
    load(sites, 3, 20_000)
    with pytest.raises(LedgerError):
        sites[0].take("a", "b", size_bits, count, NOW)


def test_reopening_forgets_nothing(sites: Sites) -> None:
    load(sites, 3, 1000)
    site_u, site_n = sites
    first = site_u.take("a", "b", 256, 2, NOW)
    counts = site_u.counts()
    site_u.close()
    with Ledger(site_u.path) as again:
        assert again.counts() == counts
        assert again.has_block(3)
        second = again.take("a", "b", 256, 2, NOW)
    assert not {name for name, _ in first} & {name for name, _ in second}
    assert site_n.fetch("a", "b", [name for name, _ in first + second], NOW) == first + second


def test_the_audit_trail_names_keys_and_holds_none(sites: Sites) -> None:
    load(sites, 3, 1000)
    [(name, key)] = sites[0].take("a", "b", 256, 1, NOW)
    trail = sites[0].audit_trail()
    assert [entry.event for entry in trail] == ["add_block", "take"]
    assert trail[1].at == NOW.isoformat()
    assert trail[1].detail == {"master": "a", "slave": "b", "key_IDs": [name]}
    assert key.hex() not in str(trail)


def test_one_process_per_store(sites: Sites) -> None:
    path = sites[0].path
    with pytest.raises(LedgerError, match="open in another process"):
        Ledger(path)
    code = f"from kms.ledger import Ledger; Ledger({str(path)!r})"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert other.returncode == 1
    assert "open in another process" in other.stderr
    sites[0].close()
    Ledger(path).close()


def test_files_that_are_no_ledger(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no database at all, " * 100)
    empty = tmp_path / "empty"
    empty.touch()
    for path in (text, empty, tmp_path / "missing", tmp_path):
        with pytest.raises(LedgerError):
            Ledger(path)
    with pytest.raises(LedgerError):
        Ledger.create(empty, "U")
    with pytest.raises(LedgerError):
        Ledger.create(tmp_path / "x", "Q")  # type: ignore[arg-type]


def test_only_the_owner_may_read_it(sites: Sites) -> None:
    assert stat.S_IMODE(sites[0].path.stat().st_mode) == 0o600


def test_threads_racing_for_the_same_keys(sites: Sites) -> None:
    """Of 8 threads that fetch the same 20 keys, and take fresh ones, each key has one winner."""
    load(sites, 3, 20_000)
    site_u, site_n = sites
    names = [name for name, _ in site_u.take("a", "b", 256, 20, NOW)]
    won: list[str] = []
    taken: list[str] = []
    start = threading.Barrier(8)

    def race() -> None:
        start.wait()
        for name in names:
            try:
                won.extend(got for got, _ in site_n.fetch("a", "b", [name], NOW))
            except KeyNotFound:
                taken.extend(got for got, _ in site_u.take("a", "b", 256, 1, NOW))

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == sorted(names)
    assert len(set(taken)) == len(taken) == 7 * 20


@pytest.mark.parametrize(
    ("offset_bytes", "size_bytes"),
    [
        pytest.param(32, 16, id="in the fetching site's own half"),
        pytest.param(0, 16, id="in the naming area"),
        pytest.param(258, 16, id="across the middle"),
        pytest.param(490, 16, id="past the end"),
        pytest.param(500, 16, id="behind the end"),
    ],
)
def test_even_a_holder_of_the_block_names_only_his_half(
    sites: Sites, offset_bytes: int, size_bytes: int
) -> None:
    """The naming key makes no key_ID that lets one site fetch what the other may still take."""
    naming_key = derive_naming_key(load(sites, 1, 500)[:NAMING_AREA_BYTES])
    bad = format_key_id(KeyLocation(1, offset_bytes, size_bytes), "b", "a", naming_key)
    with pytest.raises(KeyNotFound):
        sites[0].fetch("b", "a", [bad], NOW)
    good = format_key_id(KeyLocation(1, 266, 234), "b", "a", naming_key)
    assert len(sites[0].fetch("b", "a", [good], NOW)[0][1]) == 234
