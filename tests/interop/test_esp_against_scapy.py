"""ESP against scapy's: it decrypts what we seal, we decrypt what it seals, raw and in UDP."""

from __future__ import annotations

import random
import struct
from ipaddress import IPv4Network
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.packet import Raw

from gateways.esp import EspRefused, InboundSa, OutboundSa
from gateways.keys import SaKeys
from gateways.selectors import TrafficSelectors

pytestmark = pytest.mark.interop

SPI = 0xC0FFEE01
KEYS = SaKeys(bytes(range(16)), b"salt")
ANY = TrafficSelectors([IPv4Network("0.0.0.0/0")], [IPv4Network("0.0.0.0/0")])
OUTER = {"src": "192.0.2.1", "dst": "192.0.2.2"}
PACKETS = 500


def scapy_sa(in_udp: bool) -> Any:
    return SecurityAssociation(
        ESP,
        spi=SPI,
        crypt_algo="AES-GCM",
        crypt_key=KEYS.key + KEYS.salt,
        tunnel_header=IP(**OUTER),
        nat_t_header=UDP(sport=4500, dport=4500) if in_udp else None,
    )


def inner_packets(count: int) -> list[bytes]:
    """Every length modulo 4, from the shortest to the longest, contents at random."""
    rng = random.Random(7)
    lengths = [20, 21, 22, 23, 1435, 1436, 1437, 1438]
    lengths += [rng.randint(28, 1438) for _ in range(count - len(lengths))]
    return [
        bytes(IP(src="10.1.0.5", dst="10.2.0.7", id=n, proto=253) / Raw(rng.randbytes(octets - 20)))
        for n, octets in enumerate(lengths)
    ]


@pytest.mark.parametrize("in_udp", [False, True], ids=["raw", "udp"])
def test_scapy_opens_ours(in_udp: bool) -> None:
    outbound, sa = OutboundSa(SPI, KEYS), scapy_sa(in_udp)
    for number, inner in enumerate(inner_packets(PACKETS), 1):
        esp = outbound.seal(inner)
        if in_udp:
            outer = IP(bytes(IP(**OUTER) / UDP(sport=4500, dport=4500) / Raw(esp)))
        else:
            outer = IP(bytes(IP(**OUTER, proto=50) / Raw(esp)))
        assert outer[ESP].seq == number
        assert bytes(sa.decrypt(outer)) == inner


@pytest.mark.parametrize("in_udp", [False, True], ids=["raw", "udp"])
def test_we_open_scapys(in_udp: bool) -> None:
    inbound, sa = InboundSa(SPI, KEYS, ANY), scapy_sa(in_udp)
    for inner in inner_packets(PACKETS):
        outer = IP(bytes(sa.encrypt(IP(inner))))
        esp = bytes(outer[ESP])
        assert inbound.open(esp) == inner
    assert inbound.counters.packets == PACKETS
    assert inbound.window.highest == PACKETS


def test_scapys_replay_and_forgery_are_refused() -> None:
    inbound, sa = InboundSa(SPI, KEYS, ANY), scapy_sa(True)
    esp = bytes(IP(bytes(sa.encrypt(IP(inner_packets(9)[0]))))[ESP])
    inbound.open(esp)
    for bad in (esp, struct.pack("!II", SPI, 9) + esp[8:]):
        with pytest.raises(EspRefused):
            inbound.open(bad)
    assert (inbound.counters.replays, inbound.counters.icv_failures) == (1, 1)
