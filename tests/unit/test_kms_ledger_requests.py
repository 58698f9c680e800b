"""What else a ledger is asked: several slaves, pads, whole blocks, expiry, batches, levels."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from kms.key_id import NAMING_AREA_BYTES, KeyLocation, derive_naming_key, format_key_id
from kms.ledger import Ledger
from kms.places import KeyNotFound, PoolExhausted
from kms.pools import Consumption, PoolLevel
from kms.steady_clock import SteadyClock
from topo.errors import LedgerError

NOW = datetime(2024, 11, 29, 22, 40, tzinfo=UTC)
DAY = timedelta(days=1)
Sites = tuple[Ledger, Ledger]


def load(sites: Sites, number: int, length: int, now: datetime = NOW, days: int = 0) -> bytes:
    material = Random(number).randbytes(length)
    for ledger in sites:
        ledger.add_block(number, material, "", now, now + days * DAY if days else None)
    return material


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[Sites]:
    with Ledger.create(tmp_path / "u", "U") as at_u, Ledger.create(tmp_path / "n", "N") as at_n:
        yield at_u, at_n


def reopened(ledger: Ledger) -> Ledger:
    ledger.close()
    return Ledger(ledger.path)


# Several slaves


def test_each_slave_fetches_a_shared_key_once(sites: Sites) -> None:
    site_u, site_n = sites
    load(sites, 1, 4000)
    keys = site_u.take("m", ["x", "y", "z"], 256, 4, NOW)
    names = [name for name, _ in keys]
    everybody = ("w", "x", "y", "z")
    for number, slave in enumerate(("y", "x", "z")):
        assert site_n.level("peer").reserved_bytes == (4 * 32 if number else 0)
        assert site_n.fetch("m", slave, names, NOW, others=everybody) == keys
        for again in ("w", *("y", "x", "z")[: number + 1]):
            with pytest.raises(KeyNotFound):
                site_n.fetch("m", again, names[:1], NOW, others=everybody)
    assert site_n.level("peer").delivered_bytes == 4 * 32
    spent = site_n.consumption()
    assert (spent.fetched_keys, spent.fetched_bytes) == (12, 4 * 32)


def test_who_waits_is_remembered(sites: Sites) -> None:
    site_u, site_n = sites
    load(sites, 1, 4000)
    [(name, key)] = site_u.take("m", ["x", "y"], 256, 1, NOW)
    site_n.fetch("m", "x", [name], NOW, others=["y"])
    with reopened(site_n) as again:
        with pytest.raises(KeyNotFound):
            again.fetch("m", "x", [name], NOW, others=["y"])
        assert again.fetch("m", "y", [name], NOW, others=["x"]) == [(name, key)]


def test_recipients_of_a_key(sites: Sites) -> None:
    site_u, site_n = sites
    load(sites, 1, 4000)
    [(name, _)] = site_u.take("m", ["x", "y"], 256, 1, NOW)
    for ledger in sites:
        assert ledger.recipients(name, "m", ["w", "x", "y", "z"]) == {"x", "y"}
        assert ledger.recipients(name.upper(), "m", ["w", "x", "y", "z"]) == {"x", "y"}
        assert ledger.recipients(name, "m", ["x", "w"]) == frozenset()
        assert ledger.recipients(name, "m", ["x", "y"], most=1) == frozenset()
        assert ledger.recipients(name, "x", ["m", "x", "y"]) == frozenset()
        assert ledger.recipients("0b9b1f3c-55e3-4a6f-9f4e-3f8f3c8f1f10", "m", ["x"]) == frozenset()
    with pytest.raises(KeyNotFound):  # x alone is not whom it was issued for
        site_n.fetch("m", "x", [name], NOW)


@pytest.mark.parametrize(("offset_bytes", "size_bytes"), [(32, 16), (48, 16), (40, 64), (32, 48)])
def test_no_key_reaches_into_one_that_others_wait_for(
    sites: Sites, offset_bytes: int, size_bytes: int
) -> None:
    """Not even a holder of the block, who can make such a key_ID, gets bytes of it."""
    site_u, site_n = sites
    area = load(sites, 1, 4000)[:NAMING_AREA_BYTES]
    [(name, key)] = site_u.take("m", ["x", "y"], 256, 1, NOW)
    site_n.fetch("m", "x", [name], NOW, others=["y"])
    place = KeyLocation(1, offset_bytes, size_bytes)
    bad = format_key_id(place, "m", "x", derive_naming_key(area))
    with pytest.raises(KeyNotFound):
        site_n.fetch("m", "x", [bad], NOW)
    assert site_n.fetch("m", "y", [name], NOW, others=["x"]) == [(name, key)]


@pytest.mark.parametrize("slaves", [[], [str(number) for number in range(9)]])
def test_impossible_numbers_of_slaves(sites: Sites, slaves: list[str]) -> None:
    load(sites, 1, 4000)
    with pytest.raises(LedgerError, match="slaves"):
        sites[0].take("m", slaves, 256, 1, NOW)


# Pads and whole blocks


def test_a_pad_is_the_same_at_both_sites_once(sites: Sites) -> None:
    site_u, site_n = sites
    blocks = {number: load(sites, number, NAMING_AREA_BYTES + 2 * 5000) for number in (1, 2)}
    pads = site_u.take_pad(7000, "relay", NOW)
    assert [pad.place for pad in pads] == [(1, 32, 5000), (2, 32, 2000)]
    pad = b"".join(piece.material for piece in pads)
    assert pad == blocks[1][32:5032] + blocks[2][32:2032]
    places = [piece.place for piece in pads]
    for bad in (
        [*places, (2, 2000, 100)],
        [(2, 5032, 1)],
        [(2, 31, 2)],
        [(9, 32, 1)],
        [(2, 40, 0)],
    ):
        with pytest.raises(KeyNotFound):
            site_n.fetch_pad(bad, "relay", NOW)
    assert site_n.fetch_pad(places, "relay", NOW) == pad
    with pytest.raises(KeyNotFound):
        site_n.fetch_pad(places[:1], "relay", NOW)
    assert site_u.consumption().pad_bytes == site_n.consumption().pad_bytes == 7000
    assert site_u.take("a", "b", 256, 1, NOW)[0][1] == blocks[2][2032:2064]
    with pytest.raises(PoolExhausted, match="40 missing"):
        site_u.take_pad(site_u.level("own").free_bytes + 40, "relay", NOW)
    with pytest.raises(LedgerError):
        site_u.take_pad(0, "relay", NOW)


def test_destroying_a_block_leaves_nothing(sites: Sites) -> None:
    site_u, site_n = sites
    load(sites, 1, 9000)
    keys = site_u.take("m", ["x", "y"], 256, 2, NOW)
    site_n.fetch("m", "x", [keys[0][0]], NOW, others=["y"])
    assert site_n.destroy_block(1, "test", NOW) == 9000 - 32
    assert site_n.destroy_block(1, "test", NOW) == 0
    for name, _ in keys:
        with pytest.raises(KeyNotFound):
            site_n.fetch("m", "y", [name], NOW, others=["x"])
    with reopened(site_n) as again:
        assert again.level("peer").destroyed_bytes == again.level("peer").total_bytes
        assert again.stock._store.db.execute("SELECT count(*) FROM chunks").fetchone() == (0,)
    with pytest.raises(LedgerError, match="not in store"):
        site_u.destroy_block(2, "test", NOW)


# Time


def test_expiry_destroys_what_is_left(sites: Sites) -> None:
    site_u, site_n = sites
    load(sites, 1, 4032, days=1)
    load(sites, 2, 4032, days=2)
    load(sites, 3, 4032)
    [(name, _)] = site_u.take("a", "b", 256, 1, NOW)
    assert site_u.expire(NOW + DAY - timedelta(microseconds=1)) == 0
    assert site_u.expire(NOW + DAY) == 4000 - 32
    assert site_u.expire(NOW + DAY) == 0
    assert site_n.expire(NOW + 3 * DAY) == 8000
    with pytest.raises(KeyNotFound):
        site_n.fetch("a", "b", [name], NOW)
    assert site_n.consumption().destroyed_bytes == 8000
    assert site_u.recipients(name, "a", ["b"]) == {"b"}


@pytest.mark.parametrize("jump", [-DAY, DAY, -400 * DAY])
def test_k18_a_clock_that_jumps_issues_nothing_again(sites: Sites, jump: timedelta) -> None:
    site_u, site_n = sites
    load(sites, 1, 100_000, days=1)
    before = site_u.take("a", "b", 256, 5, NOW)
    site_n.fetch("a", "b", [name for name, _ in before], NOW)
    for ledger in sites:
        ledger.expire(NOW + jump)
    with reopened(site_u) as again:
        left = 0 if jump > timedelta(0) else 5
        if left:
            after = again.take("a", "b", 256, left, NOW + jump)
            assert not {key for _, key in before} & {key for _, key in after}
        else:
            with pytest.raises(PoolExhausted):
                again.take("a", "b", 8, 1, NOW)
    for name, _ in before:
        with pytest.raises(KeyNotFound):
            site_n.fetch("a", "b", [name], NOW + jump)


def test_the_steady_clock_follows_no_jump() -> None:
    wall, elapsed_ns = [NOW], [5]
    clock = SteadyClock(lambda: wall[0], lambda: elapsed_ns[0])
    wall[0] += DAY
    assert clock() == NOW
    elapsed_ns[0] += 3 * 10**9
    assert clock() == NOW + timedelta(seconds=3)
    assert SteadyClock(lambda: wall[0], lambda: elapsed_ns[0])() == NOW + DAY


def test_only_keys_as_fresh_as_asked(sites: Sites) -> None:
    site_u, _ = sites
    load(sites, 1, 4032)
    fresh = load(sites, 2, 4032, now=NOW + DAY)
    [(_, key)] = site_u.take("a", "b", 256, 1, NOW + DAY, added_after=NOW + DAY)
    assert key == fresh[32:64]
    with pytest.raises(PoolExhausted):
        site_u.take("a", "b", 256, 1, NOW + DAY, added_after=NOW + 2 * DAY)
    with reopened(site_u) as again:  # when a block came is remembered
        [(_, key)] = again.take("a", "b", 256, 1, NOW + DAY, added_after=NOW + timedelta(hours=1))
        assert key == fresh[64:96]


# Batches


def test_requests_of_a_batch_are_refused_one_by_one(sites: Sites) -> None:
    site_u, site_n = sites
    load(sites, 1, NAMING_AREA_BYTES + 2 * 100)
    transactions = site_u.stock.state.version
    with site_u.batch():
        first = site_u.take("a", "b", 256, 2, NOW)
        with pytest.raises(PoolExhausted):
            site_u.take("a", "b", 256, 2, NOW)
        with pytest.raises(KeyNotFound):
            site_u.fetch("a", "b", [first[0][0]], NOW)
        second = site_u.take("a", "b", 256, 1, NOW)
    assert site_u.stock.state.version == transactions + 1
    names = [name for name, _ in first + second]
    with site_n.batch():
        assert site_n.fetch("a", "b", names[:1], NOW) == first[:1]
        with pytest.raises(KeyNotFound):
            site_n.fetch("a", "b", names, NOW)
        assert site_n.fetch("a", "b", names[1:], NOW) == [*first[1:], *second]


def test_a_failed_batch_was_none(sites: Sites) -> None:
    site_u, _ = sites
    load(sites, 1, 9000)
    site_u.take("a", "b", 256, 3, NOW)
    before = site_u.counts(), site_u.consumption(), site_u.audit_trail()
    with pytest.raises(ZeroDivisionError), site_u.batch():
        gone = site_u.take("a", "b", 256, 3, NOW)
        site_u.add_block(2, bytes(5000), "", NOW)
        raise ZeroDivisionError
    assert (site_u.counts(), site_u.consumption(), site_u.audit_trail()) == before
    assert not site_u.has_block(2)
    assert site_u.take("a", "b", 256, 3, NOW) == gone  # nobody had them


def test_a_batch_without_effect_writes_nothing(sites: Sites) -> None:
    site_u, _ = sites
    files = [file.read_bytes() for file in sorted(site_u.path.parent.glob("u*"))]
    with site_u.batch(), pytest.raises(PoolExhausted):
        site_u.take("a", "b", 256, 1, NOW)
    assert [file.read_bytes() for file in sorted(site_u.path.parent.glob("u*"))] == files


# Levels


def test_levels_and_consumption(sites: Sites) -> None:
    site_u, site_n = sites
    load(sites, 1, NAMING_AREA_BYTES + 2000, days=1)
    keys = site_u.take("a", "b", 256, 3, NOW)
    site_n.fetch("a", "b", [keys[0][0]], NOW)
    site_n.take_pad(100, "", NOW)
    site_n.expire(NOW + DAY)
    assert site_u.level("own") == PoolLevel(1000, 1000 - 96, 0, 96, 0)
    assert site_u.level("peer") == PoolLevel(1000, 1000, 0, 0, 0)
    assert site_n.level("own") == PoolLevel(1000, 0, 0, 100, 900)
    assert site_n.level("peer") == PoolLevel(1000, 0, 0, 32, 968)
    assert site_u.consumption() == Consumption(3, 96, 0, 0, 0, 0)
    assert site_n.consumption() == Consumption(0, 0, 1, 32, 100, 1868)
    with reopened(site_n) as again:
        assert again.consumption() == Consumption(0, 0, 1, 32, 100, 1868)
