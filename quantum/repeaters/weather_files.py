"""Weather of the files that Open-Meteo and Visual Crossing deliver.

Open-Meteo's JSON: one place (an object with `latitude`, `longitude`, `utc_offset_seconds`,
`hourly_units` and `hourly`) or several (an array of such objects). `hourly` has `time` and, each as
long, `cloud_cover` (or the older `cloudcover`) in per cent, `visibility` in metres, and
`diffuse_radiation` or `shortwave_radiation` in W/m2, means of the hour before. Its archive of
reanalyses has no visibility.

Visual Crossing's timeline JSON, one place a file, in metric units: `latitude`, `longitude`, `tzoffset`
and `days`, each with `hours` of `datetimeEpoch`, `cloudcover` in per cent, `visibility` in km and
`solarradiation` in W/m2. (Its field list is from its documentation; no file of theirs was at hand.)

Only cloud cover is a must. What is missing else is replaced, and `HourlyWeather.notes` says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from quantum.repeaters.channel import VISIBILITY_KM
from quantum.repeaters.cities import City, great_circles_km
from quantum.repeaters.weather import CLEAR_VISIBILITY_KM, HourlyWeather
from topo.errors import InputError

Floats = NDArray[np.float64]

FARTHEST_KM: Final = 50.0
"""How far from a city its weather may be: grids of weather models are 2 to 25 km wide."""
LONGEST_GAP_H: Final = 6
"""Most missing values in a row that are interpolated."""
_KM_OF_UNIT: Final = {"m": 1e-3, "km": 1.0, "ft": 0.3048e-3}
_HALF_HOUR_S: Final = 1800.0


@dataclass(frozen=True)
class _Place:
    """One place's weather; arrays (instants,), None for what its file lacks."""

    source: str
    city: City
    unix_s: Floats
    cloud: Floats
    visibility_km: Floats | None
    irradiance_W_m2: Floats | None
    offset_s: float
    notes: tuple[str, ...]


def read_weather(
    files: Path | Sequence[Path],
    cities: Sequence[City],
    *,
    default_visibility_km: float = CLEAR_VISIBILITY_KM,
) -> HourlyWeather:
    """The weather of all cities from one file or several, each city's from the nearest place in them.

    Where a place has no visibility, `default_visibility_km` is taken; where one has no radiation, the sky's
    brightness is modelled from Sun and cloud for all. Raises `InputError` with file, field and remedy:
    for what is no weather, lacks cloud cover, or is further than 50 km from a city.
    """
    paths = [files] if isinstance(files, Path) else list(files)
    places = [place for path in paths for place in _read(path)]
    if not places:
        raise InputError("no weather file: fetch one (quantum.repeaters.weather_fetch)")
    chosen = [_nearest(places, city) for city in cities]
    first = chosen[0]
    for place in chosen:
        if not np.array_equal(place.unix_s, first.unix_s):
            raise InputError(
                f"{place.source}: hourly.time: other hours than {first.source}: fetch both for the same days"
            )
    notes = list(dict.fromkeys(note for place in chosen for note in place.notes))
    missing = [place.source for place in chosen if place.visibility_km is None]
    if missing:
        notes.append(
            f"{_named(missing)}: visibility: missing; {default_visibility_km:g} km taken instead"
        )
    dark = [place.source for place in chosen if place.irradiance_W_m2 is None]
    if dark:
        notes.append(f"{_named(dark)}: radiation: missing; modelled from Sun and cloud")
    hours = len(first.unix_s)
    visibility = [
        np.full(hours, default_visibility_km)
        if place.visibility_km is None
        else place.visibility_km
        for place in chosen
    ]
    light = [place.irradiance_W_m2 for place in chosen if place.irradiance_W_m2 is not None]
    return HourlyWeather(
        first.unix_s,
        np.stack([place.cloud for place in chosen], axis=1),
        np.clip(np.stack(visibility, axis=1), *VISIBILITY_KM),
        None if dark else np.stack(light, axis=1),
        tuple(cities),
        f"weather of {', '.join(path.name for path in paths)}",
        irradiance_offset_s=first.offset_s,
        notes=tuple(notes),
    )


def _named(sources: Sequence[str]) -> str:
    unique = list(dict.fromkeys(sources))
    return unique[0] if len(unique) == 1 else f"{unique[0]} and {len(unique) - 1} more places"


def _nearest(places: Sequence[_Place], city: City) -> _Place:
    away_km = great_circles_km([place.city for place in places], city)
    best = int(np.argmin(away_km))
    if away_km[best] > FARTHEST_KM:
        raise InputError(
            f"{places[best].source}: {city.name} is {away_km[best]:.0f} km from the nearest weather: fetch it "
            f"for {city.latitude_deg:g}, {city.longitude_deg:g}"
        )
    return places[best]


def _read(path: Path) -> list[_Place]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # no JSON, or no UTF-8
        raise InputError(f"{path}: no JSON: {error}; fetch it again") from error
    several = isinstance(content, list)
    places = []
    for number, one in enumerate(content if several else [content]):
        source = f"{path}[{number}]" if several else str(path)
        if not isinstance(one, dict):
            raise InputError(f"{source}: an object should be here, as Open-Meteo delivers it")
        if one.get("error"):
            raise InputError(
                f"{source}: the service refused: {one.get('reason', 'no reason given')}"
            )
        if "hourly" in one:
            places.append(_open_meteo(one, source))
        elif "days" in one:
            places.append(_visual_crossing(one, source))
        else:
            raise InputError(
                f"{source}: hourly: missing: ask Open-Meteo for hourly=cloud_cover,visibility,... "
                "(or Visual Crossing for include=hours)"
            )
    return places


def _open_meteo(one: Mapping[str, Any], source: str) -> _Place:
    hourly, units = one["hourly"], one.get("hourly_units", {})
    if not isinstance(hourly, dict) or not isinstance(hourly.get("time"), list):
        raise InputError(f"{source}: hourly.time: missing: fetch it again with hourly=...")
    if not isinstance(units, dict):
        raise InputError(f"{source}: hourly_units: no object: fetch it again")
    offset_s = _number(one, "utc_offset_seconds", source, 0.0)
    if units.get("time", "iso8601") == "unixtime":
        # These are UTC whatever the time zone.
        unix_s = _numbers(hourly["time"], len(hourly["time"]), f"{source}: hourly.time")
    else:
        unix_s = _instants(hourly["time"], offset_s, source)
    notes: list[str] = []

    def column(*names: str, must: bool = False) -> Floats | None:
        name = next((name for name in names if name in hourly), None)
        if name is not None:
            place = f"{source}: hourly.{name}"
            return _column(hourly[name], len(unix_s), place, must, notes)
        if must:
            raise InputError(
                f"{source}: hourly.{names[0]}: missing: fetch it again with hourly={names[0]}"
            )
        return None

    unit = units.get("visibility", "m")
    if not isinstance(unit, str) or unit not in _KM_OF_UNIT:
        raise InputError(f"{source}: hourly_units.visibility: {unit!r}: m, km or ft it can be")
    cloud = column("cloud_cover", "cloudcover", must=True)
    visibility = column("visibility")
    light = column("diffuse_radiation", "shortwave_radiation")
    if light is not None and "diffuse_radiation" not in hourly:
        notes.append(f"{source}: diffuse_radiation: missing; shortwave_radiation taken for it")
    if visibility is not None:
        visibility *= _KM_OF_UNIT[unit]
    columns = cloud, visibility, light
    return _place(one, source, unix_s, columns, offset_s=-_HALF_HOUR_S, notes=notes)


def _visual_crossing(one: Mapping[str, Any], source: str) -> _Place:
    days = one["days"]
    hours: list[tuple[str, Mapping[str, Any]]] = []
    for number, day in enumerate(days if isinstance(days, list) else [None]):
        if not isinstance(day, dict) or not isinstance(day.get("hours"), list):
            raise InputError(
                f"{source}: days[{number}].hours: missing: fetch it with include=hours"
            )
        if not all(isinstance(hour, dict) for hour in day["hours"]):
            raise InputError(f"{source}: days[{number}].hours: not only objects: fetch it again")
        hours += [(str(day.get("datetime")), hour) for hour in day["hours"]]
    if all("datetimeEpoch" in hour for _, hour in hours):
        epochs = [hour["datetimeEpoch"] for _, hour in hours]
        unix_s = _numbers(epochs, len(hours), f"{source}: days[].hours[].datetimeEpoch")
    else:
        texts = [f"{day}T{hour.get('datetime')}" for day, hour in hours]
        unix_s = _instants(texts, 3600 * _number(one, "tzoffset", source, 0.0), source)
    notes: list[str] = []

    def column(name: str, must: bool = False) -> Floats | None:
        place = f"{source}: days[].hours[].{name}"
        if any(name in hour for _, hour in hours):
            return _column([hour.get(name) for _, hour in hours], len(hours), place, must, notes)
        if must:
            raise InputError(f"{place}: missing: fetch it again with elements={name}")
        return None

    light = column("solarradiation")
    if light is not None:
        notes.append(f"{source}: solarradiation, of Sun and sky, taken for the sky's alone")
    columns = column("cloudcover", must=True), column("visibility"), light
    return _place(one, source, unix_s, columns, offset_s=0.0, notes=notes)


def _place(
    one: Mapping[str, Any],
    source: str,
    unix_s: Floats,
    columns: tuple[Floats | None, Floats | None, Floats | None],
    *,
    offset_s: float,
    notes: list[str],
) -> _Place:
    cloud, visibility, light = columns
    where = City(source, "", _number(one, "latitude", source), _number(one, "longitude", source))
    if not len(unix_s) or not np.all(np.isfinite(unix_s)) or not np.all(np.diff(unix_s) > 0):
        raise InputError(f"{source}: its hours must rise, and there must be some: fetch it again")
    if cloud is None or not np.all((cloud >= 0) & (cloud <= 100)):
        raise InputError(f"{source}: cloud cover: from 0 to 100 per cent: fetch it again")
    if visibility is not None and np.any(visibility < 0):
        raise InputError(f"{source}: visibility: below 0: fetch it again")
    if light is not None:
        light = np.maximum(light, 0.0)  # instruments go a little below 0 at night
    return _Place(source, where, unix_s, cloud / 100, visibility, light, offset_s, tuple(notes))


def _number(one: Mapping[str, Any], name: str, source: str, default: float | None = None) -> float:
    value = one.get(name, default)
    if not isinstance(value, int | float):
        raise InputError(f"{source}: {name}: missing or no number: fetch it again")
    return float(value)


def _instants(texts: Sequence[Any], offset_s: float, source: str) -> Floats:
    """Seconds since 1970 UTC of local times without a zone."""
    try:
        times = [datetime.fromisoformat(text) for text in texts]
        if any(time.tzinfo for time in times):
            raise ValueError("with a time zone")
    except (TypeError, ValueError) as error:
        raise InputError(f"{source}: time: {error}; as 2024-02-29T23:00 it should be") from error
    utc_s = [time.replace(tzinfo=UTC).timestamp() - offset_s for time in times]
    return np.array(utc_s, dtype=np.float64)


def _column(values: Any, hours: int, place: str, must: bool, notes: list[str]) -> Floats | None:
    """A column of numbers, short gaps interpolated; None where longer ones make it useless.

    Raises `InputError` for one that is a must. What was done goes into `notes`.
    """
    numbers = _numbers(values, hours, place)
    known = np.flatnonzero(np.isfinite(numbers))
    gap = int(np.diff(np.concatenate([[-1], known, [hours]])).max()) - 1
    if gap > LONGEST_GAP_H:
        if must:
            raise InputError(
                f"{place}: {gap} values missing in a row: take other days or another weather model"
            )
        notes.append(f"{place}: {gap} values missing in a row, none of it used")
        return None
    if gap:
        notes.append(f"{place}: {hours - len(known)} missing values interpolated")
    return np.interp(np.arange(hours), known, numbers[known])


def _numbers(values: Any, hours: int, place: str) -> Floats:
    """A list of that many numbers as an array, null as NaN."""
    if not isinstance(values, list) or len(values) != hours:
        raise InputError(
            f"{place}: must have a value for each of the {hours} hours: fetch it again"
        )
    try:
        numbers = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{place}: not only numbers: {error}; fetch it again") from error
    if numbers.ndim != 1:
        raise InputError(f"{place}: not only numbers: lists in it; fetch it again")
    return numbers
