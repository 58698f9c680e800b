"""The passes of a search as a table in the terminal."""

from __future__ import annotations

from datetime import datetime

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.passes import ListedPass, PassList, clock_text, rounded
from experiments.tables import needed_width, print_table


def print_passes(found: PassList, daylight: bool) -> None:
    """Print the passes and what was assumed of them; those in daylight only if asked to."""
    console = Console()
    shown = [one for one in found.passes if one.is_dark or daylight]
    if shown:
        table = _table(found, shown, is_wide=True)
        if console.is_terminal and needed_width(console, table) > console.width:
            table = _table(found, shown, is_wide=False)
        print_table(console, table)
    for line in _notes(found, len(shown)):
        console.print(line, highlight=False, soft_wrap=True)


def _table(found: PassList, shown: list[ListedPass], *, is_wide: bool) -> Table:
    """The table; only what a narrow terminal holds unless `is_wide`."""
    zone = found.options.zone
    names = [satellite.name for satellite in found.satellites]
    table = Table(
        title=f"{', '.join(names)}: passes above {found.options.mask_deg:g}°, "
        f"times in {datetime.now(zone):%Z}",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    table.add_column("date", no_wrap=True)
    table.add_column("station", overflow="fold")
    if len(names) > 1:
        table.add_column("satellite", overflow="fold")
    for column in ("AOS", "LOS", "s", "max el."):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("azimuth", "km", "Sun", "Moon", "lit") if is_wide else ("Sun",):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("sky", overflow="fold")
    table.add_column("terminal", overflow="fold")
    day = None
    for one in shown:
        contact, sky = one.contact, one.contact.sky
        before, day = day, f"{rounded(contact.aos, zone):%d %b}"
        sun = f"{sky.sun_elevation_deg:.0f}°"
        details = (
            f"{contact.aos_azimuth_deg:.0f}→{contact.los_azimuth_deg:.0f}°",
            f"{contact.min_range_km:.0f}",
            sun,
            f"{sky.moon_elevation_deg:.0f}°, {sky.moon_illumination:.0%}",
            f"{sky.sunlit_fraction:.0%}",
        )
        table.add_row(
            day if day != before else "",
            contact.station.name,
            *([contact.satellite.name] if len(names) > 1 else []),
            clock_text(contact.aos, zone),
            clock_text(contact.los, zone),
            f"{contact.duration_s:.0f}",
            f"{contact.culmination_deg:.1f}°",
            *(details if is_wide else (sun,)),
            one.sky_verdict,
            one.terminal_verdict,
            style="bold" if one.is_granted else ("" if one.is_usable else "dim"),
        )
    return table


def _notes(found: PassList, shown: int) -> list[str]:
    options = found.options
    hidden = len(found.passes) - shown
    usable = sum(one.is_usable for one in found.passes)
    granted = sum(one.is_granted for one in found.passes)
    counts = f"{len(found.passes)} passes, {usable} usable, {granted} granted"
    if hidden:
        counts += f"; {hidden} in daylight are not listed (--daylight)"
    chosen = {
        "highest": "the pass that culminates higher",
        "longest": "the pass that lasts longer",
        "order": "the station named first",
    }[options.rule]
    return [
        counts,
        f"dark: Sun below {options.sun_below_deg:g}° at the station for all of the pass; "
        "lit: share of it with the satellite in sunlight; km: least range",
        "cloud is not modelled (--clear-sky)" if not options.clouds else options.clouds.describe(),
        f"one optical terminal a satellite, one a station: of passes that clash {chosen} is granted",
    ]
