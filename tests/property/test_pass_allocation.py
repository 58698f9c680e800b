"""Who gets a terminal: for any passes and any rule, nobody shares, nobody is refused without reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topo.errors import InputError
from topo.space.allocation import (
    Rank,
    allocate,
    clash,
    conflicts,
    highest,
    in_order,
    longest,
    usable,
)
from topo.space.clouds import CloudModel
from topo.space.contacts import Contact
from topo.space.orbit import Satellite
from topo.space.sky import Sky
from topo.space.stations import Station
from topo.space.tle import find_tle_file, read_tles

START = datetime(2024, 11, 22, 14, tzinfo=UTC)
NIGHT = Sky(-60.0, -59.0, -5.0, 0.5, 0.0)
[TLE] = read_tles(find_tle_file("jinan1-a"))
SATELLITES = [Satellite(replace(TLE, name=name)) for name in ("one", "two")]
STATIONS = [
    Station("Beijing", 40.1, 116.5),
    Station("Jinan", 36.65, 117.1),
    Station("Wien", 48.2, 16.4),
]


def contact(
    satellite: int, station: int, begin_s: float, duration_s: float, culmination_deg: float
) -> Contact:
    aos = START + timedelta(seconds=begin_s)
    return Contact(
        SATELLITES[satellite],
        STATIONS[station],
        10.0,
        aos,
        aos + timedelta(seconds=duration_s / 2),
        aos + timedelta(seconds=duration_s),
        170.0,
        250.0,
        345.0,
        culmination_deg,
        1700.0,
        500.0,
        1700.0,
        NIGHT,
    )


contacts = st.lists(
    st.builds(
        contact,
        st.integers(0, 1),
        st.integers(0, 2),
        st.integers(0, 3000),
        st.integers(60, 450),
        st.integers(10, 90),
    ),
    max_size=20,
    unique_by=lambda one: (one.satellite.name, one.station.name, one.aos),
)
ranks = st.sampled_from([highest, longest, in_order(["Wien", "Beijing"])])
guards = st.sampled_from([0.0, 30.0])


@given(contacts, ranks, guards)
def test_no_two_granted_passes_clash_and_every_refused_one_loses_to_its_equal_or_better(
    passes: list[Contact], rank: Rank, guard_s: float
) -> None:
    granted = allocate(passes, rank, guard_s)
    assert granted == sorted(granted, key=lambda one: one.aos)
    for place, one in enumerate(granted):
        assert not any(clash(one, other, guard_s) for other in granted[place + 1 :])
    for one in passes:
        if one not in granted:
            against = [other for other in granted if clash(one, other, guard_s)]
            assert any(rank(other) >= rank(one) for other in against)


@given(contacts, ranks, guards)
def test_the_order_in_which_passes_are_given_does_not_matter(
    passes: list[Contact], rank: Rank, guard_s: float
) -> None:
    assert allocate(passes[::-1], rank, guard_s) == allocate(passes, rank, guard_s)


@given(contacts, guards)
def test_groups_of_conflict_are_the_connected_ones(passes: list[Contact], guard_s: float) -> None:
    groups = conflicts(passes, guard_s)
    grouped = [one for group in groups for one in group]
    assert len(grouped) == len(set(grouped))
    for one in passes:
        rivals = {other for other in passes if other is not one and clash(one, other, guard_s)}
        home = next((set(group) for group in groups if one in group), set())
        assert bool(rivals) == bool(home)
        assert rivals <= home
    for group in groups:
        reached, frontier = {group[0]}, [group[0]]
        while frontier:
            here = frontier.pop()
            new = {one for one in group if one not in reached and clash(here, one, guard_s)}
            reached |= new
            frontier += new
        assert reached == set(group)


def test_the_rules() -> None:
    high = contact(0, 0, 0, 300, 80)
    long = contact(0, 1, 100, 450, 40)
    assert allocate([high, long]) == [high]
    assert allocate([high, long], longest) == [long]
    assert allocate([high, long], in_order(["Jinan", "Beijing"])) == [long]
    assert allocate([high, long], in_order(["Wien", "Beijing"])) == [high]
    assert allocate([high, replace(long, culmination_deg=80)]) == [high]  # of equals the earlier


def test_who_clashes() -> None:
    one = contact(0, 0, 0, 300, 80)
    assert clash(one, contact(0, 1, 299, 300, 50))  # one satellite
    assert clash(one, contact(1, 0, 299, 300, 50))  # one station
    assert not clash(one, contact(1, 1, 0, 300, 50))  # neither
    assert not clash(one, contact(0, 1, 300, 300, 50))  # one after the other
    assert clash(one, contact(0, 1, 300, 300, 50), guard_s=1.0)


def test_in_a_chain_both_ends_may_win() -> None:
    chain = [contact(0, 0, 0, 300, 50), contact(0, 1, 200, 300, 40), contact(0, 2, 400, 300, 30)]
    assert conflicts(chain) == [chain]
    assert allocate(chain) == [chain[0], chain[2]]


def test_what_can_be_used() -> None:
    dark = contact(0, 0, 0, 300, 80)
    dusk = replace(dark, sky=Sky(-12.5, -11.9, 0.0, 0.0, 0.0))
    assert usable([dark, dusk]) == [dark]
    assert usable([dark, dusk], sun_below_deg=-6) == [dark, dusk]
    assert usable([dark], clouds=CloudModel(1, 0.0)) == []
    assert usable([dark], clouds=CloudModel(1, 0.0, of_station={"Beijing": 1.0})) == [dark]


def test_a_pass_too_short_for_a_slot() -> None:
    with pytest.raises(
        InputError, match=r"no slot of 301 s fits into a pass of 300\.0 s over Beijing"
    ):
        contact(0, 0, 0, 300, 80).slots(301.0)
    with pytest.raises(InputError, match="no slot of 0 s"):
        contact(0, 0, 0, 300, 80).slots(0.0)
