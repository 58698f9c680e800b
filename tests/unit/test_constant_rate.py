"""The constant-rate mode between two tunnels: slots, sizes, rekeying, loss; a timer to keep them."""

from __future__ import annotations

import select
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from gateways.constant_rate import ConstantRate
from gateways.encapsulation import Encapsulation
from gateways.esp import NEXT_IPV4, InboundSa, OutboundSa
from gateways.selectors import TrafficSelectors
from gateways.suites import AES_128_GCM, SM4_128_CBC_SM3, Suite
from gateways.timer import Timer
from tests.esp_packets import NETWORK, NETWORK6, USERS, USERS6, ipv4, ipv6, keys_of

MS = 1_000_000
RATE_BPS = 1_200_000
"""1500 octets take 10 ms."""
ALIEN = ipv4(100, source="10.9.9.9")


class Ends:
    """One end of a tunnel as the packet path sees it, with SAs that the test installs."""

    def __init__(self, *, user_side: bool) -> None:
        self.drops: Counter[str] = Counter()
        sides = ([USERS, USERS6], [NETWORK, NETWORK6])
        self.selectors = TrafficSelectors(*(sides if user_side else sides[::-1]))
        self.outbound: OutboundSa | None = None
        self.of_peer: dict[int, InboundSa] = {}
        self.heard: list[int] = []
        self.other: list[bytes] = []

    def inbound(self, spi: int) -> InboundSa | None:
        return self.of_peer.get(spi)

    def sealed(self, now_ns: int) -> None:
        assert self.outbound is not None

    def opened(self, sa: InboundSa, now_ns: int) -> None:
        self.heard.append(sa.spi)

    def from_inside(self, packet: bytes, now_ns: int) -> bytes | None:
        raise AssertionError("nothing is sealed outside a slot")

    def from_outside(self, datagram: bytes, now_ns: int) -> bytes | None:
        self.other.append(datagram)
        return None


class Pair:
    """A sending end and a receiving one."""

    def __init__(self, suite: Suite = AES_128_GCM, **settings: Any) -> None:
        self.near, self.far = Ends(user_side=True), Ends(user_side=False)
        self.sending = ConstantRate(self.near, RATE_BPS, 1500, **settings)
        self.receiving = ConstantRate(self.far, RATE_BPS, 1500)
        self.suite = suite
        self.spi = 0x1000
        self.rekey()

    def rekey(self) -> None:
        """A new SA, by which the near end sends from now on; the far end keeps the old one too."""
        self.spi += 1
        keys = keys_of(self.suite, self.spi)
        self.near.outbound = OutboundSa(self.spi, keys)
        self.far.of_peer[self.spi] = InboundSa(self.spi, keys, self.far.selectors)

    def slots(self, until_ns: int, now_ns: int = 0) -> Iterator[tuple[int, bytes]]:
        """(time, datagram) of each slot before `until_ns`."""
        while (at_ns := self.sending.next_slot_ns(now_ns)) is not None and at_ns < until_ns:
            datagram = self.sending.slot(at_ns)
            assert datagram is not None
            yield at_ns, datagram
            now_ns = at_ns

    def arrives(self, datagram: bytes) -> list[bytes]:
        assert self.receiving.from_outside(datagram, 0) is None
        return self.receiving.arrived()


@pytest.mark.parametrize("encapsulation", Encapsulation)
@pytest.mark.parametrize("suite", [AES_128_GCM, SM4_128_CBC_SM3], ids=lambda suite: suite.name)
def test_sizes_and_times_do_not_depend_on_the_traffic(
    suite: Suite, encapsulation: Encapsulation
) -> None:
    idle, busy = (Pair(suite, encapsulation=encapsulation) for _ in range(2))
    inner = [ipv4(octets) for octets in range(20, 1400, 7)] + [ipv6(1300)]
    busy.sending.next_slot_ns(0)
    for packet in inner:
        busy.sending.from_inside(packet, 0)
    sent = [list(pair.slots(1000 * MS)) for pair in (idle, busy)]
    seen = [[(at_ns, len(datagram)) for at_ns, datagram in one] for one in sent]
    assert seen[0] == seen[1]
    octets = encapsulation.octets + len(sent[0][0][1])
    assert 1500 - suite.alignment < octets <= 1500
    assert [at for at, _ in sent[0]][1] == octets * 8 * 10**9 // RATE_BPS
    assert [packet for _, one in sent[0] for packet in idle.arrives(one)] == []
    assert [packet for _, one in sent[1] for packet in busy.arrives(one)] == inner


def test_nothing_without_an_sa() -> None:
    pair = Pair()
    pair.near.outbound = None
    assert pair.sending.next_slot_ns(0) is pair.sending.slot(0) is None
    pair.sending.from_inside(ipv4(100), 0)
    assert pair.near.drops == {"no_outbound_sa": 1}
    pair.rekey()
    assert pair.sending.next_slot_ns(5 * MS) == 5 * MS
    # The path asks for no SA: that would be for batches.
    assert pair.sending.outbound is pair.receiving.inbound(pair.spi) is None


def test_selectors_at_both_ends() -> None:
    pair = Pair()
    pair.sending.next_slot_ns(0)
    pair.sending.from_inside(ALIEN, 0)
    assert pair.near.drops == {"outside_selectors": 1}
    assert pair.sending._sender is not None
    pair.sending._sender.put(ALIEN)  # what a peer with other selectors would send
    pair.sending._sender.put(ipv4(50))
    assert [packet for _, one in pair.slots(1) for packet in pair.arrives(one)] == [ipv4(50)]
    counters = pair.far.of_peer[pair.spi].counters
    assert (counters.packets, counters.bytes, counters.selector_drops) == (1, 50, 1)
    assert pair.far.heard == [pair.spi]


def test_what_is_no_payload() -> None:
    """Control and keepalives are the tunnel's; plain ESP on the SA, a replay and a bad packet are refused."""
    pair = Pair()
    assert pair.arrives(bytes(4) + b"control") == pair.arrives(b"\xff") == []
    assert pair.far.other == [bytes(4) + b"control", b"\xff"]
    sa = pair.near.outbound
    assert sa is not None
    assert pair.arrives(sa.seal_payload(NEXT_IPV4, ipv4(60))) == []
    (_, datagram), *_ = pair.slots(1)
    assert pair.arrives(datagram) == pair.arrives(datagram) == pair.arrives(datagram[:-1]) == []
    counters = pair.far.of_peer[pair.spi].counters
    assert (counters.bad_next_header, counters.replays, counters.malformed) == (1, 1, 1)


def test_a_rekey_under_load_loses_nothing_and_keeps_the_grid() -> None:
    """A packet that was cut when the SA changed is sent again, whole, and comes out once."""
    pair = Pair()
    inner = [ipv4(1000, source=f"10.1.0.{number}") for number in range(1, 60)]
    pair.sending.next_slot_ns(0)
    for packet in inner:
        pair.sending.from_inside(packet, 0)
    arrived, times = [], []
    for number, (at_ns, datagram) in enumerate(pair.slots(500 * MS)):
        times.append(at_ns)
        arrived += pair.arrives(datagram)
        if number % 7 == 6:
            pair.rekey()
        if number == 30:
            pair.far.of_peer.pop(0x1001)
    assert arrived == inner
    assert times == [number * 10 * MS for number in range(50)]
    assert pair.sending.status()["slots_skipped"] == 0
    assert len(pair.receiving._receivers) < 8  # the retired SA's is gone
    assert pair.receiving.status()["received_packets"] >= 59


def test_what_an_old_sa_left_waiting_comes_out_with_the_new_one() -> None:
    pair = Pair()
    inner = [ipv4(1434, source=f"10.1.0.{number}") for number in range(1, 9)]
    pair.sending.next_slot_ns(0)
    for packet in inner:
        pair.sending.from_inside(packet, 0)
    slots = pair.slots(1000 * MS)
    sent = [next(slots)[1] for _ in range(3)]
    assert pair.arrives(sent[0]) == inner[:1]
    assert pair.arrives(sent[2]) == []  # the second was lost
    pair.rekey()
    out = [pair.arrives(next(slots)[1]) for _ in range(5)]
    assert [packet for one in out for packet in one] == [*inner[3:7], inner[2], inner[7]]


def test_a_smaller_path() -> None:
    pair = Pair()
    lengths = {len(datagram) for _, datagram in pair.slots(30 * MS)}
    pair.sending.fit(1300, 30 * MS)
    times = []
    for at_ns, datagram in pair.slots(100 * MS, 30 * MS):
        times.append(at_ns)
        lengths.add(len(datagram))
    assert lengths == {1500 - 28, 1300 - 28}
    assert times[1] - times[0] == 1300 * 8 * 10**9 // RATE_BPS  # the same rate


def test_payloads_of_a_given_length() -> None:
    pair = Pair(payload_octets=498)
    ((_, datagram), *_) = pair.slots(1)
    assert len(datagram) == AES_128_GCM.esp_octets(498)
    too_long = Pair(payload_octets=9000)
    ((_, datagram), *_) = too_long.slots(1)
    assert len(datagram) == 1500 - 28


def test_an_sa_that_is_used_up_sends_nothing() -> None:
    pair = Pair()
    sa = pair.near.outbound
    assert sa is not None
    pair.sending.next_slot_ns(0)
    sa.limit = 2
    assert [pair.sending.slot(number * 10 * MS) is None for number in range(4)] == [
        *(False, False, True, True)
    ]


def test_a_timer_expires_at_its_time() -> None:
    timer = Timer()
    with select.epoll() as poll:
        poll.register(timer.fileno(), select.EPOLLIN)
        assert poll.poll(0) == []
        at_ns = time.monotonic_ns() + 3 * MS
        timer.set(at_ns)
        assert poll.poll(5) == [(timer.fileno(), select.EPOLLIN)]
        assert time.monotonic_ns() >= at_ns
        timer.clear()
        assert poll.poll(0) == []
        timer.set(at_ns)  # past: at once
        assert poll.poll(5) != []
        timer.set(None)
        assert poll.poll(0) == []
        timer.clear()
        timer.set(0)
        assert poll.poll(5) != []
    timer.close()
