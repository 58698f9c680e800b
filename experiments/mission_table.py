"""A mission plan in the terminal: the missions, then what they come to for stations and pairs."""

from __future__ import annotations

from datetime import datetime, tzinfo

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.missions import describe_pool, describe_station
from experiments.passes import clock_text
from experiments.tables import print_table
from kms.demand import PairPool
from kms.missions import Fate, MissionPlan, PlannedPass
from topo.space.allocation import clash


def print_plan(plan: MissionPlan, zone: tzinfo) -> None:
    """Print the missions, the stations, the pairs and what was assumed."""
    console = Console()
    for table in (_missions(plan, zone), _stations(plan), _pairs(plan)):
        print_table(console, table)
        console.print()
    for line in _notes(plan):
        console.print(line, highlight=False, soft_wrap=True)


def _missions(plan: MissionPlan, zone: tzinfo) -> Table:
    satellites = [satellite.name for satellite in plan.options.satellites]
    several = len(satellites) > 1
    table = _table(
        f"{', '.join(satellites)}: missions, times in {datetime.now(zone):%Z}",
        ["night", "station", *(["satellite"] if several else [])],
        ["AOS", "LOS", "max el.", "kbit"],
        ["asked", "instead of", "the key is"],
    )
    night = None
    for one in plan.missions:
        contact = one.contact
        is_first, night = night != contact.night, contact.night
        table.add_row(
            f"{contact.night:%d %b}" if is_first else "",
            contact.station.name,
            *([contact.satellite.name] if several else []),
            clock_text(contact.aos, zone),
            clock_text(contact.los, zone),
            f"{contact.culmination_deg:.1f}°",
            f"{8 * one.key_bytes / 1e3:.0f}",
            f"on {one.trigger}",
            ", ".join(_refused(plan, one)),
            ", ".join(_uses(plan, one)),
        )
    return table


def _stations(plan: MissionPlan) -> Table:
    table = _table(
        "Stations: what became of their passes",
        ["station"],
        [*(fate.value for fate in Fate), "Mbit made", "Mbit waiting"],
    )
    for station in plan.options.stations:
        found = describe_station(plan, station.name)
        table.add_row(
            station.name,
            *(str(found["fates"][fate.value]) for fate in Fate),
            f"{found['made_bits'] / 1e6:.2f}",
            f"{found['waiting_bits'] / 1e6:.2f}",
        )
    return table


def _pairs(plan: MissionPlan) -> Table:
    table = _table(
        "Pairs: their pools",
        ["pair"],
        ["priority", "bit/s", "relays", "Mbit relayed", "consumed", "refused", "left", "lasts"],
        ["days without key"],
    )
    for pool in plan.pools.values():
        found = describe_pool(plan, pool)
        lasts = found["lasts_days"]
        table.add_row(
            pool.demand.name,
            str(pool.demand.priority),
            _rates(pool),
            str(found["relays"]),
            *(
                f"{found[name] / 1e6:.2f}"
                for name in ("relayed_bits", "consumed_bits", "refused_bits", "level_bits")
            ),
            "for ever" if lasts is None else f"{lasts:.1f} d",
            f"{found['days_without_key']:.1f} in {len(pool.outages)}",
        )
    return table


def _notes(plan: MissionPlan) -> list[str]:
    options = plan.options
    triggers = [
        *([f"every {options.every_days:g} days"] if options.every_days is not None else []),
        *(
            [f"when a pair runs dry within {options.horizon_days:g} days"]
            if options.horizon_days is not None
            else []
        ),
    ]
    return [
        f"policy: {options.policy}; a mission is asked for {' or '.join(triggers)}",
        f"key of a pass: expected finite key over its geometry, channel {options.channel}",
        f"{len(plan.alarms)} alarms (low water, exhaustion)",
        options.clouds.describe(),
        "orbits are propagated far beyond what elements are good for: a plan of their kind, not of their minutes",
    ]


def _refused(plan: MissionPlan, mission: PlannedPass) -> list[str]:
    """Who lost a terminal to the mission."""
    return [
        one.contact.station.name
        if one.contact.station != mission.contact.station
        else one.contact.satellite.name
        for one in plan.passes
        if one.fate is Fate.CONFLICT and clash(one.contact, mission.contact, plan.options.guard_s)
    ]


def _uses(plan: MissionPlan, mission: PlannedPass) -> list[str]:
    """What became of a mission's key: K1 or K2 of which relays, and whether some of it waits."""
    contact = mission.contact
    made = (contact.satellite.name, contact.station.name, contact.los)
    uses = []
    for relay in plan.relays:
        for name, ours, theirs in (("K1", relay.k1, relay.k2), ("K2", relay.k2, relay.k1)):
            if (ours.satellite, ours.station, ours.made_at) == made:
                uses.append(f"{name} with {theirs.station}")
    waits = [
        f"waiting ({8 * left / 1e3:.0f} kbit)"
        for block, left in plan.waiting
        if (block.satellite, block.station, block.made_at) == made
    ]
    return list(dict.fromkeys(uses)) + waits


def _rates(pool: PairPool) -> str:
    demand = pool.demand
    steps = [f"{rate:.2f} from day {day:g}" for day, rate in demand.steps]
    return ", ".join([f"{demand.bits_per_s:.2f}", *steps])


def _table(title: str, left: list[str], right: list[str], more: list[str] | None = None) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for columns, justify in ((left, "left"), (right, "right"), (more or [], "left")):
        for column in columns:
            table.add_column(column, justify="right" if justify == "right" else "left")
    return table
