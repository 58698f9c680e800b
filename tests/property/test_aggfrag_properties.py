"""AGGFRAG: whatever is sent, lost, repeated or reordered, only whole original packets come out, in order, once."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from gateways.aggfrag import Receiver, Sender
from tests.esp_packets import ipv4, ipv6

Steps = list[tuple[str, int]]


def packet(number: int, octets: int) -> bytes:
    """A packet that no other one of a test equals: `number` is in its address."""
    if octets % 3:
        return ipv4(max(octets, 20), source=f"10.1.{number >> 8}.{number & 255}")
    return ipv6(max(octets, 40), source=f"2001:db8:1::{number:x}")


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(20, 3000)),
        st.tuples(st.just("send"), st.integers(1, 4)),
    ),
    max_size=60,
)
payload_octets = st.integers(64, 1500)


def conversation(octets: int, what: Steps) -> tuple[list[bytes], list[bytes]]:
    """(packets put, payloads sent), everything sent in the end."""
    sender = Sender(octets)
    packets: list[bytes] = []
    payloads: list[bytes] = []
    for step, number in what:
        if step == "put":
            packets.append(packet(len(packets), number))
            assert sender.put(packets[-1])
        else:
            payloads += (sender.next_payload() for _ in range(number))
    while sender.waiting_octets:
        payloads.append(sender.next_payload())
    carried, padding = sender.counters["octets"], sender.counters["pad_octets"]
    assert carried == sum(map(len, packets))
    assert carried + padding == len(payloads) * (octets - 4)
    return packets, payloads


def is_subsequence(few: list[bytes], many: list[bytes]) -> bool:
    rest = iter(many)
    return all(one in rest for one in few)


@given(payload_octets, steps)
def test_without_loss_everything_arrives(octets: int, what: Steps) -> None:
    packets, payloads = conversation(octets, what)
    assert {len(payload) for payload in payloads} <= {octets}
    receiver = Receiver(window=0)
    arrived = [p for n, payload in enumerate(payloads, 1) for p in receiver.take(n, payload)]
    assert arrived == packets
    assert receiver.counters["malformed"] == 0


@given(payload_octets, steps, st.integers(0, 8), st.randoms(use_true_random=False))
def test_reordering_within_the_window_changes_nothing(
    octets: int, what: Steps, window: int, rng: Random
) -> None:
    packets, payloads = conversation(octets, what)
    # Each may be passed by `window` later ones: sorting by number plus a delay of at most that does so.
    keys = [(n + rng.randint(0, window) + 0.5 * (n % 2), n) for n in range(1, len(payloads) + 1)]
    receiver = Receiver(window)
    arrived = [p for _, n in sorted(keys) for p in receiver.take(n, payloads[n - 1])]
    assert arrived == packets
    assert receiver.counters["missed"] == receiver.counters["late"] == 0


@given(payload_octets, steps, st.integers(0, 4), st.lists(st.integers(0, 200), max_size=400))
def test_any_loss_and_any_order(octets: int, what: Steps, window: int, order: list[int]) -> None:
    """Payloads lost, repeated, and in any order at all."""
    packets, payloads = conversation(octets, what)
    receiver = Receiver(window)
    arrived: list[bytes] = []
    for n in order:
        if n < len(payloads):
            arrived += receiver.take(n + 1, payloads[n])
    arrived += receiver.flush()
    assert is_subsequence(arrived, packets)
    assert receiver.counters["malformed"] == 0


@given(payload_octets, steps, st.data())
def test_a_loss_costs_the_packets_it_touches_and_no_other(
    octets: int, what: Steps, data: st.DataObject
) -> None:
    packets, payloads = conversation(octets, what)
    lost = data.draw(st.sets(st.integers(0, max(0, len(payloads) - 1)), max_size=len(payloads)))
    sender, receiver = Sender(octets), Receiver(window=0)
    touched: set[bytes] = set()
    arrived: list[bytes] = []
    # The same conversation again, asking after each payload which packets were under way in it.
    before = 0
    numbered = iter(packets)
    under_way: list[bytes] = []
    number = 0

    def send() -> None:
        nonlocal before, number
        payload = sender.next_payload()
        assert payload == payloads[number]
        after = sender.counters["octets"]
        at = 0
        for one in under_way:
            if number in lost and at < after and at + len(one) > before:
                touched.add(one)
            at += len(one)
        if number not in lost:
            arrived.extend(receiver.take(number + 1, payload))
        before = after
        number += 1

    for step, count in what:
        if step == "put":
            under_way.append(next(numbered))
            sender.put(under_way[-1])
        else:
            for _ in range(count):
                send()
    while sender.waiting_octets:
        send()
    assert arrived == [one for one in packets if one not in touched]


@given(st.lists(st.tuples(st.integers(0, 40), st.binary(max_size=300)), max_size=40))
def test_any_octets_at_all(payloads: list[tuple[int, bytes]]) -> None:
    """Nothing raised, nothing kept beyond the window and one packet, nothing out but whole IP packets."""
    receiver = Receiver()
    for sequence, payload in payloads:
        for one in receiver.take(sequence, payload):
            assert one[0] >> 4 in {4, 6}
        assert len(receiver._early) <= receiver.window + 1
        assert sum(map(len, receiver._begun)) <= 0xFFFF + 40
    receiver.flush()
    assert not receiver._early
