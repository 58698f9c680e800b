"""The constant-rate mode (RFC 9347 in IP-TFS): a tunnel whose packets are all alike and leave at fixed times.

`ConstantRate` stands between the packet path and a tunnel: what comes from inside waits for a slot, every slot sends
one AGGFRAG payload of full size, with traffic or without, and what comes from outside is put together again. No
socket, no clock.

Both ends are configured for it: nothing is negotiated, and an end in the other mode refuses every packet, by its next
header (`bad_next_header`). What an observer still sees: that there is a tunnel, its rate, when its SPIs change, and
the messages of IKE.
"""

from __future__ import annotations

from collections import Counter

from gateways.aggfrag import NEXT_AGGFRAG, REORDER_WINDOW, Receiver, Sender
from gateways.encapsulation import Encapsulation, inner_mtu, outer_length
from gateways.esp import EspRefused, InboundSa, OutboundSa
from gateways.fast.core import Core
from gateways.pacer import Pacer
from gateways.selectors import TrafficSelectors

QUEUE_S = 1.0
"""What waits for slots is bounded by this time's worth of octets: later than that it is of no use to anybody."""


class ConstantRate:
    """A `Core` before another, `tunnel`. It takes packets one by one, and so has no SA to show for batches.

    `rate_bps` is that of the outer IP packets, `payload_octets` the length of each AGGFRAG payload; None, or more than
    the path carries, makes it as long as `path_mtu` allows. `window`: payloads that one may come after.
    """

    def __init__(
        self,
        tunnel: Core,
        rate_bps: int,
        path_mtu: int,
        payload_octets: int | None = None,
        window: int = REORDER_WINDOW,
        *,
        encapsulation: Encapsulation = Encapsulation.UDP,
    ) -> None:
        self.drops = tunnel.drops
        self.rate_bps = rate_bps
        self._tunnel = tunnel
        self._path_mtu = path_mtu
        self._wanted_octets = payload_octets
        self._window = window
        self._encapsulation = encapsulation
        self._sa: OutboundSa | None = None
        self._sender: Sender | None = None
        self._pacer: Pacer | None = None
        self._receivers: dict[int, tuple[InboundSa, Receiver]] = {}
        self._arrived: list[bytes] = []
        self._past: Counter[str] = Counter()

    # -- what the packet path asks --------------------------------------------------------------------

    @property
    def selectors(self) -> TrafficSelectors:
        """The tunnel's."""
        return self._tunnel.selectors

    @property
    def outbound(self) -> OutboundSa | None:
        """None: nothing is sealed but in a slot."""
        return None

    def inbound(self, spi: int) -> InboundSa | None:
        """None: every datagram goes through `from_outside`."""
        return None

    def sealed(self, now_ns: int) -> None:
        """Never: see `outbound`."""

    def opened(self, sa: InboundSa, now_ns: int) -> None:
        """Never: see `inbound`."""

    def from_inside(self, packet: bytes, now_ns: int) -> None:
        """Let an inner packet wait for a slot, if it may pass."""
        if not self._tunnel.selectors.outgoing(packet):
            self.drops["outside_selectors"] += 1
        elif self._sender is None or self._tunnel.outbound is None:
            self.drops["no_outbound_sa"] += 1
        else:
            self._sender.put(packet)

    def from_outside(self, datagram: bytes, now_ns: int) -> None:
        """Take a datagram; the packets it completes are in `arrived`."""
        spi = int.from_bytes(datagram[:4])
        sa = self._tunnel.inbound(spi)
        if sa is None or len(datagram) < 4:
            self._tunnel.from_outside(datagram, now_ns)  # control, a keepalive, or nobody's
            return
        try:
            next_header, payload = sa.open_payload(datagram)
        except EspRefused:
            return
        self._tunnel.opened(sa, now_ns)
        if next_header != NEXT_AGGFRAG:
            sa.counters.bad_next_header += 1
            return
        _, receiver = self._receivers.setdefault(spi, (sa, Receiver(self._window)))
        self._admit(sa, receiver.take(int.from_bytes(datagram[4:8]), payload))
        if len(self._receivers) > 1 and receiver.counters["payloads"] > self._window:
            self._leave_others(spi)

    def arrived(self) -> list[bytes]:
        """The inner packets that have come out since the last call, in order."""
        arrived, self._arrived = self._arrived, []
        return arrived

    # -- slots ----------------------------------------------------------------------------------------

    def next_slot_ns(self, now_ns: int) -> int | None:
        """When `slot` must be called next; None while there is no SA to send on."""
        if self._tunnel.outbound is not self._sa:
            self._begin(now_ns)
        return None if self._sa is None or self._pacer is None else self._pacer.next_ns()

    def slot(self, now_ns: int) -> bytes | None:
        """The UDP payload to send now, always of the same length; None if no slot is due or the SA is used up."""
        due_ns = self.next_slot_ns(now_ns)
        if due_ns is None or self._pacer is None or self._sender is None or self._sa is None:
            return None
        if not self._pacer.take(now_ns):
            return None
        try:
            datagram = self._sa.seal_payload(NEXT_AGGFRAG, self._sender.next_payload())
        except EspRefused:
            return None
        self._tunnel.sealed(now_ns)
        return datagram

    def fit(self, path_mtu: int, now_ns: int) -> None:
        """Learn that the outer path has another MTU: from the next slot on payloads have another length."""
        self._path_mtu = path_mtu
        if self._sa is not None:
            self._begin(now_ns)

    def status(self) -> dict[str, int]:
        """Counters, ready for JSON."""
        found = Counter(self._past)
        for _, receiver in self._receivers.values():
            found.update({f"received_{name}": n for name, n in receiver.counters.items()})
        if self._sender is not None:
            found.update({f"sent_{name}": n for name, n in self._sender.counters.items()})
        if self._pacer is not None:
            found["slots_skipped"] += self._pacer.skipped
        return dict(found)

    def _begin(self, now_ns: int) -> None:
        """Go on with the outbound SA and the path that there are now, in the grid of slots that there was."""
        sa = self._tunnel.outbound
        if self._sender is not None and sa is not self._sa:
            self._sender.restart()
        self._sa = sa
        if sa is None:
            return
        longest = inner_mtu(self._path_mtu, sa.suite, self._encapsulation)
        octets = min(longest, self._wanted_octets or longest)
        if self._sender is None:
            self._sender = Sender(octets, round(self.rate_bps * QUEUE_S / 8))
        if self._pacer is None or octets != self._sender.payload_octets:
            start_ns = now_ns
            if self._pacer is not None:
                start_ns = self._pacer.next_ns()
                self._past["slots_skipped"] += self._pacer.skipped
            outer_octets = outer_length(octets, sa.suite, self._encapsulation)
            self._pacer = Pacer(self.rate_bps, outer_octets, start_ns)
        self._sender.payload_octets = octets

    # -- what comes out -------------------------------------------------------------------------------

    def _admit(self, sa: InboundSa, packets: list[bytes]) -> None:
        """Let out the packets that the selectors allow."""
        for packet in packets:
            try:
                self._arrived.append(sa.admit(packet))
            except EspRefused:
                continue

    def _leave_others(self, spi: int) -> None:
        """The peer sends on `spi` now: what still waits for payloads of SAs before it waits in vain."""
        for other, (sa, receiver) in list(self._receivers.items()):
            if other != spi:
                self._admit(sa, receiver.flush())
                if self._tunnel.inbound(other) is None:
                    self._past.update({f"received_{n}": k for n, k in receiver.counters.items()})
                    del self._receivers[other]
