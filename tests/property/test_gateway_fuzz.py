"""Anything at all on either side of a tunnel: no exception, no answer, nothing let through."""

from __future__ import annotations

import hashlib
import struct
from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from gateways.encapsulation import NON_ESP_MARKER
from gateways.events import FetchKey, FetchKeyById, SendControl
from gateways.ike.auth import Psk
from gateways.ike.config import IkeConfig
from gateways.ike.endpoint import IkeEndpoint
from gateways.ike.numbers import Exchange
from gateways.selectors import TrafficSelectors
from gateways.tunnel import Tunnel

S = 10**9
NETS = IPv4Network("10.1.0.0/24"), IPv4Network("10.2.0.0/24")
ADDRESSES = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
NAMES = "EG-U", "EG-N"
PACKET = (
    struct.pack("!BBHHHBBH", 0x45, 0, 24, 0, 0, 64, 17, 0)
    + NETS[0][1].packed
    + NETS[1][1].packed
    + b"data"
)


def connected() -> tuple[Tunnel, Tunnel, list[bytes]]:
    """Two tunnels with a pair of SAs, and every datagram it took."""
    ends, wire, tokens = [], list[bytes](), iter(range(1000, 10**6))
    for end in (0, 1):
        config = IkeConfig(
            own_id=NAMES[end],
            peer_id=NAMES[1 - end],
            credentials=Psk(bytes(32)),
            begins=end == 0,
            local=(NETS[end],),
            remote=(NETS[1 - end],),
            own_address=ADDRESSES[end],
            peer_address=ADDRESSES[1 - end],
        )
        endpoint = IkeEndpoint(config, lambda octets: next(tokens).to_bytes(octets))
        ends.append(Tunnel(endpoint, TrafficSelectors([NETS[end]], [NETS[1 - end]])))
    ends[0].start(0)
    while todo := [(end, event) for end in (0, 1) for event in ends[end].events()]:
        for end, event in todo:
            match event:
                case SendControl(message):
                    wire.append(NON_ESP_MARKER + message)
                    ends[1 - end].from_outside(wire[-1], 0)
                case FetchKey(exchange):
                    ends[end].key_fetched(exchange, "key", hashlib.sha256(b"key").digest(), 0)
                case FetchKeyById(exchange, key_id):
                    key = hashlib.sha256(key_id.encode()).digest()
                    ends[end].key_fetched(exchange, key_id, key, 0)
    assert ends[0].usable
    assert ends[1].usable
    return ends[0], ends[1], wire


@st.composite
def mangled(draw: st.DrawFn, sources: list[bytes]) -> bytes:
    """A datagram that was once right: bits flipped, cut, lengthened, or two of them mixed."""
    datagram = bytearray(draw(st.sampled_from(sources)))
    for _ in range(draw(st.integers(1, 4))):
        index = draw(st.integers(0, len(datagram) - 1))
        datagram[index] ^= draw(st.integers(1, 255))
    cut = draw(st.integers(0, len(datagram)))
    return bytes(datagram[:cut]) + draw(st.just(bytes(datagram[cut:])) | st.binary(max_size=80))


def opens(datagram: bytes) -> bool:
    """Whether it may be a well-formed IKE_SA_INIT request: the one thing that a stranger gets an answer to."""
    return datagram[:4] == NON_ESP_MARKER and datagram[22:23] == bytes((Exchange.IKE_SA_INIT,))


@given(st.data())
def test_from_outside(data: st.DataObject) -> None:
    initiator, responder, wire = connected()
    good = initiator.from_inside(PACKET, 0)
    assert good is not None
    real = {*wire, good}
    for _ in range(10):
        datagram = data.draw(
            mangled([*wire, good])
            | st.binary(max_size=120)
            | st.binary(max_size=120).map(NON_ESP_MARKER.__add__)
            | st.binary(max_size=120).map(good[:8].__add__)
        )
        if datagram in real or opens(datagram):
            continue
        for tunnel in (initiator, responder):
            assert tunnel.from_outside(datagram, 0) is None
            assert tunnel.events() == []
    assert responder.from_outside(good, 0) == PACKET


@given(st.binary(max_size=200) | st.binary(max_size=60).map(PACKET[:20].__add__))
def test_from_inside(packet: bytes) -> None:
    initiator, responder, _ = connected()
    datagram = initiator.from_inside(packet, 0)
    if datagram is not None:
        inner = responder.from_outside(datagram, 0)
        assert inner is not None
        assert packet.startswith(inner)
