"""A mission plan as pictures: the passes station by station, the pools, and the keys that wait.

Figures are made without pyplot. A fate is told by its mark as well as by its colour.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import matplotlib.dates as mdates
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from experiments.drawing import GREY, PALETTE, STYLE, empty_figure, save
from kms.demand import PairPool
from kms.missions import Fate, MissionPlan, PlannedPass
from topo.space.stations import Station

WIDTH_IN: Final = 12.0
CLOUD: Final = "#cfd8e3"
DRY: Final = "#f6c9c0"
STEM: Final = 0.82
"""Height of the best pass's stem in a lane of height 1."""
MARKS: Final[dict[Fate, dict[str, Any]]] = {
    Fate.FLOWN: {"marker": "o", "markersize": 4},
    Fate.CONFLICT: {"marker": "x", "markersize": 5, "color": "#000000"},
    Fate.CLOUD: {"marker": "_", "markersize": 5, "color": "#5b6b80"},
    Fate.NOT_NEEDED: {"marker": "o", "markersize": 3.5, "markerfacecolor": "white", "color": GREY},
    Fate.NO_KEY: {"marker": "|", "markersize": 3, "color": "#999999"},
    Fate.DAYLIGHT: {"marker": "|", "markersize": 3, "color": "#f0b429"},
}
LEGEND: Final = {
    Fate.CONFLICT: "terminal taken by another",
    Fate.CLOUD: "overcast",
    Fate.NOT_NEEDED: "not needed",
    Fate.NO_KEY: "too low for key",
    Fate.DAYLIGHT: "daylight",
}


def write_figures(plan: MissionPlan, folder: Path, zone: tzinfo) -> list[Path]:
    """Draw `timeline.*` and `pools.*`, PNG and SVG, into a folder; returns what was written."""
    written = []
    with mpl.rc_context(STYLE):
        for stem, draw in (("timeline", timeline_figure), ("pools", pools_figure)):
            written += save(draw(plan, zone), folder, stem)
    return written


def timeline_figure(plan: MissionPlan, zone: tzinfo) -> Figure:
    """All passes, a lane a station: a stem as high as the key it gives or would have given.

    Overcast nights are grey. A flown pass is drawn in its satellite's colour; what gives no key, in
    daylight or too low, is a tick on the ground.
    """
    options = plan.options
    stations = list(reversed(options.stations))
    figure = empty_figure(WIDTH_IN, 1.15 * len(stations) + 1.4)
    axis = figure.subplots()
    most = max((one.key_bytes for one in plan.passes), default=0) or 1
    satellites = [satellite.name for satellite in options.satellites]
    colours = {name: PALETTE[at % len(PALETTE)] for at, name in enumerate(satellites)}
    for lane, station in enumerate(stations):
        axis.axhline(lane, color="#bbbbbb", linewidth=0.8)
        _overcast(axis, plan, station, lane)
        for one in plan.passes:
            if one.contact.station.name == station.name:
                _stem(axis, one, lane, one.key_bytes / most, colours[one.contact.satellite.name])
    axis.set_yticks([lane + 0.35 for lane in range(len(stations))], [s.name for s in stations])
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False, axis="y")
    axis.set_ylim(-0.12, len(stations))
    _days(axis, plan, zone)
    best_kbit = 8 * most / 1e3
    axis.set_title(
        f"Passes and missions, policy {options.policy!r}; the highest stem is {best_kbit:.0f} kbit",
        loc="left",
    )
    handles: list[Any] = [
        Line2D(
            [], [], linestyle="", color=colours[name], label=f"flown, {name}", **MARKS[Fate.FLOWN]
        )
        for name in satellites
    ]
    handles += [
        Line2D([], [], linestyle="", label=label, **{**MARKS[fate], "markersize": 7})
        for fate, label in LEGEND.items()
    ]
    handles.append(Patch(facecolor=CLOUD, label="overcast night"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(7, len(handles)))
    return figure


def pools_figure(plan: MissionPlan, zone: tzinfo) -> Figure:
    """The level of each pair's pool, kbit, and below them the key of each station that waits on the satellites.

    The dashed line is the low-water mark, red a time without key, a triangle a relay.
    """
    pools = list(plan.pools.values())
    figure = empty_figure(WIDTH_IN, 1.75 * (len(pools) + 1) + 0.9)
    *panels, last = figure.subplots(len(pools) + 1, 1, sharex=True, squeeze=False).flat
    for axis, pool in zip(panels, pools, strict=True):
        _pool(axis, plan, pool)
    _waiting(last, plan)
    _days(last, plan, zone)
    figure.legend(
        handles=[
            Line2D([], [], color=GREY, linestyle="--", label="low-water mark"),
            Line2D([], [], color="#000000", marker="^", linestyle="", markersize=4, label="relay"),
            Patch(facecolor=DRY, label="no key"),
        ],
        loc="outside lower center",
        ncols=3,
    )
    return figure


def _stem(axis: Axes, one: PlannedPass, lane: int, share: float, colour: str) -> None:
    at = _number(one.contact.culmination)
    top = lane + STEM * share
    look = {"color": colour, **MARKS[one.fate]}
    if one.key_bytes:
        axis.vlines(at, lane, top, color=look["color"], linewidth=0.9)
    axis.plot([at], [top], linestyle="", zorder=3 if one.fate is Fate.FLOWN else 2, **look)


def _overcast(axis: Axes, plan: MissionPlan, station: Station, lane: int) -> None:
    """Grey from noon to noon of each overcast night."""
    options = plan.options
    noon_utc_h = 12 - station.longitude_deg / 15
    first = options.start.astimezone(UTC).date() - timedelta(days=1)
    for number in range(int(options.days) + 3):
        night = first + timedelta(days=number)
        if not options.clouds.is_clear(station.name, night):
            noon = datetime.combine(night, datetime.min.time(), UTC) + timedelta(hours=noon_utc_h)
            axis.broken_barh(
                [(_number(noon), 1.0)], (lane, 0.9), facecolor=CLOUD, linewidth=0, zorder=0
            )


def _pool(axis: Axes, plan: MissionPlan, pool: PairPool) -> None:
    demand = pool.demand
    colour = PALETTE[list(plan.pools).index(demand.pair) % len(PALETTE)]
    times = [_number(at) for at, _ in pool.levels]
    kbit = [bits / 1e3 for _, bits in pool.levels]
    axis.plot(times, kbit, color=colour, linewidth=1.2)
    axis.fill_between(times, kbit, color=colour, alpha=0.15, linewidth=0)
    axis.axhline(demand.low_water_bits / 1e3, color=GREY, linestyle="--", linewidth=0.8)
    for outage in pool.outages:
        axis.axvspan(
            _number(outage.start),
            _number(outage.end or plan.options.end),
            color=DRY,
            linewidth=0,
            zorder=0,
        )
    after = dict(pool.levels)  # the last corner of an instant is the level after the relay
    relays = [
        relay.at for relay in plan.relays if {relay.k1.station, relay.k2.station} == {*demand.pair}
    ]
    axis.plot(
        [_number(at) for at in relays],
        [after[at] / 1e3 for at in relays],
        color=colour,
        marker="^",
        markersize=4,
        linestyle="",
    )
    rates = ", ".join(
        [
            f"{demand.bits_per_s:.2g}",
            *(f"{rate:.2g} from day {day:g}" for day, rate in demand.steps),
        ]
    )
    axis.set_title(
        f"{demand.name}: {rates} bit/s, priority {demand.priority}, {len(relays)} relays",
        loc="left",
    )
    axis.set_ylabel("kbit")
    axis.set_ylim(bottom=0)


def _waiting(axis: Axes, plan: MissionPlan) -> None:
    """What waits of each station, as steps from the missions and the relays."""
    for at, station in enumerate(plan.options.stations):
        changes = [
            (one.contact.los, one.key_bytes)
            for one in plan.missions
            if one.contact.station.name == station.name and one.contact.los <= plan.options.end
        ]
        for relay in plan.relays:
            for block, spent in (
                (relay.k1, relay.k1_spent_bytes),
                (relay.k2, relay.k2_spent_bytes),
            ):
                if block.station == station.name:
                    changes.append((relay.at, -spent))
        left, times, kbit = 0, [_number(plan.options.start)], [0.0]
        # What a pass makes comes before what a relay of the same instant takes of it.
        for when, change in sorted(changes, key=lambda change: (change[0], -change[1])):
            left += change
            times.append(_number(when))
            kbit.append(8 * left / 1e3)
        times.append(_number(plan.options.end))
        kbit.append(kbit[-1])
        axis.step(
            times,
            kbit,
            where="post",
            color=PALETTE[at % len(PALETTE)],
            linewidth=1.1,
            label=station.name,
        )
    axis.set_title("Key that waits on the satellites for its relay", loc="left")
    axis.set_ylabel("kbit")
    axis.set_ylim(bottom=0)
    axis.legend(loc="upper left", ncols=len(plan.options.stations), fontsize=8)


def _days(axis: Axes, plan: MissionPlan, zone: tzinfo) -> None:
    locator = mdates.AutoDateLocator(tz=zone)  # type: ignore[no-untyped-call]
    axis.xaxis.set_major_locator(locator)
    formatter = mdates.ConciseDateFormatter(locator, tz=zone)  # type: ignore[no-untyped-call]
    axis.xaxis.set_major_formatter(formatter)
    axis.set_xlim(_number(plan.options.start), _number(plan.options.end))


def _number(at: datetime) -> float:
    """An instant on a time axis."""
    return float(mdates.date2num(at))  # type: ignore[no-untyped-call]
