"""Keys that wait: whatever is flown and relayed, every byte of every pass is accounted for, once."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from kms.key_id import NAMING_AREA_BYTES
from kms.relay import encrypt_relay
from kms.waiting import SHORTEST_BLOCK_BYTES, PassBlock, WaitingKeys

START = datetime(2024, 11, 22, tzinfo=UTC)
STATIONS = "BSJ"
flights = st.tuples(
    st.just("fly"), st.sampled_from("12"), st.sampled_from(STATIONS), st.integers(1, 2000)
)
relays = st.tuples(
    st.just("relay"),
    st.sampled_from("12"),
    st.permutations(STATIONS).map(lambda names: names[:2]),
    st.just(0),
)


@given(st.lists(st.one_of(flights, relays), max_size=60))
@settings(max_examples=200, deadline=None)
def test_every_byte_is_spent_once(events: list[tuple[str, str, str, int]]) -> None:
    waiting, made, spent = WaitingKeys(), Counter[PassBlock](), Counter[PassBlock]()
    for hour, (what, satellite, where, size) in enumerate(events):
        now = START + timedelta(hours=hour)
        if what == "fly":
            block = PassBlock(satellite, where, now, size)
            waiting.add(block)
            made[block] += size
            continue
        before = dict(waiting)
        relay = waiting.relay(satellite, where[0], where[1], now)
        after = dict(waiting)
        if relay is None:
            assert after == before
            for name in where:  # one of the two has nothing of use
                if all(
                    left < SHORTEST_BLOCK_BYTES
                    for block, left in before.items()
                    if (block.satellite, block.station) == (satellite, name)
                ):
                    break
            else:
                raise AssertionError("a relay was possible")
            continue
        k1, k2 = relay.k1, relay.k2
        assert {k1.station, k2.station} == set(where)
        assert k1.satellite == k2.satellite == satellite
        assert k1.made_at < k2.made_at <= now
        assert relay.waited_s == (now - k1.made_at).total_seconds()
        # The very relay gives a block of that length and uses that much of both keys.
        message = encrypt_relay(bytes(before[k1]), bytes(before[k2]), 0)
        assert message.block_bytes == relay.block_bytes
        assert len(message.ciphertext) == relay.k1_spent_bytes == relay.k2_spent_bytes - 32
        assert relay.pool_bits == 8 * (relay.block_bytes - NAMING_AREA_BYTES)
        spent[k1] += relay.k1_spent_bytes
        spent[k2] += relay.k2_spent_bytes
        assert min(after.get(k1, 0), after.get(k2, 0)) < SHORTEST_BLOCK_BYTES  # one is used up
    assert spent + Counter(dict(waiting)) == made
    for satellite in "12":
        for station in STATIONS:
            left = sum(n for b, n in waiting if (b.satellite, b.station) == (satellite, station))
            assert waiting.left_bytes(satellite, station) == left
