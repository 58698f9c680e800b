"""ESP under any input: what was not sealed is not opened, what was is opened once."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.esp import AesGcm16, EspRefused, InboundSa, OutboundSa
from gateways.keys import SaKeys
from gateways.replay import ReplayWindow
from gateways.selectors import TrafficSelectors

KEYS = SaKeys(b"k" * 16, b"salt")
SPI = 0x1001
ANY = TrafficSelectors([IPv4Network("0.0.0.0/0")], [IPv4Network("0.0.0.0/0")])


def ipv4(payload: bytes, source: int = 0x0A010001, destination: int = 0x0A020001) -> bytes:
    total = 20 + len(payload)
    head = struct.pack("!BBHHHBBHII", 0x45, 0, total, 0, 0, 64, 17, 0, source, destination)
    return head + payload


@given(st.binary(max_size=1418), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_round_trip(payload: bytes, source: int, destination: int) -> None:
    inner = ipv4(payload, source, destination)
    assert InboundSa(SPI, KEYS, ANY).open(OutboundSa(SPI, KEYS).seal(inner)) == inner


@given(st.binary(max_size=200), st.data())
def test_any_change_is_refused(payload: bytes, data: st.DataObject) -> None:
    packet = OutboundSa(SPI, KEYS).seal(ipv4(payload))
    sa = InboundSa(SPI, KEYS, ANY)
    mask = data.draw(st.integers(1, 2 ** (8 * len(packet)) - 1))
    changed = (int.from_bytes(packet) ^ mask).to_bytes(len(packet))
    cut = data.draw(st.integers(0, len(packet) - 1))
    for bad in (changed, packet[:cut], packet + bytes(4)):
        with pytest.raises(EspRefused):
            sa.open(bad)
    assert sa.window.highest == 0
    assert sa.open(packet) == ipv4(payload)


@given(st.binary(max_size=2000))
def test_random_octets_are_refused(noise: bytes) -> None:
    sa = InboundSa(SPI, KEYS, ANY)
    for packet in (noise, SPI.to_bytes(4) + noise):
        with pytest.raises(EspRefused):
            sa.open(packet)


@given(st.binary(min_size=2, max_size=300))
def test_authenticated_nonsense_is_refused_or_inside_the_selectors(plaintext: bytes) -> None:
    """A peer with the right key and any plaintext at all: no crash, nothing out of policy."""
    local, remote = IPv4Network("10.2.0.0/16"), IPv4Network("10.1.0.0/16")
    sa = InboundSa(SPI, KEYS, TrafficSelectors([local], [remote]))
    packet = AesGcm16(KEYS).protect(struct.pack("!II", SPI, 1), bytes(8), plaintext)
    try:
        inner = sa.open(packet)
    except EspRefused:
        return
    assert IPv4Address(inner[12:16]) in remote
    assert IPv4Address(inner[16:20]) in local
    assert int.from_bytes(inner[2:4]) == len(inner)


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
    st.sampled_from([64, 128, 1024]),
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
