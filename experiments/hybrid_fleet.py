"""How many satellites: the threshold distance, the key and the cost; figure 8 of Photonics 11, 268 (2024).

For every number of satellites the whole network is run over a day in steps. A pair counts for what made it more key
over that day, fibre or satellites; then the two fits as for one instant. The satellite at rest above Zurich is the
reference: what more satellites cannot improve on by much. Costs are the user's: one for each satellite, one to begin
with.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from math import inf
from multiprocessing import get_context
from typing import Any, Final

import pandas as pd

from experiments import hybrid_setup as setup
from experiments.folder import new_folder
from experiments.hybrid import Outcome, steps_of, threshold_report, write
from experiments.hybrid_setup import DAY_HOURS, HybridOptions
from experiments.progress import Reporter
from quantum.repeaters.constellation import Constellation, FixedSatellite, Walker
from quantum.repeaters.day import Day, run
from quantum.repeaters.network import Network
from quantum.repeaters.routing import Kind, Router
from quantum.repeaters.weather import Weather
from topo.errors import InputError

SATELLITES: Final = (*range(1, 7), 8, 10, 12, 15, 18, 20, 22, 25, 28, 30)
PLANES: Final = (1, 5)
STEP_MIN: Final = 3.0
"""Shorter than the time from one of 30 satellites in a plane to the next, 3.3 minutes at 700 km: a longer step is a
stroboscope, which some numbers of satellites seem to stand still in."""
REACH_KM: Final = 25.0
"""A fleet does as well as the satellite at rest when its threshold is no further beyond that one's."""


def run_constellation(
    options: HybridOptions,
    satellites: Sequence[int] = SATELLITES,
    planes: Sequence[int] = PLANES,
    *,
    altitude_km: float = 700.0,
    inclination_deg: float = 90.0,
    step_min: float = STEP_MIN,
    cost_per_satellite: float = 1.0,
    cost_fixed: float = 0.0,
    reporter: Reporter,
) -> Outcome:
    """Threshold and key of a day against the number of satellites, in one plane and in several.

    Zero satellites are the fibre network alone. Raises `InputError` for what cannot be, before anything is made.
    """
    if not satellites or not planes:
        raise InputError("--satellites and --planes need at least one number each")
    if not (0 <= cost_per_satellite < inf and 0 <= cost_fixed < inf):
        raise InputError("--cost-per-satellite and --cost-fixed must be 0 or more")
    steps = steps_of(1.0, step_min)
    fleets = {
        (plane, number): Walker(number, plane, altitude_km, inclination_deg)
        for plane in sorted(set(planes))
        for number in sorted(set(satellites))
    }
    net = setup.network(options)
    start_s = setup.start_s(options.date)
    sky = setup.weather(options.weather, net.cities, start_s, DAY_HOURS, options.seed)
    folder = new_folder("hybrid-constellation", options.out)
    work = _Work(net, sky, start_s, steps, 60 * step_min, options.router)
    reporter.stage("constellations over a day", len(fleets) + 1)
    found: list[Day] = []
    for day in _days(
        work, [*fleets.values(), FixedSatellite(altitude_km=altitude_km)], options.workers
    ):
        found.append(day)
        reporter.advance(len(found), f"{len(found)} of {len(fleets) + 1}")
    *of_fleets, reference = found
    rows = [
        _row(day, options.router, plane, number)
        for (plane, number), day in zip(fleets, of_fleets, strict=True)
    ]
    fixed = reference.threshold(options.router)
    table = with_costs(pd.DataFrame(rows), cost_per_satellite, cost_fixed)
    report: dict[str, Any] = {
        **setup.heading(
            "constellation",
            net,
            options,
            sky,
            f"planes: {', '.join(map(str, sorted(set(planes))))}; {altitude_km:g} km, {inclination_deg:g}°",
        ),
        "step_min": step_min,
        "cost": {"per_satellite": cost_per_satellite, "fixed": cost_fixed},
        "fixed_satellite": {
            "threshold": threshold_report(fixed),
            "key_bits": float(reference.total_bits(options.router).sum()),
        },
        "reaches_fixed_at": {
            str(plane): reaches(
                of["satellites"].tolist(), of["threshold_km"].tolist(), fixed.distance_km
            )
            for plane, of in table.groupby("planes")
        },
        "rows": [
            {name: None if pd.isna(value) else value for name, value in row.items()}
            for row in table.to_dict("records")
        ],
    }
    outcome = Outcome(folder, report, {"constellation": table})
    write(outcome)
    if options.plots:
        from experiments.hybrid_trade_plots import write_constellation

        reporter.stage("plots")
        write_constellation(outcome)
    return outcome


def with_costs(table: pd.DataFrame, per_satellite: float, fixed: float) -> pd.DataFrame:
    """The rows of `run_constellation` with costs; each is compared with the next smaller fleet in as many planes.

    Adds `cost`, `cost_per_Tbit` (of the day's key by paths with a satellite), `cost_per_extra_Tbit` and
    `cost_per_km` (of threshold gained); empty where nothing is gained.
    """
    table = table.sort_values(["planes", "satellites"], ignore_index=True)
    table["cost"] = fixed + per_satellite * table["satellites"]
    table.loc[table["satellites"] == 0, "cost"] = 0.0
    before = table.groupby("planes")
    extra_cost = before["cost"].diff()
    extra_Tbit = before["key_bits"].diff() / 1e12
    gained_km = -before["threshold_km"].diff()
    by_satellites_Tbit = table["key_bits_by_satellites"] / 1e12
    table["cost_per_Tbit"] = (table["cost"] / by_satellites_Tbit).where(by_satellites_Tbit > 0)
    table["cost_per_extra_Tbit"] = (extra_cost / extra_Tbit).where(extra_Tbit > 0)
    table["cost_per_km"] = (extra_cost / gained_km).where(gained_km > 0)
    return table


def reaches(
    satellites: Sequence[int], threshold_km: Sequence[float | None], fixed_km: float | None
) -> int | None:
    """The least number from which on the threshold is within `REACH_KM` of `fixed_km`; None where it never is."""
    reached = None
    for number, distance in sorted(zip(satellites, threshold_km, strict=True), reverse=True):
        if fixed_km is None or distance is None or not distance <= fixed_km + REACH_KM:
            break
        reached = int(number)
    return reached


@dataclass(frozen=True)
class _Work:
    """A day of the same network and weather under any satellites, in one process."""

    net: Network
    sky: Weather
    start_s: float
    steps: int
    step_s: float
    router: Router

    def __call__(self, satellites: Constellation) -> Day:
        return run(
            self.net,
            satellites,
            self.sky,
            self.start_s,
            steps=self.steps,
            step_s=self.step_s,
            routers=(self.router,),
            processes=1,
        )


def _days(work: _Work, fleets: Sequence[Constellation], workers: int | None) -> Iterator[Day]:
    """A day under each of the fleets, in their order, a process a fleet."""
    processes = min(workers or os.cpu_count() or 1, len(fleets))
    if processes == 1:
        yield from map(work, fleets)
        return
    with ProcessPoolExecutor(processes, get_context("forkserver")) as executor:
        yield from executor.map(work, fleets)


def _row(day: Day, router: Router, planes: int, satellites: int) -> dict[str, float | int | None]:
    bits = day.key_bits[router]
    found = day.threshold(router)
    by_satellites = float(bits[:, Kind.SPACE].sum() + bits[:, Kind.HYBRID].sum())
    return {
        "planes": planes,
        "satellites": satellites,
        "threshold_km": found.distance_km,
        "key_bits": float(day.total_bits(router).sum()),
        "key_bits_by_satellites": by_satellites,
        "pairs_without_key": int((day.total_bits(router) == 0).sum()),
    }
