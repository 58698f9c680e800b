"""One end of an ESP tunnel: its SAs, IKE, its policy. No socket, no clock, no thread.

Packets and time go in, packets and events come out; `gateways.gateway` is the thin shell around it.
Whatever is refused is refused in silence: dropped, counted, never answered (an unauthenticated
sender learns nothing).
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import Any

from gateways.encapsulation import KEEPALIVE, NON_ESP_MARKER
from gateways.esp import (
    MAX_SEQUENCE,
    EspRefused,
    InboundSa,
    Lifetime,
    OutboundSa,
    Refusal,
    SaCounters,
)
from gateways.events import (
    Established,
    Event,
    Held,
    InstallInbound,
    InstallOutbound,
    RetireInbound,
    RetireOutbound,
)
from gateways.ike.endpoint import IkeEndpoint
from gateways.selectors import TrafficSelectors
from topo.errors import ControlError

_RECORDS_KEPT = 1000
_SPI_OCTETS = 4


@dataclass(slots=True)
class SaRecord:
    """What remains of an SA: everything but its key."""

    direction: str
    spi: int
    key_id: str
    counters: SaCounters
    state: str = "installed"


class Tunnel:
    """Seals what the selectors protect, opens what the peer sealed, has its keys from IKE.

    `sequence_limit` is the last sequence number of an outbound SA, `window` the anti-replay window
    in packets.
    """

    def __init__(
        self,
        endpoint: IkeEndpoint,
        selectors: TrafficSelectors,
        window: int = 1024,
        sequence_limit: int = MAX_SEQUENCE,
    ) -> None:
        self.drops: Counter[str] = Counter()
        """Packets dropped before any SA saw them, by reason."""
        self.records: list[SaRecord] = []
        self.key_ids: deque[str] = deque(maxlen=_RECORDS_KEPT)
        """Of the last keys in use."""
        self.keys = 0
        self.rekeys = 0
        self.held = 0
        self._endpoint = endpoint
        self._selectors = selectors
        self._window = window
        self._sequence_limit = sequence_limit
        self._inbound: dict[int, InboundSa] = {}
        self._outbound: OutboundSa | None = None
        self._last_good_spi = 0
        self._events: list[Event] = []

    @property
    def usable(self) -> bool:
        """Whether there is an SA to send on."""
        return self._outbound is not None

    @property
    def selectors(self) -> TrafficSelectors:
        """What may enter the tunnel: the configuration's, or less if the peer agreed to less."""
        return self._selectors

    @property
    def outbound(self) -> OutboundSa | None:
        """The SA to send on."""
        return self._outbound

    def inbound(self, spi: int) -> InboundSa | None:
        """The SA that receives on an SPI."""
        return self._inbound.get(spi)

    @property
    def retransmissions(self) -> int:
        """Control messages sent again."""
        return self._endpoint.retransmissions

    def events(self) -> list[Event]:
        """What the shell must do or tell; installing and retiring SAs is already done."""
        events, self._events = self._events, []
        return events

    def next_deadline_ns(self) -> int | None:
        """When `tick` must be called next."""
        return self._endpoint.next_deadline_ns()

    def start(self, now_ns: int) -> None:
        """Begin to agree on keys."""
        self._endpoint.start(now_ns)
        self._carry_out()

    def stop(self, now_ns: int) -> None:
        """Tell the peer that this end goes."""
        self._endpoint.stop(now_ns)
        self._carry_out()

    def tick(self, now_ns: int) -> None:
        """Let time pass."""
        self._endpoint.tick(now_ns)
        self._carry_out()

    def key_fetched(self, exchange: bytes, key_id: str, key: bytes, now_ns: int) -> None:
        """Take a key from the KMS."""
        self._endpoint.key_fetched(exchange, key_id, key, now_ns)
        self._carry_out()

    def key_refused(self, exchange: bytes, reason: str, now_ns: int) -> None:
        """Take a refusal from the KMS."""
        self._endpoint.key_refused(exchange, reason, now_ns)
        self._carry_out()

    def from_inside(self, packet: bytes, now_ns: int) -> bytes | None:
        """The UDP payload that carries an inner packet, or None if it may not pass."""
        if not self._selectors.outgoing(packet):
            self.drops["outside_selectors"] += 1
            return None
        sa = self._outbound
        if sa is None:
            self.drops["no_outbound_sa"] += 1
            return None
        try:
            datagram = sa.seal(packet)
        except EspRefused:
            return None
        self.sealed(now_ns)
        return datagram

    def sealed(self, now_ns: int) -> None:
        """Learn that packets were sealed on the outbound SA: it may have reached a limit."""
        sa = self._outbound
        if sa is None:
            return
        if sa.sequence >= sa.limit:
            self._endpoint.hard_limit(None, "an SA has used up its sequence numbers", now_ns)
            self._carry_out()
        else:
            self._worn(None, sa.lifetime, sa.sequence, sa.counters.bytes, now_ns)

    def opened(self, sa: InboundSa, now_ns: int) -> None:
        """Learn that good packets came on an SA: the peer lives, has this SA, and may have worn it out."""
        self._endpoint.heard_ns = now_ns
        if sa.spi != self._last_good_spi:
            self._last_good_spi = sa.spi
            self._endpoint.good_packet(sa.spi, now_ns)
            self._carry_out()
        self._worn(sa.spi, sa.lifetime, sa.window.highest, sa.counters.bytes, now_ns)

    def from_outside(self, datagram: bytes, now_ns: int) -> bytes | None:
        """The inner packet in a UDP payload, or None: control, keepalive, or refused."""
        marker = datagram[:_SPI_OCTETS]
        if marker == NON_ESP_MARKER:
            self._control(datagram[_SPI_OCTETS:], now_ns)
            return None
        sa = self._inbound.get(int.from_bytes(marker))
        if sa is None or len(marker) < _SPI_OCTETS:
            self.drops["keepalives" if datagram == KEEPALIVE else Refusal.UNKNOWN_SPI] += 1
            return None
        try:
            inner = sa.open(datagram)
        except EspRefused:
            return None
        self.opened(sa, now_ns)
        return inner

    def status(self) -> dict[str, Any]:
        """Counters, ready for JSON; no key material."""
        return {
            "usable": self.usable,
            "rekeys": self.rekeys,
            "keys": self.keys,
            "held": self.held,
            "policy": self._endpoint.config.policy.value,
            "policies_used": {policy.value: n for policy, n in self._endpoint.used.items()},
            "key_ids": list(self.key_ids),
            "retransmissions": self.retransmissions,
            "drops": dict(self.drops),
            "sas": [
                {
                    "direction": record.direction,
                    "spi": f"{record.spi:#010x}",
                    "key_id": record.key_id,
                    "state": record.state,
                    **asdict(record.counters),
                }
                for record in self.records
            ],
        }

    def _worn(
        self, spi: int | None, lifetime: Lifetime, packets: int, octets: int, now_ns: int
    ) -> None:
        """Have a pair of SAs replaced that has carried enough; end it when it has carried all it may.

        `spi` is the pair's inbound one, None that of the pair in use.
        """
        if packets >= lifetime.soft_packets or octets >= lifetime.soft_bytes:
            if octets >= lifetime.hard_bytes:
                self._endpoint.hard_limit(spi, "an SA has carried all it may", now_ns)
            else:
                self._endpoint.soft_limit(spi, now_ns)
            self._carry_out()

    def _control(self, data: bytes, now_ns: int) -> None:
        try:
            self._endpoint.receive(data, now_ns)
        except ControlError:
            self.drops["control_refused"] += 1
        self._carry_out()

    def _carry_out(self) -> None:
        for event in self._endpoint.events():
            match event:
                case InstallInbound(spi, key_id, keys, selectors, lifetime):
                    inbound = InboundSa(spi, keys, selectors, self._window)
                    inbound.lifetime = lifetime
                    self._inbound[spi] = inbound
                    self._record("in", spi, key_id, inbound.counters)
                case InstallOutbound(spi, key_id, _, selectors, sa):
                    # However often it is installed, `sa` counts on from where it is; erased, it seals no more.
                    self._selectors = selectors
                    if sa is not self._outbound:
                        self._erase_outbound("retired")
                        sa.limit = min(sa.limit, self._sequence_limit)
                        self._outbound = sa
                        self._record("out", spi, key_id, sa.counters)
                case RetireInbound(spi):
                    self._inbound.pop(spi).erase()
                    self._end("in", "retired", spi)
                case RetireOutbound():
                    self._erase_outbound("expired")
                case Established(key_id, _, _, rekey):
                    self.rekeys += rekey
                    self.keys += 1
                    self.key_ids.append(key_id)
                case Held():
                    self.held += 1
            self._events.append(event)

    def _erase_outbound(self, state: str) -> None:
        if self._outbound is not None:
            self._outbound.erase()
            self._outbound = None
            self._end("out", state)

    def _record(self, direction: str, spi: int, key_id: str, counters: SaCounters) -> None:
        self.records.append(SaRecord(direction, spi, key_id, counters))
        while len(self.records) > _RECORDS_KEPT and self.records[0].state != "installed":
            self.records.pop(0)

    def _end(self, direction: str, state: str, spi: int | None = None) -> None:
        for record in self.records:
            if (
                record.direction == direction
                and record.state == "installed"
                and spi in (None, record.spi)
            ):
                record.state = state
