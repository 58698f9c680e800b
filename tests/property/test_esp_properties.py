"""ESP under any input: what was not sealed is not opened, what was is opened once."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.esp import EspRefused, InboundSa, OutboundSa
from gateways.replay import ReplayWindow
from gateways.selectors import TrafficSelectors
from gateways.suites import AES_128_GCM, Suite
from tests.esp_packets import ALL_SUITES, SPI, keys_of, sealed

KEYS = keys_of(AES_128_GCM)
ANY = TrafficSelectors([IPv4Network("0.0.0.0/0")], [IPv4Network("0.0.0.0/0")])


def ipv4(payload: bytes, source: int = 0x0A010001, destination: int = 0x0A020001) -> bytes:
    total = 20 + len(payload)
    head = struct.pack("!BBHHHBBHII", 0x45, 0, total, 0, 0, 64, 17, 0, source, destination)
    return head + payload


suites = st.sampled_from(ALL_SUITES)


@given(suites, st.binary(max_size=1418), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_round_trip(suite: Suite, payload: bytes, source: int, destination: int) -> None:
    inner, keys = ipv4(payload, source, destination), keys_of(suite)
    assert InboundSa(SPI, keys, ANY).open(OutboundSa(SPI, keys).seal(inner)) == inner


@given(suites, st.binary(max_size=200), st.data())
def test_any_change_is_refused(suite: Suite, payload: bytes, data: st.DataObject) -> None:
    keys = keys_of(suite)
    packet = OutboundSa(SPI, keys).seal(ipv4(payload))
    sa = InboundSa(SPI, keys, ANY)
    mask = data.draw(st.integers(1, 2 ** (8 * len(packet)) - 1))
    changed = (int.from_bytes(packet) ^ mask).to_bytes(len(packet))
    cut = data.draw(st.integers(0, len(packet) - 1))
    for bad in (changed, packet[:cut], packet + bytes(suite.alignment)):
        with pytest.raises(EspRefused):
            sa.open(bad)
    assert sa.window.highest == 0
    assert sa.open(packet) == ipv4(payload)


@given(suites, st.binary(max_size=2000))
def test_random_octets_are_refused(suite: Suite, noise: bytes) -> None:
    sa = InboundSa(SPI, keys_of(suite), ANY)
    for packet in (noise, SPI.to_bytes(4) + noise):
        with pytest.raises(EspRefused):
            sa.open(packet)
        assert sa.open_batch([packet, packet]) == []


@given(st.sampled_from([4, 41]), st.binary(min_size=2, max_size=300))
def test_authenticated_nonsense_is_refused_or_inside_the_selectors(
    next_header: int, plaintext: bytes
) -> None:
    """A peer with the right key and any plaintext at all: no crash, nothing out of policy."""
    local, remote = IPv4Network("10.2.0.0/16"), IPv4Network("10.1.0.0/16")
    plaintext += bytes(-(len(plaintext) + 2) % 4) + b"\0" + bytes((next_header,))
    packet = sealed(KEYS, plaintext)
    batch = InboundSa(SPI, KEYS, TrafficSelectors([local], [remote])).open_batch([packet])
    sa = InboundSa(SPI, KEYS, TrafficSelectors([local], [remote]))
    try:
        inner = sa.open(packet)
    except EspRefused:
        assert batch == []
        return
    assert batch == [inner]
    assert IPv4Address(inner[12:16]) in remote
    assert IPv4Address(inner[16:20]) in local
    assert int.from_bytes(inner[2:4]) == len(inner)


@given(suites, st.lists(st.integers(0, 40), max_size=12), st.data())
def test_any_way_of_numbering_uses_each_number_once(
    suite: Suite, steps: list[int], data: st.DataObject
) -> None:
    """Single packets, batches, numbers taken, packets refused: what is on the wire has a number of its own."""
    outbound = OutboundSa(SPI, keys_of(suite), limit=data.draw(st.integers(1, 300)))
    used: list[int] = []
    for step in steps:
        kind = data.draw(st.sampled_from("sbtr"))
        if kind == "s":
            try:
                packets = [outbound.seal(ipv4(b""))]
            except EspRefused:
                packets = []
        elif kind == "t":
            used += outbound.take(step)
            continue
        else:
            packets = outbound.seal_batch([ipv4(b"")] * step + [b"no IP"] * (kind == "r"))
        used += (int.from_bytes(packet[4:8]) for packet in packets)
        if suite.iv_octets == 8:
            assert [p[8:16] for p in packets] == [b"\0" * 4 + p[4:8] for p in packets]
    assert len(used) == len(set(used))
    assert used == sorted(used)
    assert all(0 < number <= outbound.limit for number in used)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.data())
def test_batches_open_what_single_packets_would(order: list[int], data: st.DataObject) -> None:
    """Any order, any copies, forgeries between them, cut into bursts anywhere: the two ways never differ."""
    packets = OutboundSa(SPI, KEYS).seal_batch([ipv4(bytes((n,))) for n in range(60)])
    forged = data.draw(st.sets(st.integers(0, len(order) - 1), max_size=20))
    wire = [
        packets[n - 1][:-1] + bytes((packets[n - 1][-1] ^ (at in forged),))
        for at, n in enumerate(order)
    ]
    single, batch = (InboundSa(SPI, KEYS, ANY, window=32) for _ in range(2))
    one: list[bytes] = []
    for packet in wire:
        try:
            one.append(single.open(packet))
        except EspRefused:
            continue
    many: list[bytes] = []
    while wire:
        cut = data.draw(st.integers(1, len(wire)))
        many += batch.open_batch(wire[:cut])
        wire = wire[cut:]
    assert many == one
    assert batch.counters == single.counters
    assert batch.window.highest == single.window.highest


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=300))
def test_any_order_and_any_copies_open_each_packet_at_most_once(order: list[int]) -> None:
    outbound = OutboundSa(SPI, KEYS)
    packets = [outbound.seal(ipv4(number.to_bytes(4))) for number in range(1, max(order) + 1)]
    inbound = InboundSa(SPI, KEYS, ANY)
    opened: list[int] = []
    highest = 0
    for number in order:
        fits = number > highest or (highest - number < 1024 and number not in opened)
        try:
            inner = inbound.open(packets[number - 1])
        except EspRefused:
            assert not fits
            continue
        assert fits
        assert inner == ipv4(number.to_bytes(4))
        opened.append(number)
        highest = max(highest, number)
    assert len(opened) == len(set(opened)) == inbound.counters.packets


@given(
    st.sampled_from([32, 100, 128, 1024]),
    st.lists(st.integers(0, 5000) | st.integers(2**32 - 3000, 2**32 - 1), max_size=200),
)
def test_window_against_a_set(size: int, sequence: list[int]) -> None:
    window, seen, highest = ReplayWindow(size), set[int](), 0
    for number in sequence:
        expected = number > 0 and number not in seen and highest - number < size
        assert window.check(number) is expected
        if expected:
            window.update(number)
            seen.add(number)
            highest = max(highest, number)
            assert window.highest == highest


networks = st.builds(
    lambda address, length: IPv4Network((address, length), strict=False),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)


@given(
    st.lists(networks, min_size=1, max_size=3),
    st.lists(networks, min_size=1, max_size=3),
    st.data(),
)
def test_selectors_against_ipaddress(
    local: list[IPv4Network], remote: list[IPv4Network], data: st.DataObject
) -> None:
    def address() -> st.SearchStrategy[int]:
        inside = st.sampled_from([*local, *remote]).flatmap(
            lambda n: st.integers(int(n.network_address), int(n.broadcast_address))
        )
        return inside | st.integers(0, 2**32 - 1)

    source, destination = data.draw(address()), data.draw(address())
    packet = ipv4(b"", source, destination)
    selectors = TrafficSelectors(local, remote)

    def within(value: int, prefixes: list[IPv4Network]) -> bool:
        return any(IPv4Address(value) in prefix for prefix in prefixes)

    assert selectors.outgoing(packet) is (within(source, local) and within(destination, remote))
    expected = within(source, remote) and within(destination, local)
    assert selectors.incoming(packet) == (packet if expected else None)


networks6 = st.builds(
    lambda address, length: IPv6Network((address, length), strict=False),
    st.integers(0, 2**128 - 1),
    st.integers(0, 128),
)


@given(networks6, networks6, st.data())
def test_ipv6_selectors_against_ipaddress(
    local: IPv6Network, remote: IPv6Network, data: st.DataObject
) -> None:
    def address(network: IPv6Network) -> int:
        inside = st.integers(int(network.network_address), int(network.broadcast_address))
        return data.draw(inside | st.integers(0, 2**128 - 1))

    source, destination = IPv6Address(address(local)), IPv6Address(address(remote))
    packet = struct.pack("!IHBB", 6 << 28, 0, 59, 64) + source.packed + destination.packed
    inside = source in local and destination in remote
    assert TrafficSelectors([local], [remote]).outgoing(packet) is inside
    incoming = TrafficSelectors([remote], [local]).incoming(packet)
    assert incoming == (packet if inside else None)
