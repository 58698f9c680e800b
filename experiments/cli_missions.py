"""The command of the mission planner: `qntn missions`. `experiments.cli` registers it."""

from __future__ import annotations

from datetime import timedelta, timezone
from pathlib import Path
from typing import Annotated, Literal

import typer

from experiments.options import (
    STATION_FORM,
    STATION_HELP,
    TLE_HELP,
    Channel,
    CloudSeedOption,
    GuardOption,
    JsonOption,
    PersistenceOption,
    SunOption,
    show,
)

# Typer commands are called by keyword; their many parameters are the options of one command.
# ruff: noqa: PLR0917


def missions(
    days: Annotated[float, typer.Option(min=1, max=3660, help="Length of the plan.")] = 90.0,
    tle: Annotated[
        list[str] | None,
        typer.Option(
            help=TLE_HELP + " May be repeated: several satellites.",
        ),
    ] = None,
    station: Annotated[
        list[str] | None,
        typer.Option(
            metavar=STATION_FORM,
            help=STATION_HELP + "Beijing, Shanghai, Jinan and Stellenbosch.",
        ),
    ] = None,
    demand: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A-B=RATE[@DAY]",
            help="Key that two stations consume, bit/s; with @DAY, from that day of the plan on. May be repeated; "
            "by default one 256-bit key every ten minutes between the first station and each other.",
        ),
    ] = None,
    priority: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A-B=N",
            help="Priority of a pair, greater goes first; 0 by default. May be repeated.",
        ),
    ] = None,
    policy: Annotated[
        Literal["fair", "priority", "demand"],
        typer.Option(
            help="Who gets a terminal, and whose key is relayed first: the poorest by what it consumes, the pair of "
            "highest priority, or the pair that will run dry first."
        ),
    ] = "fair",
    every_days: Annotated[
        float,
        typer.Option(
            min=0,
            max=3660,
            help="A mission for every station at least this often; 0 is never.",
        ),
    ] = 7.0,
    horizon_days: Annotated[
        float,
        typer.Option(
            min=0,
            max=3660,
            help="A mission when a pair is forecast to run dry within this time; 0 is never.",
        ),
    ] = 14.0,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME",
            help="Begin of the plan, ISO 8601, in the zone of --utc-offset unless it names one; "
            "by default the day of the first elements' epoch.",
        ),
    ] = None,
    channel: Annotated[
        Channel,
        typer.Option(help="Optical downlink, which decides what a pass yields."),
    ] = "jinan1-typical",
    mask_deg: Annotated[
        float, typer.Option(min=0, max=89, help="Elevation at which a pass begins and ends.")
    ] = 10.0,
    sun_deg: SunOption = -12.0,
    clear_sky: Annotated[
        list[str] | None,
        typer.Option(
            metavar="P | NAME=P",
            help="Share of clear nights, of all stations or of one; 0.5 by default. An assumption, no forecast. "
            "May be repeated.",
        ),
    ] = None,
    persistence: PersistenceOption = 0.4,
    seed: CloudSeedOption = 1,
    guard_s: GuardOption = 60.0,
    low_water_kbit: Annotated[
        float, typer.Option(min=0, help="Below this a pool's alarm sounds.")
    ] = 100.0,
    initial_kbit: Annotated[
        float, typer.Option(min=0, help="What every pool holds at the start.")
    ] = 0.0,
    utc_offset: Annotated[
        float,
        typer.Option(min=-12, max=14, metavar="HOURS", help="Zone of the table and the plots."),
    ] = 8.0,
    plot: Annotated[
        bool, typer.Option("--plot", help="Write the plan, CSV files and plots, PNG and SVG.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the files (implies --plot); by default runs/<UTC time>-missions/."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Plan quantum satellite missions for days or months, and follow the key pools of all pairs of stations.

    Without options: 90 days from 22 November 2024 for one satellite and four stations, half of the nights overcast.
    """
    from experiments.folder import new_folder
    from experiments.mission_table import print_plan
    from experiments.missions import (
        DEFAULT_CLEAR_SKY,
        STATIONS,
        parse_demands,
        report,
        write_plan,
    )
    from experiments.passes import load_satellites, parse_clouds, parse_instant, parse_station
    from kms.missions import MissionOptions, plan_missions

    zone = timezone(timedelta(hours=utc_offset))
    satellites = load_satellites(tle or ("jinan1-a",))
    stations = tuple(map(parse_station, station or ())) or STATIONS
    clouds = parse_clouds(clear_sky or (DEFAULT_CLEAR_SKY,), persistence, seed)
    assert clouds is not None  # there is always a share
    midnight = (
        satellites[0].tle.epoch.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    )
    options = MissionOptions(
        satellites=satellites,
        stations=stations,
        demands=parse_demands(
            demand or (),
            priority or (),
            stations,
            low_water_bits=1e3 * low_water_kbit,
            initial_bits=1e3 * initial_kbit,
        ),
        start=midnight if start is None else parse_instant(start, zone),
        days=days,
        policy=policy,
        every_days=every_days or None,
        horizon_days=horizon_days or None,
        clouds=clouds,
        channel=channel,
        mask_deg=mask_deg,
        sun_below_deg=sun_deg,
        guard_s=guard_s,
    )
    folder = new_folder("missions", out) if plot or out is not None else None
    plan = plan_missions(options)
    written = []
    if folder is not None:
        from experiments.mission_plots import write_figures

        written = write_plan(plan, folder) + write_figures(plan, folder, zone)
    show(report(plan), as_json, lambda: print_plan(plan, zone), written)
