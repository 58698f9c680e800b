"""Chains of trusted nodes: what a relay costs, what it refuses, what an adversary gets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from random import Random

import pytest

from kms.alarms import AlarmKind
from kms.chain import LINK_MAC_KEY_BYTES, HopMessage, KeyNetwork
from topo.errors import InputError, KeySupplyError

NOW = datetime(2024, 11, 29, 22, 40, tzinfo=UTC)
AUTH_BITS = 8 * LINK_MAC_KEY_BYTES


def network(**links: int) -> KeyNetwork:
    """Links named by two letters, with that many bits to spend."""
    made = KeyNetwork()
    for seed, (ends, bits) in enumerate(links.items()):
        made.add_key(ends[0], ends[1], Random(seed).randbytes((bits + AUTH_BITS) // 8))
    return made


def levels(made: KeyNetwork) -> dict[str, int]:
    """Bits left on every link, seen from both ends, which must agree."""
    found = {}
    for one, node in made.nodes.items():
        for other in made.nodes:
            if one < other and node.free_bits(other):
                assert node.free_bits(other) == made.nodes[other].free_bits(one)
                found[one + other] = node.free_bits(other)
    return found


@pytest.mark.parametrize("size_bits", [8, 256, 4096])
def test_three_nodes_in_a_row(size_bits: int) -> None:
    made = network(AB=10_000, BC=8_000)
    key = made.relay("A", "C", size_bits, NOW)
    assert key.path == ("A", "B", "C")
    assert key.at_source == key.at_target
    assert len(key.at_source) == size_bits // 8
    assert levels(made) == {"AB": 10_000 - size_bits, "BC": 8_000 - size_bits}


def test_the_key_is_fresh_key_of_the_first_hop_and_pads_never_repeat() -> None:
    """K′ on the wire XOR the key is the pad: over many relays all pads are disjoint parts of the pool."""
    wire: list[HopMessage] = []

    def listen(message: HopMessage) -> Iterable[HopMessage]:
        wire.append(message)
        return (message,)

    made = KeyNetwork(carry=listen)
    pools = {"AB": Random(1).randbytes(672), "BC": Random(2).randbytes(672)}
    for ends, material in pools.items():
        made.add_key(ends[0], ends[1], material)
    keys = [made.relay("A", "C", 256, NOW).at_target for _ in range(20)]
    assert b"".join(keys) == pools["AB"][LINK_MAC_KEY_BYTES:]
    pads = [
        bytes(a ^ b for a, b in zip(m.ciphertext, key, strict=True))
        for m, key in zip(wire, keys, strict=True)
    ]
    assert b"".join(pads) == pools["BC"][LINK_MAC_KEY_BYTES:]
    with pytest.raises(KeySupplyError, match="has 0"):
        made.relay("A", "C", 8, NOW)


def test_both_directions_share_a_pool() -> None:
    made = network(AB=1024, BC=1024)
    one, two = made.relay("A", "C", 256, NOW), made.relay("C", "A", 256, NOW)
    assert one.at_source != two.at_source
    assert two.at_source == two.at_target
    assert levels(made) == {"AB": 512, "BC": 512}


def test_neighbours_need_no_message() -> None:
    made = KeyNetwork(carry=lambda message: pytest.fail("nothing to send"))
    made.add_key("A", "B", Random(1).randbytes(96))
    key = made.relay("A", "B", 256, NOW)
    assert key.at_source == key.at_target
    assert levels(made) == {"AB": 256}


def test_a_hop_too_poor_refuses_before_anything_is_spent() -> None:
    made = network(AB=10_000, BC=248, CD=10_000)
    before = levels(made)
    with pytest.raises(KeySupplyError, match=r"256 bits asked for, link B – C has 248, .* spent"):
        made.relay("A", "D", 256, NOW)
    assert levels(made) == before
    assert made.relay("A", "D", 248, NOW).path == ("A", "B", "C", "D")


def test_four_nodes_with_cycles() -> None:
    """A square with one diagonal::

    A ── B
    │  ╱ │
    D ── C
    """
    made = network(AB=2048, BC=1024, CD=4096, AD=4096, BD=4096)
    # Two ways of two hops: over D both hops are full, over B one is poor.
    assert made.route("A", "C", 256) == ("A", "D", "C")
    assert made.relay("A", "C", 3584, NOW).path == ("A", "D", "C")
    assert levels(made) == {"AB": 2048, "BC": 1024, "AD": 512, "CD": 512, "BD": 4096}
    # Now A – D is poor: the shortest way to C leads over B, the richest as well.
    assert made.relay("A", "C", 768, NOW).path == ("A", "B", "C")
    # Nothing of two hops has 512 bits any more but over D.
    assert made.route("A", "C", 512) == ("A", "D", "C")
    assert made.route("A", "D", 512) == ("A", "D")
    assert made.route("A", "D", 512, "most_key") == ("A", "B", "D")


def test_several_satellites_and_a_fibre() -> None:
    """Two satellites that share no station with each other, joined by a fibre between two stations."""
    made = KeyNetwork()
    rng = Random(5)
    for ends, kbit in {
        ("Beijing", "Jinan-1"): 590,
        ("Jinan-1", "Shanghai"): 480,
        ("Shanghai", "Hefei"): 900,
        ("Hefei", "Micius"): 300,
        ("Micius", "Graz"): 360,
    }.items():
        made.add_key(*ends, rng.randbytes(125 * kbit))
    key = made.relay("Beijing", "Graz", 256, NOW)
    assert key.path == ("Beijing", "Jinan-1", "Shanghai", "Hefei", "Micius", "Graz")
    assert key.at_source == key.at_target
    assert made.free_bits("Micius", "Hefei") == 300_000 - AUTH_BITS - 256


def changed(message: HopMessage) -> Iterable[HopMessage]:
    first, *rest = message.ciphertext
    yield replace(message, ciphertext=bytes([first ^ 1, *rest]))
    yield replace(message, tag=bytes(32))
    yield replace(message, ciphertext=message.ciphertext[:-1])


def test_a_changed_message_is_dropped_and_the_pools_stay_equal() -> None:
    made = network(AB=2048, BC=2048, CD=2048)
    made.carry = changed
    with pytest.raises(KeySupplyError, match="nothing authentic from B to C"):
        made.relay("A", "D", 256, NOW)
    assert made.alarms.counts[AlarmKind.CORRUPTED] == 3
    assert levels(made) == {"AB": 1792, "BC": 1792, "CD": 1792}  # written off at both ends
    made.carry = lambda message: (*changed(message), message)
    key = made.relay("A", "D", 256, NOW)
    assert key.at_source == key.at_target
    assert made.alarms.counts[AlarmKind.CORRUPTED] == 9


def test_repeated_late_and_misdirected_messages_are_dropped() -> None:
    made = network(AB=2048, BC=2048, CD=2048)
    late: list[HopMessage] = []

    def twice(message: HopMessage) -> Iterable[HopMessage]:
        late.append(message)
        return (*late, message, replace(message, hop=message.hop + 1))

    made.carry = twice
    for _ in range(2):
        key = made.relay("A", "D", 256, NOW)
        assert key.at_source == key.at_target
    counts = made.alarms.counts
    assert counts[AlarmKind.REPLAYED] == 4 + 2 * 2  # each once more; two of the order that is over
    assert counts[AlarmKind.OUT_OF_ORDER] == 4 + 2  # each as another hop's; two for the node before
    assert counts[AlarmKind.CORRUPTED] == 0
    assert levels(made) == {"AB": 1536, "BC": 1536, "CD": 1536}


def test_a_lost_message() -> None:
    made = network(AB=2048, BC=2048)
    made.carry = lambda message: ()
    with pytest.raises(KeySupplyError, match="A – B – C failed"):
        made.relay("A", "C", 256, NOW)
    made.carry = lambda message: (message,)
    key = made.relay("A", "C", 256, NOW)
    assert key.at_source == key.at_target
    assert levels(made) == {"AB": 1536, "BC": 1536}


def test_bad_requests() -> None:
    made = network(AB=2048, CD=2048)
    with pytest.raises(KeySupplyError, match="no path from A to D"):
        made.relay("A", "D", 256, NOW)
    for arguments, why in (
        (("A", "X", 256), "no node X: there are A, B, C, D"),
        (("A", "A", 256), "to itself"),
        (("A", "B", 12), "whole bytes"),
        (("A", "B", 0), "whole bytes"),
    ):
        with pytest.raises(InputError, match=why):
            made.relay(*arguments, NOW)
    with pytest.raises(InputError, match="two ends"):
        made.add_key("A", "A", bytes(64))
    with pytest.raises(InputError, match="more than 32"):
        made.add_key("A", "E", bytes(32))
    with pytest.raises(InputError, match="no link A – C"):
        made.free_bits("A", "C")
    with pytest.raises(KeySupplyError, match="key of link A – B fails its health test"):
        made.add_key("A", "B", bytes(64))
    assert levels(made) == {"AB": 2048, "CD": 2048}


def test_no_key_is_a_links_key_twice() -> None:
    """Nor what is left of it without the bytes that authenticate; nor another link's."""
    made, material = network(AB=2048), Random(9).randbytes(64)
    made.add_key("B", "C", material)
    for one, other, again in (
        ("A", "B", material),
        ("B", "C", material),
        ("C", "D", material),
        ("B", "C", material[LINK_MAC_KEY_BYTES:]),
        ("A", "B", Random(0).randbytes(256 + LINK_MAC_KEY_BYTES)),
    ):
        with pytest.raises(KeySupplyError, match="a link had these bytes before"):
            made.add_key(one, other, again)
    assert levels(made) == {"AB": 2048, "BC": 256}
    assert "D" not in made.nodes
