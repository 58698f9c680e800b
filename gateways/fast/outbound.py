"""From the TUN device to the wire: packets one by one, in bursts, and super-packets.

A packet that comes alone is sealed and sent at once, with one read and one send. Packets that come in a burst are
read until there are no more, and those of equal length go through the cipher and out of the socket together.
"""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import groupby

import numpy as np

from gateways.encapsulation import traffic_class
from gateways.esp import EspRefused, OutboundSa
from gateways.fast import vnet
from gateways.fast.batch import Batch, Layout, trailer
from gateways.fast.core import Core
from gateways.fast.segmentation import MODULUS, Cutter, Rows, row_sums, sum_at
from gateways.fast.wire import MAX_OCTETS, Wire
from gateways.mtu import clamp_mss
from topo.errors import ProtocolError

BURST_NS = 100_000
"""A packet that comes so soon after the one before belongs to a burst."""
SMALL_BATCH = 4
"""Fewer packets than this are cheaper one by one."""

_SLOTS = 64
_SLOT_OCTETS = 2048
_OFFSET = 6
"""Of a packet in its slot, so that the IP header behind the virtio header is aligned."""
_GSO_TYPE = _OFFSET + 1
_START = _OFFSET + vnet.VNET_OCTETS
_MAX_PACKET = _SLOT_OCTETS - _OFFSET
_READS = 128
"""System calls before the other direction has its turn, if nothing else is said."""
_SYN = 0x02


class Outbound:
    """Reads the TUN device `fd`, seals, sends on `wire`. `mtu` is the inner one, octets, for TCP's MSS.

    `carry` makes no more than `reads` system calls to read.
    """

    def __init__(self, fd: int, wire: Wire, core: Core, mtu: int) -> None:
        self.mtu = mtu
        self.reads = _READS
        self._fd, self._wire, self._core = fd, wire, core
        room = bytearray(_SLOTS * _SLOT_OCTETS + vnet.VNET_OCTETS + 65536)
        self._view = view = memoryview(room)
        self._slots = [[view[at * _SLOT_OCTETS + _OFFSET :]] for at in range(_SLOTS)]
        self._rows = np.frombuffer(room, np.uint8, _SLOTS * _SLOT_OCTETS).reshape(_SLOTS, -1)
        self._batch = Batch(MAX_OCTETS)
        self._last_ns = 0
        self._admitted, self._selectors = b"", core.selectors

    def carry(self, now_ns: int) -> None:
        """Take what is there to be read. Raises `OSError` if the device is gone."""
        if now_ns - self._last_ns >= BURST_NS:
            self._last_ns = now_ns
            with suppress(BlockingIOError):
                self._alone(os.readv(self._fd, self._slots[0]), now_ns)
            return
        self._last_ns = now_ns
        lengths: list[int] = []
        for _ in range(self.reads):
            slot = len(lengths)
            try:
                octets = os.readv(self._fd, self._slots[slot])
            except BlockingIOError:
                break
            if octets < vnet.VNET_OCTETS:
                self._core.drops["bad_vnet_header"] += 1
                continue
            if octets <= _MAX_PACKET and not self._view[slot * _SLOT_OCTETS + _GSO_TYPE]:
                lengths.append(octets - vnet.VNET_OCTETS)
                if slot + 1 < _SLOTS:
                    continue
            self._singles(lengths, now_ns)
            if len(lengths) == slot:
                self._large(self._slots[slot][0][:octets], now_ns)
            lengths.clear()
            if self._wire.blocked:
                return
        self._singles(lengths, now_ns)

    def _alone(self, octets: int, now_ns: int) -> None:
        """Send the packet in the first slot, in as few steps as can be: nothing of this is in the CPU's caches."""
        read = bytes(self._view[_OFFSET : _OFFSET + min(octets, _MAX_PACKET)])
        packet = read[vnet.VNET_OCTETS :]
        core = self._core
        sa = core.outbound
        # A plain IPv4 packet of any protocol but TCP, whose like the policy has just let through.
        if (
            packet[:1] == b"\x45"
            and read.startswith(vnet.PLAIN)
            and packet[9] != vnet.TCP
            and packet[2] << 8 | packet[3] == len(packet)
            and sa is not None
        ):
            flow = packet[9:10] + packet[12:20]
            if flow != self._admitted or core.selectors is not self._selectors:
                if not core.selectors.outgoing(packet):
                    core.drops["outside_selectors"] += 1
                    return
                self._admitted, self._selectors = flow, core.selectors
            with suppress(EspRefused):
                self._wire.send_one(sa.seal(packet), packet[1])
                core.sealed(now_ns)
        elif octets < vnet.VNET_OCTETS:
            core.drops["bad_vnet_header"] += 1
        else:
            self._large(self._slots[0][0][:octets], now_ns)

    def _singles(self, lengths: list[int], now_ns: int) -> None:
        """Send the packets in the first slots, in order, neighbours of equal length together."""
        slot = 0
        for length, same in groupby(lengths):
            count = len(list(same))
            if count < SMALL_BATCH or not self._together(slot, count, length, now_ns):
                for at in range(slot, slot + count):
                    self._single(self._slots[at][0][: vnet.VNET_OCTETS + length], now_ns)
            slot += count

    def _large(self, read: memoryview, now_ns: int) -> None:
        """Send one super-packet, or one packet that is longer than a slot."""
        packet = read[vnet.VNET_OCTETS :]
        head = bytes(packet[: vnet.HEADERS_OCTETS])
        try:
            what = vnet.parse(bytes(read[: vnet.VNET_OCTETS]), head, len(packet))
        except ProtocolError:
            self._core.drops["bad_vnet_header"] += 1
            return
        if not isinstance(what, vnet.SuperPacket):
            self._single(read, now_ns)
            return
        cutter = Cutter(packet, what)
        sa = self._core.outbound
        if not self._core.selectors.outgoing(cutter.sample()):
            self._core.drops["outside_selectors"] += cutter.count
        elif sa is None:
            self._core.drops["no_outbound_sa"] += cutter.count
        else:
            self._cut(cutter, what.version, traffic_class(head), sa)
            self._core.sealed(now_ns)

    def _cut(self, cutter: Cutter, version: int, outer_class: int, sa: OutboundSa) -> None:
        """Seal and send the packets of a super-packet."""
        ragged = cutter.last_length < cutter.length
        equal = cutter.count - ragged
        tail = trailer(cutter.length, version, sa.suite)
        layout = self._batch.layout(sa.suite.esp_octets(cutter.length), sa.suite)
        done = end = 0
        while done < equal:
            count = min(layout.capacity, equal - done)
            cutter.fill(layout.plain[:count], done, cutter.length, tail)
            done += count
            end = self._seal(sa, layout, count, cutter.length)
            if done < equal:
                self._wire.send(self._batch.esp[:end], layout.octets, outer_class)
        if ragged:
            last_tail = trailer(cutter.last_length, version, sa.suite)
            row = np.empty((1, cutter.last_length + len(last_tail)), np.uint8)
            cutter.fill(row, cutter.count - 1, cutter.last_length, last_tail)
            for datagram in sa.seal_batch([row.tobytes()[: cutter.last_length]]):
                self._batch.esp[end : end + len(datagram)] = datagram
                end += len(datagram)
        if end:
            self._wire.send(self._batch.esp[:end], layout.octets, outer_class)

    def _seal(self, sa: OutboundSa, layout: Layout, count: int, length: int) -> int:
        """Seal the first rows; the octets of ESP packets made, fewer where the SA ends."""
        numbers = sa.take(count)
        if not numbers:
            return 0
        self._batch.seal(sa.cipher, sa.spi, numbers, layout)
        sa.counters.packets += len(numbers)
        sa.counters.bytes += len(numbers) * length
        return len(numbers) * layout.octets

    def _single(self, read: memoryview, now_ns: int) -> None:
        """Send one packet, behind its virtio header."""
        packet = bytes(read[vnet.VNET_OCTETS :])
        head = bytes(read[: vnet.VNET_OCTETS])
        start = 0
        if head != vnet.PLAIN:
            try:
                what = vnet.parse(head, packet, len(packet))
            except ProtocolError:
                self._core.drops["bad_vnet_header"] += 1
                return
            if isinstance(what, vnet.SuperPacket):
                self._large(read, now_ns)
                return
            start, field = what
            if start:
                whole = bytearray(packet)
                vnet.completed(whole, start, field)
                packet = bytes(whole)
        if _may_be_syn(packet):
            packet = clamp_mss(packet, self.mtu)
        datagram = self._core.from_inside(packet, now_ns)
        if datagram is not None:
            self._wire.send(datagram, len(datagram), traffic_class(packet))

    def _together(self, slot: int, count: int, length: int, now_ns: int) -> bool:
        """Send packets of equal length and much alike together; False, and nothing is done, if they are not."""
        rows = self._rows[slot : slot + count]
        first = rows[0, _START : _START + length].tobytes()
        sa = self._core.outbound
        if sa is None or not _alike(rows, first) or not self._core.selectors.outgoing(first):
            return False
        try:
            what = vnet.parse(rows[0, _OFFSET:_START].tobytes(), first, length)
        except ProtocolError:
            return False
        if isinstance(what, vnet.SuperPacket) or what[0] % 4:
            return False
        version = first[0] >> 4
        tail = trailer(length, version, sa.suite)
        layout = self._batch.layout(sa.suite.esp_octets(length), sa.suite)
        outer_class = traffic_class(first)
        for at in range(0, count, layout.capacity):
            some = rows[at : at + layout.capacity]
            plain = layout.plain[: len(some)]
            plain[:, :length] = some[:, _START : _START + length]
            plain[:, length:] = np.frombuffer(tail, np.uint8)
            if what[0]:
                _complete(plain, *what, sum_at(tail, length))
            end = self._seal(sa, layout, len(some), length)
            if end:
                self._wire.send(self._batch.esp[:end], layout.octets, outer_class)
        self._core.sealed(now_ns)
        return True


def _may_be_syn(packet: bytes) -> bool:
    """Whether `clamp_mss` should look at a packet."""
    if len(packet) < 40:
        return False
    if packet[0] == 0x45:
        return packet[9] == vnet.TCP and bool(packet[33] & _SYN)
    return packet[0] >> 4 in {4, 6}


def _alike(rows: Rows, first: bytes) -> bool:
    """Whether all packets have the virtio header, length, addresses, protocol and class of the `first`; no SYN."""
    words = rows[:, _START:].view("<u4")
    if first[0] >> 4 == 4:
        protocol, same = 9, words[:, (0, 3, 4)]
    elif first[0] >> 4 == 6:
        protocol, same = 6, words[:, (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)]
    else:
        return False
    transport = (first[0] & 15) * 4 if protocol == 9 else 40
    if len(first) < transport + 20 or first[protocol] not in vnet.CHECKSUM_AT:
        return False
    if not (same == same[0]).all() or not (rows[:, _START + protocol] == first[protocol]).all():
        return False
    if first[protocol] == vnet.TCP and (rows[:, _START + transport + 13] & _SYN).any():
        return False
    return bool((rows[:, _OFFSET:_START] == rows[0, _OFFSET:_START]).all())


def _complete(plain: Rows, start: int, field: int, tail_sum: int) -> None:
    """Complete the checksum at `field` of each row: it covers `start` to the tail, whose sum is `tail_sum`."""
    sums = row_sums(plain).astype(np.int64) - tail_sum
    check = -(sums - row_sums(plain[:, :start])) % MODULUS
    if field - start == vnet.CHECKSUM_AT[vnet.UDP]:
        check[check == 0] = MODULUS
    plain[:, field : field + 2].view("<u2")[:, 0] = check
