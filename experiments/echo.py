"""The ICMP echo prober without its socket and clock: what to send when, and what a reply means.

`ProbeTrain` holds the protocol; every time is Unix nanoseconds and comes from the caller.
`experiments.prober` is the shell around it.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from topo.errors import ProtocolError
from topo.links.delays import ms_to_ns
from topo.links.predictor import ProbeSchedule

ECHO_REPLY, ECHO_REQUEST = 0, 8
ECHO_HEADER = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence (RFC 792)
IPV4_MIN_BYTES = 20


class ProbeConfig(BaseModel):
    """What to send, when and where to."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    arm: str = Field(min_length=1)
    """Name of the arm, the first column of the samples."""
    source: IPv4Address | None = None
    """Address to send from; `None`: the kernel's choice."""
    destination: IPv4Address
    """Address to probe."""
    count: int = Field(gt=0)
    """Measured probes."""
    interval_ms: float = Field(gt=0)
    """Time between scheduled probes."""
    jitter_ms: float = Field(default=0.0, ge=0)
    """Width of the uniform draw added to each scheduled time; at most the interval."""
    seed: int = Field(default=0, ge=0)
    """Seed of that draw."""
    first_probe_ns: int | None = Field(default=None, ge=0)
    """Unix time of probe 0; the next whole second that leaves time for the warm-up where this is `None` or past."""
    payload_bytes: int = Field(default=56, ge=0, le=65507)
    """Bytes after the 8-byte ICMP header."""
    timeout_ms: float = Field(default=3000.0, gt=0)
    """A probe without an answer after this long is lost, even if the answer comes later."""
    ttl: int = Field(default=64, ge=1, le=255)
    """Time to live of the requests."""
    warmup_count: int = Field(default=0, ge=0)
    """Probes sent before probe 0 at the same interval, reported in the status and not in the
    samples."""
    identifier: int = Field(default=0x5154, ge=0, le=0xFFFF)
    """ICMP identifier: tells these probes from others of the same host."""
    out: Path
    """Samples (CSV). The status goes beside it, with the suffix `.status.json`."""

    @model_validator(mode="after")
    def _check(self) -> ProbeConfig:
        if self.jitter_ms > self.interval_ms:
            raise ValueError("jitter_ms must not exceed interval_ms, or probes would overtake")
        if self.count + self.warmup_count > 1 << 16:
            raise ValueError(
                "count + warmup_count must not exceed 65536, the ICMP sequence numbers"
            )
        return self


class ProbeStatus(BaseModel):
    """How the run went, the prober's own noise included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: ProbeConfig
    """As run: `first_probe_ns` is filled in."""
    complete: bool
    """Whether every probe was sent and answered or timed out; false after SIGTERM."""
    sent: int
    lost: int
    late: int
    """Answers after the timeout; their probes count as lost."""
    duplicates: int
    corrupt: int
    """Answers with a wrong checksum or another payload than was sent."""
    warmup_rtt_ns: list[int | None]
    """RTTs of the warm-up probes, `None` for lost."""
    worst_lateness_ns: int
    p99_lateness_ns: int
    """How long after its scheduled time a probe was handed to the kernel, warm-up excluded."""


@dataclass(slots=True)
class Probe:
    """One probe: `index` counts from 0, warm-up probes from -1 downwards."""

    index: int
    due_ns: int
    sent_ns: int | None = None
    rtt_ns: int | None = None


@dataclass(frozen=True, slots=True)
class EchoReply:
    """An ICMP echo reply as received."""

    source: IPv4Address
    identifier: int
    sequence: int
    payload: bytes


def checksum(data: bytes) -> int:
    """Internet checksum: complement of the ones' complement sum of 16-bit words (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    words: tuple[int, ...] = struct.unpack(f"!{len(padded) // 2}H", padded)
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def build_echo_request(identifier: int, sequence: int, payload: bytes) -> bytes:
    """ICMP echo request without the IP header (RFC 792), checksum filled in."""
    blank = ECHO_HEADER.pack(ECHO_REQUEST, 0, 0, identifier, sequence) + payload
    return ECHO_HEADER.pack(ECHO_REQUEST, 0, checksum(blank), identifier, sequence) + payload


def parse_echo_reply(packet: bytes) -> EchoReply:
    """Echo reply out of a whole IPv4 packet, as a raw socket delivers it (the kernel checked IP).

    Raises `ProtocolError` when it is not an ICMP echo reply, is cut short, or fails its checksum.
    """
    header_length = (packet[0] & 0x0F) * 4 if packet else 0
    icmp = packet[header_length:]
    if len(packet) < IPV4_MIN_BYTES or packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_ICMP:
        raise ProtocolError("not an ICMP packet over IPv4")
    if header_length < IPV4_MIN_BYTES or len(icmp) < ECHO_HEADER.size:
        raise ProtocolError("ICMP packet cut short")
    kind, code, _, identifier, sequence = ECHO_HEADER.unpack_from(icmp)
    if checksum(icmp) != 0:
        raise ProtocolError("ICMP checksum wrong")
    if (kind, code) != (ECHO_REPLY, 0):
        raise ProtocolError(f"ICMP type {kind} code {code}, not an echo reply")
    return EchoReply(IPv4Address(packet[12:16]), identifier, sequence, icmp[ECHO_HEADER.size :])


def schedule(config: ProbeConfig, first_probe_ns: int) -> list[Probe]:
    """All probes in sending order, warm-up first.

    The measured ones leave at the times the predictor assumes (`ProbeSchedule`); warm-up probes are
    strictly periodic and take no draws, so their number changes nothing after them.
    """
    isochronous = ProbeSchedule(
        n=max(2, config.count),  # a prefix of the same draws
        interval_ms=config.interval_ms,
        jitter_ms=config.jitter_ms,
        seed=config.seed,
    )
    interval_ns = ms_to_ns(config.interval_ms)
    warmup = [Probe(i, first_probe_ns + i * interval_ns) for i in range(-config.warmup_count, 0)]
    offsets_ns = isochronous.offsets_ns()[: config.count].tolist()
    return warmup + [Probe(i, first_probe_ns + offset) for i, offset in enumerate(offsets_ns)]


Outcome = Literal["answer", "late", "duplicate", "corrupt", "foreign"]


class ProbeTrain:
    """The protocol: which probe is due, which one a reply answers, which ones are lost.

    The ICMP sequence number of a probe is its index modulo 2^16, so warm-up probes use the numbers
    just below zero. Every time is Unix nanoseconds and comes from the caller.
    """

    def __init__(self, config: ProbeConfig, first_probe_ns: int) -> None:
        self.config = config.model_copy(update={"first_probe_ns": first_probe_ns})
        self.probes = schedule(config, first_probe_ns)
        self.late = self.duplicates = self.corrupt = 0
        self._payload = bytes(i & 0xFF for i in range(config.payload_bytes))
        self._timeout_ns = ms_to_ns(config.timeout_ms)
        self._next = 0
        self._outstanding: dict[int, Probe] = {}  # by index, in the order sent

    @property
    def finished(self) -> bool:
        """Whether every probe was sent and has been answered or given up."""
        return self._next == len(self.probes) and not self._outstanding

    def next_event_ns(self) -> int:
        """Time of the next sending or timeout; not to be asked once `finished`."""
        times = [probe.due_ns for probe in self.probes[self._next : self._next + 1]]
        if self._outstanding:
            times.append(self._expiry_ns(next(iter(self._outstanding.values()))))
        return min(times)

    def next_due(self, now_ns: int) -> tuple[Probe, bytes] | None:
        """The next probe to send by now with its ICMP packet; the caller then reports `sent`."""
        if self._next == len(self.probes) or self.probes[self._next].due_ns > now_ns:
            return None
        probe = self.probes[self._next]
        sequence = probe.index & 0xFFFF
        return probe, build_echo_request(self.config.identifier, sequence, self._payload)

    def sent(self, probe: Probe, sent_ns: int) -> None:
        """Record that `probe`, the one `next_due` gave, left at `sent_ns`."""
        self._next += 1
        probe.sent_ns = sent_ns
        self._outstanding[probe.index] = probe

    def receive(self, packet: bytes, received_ns: int) -> tuple[Outcome, Probe | None]:
        """Match one received IPv4 packet; the probe is given unless it is foreign or corrupt."""
        try:
            reply = parse_echo_reply(packet)
        except ProtocolError:
            self.corrupt += 1
            return "corrupt", None
        probe = self._probe_of(reply)
        if probe is None or probe.sent_ns is None:
            return "foreign", None
        if reply.payload != self._payload:
            self.corrupt += 1
            return "corrupt", None
        if probe.rtt_ns is not None:
            self.duplicates += 1
            return "duplicate", probe
        if probe.index not in self._outstanding or received_ns >= self._expiry_ns(probe):
            self.late += 1
            return "late", probe
        probe.rtt_ns = received_ns - probe.sent_ns
        del self._outstanding[probe.index]
        return "answer", probe

    def expire(self, now_ns: int) -> list[Probe]:
        """Give up and return the probes whose timeout has passed."""
        lost = []
        for probe in self._outstanding.values():
            if self._expiry_ns(probe) > now_ns:
                break
            lost.append(probe)
        for probe in lost:
            del self._outstanding[probe.index]
        return lost

    def samples(self) -> list[Probe]:
        """Measured probes whose fate is known, in sending order."""
        sent = self.probes[self.config.warmup_count : self._next]
        return [probe for probe in sent if probe.index not in self._outstanding]

    def status(self) -> ProbeStatus:
        """The report of the run so far."""
        samples = self.samples()
        lateness = sorted((p.sent_ns or 0) - p.due_ns for p in samples)
        return ProbeStatus(
            config=self.config,
            complete=self.finished,
            sent=len(samples),
            lost=sum(p.rtt_ns is None for p in samples),
            late=self.late,
            duplicates=self.duplicates,
            corrupt=self.corrupt,
            warmup_rtt_ns=[p.rtt_ns for p in self.probes[: self.config.warmup_count]],
            worst_lateness_ns=lateness[-1] if lateness else 0,
            p99_lateness_ns=lateness[(99 * len(lateness) - 1) // 100] if lateness else 0,
        )

    def _expiry_ns(self, probe: Probe) -> int:
        return (probe.sent_ns or 0) + self._timeout_ns

    def _probe_of(self, reply: EchoReply) -> Probe | None:
        """The probe that `reply` would answer, sent or not."""
        if (reply.source, reply.identifier) != (self.config.destination, self.config.identifier):
            return None
        position = (reply.sequence + self.config.warmup_count) & 0xFFFF
        return self.probes[position] if position < len(self.probes) else None
