"""ESP against scapy's: it decrypts what we seal, we decrypt what it seals, raw and in UDP, every suite.

scapy knows AES only: SM4 and SM3 are registered with it here, out of `cryptography`, so that for the two SM4 suites
scapy vouches for the packet's layout and `test_esp_sm4_against_libgcrypt.py` for the cipher.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.algorithms import SM4
from cryptography.hazmat.primitives.ciphers.modes import CBC, GCM
from cryptography.hazmat.primitives.hashes import SM3
from cryptography.hazmat.primitives.hmac import HMAC
from scapy.layers import ipsec
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.packet import Raw

from gateways.encapsulation import Encapsulation, inner_mtu
from gateways.esp import EspRefused, InboundSa, OutboundSa
from gateways.suites import AES_128_GCM, SUITES, Suite
from tests.esp_packets import ALL_SUITES, inbound_selectors, keys_of, sealed, trailed

pytestmark = pytest.mark.interop

SPI = 0xC0FFEE01
OUTER = {"src": "192.0.2.1", "dst": "192.0.2.2"}
SCAPYS = {
    "AES-128-GCM": ("AES-GCM", "NULL"),
    "SM4-128-GCM": ("SM4-GCM", "NULL"),
    "AES-128-CBC+HMAC-SHA-256-128": ("AES-CBC", "SHA2-256-128"),
    "SM4-128-CBC+HMAC-SM3-128": ("SM4-CBC", "SM3-128"),
}

every_suite = pytest.mark.parametrize("suite", ALL_SUITES, ids=list(SUITES))
raw_and_udp = pytest.mark.parametrize("encapsulation", Encapsulation)
counts = pytest.mark.parametrize("packets", [300, pytest.param(10_000, marks=pytest.mark.long)])


@pytest.fixture(autouse=True)
def sm4_in_scapy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SM4-CBC, SM4-GCM (salt before the IV, as for AES-GCM) and HMAC-SM3-128 in scapy's tables."""
    cbc = ipsec.CryptAlgo("SM4-CBC", cipher=SM4, mode=CBC, key_size=16)
    gcm = ipsec.CryptAlgo(
        "SM4-GCM",
        cipher=SM4,
        mode=GCM,
        key_size=20,
        salt_size=4,
        iv_size=8,
        icv_size=16,
        block_size=1,
        format_mode_iv=lambda sa, iv, **_: sa.crypt_salt + iv,
    )
    sm3 = ipsec.AuthAlgo("SM3-128", mac=HMAC, digestmod=SM3, icv_size=16, key_size=32)
    for name, algorithm in (("SM4-CBC", cbc), ("SM4-GCM", gcm)):
        monkeypatch.setitem(ipsec.CRYPT_ALGOS, name, algorithm)
    monkeypatch.setitem(ipsec.AUTH_ALGOS, "SM3-128", sm3)
    yield


def scapy_sa(suite: Suite, encapsulation: Encapsulation) -> Any:
    keys = keys_of(suite)
    crypt_algo, auth_algo = SCAPYS[suite.name]
    return SecurityAssociation(
        ESP,
        spi=SPI,
        crypt_algo=crypt_algo,
        crypt_key=keys.key + keys.salt,
        auth_algo=auth_algo,
        auth_key=keys.integrity_key or None,
        tunnel_header=IP(**OUTER),
        nat_t_header=UDP(sport=4500, dport=4500) if encapsulation is Encapsulation.UDP else None,
    )


def inner_packets(suite: Suite, count: int) -> Iterator[bytes]:
    """IPv4 of every pad length, shortest and longest, then lengths and contents at random, IPv6 among them."""
    rng = random.Random(7)
    longest = inner_mtu(1500, suite)
    lengths = [*range(20, 20 + suite.alignment), *range(longest - 3, longest + 1)]
    lengths += [rng.randint(20, longest) for _ in range(count - len(lengths))]
    for n, octets in enumerate(lengths):
        if n % 5 or octets < 40:
            head = IP(src="10.1.0.5", dst="10.2.0.7", id=n, proto=253)
        else:
            head = IPv6(src="2001:db8:1::5", dst="2001:db8:2::7", nh=253)
        yield bytes(head / Raw(rng.randbytes(octets - len(head))))


@every_suite
@raw_and_udp
@counts
def test_scapy_opens_ours(suite: Suite, encapsulation: Encapsulation, packets: int) -> None:
    outbound, sa = OutboundSa(SPI, keys_of(suite)), scapy_sa(suite, encapsulation)
    for number, inner in enumerate(inner_packets(suite, packets), 1):
        esp = outbound.seal(inner)
        if encapsulation is Encapsulation.UDP:
            outer = IP(bytes(IP(**OUTER) / UDP(sport=4500, dport=4500) / Raw(esp)))
        else:
            outer = IP(bytes(IP(**OUTER, proto=50) / Raw(esp)))
        assert len(outer) <= 1500
        assert outer[ESP].seq == number
        assert bytes(sa.decrypt(outer)) == inner


@every_suite
@raw_and_udp
@counts
def test_we_open_scapys(suite: Suite, encapsulation: Encapsulation, packets: int) -> None:
    inbound = InboundSa(SPI, keys_of(suite), inbound_selectors())
    sa = scapy_sa(suite, encapsulation)
    for inner in inner_packets(suite, packets):
        outer = IP(bytes(sa.encrypt(IP(inner) if inner[0] >> 4 == 4 else IPv6(inner))))
        assert inbound.open(bytes(outer[ESP])) == inner
    assert inbound.counters.packets == packets
    assert inbound.window.highest == packets


@every_suite
def test_scapys_replay_and_forgery_are_refused(suite: Suite) -> None:
    inbound = InboundSa(SPI, keys_of(suite), inbound_selectors())
    inner = next(inner_packets(suite, 40))
    esp = bytes(IP(bytes(scapy_sa(suite, Encapsulation.UDP).encrypt(IP(inner))))[ESP])
    inbound.open(esp)
    for bad in (esp, struct.pack("!II", SPI, 9) + esp[8:]):
        with pytest.raises(EspRefused):
            inbound.open(bad)
    assert (inbound.counters.replays, inbound.counters.icv_failures) == (1, 1)


def test_scapy_would_notice_a_changed_packet() -> None:
    """The oracle is one: scapy refuses ours with a bit flipped."""
    keys = keys_of(AES_128_GCM)
    inner = next(inner_packets(AES_128_GCM, 40))
    esp = bytearray(sealed(keys, trailed(AES_128_GCM, inner)))
    esp[0:4] = SPI.to_bytes(4)  # another SPI than the one authenticated
    outer = IP(bytes(IP(**OUTER, proto=50) / Raw(bytes(esp))))
    with pytest.raises(ipsec.IPSecIntegrityError):
        scapy_sa(AES_128_GCM, Encapsulation.RAW).decrypt(outer)
