"""AGGFRAG payloads (RFC 9347): inner packets as one stream, cut into ESP payloads of one size. No socket, no clock.

::

    sub-type 0 (1) | reserved (1) | BlockOffset (2) | data blocks: IPv4 or IPv6 packets, whole or cut; padding

Packets follow each other without a gap; whatever does not fit goes on in the next payload. BlockOffset counts the
octets from the header to the first data block that begins here, so it tells how much of the packet begun before is
still to come, and may point beyond the payload. A data block whose first four bits are 0 is padding and fills the
payload; a sender with nothing to send sends padding alone. This is the format without congestion control: the rate is
fixed by configuration (§2.4.1), `gateways.pacer` has the slots.

Payloads carry next header 144 (`NEXT_AGGFRAG`), travel in one SA and are told apart by its sequence numbers.
"""

from __future__ import annotations

import struct
from collections import Counter, deque

from gateways.selectors import IPV4_HEADER_OCTETS, IPV6_HEADER_OCTETS, ip_length

NEXT_AGGFRAG = 144
"""Next header of an AGGFRAG payload in ESP (RFC 9347 §6.1, IANA)."""
HEADER_OCTETS = 4
MIN_PAYLOAD_OCTETS = 64
"""A payload with less would carry packets in a dozen pieces, of which none may be lost."""
REORDER_WINDOW = 3
"""Later payloads that one may come after and still be used (RFC 9347 §2.5 asks for a small window)."""

_HEADER = struct.Struct("!BBH")
_SUBTYPE_BASIC = 0
_MAX_PACKET_OCTETS = 0xFFFF
_LENGTH_ENDS = 6
"""Octets of a packet that hold its length, IPv6's: a shorter piece is never begun, so that a receiver knows at once
how much is to come."""
_PAD = 0


class Sender:
    """Turns inner packets into payloads of exactly `payload_octets`, in order.

    `queue_octets` bounds what waits: a rate that does not follow the load must drop some of it. Raises `ValueError`
    for a payload shorter than `MIN_PAYLOAD_OCTETS`.
    """

    def __init__(self, payload_octets: int, queue_octets: int = 1 << 20) -> None:
        if not MIN_PAYLOAD_OCTETS <= payload_octets <= _MAX_PACKET_OCTETS:
            raise ValueError(
                f"AGGFRAG payload of {payload_octets} octets: it takes "
                f"{MIN_PAYLOAD_OCTETS} to {_MAX_PACKET_OCTETS}"
            )
        self.payload_octets = payload_octets
        self.queue_octets = queue_octets
        self.waiting_octets = 0
        """Octets put and not yet sent."""
        self.counters: Counter[str] = Counter()
        """Payloads, those of them that were all padding, octets of packets and of padding, packets dropped."""
        self._packets: deque[bytes] = deque()
        self._sent = 0  # octets of the first packet that are already on their way

    def put(self, packet: bytes) -> bool:
        """Queue an inner packet; False, and it is counted, if it is no whole IP packet or there is no room for it.

        Octets behind the length that the packet states of itself are left out: the receiver could not tell them
        from the next packet.
        """
        length = ip_length(packet)
        if length is None or length > _MAX_PACKET_OCTETS:
            self.counters["malformed"] += 1
            return False
        if self.waiting_octets + length > self.queue_octets:
            self.counters["queue_drops"] += 1
            return False
        self._packets.append(packet[:length])
        self.waiting_octets += length
        return True

    def next_payload(self) -> bytes:
        """The next payload: what waits, and padding for the rest."""
        packets = self._packets
        room = self.payload_octets - HEADER_OCTETS
        offset = len(packets[0]) - self._sent if self._sent else 0
        parts = [_HEADER.pack(_SUBTYPE_BASIC, 0, offset)]
        while packets and (room >= _LENGTH_ENDS or (self._sent and room)):
            piece = packets[0][self._sent : self._sent + room]
            parts.append(piece)
            room -= len(piece)
            self._sent += len(piece)
            if self._sent == len(packets[0]):
                packets.popleft()
                self._sent = 0
        carried = self.payload_octets - HEADER_OCTETS - room
        self.waiting_octets -= carried
        self.counters["payloads"] += 1
        self.counters["all_pad"] += not carried
        self.counters["octets"] += carried
        self.counters["pad_octets"] += room
        parts.append(bytes(room))
        return b"".join(parts)

    def restart(self) -> None:
        """Begin on a new SA: a packet that was cut is sent again from its beginning (no packet spans two SAs)."""
        self.waiting_octets += self._sent
        self._sent = 0


class Receiver:
    """Turns the payloads of one SA back into inner packets, in order.

    A payload may come after `window` later ones and still be used. One that comes later, or never, costs the packets
    of which it held a part and no other. There is no timer: a constant rate brings a payload every slot, so that a
    gap is passed over `window` slots after it showed, whether there is traffic or not.
    """

    def __init__(self, window: int = REORDER_WINDOW) -> None:
        self.window = window
        self.counters: Counter[str] = Counter()
        """Payloads taken, missed, late or malformed; inner packets lost with them."""
        self._next = 1
        self._early: dict[int, bytes] = {}
        self._begun: list[bytes] = []
        self._to_come: int | None = (
            None  # octets of the begun packet; None: its length was not in the first piece
        )

    def take(self, sequence: int, payload: bytes) -> list[bytes]:
        """The inner packets that this payload completes or frees, in the order they were sent.

        `sequence` is the ESP sequence number, `payload` what the ESP packet carried. Nothing is raised: a payload
        that cannot be read is counted.
        """
        if sequence < self._next or sequence in self._early:
            self.counters["late"] += 1
            return []
        self._early[sequence] = payload
        ready: list[bytes] = []
        self._drain(ready)
        while self._early and (last := max(self._early)) - self._next > self.window:
            self._pass_over(min(*self._early, last - self.window))
            self._drain(ready)
        return ready

    def flush(self) -> list[bytes]:
        """The inner packets that still wait for earlier ones: the SA ends, those will not come."""
        ready: list[bytes] = []
        while self._early:
            self._pass_over(min(self._early))
            self._drain(ready)
        self._abandon()
        return ready

    def _drain(self, ready: list[bytes]) -> None:
        while self._early:
            payload = self._early.pop(self._next, None)
            if payload is None:
                return
            self._next += 1
            self.counters["payloads"] += 1
            self._read(payload, ready)

    def _pass_over(self, until: int) -> None:
        """Wait no longer for the payloads before `until`."""
        self.counters["missed"] += until - self._next
        self._next = until
        self._abandon()

    def _read(self, payload: bytes, ready: list[bytes]) -> None:
        """Append the packets that a payload, the next in order, completes."""
        if len(payload) < HEADER_OCTETS or payload[0] != _SUBTYPE_BASIC:
            self.counters["malformed"] += 1
            self._abandon()
            return
        offset = _HEADER.unpack_from(payload)[2]
        blocks = payload[HEADER_OCTETS:]
        if self._begun and not offset and blocks[:1] < b"\x10":
            return  # padding alone, sent between the pieces of a packet (§2.2.3)
        if self._begun:
            self._continue(offset, blocks, ready)
        at = offset
        while at < len(blocks) and blocks[at] >> 4 != _PAD:
            length = _stated_length(blocks[at : at + _LENGTH_ENDS])
            if length == 0:
                self.counters["malformed"] += 1
                return
            piece = blocks[at : at + length] if length else blocks[at:]
            if len(piece) == length:
                self._deliver(piece, ready)
            else:
                self._begun = [piece]
                self._to_come = length - len(piece) if length else None
            at += len(piece)

    def _continue(self, offset: int, blocks: bytes, ready: list[bytes]) -> None:
        """Go on with the begun packet: `offset` octets of it are still to come, from here on."""
        if not offset or (self._to_come is not None and offset != self._to_come):
            self.counters["malformed"] += 1
            self._abandon()
            return
        piece = blocks[:offset]
        self._begun.append(piece)
        self._to_come = offset - len(piece)
        if not self._to_come:
            packet = b"".join(self._begun)
            self._begun = []
            self._deliver(packet, ready)

    def _deliver(self, packet: bytes, ready: list[bytes]) -> None:
        if ip_length(packet) == len(packet):
            self.counters["packets"] += 1
            ready.append(packet)
        else:
            self.counters["malformed"] += 1

    def _abandon(self) -> None:
        if self._begun:
            self.counters["packets_cut_short"] += 1
            self._begun = []


def _stated_length(start: bytes) -> int | None:
    """The length that a packet states in its first octets; 0 if it cannot be one, None if too little is there."""
    version = start[0] >> 4
    if version == 4:
        length, least = start[2:4], IPV4_HEADER_OCTETS
    elif version == 6:
        length, least = start[4:6], IPV6_HEADER_OCTETS
    else:
        return 0
    if len(length) < 2:
        return None
    octets = int.from_bytes(length) + (IPV6_HEADER_OCTETS if version == 6 else 0)
    return octets if octets >= least else 0
