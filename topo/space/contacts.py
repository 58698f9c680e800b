"""Passes from orbital elements: when a satellite is above a station's mask, and what the sky is like then.

The search steps over the whole time at once (some ninety steps a revolution), takes every interval
in which the rate of the elevation turns from rising to falling, finds the culmination in it, and
then rise and set, each to 0.1 ms. No pass is lost for being short: a pass has a culmination.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize.elementwise import find_root

from topo.errors import InputError
from topo.space.frames import turned_with_the_earth, utc
from topo.space.orbit import MAX_AGE_DAYS, Satellite
from topo.space.passes import Pass
from topo.space.sky import Sky, is_sunlit, moon_illumination, night_of, sun_and_moon
from topo.space.stations import Station

Floats = NDArray[np.float64]

STEPS_PER_REVOLUTION: Final = 90
"""Of the search, on a circular orbit through the perigee: 63 s in a low orbit."""
PRECISION_S: Final = 1e-4
"""Of every instant."""
SAMPLES: Final = 31
"""Instants along a pass at which its range and the satellite's sunlight are looked at."""


@dataclass(frozen=True)
class Contact:
    """One pass of a satellite over a station, from rise (AOS) to set (LOS) at the mask. Instants are UTC."""

    satellite: Satellite
    station: Station
    mask_deg: float
    aos: datetime
    culmination: datetime
    los: datetime
    aos_azimuth_deg: float
    culmination_azimuth_deg: float
    los_azimuth_deg: float
    culmination_deg: float
    """Highest elevation."""
    aos_range_km: float
    min_range_km: float
    los_range_km: float
    sky: Sky

    @property
    def duration_s(self) -> float:
        return (self.los - self.aos).total_seconds()

    @property
    def night(self) -> date:
        """The night it belongs to at its station, named by the evening."""
        return night_of(self.culmination, self.station.longitude_deg)

    def slots(self, slot_s: float = 1.0) -> Pass:
        """The pass in slots of that length, as the optical link wants it.

        As many whole slots as fit between AOS and LOS, what is left over being shared between both
        ends; geometry at each slot's centre. Raises `InputError` where not one fits.
        """
        count = int(self.duration_s / slot_s + 1e-3) if slot_s > 0 else 0
        if count < 1:
            raise InputError(
                f"no slot of {slot_s:g} s fits into a pass of {self.duration_s:.1f} s over "
                f"{self.station.name}"
            )
        middle_s = (self.aos.timestamp() + self.los.timestamp()) / 2.0
        instants = middle_s + slot_s * (np.arange(count) - (count - 1) / 2.0)
        azimuth, elevation, distance = self.station.look_at(self.satellite.state(instants)[0])
        return Pass(
            t_s=np.asarray(instants - self.culmination.timestamp(), np.float64),
            elevation_deg=elevation,
            range_km=distance,
            slot_s=slot_s,
            azimuth_deg=azimuth,
            culmination=self.culmination,
        )


def find_passes(
    satellite: Satellite,
    station: Station,
    start: datetime,
    end: datetime,
    mask_deg: float = 10.0,
    *,
    max_age_days: float = MAX_AGE_DAYS,
) -> list[Contact]:
    """All passes of a satellite over a station that culminate in [start, end), by time, each complete.

    Raises `InputError` for elements further than `max_age_days` from their epoch, for dates without
    a time zone, for an impossible mask, for a satellite that never sets (it makes no passes).
    """
    return find_all_passes([satellite], [station], start, end, mask_deg, max_age_days=max_age_days)


def find_all_passes(
    satellites: Iterable[Satellite],
    stations: Sequence[Station],
    start: datetime,
    end: datetime,
    mask_deg: float = 10.0,
    *,
    max_age_days: float = MAX_AGE_DAYS,
) -> list[Contact]:
    """`find_passes` of every satellite over every station, all by time of rise."""
    if start.tzinfo is None or end.tzinfo is None:
        raise InputError("the time of a pass search needs a time zone")
    if not start < end:
        raise InputError(f"no time between {start:%Y-%m-%d %H:%M} and {end:%Y-%m-%d %H:%M}")
    if not 0 <= mask_deg < 90:
        raise InputError(f"elevation mask {mask_deg:g}: degrees from 0 to below 90")
    found: list[Contact] = []
    for satellite in satellites:
        satellite.check_age(start.timestamp(), end.timestamp(), max_age_days)
        scan = _Scan(satellite, start.timestamp(), end.timestamp())
        for station in stations:
            found += _contacts(scan, station, mask_deg)
    return sorted(found, key=lambda contact: (contact.aos, contact.station.name))


class _Scan:
    """A satellite's positions over the time asked for and a revolution either side."""

    def __init__(self, satellite: Satellite, start_s: float, end_s: float) -> None:
        self.satellite, self.start_s, self.end_s = satellite, start_s, end_s
        step_s = satellite.period_s * (1.0 - satellite.tle.eccentricity) ** 1.5
        step_s /= STEPS_PER_REVOLUTION
        margin_s = satellite.period_s
        self.instants = np.arange(start_s - margin_s, end_s + margin_s + step_s, step_s)
        self.position_km, self.velocity_km_s = satellite.state(self.instants)


def _contacts(scan: _Scan, station: Station, mask_deg: float) -> list[Contact]:
    aos_s, culmination_s, los_s = _visibilities(scan, station, mask_deg)
    if not aos_s.size:
        return []
    events = np.stack([aos_s, culmination_s, los_s])  # (3, passes)
    position, _ = scan.satellite.state(events.ravel())
    azimuth, elevation, distance = (
        angle.reshape(events.shape) for angle in station.look_at(position)
    )
    nearest_km, skies = _along(scan.satellite, station, events)
    return [
        Contact(
            satellite=scan.satellite,
            station=station,
            mask_deg=mask_deg,
            aos=utc(events[0, n]),
            culmination=utc(events[1, n]),
            los=utc(events[2, n]),
            aos_azimuth_deg=float(azimuth[0, n]),
            culmination_azimuth_deg=float(azimuth[1, n]),
            los_azimuth_deg=float(azimuth[2, n]),
            culmination_deg=float(elevation[1, n]),
            aos_range_km=float(distance[0, n]),
            min_range_km=float(nearest_km[n]),
            los_range_km=float(distance[2, n]),
            sky=skies[n],
        )
        for n in range(events.shape[1])
    ]


def _visibilities(scan: _Scan, station: Station, mask_deg: float) -> tuple[Floats, Floats, Floats]:
    """Instants of rise, culmination and set of the passes that culminate in the time asked for."""
    sin_mask = float(np.sin(np.radians(mask_deg)))

    def sine(instants: Floats) -> Floats:
        return _sine_and_rate(station, *scan.satellite.state(instants))[0]

    def rate(instants: Floats) -> Floats:
        return _sine_and_rate(station, *scan.satellite.state(instants))[1]

    instants = scan.instants
    sines, rates = _sine_and_rate(station, scan.position_km, scan.velocity_km_s)
    # Near the horizon the elevation moves a degree or so a step: what is lower than that stays below the mask.
    near = np.maximum(sines[:-1], sines[1:]) > np.sin(np.radians(-5.0))
    turns = np.flatnonzero((rates[:-1] > 0) & (rates[1:] <= 0) & near)
    peaks = _roots(rate, instants[turns], instants[turns + 1])

    # The steps and the culminations in one ascending list; a pass is a run of it above the mask.
    nodes = np.concatenate([instants, peaks])
    order = np.argsort(nodes, kind="stable")
    nodes, heights = nodes[order], np.concatenate([sines, sine(peaks)])[order]
    above = heights > sin_mask
    edges = np.diff(above.astype(np.int8))
    rises, sets = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    # What is up at an end of the search must be another pass, a revolution away from the time asked for.
    until = nodes[sets[0] if sets.size else -1] if above[0] else -np.inf
    since = nodes[rises[-1] if rises.size else 0] if above[-1] else np.inf
    if until > scan.start_s or since < scan.end_s:
        raise InputError(
            f"{scan.satellite.name} stays above {mask_deg:g} degrees at {station.name} for more than "
            "a revolution: it makes no passes there"
        )
    sets, rises = sets[int(above[0]) :], rises[: rises.size - int(above[-1])]
    tops = np.array(
        [r + 1 + np.argmax(heights[r + 1 : s + 1]) for r, s in zip(rises, sets, strict=True)],
        dtype=np.intp,
    )
    wanted = (nodes[tops] >= scan.start_s) & (nodes[tops] < scan.end_s)
    rises, tops, sets = rises[wanted], tops[wanted], sets[wanted]
    crossings = np.concatenate([rises, sets])
    ends = _roots(lambda t: sine(t) - sin_mask, nodes[crossings], nodes[crossings + 1])
    return ends[: rises.size], nodes[tops], ends[rises.size :]


def _sine_and_rate(
    station: Station, position_km: Floats, velocity_km_s: Floats
) -> tuple[Floats, Floats]:
    """Sine of the elevation, and its rate of change times the cube of the range; shape (n,) each."""
    away = position_km - station.position_km[:, np.newaxis]
    up, up_rate = station.east_north_up[2] @ away, station.east_north_up[2] @ velocity_km_s
    square = np.einsum("in,in->n", away, away)
    opening = np.einsum("in,in->n", away, velocity_km_s)
    return up / np.sqrt(square), up_rate * square - up * opening


def _roots(function: Callable[[Floats], Floats], low: Floats, high: Floats) -> Floats:
    """Where a vectorised function changes its sign between each pair of instants."""
    if not low.size:
        return low
    return np.asarray(find_root(function, (low, high), tolerances={"xatol": PRECISION_S}).x)


def _along(satellite: Satellite, station: Station, events: Floats) -> tuple[Floats, list[Sky]]:
    """Least range (passes,) and the sky of each pass, from samples between rise and set."""
    aos_s, culmination_s, los_s = events
    share = np.linspace(0.0, 1.0, SAMPLES)[:, np.newaxis]
    instants = aos_s + share * (los_s - aos_s)  # (samples, passes)
    position = satellite.state(instants.ravel())[0].reshape(3, *instants.shape)
    _, _, distance = station.look_at(position)

    sun, moon = sun_and_moon(culmination_s)
    # In the minutes of a pass the Sun moves by a few thousandths of a degree among the stars: only the Earth turns.
    suns = [station.look_at(turned_with_the_earth(sun, when - culmination_s))[1] for when in events]
    of_moon = station.look_at(moon)[1]
    lit = moon_illumination(sun, moon)
    sun_along = turned_with_the_earth(sun[:, np.newaxis, :], instants - culmination_s)
    sunlit = is_sunlit(position, sun_along).mean(axis=0)
    highest = np.max(suns, axis=0)
    skies = [
        Sky(*map(float, one)) for one in zip(suns[1], highest, of_moon, lit, sunlit, strict=True)
    ]
    return _least(distance), skies


def _least(distance_km: Floats) -> Floats:
    """Least range of each pass from samples (samples, passes).

    The square of the range is a parabola where the satellite goes by: its vertex through the least
    sample and the two beside it.
    """
    square = distance_km**2
    at = np.clip(np.argmin(square, axis=0), 1, len(square) - 2)
    pass_ = np.arange(square.shape[1])
    before, here, after = (square[at + step, pass_] for step in (-1, 0, 1))
    slope, curve = (after - before) / 2.0, after - 2.0 * here + before
    vertex = here - np.divide(slope**2, 2.0 * curve, out=np.zeros_like(here), where=curve > 0)
    inside = np.abs(slope) <= curve
    least: Floats = np.sqrt(np.where(inside, vertex, square.min(axis=0)))
    return least
