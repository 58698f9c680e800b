"""The scenario file: a TOML description of one network and what is measured on it, checked by a schema.

Configuration only: nothing here opens a socket or knows Mininet. `load` turns a bad file into one `ScenarioError`
with the file, the key and the remedy. The shipped scenarios are in `topo/scenarios/`; `paper.toml` says in its
comments what each key means.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from topo.errors import ScenarioError
from topo.links.delays import DelayElement, Element, Serialise
from topo.space.geometry import R_EARTH_KM, elevation_deg

SHIPPED = Path(__file__).parent / "scenarios"

Architecture = Literal["satellite-relay", "transparent", "regenerative"]
"""Paper, section 2.2: gNB at the user behind a VSAT; gNB behind the ground station; gNB on the satellite."""
Place = Literal["user", "gateway", "core", "satellite"]
LinkKind = Literal["radio", "user", "feeder", "line", "local"]

Latitude = Annotated[float, Field(ge=-90, le=90)]
Longitude = Annotated[float, Field(ge=-180, le=360)]
Ms = Annotated[float, Field(ge=0)]
Mbps = Annotated[float, Field(gt=0, le=100_000)]
Probability = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Elements = Annotated[tuple[Element, ...], Field(strict=False)]  # TOML has arrays, not tuples


class Model(BaseModel):
    """A table of the scenario file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Site(Model):
    """A place on the ground."""

    name: str
    latitude_deg: Latitude
    longitude_deg: Longitude
    altitude_m: Annotated[float, Field(ge=-500, le=9000)] = 0.0
    """Above the WGS 84 ellipsoid, of a quantum ground station; the geometry of the packets' satellite is a sphere's."""


class Sites(Model):
    """The three places of the ground segment."""

    user: Site
    """Where the UE is (and, in the relay architecture, gNB, EG-U and VSAT)."""
    gateway: Site
    """The ground station (GS) of the communication satellite."""
    core: Site
    """5GC, DN and EG-N."""


class Satellite(Model):
    """The communication satellite, at rest over a point of the Earth (an orbit's snapshot for LEO and MEO)."""

    name: str
    latitude_deg: Latitude = 0.0
    longitude_deg: Longitude
    orbit_radius_km: Annotated[float, Field(gt=R_EARTH_KM)]
    """From the Earth's centre; GEO is 42164."""
    elevation_mask_deg: Annotated[float, Field(ge=0, lt=90)] = 0.0
    """Both ground sites must see the satellite at least this high."""


class Waits(Model):
    """Delay elements of one hop, per direction; uplink is from the UE towards the DN."""

    up: Elements = ()
    down: Elements = ()

    @model_validator(mode="after")
    def _rate_is_the_links(self) -> Waits:
        if any(isinstance(element, Serialise) for element in self.up + self.down):
            raise ValueError(
                "a serialise element would be a second line rate; say rate_up_mbps, rate_down_mbps"
            )
        return self


class Link(Waits):
    """What every hop of one kind has: its rates, its loss, its delay elements besides propagation."""

    rate_up_mbps: Mbps = 1000.0
    rate_down_mbps: Mbps = 1000.0
    loss_up: Probability = 0.0
    loss_down: Probability = 0.0


class Line(Link):
    """The ground line between two sites."""

    delay_ms: Ms | None = None
    """One-way delay; left out, it is the great circle at the speed of light in fibre, times `detour`."""
    detour: Annotated[float, Field(ge=1)] = 1.0


class Links(Model):
    """The kinds of hop. A hop may be of two kinds at once (`radio` and `user` where the UE talks to the satellite):
    it has the elements of both and the lower rate."""

    radio: Link = Link()
    """Radio access: from the UE to the next node towards its gNB."""
    user: Link = Link()
    """Between the user's side and the satellite."""
    feeder: Link = Link()
    """Between the satellite and the ground station."""
    line: Line = Line()
    """Between two ground sites."""
    local: Link = Link()
    """Inside one site."""


class Session(Model):
    """What the radio access (or another kind of hop) adds to every packet in one measurement session."""

    radio: Waits = Waits()
    user: Waits = Waits()
    feeder: Waits = Waits()
    line: Waits = Waits()


class Arm(Model):
    """One measurement: who probes whom, over which session, with or without the tunnel."""

    title: str
    source: Name = "UE"
    destination: Name = "DN"
    session: Name | None = None
    """A table of `[sessions]`; left out, nothing but the links' own elements."""
    tunnel: bool = False
    interval_ms: Annotated[float, Field(gt=0)] | None = None
    """Probe interval of this arm, where it is not `[probe]`'s."""
    published: Literal["satellite", "plain", "encrypted"] | None = None
    """The row of the paper's results that this arm is compared with."""


class Probe(Model):
    """The ICMP echo probes of every arm."""

    count: Annotated[int, Field(ge=2, le=1_000_000)] = 100
    interval_ms: Annotated[float, Field(gt=0)] = 1000.0
    jitter_ms: Ms = 0.0
    """Each probe leaves later by a uniform draw over this (RFC 3432)."""
    payload_bytes: Annotated[int, Field(ge=16, le=1300)] = 56
    timeout_ms: Annotated[float, Field(gt=0)] = 3000.0


class Gateways(Model):
    """The encryption gateways EG-U and EG-N."""

    processing_us: Annotated[float, Field(ge=0)] = 0.0
    """Time a packet spends in one gateway, in µs: an explicit term of the plan, measured natively by `qntn bench
    gateways`, since computation takes no time on a virtual clock."""
    rekey_after_s: Annotated[float, Field(ge=1)] = 60.0
    grace_s: Annotated[float, Field(gt=0)] = 5.0
    """How long the old inbound association is kept after a rekey."""
    retransmit_s: Annotated[float, Field(gt=0)] = 2.0
    """First retransmission of a control message; must exceed the round-trip time."""
    suite: Literal[
        "AES-128-GCM", "SM4-128-GCM", "AES-128-CBC+HMAC-SHA-256-128", "SM4-128-CBC+HMAC-SM3-128"
    ] = "AES-128-GCM"
    """What ESP protects packets with (`gateways/suites.py`)."""
    keying: Literal["ppk", "direct"] = "ppk"
    """How a QKD key gets into IKEv2: mixed into its own keys as a post-quantum pre-shared key (RFC 8784 and 9867), or
    straight into the ESP associations, the way the paper describes its VPN."""
    policy: Literal["fail-closed", "hold", "hybrid"] = "fail-closed"
    """When the KMS has no key: nothing passes, the old association lives on, or IKEv2 goes on without QKD."""
    fault: Literal["wrong-key"] | None = None
    """A deliberate fault, to see what it does: `wrong-key` flips one bit of each key that EG-N fetches, which ESP meets
    only with direct keying: with `ppk` IKEv2 notices before there is a tunnel. A fault therefore implies `direct`."""


class QuantumPass(Model):
    """One pass of the quantum satellite over a station."""

    station: Literal["user", "core"]
    night: Annotated[date, Field(strict=False)]
    """The night of the pass, noon to noon at the station; the highest pass of it that is dark."""
    culmination_deg: Annotated[float, Field(gt=0, le=90)] | None = None
    """Elevation at culmination of a circular orbit, where there are no elements."""


class Eavesdropping(Model):
    """Which shares of the photons which attack meets; together at most 1."""

    intercept_resend_fraction: Probability = 0.0
    photon_number_splitting_fraction: Probability = 0.0
    blinding_fraction: Probability = 0.0


class EntangledPairs(Model):
    """Entangled pairs between two cities of the hybrid ground/space network, keyed by BBM92.

    What brings them is what a run of `qntn hybrid` found (`run`), or said outright (`pair_rate_hz` and `werner`), or,
    without either, the best path under one satellite at rest above Zurich in a clear night.
    """

    cities: Annotated[tuple[str, str], Field(strict=False)]
    """Of the network; the first stands for the user's site, the second for the core's."""
    run: str | None = None
    """Folder of a run of `qntn hybrid fixed`, or of `qntn hybrid day` that watched this pair."""
    pair_rate_hz: Annotated[float, Field(gt=0)] | None = None
    """Pairs that reach both ends in a second."""
    werner: Probability | None = None
    """Werner parameter of a pair: QBER = (1 - werner)/2."""
    duration_s: Annotated[float, Field(gt=0)] = 1.0
    """How long pairs are collected."""
    max_pairs: Annotated[int, Field(ge=1, le=20_000_000)] = 1_000_000
    """So many of them are simulated at most: the first that come."""

    @model_validator(mode="after")
    def _one_origin(self) -> EntangledPairs:
        if (self.pair_rate_hz is None) != (self.werner is None):
            raise ValueError("pair_rate_hz and werner go together: give both or neither")
        if self.run is not None and self.werner is not None:
            raise ValueError("run says pair_rate_hz and werner too: leave one of them out")
        return self


class Keys(Model):
    """Where the keys come from: two passes of the quantum satellite, joined by the relay K' = K1 xor K2; or entangled
    pairs; or both, in pools beside each other."""

    source: Literal["passes", "hybrid", "both"] = "passes"
    """`hybrid`: the pairs of `[keys.hybrid]` instead of the passes; `both`: beside them."""
    hybrid: EntangledPairs | None = None
    quantum_satellite: str = "Jinan-1"
    elements: str | None = None
    """Two-line elements of the satellite: a file, or a shipped one by name (`jinan1-a`). Without them, the passes are
    those of a circular orbit over an Earth that does not turn."""
    altitude_km: Annotated[float, Field(gt=100, le=50_000)] = 511.0
    """Of that circular orbit."""
    mask_deg: Annotated[float, Field(ge=0, lt=90)] = 10.0
    channel: Literal["micius2017", "jinan1-clear", "jinan1-typical"] = "jinan1-typical"
    eavesdropper: Eavesdropping = Eavesdropping()
    first: QuantumPass | None = None
    second: QuantumPass | None = None
    """Both are needed unless `source` is `hybrid`."""
    key_size_bits: Annotated[int, Field(ge=128, le=4096, multiple_of=8)] = 256

    @property
    def passes(self) -> tuple[QuantumPass, QuantumPass] | None:
        """The two passes; None where keys come from entangled pairs alone."""
        if self.source == "hybrid" or self.first is None or self.second is None:
            return None
        return self.first, self.second

    @model_validator(mode="after")
    def _its_source_is_there(self) -> Keys:
        for name, of_passes in (("first", self.first), ("second", self.second)):
            if of_passes is None and self.source != "hybrid":
                raise ValueError(f'{name}: is missing; only source = "hybrid" needs no passes')
        if self.hybrid is None and self.source != "passes":
            raise ValueError(f'hybrid: is missing; source = "{self.source}" takes its pairs')
        return self

    @model_validator(mode="after")
    def _two_stations(self) -> Keys:
        if self.first is None or self.second is None:
            return self
        if self.first.station == self.second.station:
            raise ValueError(
                "first.station and second.station must differ: the relay joins two stations"
            )
        for name, quantum_pass in (("first", self.first), ("second", self.second)):
            culmination_deg = quantum_pass.culmination_deg
            if (culmination_deg is None) == (self.elements is None):
                raise ValueError(
                    f"{name}.culmination_deg is for a circular orbit, elements are for a real one: give one of them"
                )
            if culmination_deg is not None and culmination_deg <= self.mask_deg:
                raise ValueError(
                    f"{name}.culmination_deg {culmination_deg:g} must exceed mask_deg {self.mask_deg:g}"
                )
        return self


class Goodput(Model):
    """The iperf measurement of each arm; left out of the file, there is none."""

    tcp_s: Annotated[float, Field(ge=0, le=600)] = 10.0
    udp_s: Annotated[float, Field(ge=0, le=600)] = 5.0
    udp_mbps: Mbps = 2.0


class Scenario(Model):
    """One network and what is measured on it."""

    name: Name
    title: str
    architecture: Architecture
    seed: Annotated[int, Field(ge=0)] = 1
    start: datetime = datetime(2024, 11, 30, 4, 0, tzinfo=UTC)
    """When the virtual clock starts."""
    sites: Sites
    satellite: Satellite
    links: Links = Links()
    sessions: dict[Name, Session] = {}
    arms: dict[Name, Arm]
    probe: Probe = Probe()
    gateways: Gateways = Gateways()
    keys: Keys
    iperf: Goodput | None = None

    @model_validator(mode="after")
    def _satellite_is_up(self) -> Scenario:
        sat = self.satellite
        for place in ("user", "gateway"):
            site: Site = getattr(self.sites, place)
            elevation = float(
                elevation_deg(
                    site.latitude_deg,
                    site.longitude_deg,
                    sat.latitude_deg,
                    sat.longitude_deg,
                    sat.orbit_radius_km,
                )
            )
            if elevation < sat.elevation_mask_deg:
                raise ValueError(
                    f"satellite: {sat.name} is {elevation:.1f}° above the horizon of {site.name}; it must be at "
                    f"least {sat.elevation_mask_deg:g}° (satellite.elevation_mask_deg)"
                )
        return self

    @model_validator(mode="after")
    def _arms_refer_to_what_is_there(self) -> Scenario:
        if not self.arms:
            raise ValueError("arms: at least one is needed")
        for name, arm in self.arms.items():
            if arm.session is not None and arm.session not in self.sessions:
                known = ", ".join(sorted(self.sessions)) or "none"
                raise ValueError(
                    f"arms.{name}.session: no session {arm.session!r} (there is: {known})"
                )
            interval_ms = arm.interval_ms or self.probe.interval_ms
            if self.probe.jitter_ms > interval_ms:
                raise ValueError(
                    f"probe.jitter_ms: {self.probe.jitter_ms:g} exceeds the interval of {interval_ms:g} ms of arm "
                    f"{name}: probes would overtake"
                )
        if self.start.tzinfo is None:
            raise ValueError("start: say the time zone, e.g. 2024-11-30T04:00:00Z")
        return self


def find(name_or_path: str) -> Path:
    """The scenario file of that path, or the shipped scenario of that name; `ScenarioError` where there is none."""
    path = Path(name_or_path)
    if path.exists() and not path.is_dir():
        return path
    shipped = SHIPPED / f"{name_or_path}.toml"
    if shipped.exists():
        return shipped
    names = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.toml")))
    raise ScenarioError(
        path, "", f"no such file, and no shipped scenario of that name (there is: {names})"
    )


def load(path: Path, changes: Sequence[str] = ()) -> Scenario:
    """Read and check a scenario file; `ScenarioError` says in one line which key is wrong, and what would be right.

    `changes` are assignments as a TOML file has them, each with its dotted key: `gateways.rekey_after_s = 10`.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(path, "", f"cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(path, "", f"not TOML: {error}") from error
    for change in changes:
        _change(table, change)
    return parse(table, path)


def _change(table: dict[str, Any], assignment: str) -> None:
    """Set one key of a table read from a file."""
    try:
        change = tomllib.loads(assignment)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(
            "--set", assignment, f"not an assignment of TOML such as key.of.it = 1.5: {error}"
        ) from error
    _merge(table, change)


def _merge(table: dict[str, Any], change: dict[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(table.get(key), dict):
            _merge(table[key], value)
        else:
            table[key] = value


def parse(table: dict[str, Any], path: Path) -> Scenario:
    """Check a scenario already read into tables; `path` is for the error's text only."""
    try:
        return Scenario.model_validate(table)
    except ValidationError as error:
        raise _one_line(path, error) from error


def _one_line(path: Path, error: ValidationError) -> ScenarioError:
    """The most telling of pydantic's errors: an unknown key first, since it usually explains a missing one."""
    errors = error.errors()
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    key = ".".join(_keys(first["loc"]))
    if first["type"] == "extra_forbidden":
        close = _closest(str(first["loc"][-1]))
        hint = f"; did you mean {close!r}?" if close else ""
        return ScenarioError(path, key, f"unknown key{hint}")
    if first["type"] == "missing":
        return ScenarioError(path, key, "is missing")
    if first["type"] == "value_error":
        reason = first["msg"].removeprefix("Value error, ")
        if not key:
            key, _, reason = reason.partition(": ")
        return ScenarioError(path, key, reason)
    given = f" (given: {first['input']!r})" if isinstance(first["input"], int | float | str) else ""
    return ScenarioError(path, key, first["msg"][0].lower() + first["msg"][1:] + given)


def _keys(location: tuple[int | str, ...]) -> Iterator[str]:
    """The keys of the file in pydantic's location of an error, which also tells an element's kind and `[key]`."""
    for before, part in zip(("", *location), location, strict=False):
        if not isinstance(before, int) and part != "[key]":
            yield str(part)


def _closest(unknown: str) -> str | None:
    """The key, of any table, that an unknown one is most likely meant to be."""
    known: set[str] = set()
    tables: list[type[BaseModel]] = [Model, DelayElement]
    while tables:
        table = tables.pop()
        known |= table.model_fields.keys()
        tables += table.__subclasses__()
    known.discard(unknown)  # a key of some other table
    match = difflib.get_close_matches(unknown, known, n=1, cutoff=0.6)
    return match[0] if match else None
