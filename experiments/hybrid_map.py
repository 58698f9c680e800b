"""A map of the network's cities with chosen paths.

Lambert's azimuthal equal-area projection about the middle of the cities, on a sphere, with a graticule and no
coastline: none comes with the project. Links are great circles: fibre blue; a satellite link black and dashed, through
the point below the satellite when there is but one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from math import acos, ceil, cos, floor, radians, sin
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from experiments.drawing import GREY, STYLE, save
from experiments.hybrid_plots import GROUND, SPACE, new_figure
from experiments.hybrid_setup import bits
from quantum.repeaters.cities import EARTH_KM, City
from quantum.repeaters.constellation import Constellation, FixedSatellite
from quantum.repeaters.network import Network
from quantum.repeaters.routing import Path as BestPath

Floats = NDArray[np.float64]

STEP_DEG: Final = 5
MARGIN_KM: Final = 130.0
LABELLED: Final = 14
"""So many of the most populous cities are named, besides those on the paths."""
COLOURS: Final = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#882255", "#44AA99")
"""Of the chosen paths' haloes."""


@dataclass(frozen=True)
class Projection:
    """Lambert azimuthal equal-area about a centre, in degrees; results in km."""

    latitude_deg: float
    longitude_deg: float

    @classmethod
    def about(cls, cities: Sequence[City]) -> Projection:
        """Centred on the middle of the cities' extent."""
        latitudes = [city.latitude_deg for city in cities]
        longitudes = [city.longitude_deg for city in cities]
        return cls((min(latitudes) + max(latitudes)) / 2, (min(longitudes) + max(longitudes)) / 2)

    def __call__(self, latitude_deg: ArrayLike, longitude_deg: ArrayLike) -> tuple[Floats, Floats]:
        """Eastings and northings. Source: Snyder, USGS Professional Paper 1395, equations 22-4 and 24-2."""
        lat = np.radians(np.asarray(latitude_deg, dtype=np.float64))
        east = np.radians(np.asarray(longitude_deg, dtype=np.float64) - self.longitude_deg)
        lat0 = radians(self.latitude_deg)
        cosine = sin(lat0) * np.sin(lat) + cos(lat0) * np.cos(lat) * np.cos(east)
        scale = EARTH_KM * np.sqrt(2 / (1 + cosine))
        x = scale * np.cos(lat) * np.sin(east)
        y = scale * (cos(lat0) * np.sin(lat) - sin(lat0) * np.cos(lat) * np.cos(east))
        return np.asarray(x), np.asarray(y)


def great_circle(a: City, b: City, points: int = 40) -> tuple[Floats, Floats]:
    """Latitudes and longitudes along the shortest way from one place to another."""
    ends = np.array([_unit(a), _unit(b)])
    angle = float(np.arccos(np.clip(ends[0] @ ends[1], -1.0, 1.0)))
    share = np.linspace(0, 1, points)[:, np.newaxis]
    if angle < 1e-9:
        way = np.broadcast_to(ends[0], (points, 3))
    else:
        way = (np.sin((1 - share) * angle) * ends[0] + np.sin(share * angle) * ends[1]) / sin(angle)
    return np.degrees(np.arcsin(way[:, 2])), np.degrees(np.arctan2(way[:, 1], way[:, 0]))


@dataclass(frozen=True)
class Drawn:
    """What a map shows."""

    net: Network
    constellation: Constellation
    chosen: Sequence[BestPath]
    """In bold."""
    others: Sequence[BestPath]
    """All from one city: their fibre links thin, which cities they reach by satellite hollow."""


def write_map(drawn: Drawn, folder: Path, report: Mapping[str, Any]) -> None:
    """Draw `map.*` into a folder."""
    with mpl.rc_context(STYLE):
        save(map_figure(drawn, report), folder, "map")


def map_figure(drawn: Drawn, report: Mapping[str, Any]) -> Figure:
    """The map."""
    net, chosen, others = drawn.net, drawn.chosen, drawn.others
    figure = new_figure(9.2, 8.6, report)
    axis = figure.subplots()
    project = Projection.about(net.cities)
    fixed = drawn.constellation if isinstance(drawn.constellation, FixedSatellite) else None
    extent = _extent(net.cities, project)
    _graticule(axis, net.cities, project)
    if fixed is not None:
        _horizon(axis, fixed, net.parameters.mask_deg, project)
    for a, b in _fibre_links(others):
        ends = net.cities[a], net.cities[b]
        _line(axis, project, ends, color=GROUND, linewidth=0.7, alpha=0.5)
    _cities(axis, project, drawn)
    for path, colour in zip(chosen, cycle(COLOURS), strict=False):
        cities = [net.cities[node] for node in path.nodes]
        for stops, by_space in _legs(cities, path.by_space, fixed):
            _leg(axis, project, stops, by_space, colour)
        _name(axis, path, cities, colour)
    hub = net.cities[others[0].nodes[0]].name if others and others[0].nodes else None
    axis.plot([], [], color=GROUND, linewidth=1.6, label="fibre")
    axis.plot([], [], color=SPACE, linewidth=1.6, linestyle=(0, (3, 2)), label="satellite link")
    if hub is not None:
        axis.plot(
            [],
            [],
            color=GROUND,
            linewidth=0.7,
            alpha=0.5,
            label=f"fibre links of all best paths from {hub}",
        )
        axis.plot(
            [],
            [],
            "o",
            color=GREY,
            markerfacecolor="white",
            label=f"reached from {hub} with a satellite",
        )
    axis.legend(loc="upper left", frameon=True, framealpha=0.9, edgecolor="none", fontsize=8)
    axis.set(xlim=extent[0], ylim=extent[1], aspect="equal", xticks=[], yticks=[])
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    axis.set_title(
        f"Best paths, router “{report['router']}”, {report['constellation']}; cities of GeoNames (CC BY 4.0)",
        loc="left",
        fontsize=9,
    )
    return figure


def _cities(axis: Axes, project: Projection, drawn: Drawn) -> None:
    """Every city as a dot; those on chosen paths and the largest with their names."""
    net, chosen, others = drawn.net, drawn.chosen, drawn.others
    reached = {path.nodes[-1] for path in others if path.nodes and any(path.by_space)}
    on_path = {node for path in chosen for node in path.nodes}
    westward = {
        min(path.nodes, key=lambda node: net.cities[node].longitude_deg)
        for path in chosen
        if path.nodes
    }
    for number, city in enumerate(net.cities):
        x, y = project(city.latitude_deg, city.longitude_deg)
        marked = number in on_path
        hollow = number in reached and not marked
        axis.plot(
            x,
            y,
            "o",
            color="black" if marked else GREY,
            markerfacecolor="white" if hollow else ("black" if marked else GREY),
            markersize=5 if marked else 3.2,
            markeredgewidth=0.8,
            zorder=4,
        )
        if marked or number < LABELLED:
            axis.annotate(
                city.name,
                (float(x), float(y)),
                (-4 if number in westward else 4, 4),
                textcoords="offset points",
                ha="right" if number in westward else "left",
                fontsize=8 if marked else 6.5,
                fontweight="bold" if marked else "normal",
                color="black" if marked else GREY,
                zorder=5,
            )


def _legs(
    cities: Sequence[City], by_space: Sequence[bool], fixed: FixedSatellite | None
) -> Iterator[tuple[list[City], bool]]:
    """Where each link of a path runs: straight on, or by the point below the one satellite."""
    for (a, b), space in zip(pairwise(cities), by_space, strict=True):
        if space and fixed is not None:
            yield [a, City("", "", fixed.latitude_deg, fixed.longitude_deg), b], True
        else:
            yield [a, b], space


def _leg(axis: Axes, project: Projection, stops: Sequence[City], by_space: bool, halo: str) -> None:
    for a, b in pairwise(stops):
        _line(axis, project, (a, b), color=halo, linewidth=5, alpha=0.45)
        dashes: dict[str, Any] = {"linestyle": (0, (3, 2))} if by_space else {}
        _line(axis, project, (a, b), color=SPACE if by_space else GROUND, linewidth=1.6, **dashes)


def _name(axis: Axes, path: BestPath, cities: Sequence[City], halo: str) -> None:
    """What a path yields, in the legend."""
    if not cities:
        return
    rate = f"{bits(path.skr_bit_s)}/s" if path.skr_bit_s else "no key"
    label = f"{cities[0].name}–{cities[-1].name}: {path.kind.name.lower()}, {rate}"
    axis.plot([], [], color=halo, alpha=0.45, linewidth=5, label=label)


def _line(axis: Axes, project: Projection, ends: tuple[City, City], **style: Any) -> None:
    axis.plot(*project(*great_circle(*ends)), solid_capstyle="round", zorder=3, **style)


def _fibre_links(paths: Sequence[BestPath]) -> set[tuple[int, int]]:
    """Links over fibre of some paths, each once."""
    return {
        (min(a, b), max(a, b))
        for path in paths
        for a, b, by_space in zip(path.nodes[:-1], path.nodes[1:], path.by_space, strict=True)
        if not by_space
    }


def _graticule(axis: Axes, cities: Sequence[City], project: Projection) -> None:
    south, north, west, east = _frame_deg(cities)
    style: dict[str, Any] = {"color": "#d5dde6", "linewidth": 0.6, "zorder": 1}
    for latitude in range(south, north + 1, STEP_DEG):
        longitudes = np.linspace(west, east, 100)
        axis.plot(*project(np.full(100, float(latitude)), longitudes), **style)
        x, y = project(latitude, project.longitude_deg)
        _degree(axis, (float(x), float(y)), latitude, "NS")
    for longitude in range(west, east + 1, STEP_DEG):
        latitudes = np.linspace(south, north, 100)
        axis.plot(*project(latitudes, np.full(100, float(longitude))), **style)
        x, y = project(project.latitude_deg, longitude)
        _degree(axis, (float(x), float(y)), longitude, "EW")


def _degree(axis: Axes, place: tuple[float, float], value: int, letters: str) -> None:
    letter = letters[0] if value >= 0 else letters[1]
    axis.annotate(
        f"{abs(value)}°{letter if value else ''}",
        place,
        fontsize=6,
        color="#9fb0c0",
        ha="center",
        va="center",
        zorder=2,
        clip_on=True,
        annotation_clip=True,
        backgroundcolor="white",
    ).set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.6})


def _frame_deg(cities: Sequence[City]) -> tuple[int, int, int, int]:
    """South, north, west and east of all cities, outwards to whole steps."""
    latitudes = [city.latitude_deg for city in cities]
    longitudes = [city.longitude_deg for city in cities]
    return (
        STEP_DEG * floor(min(latitudes) / STEP_DEG - 1),
        STEP_DEG * ceil(max(latitudes) / STEP_DEG + 1),
        STEP_DEG * floor(min(longitudes) / STEP_DEG - 2),
        STEP_DEG * ceil(max(longitudes) / STEP_DEG + 2),
    )


def _extent(
    cities: Sequence[City], project: Projection
) -> tuple[tuple[float, float], tuple[float, float]]:
    x, y = project([c.latitude_deg for c in cities], [c.longitude_deg for c in cities])
    return (
        (float(x.min()) - MARGIN_KM, float(x.max()) + MARGIN_KM),
        (float(y.min()) - MARGIN_KM, float(y.max()) + MARGIN_KM),
    )


def _horizon(axis: Axes, fixed: FixedSatellite, mask_deg: float, project: Projection) -> None:
    """The point below the satellite, and the circle inside which it stands above the mask."""
    mask = radians(mask_deg)
    angle = acos(cos(mask) * EARTH_KM / (EARTH_KM + fixed.altitude_km)) - mask
    bearing = np.linspace(0, 2 * np.pi, 200)
    lat0, lon0 = radians(fixed.latitude_deg), radians(fixed.longitude_deg)
    lat = np.arcsin(sin(lat0) * cos(angle) + cos(lat0) * sin(angle) * np.cos(bearing))
    lon = lon0 + np.arctan2(
        np.sin(bearing) * sin(angle) * cos(lat0), cos(angle) - sin(lat0) * np.sin(lat)
    )
    axis.plot(*project(np.degrees(lat), np.degrees(lon)), color=SPACE, linewidth=0.8, linestyle=":")
    x, y = project(fixed.latitude_deg, fixed.longitude_deg)
    axis.plot(x, y, "*", color=SPACE, markersize=11, zorder=6)
    axis.plot(
        [],
        [],
        "*:",
        color=SPACE,
        linewidth=0.8,
        markersize=8,
        label=f"below the satellite; {mask_deg:g}° elevation",
    )


def _unit(city: City) -> tuple[float, float, float]:
    lat, lon = radians(city.latitude_deg), radians(city.longitude_deg)
    return cos(lat) * cos(lon), cos(lat) * sin(lon), sin(lat)
