"""SM4 and SM3 in ESP against published vectors.

RFC 8998 appendix A.1 (SM4-GCM), GB/T 32907-2016 appendix A (the block), draft-ribose-cfrg-sm4 A.2.2 (CBC), GM/T
0042-2015 appendix D.3 (HMAC-SM3).
"""

from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import SM4
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.hashes import SM3
from cryptography.hazmat.primitives.hmac import HMAC

from gateways.suites import SM4_128_CBC_SM3
from tests.sm4_backends import MAKERS, Maker

KEY = bytes.fromhex("0123456789abcdeffedcba9876543210")
HEADER = bytes.fromhex("0000100100000001")

by_each_library = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@by_each_library
def test_sm4_gcm_of_rfc_8998(make: Maker) -> None:
    nonce = bytes.fromhex("00001234567800000000abcd")
    header = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    plaintext = bytes.fromhex(
        "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd"
        "eeeeeeeeeeeeeeeeffffffffffffffffeeeeeeeeeeeeeeeeaaaaaaaaaaaaaaaa"
    )
    ciphertext = bytes.fromhex(
        "17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735"
        "d82710ca5c22f0ccfa7cbf93d496ac15a56834cbcf98c397b4024a2691233b8d"
    )
    tag = bytes.fromhex("83de3541e4c2b58177e065a9bf7b62ec")
    cipher = make(KEY, nonce[:4])
    for _ in range(2):  # a context that persists must not remember
        made = cipher.protect(header, int.from_bytes(nonce[4:]), plaintext)
        assert made == header + nonce[4:] + ciphertext + tag


@by_each_library
def test_sm4_gcm_opens_what_it_sealed_and_nothing_else(make: Maker) -> None:
    cipher = make(KEY, b"salt")
    packet = cipher.protect(HEADER, 1, bytes(64))
    assert cipher.unprotect(packet) == bytes(64)
    for at in (0, 8, 16, len(packet) - 1):
        with pytest.raises(InvalidTag):
            cipher.unprotect(packet[:at] + bytes((packet[at] ^ 1,)) + packet[at + 1 :])
    assert cipher.unprotect(packet) == bytes(64)


def encrypted_times(count: int) -> str:
    encrypt = Cipher(SM4(KEY), ECB()).encryptor().update
    block = KEY
    for _ in range(count):
        block = encrypt(block)
    return block.hex()


def test_sm4_block_of_gb_t_32907() -> None:
    assert encrypted_times(1) == "681edf34d206965e86b3e94f536e4246"


@pytest.mark.long
def test_sm4_block_of_gb_t_32907_a_million_times() -> None:
    assert encrypted_times(1_000_000) == "595298c7c6fd271f0402f804c33d3f66"


@pytest.mark.parametrize(
    ("key", "ciphertext"),
    [
        (
            "0123456789abcdeffedcba9876543210",
            "78ebb11cc40b0a48312aaeb2040244cb4cb7016951909226979b0d15dc6a8f6d",
        ),
        (
            "fedcba98765432100123456789abcdef",
            "0d3a6ddc2d21c698857215587b7bb59a91f2c147911a4144665e1fa1d40bae38",
        ),
    ],
)
def test_sm4_cbc_of_the_draft(key: str, ciphertext: str) -> None:
    """IV and ciphertext of the vector in an ESP packet, twice: the persistent context must not remember."""
    integrity_key = bytes(range(32))
    cipher = SM4_128_CBC_SM3.cipher(bytes.fromhex(key) + integrity_key)
    packet = HEADER + bytes(range(16)) + bytes.fromhex(ciphertext)
    packet += hmac_sm3(integrity_key, packet)[:16]
    expected = bytes.fromhex("aaaaaaaabbbbbbbbccccccccddddddddeeeeeeeeffffffffaaaaaaaabbbbbbbb")
    assert cipher.unprotect(packet) == expected
    assert cipher.unprotect(packet) == expected


@pytest.mark.parametrize(
    ("key", "data", "mac"),
    [
        (
            bytes(range(1, 33)),
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq" * 2,
            "ca05e144ed05d1857840d1f318a4a8669e559fc8391f414485bfdf7bb408963a",
        ),
        (
            bytes(range(1, 38)),
            b"\xcd" * 50,
            "220bf579ded555393f0159f66c99877822a3ecf610d1552154b41d44b94db3ae",
        ),
    ],
)
def test_hmac_sm3_of_gm_t_0042(key: bytes, data: bytes, mac: str) -> None:
    assert hmac_sm3(key, data).hex() == mac


def test_icv_against_another_sm3() -> None:
    """Python's `hmac` over its own OpenSSL's SM3, where it has one."""
    if "sm3" not in hashlib.algorithms_available:
        pytest.skip("this Python's OpenSSL has no SM3")
    key = bytes(range(32))
    packet = SM4_128_CBC_SM3.cipher(KEY + key).protect(HEADER, 1, bytes(1408))
    assert packet[-16:] == hmac.digest(key, packet[:-16], "sm3")[:16]


def hmac_sm3(key: bytes, data: bytes) -> bytes:
    mac = HMAC(key, SM3())
    mac.update(data)
    return mac.finalize()
