"""The nodes: European cities, and the distances between them.

`cities.csv` holds 110 cities at least 100 km apart, the most populous first, made once from GeoNames
data (https://www.geonames.org, licence CC BY 4.0) by `docs/notes/cities.py`.
"""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from topo.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

EARTH_KM: Final = 6371.0
"""Mean radius: the sphere on which cities and made-up satellites are."""
CITIES_CSV: Final = Path(__file__).with_name("cities.csv")
COLUMNS: Final = ("name", "country", "lat", "lon", "population")


@dataclass(frozen=True)
class City:
    """A node of the network: degrees north and east."""

    name: str
    country: str
    latitude_deg: float
    longitude_deg: float
    population: int = 0

    def __post_init__(self) -> None:
        if not -90 <= self.latitude_deg <= 90:
            raise InputError(f"city {self.name}: latitude {self.latitude_deg:g}: -90 to 90 degrees")
        if not -180 <= self.longitude_deg <= 360:
            raise InputError(
                f"city {self.name}: longitude {self.longitude_deg:g}: -180 to 360 degrees"
            )


def read_cities(path: Path = CITIES_CSV) -> tuple[City, ...]:
    """The cities of a CSV file with the columns name, country, lat, lon, population; at least two.

    Lines that begin with `#` are passed over. `InputError` says file, line and what is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: no UTF-8: {error}") from error
    numbered = [
        (number, line)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.startswith("#")
    ]
    rows = [(f"{path}:{number}", _fields(line)) for number, line in numbered]
    if not rows or tuple(rows[0][1]) != COLUMNS:
        raise InputError(f"{path}: its first line must be {','.join(COLUMNS)}")
    cities = tuple(_city(row, place) for place, row in rows[1:])
    if len(cities) < 2:
        raise InputError(f"{path}: {len(cities)} cities: a network needs two or more")
    return cities


def _fields(line: str) -> list[str]:
    """Of one line: a quoted name does not go on in the next, so that every city has its line's number."""
    return next(csv.reader([line]))


def _city(row: list[str], place: str) -> City:
    if len(row) != len(COLUMNS):
        raise InputError(f"{place}: {len(row)} fields, there are {len(COLUMNS)}")
    name, country, *numbers = row
    try:
        latitude, longitude = (float(number) for number in numbers[:2])
        population = int(float(numbers[2]))
    except (ValueError, OverflowError) as error:  # no number, or nan and inf
        raise InputError(f"{place}: lat, lon and population must be numbers: {error}") from error
    try:
        return City(name, country, latitude, longitude, population)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error


def find_city(cities: Sequence[City], name: str) -> int:
    """Number of the city of that name, capitals and accents aside (`zurich` is Zürich).

    `InputError` lists the names where there is none.
    """
    for number, city in enumerate(cities):
        if plain_name(city.name) == plain_name(name):
            return number
    known = ", ".join(sorted(city.name for city in cities))
    raise InputError(f"city {name!r}: there are {known}")


def plain_name(name: str) -> str:
    """A name without its capitals and accents: what names are compared by."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def pair_indices(cities: int) -> tuple[Ints, Ints]:
    """First and second city of every pair, shape (n (n-1)/2,): the order of all arrays by pair."""
    first, second = np.triu_indices(cities, 1)
    return first, second


def pair_number(cities: int, a: int, b: int) -> int:
    """Where the pair of two different cities stands in arrays by pair."""
    if a == b:
        raise InputError(f"a pair needs two cities, not number {a} twice")
    low, high = min(a, b), max(a, b)
    if not (low >= 0 and high < cities):
        raise InputError(f"pair of cities {a} and {b}: they are numbered 0 to {cities - 1}")
    return low * (2 * cities - low - 1) // 2 + high - low - 1


def directions(cities: Sequence[City]) -> Floats:
    """Unit vectors from the Earth's centre to the cities on a sphere, Earth-fixed, shape (3, n)."""
    lat = np.radians([city.latitude_deg for city in cities])
    lon = np.radians([city.longitude_deg for city in cities])
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])


def great_circles_km(cities: Sequence[City], one: City) -> Floats:
    """Great-circle distance of every city from one, shape (n,)."""
    return _arc_km(directions(cities) - directions([one]))


def pair_distances_km(cities: Sequence[City]) -> Floats:
    """Great-circle distance of every pair, shape (pairs,); 0 for two in one place."""
    a, b = pair_indices(len(cities))
    way = directions(cities)
    return _arc_km(way[:, a] - way[:, b])


def _arc_km(chord: Floats) -> Floats:
    """Great-circle distance of the ends of chords (3, n) of the unit sphere; exact where short."""
    length = np.linalg.norm(chord, axis=0)
    return np.asarray(2 * EARTH_KM * np.arcsin(np.minimum(length / 2, 1.0)))
