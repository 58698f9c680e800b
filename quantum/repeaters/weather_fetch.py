"""Fetch the weather of cities from Open-Meteo, for people with a network.

    python -m quantum.repeaters.weather_fetch 2024-01-01 2024-01-01 weather.json

asks its archive of forecasts, which unlike the reanalysis has visibility, for every city of the network and
writes one file for `weather_files.read_weather`. Free for non-commercial use; data licence CC BY 4.0.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, Final
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

from quantum.repeaters.cities import CITIES_CSV, City, read_cities
from topo.errors import FeatureMissing, InputError, QntnError

SERVICE: Final = "https://historical-forecast-api.open-meteo.com/v1/forecast"
FIELDS: Final = (
    "cloud_cover",
    "cloud_cover_low",
    "cloud_cover_mid",
    "cloud_cover_high",
    "visibility",
    "shortwave_radiation",
    "direct_radiation",
    "diffuse_radiation",
    "direct_normal_irradiance",
)
CITIES_A_REQUEST: Final = 50
"""So that addresses stay short enough for every server."""
TIMEOUT_S: Final = 60.0

Opener = Callable[[str], IO[bytes]]


def request_url(cities: Sequence[City], first: date, last: date) -> str:
    """Address of the hourly weather of these cities from the first day to the last, in UTC."""
    query = {
        "latitude": ",".join(f"{city.latitude_deg:.4f}" for city in cities),
        "longitude": ",".join(f"{city.longitude_deg:.4f}" for city in cities),
        "start_date": first.isoformat(),
        "end_date": last.isoformat(),
        "hourly": ",".join(FIELDS),
        "timezone": "GMT",
    }
    return f"{SERVICE}?{urlencode(query, safe=',')}"


def fetch(
    cities: Sequence[City], first: date, last: date, path: Path, *, opener: Opener | None = None
) -> int:
    """Fetch their weather and write it to one file; returns how many places it holds.

    A day more is asked for, so that the last one has an hour to be interpolated to. `opener` takes
    an address (`urllib.request.urlopen` unless given). Raises `InputError` for what the service
    refuses and for a file that cannot be written, `FeatureMissing` where it cannot be reached.
    """
    if first > last:
        raise InputError(f"weather from {first} to {last}: the first day is after the last")
    if last == date.max:
        raise InputError(f"weather to {last}: there is no day after it")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}: make it first")
    places: list[Any] = []
    for begin in range(0, len(cities), CITIES_A_REQUEST):
        some = cities[begin : begin + CITIES_A_REQUEST]
        answer = _ask(request_url(some, first, last + timedelta(days=1)), opener or _open)
        found = answer if isinstance(answer, list) else [answer]
        if len(found) != len(some):
            raise InputError(f"{SERVICE}: {len(found)} places in the answer, {len(some)} asked for")
        places += found
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(json.dumps(places), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    return len(places)


def _open(url: str) -> IO[bytes]:
    stream: IO[bytes] = urlopen(url, timeout=TIMEOUT_S)
    return stream


def _ask(url: str, opener: Opener) -> Any:
    try:
        with opener(url) as stream:
            return json.load(stream)
    except HTTPError as error:
        raise InputError(f"{SERVICE}: refused ({error.code}): {_reason(error)}") from error
    except (OSError, HTTPException) as error:  # URLError too; or the answer breaks off
        raise FeatureMissing(
            f"a way to {SERVICE} ({getattr(error, 'reason', error)})",
            "Fetch where there is a network and copy the file, or use synthetic weather.",
        ) from error
    except ValueError as error:
        raise InputError(f"{SERVICE}: answered something else than JSON: {error}") from error


def _reason(error: HTTPError) -> str:
    """What the service says in the body of a refusal."""
    try:
        return str(json.load(error)["reason"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m quantum.repeaters.weather_fetch", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("first", type=date.fromisoformat, help="first day, as 2024-01-01 (UTC)")
    parser.add_argument("last", type=date.fromisoformat, help="last day")
    parser.add_argument("file", type=Path, help="the file to write")
    parser.add_argument(
        "--cities", type=Path, default=CITIES_CSV, help="a CSV file of other cities"
    )
    given = parser.parse_args(arguments)
    try:
        count = fetch(read_cities(given.cities), given.first, given.last, given.file)
    except QntnError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{given.file}: weather of {count} places")
    return 0


if __name__ == "__main__":
    sys.exit(main())
