"""The commands of the quantum satellite: `qntn passes`, `qntn qkd`, `qntn bench bb84`; `experiments.cli` registers
them."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Literal

import typer

from experiments.options import (
    STATION_FORM,
    STATION_HELP,
    TLE_HELP,
    ChannelOption,
    CloudSeedOption,
    GuardOption,
    JsonOption,
    PersistenceOption,
    SeedOption,
    SunOption,
    show,
)
from topo.errors import InputError

# Typer commands are called by keyword; their many parameters are the options of one command.
# ruff: noqa: PLR0917


def passes(
    tle: Annotated[
        list[str] | None,
        typer.Option(
            help=TLE_HELP + " May be repeated.",
        ),
    ] = None,
    station: Annotated[
        list[str] | None,
        typer.Option(
            metavar=STATION_FORM,
            help=STATION_HELP + "the paper's Beijing and Shanghai.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME",
            help="Begin of the search, ISO 8601, in the zone of --utc-offset unless it names one; "
            "by default the day of the elements' epoch.",
        ),
    ] = None,
    days: Annotated[
        float | None, typer.Option(min=0, max=3660, help="Length of the search; 8 by default.")
    ] = None,
    night: Annotated[
        str | None,
        typer.Option(
            metavar="DATE",
            help="Only the night that begins on this date, noon to noon at each station, instead of --from and --days.",
        ),
    ] = None,
    mask_deg: Annotated[
        float, typer.Option(help="Elevation at which a pass begins and ends, from 0 to below 90.")
    ] = 10.0,
    sun_deg: SunOption = -12.0,
    clear_sky: Annotated[
        list[str] | None,
        typer.Option(
            metavar="P | NAME=P",
            help="Share of clear nights, of all stations or of one: turns the cloud model on, an assumption and no "
            "forecast. May be repeated.",
        ),
    ] = None,
    persistence: PersistenceOption = 0.4,
    seed: CloudSeedOption = 1,
    rule: Annotated[
        Literal["highest", "longest", "order"],
        typer.Option(
            help="Who gets the satellite when two stations see it: the higher culmination, the longer pass, or the "
            "station named first."
        ),
    ] = "highest",
    guard_s: GuardOption = 0.0,
    max_age_days: Annotated[
        float,
        typer.Option(min=0, help="How far from their epoch the elements are trusted."),
    ] = 30.0,
    utc_offset: Annotated[
        float,
        typer.Option(
            min=-12,
            max=14,
            metavar="HOURS",
            help="Zone of the times in the table; the paper's is 8.",
        ),
    ] = 8.0,
    daylight: Annotated[
        bool, typer.Option("--daylight", help="List the passes in daylight too.")
    ] = False,
    plot: Annotated[
        bool,
        typer.Option(
            "--plot", help="Draw sky plots and the ground track, PNG and SVG, beside passes.json."
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the plots (implies --plot); by default runs/<UTC time>-passes/."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the passes of quantum satellites: which are dark and clear, which compete, which station wins.

    Without options: the paper's two stations and eight days from 22 November 2024, with elements fitted to the
    paper's pass over Beijing (22:40:01 to 22:47:29 UTC+8).
    """
    from experiments.pass_table import print_passes
    from experiments.passes import (
        PAPER_STATIONS,
        PassOptions,
        list_passes,
        parse_clouds,
        parse_instant,
        parse_station,
    )

    zone = timezone(timedelta(hours=utc_offset))
    if night is not None and (start is not None or days is not None):
        raise InputError("--night and --from or --days exclude each other: a night has its own")
    found = list_passes(
        PassOptions(
            tles=tuple(tle or ("jinan1-a",)),
            stations=tuple(map(parse_station, station or ())) or PAPER_STATIONS,
            start=None if start is None else parse_instant(start, zone),
            days=8.0 if days is None else days,
            night=None if night is None else _date(night),
            mask_deg=mask_deg,
            max_age_days=max_age_days,
            sun_below_deg=sun_deg,
            clouds=parse_clouds(clear_sky or (), persistence, seed),
            rule=rule,
            guard_s=guard_s,
            zone=zone,
        )
    )
    drawn: list[Path] = []
    if plot or out is not None:
        from experiments.pass_plots import write_passes

        drawn = write_passes(found, out)
    show(found.report(), as_json, lambda: print_passes(found, daylight), drawn)


def qkd(
    channel: ChannelOption = "jinan1-typical",
    tle: Annotated[
        str | None,
        typer.Option(help=TLE_HELP),
    ] = None,
    station: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[=LAT,LON[,ALT_M]]",
            help="Ground station: Beijing (default), Shanghai, or any by degrees north and east (WGS 84).",
        ),
    ] = None,
    night: Annotated[
        str | None,
        typer.Option(
            metavar="DATE",
            help="The night that begins on this date, noon to noon at the station: its highest dark pass is flown. "
            "2024-11-22 by default.",
        ),
    ] = None,
    mask_deg: Annotated[
        float, typer.Option(help="Elevation below which nothing is received.")
    ] = 10.0,
    altitude_km: Annotated[
        float | None,
        typer.Option(
            help="Fly a circular orbit at this altitude instead of --tle; 511 by default."
        ),
    ] = None,
    culmination_deg: Annotated[
        float | None,
        typer.Option(
            help="Highest elevation of the circular orbit's pass, instead of --tle; 77.9 by default."
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one parameter of the link or the source: link.receiver_m=0.6, "
            "source.intensities=0.7,0.1,0. May be repeated.",
        ),
    ] = None,
    optimise: Annotated[
        bool,
        typer.Option("--optimise", help="Choose basis bias, intensities and window for the pass."),
    ] = False,
    intercept_resend: Annotated[
        float,
        typer.Option(
            "--intercept-resend",
            "--eavesdropper",
            min=0,
            max=1,
            help="Share of pulses that an eavesdropper measures and sends anew.",
        ),
    ] = 0.0,
    photon_number_splitting: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Share of pulses of which she keeps a photon where there are several, and blocks single ones.",
        ),
    ] = 0.0,
    blinding: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of pulses during which she blinds one basis's detectors."
        ),
    ] = 0.0,
    blinded_basis: Annotated[
        Literal["X", "Z"], typer.Option(help="Whose detectors she blinds.")
    ] = "Z",
    fading: Annotated[
        bool,
        typer.Option(
            "--fading", help="Let turbulence and pointing vary the loss from second to second."
        ),
    ] = False,
    seed: SeedOption = 1,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; by default runs/<UTC time>-qkd/.")
    ] = None,
    plots: Annotated[
        bool, typer.Option(help="Draw loss, counts, QBER and key along the pass.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """What key a quantum satellite's pass yields, from photons to secret bits: key block, report, plots.

    Without options: the paper's pass over Beijing of 22 November 2024. Status 1 when there is no key.
    """
    from experiments.passes import PassOptions, best_pass
    from experiments.qkd import QkdOptions, run_qkd
    from experiments.qkd_input import circular, known_station, of_contact
    from experiments.qkd_terminal import print_qkd
    from experiments.terminal import TerminalReporter
    from quantum.bb84.eavesdropper import Eavesdropper

    if altitude_km is None and culmination_deg is None:
        flown = of_contact(
            best_pass(
                PassOptions(
                    tles=(tle or "jinan1-a",),
                    stations=(known_station(station or "Beijing"),),
                    night=_date(night or "2024-11-22"),
                    mask_deg=mask_deg,
                )
            )
        )
    elif (tle, station, night) == (None, None, None):
        flown = circular(
            511.0 if altitude_km is None else altitude_km,
            77.9 if culmination_deg is None else culmination_deg,
            mask_deg,
        )
    else:
        raise InputError(
            "--altitude-km and --culmination-deg make a circular orbit: without --tle, --station, --night"
        )
    options = QkdOptions(
        channel=channel,
        changes=changes or (),
        optimise=optimise,
        eavesdropper=Eavesdropper(
            intercept_resend, photon_number_splitting, blinding, blinded_basis
        ),
        fading=fading,
        seed=seed,
        out=out,
        plots=plots,
    )
    with TerminalReporter(quiet=as_json) as reporter:
        outcome = run_qkd(flown, options, reporter)
    show(outcome.report, as_json, lambda: print_qkd(outcome))
    if outcome.key_file is None:
        raise typer.Exit(1)


def bench_bb84(
    channel: ChannelOption = "jinan1-clear",
    seed: SeedOption = 1,
    peer_python: Annotated[
        Path,
        typer.Option(
            help="Interpreter that has SeQUeNCe; a relative path starts at the project's folder."
        ),
    ] = Path(".venv-peers/bin/python"),
    peer_pulses: Annotated[
        int, typer.Option(min=50_000, help="Pulses that SeQUeNCe simulates.")
    ] = 500_000,
    as_json: JsonOption = False,
) -> None:
    """How long a Jinan-1 pass takes from elements to secret bits, beside SeQUeNCe at the same loss."""
    from experiments.bench.bb84 import run
    from experiments.qkd_terminal import print_bb84_bench
    from experiments.terminal import TerminalReporter

    with TerminalReporter(quiet=as_json) as reporter:
        found = run(channel, seed, peer_python, peer_pulses, reporter)
    show(found, as_json, lambda: print_bb84_bench(found))


def _date(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise InputError(f"--night {text}: a date such as 2024-11-22") from None
