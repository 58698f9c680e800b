"""AES-128-GCM in ESP against draft-mcgrew-gcm-test-01 (the test cases for RFC 4106) and McGrew and Viega's GCM cases.

Of the draft: all of its cases with a 128-bit key, no extended sequence number and a 12-octet nonce. Their next header
is 1 (transport mode), so a tunnel must refuse them, but only after the ICV.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network

import pytest
from cryptography.exceptions import InvalidTag

from gateways.esp import EspRefused, InboundSa, Refusal
from gateways.keys import SaKeys
from gateways.selectors import TrafficSelectors
from gateways.suites import AesGcm16

ANYWHERE = TrafficSelectors([IPv4Network("0.0.0.0/0")], [IPv4Network("0.0.0.0/0")])


@dataclass(frozen=True)
class Case:
    key: str
    nonce: str
    plaintext: str
    packet: str


CASES = {
    "case 2": Case(
        "feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d00100"
        "0001000000000000037369700963796265726369747902646b00000100010001",
        "0000a5f80000000afacedbaddecaf888"
        "deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c"
        "3de81827c10e9a4f51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd1"
        "83b70d3aa8bc6ee4c309e9d85a41ad4a",
    ),
    "case 4": Case(
        "00000000000000000000000000000000",
        "000000000000000000000000",
        "4500003c99c500008001cb7a40679318010101010800075c0200440061626364"
        "65666768696a6b6c6d6e6f707172737475767761626364656667686901020201",
        "00000000000000010000000000000000"
        "4688daf2f973a392732909c331d56d60f694abaa414b5e7ff5fdcdfff5e9a284"
        "456476492719ffb64de7d9dca1e1d894bc3bd57873ed4d181d19d4d5c8c18af3"
        "f821d496eeb096e98ad2b69e4799c71d",
    ),
    "case 12, last sequence number": Case(
        "7d773d00c144c525ac619d18c84a3f47",
        "d966426743457e9182443bc6",
        "01020201",
        "335467aeffffffff43457e9182443bc6437f866bcb3f699fe9b0822bac961c4504bef270",
    ),
}

GCM_KEY = "feffe9928665731c6d6a8f9467308308"
GCM_NONCE = "cafebabefacedbaddecaf888"
GCM_PLAINTEXT = (
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255"
)
GCM_CIPHERTEXT = (
    "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e"
    "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091473f5985"
)
GCM_CASES = {
    "case 3": ("", GCM_PLAINTEXT, GCM_CIPHERTEXT, "4d5c2af327cd64a62cf35abd2ba6fab4"),
    "case 4": (
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        GCM_PLAINTEXT[:120],
        GCM_CIPHERTEXT[:120],
        "5bc94fbc3221a5db94fae95ae7121a47",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_vector(name: str) -> None:
    case = CASES[name]
    nonce, packet = bytes.fromhex(case.nonce), bytes.fromhex(case.packet)
    cipher = AesGcm16(bytes.fromhex(case.key), nonce[:4])
    plaintext = bytes.fromhex(case.plaintext)
    assert cipher.protect(packet[:8], int.from_bytes(nonce[4:]), plaintext) == packet
    assert cipher.unprotect(packet) == plaintext
    with pytest.raises(InvalidTag):
        cipher.unprotect(packet[:-1] + bytes((packet[-1] ^ 1,)))


@pytest.mark.parametrize("name", GCM_CASES)
def test_gcm_specification(name: str) -> None:
    """McGrew and Viega, The Galois/Counter Mode of Operation, appendix B; also in NIST's CAVS set."""
    header, plaintext, ciphertext, tag = map(bytes.fromhex, GCM_CASES[name])
    nonce = bytes.fromhex(GCM_NONCE)
    cipher = AesGcm16(bytes.fromhex(GCM_KEY), nonce[:4])
    made = cipher.protect(header, int.from_bytes(nonce[4:]), plaintext)
    assert made == header + nonce[4:] + ciphertext + tag


def test_transport_mode_packet_is_refused_after_its_icv() -> None:
    case = CASES["case 2"]
    keys = SaKeys(bytes.fromhex(case.key), bytes.fromhex(case.nonce)[:4])
    sa = InboundSa(0xA5F8, keys, ANYWHERE)
    with pytest.raises(EspRefused) as refused:
        sa.open(bytes.fromhex(case.packet))
    assert refused.value.reason is Refusal.NEXT_HEADER
    assert sa.window.highest == 0xA
    assert (sa.counters.bad_next_header, sa.counters.packets) == (1, 0)
