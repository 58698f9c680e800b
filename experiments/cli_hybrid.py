"""The commands of the hybrid ground/space network: `qntn hybrid ...` and `qntn bench hybrid`; `experiments.cli`
registers them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date as Date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from experiments.options import JsonOption, show
from topo.errors import InputError

if TYPE_CHECKING:
    from experiments.hybrid import Outcome
    from experiments.hybrid_setup import HybridOptions
    from experiments.progress import Reporter

# Typer commands are called by keyword; their many parameters are the options of one command.
# ruff: noqa: PLR0917

app = typer.Typer(
    help="The hybrid ground/space quantum network: fibre, satellites, and the best paths over both. "
    "Calibrated, not verified against the paper's Table 1.",
    no_args_is_help=True,
)

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Change one parameter: source_werner=0.995, receiver_m=0.8, car_model=one_sided. May be repeated.",
    ),
]
CitiesOption = Annotated[
    Path | None,
    typer.Option(help="CSV file of other cities: name, country, lat, lon, population."),
]
WeatherOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CLIMATE | FILE",
        help="SYNTHETIC weather of a climate (clear, mid, winter), or a weather file; files may be repeated.",
    ),
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of synthetic weather.")]
RouterOption = Annotated[
    Literal["paper", "safe"],
    typer.Option(
        help="paper: Dijkstra on -ln SKP, which counts neither swaps nor joint fidelity; safe: never worse than that "
        "or than the direct link."
    ),
]
DateOption = Annotated[
    str, typer.Option(metavar="DATE", help="First day, or an instant in ISO 8601; UTC.")
]
OutOption = Annotated[
    Path | None, typer.Option(help="Run folder; by default runs/<UTC time>-hybrid-<name>/.")
]
PlotsOption = Annotated[bool, typer.Option(help="Draw the plots.")]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Processes; by default one a core. Changes no result.")
]
PairOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CITY-CITY",
        help="A pair to look at closely; may be repeated. By default Brussels-Köln, Milan-Vienna and Madrid-Warsaw.",
    ),
]
CONSTELLATIONS = (
    "N or N/PLANES satellites in polar planes (25, 25/5), N/PLANES@ALTITUDE_KM,INCLINATION_DEG, delta:N/PLANES@..., "
    "fixed, fixed:LAT,LON,ALTITUDE_KM, or tle:FILE."
)
PAPER_DATE = "2024-01-01"


@app.command()
def fixed(
    satellite: Annotated[str, typer.Option(help="Satellites: " + CONSTELLATIONS)] = "fixed",
    pair: PairOption = None,
    changes: SetOption = None,
    cities: CitiesOption = None,
    weather: WeatherOption = None,
    seed: SeedOption = 1,
    router: RouterOption = "paper",
    date: DateOption = PAPER_DATE,
    out: OutOption = None,
    plots: PlotsOption = True,
    as_json: JsonOption = False,
) -> None:
    """Every pair under a satellite at rest, at night: key rate over distance, threshold, map (figure 5).

    Without options: 700 km above Zurich, clear sky.
    """
    from experiments.hybrid import run_fixed
    from experiments.hybrid_table import print_fixed

    options = _options(changes, cities, weather or ["clear"], seed, router, date, out, plots)
    _carry_out(
        lambda reporter: run_fixed(options, satellite, pair or None, reporter=reporter),
        print_fixed,
        as_json,
    )


@app.command()
def day(
    constellation: Annotated[str, typer.Option(help=CONSTELLATIONS)] = "25",
    pair: PairOption = None,
    days: Annotated[float, typer.Option(help="Length.")] = 1.0,
    step_min: Annotated[float, typer.Option(help="Minutes from one instant to the next.")] = 1.0,
    changes: SetOption = None,
    cities: CitiesOption = None,
    weather: WeatherOption = None,
    seed: SeedOption = 1,
    router: RouterOption = "safe",
    date: DateOption = PAPER_DATE,
    workers: WorkersOption = None,
    out: OutOption = None,
    plots: PlotsOption = True,
    as_json: JsonOption = False,
) -> None:
    """A day minute by minute: key of every pair; key, BSM fidelity and weather loss of some (figure 6).

    Without options: 1 January 2024, 25 satellites in one polar plane, SYNTHETIC weather of the climate mid.
    """
    from experiments.hybrid import run_day
    from experiments.hybrid_table import print_day

    options = _options(changes, cities, weather or ["mid"], seed, router, date, out, plots, workers)
    _carry_out(
        lambda reporter: run_day(
            options, constellation, pair or None, days=days, step_min=step_min, reporter=reporter
        ),
        print_day,
        as_json,
    )


@app.command("filter")
def filter_(
    elevation_deg: Annotated[float, typer.Option(help="Of the satellite at both stations.")] = 45.0,
    altitude_km: Annotated[float, typer.Option(help="Of its orbit.")] = 700.0,
    irradiance: Annotated[float, typer.Option(help="Diffuse light on the ground, W/m².")] = 100.0,
    visibility_km: Annotated[float, typer.Option(help="Of the air; there is no cloud.")] = 23.0,
    changes: SetOption = None,
    out: OutOption = None,
    plots: PlotsOption = True,
    as_json: JsonOption = False,
) -> None:
    """Pointing accuracy and field of view against signal and stray light, by day (figure 7).

    Unless --set says otherwise, spatial_filter is true and car_model one_sided, the strict one.
    """
    from experiments.hybrid_filter import run_filter
    from experiments.hybrid_setup import HybridOptions
    from experiments.hybrid_table import print_filter

    options = HybridOptions(changes=changes or (), out=out, plots=plots)
    _carry_out(
        lambda reporter: run_filter(
            options,
            elevation_deg=elevation_deg,
            altitude_km=altitude_km,
            irradiance_W_m2=irradiance,
            visibility_km=visibility_km,
            reporter=reporter,
        ),
        print_filter,
        as_json,
    )


@app.command()
def constellation(
    satellites: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...", help="Numbers of satellites, 0 or more; 1 to 30 by default."
        ),
    ] = None,
    planes: Annotated[str, typer.Option(metavar="N,N,...", help="Numbers of planes.")] = "1,5",
    altitude_km: Annotated[float, typer.Option(help="Of the orbits.")] = 700.0,
    inclination_deg: Annotated[float, typer.Option(help="90 is polar.")] = 90.0,
    step_min: Annotated[float, typer.Option(help="Minutes from one instant to the next.")] = 3.0,
    cost_per_satellite: Annotated[float, typer.Option(help="In any unit.")] = 1.0,
    cost_fixed: Annotated[float, typer.Option(help="Of having any satellite at all.")] = 0.0,
    changes: SetOption = None,
    cities: CitiesOption = None,
    weather: WeatherOption = None,
    seed: SeedOption = 1,
    router: RouterOption = "paper",
    date: DateOption = PAPER_DATE,
    workers: WorkersOption = None,
    out: OutOption = None,
    plots: PlotsOption = True,
    as_json: JsonOption = False,
) -> None:
    """The threshold distance and the key of a day against the number of satellites, with their cost (figure 8).

    Without options: 1 to 30 satellites in one polar plane and in five, clear sky with daylight.
    """
    from experiments.hybrid_fleet import SATELLITES, run_constellation
    from experiments.hybrid_table import print_constellation

    options = _options(
        changes, cities, weather or ["clear"], seed, router, date, out, plots, workers
    )
    numbers = SATELLITES if satellites is None else _numbers("--satellites", satellites)
    _carry_out(
        lambda reporter: run_constellation(
            options,
            numbers,
            _numbers("--planes", planes),
            altitude_km=altitude_km,
            inclination_deg=inclination_deg,
            step_min=step_min,
            cost_per_satellite=cost_per_satellite,
            cost_fixed=cost_fixed,
            reporter=reporter,
        ),
        print_constellation,
        as_json,
    )


@app.command()
def sweep(
    weather: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLIMATE[:SEED] | FILE,FILE",
            help="One weather: SYNTHETIC of a climate and a seed (mid:1 and mid:2 by default), or files. May be "
            "repeated.",
        ),
    ] = None,
    constellation: Annotated[
        list[str] | None,
        typer.Option(help="10/1 and 25/1 by default; may be repeated. " + CONSTELLATIONS),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE,VALUE",
            help="A parameter and its values: receiver_m=0.8,1.0. May be repeated: all are combined.",
        ),
    ] = None,
    days: Annotated[float, typer.Option(help="Length of every run.")] = 1.0,
    step_min: Annotated[float, typer.Option(help="Minutes from one instant to the next.")] = 3.0,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Dask scheduler of a cluster, tcp://HOST:8786; its workers need this program and the files named. "
            "By default this machine's cores.",
        ),
    ] = None,
    changes: SetOption = None,
    cities: CitiesOption = None,
    router: RouterOption = "paper",
    date: Annotated[
        list[str] | None, typer.Option(metavar="DATE", help="First day; may be repeated.")
    ] = None,
    workers: WorkersOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The sweep's folder; what is there already is not computed again. By default a new one."
        ),
    ] = None,
    plots: PlotsOption = True,
    as_json: JsonOption = False,
) -> None:
    """Many runs: weathers times constellations times parameters, with Dask; goes on where it was interrupted."""
    from experiments.hybrid_sweep import Grid, run_sweep
    from experiments.hybrid_table import print_sweep

    dates = date or [PAPER_DATE]
    options = _options(changes, cities, ["clear"], 1, router, dates[0], out, plots, workers)
    grid = Grid(
        weather or Grid.weathers,
        constellation or Grid.constellations,
        vary or (),
        dates,
        days,
        step_min,
    )
    _carry_out(
        lambda reporter: run_sweep(options, grid, scheduler=scheduler, reporter=reporter),
        print_sweep,
        as_json,
    )


@app.command("fetch-weather")
def fetch_weather(
    file: Annotated[Path, typer.Argument(help="The file to write, for --weather.")],
    first: Annotated[str, typer.Option(metavar="DATE", help="First day, UTC.")] = PAPER_DATE,
    last: Annotated[
        str | None, typer.Option(metavar="DATE", help="Last day; by default the first.")
    ] = None,
    cities: CitiesOption = None,
) -> None:
    """Get the hourly weather of all cities from Open-Meteo (needs a network; data CC BY 4.0)."""
    from quantum.repeaters.cities import CITIES_CSV, read_cities
    from quantum.repeaters.weather_fetch import fetch

    places = fetch(
        read_cities(cities or CITIES_CSV),
        _date("--first", first),
        _date("--last", last or first),
        file,
    )
    typer.echo(f"{file}: weather of {places} places")


def bench(
    minutes: Annotated[int, typer.Option(min=1, help="Of the day.")] = 1440,
    satellites: Annotated[int, typer.Option(min=0, help="In five polar planes.")] = 25,
    workers: WorkersOption = None,
    peer_minutes: Annotated[
        int, typer.Option(min=1, help="Minutes that the networkx way does; the rest is scaled.")
    ] = 1,
    as_json: JsonOption = False,
) -> None:
    """How long a day of all pairs takes, how that grows, and the same pair by pair with networkx."""
    from experiments.bench.hybrid import run
    from experiments.hybrid_table import print_bench
    from experiments.terminal import TerminalReporter

    with TerminalReporter(quiet=as_json) as reporter:
        found = run(minutes, satellites, workers, peer_minutes, reporter)
    show(found, as_json, lambda: print_bench(found))


def _options(
    changes: list[str] | None,
    cities: Path | None,
    weather: list[str],
    seed: int,
    router: Literal["paper", "safe"],
    date: str,
    out: Path | None,
    plots: bool,
    workers: int | None = None,
) -> HybridOptions:
    from experiments.hybrid_setup import HybridOptions

    return HybridOptions(changes or (), cities, weather, seed, router, date, out, plots, workers)


def _carry_out(
    run: Callable[[Reporter], Outcome], to_people: Callable[[Outcome], None], as_json: bool
) -> None:
    from experiments.terminal import TerminalReporter

    with TerminalReporter(quiet=as_json) as reporter:
        outcome = run(reporter)
    show({**outcome.report, "folder": str(outcome.folder)}, as_json, lambda: to_people(outcome))


def _numbers(option: str, text: str) -> list[int]:
    """`1,5,10` or `1-30`, or both."""
    numbers: list[int] = []
    try:
        for part in text.split(","):
            first, hyphen, last = part.partition("-")
            numbers += range(int(first), int(last) + 1) if hyphen else [int(first)]
    except ValueError:
        raise InputError(f"{option} {text}: whole numbers such as 1,5,10 or 1-30") from None
    return numbers


def _date(option: str, text: str) -> Date:
    try:
        return Date.fromisoformat(text)
    except ValueError:
        raise InputError(f"{option} {text}: a date such as 2024-01-01") from None
