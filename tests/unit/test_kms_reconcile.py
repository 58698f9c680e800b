"""Two sites after a partition, a crash, a roll-back: what each learns from the other's summary."""

from __future__ import annotations

import base64
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from kms.key_id import parse_key_id
from kms.ledger import Ledger
from kms.places import KeyNotFound
from kms.ranges import RangeState, Runs
from kms.reconcile import (
    Announcement,
    Reconciling,
    Summary,
    announce,
    disagreements,
    heed,
    reconcile,
    summarise,
)
from kms.vault import LedgerUntrusted
from topo.errors import LedgerError, ProtocolError

NOW = datetime(2024, 11, 29, 22, 40, tzinfo=UTC)
MATERIAL = Random(3).randbytes(4000)
Sites = tuple[Ledger, Ledger]


@pytest.fixture
def sites(tmp_path: Path) -> Sites:
    pair = Ledger.create(tmp_path / "u", "U"), Ledger.create(tmp_path / "n", "N")
    for ledger in pair:
        ledger.add_block(1, MATERIAL, "", NOW, expires=NOW + timedelta(days=1))
    return pair


def agree(sites: Sites) -> bool:
    return not disagreements(summarise(sites[0]), summarise(sites[1]))


def packed(start: int, state: RangeState) -> str:
    """A half in one state, as a summary writes it."""
    return base64.b64encode(Runs(range(start, 4000), [start], [state]).pack()).decode()


def exchange(sites: Sites) -> None:
    """Each tells the other twice; as JSON, as it would travel."""
    for _ in range(2):
        for sender, receiver in (sites, sites[::-1]):
            text = summarise(sender).model_dump_json()
            assert reconcile(receiver, Summary.parse(text), NOW).alarms == ()


def test_taken_is_reserved_and_fetched_is_settled(sites: Sites) -> None:
    site_u, site_n = sites
    keys = site_u.take("a", "b", 256, 10, NOW)
    site_n.fetch("a", "b", [name for name, _ in keys[:4]], NOW)
    assert not agree(sites)

    result = reconcile(site_n, summarise(site_u), NOW)
    assert (result.reserved_bytes, result.destroyed_bytes) == (6 * 32, 4 * 32)
    result = reconcile(site_u, summarise(site_n), NOW)
    assert (result.reserved_bytes, result.destroyed_bytes) == (0, 4 * 32)
    assert agree(sites)
    assert site_n.level("peer").reserved_bytes == site_u.level("own").delivered_bytes == 6 * 32
    assert site_n.consumption().destroyed_bytes == 0  # settled is not wasted

    assert site_n.fetch("a", "b", [name for name, _ in keys[4:]], NOW) == keys[4:]
    exchange(sites)
    assert agree(sites)
    assert site_u.level("own").destroyed_bytes == 10 * 32
    for name, _ in keys:
        with pytest.raises(KeyNotFound):
            site_n.fetch("a", "b", [name], NOW)


def test_k14_a_partition_with_traffic_at_both_sites(sites: Sites, tmp_path: Path) -> None:
    """Both serve from their halves; the key_IDs get through, the summaries do not."""
    rng, waiting = Random(14), []
    for _ in range(60):
        side = rng.randrange(2)
        waiting += [(1 - side, key) for key in sites[side].take("a", "b", 128, 1, NOW)]
        if rng.random() < 0.6:
            to, key = waiting.pop(rng.randrange(len(waiting)))
            assert sites[to].fetch("a", "b", [key[0]], NOW) == [key]
    exchange(sites)
    assert agree(sites)
    for to, key in waiting:
        assert sites[to].fetch("a", "b", [key[0]], NOW) == [key]
    exchange(sites)
    assert agree(sites)
    assert all(not site.level("peer").reserved_bytes for site in sites)


def test_expired_at_one_site_is_destroyed_at_both(sites: Sites) -> None:
    site_u, site_n = sites
    [(name, _)] = site_u.take("a", "b", 256, 1, NOW)
    site_n.expire(NOW + timedelta(days=1))
    with pytest.raises(KeyNotFound):
        site_n.fetch("a", "b", [name], NOW)
    exchange(sites)
    assert agree(sites)
    assert site_u.stored_key_count(8) == 0
    assert site_u.level("own").destroyed_bytes == site_u.level("own").total_bytes


def test_different_bytes_under_one_number_are_destroyed(tmp_path: Path) -> None:
    """A flipped bit behind the naming area: key_IDs would match and keys would not."""
    sites = Ledger.create(tmp_path / "u", "U"), Ledger.create(tmp_path / "n", "N")
    sites[0].add_block(1, MATERIAL, "", NOW)
    sites[1].add_block(1, MATERIAL[:-1] + bytes([MATERIAL[-1] ^ 1]), "", NOW)
    sites[0].take("a", "b", 256, 1, NOW)
    statements = [summarise(site) for site in sites]
    for site, other in zip(sites, statements[::-1], strict=True):
        result = reconcile(site, other, NOW)
        assert result.alarms == ("block 1: the two sites hold different bytes",)
        assert site.stored_key_count(8) == 0
    assert sites[0].audit_trail()[-1].detail["alarms"] == [
        "block 1: the two sites hold different bytes"
    ]


def test_blocks_at_one_site_only_are_named_and_left(sites: Sites) -> None:
    sites[0].add_block(7, MATERIAL[::-1], "", NOW)
    sites[1].add_block(8, MATERIAL[1:], "", NOW)
    result = reconcile(sites[1], summarise(sites[0]), NOW)
    assert (result.only_here, result.only_there) == ((8,), (7,))
    assert disagreements(summarise(sites[0]), summarise(sites[1])) == [
        "block 7: at one site only",
        "block 8: at one site only",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"version": 100},
        {"seen_version": 100},
        {"blocks.0.number": 2},
        {"blocks.0.length": 4001},
        {"blocks.0.digest": "AAAA"},
        {"blocks.0.own": packed(32, RangeState.DELIVERED)},
        {"blocks.0.peer": packed(2016, RangeState.DESTROYED)},
        {"blocks.0.tag": "AAAA"},
    ],
)
def test_a_changed_summary_changes_nothing(sites: Sites, change: dict[str, object]) -> None:
    site_u, site_n = sites
    site_u.take("a", "b", 256, 1, NOW)
    site_n.add_block(2, MATERIAL[::-1], "", NOW)
    told = summarise(site_u).model_dump(mode="json")
    [(path, value)] = change.items()
    place = told
    *steps, last = path.split(".")
    for step in steps:
        place = place[int(step)] if step.isdigit() else place[step]  # type: ignore[index]
    place[last] = value
    before = site_n.level("own"), site_n.level("peer")
    result = reconcile(site_n, Summary.model_validate_json(Summary(**told).model_dump_json()), NOW)
    assert "not authentic" in result.alarms[0]
    assert (site_n.level("own"), site_n.level("peer")) == before
    site_n.take("a", "b", 256, 1, NOW)  # and it goes on serving
    reconcile(site_n, summarise(site_u), NOW)


def test_own_old_and_other_messages_are_refused(sites: Sites) -> None:
    site_u, site_n = sites
    old = summarise(site_u)
    with pytest.raises(ProtocolError, match="which is this one"):
        reconcile(site_u, old, NOW)
    site_u.take("a", "b", 256, 1, NOW)
    reconcile(site_n, summarise(site_u), NOW)
    reconcile(site_n, summarise(site_u), NOW)  # the same again does no harm
    with pytest.raises(ProtocolError, match="a replay"):
        reconcile(site_n, old, NOW)
    for text in ("", "[]", "{}", old.model_dump_json()[:-1], b"\xff"):
        with pytest.raises(ProtocolError, match="not a summary"):
            Summary.parse(text)


@pytest.mark.parametrize("lost_are", ["keys fetched there", "keys told of", "keys fetched here"])
def test_k7_all_files_rolled_back_together(sites: Sites, tmp_path: Path, lost_are: str) -> None:
    """Its own files are consistent: only the other site can tell."""
    site_u, site_n = sites
    for_u = site_n.take("b", "a", 256, 3, NOW)
    site_u.close()
    (tmp_path / "backup").mkdir()
    for file in tmp_path.glob("u*"):
        shutil.copy(file, tmp_path / "backup")
    taken: list[tuple[str, bytes]] = []
    with Ledger(site_u.path) as lost:
        if lost_are == "keys fetched here":
            lost.fetch("b", "a", [name for name, _ in for_u], NOW)
        else:
            taken = lost.take("a", "b", 256, 3, NOW)
        if lost_are == "keys fetched there":
            site_n.fetch("a", "b", [name for name, _ in taken], NOW)
        else:
            reconcile(site_n, summarise(lost), NOW)
    for file in (tmp_path / "backup").iterdir():
        shutil.copy(file, tmp_path)

    with Ledger(site_u.path, wait_for_peer=True) as back:
        with pytest.raises(LedgerError, match="waits for the other site"):
            back.take("a", "b", 256, 1, NOW)
        result = reconcile(back, summarise(site_n), NOW)
        assert "rolled back" in result.alarms[-1]
        with pytest.raises(LedgerUntrusted, match="rolled back"):
            back.take("a", "b", 256, 1, NOW)
    with Ledger(site_u.path) as back:  # it does not forget that
        for refused in (
            lambda: back.take("a", "b", 256, 1, NOW),
            lambda: back.fetch("a", "b", [], NOW),
            lambda: back.take_pad(1, "", NOW),
            lambda: back.add_block(2, MATERIAL, "", NOW),
        ):
            with pytest.raises(LedgerUntrusted, match="rolled back"):
                refused()
        assert back.start_over(NOW) > 0
        back.add_block(2, MATERIAL[::-1], "", NOW)
        site_n.add_block(2, MATERIAL[::-1], "", NOW)
        [again] = back.take("a", "b", 256, 1, NOW)
        assert again[0] not in dict(taken)
        assert site_n.fetch("a", "b", [again[0]], NOW) == [again]
        exchange((back, site_n))
        assert agree((back, site_n))


def test_waiting_for_the_peer_ends_with_its_summary(sites: Sites) -> None:
    sites[0].close()
    with Ledger(sites[0].path, wait_for_peer=True) as site_u:
        reconcile(site_u, summarise(sites[1]), NOW)
        assert len(site_u.take("a", "b", 256, 1, NOW)) == 1


def test_k7_rolled_back_behind_what_it_has_announced(sites: Sites, tmp_path: Path) -> None:
    """The keys were given after the last summary, and the other site has fetched none of them."""
    site_u, site_n = sites
    exchange(sites)
    site_u.close()
    (tmp_path / "backup").mkdir()
    for file in tmp_path.glob("u*"):
        shutil.copy(file, tmp_path / "backup")
    with Ledger(site_u.path) as lost:
        lost.take("a", "b", 256, 3, NOW)
        heed(site_n, Announcement.parse(announce(lost, 1).model_dump_json()))
    for file in (tmp_path / "backup").iterdir():
        shutil.copy(file, tmp_path)
    site_n.close()
    with Ledger(site_n.path) as at_n, Ledger(site_u.path) as back:  # it is on the disk of N
        assert "rolled back" in reconcile(back, summarise(at_n), NOW).alarms[-1]
        with pytest.raises(LedgerUntrusted, match="rolled back"):
            back.take("a", "b", 256, 1, NOW)


def test_announcements_that_say_nothing(sites: Sites) -> None:
    site_u, site_n = sites
    old, late = announce(site_u, 1), summarise(site_u)
    [(name, _)] = site_u.take("a", "b", 256, 1, NOW)
    heed(site_n, announce(site_u, 1))
    seen = summarise(site_n).seen_version
    assert seen == summarise(site_u).version
    heed(site_n, old)  # again, or late
    for wrong in (
        old.model_copy(update={"version": 1000}),
        old.model_copy(update={"number": 2}),
        old.model_copy(update={"tag": bytes(32)}),
        announce(site_n, 1),
    ):
        with pytest.raises(ProtocolError, match="announcement"):
            heed(site_n, wrong)
    assert summarise(site_n).seen_version == seen
    assert not reconcile(site_n, late, NOW).alarms  # sent before the announcement: late, no replay
    assert summarise(site_n).seen_version == seen
    exchange(sites)
    assert len(site_n.fetch("a", "b", [name], NOW)) == 1


def test_many_runs_are_settled_in_steps_between_which_keys_are_given(tmp_path: Path) -> None:
    """Every second key is fetched: as many runs as keys."""
    material = Random(5).randbytes(2 * 32 * 1500)
    sites = Ledger.create(tmp_path / "u", "U"), Ledger.create(tmp_path / "n", "N")
    for ledger in sites:
        ledger.add_block(1, material, "", NOW)
    site_u, site_n = sites
    names = [name for name, _ in site_u.take("a", "b", 256, 1000, NOW)]
    fetched, waiting = names[::2], names[1::2]
    site_n.fetch("a", "b", fetched, NOW)
    text = summarise(site_n).model_dump_json()
    assert len(text) < 1000 * 7 + 1000

    def fetch_one(at: int) -> None:
        fetched.append(waiting.pop(at))
        site_n.fetch("a", "b", fetched[-1:], NOW)

    work, steps = Reconciling(site_u, Summary.parse(text), NOW), 0
    while work.step():
        steps += 1
        names += [name for name, _ in site_u.take("a", "b", 256, 1, NOW)]
        fetch_one(0)
    assert steps >= 2
    assert work.result.destroyed_bytes == 500 * 32
    assert work.result.alarms == ()
    offsets = {parse_key_id(name).location.offset_bytes for name in names}
    assert len(offsets) == len(names) == 1000 + steps

    work, steps = Reconciling(site_n, summarise(site_u), NOW), 0
    while work.step():  # what is fetched before its turn comes is not to be had again
        steps += 1
        fetch_one(-1)
    assert steps >= 2
    exchange(sites)
    assert agree(sites)
    for name in fetched:
        with pytest.raises(KeyNotFound):
            site_n.fetch("a", "b", [name], NOW)
    assert len(site_n.fetch("a", "b", waiting, NOW)) == len(waiting)
    for ledger in sites:
        ledger.close()


def test_a_store_that_is_read_again_between_two_steps(tmp_path: Path) -> None:
    """A transaction that failed has put other objects in the place of the blocks."""
    material = Random(6).randbytes(2 * 32 * 1500)
    sites = Ledger.create(tmp_path / "u", "U"), Ledger.create(tmp_path / "n", "N")
    for ledger in sites:
        ledger.add_block(1, material, "", NOW)
    keys = sites[0].take("a", "b", 256, 1000, NOW)
    sites[1].fetch("a", "b", [name for name, _ in keys[::2]], NOW)
    work = Reconciling(sites[0], summarise(sites[1]), NOW)
    assert work.step()
    with pytest.raises(ZeroDivisionError), sites[0].batch():
        sites[0].take("a", "b", 256, 1, NOW)
        _ = 1 / 0
    while work.step():
        pass
    level = sites[0].level("own")
    assert (level.destroyed_bytes, level.delivered_bytes) == (500 * 32, 500 * 32)
    sites[0].close()
    with Ledger(sites[0].path) as again:
        assert again.level("own") == level
    sites[1].close()
