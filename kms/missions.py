"""Quantum satellite missions: the operation and control centre (QSOCC) that keeps the pools filled.

The paper's QSOCC sends docking missions to satellites and ground stations "periodically or on
demand based on real-time key consumption rates". Here it goes through the passes by time. A pass
can be flown when the station is in the dark and clear (the sky of a night is known by its evening)
and key is to be expected. It is asked for

* on schedule: the station has not been docked with for `every_days`;
* on demand: a pair of the station is forecast to run dry within `horizon_days` at its measured
  consumption, and less key of the station waits on this satellite than its pairs consume in that
  time: a heap of K1 is no use as long as K2 is missing.

Passes that are asked for and clash, having one optical terminal on the satellite or at the station,
are allocated by a policy. Key waits on the satellite until a pair needs it, that is within the same
horizon, and both of its stations have some there; K′ then comes over any classical channel at once.
Of several pairs the policy says which is served first.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import count
from math import inf
from typing import Literal, get_args

from kms.alarms import Alarm
from kms.demand import DAY_S, Demand, PairPool
from kms.waiting import SHORTEST_BLOCK_BYTES, PassBlock, Relay, WaitingKeys
from quantum.bb84 import source
from quantum.bb84.expected import expected_key
from quantum.optics import preset
from topo.errors import InputError
from topo.space.allocation import allocate, clash, conflicts
from topo.space.clouds import CloudModel
from topo.space.contacts import Contact, find_all_passes
from topo.space.orbit import Satellite
from topo.space.sky import NIGHT_SUN_DEG
from topo.space.stations import Station

Policy = Literal["fair", "priority", "demand"]
"""`fair`: the station with least key for what its pairs consume. `priority`: the station of the pair of highest
priority that is running out, then fair. `demand`: the station of the pair that will run dry first."""

KeyYield = Callable[[Contact], int]
"""The bytes of key that a pass gives."""


@dataclass(frozen=True)
class MissionOptions:
    """What is planned, and how. `InputError` for what cannot be."""

    satellites: Sequence[Satellite]
    stations: Sequence[Station]
    demands: Sequence[Demand]
    start: datetime
    days: float = 90.0
    policy: Policy = "fair"
    every_days: float | None = 7.0
    """A mission for every station at least this often; None: on demand only."""
    horizon_days: float | None = 14.0
    """A mission when a pair is forecast to run dry within this time; None: on schedule only."""
    clouds: CloudModel = field(default_factory=lambda: CloudModel(seed=1))
    channel: str = "jinan1-typical"
    """Optical preset of the downlinks and of the source."""
    mask_deg: float = 10.0
    sun_below_deg: float = NIGHT_SUN_DEG
    guard_s: float = 60.0
    """Time a terminal needs to turn from one partner to the next. Assumed."""

    def __post_init__(self) -> None:
        names = [station.name for station in self.stations]
        pairs = [frozenset(demand.pair) for demand in self.demands]
        for what, is_good in (
            ("a station's name stands twice", len(names) == len(set(names))),
            ("a pair stands twice", len(pairs) == len(set(pairs))),
            (f"{self.days:g} days: must be positive", self.days > 0),
            (f"start in {self.start.year}: from 1958 to 2100", 1958 <= self.start.year <= 2100),
            (f"policy {self.policy!r}: one of {get_args(Policy)}", self.policy in get_args(Policy)),
            (
                "missions neither on schedule nor on demand",
                self.every_days is not None or self.horizon_days is not None,
            ),
        ):
            if not is_good:
                raise InputError(f"missions: {what}")
        for demand in self.demands:
            for name in demand.pair:
                if name not in names:
                    raise InputError(
                        f"demand {demand.name}: no station {name}: there are {', '.join(names)}"
                    )

    @property
    def end(self) -> datetime:
        return self.start + timedelta(days=self.days)


class Fate(StrEnum):
    """What becomes of a pass."""

    FLOWN = "flown"
    CONFLICT = "conflict"
    """A clashing pass got the terminal."""
    CLOUD = "cloud"
    DAYLIGHT = "daylight"
    NO_KEY = "no key"
    """Too low: nothing, or too little for a relay, is left after error correction and privacy amplification."""
    NOT_NEEDED = "not needed"


class Trigger(StrEnum):
    """Why a pass is asked for."""

    SCHEDULE = "schedule"
    DEMAND = "demand"


@dataclass(frozen=True)
class PlannedPass:
    """A pass and what becomes of it."""

    contact: Contact
    fate: Fate
    trigger: Trigger | None = None
    key_bytes: int = 0
    """What it gave, if it was flown; what it would have given, if it could have been."""
    lost_to: tuple[str, ...] = ()
    """Stations, or satellites, that got the terminal instead."""


@dataclass(frozen=True)
class MissionPlan:
    """The plan, and what it makes of the pools."""

    options: MissionOptions
    passes: tuple[PlannedPass, ...]
    """All passes above the mask, by time of rise."""
    relays: tuple[Relay, ...]
    waiting: tuple[tuple[PassBlock, int], ...]
    """Blocks that still wait on a satellite at the end, and how many of their bytes."""
    pools: Mapping[tuple[str, str], PairPool]

    @property
    def missions(self) -> tuple[PlannedPass, ...]:
        """The passes that are flown."""
        return tuple(one for one in self.passes if one.fate is Fate.FLOWN)

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """Low-water and exhaustion of all pools, by time."""
        alarms = [alarm for pool in self.pools.values() for alarm in pool.alarms]
        return tuple(sorted(alarms, key=lambda alarm: alarm.at))


def expected_yield(options: MissionOptions) -> KeyYield:
    """The expected finite key of a pass, by the forward model over its very geometry, in whole bytes.

    `InputError` for an unknown channel.
    """
    downlink, parameters = preset(options.channel), source.PRESETS[options.channel]

    def of(contact: Contact) -> int:
        return int(expected_key(contact.slots(), downlink, parameters).secret_bits) // 8

    return of


def plan_missions(options: MissionOptions, key_yield: KeyYield | None = None) -> MissionPlan:
    """Plan all missions from `options.start` on, and follow stocks and pools to the end.

    `key_yield` says what a pass gives, by default `expected_yield`. Deterministic: the same options
    give the same plan. `InputError` for what cannot be searched.
    """
    return _Centre(options, key_yield or expected_yield(options)).run()


class _Centre:
    """The centre at work."""

    def __init__(self, options: MissionOptions, key_yield: KeyYield) -> None:
        self.options, self.key_yield = options, key_yield
        self.waiting = WaitingKeys()
        self.pools = {demand.pair: PairPool(demand, options.start) for demand in options.demands}
        self.relays: list[Relay] = []
        self.fates: dict[Contact, PlannedPass] = {}
        self.last_docked: dict[str, datetime] = {}
        self.made_bytes = {station.name: 0 for station in options.stations}
        self._landing: list[tuple[datetime, int, PassBlock]] = []
        self._serial = count()

    def run(self) -> MissionPlan:
        contacts = find_all_passes(
            self.options.satellites,
            self.options.stations,
            self.options.start,
            self.options.end,
            self.options.mask_deg,
            max_age_days=inf,  # a plan for months is of the orbit's kind, not of its kilometres
        )
        for group in self._rivals([one for one in contacts if self._can_be_flown(one)]):
            self._decide(group)
        self._advance(self.options.end)
        return MissionPlan(
            self.options,
            tuple(self.fates[contact] for contact in contacts),
            tuple(self.relays),
            tuple(self.waiting),
            self.pools,
        )

    def _can_be_flown(self, contact: Contact) -> bool:
        """Whether sky and link allow the pass; its fate is sealed if not."""
        if not contact.sky.is_dark(self.options.sun_below_deg):
            self.fates[contact] = PlannedPass(contact, Fate.DAYLIGHT)
            return False
        key_bytes = self.key_yield(contact)
        possible = PlannedPass(contact, Fate.NOT_NEEDED, key_bytes=key_bytes)
        if key_bytes < SHORTEST_BLOCK_BYTES:
            possible = PlannedPass(contact, Fate.NO_KEY)
        elif not self.options.clouds.is_clear(contact.station.name, contact.night):
            possible = PlannedPass(contact, Fate.CLOUD, key_bytes=key_bytes)
        self.fates[contact] = possible
        return possible.fate is Fate.NOT_NEEDED

    def _rivals(self, contacts: list[Contact]) -> list[list[Contact]]:
        """Passes that clash with each other, directly or through others, or alone; by time."""
        groups = conflicts(contacts, self.options.guard_s)
        in_group = {contact for group in groups for contact in group}
        groups += [[contact] for contact in contacts if contact not in in_group]
        return sorted(groups, key=lambda group: group[0].aos)

    def _decide(self, group: list[Contact]) -> None:
        """Allocate passes that clash, knowing what is known when the first of them rises."""
        now = group[0].aos
        self._advance(now)
        triggers = {contact: self._trigger(contact, now) for contact in group}
        asked = [contact for contact in group if triggers[contact] is not None]
        flown = allocate(asked, self._rank, self.options.guard_s)
        for contact in asked:
            key_bytes, trigger = self.fates[contact].key_bytes, triggers[contact]
            if contact in flown:
                self.fates[contact] = PlannedPass(contact, Fate.FLOWN, trigger, key_bytes)
                self._fly(contact, key_bytes)
            else:
                winners = tuple(
                    _opponent(contact, winner)
                    for winner in flown
                    if clash(contact, winner, self.options.guard_s)
                )
                self.fates[contact] = PlannedPass(
                    contact, Fate.CONFLICT, trigger, key_bytes, winners
                )

    def _fly(self, contact: Contact, key_bytes: int) -> None:
        satellite, station = contact.satellite.name, contact.station.name
        self.last_docked[station] = contact.los
        self.made_bytes[station] += key_bytes
        block = PassBlock(satellite, station, contact.los, key_bytes)
        heapq.heappush(self._landing, (contact.los, next(self._serial), block))

    def _advance(self, now: datetime) -> None:
        """Let key be consumed, passes end and their key be relayed, until `now`."""
        while self._landing and self._landing[0][0] <= now:
            at, _, block = heapq.heappop(self._landing)
            self._consume(at)
            self.waiting.add(block)
            self._relay(at)
        self._consume(now)
        self._relay(now)

    def _consume(self, now: datetime) -> None:
        for pool in self.pools.values():
            pool.advance(now)

    def _relay(self, now: datetime) -> None:
        """Serve the pairs that need key from what waits for them, until nothing can be done."""
        while any(self._serve(pool, now) for pool in self._by_need(self.pools.values())):
            pass

    def _serve(self, pool: PairPool, now: datetime) -> bool:
        """One relay for a pair, if it needs key and some waits."""
        if self._runs_dry(pool):
            for satellite in self.options.satellites:
                if relay := self.waiting.relay(satellite.name, *pool.demand.pair, now):
                    self.relays.append(relay)
                    pool.add(relay.pool_bits, now)
                    return True
        return False

    def _trigger(self, contact: Contact, now: datetime) -> Trigger | None:
        """Why the pass is asked for, if it is."""
        satellite, station = contact.satellite.name, contact.station.name
        every, horizon = self.options.every_days, self.options.horizon_days
        pools = self._pools_of(station)
        if horizon is not None and any(self._runs_dry(pool) for pool in pools):
            wanted_bits = horizon * DAY_S * sum(_rate(pool) for pool in pools)
            if 8 * self.waiting.left_bytes(satellite, station) < wanted_bits:
                return Trigger.DEMAND
        if every is not None:
            last = self.last_docked.get(station)
            # A pass comes some minutes earlier every day: half a day more or less is the same night.
            if last is None or now - last > timedelta(days=every - 0.5):
                return Trigger.SCHEDULE
        return None

    def _rank(self, contact: Contact) -> tuple[float, ...]:
        """How much the policy wants the pass; of equals the one that gives more key."""
        station, key_bytes = contact.station.name, self.fates[contact].key_bytes
        pools = self._pools_of(station)
        need = self._need(self._by_need(pools)[0]) if pools else (-inf,)
        if self.options.policy == "demand":
            # Of the two stations of the pair, the one of which less key waits.
            return (*need, -self.waiting.left_bytes(contact.satellite.name, station), key_bytes)
        # A station is poor by the key that its own passes made for what its pairs consume.
        wanted = sum(_rate(pool) for pool in pools)
        poverty = -self.made_bytes[station] / wanted if wanted else -inf
        return (*need[:-1], poverty, key_bytes)

    def _pools_of(self, station: str) -> list[PairPool]:
        return [pool for pool in self.pools.values() if station in pool.demand.pair]

    def _by_need(self, pools: Iterable[PairPool]) -> list[PairPool]:
        return sorted(pools, key=self._need, reverse=True)

    def _need(self, pool: PairPool) -> tuple[float, ...]:
        """How much the policy wants key for a pair."""
        if self.options.policy == "demand":
            return (-pool.forecast().exhausted_in_s,)
        rate = _rate(pool)
        poverty = -pool.relayed_bits / rate if rate else -inf
        if self.options.policy == "fair":
            return (poverty,)
        return (self._runs_dry(pool), pool.demand.priority, poverty)

    def _runs_dry(self, pool: PairPool) -> bool:
        """Whether a pair needs key: by the forecast, or always when missions go by schedule only."""
        horizon = self.options.horizon_days
        return horizon is None or pool.forecast().exhausted_in_s < horizon * DAY_S


def _rate(pool: PairPool) -> float:
    """What a pair consumes by the measure, or before that is worth anything, by its demand."""
    return pool.forecast().rate_bits_per_s or pool.demand.bits_per_s


def _opponent(contact: Contact, winner: Contact) -> str:
    """Who got the terminal: the other station of the same satellite, or the other satellite."""
    same_satellite = contact.satellite.name == winner.satellite.name
    return winner.station.name if same_satellite else winner.satellite.name
