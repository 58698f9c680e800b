"""AGGFRAG payloads as RFC 9347 writes them: the packet flow of its appendix A, and what its §2.2 rules out.

What a receiver makes of padding between the pieces of a packet, of a BlockOffset that does not fit and of a packet
whose length is cut in two is what Linux does (net/xfrm/xfrm_iptfs.c).
"""

from __future__ import annotations

import pytest

from gateways.aggfrag import NEXT_AGGFRAG, Receiver, Sender
from gateways.esp import EspRefused, InboundSa, OutboundSa, Refusal
from gateways.suites import SUITES, Suite
from tests.esp_packets import SPI, inbound_selectors, ipv4, ipv6, keys_of

FLOW = [ipv4(750), ipv4(750), ipv4(60), ipv4(240), ipv4(3000)]
"""Appendix A, figure 5: inner packets in ESP payloads of 1404 octets."""


def sender_of(payload_octets: int, *packets: bytes) -> Sender:
    sender = Sender(payload_octets)
    for packet in packets:
        assert sender.put(packet)
    return sender


def block_offset(payload: bytes) -> int:
    return int.from_bytes(payload[2:4])


def payload_of(offset: int, blocks: bytes) -> bytes:
    return bytes(2) + offset.to_bytes(2) + blocks


def test_the_packet_flow_of_appendix_a() -> None:
    sender = sender_of(1404, *FLOW)
    payloads = [sender.next_payload() for _ in range(4)]
    assert [len(payload) for payload in payloads] == [1404] * 4
    assert [payload[:2] for payload in payloads] == [bytes(2)] * 4  # sub-type 0, reserved
    assert [block_offset(payload) for payload in payloads] == [0, 100, 2000, 600]
    assert b"".join(payload[4:] for payload in payloads) == b"".join(FLOW) + bytes(800)
    receiver = Receiver()
    out = [receiver.take(number, payload) for number, payload in enumerate(payloads, 1)]
    assert out == [FLOW[:1], FLOW[1:4], [], FLOW[4:]]


def test_an_idle_sender_sends_padding_alone() -> None:
    sender = Sender(200)
    assert sender.next_payload() == sender.next_payload() == bytes(200)
    assert (sender.counters["all_pad"], sender.counters["pad_octets"]) == (2, 2 * 196)
    receiver = Receiver()
    assert receiver.take(1, bytes(200)) == []
    assert receiver.counters["malformed"] == 0


def test_no_packet_is_begun_with_less_than_its_length() -> None:
    first, second = ipv4(96 - 5), ipv6(80)
    sender = sender_of(100, first, second)
    assert sender.next_payload() == payload_of(0, first + bytes(5))
    assert sender.next_payload() == payload_of(0, second + bytes(16))
    sender = sender_of(100, ipv4(96 - 6), second)
    assert sender.next_payload()[-6:] == second[:6]
    assert block_offset(sender.next_payload()) == 74


def test_a_short_end_of_a_packet_fills_up() -> None:
    """The last octets of a packet go wherever there is room: only a beginning needs its length."""
    long = ipv4(2 * 96 + 95)
    sender = sender_of(100, long, ipv4(20))
    payloads = [sender.next_payload() for _ in range(4)]
    assert [block_offset(payload) for payload in payloads] == [0, 191, 95, 0]
    assert payloads[2][-1] == 0
    assert payloads[3][4:24] == ipv4(20)


def test_a_begun_length_is_read_on_in_the_next_payload() -> None:
    """A sender may cut a packet anywhere, also before its length."""
    for packet in (ipv4(50), ipv6(50)):
        for cut in range(1, 50):
            receiver = Receiver()
            assert receiver.take(1, payload_of(0, packet[:cut])) == []
            assert receiver.take(2, payload_of(50 - cut, packet[cut:] + bytes(3))) == [packet]


def test_padding_alone_may_come_between_the_pieces() -> None:
    """§2.2.3: a sender may have to send padding while the rest of a packet waits."""
    packet = ipv4(300)
    receiver = Receiver()
    assert receiver.take(1, payload_of(0, packet[:196])) == []
    assert receiver.take(2, bytes(200)) == []
    assert receiver.take(3, payload_of(0, b"")) == []
    assert receiver.take(4, payload_of(104, packet[196:])) == [packet]


@pytest.mark.parametrize("offset", [0, 103, 105, 65535])
def test_a_block_offset_that_does_not_fit_costs_the_packet(offset: int) -> None:
    packet = ipv4(300)
    receiver = Receiver()
    receiver.take(1, payload_of(0, packet[:196]))
    whole = ipv4(40)
    # Where the offset points into the payload, what begins there is still read.
    blocks = whole if not offset else bytes(offset) + whole if offset < 200 else packet[196:]
    assert receiver.take(2, payload_of(offset, blocks)) == ([whole] if offset < 200 else [])
    assert (receiver.counters["malformed"], receiver.counters["packets_cut_short"]) == (1, 1)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        bytes(3),
        b"\1" + bytes(60),  # sub-type 1: congestion control
        payload_of(0, b"\x50" + bytes(40)),  # IP version 5
        payload_of(0, b"\x45\0\0\x13" + bytes(40)),  # shorter than its header
        payload_of(0, b"\x45\0\0\0" + bytes(40)),
        payload_of(0, b"\x4f" + ipv4(40)[1:]),  # its header does not fit in it
    ],
)
def test_what_cannot_be_read_is_counted(payload: bytes) -> None:
    receiver = Receiver()
    assert receiver.take(1, payload) == []
    assert receiver.counters["malformed"] == 1
    assert receiver.take(2, payload_of(0, ipv4(40))) == [ipv4(40)]


def test_the_reserved_octet_is_ignored() -> None:
    assert Receiver().take(1, b"\0\xff\0\0" + ipv4(40)) == [ipv4(40)]


def test_reordering_within_the_window() -> None:
    sender = sender_of(104, *(ipv4(150, protocol=number) for number in range(4)))
    payloads = [sender.next_payload() for _ in range(6)]
    receiver = Receiver(window=3)
    order = [2, 3, 4, 1, 6, 5]
    out = [receiver.take(number, payloads[number - 1]) for number in order]
    assert [len(packets) for packets in out] == [0, 0, 0, 2, 0, 2]
    assert [packet[9] for packets in out for packet in packets] == [0, 1, 2, 3]
    assert (receiver.counters["missed"], receiver.counters["late"]) == (0, 0)


def test_a_lost_payload_costs_only_what_it_touched() -> None:
    """Six payloads of three packets each and a cut one; the third payload never comes."""
    packets = [ipv4(90, protocol=number) for number in range(12)]
    sender = sender_of(204, *packets)
    payloads = [sender.next_payload() for _ in range(6)]
    receiver = Receiver(window=2)
    out = [receiver.take(n, payloads[n - 1]) for n in (1, 2, 4, 5, 6)]
    assert [len(arrived) for arrived in out] == [2, 2, 0, 0, 5]
    # Octets 400 to 599 were in it: packets 4 to 6.
    assert [p[9] for arrived in out for p in arrived] == [0, 1, 2, 3, 7, 8, 9, 10, 11]
    assert (receiver.counters["missed"], receiver.counters["packets_cut_short"]) == (1, 1)
    assert receiver.take(3, payloads[2]) == []
    assert receiver.counters["late"] == 1


def test_the_end_of_an_sa_frees_what_waits() -> None:
    sender = sender_of(104, *(ipv4(100, protocol=number) for number in range(4)))
    payloads = [sender.next_payload() for _ in range(4)]
    receiver = Receiver()
    assert receiver.take(1, payloads[0]) == [ipv4(100, protocol=0)]
    assert receiver.take(3, payloads[2]) == receiver.take(4, payloads[3]) == []
    assert [packet[9] for packet in receiver.flush()] == [2, 3]
    assert receiver.flush() == []


def test_a_new_sa_begins_with_a_whole_packet() -> None:
    packet = ipv4(300)
    sender = sender_of(204, packet)
    sender.next_payload()
    sender.restart()
    assert sender.waiting_octets == 300
    receiver = Receiver()
    assert receiver.take(1, sender.next_payload()) == []
    assert receiver.take(2, sender.next_payload()) == [packet]
    assert sender.waiting_octets == 0


def test_what_is_put() -> None:
    sender = Sender(1404, queue_octets=100)
    assert not sender.put(b"\x45no packet")
    assert not sender.put(b"")
    assert sender.put(ipv4(60) + b"behind the packet's own length")
    assert not sender.put(ipv4(41))
    assert sender.put(ipv4(40))
    assert (sender.counters["malformed"], sender.counters["queue_drops"]) == (2, 1)
    assert Receiver().take(1, sender.next_payload()) == [ipv4(60), ipv4(40)]
    for octets in (0, 63, 65536):
        with pytest.raises(ValueError, match=f"payload of {octets} octets"):
            Sender(octets)


@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.name)
def test_in_esp(suite: Suite) -> None:
    """Next header 144; every ESP packet of one length, whatever is in it."""
    octets = suite.inner_octets(1500 - 28)
    sender = sender_of(octets, *FLOW)
    keys = keys_of(suite)
    out, receiver = OutboundSa(SPI, keys), Receiver()
    inside = InboundSa(SPI, keys, inbound_selectors())
    sealed = [out.seal_payload(NEXT_AGGFRAG, sender.next_payload()) for _ in range(6)]
    assert {len(packet) for packet in sealed} == {suite.esp_octets(octets)}
    arrived = []
    for packet in sealed:
        next_header, payload = inside.open_payload(packet)
        assert (next_header, len(payload)) == (NEXT_AGGFRAG, octets)
        arrived += receiver.take(int.from_bytes(packet[4:8]), payload)
    assert arrived == FLOW


def test_plain_tunnel_mode_refuses_the_payload() -> None:
    """RFC 9347 §2.3: payloads of the two kinds are not mixed on one SA."""
    keys = keys_of(SUITES["AES-128-GCM"])
    packet = OutboundSa(SPI, keys).seal_payload(NEXT_AGGFRAG, Sender(100).next_payload())
    sa = InboundSa(SPI, keys, inbound_selectors())
    with pytest.raises(EspRefused) as refused:
        sa.open(packet)
    assert refused.value.reason is Refusal.NEXT_HEADER
