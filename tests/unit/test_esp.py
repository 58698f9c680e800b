"""ESP with every suite: the order of checks, padding, selectors, the sequence limit, batches, hidden keys."""

from __future__ import annotations

import ast
import gc
import inspect
import struct
from types import FunctionType, ModuleType

import pytest

import gateways.suites
from gateways.esp import (
    MAX_SEQUENCE,
    NEXT_DUMMY,
    NEXT_IPV4,
    EspRefused,
    InboundSa,
    OutboundSa,
    Refusal,
)
from gateways.keys import Direction, SaKeys, derive_sa_keys
from gateways.selectors import TrafficSelectors
from gateways.suites import AES_128_CBC_SHA256, AES_128_GCM, SUITES, Suite, suite_of
from tests.esp_packets import (
    ALL_SUITES,
    NETWORK,
    SPI,
    USERS,
    inbound_selectors,
    ipv4,
    ipv6,
    keys_of,
    sealed,
    trailed,
)

KEYS = keys_of(AES_128_GCM)

every_suite = pytest.mark.parametrize("suite", ALL_SUITES, ids=list(SUITES))


def pair(suite: Suite = AES_128_GCM, window: int = 1024) -> tuple[OutboundSa, InboundSa]:
    keys = keys_of(suite)
    return OutboundSa(SPI, keys), InboundSa(SPI, keys, inbound_selectors(), window)


def refusal(sa: InboundSa, packet: bytes) -> Refusal:
    with pytest.raises(EspRefused) as refused:
        sa.open(packet)
    assert getattr(sa.counters, refused.value.reason) >= 1
    return refused.value.reason


def test_identifiers_of_the_suites() -> None:
    """IANA's where there are any, private use (RFC 7296 §3.3.2) for SM4 and SM3."""
    assert (AES_128_GCM.encryption, AES_128_GCM.integrity) == (20, 0)
    assert (AES_128_CBC_SHA256.encryption, AES_128_CBC_SHA256.integrity) == (12, 12)
    for suite in ALL_SUITES:
        assert suite_of(suite.encryption, suite.integrity) is suite
        if suite.name.startswith("SM4"):
            assert 1024 <= suite.encryption <= 65535
            assert suite.integrity == 0 or 1024 <= suite.integrity <= 65535
    assert suite_of(20, 12) is None
    assert [suite.keymat_octets for suite in ALL_SUITES] == [20, 20, 48, 48]


@every_suite
@pytest.mark.parametrize("octets", [20, 21, 22, 23, 84, 1394, 1438])
def test_what_is_sealed_is_opened(suite: Suite, octets: int) -> None:
    outbound, inbound = pair(suite)
    inner = ipv4(octets)
    packet = outbound.seal(inner)
    assert len(packet) == suite.esp_octets(octets)
    assert packet[:8] == struct.pack("!II", SPI, 1)
    if suite.iv_octets == 8:
        assert packet[8:16] == struct.pack("!Q", 1)
    assert inbound.open(packet) == inner
    assert (inbound.counters.packets, inbound.counters.bytes) == (1, octets)
    assert (outbound.counters.packets, outbound.counters.bytes) == (1, octets)


@every_suite
def test_ipv6_is_sealed_and_opened(suite: Suite) -> None:
    outbound, inbound = pair(suite)
    for octets in (40, 41, 1280, 1400):
        assert inbound.open(outbound.seal(ipv6(octets))) == ipv6(octets)


@every_suite
def test_every_flipped_bit_is_refused_and_moves_nothing(suite: Suite) -> None:
    outbound, inbound = pair(suite)
    packet = outbound.seal(ipv4(1400))
    for bit in range(len(packet) * 8):
        flipped = bytearray(packet)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(EspRefused):
            inbound.open(bytes(flipped))
    assert inbound.window.highest == 0
    assert inbound.counters.packets == 0
    assert inbound.counters.unknown_spi == 32
    assert inbound.counters.replays == 1  # sequence number 1 turned into 0
    assert inbound.counters.icv_failures == len(packet) * 8 - 33
    assert inbound.open(packet) == ipv4(1400)


@every_suite
def test_replay_is_refused_before_the_icv(suite: Suite) -> None:
    outbound, inbound = pair(suite)
    packet = outbound.seal(ipv4(100))
    inbound.open(packet)
    assert refusal(inbound, packet) is Refusal.REPLAY
    assert refusal(inbound, packet[:-1] + b"\0") is Refusal.REPLAY


@every_suite
def test_forged_last_sequence_number_does_not_move_the_window(suite: Suite) -> None:
    outbound, inbound = pair(suite)
    forged = bytearray(outbound.seal(ipv4(100)))
    forged[4:8] = MAX_SEQUENCE.to_bytes(4)
    assert refusal(inbound, bytes(forged)) is Refusal.ICV
    assert inbound.open_batch([bytes(forged)]) == []
    assert inbound.window.highest == 0
    assert inbound.counters.icv_failures == 2
    assert inbound.open(outbound.seal(ipv4(60))) == ipv4(60)


@every_suite
def test_own_packet_reflected_is_refused(suite: Suite) -> None:
    """Each direction has its own key, so even an equal SPI does not make a reflection pass."""
    keys = {
        direction: derive_sa_keys(
            bytes(32), key_id="k", direction=direction, spi=SPI, freshness=bytes(32), suite=suite
        )
        for direction in Direction
    }
    assert len({k.keymat for k in keys.values()}) == 2
    outbound = OutboundSa(SPI, keys[Direction.TO_RESPONDER])
    everything = TrafficSelectors([USERS, NETWORK], [USERS, NETWORK])
    own_inbound = InboundSa(SPI, keys[Direction.TO_INITIATOR], everything)
    peers_inbound = InboundSa(SPI, keys[Direction.TO_RESPONDER], everything)
    packet = outbound.seal(ipv4(100))
    assert refusal(own_inbound, packet) is Refusal.ICV
    assert peers_inbound.open(packet) == ipv4(100)


@every_suite
def test_runts_and_odd_lengths(suite: Suite) -> None:
    _, inbound = pair(suite)
    whole = sealed(keys_of(suite), bytes(2000 // suite.alignment * suite.alignment))
    lengths = [0, 1, 7, 8, *range(suite.overhead - 1, suite.overhead + suite.alignment)]
    for octets in lengths:
        assert refusal(inbound, whole[:octets]) is Refusal.MALFORMED
    assert inbound.open_batch([whole[:octets] for octets in lengths]) == []
    assert inbound.counters.malformed == 2 * len(lengths)


@pytest.mark.parametrize(
    ("trailer", "expected"),
    [
        (b"\x01\x02\x02\x04", None),
        (b"\x01\x02\x03\x04\x05\x06\x06\x04", None),  # more padding than alignment needs
        (b"\x01\x03\x02\x04", Refusal.PADDING),
        (b"\x00\x00\x02\x04", Refusal.PADDING),
        (b"\x01\x02\xff\x04", Refusal.PADDING),  # longer than the payload
        (b"\x01\x02\x02\x3b", Refusal.DUMMY),
        (b"\x01\x02\x02\x29", Refusal.SELECTOR),  # IPv4 said to be IPv6
        (b"\x01\x02\x02\x11", Refusal.NEXT_HEADER),
    ],
)
def test_trailer(trailer: bytes, expected: Refusal | None) -> None:
    packet = sealed(KEYS, ipv4(40) + trailer)
    _, one = pair()
    _, batch = pair()
    if expected is None:
        assert one.open(packet) == ipv4(40)
        assert batch.open_batch([packet]) == [ipv4(40)]
    else:
        assert refusal(one, packet) is expected
        assert batch.open_batch([packet]) == []
    assert one.counters == batch.counters
    assert one.window.highest == batch.window.highest == 1


@every_suite
def test_every_pad_length(suite: Suite) -> None:
    """RFC 4303 §2.4: 0 to 255 octets of padding, more than alignment asks for as well."""
    inbound = InboundSa(SPI, keys_of(suite), inbound_selectors())
    sequence = 0
    for pad in range(256):
        octets = 20 + -(20 + pad + 2) % suite.alignment
        plaintext = ipv4(octets) + bytes(range(1, pad + 1)) + bytes((pad, NEXT_IPV4))
        sequence += 1
        packet = sealed(keys_of(suite), plaintext, sequence)
        assert inbound.open_batch([packet]) == [ipv4(octets)]
        sequence += 1
        assert inbound.open(sealed(keys_of(suite), plaintext, sequence)) == ipv4(octets)


@every_suite
def test_traffic_flow_padding_is_cut_off(suite: Suite) -> None:
    outbound, inbound = pair(suite)
    assert inbound.open(outbound.seal_payload(4, ipv4(40), padding=200)) == ipv4(40)
    assert inbound.open(outbound.seal_payload(41, ipv6(60), padding=201)) == ipv6(60)


@every_suite
def test_a_dummy_is_dropped_and_counted(suite: Suite) -> None:
    outbound, inbound = pair(suite)
    dummies = [outbound.seal_payload(NEXT_DUMMY, bytes(octets)) for octets in range(3)]
    assert refusal(inbound, dummies[0]) is Refusal.DUMMY
    assert inbound.open_batch(dummies[1:]) == []
    assert (inbound.counters.dummies, inbound.counters.packets) == (3, 0)
    assert inbound.window.highest == 3


def test_a_next_header_of_ones_own() -> None:
    outbound, inbound = pair()
    assert inbound.open_payload(outbound.seal_payload(144, b"AGGFRAG")) == (144, b"AGGFRAG")
    with pytest.raises(EspRefused):
        inbound.open_payload(outbound.seal_payload(NEXT_DUMMY, b""))
    assert refusal(inbound, outbound.seal_payload(144, b"AGGFRAG")) is Refusal.NEXT_HEADER


@pytest.mark.parametrize(
    ("inner", "next_header"),
    [
        (ipv4(40, source="10.3.0.5"), 4),
        (ipv4(40, destination="10.2.1.7"), 4),
        (ipv4(40, source="10.2.0.7", destination="10.1.0.5"), 4),
        (ipv6(60, source="2001:db8:3::5"), 41),
        (ipv6(60, destination="2001:db8:1::7"), 41),
        (ipv6(60), 4),  # IPv6 said to be IPv4
        (ipv4(40), 41),
        (b"", 4),
        (b"\x45" * 16, 4),
        (b"\x60" + bytes(39), 4),
        (ipv6(60)[:39], 41),
        (ipv6(60)[:50], 41),  # shorter than it states
        (ipv4(40)[:2] + (41).to_bytes(2) + ipv4(40)[4:], 4),  # longer than what is there
        (ipv4(40)[:2] + (19).to_bytes(2) + ipv4(40)[4:], 4),  # shorter than its header
        (b"\x44" + ipv4(40)[1:], 4),  # header of 16 octets
        (b"\x4f" + ipv4(40)[1:], 4),  # header of 60 octets in a packet of 40
    ],
)
def test_inner_packet_outside_the_selectors(inner: bytes, next_header: int) -> None:
    packet = sealed(KEYS, trailed(AES_128_GCM, inner, next_header))
    _, one = pair()
    assert refusal(one, packet) is Refusal.SELECTOR
    _, batch = pair()
    assert batch.open_batch([packet]) == []
    assert one.counters == batch.counters


def test_inner_fragments_pass_where_their_addresses_may() -> None:
    """RFC 4301 §7.1: an SA for any port carries fragments; they are packets like any other."""
    _, inbound = pair()
    first = ipv4(60)[:6] + struct.pack("!H", 0x2000) + ipv4(60)[8:]
    later = ipv4(60)[:6] + struct.pack("!H", 5) + ipv4(60)[8:]
    outside = ipv4(60, source="10.9.0.1")[:6] + struct.pack("!H", 5) + ipv4(60, "10.9.0.1")[8:]
    for number, inner in enumerate((first, later), 1):
        assert inbound.open(sealed(KEYS, trailed(AES_128_GCM, inner), number)) == inner
    assert refusal(inbound, sealed(KEYS, trailed(AES_128_GCM, outside), 3)) is Refusal.SELECTOR


@pytest.mark.parametrize("inner", [b"", b"\x00" * 40, b"\x50" * 40, b"\xff" * 1400])
def test_what_is_no_ip_packet_is_not_sealed(inner: bytes) -> None:
    outbound, _ = pair()
    with pytest.raises(EspRefused) as refused:
        outbound.seal(inner)
    assert refused.value.reason is Refusal.MALFORMED
    assert outbound.sequence == 0
    assert outbound.seal_batch([inner]) == []
    assert (outbound.counters.malformed, outbound.counters.packets) == (2, 0)


def test_sequence_numbers_end_and_never_wrap() -> None:
    outbound, inbound = pair()
    outbound.sequence = MAX_SEQUENCE - 2
    for last in (MAX_SEQUENCE - 1, MAX_SEQUENCE):
        packet = outbound.seal(ipv4(40))
        assert int.from_bytes(packet[4:8]) == last
        assert inbound.open(packet) == ipv4(40)
    for _ in range(3):
        with pytest.raises(EspRefused) as refused:
            outbound.seal(ipv4(40))
        assert refused.value.reason is Refusal.EXHAUSTED
    assert outbound.sequence == MAX_SEQUENCE
    assert (outbound.counters.packets, outbound.counters.exhausted) == (2, 3)
    assert inbound.open_batch([packet]) == []


def test_a_batch_ends_at_the_sequence_limit() -> None:
    outbound, inbound = pair()
    outbound.sequence = MAX_SEQUENCE - 3
    packets = outbound.seal_batch([ipv4(40)] * 5)
    assert [int.from_bytes(packet[4:8]) for packet in packets] == [
        MAX_SEQUENCE - 2,
        MAX_SEQUENCE - 1,
        MAX_SEQUENCE,
    ]
    assert inbound.open_batch(packets) == [ipv4(40)] * 3
    assert outbound.seal_batch([ipv4(40)]) == []
    assert list(outbound.take(2)) == []
    assert (outbound.sequence, outbound.counters.exhausted) == (MAX_SEQUENCE, 5)


@every_suite
def test_batches_are_what_single_packets_are(suite: Suite) -> None:
    inners = [ipv4(20 + n) if n % 3 else ipv6(40 + n) for n in range(100)]
    one, one_in = pair(suite)
    many, many_in = pair(suite)
    singly, at_once = [one.seal(inner) for inner in inners], many.seal_batch(inners)
    assert one.counters == many.counters
    if suite.iv_octets == 8:
        assert singly == at_once
    assert one_in.open_batch(at_once) == inners
    assert [many_in.open(packet) for packet in singly] == inners
    assert one_in.counters == many_in.counters
    assert one_in.window.highest == many_in.window.highest == 100
    assert one_in.open_batch(at_once) == []
    assert one_in.counters.replays == 100


def test_a_batch_with_holes_late_packets_copies_and_forgeries() -> None:
    outbound, inbound = pair()
    inners = [ipv4(40 + n) for n in range(12)]
    packets = outbound.seal_batch(inners)
    forged = packets[5][:-1] + bytes((packets[5][-1] ^ 1,))
    burst = [packets[n] for n in (0, 1, 3, 2, 3, 4)] + [forged, packets[5], packets[5]]
    burst += [b"", b"\xff", packets[8], packets[7], packets[7], packets[9], packets[11]]
    opened = inbound.open_batch(burst)
    assert opened == [inners[n] for n in (0, 1, 3, 2, 4, 5, 8, 7, 9, 11)]
    counters = inbound.counters
    assert (counters.replays, counters.icv_failures, counters.malformed) == (3, 1, 2)
    assert (counters.packets, counters.bytes) == (10, sum(map(len, opened)))
    assert inbound.open_batch(packets) == [inners[6], inners[10]]


@every_suite
def test_an_erased_sa_is_of_no_use(suite: Suite) -> None:
    outbound, inbound = pair(suite)
    packets = outbound.seal_batch([ipv4(40)] * 3)
    outbound.erase()
    inbound.erase()
    with pytest.raises(EspRefused):
        outbound.seal(ipv4(40))
    with pytest.raises(EspRefused):
        _ = outbound.cipher
    with pytest.raises(EspRefused):
        _ = inbound.cipher
    assert outbound.seal_batch([ipv4(40)]) == []
    assert refusal(inbound, packets[0]) is Refusal.UNKNOWN_SPI
    assert inbound.open_batch(packets) == []
    assert inbound.window.highest == 0


def reachable(start: object) -> list[object]:
    """Everything an object holds, however deep, types and modules left out."""
    found: dict[int, object] = {id(start): start}
    todo = [start]
    while todo:
        for held in gc.get_referents(todo.pop()):
            if id(held) not in found and not isinstance(held, type | ModuleType | FunctionType):
                found[id(held)] = held
                todo.append(held)
    return list(found.values())


@every_suite
def test_an_erased_sa_holds_no_key(suite: Suite) -> None:
    keys = keys_of(suite)
    secrets = {keys.key, keys.salt, keys.integrity_key, keys.keymat} - {b""}
    for sa in pair(suite):
        kind = type(sa.cipher)
        assert any(isinstance(held, kind) for held in reachable(sa))
        sa.erase()
        left = reachable(sa)
        assert not any(isinstance(held, kind) for held in left)
        assert not any(isinstance(held, bytes) and held in secrets for held in left)


@every_suite
def test_repr_hides_keys(suite: Suite) -> None:
    keys = keys_of(suite)
    outbound, inbound = pair(suite)
    texts = (outbound, inbound, keys, keys.cipher(), outbound.cipher, outbound.counters)
    text = " ".join(f"{item!r} {item}" for item in texts)
    for secret in (keys.key, keys.salt, keys.integrity_key):
        if secret:
            assert secret.hex() not in text
            assert repr(secret)[2:-1] not in text


@every_suite
def test_no_key_in_a_refusal(suite: Suite) -> None:
    _, inbound = pair(suite)
    for packet in (b"", bytes(100), SPI.to_bytes(4) + bytes(suite.overhead + 12)):
        with pytest.raises(EspRefused) as refused:
            inbound.open(packet)
        assert keys_of(suite).key.hex() not in str(refused.value)


@pytest.mark.parametrize("spi", [0, 1, 255, 2**32])
def test_reserved_spis(spi: int) -> None:
    with pytest.raises(ValueError, match="SPI"):
        OutboundSa(spi, KEYS)
    with pytest.raises(ValueError, match="SPI"):
        InboundSa(spi, KEYS, inbound_selectors())


def test_tags_are_compared_by_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """No comparison operator in the code that takes packets apart; CBC's one comparison is `bytes_eq`."""
    tree = ast.parse(inspect.getsource(gateways.suites))
    functions = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name in ("protect", "unprotect")
    ]
    assert len(functions) == 8
    for function in functions:
        assert not any(isinstance(node, ast.Compare) for node in ast.walk(function))

    compared: list[tuple[int, int]] = []

    def record(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return True

    cipher = keys_of(AES_128_CBC_SHA256).cipher()
    packet = cipher.protect(bytes(8), 1, bytes(16))
    monkeypatch.setattr(gateways.suites, "bytes_eq", record)
    assert cipher.unprotect(packet[:-16] + bytes(16)) == bytes(16)
    assert compared == [(16, 16)]


def test_cbc_ivs_are_fresh_and_not_the_chain() -> None:
    """Equal packets look different, and no IV is a block that was on the wire before."""
    keys = keys_of(AES_128_CBC_SHA256)
    cipher = keys.cipher()
    seen: set[bytes] = set()
    for number in range(200):
        packet = cipher.protect(bytes(8), number, bytes(64))
        blocks = [packet[at : at + 16] for at in range(8, len(packet) - 16, 16)]
        assert len(blocks) == 5
        assert not seen & set(blocks)
        seen.update(blocks)


def test_sa_keys_take_the_lengths_of_their_suite() -> None:
    with pytest.raises(ValueError, match=r"16\+0\+32 octets of KEYMAT"):
        SaKeys(bytes(16), b"salt", suite=AES_128_CBC_SHA256)
