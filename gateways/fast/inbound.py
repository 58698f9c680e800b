"""From the wire to the TUN device: datagrams one by one, and batches, whose packets are merged again.

Equally long ESP packets of one SA, numbered upwards and above all that came before, are opened together; where all of
a row is as expected it goes to the device with its neighbours. Anything else is left to `InboundSa.open`, which alone
judges what is irregular: a row that has no business here is not counted, nor is the window told of it, before that.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidTag

from gateways.encapsulation import with_outer_ecn
from gateways.esp import NEXT_IPV4, NEXT_IPV6, EspRefused, InboundSa
from gateways.fast import vnet
from gateways.fast.batch import BATCH_OCTETS, Batch, Layout, trailer
from gateways.fast.core import Core
from gateways.fast.merging import Run, runs
from gateways.fast.outbound import BURST_NS, SMALL_BATCH
from gateways.fast.segmentation import Column
from gateways.fast.wire import MAX_OCTETS, Wire
from gateways.selectors import IPV4_HEADER_OCTETS
from gateways.suites import TRAILER_OCTETS

_MAX_READ = 65536
_ENOUGH_ROWS = 90
_READS = 64
"""System calls before the other direction has its turn, if nothing else is said."""
_MARKED = (1, 3)
"""Outer ECN that may change the inner packet: ECT(1) and CE (RFC 6040 §4.2)."""
_VERSIONS = {NEXT_IPV4: 4, NEXT_IPV6: 6}
_TRAILERS = frozenset(bytes((*range(1, pad + 1), pad, NEXT_IPV4)) for pad in range(256))
_TUN_WAIT_MS = 100


class Inbound:
    """Reads `wire`, opens, merges, writes to the TUN device `fd`.

    `merge` allows super-packets, `merge_udp` those of UDP too: the kernel must be able to cut them (Linux 6.2).
    `carry` makes no more than `reads` system calls to read.
    """

    def __init__(self, fd: int, wire: Wire, core: Core, *, merge: bool, merge_udp: bool) -> None:
        self._fd, self._wire, self._core = fd, wire, core
        self._merge, self._merge_udp = merge, merge_udp
        self._batch = Batch(_MAX_READ)
        self.reads = _READS
        self.control = False
        """Whether there was a datagram that may have been for the key agreement; for the reader to reset."""
        self._last_ns = 0
        self._last = 0, b""
        """SPI and flow (protocol, addresses) of the last packet that came alone."""

    def carry(self, now_ns: int) -> None:
        """Take what has come."""
        burst = now_ns - self._last_ns < BURST_NS
        self._last_ns = now_ns
        esp = self._batch.esp
        end = size = outer_class = 0
        for _ in range(self.reads):
            got = self._wire.receive(esp[end : end + _MAX_READ])
            if got is None:
                break
            octets, its_size, its_class = got
            if not octets:
                self._core.drops["empty_datagrams"] += 1
                continue
            if end and (its_size != size or its_class != outer_class):
                self._datagrams(end, size, outer_class, now_ns)
                esp[:octets] = esp[end : end + octets]
                end = 0
            end += octets
            size, outer_class = its_size, its_class
            if not burst and end == size:
                self._alone(bytes(esp[:octets]), outer_class, now_ns)
                return
            whole = octets + size > MAX_OCTETS or octets == size
            enough = end > _ENOUGH_ROWS * size and not whole  # it is the end of a super-packet
            if octets % size or enough or end > BATCH_OCTETS - _MAX_READ:
                self._datagrams(end, size, outer_class, now_ns)
                end = 0
        if end:
            self._datagrams(end, size, outer_class, now_ns)

    def _alone(self, datagram: bytes, outer_class: int, now_ns: int) -> None:
        """Take one datagram, in as few steps as can be: nothing of this is in the CPU's caches."""
        sa = self._core.inbound(int.from_bytes(datagram[:4]))
        if sa is None or outer_class & 3 in _MARKED:
            self._single(datagram, outer_class, now_ns)
            return
        packet = self._expected(sa, datagram)
        if packet is None:
            try:
                packet = sa.open(datagram)
            except EspRefused:
                return
            plain = packet[:1] == b"\x45"  # IPv6 has other things in these places
            self._last = (sa.spi, packet[9:10] + packet[12:20]) if plain else (0, b"")
        self._write((vnet.PLAIN, packet))
        self._core.opened(sa, now_ns)

    def _expected(self, sa: InboundSa, datagram: bytes) -> bytes | None:
        """The packet in a datagram if it is numbered above all others and of the flow that `sa` admitted last.

        Plain IPv4 only. None: `InboundSa.open` has to judge it, and no counter and no window has changed.
        """
        number, octets = int.from_bytes(datagram[4:8]), len(datagram) - sa.suite.overhead
        if number <= sa.window.highest or octets <= 0 or octets % sa.suite.alignment:
            return None
        try:
            plaintext = sa.cipher.unprotect(datagram)
        except InvalidTag:
            return None
        packet = plaintext[: -TRAILER_OCTETS - plaintext[-2]]
        if (
            packet[:1] != b"\x45"
            or packet[2] << 8 | packet[3] != len(packet)
            or plaintext[len(packet) :] not in _TRAILERS
            or self._last != (sa.spi, packet[9:10] + packet[12:20])
        ):
            return None
        sa.window.update(number)
        sa.counters.packets += 1
        sa.counters.bytes += len(packet)
        return packet

    def _datagrams(self, end: int, size: int, outer_class: int, now_ns: int) -> None:
        """Take the datagrams in the first `end` octets, each of `size` octets but perhaps the last."""
        esp, start = self._batch.esp, 0
        while end - start >= SMALL_BATCH * size and outer_class & 3 not in _MARKED:
            if start:
                esp[: end - start] = esp[start:end]
                start, end = 0, end - start
            taken = self._together(end // size, size, now_ns)
            if not taken:
                break
            start = taken * size
        for at in range(start, end, size):
            self._single(bytes(esp[at : min(at + size, end)]), outer_class, now_ns)

    def _single(self, datagram: bytes, outer_class: int, now_ns: int) -> None:
        self.control = True
        packet = self._core.from_outside(datagram, now_ns)
        if packet is not None:
            self._deliver(packet, outer_class)

    def _deliver(self, packet: bytes, outer_class: int) -> None:
        """Write one packet, with the congestion that its outer header met."""
        marked = with_outer_ecn(packet, outer_class) if outer_class & 3 in _MARKED else packet
        if marked is None:
            self._core.drops["congestion_marked"] += 1
        else:
            self._write((vnet.PLAIN, marked))

    def _together(self, count: int, size: int, now_ns: int) -> int:
        """Take the first datagrams if they may be opened together; how many, 0 if they may not."""
        sa = self._core.inbound(int.from_bytes(self._batch.esp[:4]))
        if (
            sa is None
            or size <= sa.suite.overhead
            or (size - sa.suite.overhead) % sa.suite.alignment
        ):
            return 0
        layout = self._batch.layout(size, sa.suite)
        count = min(count, layout.capacity)
        headers = layout.headers[:count].astype(np.uint64)
        first, last = int(headers[0]), int(headers[-1])
        # Numbers that rise from the first to the last row with one SPI in both: it is that of all rows.
        if first >> 32 != last >> 32 or not (headers[1:] > headers[:-1]).all():
            return 0
        if first & 0xFFFFFFFF <= sa.window.highest:
            return 0
        wrong = self._batch.open(sa.cipher, count, layout)
        sa.counters.icv_failures += len(wrong)
        if len(wrong) < count:
            at = first & 0xFFFFFFFF
            numbers: Sequence[int] = range(at, at + count)
            if last - first != count - 1:
                numbers = (headers & np.uint64(0xFFFFFFFF)).tolist()
            self._admit(sa, layout, numbers, wrong)
            self._core.opened(sa, now_ns)
        return count

    def _admit(
        self, sa: InboundSa, layout: Layout, numbers: Sequence[int], wrong: list[int]
    ) -> None:
        """Deliver the rows that verified, in order; `numbers` are their sequence numbers."""
        count = len(numbers)
        shown = layout.plaintexts[next(row for row in range(count) if row not in wrong)]
        version = _VERSIONS.get(shown[-1], 0)
        length = len(shown) - TRAILER_OCTETS - shown[-2]
        if not version or length < IPV4_HEADER_OCTETS:
            self._one_by_one(sa, layout, range(count), wrong)
            return
        tail = trailer(length, version, sa.suite)
        if len(tail) != len(shown) - length:  # more padding than is needed
            self._one_by_one(sa, layout, range(count), wrong)
            return
        rows = layout.plain[:count]
        other: Any = rows[:, length:] != np.frombuffer(tail, np.uint8)
        spans: Iterable[tuple[int, int, bool]] = [(0, count, False)]
        if wrong or other.any():
            other = other.any(axis=1)
            other[np.array(wrong, np.intp)] = True
            spans = _spans(other)
        incoming = sa.selectors.incoming

        def admits(packet: bytes) -> bool:
            inner = incoming(packet)
            return inner is not None and len(inner) == length and packet[0] >> 4 == version

        for start, stop, is_other in spans:
            if is_other:
                self._one_by_one(sa, layout, range(start, stop), wrong)
                continue
            for run in runs(rows[start:stop], length, tail, admits):
                begin, end = start + run.start, start + run.stop
                if run.head:
                    self._received(sa, numbers[begin:end], length)
                    self._run(layout, begin, end, length, run)
                else:
                    self._one_by_one(sa, layout, range(begin, end), wrong)

    def _one_by_one(self, sa: InboundSa, layout: Layout, rows: range, wrong: list[int]) -> None:
        """Leave rows to `InboundSa.open`."""
        for row in rows:
            if row not in wrong:
                with suppress(EspRefused):
                    self._write((vnet.PLAIN, sa.open(bytes(layout.packets[row]))))

    @staticmethod
    def _received(sa: InboundSa, numbers: Sequence[int], length: int) -> None:
        """Record packets that passed, `length` octets each."""
        if numbers[-1] - numbers[0] == len(numbers) - 1:
            sa.window.update_batch(numbers[0], len(numbers))
        else:
            for number in numbers:
                sa.window.update(number)
        sa.counters.packets += len(numbers)
        sa.counters.bytes += len(numbers) * length

    def _run(self, layout: Layout, start: int, stop: int, length: int, run: Run) -> None:
        """Write the rows of a run, as one packet if the kernel can cut it."""
        udp = run.head[1] == vnet.GSO_UDP
        if not run.skip or (self._merge_udp if udp else self._merge):
            self._write((run.head, *layout.payloads(run.skip, length)[start:stop]))
        else:
            for plaintext in layout.plaintexts[start:stop]:
                self._write((vnet.PLAIN, plaintext[:length]))

    def _write(self, parts: tuple[bytes | memoryview, ...]) -> None:
        """Write one packet; wait a little where the device has no room, which its other side makes without us."""
        for _ in range(2):
            try:
                os.writev(self._fd, parts)
                return
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll(_TUN_WAIT_MS)
            except OSError as error:
                # The device is down, or the kernel finds fault with the packet: that packet is lost.
                name = errno.errorcode.get(error.errno or 0, "error")
                self._wire.errors[f"tun_{name}"] += 1
                return
        self._wire.errors["tun_EAGAIN"] += 1


def _spans(other: Column) -> Iterator[tuple[int, int, bool]]:
    """Neighbours of the same kind: where they begin, where they end, which kind."""
    start = 0
    for is_other, same in groupby(other.tolist()):
        stop = start + len(list(same))
        yield start, stop, is_other
        start = stop
