"""Which passes of quantum satellites there are, which of them can be used, and which station gets each.

A pass counts when the Sun is low enough at the station for all of it and, where the cloud model is
on, the night is clear. Among those that count and clash, a rule chooses; see
`topo.space.allocation`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any, Final, Literal

from topo.errors import InputError
from topo.space.allocation import (
    Rank,
    allocate,
    clash,
    conflicts,
    highest,
    in_order,
    longest,
    usable,
)
from topo.space.clouds import CloudModel
from topo.space.contacts import Contact, find_all_passes
from topo.space.orbit import MAX_AGE_DAYS, Satellite
from topo.space.sky import NIGHT_SUN_DEG
from topo.space.stations import Station
from topo.space.tle import find_tle_file, read_tles

Rule = Literal["highest", "longest", "order"]

PAPER_STATIONS: Final = (
    Station("Beijing", 40.1, 116.5, 44.0),
    Station("Shanghai", 31.1, 121.5, 4.0),
)
"""Coordinates of the paper's figure 11; it gives no altitudes, these are the cities'."""
PAPER_UTC_OFFSET_H: Final = 8.0
YEARS: Final = range(1957, 2057)
"""Of the epochs that two digits of an element set can mean."""


@dataclass(frozen=True)
class PassOptions:
    """What is searched, and what makes a pass count."""

    tles: Sequence[str] = ("jinan1-a",)
    """Files of element sets, or names of shipped ones."""
    stations: Sequence[Station] = PAPER_STATIONS
    start: datetime | None = None
    """Begin of the search; by default the day of the first element set's epoch, in `zone`."""
    days: float = 8.0
    night: date | None = None
    """Only this night, noon to noon at each station, instead of `start` and `days`."""
    mask_deg: float = 10.0
    max_age_days: float = MAX_AGE_DAYS
    sun_below_deg: float = NIGHT_SUN_DEG
    clouds: CloudModel | None = None
    rule: Rule = "highest"
    guard_s: float = 0.0
    """Time a terminal needs from one partner to the next."""
    zone: tzinfo = timezone(timedelta(hours=PAPER_UTC_OFFSET_H))
    """Zone of days without one, and of times that people read."""


@dataclass(frozen=True)
class ListedPass:
    """A pass and what became of it."""

    contact: Contact
    is_dark: bool
    is_clear: bool | None
    """None where no cloud model was asked."""
    rivals: tuple[Contact, ...]
    """Usable passes that clash with this one, if it is usable itself."""
    is_granted: bool
    """Whether it gets the terminals it needs."""
    winners: tuple[Contact, ...]
    """Of the rivals, those that are granted."""

    @property
    def is_usable(self) -> bool:
        return self.is_dark and self.is_clear is not False

    @property
    def sky_verdict(self) -> str:
        if not self.is_dark:
            return "daylight"
        return {None: "dark", True: "dark, clear", False: "overcast"}[self.is_clear]

    @property
    def terminal_verdict(self) -> str:
        """Who has the terminal in the end, in words."""
        if not self.is_usable:
            return "-"
        if self.is_granted:
            over = ", ".join(_opponent(self.contact, rival) for rival in self.rivals)
            return f"granted over {over}" if over else "granted"
        return f"goes to {', '.join(_opponent(self.contact, one) for one in self.winners)}"


@dataclass(frozen=True)
class PassList:
    """All passes of a search, by time."""

    options: PassOptions
    satellites: tuple[Satellite, ...]
    start: datetime
    end: datetime
    passes: tuple[ListedPass, ...]

    def report(self) -> dict[str, Any]:
        """Everything, JSON-able; instants in UTC."""
        options = self.options
        return {
            "satellites": [
                {
                    "name": satellite.name,
                    "number": satellite.tle.number,
                    "elements": satellite.tle.place,
                    "epoch": iso(satellite.tle.epoch),
                }
                for satellite in self.satellites
            ],
            "stations": [
                {
                    "name": station.name,
                    "latitude_deg": station.latitude_deg,
                    "longitude_deg": station.longitude_deg,
                    "altitude_m": station.altitude_m,
                }
                for station in options.stations
            ],
            "from": iso(self.start),
            "to": iso(self.end),
            "night": options.night and options.night.isoformat(),
            "mask_deg": options.mask_deg,
            "sun_below_deg": options.sun_below_deg,
            "clouds": None if options.clouds is None else options.clouds.describe(),
            "rule": options.rule,
            "guard_s": options.guard_s,
            "passes": [describe(listed) for listed in self.passes],
        }


def describe(listed: ListedPass) -> dict[str, Any]:
    """One pass, JSON-able."""
    contact, sky = listed.contact, listed.contact.sky
    return {
        "satellite": contact.satellite.name,
        "station": contact.station.name,
        "night": contact.night.isoformat(),
        "aos": iso(contact.aos),
        "culmination": iso(contact.culmination),
        "los": iso(contact.los),
        "duration_s": round(contact.duration_s, 3),
        "culmination_deg": round(contact.culmination_deg, 3),
        "aos_azimuth_deg": round(contact.aos_azimuth_deg, 2),
        "culmination_azimuth_deg": round(contact.culmination_azimuth_deg, 2),
        "los_azimuth_deg": round(contact.los_azimuth_deg, 2),
        "aos_range_km": round(contact.aos_range_km, 2),
        "min_range_km": round(contact.min_range_km, 2),
        "los_range_km": round(contact.los_range_km, 2),
        "sun_elevation_deg": round(sky.sun_elevation_deg, 2),
        "moon_elevation_deg": round(sky.moon_elevation_deg, 2),
        "moon_illumination": round(sky.moon_illumination, 4),
        "sunlit_fraction": round(sky.sunlit_fraction, 3),
        "dark": listed.is_dark,
        "clear": listed.is_clear,
        "usable": listed.is_usable,
        "rivals": [_opponent(contact, rival) for rival in listed.rivals],
        "granted": listed.is_granted,
        "winners": [_opponent(contact, winner) for winner in listed.winners],
    }


def list_passes(options: PassOptions) -> PassList:
    """Search the passes, judge the sky of each and share out the terminals.

    Raises `InputError` for files, stations and times that cannot be used.
    """
    satellites = load_satellites(options.tles)
    names = [station.name for station in options.stations]
    _check_names("station", names)
    strangers = sorted(set(options.clouds.of_station if options.clouds else ()) - set(names))
    if strangers:
        raise InputError(
            f"clear-sky probability of {strangers[0]}: the stations are {', '.join(names)}"
        )
    start, end = _interval(options, satellites[0])
    contacts = find_all_passes(
        satellites,
        options.stations,
        start,
        end,
        options.mask_deg,
        max_age_days=options.max_age_days,
    )
    if options.night is not None:
        contacts = [contact for contact in contacts if contact.night == options.night]
    candidates = usable(contacts, sun_below_deg=options.sun_below_deg, clouds=options.clouds)
    granted = set(allocate(candidates, _rank(options), options.guard_s))
    rivals: dict[Contact, list[Contact]] = {}
    for group in conflicts(candidates, options.guard_s):
        for one in group:
            rivals[one] = [
                other for other in group if other is not one and clash(one, other, options.guard_s)
            ]
    clouds = options.clouds
    listed = (
        ListedPass(
            contact,
            contact.sky.is_dark(options.sun_below_deg),
            None if clouds is None else clouds.is_clear(contact.station.name, contact.night),
            tuple(rivals.get(contact, ())),
            contact in granted,
            tuple(rival for rival in rivals.get(contact, ()) if rival in granted),
        )
        for contact in contacts
    )
    return PassList(options, satellites, start, end, tuple(listed))


def load_satellites(names: Sequence[str]) -> tuple[Satellite, ...]:
    """The satellites of some files of element sets, or of shipped ones by name; at least one.

    Raises `InputError` for a file that cannot be used or two satellites of one name.
    """
    tles = [tle for name in names for tle in read_tles(find_tle_file(name))]
    _check_names("satellite", [tle.name for tle in tles])
    return tuple(Satellite(tle) for tle in tles)


def best_pass(options: PassOptions) -> Contact:
    """The highest usable pass of the search: of one station and one night, the pass to make key in.

    Other stations' claims to the terminal are not considered. Raises `InputError` that says what
    passes there are when none can be used.
    """
    found = list_passes(options).passes
    candidates = [listed.contact for listed in found if listed.is_usable]
    if candidates:
        return max(candidates, key=lambda contact: contact.culmination_deg)
    where = ", ".join(station.name for station in options.stations)
    when = f" in the night of {options.night}" if options.night else ""
    reasons = sorted({listed.sky_verdict for listed in found})
    because = (
        f"{len(found)} in all, {' or '.join(reasons)}"
        if found
        else f"none rises above {options.mask_deg:g} degrees"
    )
    raise InputError(
        f"no usable pass over {where}{when}: {because}; `qntn passes` lists other nights"
    )


def parse_station(text: str) -> Station:
    """A station as the command line has it: `NAME=LAT,LON` or `NAME=LAT,LON,ALT_M`."""
    name, _, place = text.partition("=")
    try:
        numbers = [float(number) for number in place.split(",")]
    except ValueError:
        numbers = []
    if not name.strip() or len(numbers) not in {2, 3}:
        raise InputError(
            f"station {text!r}: a name, then degrees north and east and metres of altitude, as in "
            "Jinan=36.65,117.12,30"
        )
    return Station(name.strip(), *numbers)


def parse_clouds(shares: Sequence[str], persistence: float, seed: int) -> CloudModel | None:
    """The cloud model of some `P` (all stations) and `NAME=P` (that station); None without any."""
    everywhere, of_station = 1.0, {}
    for text in shares:
        name, equals, number = text.rpartition("=")
        try:
            share = float(number)
        except ValueError:
            raise InputError(
                f"clear-sky probability {text!r}: a number from 0 to 1, or NAME=NUMBER"
            ) from None
        if equals:
            of_station[name] = share
        else:
            everywhere = share
    model = CloudModel(seed, everywhere, persistence, of_station)
    return model if shares else None


def parse_instant(text: str, zone: tzinfo) -> datetime:
    """A date or a time in ISO 8601; without a zone of its own it is in `zone`."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"time {text!r}: a date or time such as 2024-11-22 or 2024-11-22T14:30Z"
        ) from None
    return instant if instant.tzinfo else instant.replace(tzinfo=zone)


def clock_text(instant: datetime, zone: tzinfo) -> str:
    """Time of day in a zone, rounded to the second."""
    return f"{rounded(instant, zone):%H:%M:%S}"


def rounded(instant: datetime, zone: tzinfo) -> datetime:
    """An instant in a zone, rounded to the second."""
    return datetime.fromtimestamp(round(instant.timestamp()), zone)


def _interval(options: PassOptions, satellite: Satellite) -> tuple[datetime, datetime]:
    asked = options.night or options.start
    if asked is not None and asked.year not in YEARS:
        raise InputError(
            f"year {asked.year}: element sets are of {YEARS[0]} to {YEARS[-1]}, and so are passes"
        )
    if options.night is not None:
        # Local noon is between midnight UTC of the day (far east) and of the next (far west).
        midnight = datetime.combine(options.night, datetime.min.time(), UTC)
        return midnight, midnight + timedelta(days=2)
    start = options.start
    if start is None:
        epoch = satellite.tle.epoch.astimezone(options.zone)
        start = epoch.replace(hour=0, minute=0, second=0, microsecond=0)
    return start, start + timedelta(days=options.days)


def _rank(options: PassOptions) -> Rank:
    ranks: dict[Rule, Callable[[], Rank]] = {
        "highest": lambda: highest,
        "longest": lambda: longest,
        "order": lambda: in_order([station.name for station in options.stations]),
    }
    return ranks[options.rule]()


def _opponent(contact: Contact, rival: Contact) -> str:
    """The rival station; or, at the same station, the rival satellite."""
    same_station = rival.station.name == contact.station.name
    return rival.satellite.name if same_station else rival.station.name


def _check_names(what: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"two of the name {twice[0]}: give every {what} a name of its own")


def iso(instant: datetime) -> str:
    """An instant in UTC, ISO 8601, to the millisecond."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
