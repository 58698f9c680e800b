"""A plan of quantum satellite missions over days or months: what is asked on the command line, what is written.

The planning itself is `kms.missions`. Written are `plan.json` and, for spreadsheets, one CSV file each
of the passes and their fates, the relays, the pools' levels and the alarms.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from experiments.passes import PAPER_STATIONS, iso
from kms.demand import DAY_S, Demand, PairPool
from kms.missions import Fate, MissionPlan, PlannedPass, Trigger
from kms.waiting import Relay
from topo.errors import InputError
from topo.space.stations import Station

STATIONS: Final = (
    *PAPER_STATIONS,
    Station("Jinan", 36.65, 117.12, 30.0),
    Station("Stellenbosch", -33.93, 18.86, 110.0),
)
"""The paper's stations and two more of Jinan-1's (Li et al., Nature 640, 47, 2025); places of the cities."""
DEFAULT_RATE_BITS_PER_S: Final = 256 / 600
"""One 256-bit key every ten minutes."""
DEFAULT_CLEAR_SKY: Final = "0.5"
"""Share of clear nights where none is given. Assumed."""


def parse_demands(
    texts: Sequence[str],
    priorities: Sequence[str],
    stations: Sequence[Station],
    *,
    low_water_bits: float = Demand.low_water_bits,
    initial_bits: float = Demand.initial_bits,
) -> list[Demand]:
    """Demands of some `A-B=RATE` (bits per second) and `A-B=RATE@DAY` (from that day on), and priorities `A-B=N`.

    Without any demand, the first station shares `DEFAULT_RATE_BITS_PER_S` with each of the others.
    `InputError` that shows the text that cannot be read.
    """
    names = [station.name for station in stations]
    if len(names) < 2:
        raise InputError("key is shared by two stations: name another with --station")
    rates: dict[tuple[str, str], float] = {}
    steps: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for text in texts:
        pair, value = _pair_and_value(text, names, "Beijing-Shanghai=0.5 or Beijing-Shanghai=4@30")
        rate, at, day = value.partition("@")
        if at:
            steps.setdefault(pair, []).append((_number(day, text), _number(rate, text)))
        elif pair in rates:
            raise InputError(f"demand {text!r}: that pair has one; a later rate is RATE@DAY")
        else:
            rates[pair] = _number(rate, text)
    if not texts:
        rates = {(names[0], name): DEFAULT_RATE_BITS_PER_S for name in names[1:]}
    ranks: dict[tuple[str, str], int] = {}
    for text in priorities:
        pair, value = _pair_and_value(text, names, "Beijing-Shanghai=2")
        ranks[pair] = _whole_number(value, text)
    pairs = list(dict.fromkeys([*rates, *steps]))
    if unknown := [pair for pair in ranks if pair not in pairs]:
        raise InputError(f"priority of {'-'.join(unknown[0])}: that pair has no demand")
    return [
        Demand(
            pair,
            rates.get(pair, 0.0),
            tuple(sorted(steps.get(pair, ()))),
            ranks.get(pair, 0),
            low_water_bits,
            initial_bits,
        )
        for pair in pairs
    ]


def report(plan: MissionPlan) -> dict[str, Any]:
    """The plan, JSON-able; instants in UTC."""
    options = plan.options
    return {
        "satellites": [
            {"name": satellite.name, "elements": satellite.tle.place}
            for satellite in options.satellites
        ],
        "from": iso(options.start),
        "to": iso(options.end),
        "channel": options.channel,
        "mask_deg": options.mask_deg,
        "policy": options.policy,
        "every_days": options.every_days,
        "horizon_days": options.horizon_days,
        "guard_s": options.guard_s,
        "clouds": options.clouds.describe(),
        "fates": {fate.value: count for fate, count in _fates(plan.passes).items()},
        "stations": {
            station.name: describe_station(plan, station.name) for station in options.stations
        },
        "pairs": {pool.demand.name: describe_pool(plan, pool) for pool in plan.pools.values()},
        "missions": [describe_pass(one) for one in plan.missions],
        "relays": [describe_relay(relay) for relay in plan.relays],
        "waiting": [
            {
                "satellite": block.satellite,
                "station": block.station,
                "made_at": iso(block.made_at),
                "bits": 8 * left_bytes,
            }
            for block, left_bytes in plan.waiting
        ],
        "alarms": [
            {
                "at": iso(alarm.at),
                "kind": alarm.kind.value,
                "pair": alarm.where,
                "detail": alarm.detail,
            }
            for alarm in plan.alarms
        ],
    }


def describe_station(plan: MissionPlan, name: str) -> dict[str, Any]:
    """What became of a station's passes, and the key they made."""
    passes = [one for one in plan.passes if one.contact.station.name == name]
    flown = [one for one in passes if one.fate is Fate.FLOWN]
    return {
        "fates": {fate.value: count for fate, count in _fates(passes).items()},
        "on_demand": sum(one.trigger is Trigger.DEMAND for one in flown),
        "on_schedule": sum(one.trigger is Trigger.SCHEDULE for one in flown),
        "made_bits": 8 * sum(one.key_bytes for one in flown),
        "waiting_bits": 8 * sum(left for block, left in plan.waiting if block.station == name),
    }


def describe_pool(plan: MissionPlan, pool: PairPool) -> dict[str, Any]:
    """What a pair consumed, got and lacked, and how long its key will last."""
    outlook = pool.forecast()
    dry_s = sum(
        ((outage.end or plan.options.end) - outage.start).total_seconds() for outage in pool.outages
    )
    return {
        "priority": pool.demand.priority,
        "rates": [
            {"from_day": day, "bits_per_s": rate}
            for day, rate in ((0.0, pool.demand.bits_per_s), *pool.demand.steps)
        ],
        "low_water_bits": pool.demand.low_water_bits,
        "relays": sum({r.k1.station, r.k2.station} == set(pool.demand.pair) for r in plan.relays),
        "relayed_bits": pool.relayed_bits,
        "consumed_bits": round(pool.consumed_bits),
        "refused_bits": round(pool.refused_bits),
        "level_bits": round(pool.level_bits),
        "measured_bits_per_s": outlook.rate_bits_per_s,
        "lasts_days": None
        if outlook.exhausted_in_s == float("inf")
        else outlook.exhausted_in_s / DAY_S,
        "days_without_key": dry_s / DAY_S,
        "outages": [
            {"from": iso(outage.start), "to": outage.end and iso(outage.end)}
            for outage in pool.outages
        ],
    }


def describe_pass(one: PlannedPass) -> dict[str, Any]:
    """One pass and its fate."""
    contact = one.contact
    return {
        "satellite": contact.satellite.name,
        "station": contact.station.name,
        "night": contact.night.isoformat(),
        "aos": iso(contact.aos),
        "los": iso(contact.los),
        "culmination_deg": round(contact.culmination_deg, 2),
        "fate": one.fate.value,
        "trigger": one.trigger and one.trigger.value,
        "key_bits": 8 * one.key_bytes,
        "lost_to": list(one.lost_to),
    }


def describe_relay(relay: Relay) -> dict[str, Any]:
    """One relay: which key was K1, which K2, and what was spent of both."""
    return {
        "at": iso(relay.at),
        "satellite": relay.k1.satellite,
        "k1_station": relay.k1.station,
        "k1_made_at": iso(relay.k1.made_at),
        "k2_station": relay.k2.station,
        "k2_made_at": iso(relay.k2.made_at),
        "waited_days": relay.waited_s / DAY_S,
        "block_bits": 8 * relay.block_bytes,
        "pool_bits": relay.pool_bits,
        "k1_spent_bits": 8 * relay.k1_spent_bytes,
        "k2_spent_bits": 8 * relay.k2_spent_bytes,
    }


def write_plan(plan: MissionPlan, folder: Path) -> list[Path]:
    """`plan.json`, `passes.csv`, `relays.csv`, `pools.csv` and `alarms.csv` in a folder; returns what was written."""
    found = report(plan)
    path = folder / "plan.json"
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    passes = [describe_pass(one) for one in plan.passes]
    levels = (
        {"pair": pool.demand.name, "at": iso(at), "level_bits": round(bits, 3)}
        for pool in plan.pools.values()
        for at, bits in pool.levels
    )
    return [
        path,
        _write_csv(
            folder / "passes.csv", ({**one, "lost_to": ", ".join(one["lost_to"])} for one in passes)
        ),
        _write_csv(folder / "relays.csv", found["relays"]),
        _write_csv(folder / "pools.csv", levels),
        _write_csv(folder / "alarms.csv", found["alarms"]),
    ]


def _write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    rows = list(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        if rows:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return path


def _fates(passes: Iterable[PlannedPass]) -> dict[Fate, int]:
    """How many passes had each fate; every fate has an entry."""
    counts = Counter(one.fate for one in passes)
    return {fate: counts[fate] for fate in Fate}


def _pair_and_value(text: str, names: Sequence[str], example: str) -> tuple[tuple[str, str], str]:
    """The pair of `A-B=VALUE`, in the order of the stations, and the value."""
    ends, equals, value = text.rpartition("=")
    for at, one in enumerate(names):
        for other in names[at + 1 :]:
            if equals and ends in {f"{one}-{other}", f"{other}-{one}"}:
                return (one, other), value
    raise InputError(f"{text!r}: two stations of {', '.join(names)} and a number, as in {example}")


def _number(text: str, whole: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{whole!r}: {text!r} is not a number") from None


def _whole_number(text: str, whole: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{whole!r}: {text!r} is not a whole number") from None
