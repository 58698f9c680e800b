"""Passes as seen from the stations (sky plot) and from above (ground track), as PNG and SVG.

Figures are made without pyplot; a station keeps one colour of Okabe and Ito's in both, and a line's
style says what colour does not: solid for a pass that is granted, dashed for one that another
station gets.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.projections.polar import PolarAxes
from matplotlib.ticker import MultipleLocator

from experiments.drawing import GREY, PALETTE, STYLE, empty_figure, save
from experiments.folder import new_folder
from experiments.looks import DASHED
from experiments.passes import ListedPass, PassList, clock_text
from topo.errors import InputError
from topo.space.contacts import Contact
from topo.space.orbit import Satellite
from topo.space.stations import WGS84_RADIUS_KM, Station, below

FloatArray = npt.NDArray[np.float64]

MAP_IN: Final = 7.6
"""The longer side of the map's frame, or less."""
FRAME_IN: Final = (0.8, 0.9)
"""What title, ticks and legend take of the map's figure, across and down."""
MOST_PASSES: Final = 12
"""More would be too small to read."""
COLUMNS: Final = 4
SKY_LABELS: Final = 4
"""About how many instants of a pass are written beside its line."""
TICK_S: Final = 60
BEYOND_S: Final = 240
"""How far a ground track goes on before rise and after set."""


def write_passes(found: PassList, out: Path | None) -> list[Path]:
    """Write `passes.json`, `sky.*` and `ground-track.*` into a folder; returns what was written.

    The folder is `out`, or runs/<UTC time>-passes/. Drawn are the first usable passes, or the first
    of all where none is usable. Raises `InputError` when there is no pass to draw or the folder is
    not empty.
    """
    drawn = [one for one in found.passes if one.is_usable] or list(found.passes)
    if not drawn:
        raise InputError(f"no pass above {found.options.mask_deg:g} degrees, so nothing to plot")
    folder = new_folder("passes", out).absolute()
    written = [folder / "passes.json"]
    written[0].write_text(json.dumps(found.report(), indent=2) + "\n", encoding="utf-8")
    with mpl.rc_context(STYLE):
        for stem, figure in (
            ("sky", sky_figure(drawn, found)),
            ("ground-track", ground_track_figure(drawn, found)),
        ):
            written += save(figure, folder, stem)
    return written


def sky_figure(passes: Sequence[ListedPass], found: PassList) -> Figure:
    """Azimuth and elevation of each pass over its station, a panel a pass, with a mark a minute.

    North is up and east to the right, as on a map; the zenith is in the middle, the horizon the rim,
    what is below the mask grey. At most `MOST_PASSES` panels.
    """
    shown = passes[:MOST_PASSES]
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = empty_figure(max(5.0, 3.3 * columns), 3.6 * rows + 0.3)
    colours = _colours(found)
    for place, one in enumerate(shown):
        axis = figure.add_subplot(rows, columns, place + 1, projection="polar")
        assert isinstance(axis, PolarAxes)
        _sky_panel(axis, one, colours[one.contact.station.name], found.options.zone)
    kind = "usable" if passes[0].is_usable else "all"
    figure.suptitle(_title(found, len(shown), len(passes), kind), fontsize=10)
    return figure


def ground_track_figure(passes: Sequence[ListedPass], found: PassList) -> Figure:
    """Ground tracks of the passes that are granted (of all, where none is), and each station's circle.

    A station sees the satellite above the mask while the track is inside its circle. The track is
    coloured as the station that has the terminal, with a mark a minute. At most `MOST_PASSES`.
    """
    granted = [one for one in passes if one.is_granted] or list(passes)
    shown = granted[:MOST_PASSES]
    colours = _colours(found)
    stations = found.options.stations
    centre_deg = _middle_longitude(stations)
    height_km = max(_height_km(one.contact) for one in shown)
    circles = {
        one.name: _circle(one, found.options.mask_deg, height_km, centre_deg) for one in stations
    }
    points = np.concatenate(list(circles.values()), axis=1)
    figure, axis = _map(points.min(axis=1), points.max(axis=1))
    for name, (lon, lat) in circles.items():
        axis.plot(_unbroken(lon), lat, color=colours[name], linewidth=1.0, linestyle=":")
    for one in shown:
        _track(axis, one, colours[one.contact.station.name], centre_deg)
    _track_labels((figure, axis), shown, found, centre_deg)
    for station in stations:
        place = (float(_near(np.array(station.longitude_deg), centre_deg)), station.latitude_deg)
        axis.plot(
            *place,
            "*",
            color=colours[station.name],
            markersize=13,
            markeredgecolor="white",
            zorder=6,
        )
        axis.annotate(
            station.name,
            place,
            (9, -3),
            textcoords="offset points",
            color=colours[station.name],
            fontweight="bold",
            zorder=6,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6},
        )
    kind = "granted" if granted[0].is_granted else "all"
    figure.suptitle(_title(found, len(shown), len(granted), kind), fontsize=10)
    figure.legend(handles=_track_legend(found, shown, colours), loc="outside lower center", ncols=4)
    return figure


def _sky_panel(axis: PolarAxes, one: ListedPass, colour: str, zone: tzinfo) -> None:
    contact = one.contact
    colour = _line(one, colour)["color"]
    axis.set_theta_zero_location("N")
    axis.set_theta_direction(-1)
    axis.set_rlim(0, 90)
    # The elevations stand on the empty side of the sky.
    opposite = (contact.culmination_azimuth_deg + 180.0) % 360.0
    axis.set_rgrids([30, 60], labels=["60°", "30°"], angle=opposite, fontsize=6.5, color=GREY)
    axis.set_thetagrids(range(0, 360, 45), labels=["N", "", "E", "", "S", "", "W", ""])
    axis.tick_params(pad=-1)
    rim = np.linspace(0, 2 * np.pi, 361)
    axis.fill_between(rim, 90 - contact.mask_deg, 90, color="#e8e8e8", lw=0)
    azimuth, elevation = _seen(contact, np.linspace(0, 1, 200))
    axis.plot(np.radians(azimuth), 90 - elevation, linewidth=1.6, **_line(one, colour))
    minutes = _minutes(contact)
    axis.plot(*_polar(contact, minutes), "o", color=colour, markersize=2.4)
    every = max(1, round(len(minutes) / SKY_LABELS))
    for instant in minutes[every // 2 :: every]:
        _sky_label(axis, contact, instant, zone)
    end, before = (_polar(contact, np.array([contact.los.timestamp() - s])) for s in (0.0, 12.0))
    axis.annotate(
        "",
        (float(end[0][0]), float(end[1][0])),
        (float(before[0][0]), float(before[1][0])),
        arrowprops={"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0},
    )
    verdict = one.terminal_verdict if one.is_usable else one.sky_verdict
    axis.set_title(
        f"{contact.station.name}, {contact.aos.astimezone(zone):%d %b %Y}\n{clock_text(contact.aos, zone)}–"
        f"{clock_text(contact.los, zone)}, {contact.culmination_deg:.1f}°\n{verdict}",
        fontsize=8,
        color=colour,
    )


def _sky_label(axis: PolarAxes, contact: Contact, instant: float, zone: tzinfo) -> None:
    """The time beside its mark, on the side of the zenith; of a pass overhead, on its right."""
    here, ahead = _flat(contact, instant), _flat(contact, instant + 5.0)
    way = (ahead - here) / np.linalg.norm(ahead - here)
    side = np.array([way[1], -way[0]])
    if side @ here > 10.0:  # degrees: the right-hand side faces the rim
        side = -side
    angle, radius = _polar(contact, np.array([instant]))
    axis.annotate(
        f"{datetime.fromtimestamp(instant, zone):%H:%M}",
        (float(angle[0]), float(radius[0])),
        (7 * side[0], 7 * side[1]),
        textcoords="offset points",
        ha="left" if side[0] > 0.3 else "right" if side[0] < -0.3 else "center",
        va="center",
        fontsize=6.5,
        color=GREY,
    )


def _track(axis: Axes, one: ListedPass, colour: str, centre_deg: float) -> None:
    contact = one.contact
    colour = _line(one, colour)["color"]
    aos_s, los_s = contact.aos.timestamp(), contact.los.timestamp()

    def ground(instants: FloatArray) -> tuple[FloatArray, FloatArray]:
        return _ground(contact.satellite, instants, centre_deg)

    lon, lat = ground(np.arange(aos_s - BEYOND_S, los_s + BEYOND_S, 5.0))
    axis.plot(_unbroken(lon), lat, color="#aaaaaa", linewidth=0.8, zorder=2)
    lon, lat = ground(np.linspace(aos_s, los_s, 200))
    axis.plot(_unbroken(lon), lat, linewidth=2.0, zorder=3, **_line(one, colour))
    axis.plot(*ground(_minutes(contact)), "o", color=colour, markersize=3.0, zorder=4)
    lon, lat = ground(np.array([los_s - 20.0, los_s]))
    axis.annotate(
        "",
        (lon[1], lat[1]),
        (lon[0], lat[0]),
        arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.6},
        zorder=4,
    )


def _track_labels(
    map_: tuple[Figure, Axes], shown: Sequence[ListedPass], found: PassList, centre_deg: float
) -> None:
    """Day and time of rise where each contact begins, one below another where tracks are close."""
    (figure, axis), colours = map_, _colours(found)
    (west, east), (south, north) = axis.get_xlim(), axis.get_ylim()
    width_in, height_in = figure.get_size_inches() - FRAME_IN
    # About the size of a label.
    wide, high = 0.85 / width_in * (east - west), 0.14 / height_in * (north - south)
    taken: list[tuple[float, float]] = []
    for one in shown:
        contact = one.contact
        lon, lat = _ground(contact.satellite, np.array([contact.aos.timestamp()]), centre_deg)
        x, y = float(lon[0]) + 0.05 * wide, float(lat[0]) - 0.4 * high
        while any(abs(x - other) < wide and abs(y - above) < high for other, above in taken):
            y -= high / 4
        taken.append((x, y))
        axis.text(
            x,
            y,
            f"{contact.aos.astimezone(found.options.zone):%d %b, %H:%M}",
            fontsize=7,
            color=colours[contact.station.name],
            va="top",
            zorder=5,
            clip_on=True,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.2},
        )


def _map(low: FloatArray, high: FloatArray) -> tuple[Figure, Axes]:
    """An empty map of all between two corners (longitude, latitude), with its graticule, true to scale in its middle.

    What lies east has room for labels.
    """
    wide, tall = high - low
    west, east = low[0] - 0.05 * wide, high[0] + 0.12 * wide
    south, north = max(low[1] - 0.12 * tall, -90.0), min(high[1] + 0.05 * tall, 90.0)
    scale = 1 / max(np.cos(np.radians((south + north) / 2)), 0.2)
    ratio = scale * (north - south) / (east - west)
    width_in = float(np.clip(MAP_IN / ratio, 4.0, MAP_IN))
    figure = empty_figure(width_in + FRAME_IN[0], width_in * ratio + FRAME_IN[1])
    axis = figure.subplots()
    for one, degrees in ((axis.xaxis, east - west), (axis.yaxis, north - south)):
        step = next(step for step in (5, 10, 15, 30, 60) if degrees / step < 12)
        one.set_major_locator(MultipleLocator(step))
    axis.xaxis.set_major_formatter(lambda x, _: _degrees((x + 180) % 360 - 180, "E", "W"))
    axis.yaxis.set_major_formatter(lambda y, _: _degrees(y, "N", "S"))
    axis.grid(True, axis="both")
    axis.set(xlim=(west, east), ylim=(south, north), aspect=scale)
    return figure, axis


def _track_legend(
    found: PassList, shown: Sequence[ListedPass], colours: dict[str, str]
) -> list[Line2D]:
    handles = [
        Line2D(
            [],
            [],
            color=colours[station.name],
            linewidth=2,
            label=f"in contact with {station.name}",
        )
        for station in found.options.stations
    ]
    if not all(one.is_usable for one in shown):
        handles = [Line2D([], [], color=GREY, linestyle="-.", label="daylight or overcast")]
    return [
        *handles,
        Line2D(
            [], [], color=GREY, linestyle=":", label=f"sees it above {found.options.mask_deg:g}°"
        ),
        Line2D(
            [], [], color=GREY, marker="o", linestyle="none", markersize=3, label="every minute"
        ),
    ]


def _title(found: PassList, shown: int, available: int, kind: str) -> str:
    names = ", ".join(satellite.name for satellite in found.satellites)
    zone = f"{datetime.now(found.options.zone):%Z}"
    limit = f", the first {shown} of {available}" if shown < available else ""
    return f"{names}: {kind} passes above {found.options.mask_deg:g}°{limit}; times in {zone}"


def _colours(found: PassList) -> dict[str, str]:
    stations = found.options.stations
    return {one.name: PALETTE[n % len(PALETTE)] for n, one in enumerate(stations)}


def _line(one: ListedPass, colour: str) -> dict[str, Any]:
    """Look of a pass: solid where granted, dashed where another gets it, grey where it is no use."""
    if not one.is_usable:
        return {"color": GREY, "linestyle": "-."}
    return {"color": colour, "linestyle": "-" if one.is_granted else DASHED}


def _seen(contact: Contact, share: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Azimuth and elevation at shares of the way from rise to set."""
    aos_s, los_s = contact.aos.timestamp(), contact.los.timestamp()
    position, _ = contact.satellite.state(aos_s + share * (los_s - aos_s))
    azimuth, elevation, _ = contact.station.look_at(position)
    return azimuth, elevation


def _polar(contact: Contact, instants: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Angle in rad and distance from the zenith in degrees at instants."""
    azimuth, elevation, _ = contact.station.look_at(contact.satellite.state(instants)[0])
    return np.radians(azimuth), 90.0 - elevation


def _flat(contact: Contact, instant: float) -> FloatArray:
    """The same as a point of the paper: right, up."""
    angle, radius = _polar(contact, np.array([instant]))
    return np.array([radius[0] * np.sin(angle[0]), radius[0] * np.cos(angle[0])])


def _minutes(contact: Contact) -> FloatArray:
    """The full minutes of a pass, in seconds since 1970."""
    first = -(-contact.aos.timestamp() // TICK_S) * TICK_S
    return np.arange(first, contact.los.timestamp(), TICK_S, dtype=np.float64)


def _ground(
    satellite: Satellite, instants: FloatArray, centre_deg: float
) -> tuple[FloatArray, FloatArray]:
    """Longitude and latitude below the satellite, longitudes within half a turn of the map's centre."""
    lat, lon, _ = below(satellite.state(instants)[0])
    return _near(lon, centre_deg), lat


def _height_km(contact: Contact) -> float:
    position, _ = contact.satellite.state(contact.culmination.timestamp())
    return float(below(position)[2][0])


def _circle(
    station: Station, mask_deg: float, height_km: float, centre_deg: float
) -> tuple[FloatArray, FloatArray]:
    """Where a satellite of that height is at the mask: longitudes and latitudes, on a sphere."""
    mask = np.radians(mask_deg)
    angle = np.arccos(np.cos(mask) / (1 + height_km / WGS84_RADIUS_KM)) - mask
    bearing = np.linspace(0, 2 * np.pi, 361)
    lat0 = np.radians(station.latitude_deg)
    sin_lat = np.sin(lat0) * np.cos(angle) + np.cos(lat0) * np.sin(angle) * np.cos(bearing)
    dlon = np.arctan2(
        np.sin(bearing) * np.sin(angle) * np.cos(lat0), np.cos(angle) - np.sin(lat0) * sin_lat
    )
    return (
        _near(station.longitude_deg + np.degrees(dlon), centre_deg),
        np.degrees(np.arcsin(np.clip(sin_lat, -1, 1))),
    )


def _middle_longitude(stations: Sequence[Station]) -> float:
    """Direction of the mean of the stations' longitudes."""
    lon = np.radians([station.longitude_deg for station in stations])
    return float(np.degrees(np.arctan2(np.sin(lon).sum(), np.cos(lon).sum())))


def _near(longitude_deg: FloatArray, centre_deg: float) -> FloatArray:
    return centre_deg + (longitude_deg - centre_deg + 180.0) % 360.0 - 180.0


def _unbroken(longitude_deg: FloatArray) -> FloatArray:
    """A gap where the line leaves the map on one side and comes back on the other."""
    jump = np.abs(np.diff(longitude_deg, prepend=longitude_deg[0])) > 180
    return np.where(jump, np.nan, longitude_deg)


def _degrees(value: float, positive: str, negative: str) -> str:
    side = positive if value > 0 else negative if value < 0 else ""
    return f"{abs(value):g}°{side}"
