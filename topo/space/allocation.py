"""Who gets the satellite: passes that can be used, passes that compete, and a rule to choose.

An optical terminal, on a satellite or at a station, points at one thing at a time. So two passes
clash when they overlap in time and share the satellite or the station.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta

from topo.space.clouds import CloudModel
from topo.space.contacts import Contact
from topo.space.sky import NIGHT_SUN_DEG

Rank = Callable[[Contact], tuple[float, ...]]
"""How much a pass is wanted; the greatest gets the terminal."""


def highest(contact: Contact) -> tuple[float, ...]:
    """The pass that culminates higher: less loss, and so nearly always more key."""
    return (contact.culmination_deg,)


def longest(contact: Contact) -> tuple[float, ...]:
    """The pass that lasts longer."""
    return (contact.duration_s,)


def in_order(stations: Sequence[str]) -> Rank:
    """The station that comes earlier in this list, unlisted ones last; among its passes the highest."""
    places = {name: -place for place, name in enumerate(stations)}

    def rank(contact: Contact) -> tuple[float, ...]:
        return (places.get(contact.station.name, -len(places)), contact.culmination_deg)

    return rank


def usable(
    contacts: Iterable[Contact],
    *,
    sun_below_deg: float = NIGHT_SUN_DEG,
    clouds: CloudModel | None = None,
) -> list[Contact]:
    """The passes that are dark throughout and, where a cloud model is given, of a clear night."""
    return [
        contact
        for contact in contacts
        if contact.sky.is_dark(sun_below_deg)
        and (clouds is None or clouds.is_clear(contact.station.name, contact.night))
    ]


def clash(one: Contact, other: Contact, guard_s: float = 0.0) -> bool:
    """Whether two passes need one terminal at the same time.

    `guard_s` is the time a terminal needs to turn from one partner to the next.
    """
    guard = timedelta(seconds=guard_s)
    shared = one.satellite.name == other.satellite.name or one.station.name == other.station.name
    return shared and one.aos < other.los + guard and other.aos < one.los + guard


def conflicts(contacts: Iterable[Contact], guard_s: float = 0.0) -> list[list[Contact]]:
    """Groups of two passes or more that clash, directly or through others; groups and passes by time."""
    ordered = sorted(contacts, key=_by_time)
    rivals = _rivals(ordered, guard_s)
    groups, seen = [], set[int]()
    for first in range(len(ordered)):
        if first in seen or not rivals[first]:
            continue
        group, frontier = {first}, [first]
        while frontier:
            new = rivals[frontier.pop()] - group
            group |= new
            frontier += new
        seen |= group
        groups.append([ordered[n] for n in sorted(group)])
    return groups


def allocate(
    contacts: Iterable[Contact], rank: Rank = highest, guard_s: float = 0.0
) -> list[Contact]:
    """The passes that get the terminals they need, by time: no two of them clash.

    The pass that `rank` puts first takes its terminals, then the next that clashes with none taken,
    and so on; of equals the earlier, then the station first in the alphabet. Whoever is refused
    clashes with one that ranks at least as high.
    """
    ordered = sorted(contacts, key=_by_time)
    rivals = _rivals(ordered, guard_s)
    taken = set[int]()
    # A stable sort: equals stay by time.
    for n in sorted(range(len(ordered)), key=lambda n: rank(ordered[n]), reverse=True):
        if not rivals[n] & taken:
            taken.add(n)
    return [ordered[n] for n in sorted(taken)]


def _rivals(ordered: Sequence[Contact], guard_s: float) -> list[set[int]]:
    """For each of the passes, which are by time of rise, the indices of those it clashes with."""
    rivals = [set[int]() for _ in ordered]
    guard = timedelta(seconds=guard_s)
    for first, contact in enumerate(ordered):
        until = contact.los + guard
        for second in range(first + 1, len(ordered)):
            if ordered[second].aos >= until:
                break
            if clash(contact, ordered[second], guard_s):
                rivals[first].add(second)
                rivals[second].add(first)
    return rivals


def _by_time(contact: Contact) -> tuple[float, str, str]:
    return contact.aos.timestamp(), contact.station.name, contact.satellite.name
