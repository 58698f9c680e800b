"""key_IDs: they say where a key lies, and one changed bit makes them say nothing."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms.key_id import (
    KeyLocation,
    KeyName,
    derive_naming_key,
    find_slaves,
    format_key_id,
    half_groups,
    parse_key_id,
)
from topo.errors import ProtocolError

locations = st.builds(
    KeyLocation,
    block_number=st.integers(0, 2**16 - 1),
    offset_bytes=st.integers(0, 2**32 - 1),
    size_bytes=st.integers(0, 2**12 - 1),
)
sae_ids = st.text(max_size=20)
naming_keys = st.binary(min_size=32, max_size=32).map(derive_naming_key)


def recognised(text: str, master: str, slave: str, naming_key: bytes) -> bool:
    try:
        return find_slaves(parse_key_id(text), master, [slave], naming_key, 1) == {slave}
    except ProtocolError:
        return False


@given(locations, sae_ids, sae_ids, naming_keys)
def test_round_trip(location: KeyLocation, master: str, slave: str, naming_key: bytes) -> None:
    text = format_key_id(location, master, slave, naming_key)
    uuid = UUID(text)
    assert (str(uuid), uuid.version, uuid.variant) == (text, 8, "specified in RFC 4122")
    assert parse_key_id(text).location == location
    assert parse_key_id(text.upper()) == parse_key_id(text)
    assert recognised(text, master, slave, naming_key)


@given(locations, sae_ids, sae_ids, naming_keys)
def test_any_flipped_bit_is_found_out(
    location: KeyLocation, master: str, slave: str, naming_key: bytes
) -> None:
    value = UUID(format_key_id(location, master, slave, naming_key)).int
    for bit in range(128):
        assert not recognised(str(UUID(int=value ^ 1 << bit)), master, slave, naming_key)


@given(locations, st.tuples(sae_ids, sae_ids), st.tuples(sae_ids, sae_ids), naming_keys)
def test_bound_to_its_pair(
    location: KeyLocation, pair: tuple[str, str], other: tuple[str, str], naming_key: bytes
) -> None:
    text = format_key_id(location, *pair, naming_key)
    assert recognised(text, *other, naming_key) == (other == pair)


@given(st.one_of(st.text(), st.uuids(version=4).map(str), st.uuids(version=1).map(str)))
def test_other_texts_are_refused_cleanly(text: str) -> None:
    with pytest.raises(ProtocolError):
        parse_key_id(text)


@given(
    locations,
    sae_ids,
    st.sets(sae_ids, min_size=1, max_size=8),
    st.sets(sae_ids, max_size=3),
    naming_keys,
)
def test_several_slaves_are_found_among_others(
    location: KeyLocation, master: str, slaves: set[str], others: set[str], naming_key: bytes
) -> None:
    name = parse_key_id(format_key_id(location, master, slaves, naming_key))
    assert find_slaves(name, master, slaves | others, naming_key, 8) == slaves
    assert find_slaves(name, master, others - slaves, naming_key, 8) == frozenset()
    assert find_slaves(name, master + "x", slaves | others, naming_key, 8) == frozenset()
    if len(slaves) > 1:
        assert find_slaves(name, master, slaves, naming_key, len(slaves) - 1) == frozenset()
        assert find_slaves(name, master, sorted(slaves)[1:], naming_key, 8) == frozenset()


@given(locations, sae_ids, naming_keys)
def test_a_slave_counts_once(location: KeyLocation, master: str, naming_key: bytes) -> None:
    """Two halves that overlap are no group, though their tags add up."""
    tags = {
        slave: parse_key_id(format_key_id(location, master, slave, naming_key)).tag
        for slave in "xyz"
    }
    twice = KeyName(location, (2 * tags["x"] + tags["y"]) % 2**62)
    assert find_slaves(twice, master, tags, naming_key, 3) == frozenset()


def test_work_for_a_name_of_nobody() -> None:
    """Pairs of halves instead of all groups: 36 456 of them for 31 candidates, 4 at most."""
    assert [half_groups(31, most) for most in (1, 2, 3, 4)] == [0, 31, 496, 496]
    assert [half_groups(8, most) for most in (4, 8, 9)] == [36, 162, 162]
