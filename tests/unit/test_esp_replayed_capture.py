"""A whole capture replayed, forgeries among it, and every nonce of many SAs: nothing is opened or used twice."""

from __future__ import annotations

import hashlib
import random

import pytest

from gateways.esp import MAX_SEQUENCE, EspRefused, InboundSa, OutboundSa
from gateways.keys import Direction, derive_sa_keys
from gateways.suites import AES_128_GCM, SUITES, Suite
from tests.esp_packets import ALL_SUITES, SPI, inbound_selectors, ipv4, keys_of

WINDOW = 1024
BURST = 44


def reordered(packets: list[bytes], reach: int, rng: random.Random) -> list[bytes]:
    """The packets, each up to `reach` places later than it was sent."""
    places = [index + rng.random() * reach for index in range(len(packets))]
    return [packets[index] for index in sorted(range(len(packets)), key=places.__getitem__)]


@pytest.mark.parametrize("packets", [4_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_a_capture_replayed_three_times(packets: int) -> None:
    """Reordered within the window all arrive; then forward, backward and shuffled nothing does."""
    keys = keys_of(AES_128_GCM)
    capture = OutboundSa(SPI, keys).seal_batch([ipv4(20 + n % 400) for n in range(packets)])
    inbound = InboundSa(SPI, keys, inbound_selectors(), WINDOW)
    rng = random.Random(5)
    arrivals = reordered(capture, WINDOW - 1, rng)
    assert arrivals != capture
    opened = 0
    for start in range(0, packets, BURST):
        burst = arrivals[start : start + BURST]
        forged = bytearray(burst[0])
        forged[4:8] = MAX_SEQUENCE.to_bytes(4)
        opened += len(inbound.open_batch([bytes(forged), *burst]))
    assert opened == inbound.counters.packets == packets
    assert inbound.counters.replays == 0
    assert inbound.window.highest == packets
    for again in (capture, capture[::-1], rng.sample(capture, packets)):
        for start in range(0, packets, BURST):
            assert inbound.open_batch(again[start : start + BURST]) == []
    assert inbound.counters.replays == 3 * packets
    assert inbound.counters.packets == packets


@pytest.mark.parametrize("suite", ALL_SUITES, ids=list(SUITES))
def test_forgeries_do_not_move_the_window(suite: Suite) -> None:
    keys = keys_of(suite)
    packets = OutboundSa(SPI, keys).seal_batch([ipv4(60)] * 60)
    inbound = InboundSa(SPI, keys, inbound_selectors(), WINDOW)
    for sequence in (MAX_SEQUENCE, 2**31, WINDOW + 1, 61, 2):
        forged = packets[0][:4] + sequence.to_bytes(4) + packets[0][8:]
        with pytest.raises(EspRefused):
            inbound.open(forged)
        assert inbound.open_batch([forged] * 3) == []
        assert inbound.window.highest == 0
    assert inbound.counters.icv_failures == 20
    assert inbound.open_batch(packets[::-1]) == [ipv4(60)] * 60


@pytest.mark.parametrize(
    ("rekeys", "packets"), [(40, 100), pytest.param(1000, 10_000, marks=pytest.mark.long)]
)
@pytest.mark.parametrize("suite", [s for s in ALL_SUITES if s.salt_octets], ids=lambda s: s.name)
def test_no_nonce_is_used_twice_under_a_key(suite: Suite, rekeys: int, packets: int) -> None:
    """Both directions of many SAs: every key is new, and under each the IVs count up from 1."""
    if suite is not AES_128_GCM:
        packets //= 10
    inners = [ipv4(20)] * packets
    seen: set[bytes] = set()
    for rekey in range(rekeys):
        secret, freshness = hashlib.sha256(b"%d" % rekey).digest(), b"%032d" % rekey
        for direction in Direction:
            keys = derive_sa_keys(
                secret,
                key_id=str(rekey),
                direction=direction,
                spi=SPI + rekey,
                freshness=freshness,
                suite=suite,
            )
            assert keys.key not in seen
            seen.add(keys.key)
            sealed = OutboundSa(SPI + rekey, keys).seal_batch(inners)
            ivs = [int.from_bytes(packet[8:16]) for packet in sealed]
            assert ivs == list(range(1, packets + 1))
    assert len(seen) == 2 * rekeys
