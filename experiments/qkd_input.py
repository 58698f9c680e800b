"""What a QKD run starts from: a pass, and the presets with what the user changes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import datetime, timedelta
from math import isfinite, nan
from typing import Any

from experiments.passes import PAPER_STATIONS, iso, parse_station
from quantum.bb84 import source
from quantum.bb84.source import Bb84Parameters
from quantum.optics import Downlink
from topo.errors import InputError
from topo.space.contacts import Contact
from topo.space.passes import Pass, circular_pass
from topo.space.stations import Station


@dataclass(frozen=True)
class FlownPass:
    """A pass and how it came about."""

    geometry: Pass
    title: str
    """One line: whose pass, over what, when."""
    origin: Mapping[str, Any]
    """The same for machines, JSON-able."""


def circular(altitude_km: float, culmination_deg: float, mask_deg: float) -> FlownPass:
    """The pass of a circular orbit over an Earth that does not turn."""
    return FlownPass(
        circular_pass(altitude_km, culmination_deg, mask_deg),
        f"circular orbit at {altitude_km:g} km, culmination {culmination_deg:g}°",
        {
            "kind": "circular",
            "altitude_km": altitude_km,
            "culmination_deg": culmination_deg,
            "mask_deg": mask_deg,
        },
    )


def known_station(text: str) -> Station:
    """One of the paper's stations by its name, or any as `NAME=LAT,LON[,ALT_M]`."""
    for station in PAPER_STATIONS:
        if text.strip().casefold() == station.name.casefold():
            return station
    if "=" not in text:
        names = ", ".join(station.name for station in PAPER_STATIONS)
        raise InputError(
            f"station {text!r}: {names}, or one with its place, as in Jinan=36.65,117.12,30"
        )
    return parse_station(text)


def of_contact(contact: Contact) -> FlownPass:
    """A pass found in an orbit, in slots of a second."""
    station, tle = contact.station, contact.satellite.tle
    first, last = (_whole_second(instant) for instant in (contact.aos, contact.los))
    return FlownPass(
        contact.slots(),
        f"{contact.satellite.name} over {station.name}, {first:%Y-%m-%d %H:%M:%S} to "
        f"{last:%H:%M:%S} UTC, culmination {contact.culmination_deg:.1f}°",
        {
            "kind": "tle",
            "satellite": contact.satellite.name,
            "tle": [tle.line1, tle.line2],
            "station": asdict(station),
            "night": contact.night.isoformat(),
            "mask_deg": contact.mask_deg,
            "aos": iso(contact.aos),
            "culmination": iso(contact.culmination),
            "los": iso(contact.los),
            "culmination_deg": contact.culmination_deg,
            "sky": asdict(contact.sky),
        },
    )


def apply_changes(
    link: Downlink, parameters: Bb84Parameters, changes: Sequence[str]
) -> tuple[Downlink, Bb84Parameters]:
    """The presets with single parameters changed: `link.receiver_m=0.6`, `source.intensities=0.7,0.1,0`.

    All changes of one take effect at once. Raises `InputError` for an unknown parameter, a value of
    another kind, or one that cannot be.
    """
    of_link: dict[str, float] = {}
    of_source: list[str] = []
    for change in changes:
        part, _, assignment = change.partition(".")
        name, equals, value = (piece.strip() for piece in assignment.partition("="))
        if part.strip() not in {"link", "source"} or not equals:
            raise InputError(
                f"--set {change}: not an assignment such as link.receiver_m=0.6 or "
                "source.intensities=0.7,0.1,0"
            )
        if part.strip() == "source":
            of_source.append(assignment)
            continue
        if is_dataclass(getattr(link, name, None)):
            raise InputError(f"--set {change}: {name} is a part; name one of its numbers instead")
        of_link[name] = _number(change, value)
    try:
        return link.changed(**of_link), source.changed(parameters, of_source)
    except InputError as error:
        raise InputError(f"--set: {error}") from error


def _number(change: str, value: str) -> float:
    """An int where it is written as one: some parameters count things."""
    try:
        number = int(value) if value.lstrip("+-").isdecimal() else float(value)
    except ValueError:
        number = nan
    if not isfinite(number):
        raise InputError(f"--set {change}: {value!r} is not a number")
    return number


def _whole_second(instant: datetime) -> datetime:
    return (instant + timedelta(seconds=0.5)).replace(microsecond=0)
