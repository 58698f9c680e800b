"""AES-128-CBC + HMAC-SHA-256-128 against RFC 3602's ESP packets, with an ICV made by Python's own `hmac`.

RFC 3602's cases 7 and 8 are whole tunnel-mode ESP packets without an ICV. RFC 4868 §2.7.2 gives the MAC.
"""

from __future__ import annotations

import hashlib
import hmac
from ipaddress import IPv4Network

import pytest

from gateways.esp import InboundSa
from gateways.keys import SaKeys
from gateways.selectors import TrafficSelectors
from gateways.suites import AES_128_CBC_SHA256

LAN = TrafficSelectors([IPv4Network("192.168.123.200/32")], [IPv4Network("192.168.123.3/32")])
KEY = "0123456789abcdef0123456789abcdef"
INTEGRITY_KEY = bytes(range(32))
CASES = {
    "case 7": (
        "0000876500000002f4e765244f6407adf13dc1380f673f37773b5241a4c449225e4f3ce5ed611b0c237ca96cf74a9301"
        "3c1b0ea1a0cf70f8e4ecaec78ac53aad7a0f022b859243c647752e94a859352b8a4d4d2decd136e5c177f132ad3fbfb2"
        "201ac9904c74ee0a109e0ca1e4dfe9d5a100b842f1c22f0d",
        "45000054090400004001f988c0a87b03c0a87bc808009f76a90a0100b49c083d02a2040008090a0b0c0d0e0f10111213"
        "1415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637",
    ),
    "case 8": (
        "000087650000000585d47224b5f3dd5d2101d4ea8dffab2215b92683819596a8047232cc00f7048fe45318e11f8a0f62"
        "ede3c3fc61203bb50f980a08c9843fd3a1b06d5c07ff9639b7eb7dfb3512e5de435e7207ed971ef3d2726d9b5ef6affc"
        "6d17a0decbb13892",
        "45000044090c00004001f990c0a87b03c0a87bc80800d63caa0a0200c69c083da3de0300ffffffffffffffffffffffff"
        "ffffffffffffffffffffffffffffffffffffffff",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_vector(name: str) -> None:
    packet, inner = map(bytes.fromhex, CASES[name])
    keys = SaKeys(bytes.fromhex(KEY), integrity_key=INTEGRITY_KEY, suite=AES_128_CBC_SHA256)
    icv = hmac.digest(INTEGRITY_KEY, packet, "sha256")[:16]
    assert InboundSa(0x8765, keys, LAN).open(packet + icv) == inner


@pytest.mark.parametrize(
    ("key", "data", "mac"),
    [
        (b"\x0b" * 32, b"Hi There", "198a607eb44bfbc69903a0f1cf2bbdc5"),
        (
            b"JefeJefeJefeJefeJefeJefeJefeJefe",
            b"what do ya want for nothing?",
            "167f928588c5cc2eef8e3093caa0e87c",
        ),
        (b"\xaa" * 32, b"\xdd" * 50, "cdcb1220d1ecccea91e53aba3092f962"),
    ],
)
def test_icv_of_rfc_4868(key: bytes, data: bytes, mac: str) -> None:
    """The ICV of a packet is the vector's MAC of header, IV and ciphertext: here the vector's data."""
    assert hmac.digest(key, data, hashlib.sha256)[:16].hex() == mac
    cipher = AES_128_CBC_SHA256.cipher(bytes(16) + key)
    packet = cipher.protect(data[:8], 1, bytes(16))
    assert packet[-16:] == hmac.digest(key, packet[:-16], hashlib.sha256)[:16]
