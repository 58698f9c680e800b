"""What is inside the ESP of a run's captures: `qntn decrypt RUN`, with the run's own session keys.

Our ESP opens every packet, of any suite and of the constant-rate mode too; tshark is asked about the suites it knows,
as a second opinion. The inner packets are written to a capture of their own, for whoever has no Wireshark with the
run's key table.

The keys are the lines of the run's `esp_sa`, Wireshark's table (see `experiments.captures`). A suite that Wireshark
does not know is a comment line of the same fields with the suite's own name, which only we read.
"""

from __future__ import annotations

import csv
import struct
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from operator import itemgetter
from pathlib import Path

from cryptography.exceptions import InvalidTag

from experiments.captures import icv_by_spi
from experiments.folder import RunFolder
from gateways.aggfrag import NEXT_AGGFRAG, Receiver
from gateways.encapsulation import IP_PROTOCOL_ESP, PORT, Kind, kind_of
from gateways.esp import NEXT_IPV4, NEXT_IPV6, EspRefused, InboundSa, Refusal
from gateways.keys import SaKeys
from gateways.selectors import TrafficSelectors, ip_length, upper_layer
from gateways.suites import KEY_OCTETS, SUITES, Suite
from topo.errors import FeatureMissing, InputError, MeasurementError

Packet = tuple[int, bytes]
"""When it was captured, Unix ns, and its octets."""

_ETHERNET_OCTETS, _ETHERTYPE_IPV4 = 14, 0x0800
_UDP, _UDP_OCTETS = 17, 8
_GTP_U_PORT = 2152
_PROTOCOLS = {1: "ICMP", 6: "TCP", _UDP: "UDP", 50: "ESP", 58: "ICMPv6", 132: "SCTP"}
_REPLAY_WINDOW = 8192
"""As wide as a capture may be out of order."""
_PCAP_NS = 0xA1B23C4D
_LINKTYPE_ETHERNET, _LINKTYPE_RAW = 1, 101
_SNAP_OCTETS = 262144
_PCAP_HEAD = struct.Struct("<IHHiIII")
_PCAP_RECORD = struct.Struct("<IIII")
_NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class KnownSa:
    """An SA whose key a run has left: its outer addresses, its SPI, its key."""

    source: IPv4Address
    destination: IPv4Address
    spi: int
    keys: SaKeys


@dataclass
class SaFindings:
    """What a capture has of one SA."""

    spi: int
    source: str
    destination: str
    suite: str | None
    """None: the run left no key for it."""
    esp_packets: int = 0
    icv_good: int = 0
    icv_bad: int = 0
    replays: int = 0
    """Packets captured twice, or sent twice."""
    dummies: int = 0
    """Packets that carry nothing: dummies, and AGGFRAG payloads of padding alone."""
    protocols: Counter[str] = field(default_factory=Counter)
    """Inner packets by protocol."""
    tshark: tuple[int, int] | None = None
    """(good, bad) as tshark counts; None where it does not know the suite."""

    @property
    def agrees(self) -> bool:
        """Whether tshark, if it knows the suite, counts as we do (a replay too has a good ICV)."""
        return self.tshark in {None, (self.icv_good, self.icv_bad)}


@dataclass
class Findings:
    """What a capture has."""

    capture: str
    sas: list[SaFindings]
    inner: list[Packet] = field(repr=False)
    decrypted: Path | None = None

    @property
    def sound(self) -> bool:
        """Whether every ESP packet verifies, and tshark does not say otherwise."""
        return all(sa.agrees and sa.icv_good == sa.esp_packets for sa in self.sas)

    def as_json(self) -> dict[str, object]:
        """For machines: everything but the packets."""
        sas = [vars(sa) | {"spi": f"{sa.spi:#010x}", "agrees": sa.agrees} for sa in self.sas]
        return {
            "capture": self.capture,
            "sas": sas,
            "inner_packets": len(self.inner),
            "decrypted": str(self.decrypted) if self.decrypted else None,
        }


def decrypt_run(root: Path, out: Path | None = None) -> list[Findings]:
    """Open every capture of a run folder; write `decrypted/<capture>.pcapng` (or into `out`) where there is ESP.

    Raises `InputError` for a folder without captures or keys, `FeatureMissing` without tshark and its editcap,
    `MeasurementError` where one of them fails.
    """
    folder = RunFolder(root.absolute())
    captures = sorted(folder.captures.glob("*.pcapng")) if folder.captures.is_dir() else []
    if not captures:
        raise InputError(f"{root}: no captures/*.pcapng; give the folder of a run with captures")
    table, known = read_esp_sa(folder.esp_sa)
    target = out or folder.root / "decrypted"
    found = []
    for capture in captures:
        findings = decrypt_capture(capture, table, known)
        if findings.inner:
            findings.decrypted = target / capture.name
            write_inner(findings.decrypted, findings.inner)
        found.append(findings)
    return found


def decrypt_capture(capture: Path, table: Sequence[str], known: Iterable[KnownSa]) -> Findings:
    """What is in one capture. `table` are Wireshark's lines, for tshark; `known` the SAs, for us."""
    by_spi = {(sa.source, sa.destination, sa.spi): sa for sa in known}
    openers: dict[tuple[IPv4Address, IPv4Address, int], _Opener] = {}
    for at_ns, frame in frames(capture):
        outer = esp_of(frame)
        if outer is None:
            continue
        source, destination, esp = outer
        key = source, destination, int.from_bytes(esp[:4])
        if key not in openers:
            openers[key] = _Opener(*key, by_spi.get(key))
        openers[key].open(at_ns, esp)
    seen = icv_by_spi(capture, table) if openers else {}
    sas = [opener.close(seen) for opener in openers.values()]
    inner = sorted(
        (packet for opener in openers.values() for packet in opener.inner), key=itemgetter(0)
    )
    return Findings(capture.name, sas, inner)


class _Opener:
    """Opens the packets of one SA, and counts."""

    def __init__(
        self, source: IPv4Address, destination: IPv4Address, spi: int, known: KnownSa | None
    ) -> None:
        suite = known.keys.suite if known else None
        self.found = SaFindings(spi, str(source), str(destination), suite.name if suite else None)
        self.inner: list[Packet] = []
        self._tshark_knows = suite is not None and suite.wireshark is not None
        nobody = TrafficSelectors(
            (), ()
        )  # policy was the gateway's matter: here everything is shown
        self._sa = InboundSa(spi, known.keys, nobody, _REPLAY_WINDOW) if known else None
        self._receiver = Receiver()
        self._last_ns = 0

    def open(self, at_ns: int, esp: bytes) -> None:
        """Take one ESP packet."""
        found, self._last_ns = self.found, at_ns
        found.esp_packets += 1
        if self._sa is None:
            return
        try:
            next_header, payload = self._sa.open_payload(esp)
        except EspRefused as refused:
            verified = refused.reason in {Refusal.DUMMY, Refusal.PADDING}
            if refused.reason is Refusal.REPLAY:
                verified = _verifies(self._sa, esp)
            found.icv_good += verified
            found.icv_bad += not verified
            found.dummies += refused.reason is Refusal.DUMMY
            found.replays += refused.reason is Refusal.REPLAY
            return
        found.icv_good += 1
        if next_header == NEXT_AGGFRAG:
            found.dummies += not any(payload)
            self._keep(self._receiver.take(int.from_bytes(esp[4:8]), payload))
            return
        length = ip_length(payload) if next_header in {NEXT_IPV4, NEXT_IPV6} else None
        if length is None:
            found.protocols[f"next header {next_header}"] += 1
        else:
            self._keep([payload[:length]])

    def close(self, seen: Mapping[int, tuple[int, int]]) -> SaFindings:
        """All that was found, with what tshark saw; `inner` is complete."""
        self._keep(self._receiver.flush())
        if self._tshark_knows:
            self.found.tshark = seen.get(self.found.spi, (0, 0))
        return self.found

    def _keep(self, packets: list[bytes]) -> None:
        self.inner += ((self._last_ns, packet) for packet in packets)
        self.found.protocols.update(map(protocol_of, packets))


def _verifies(sa: InboundSa, esp: bytes) -> bool:
    """Whether the ICV of a packet that came before is right."""
    try:
        sa.cipher.unprotect(esp)
    except InvalidTag:
        return False
    return True


def protocol_of(packet: bytes) -> str:
    """The protocol of a whole IP packet, GTP-U by its UDP port."""
    layer = upper_layer(packet)
    if layer is None:
        return "unknown"
    protocol, at = layer
    if protocol == _UDP and at and _GTP_U_PORT in struct.unpack_from("!HH", packet, at):
        return "GTP-U"
    return _PROTOCOLS.get(protocol, f"protocol {protocol}")


# -- the key table --------------------------------------------------------------------------------


def read_esp_sa(path: Path) -> tuple[list[str], list[KnownSa]]:
    """The lines of a run's key table, and the SAs they name. Raises `InputError` with file and line."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}; a run keeps session keys where an arm has a tunnel"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a table of Wireshark's") from None
    known = []
    for number, line in enumerate(lines, 1):
        try:
            sa = _known_sa(line)
        except (ValueError, IndexError) as error:
            raise InputError(f"{path}: line {number}: no line of esp_sa: {error}") from None
        if sa is not None:
            known.append(sa)
    return lines, known


def _known_sa(line: str) -> KnownSa | None:
    """The SA of one line; None for an empty one or a remark."""
    is_comment = line.startswith("#")
    fields = next(csv.reader([line.lstrip("# ")]), [])
    suite = _suite_named(fields[4], fields[6]) if len(fields) >= 8 else None
    if suite is None:
        if is_comment or not fields:
            return None
        raise ValueError(f"no suite of ours ({', '.join(fields[4:7:2])})")
    key, integrity_key = (bytes.fromhex(text.removeprefix("0x")) for text in (fields[5], fields[7]))
    keys = SaKeys(key[:KEY_OCTETS], key[KEY_OCTETS:], integrity_key, suite)
    return KnownSa(IPv4Address(fields[1]), IPv4Address(fields[2]), int(fields[3], 0), keys)


def _suite_named(encryption: str, authentication: str) -> Suite | None:
    """The suite by Wireshark's names for it, or by its own."""
    for suite in SUITES.values():
        if suite.name == encryption or suite.wireshark == (encryption, authentication):
            return suite
    return None


# -- captures -------------------------------------------------------------------------------------


def esp_of(frame: bytes) -> tuple[IPv4Address, IPv4Address, bytes] | None:
    """Outer source, outer destination and ESP packet of an Ethernet frame; None if it carries none."""
    if int.from_bytes(frame[12:_ETHERNET_OCTETS]) != _ETHERTYPE_IPV4:
        return None
    packet = frame[_ETHERNET_OCTETS:]
    length = ip_length(packet)
    if length is None:
        return None
    protocol, at = upper_layer(packet[:length]) or (0, 0)
    addresses = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
    if protocol == IP_PROTOCOL_ESP and at:
        return *addresses, packet[at:length]
    if protocol != _UDP or not at or PORT not in struct.unpack_from("!HH", packet, at):
        return None
    datagram = packet[at + _UDP_OCTETS : length]
    return (*addresses, datagram) if kind_of(datagram) is Kind.ESP else None


def frames(capture: Path) -> Iterator[Packet]:
    """The Ethernet frames of a capture in any format that Wireshark reads, with their times.

    Raises `FeatureMissing` without Wireshark's editcap, `MeasurementError` for what is no capture of Ethernet.
    """
    with tempfile.TemporaryDirectory(prefix="qntn-decrypt-") as folder:
        plain = Path(folder, "pcap")
        _editcap("-F", "nsecpcap", capture, plain)
        data = plain.read_bytes()
    magic, *_, link_type = _PCAP_HEAD.unpack_from(data)
    if magic != _PCAP_NS or link_type != _LINKTYPE_ETHERNET:
        raise MeasurementError(f"{capture}: not a capture of Ethernet frames")
    at = _PCAP_HEAD.size
    while at < len(data):
        seconds, nanoseconds, octets, _ = _PCAP_RECORD.unpack_from(data, at)
        at += _PCAP_RECORD.size
        yield seconds * _NS_PER_S + nanoseconds, data[at : at + octets]
        at += octets


def write_inner(path: Path, packets: Iterable[Packet]) -> None:
    """Write IP packets as a pcapng that only its owner may read.

    Raises `InputError` if the file cannot be written, `FeatureMissing` without Wireshark's editcap.
    """
    head = _PCAP_HEAD.pack(_PCAP_NS, 2, 4, 0, 0, _SNAP_OCTETS, _LINKTYPE_RAW)
    parts = [head]
    for at_ns, packet in packets:
        stamp = divmod(at_ns, _NS_PER_S)
        parts += (_PCAP_RECORD.pack(*stamp, len(packet), len(packet)), packet)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.chmod(0o600)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; choose another folder with --out") from None
    with tempfile.TemporaryDirectory(prefix="qntn-decrypt-") as folder:
        plain = Path(folder, "pcap")
        plain.write_bytes(b"".join(parts))
        _editcap("-F", "pcapng", plain, path)


def _editcap(*arguments: str | Path) -> None:
    """Convert a capture."""
    try:
        done = subprocess.run(
            ["editcap", *map(str, arguments)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise FeatureMissing("editcap", "apt install tshark") from error
    if done.returncode:
        raise MeasurementError(f"editcap: {done.stderr.strip().splitlines()[0]}")
