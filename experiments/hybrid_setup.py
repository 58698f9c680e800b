"""What a hybrid network experiment starts from: cities, parameters, satellites, weather and hours, out of words.

Every function turns what a person writes on the command line into the thing itself, or into one clear error.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from quantum.repeaters.cities import City, find_city, pair_number, plain_name, read_cities
from quantum.repeaters.constellation import Constellation, ElementSets, FixedSatellite, Walker
from quantum.repeaters.network import Network
from quantum.repeaters.parameters import LABEL, Parameters
from quantum.repeaters.routing import Router
from quantum.repeaters.weather import (
    CLIMATES,
    Conditions,
    Weather,
    synthetic_weather,
)
from topo.errors import InputError

PAPER_DATE: Final = "2024-01-01"
PAIRS: Final = ("Brussels-Köln", "Milan-Vienna", "Madrid-Warsaw")
"""Watched where none are named: 183, 625 and 2290 km, below, at and far beyond the threshold."""
MIN_KM: Final = 1.0
"""Two cities closer than this are one node to a network of trunk links: no link is computed for them."""
PACKAGES: Final = ("qntn", "numpy", "scipy")
DAY_HOURS: Final = 24.0
KIND_NAMES: Final = {
    "ground": "fibre only",
    "space": "satellite only",
    "hybrid": "both",
    "fail": "no key",
}
"""Kinds of path (`quantum.repeaters.routing.Kind`) as tables and pictures name them."""


@dataclass(frozen=True)
class HybridOptions:
    """What all experiments on a hybrid network take."""

    changes: Sequence[str] = ()
    """Assignments to `Parameters`: `source_werner=0.995`."""
    cities: Path | None = None
    """A CSV file of other cities."""
    weather: Sequence[str] = ("clear",)
    """A climate of synthetic weather, or files of a weather service."""
    seed: int = 1
    """Of the synthetic weather."""
    router: Router = "paper"
    date: str = PAPER_DATE
    """First day, or an instant in ISO 8601; UTC unless it says otherwise."""
    out: Path | None = None
    plots: bool = True
    workers: int | None = None
    """Processes; one a core unless given."""


@dataclass(frozen=True)
class Night:
    """Some weather without its daylight."""

    weather: Weather

    @property
    def description(self) -> str:
        return f"{self.weather.description}; at night"

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(getattr(self.weather, "notes", ()))

    def at(self, unix_s: ArrayLike) -> Conditions:
        return self.weather.at(unix_s).at_night()


def parameters(changes: Sequence[str], base: Parameters | None = None) -> Parameters:
    """The parameters with some changed, each as `name=value`; `InputError` for what cannot be."""
    base = base or Parameters()
    present = {field.name: getattr(base, field.name) for field in fields(base)}
    new: dict[str, Any] = {}
    for change in changes:
        name, equals, text = (part.strip() for part in change.partition("="))
        if not equals:
            raise InputError(f"--set {change}: not an assignment such as receiver_m=0.8")
        new[name] = _like(present[name], text, change) if name in present else text
    return base.changed(**new)


def _like(value: Any, text: str, change: str) -> Any:
    """Text as a value of the kind that the parameter has."""
    try:
        match value:
            case bool():
                return {"true": True, "false": False}[text.lower()]
            case int():
                return int(text)
            case float():
                return float(text)
            case tuple():
                return tuple(int(part) for part in text.split(","))
    except (ValueError, KeyError):
        example = ",".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()
        raise InputError(f"--set {change}: must be like {example}") from None
    return text


def network(options: HybridOptions) -> Network:
    """Cities and parameters of an experiment. `InputError` for cities closer than `MIN_KM`."""
    cities = read_cities() if options.cities is None else read_cities(options.cities)
    found = Network(cities, parameters(options.changes))
    check_spacing(found, "the built-in list" if options.cities is None else str(options.cities))
    return found


def check_spacing(net: Network, place: str) -> None:
    """`InputError` that names the closest two cities where they are closer than `MIN_KM`."""
    closest = int(np.argmin(net.distance_km))
    if net.distance_km[closest] < MIN_KM:
        one, other = net.cities[net.first[closest]], net.cities[net.second[closest]]
        raise InputError(
            f"{place}: {one.name} and {other.name} are {net.distance_km[closest]:.3f} km apart, nodes must be at "
            f"least {MIN_KM:g} km: leave one of them out"
        )


def constellation(text: str) -> Constellation:
    """Satellites by words: `fixed`, `fixed:LAT,LON,ALT`, `N`, `N/PLANES`, `N/PLANES@ALT,INCLINATION`, `tle:FILE`.

    N satellites, 0 or more, in polar planes; other inclinations spread their planes likewise (Walker star),
    with `delta:` before them all around.
    """
    if text == "fixed":
        return FixedSatellite()
    kind, colon, rest = text.partition(":")
    if colon and kind == "tle":
        return ElementSets.read(rest)
    try:
        if colon and kind == "fixed":
            latitude, longitude, altitude = (float(part) for part in rest.split(","))
            return FixedSatellite(latitude, longitude, altitude)
        if colon and kind not in {"star", "delta"}:
            raise ValueError
        number, _, orbit = (rest if colon else text).partition("@")
        satellites, slash, planes = number.partition("/")
        numbers = [float(part) for part in orbit.split(",")] if orbit else []
        if len(numbers) > 2:
            raise ValueError
        altitude_km, inclination_deg = [*numbers, *(700.0, 90.0)[len(numbers) :]]
        sizes = int(satellites), int(planes) if slash else 1
    except ValueError:
        raise InputError(
            f"constellation {text!r}: fixed, fixed:47.4,8.5,700, 25, 25/5, 25/5@700,98.19, delta:24/3@1200,53 or "
            "tle:FILE"
        ) from None
    return Walker(*sizes, altitude_km, inclination_deg, "delta" if kind == "delta" else "star")


def describe(satellites: Constellation) -> str:
    """A constellation in a few words."""
    match satellites:
        case FixedSatellite():
            return (
                f"one satellite at rest {satellites.altitude_km:g} km above {satellites.latitude_deg:.4g}° N "
                f"{satellites.longitude_deg:.4g}° E"
            )
        case Walker(satellites=0):
            return "no satellites"
        case Walker():
            planes = "plane" if satellites.planes == 1 else "planes"
            kind = (
                "polar" if satellites.inclination_deg == 90 else f"{satellites.inclination_deg:g}°"
            )
            return (
                f"{satellites.satellites} satellites in {satellites.planes} {kind} {planes} at "
                f"{satellites.altitude_km:g} km"
            )
    return f"{len(satellites.names)} satellites of element sets"


def bits(number: float) -> str:
    """An amount of bits for people: `51.5 Mbit`."""
    for prefix, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {prefix}bit"
    return f"{number:.3g} bit"


def weather(
    words: Sequence[str], cities: Sequence[City], start_s: float, hours: float, seed: int
) -> Weather:
    """Synthetic weather of a climate (one word of `CLIMATES`), or that of files."""
    if len(words) == 1 and words[0] in CLIMATES:
        return synthetic_weather(cities, start_s, max(1, ceil(hours)), seed=seed, climate=words[0])
    climates = [word for word in words if word in CLIMATES]
    if climates:
        raise InputError(f"--weather {climates[0]}: a climate stands alone, without files")
    paths = [Path(word) for word in words]
    for path in paths:
        if not path.exists():
            known = ", ".join(CLIMATES)
            raise InputError(
                f"--weather {path}: no such file, and no climate ({known}); `qntn hybrid fetch-weather` gets files"
            )
    from quantum.repeaters.weather_files import read_weather

    return read_weather(paths, cities)


def start_s(text: str) -> float:
    """A date or an instant in ISO 8601 as seconds since 1970; UTC unless it says otherwise."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"--date {text}: a date such as 2024-01-01, or 2024-01-01T06:00") from None
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()


def pair(net: Network, text: str) -> int:
    """Number of a pair of cities by their names, `Madrid-Warsaw`; `InputError` names the city there is not."""
    for place, letter in enumerate(text):
        if letter != "-":
            continue
        names = text[:place].strip(), text[place + 1 :].strip()
        # A city's own name may have hyphens: take the one that makes two cities.
        if all(_is_city(net, name) for name in names):
            a, b = (find_city(net.cities, name) for name in names)
            if a == b:
                raise InputError(f"pair {text!r}: two different cities are needed")
            return pair_number(len(net.cities), a, b)
    first, hyphen, second = text.partition("-")
    if not hyphen:
        raise InputError(f"pair {text!r}: two cities such as Madrid-Warsaw")
    for name in (first, second):
        find_city(net.cities, name.strip())
    raise InputError(f"pair {text!r}: two cities such as Madrid-Warsaw")


def chosen_pairs(net: Network, texts: Sequence[str] | None) -> list[int]:
    """Numbers of the pairs named; of `PAIRS` where none are, or in other cities the nearest, median and farthest."""
    if texts is not None:
        return [pair(net, text) for text in texts]
    named = [text for text in PAIRS if all(_is_city(net, name) for name in text.split("-"))]
    if named:
        return [pair(net, text) for text in named]
    order = np.argsort(net.distance_km, kind="stable")
    return list(dict.fromkeys(int(order[at]) for at in (0, len(order) // 2, -1)))


def _is_city(net: Network, name: str) -> bool:
    return any(plain_name(city.name) == plain_name(name) for city in net.cities)


def pair_name(net: Network, number: int) -> str:
    """Both cities of a pair."""
    return f"{net.cities[net.first[number]].name}–{net.cities[net.second[number]].name}"


def heading(
    name: str, net: Network, options: HybridOptions, sky: Weather, satellites: str
) -> dict[str, Any]:
    """The head of every experiment's report, JSON-able."""
    return {
        "experiment": name,
        "label": LABEL,
        "weather": sky.description,
        "notes": list(getattr(sky, "notes", ())),
        "constellation": satellites,
        "router": options.router,
        "cities": len(net.cities),
        "pairs": net.pairs,
        "date": options.date,
        "seed": options.seed,
        "changes": list(options.changes),
        "parameters": net.parameters.as_dict(),
        "versions": {
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in PACKAGES},
        },
    }
