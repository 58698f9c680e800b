"""SM4-GCM, SM4-CBC and HMAC-SM3 in ESP against libgcrypt, an implementation that shares nothing with OpenSSL's.

Where SM4-GCM is libgcrypt's itself, it is compared with OpenSSL's.
"""

from __future__ import annotations

import ctypes
import random
from ctypes.util import find_library

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import SM4
from cryptography.hazmat.primitives.ciphers.modes import GCM

from gateways.esp import InboundSa, OutboundSa
from gateways.suites import SM4_128_CBC_SM3, SM4_128_GCM, sm4_backend
from tests.esp_packets import SPI, inbound_selectors, ipv4, ipv6, keys_of, trailed
from tests.sm4_backends import without_libgcrypt

pytestmark = pytest.mark.interop

CIPHER_SM4, MODE_CBC, MODE_GCM, MD_SM3, MD_HMAC, RESET = 318, 3, 9, 326, 2, 4

counts = pytest.mark.parametrize("packets", [400, pytest.param(10_000, marks=pytest.mark.long)])


@pytest.fixture(scope="module")
def gcrypt() -> ctypes.CDLL:
    name = find_library("gcrypt")
    if name is None:
        pytest.skip("libgcrypt is not installed: apt install libgcrypt20")
    library = ctypes.CDLL(name)
    library.gcry_check_version(None)
    library.gcry_md_read.restype = ctypes.c_void_p
    if library.gcry_cipher_algo_info(CIPHER_SM4, 8, None, None):
        pytest.skip("libgcrypt is older than 1.9 and has no SM4")
    return library


class Sm4:
    """libgcrypt's SM4 in one mode; every call checked."""

    def __init__(self, library: ctypes.CDLL, mode: int, key: bytes) -> None:
        self._library, self._handle = library, ctypes.c_void_p()
        assert library.gcry_cipher_open(ctypes.byref(self._handle), CIPHER_SM4, mode, 0) == 0
        assert library.gcry_cipher_setkey(self._handle, key, ctypes.c_size_t(len(key))) == 0

    def run(
        self, encrypt: bool, iv: bytes, data: bytes, header: bytes = b""
    ) -> tuple[bytes, bytes]:
        """Output, and the GCM tag if there is a header."""
        library, handle, size = self._library, self._handle, ctypes.c_size_t
        assert library.gcry_cipher_ctl(handle, RESET, None, size(0)) == 0
        assert library.gcry_cipher_setiv(handle, iv, size(len(iv))) == 0
        if header:
            assert library.gcry_cipher_authenticate(handle, header, size(len(header))) == 0
        out, tag = ctypes.create_string_buffer(len(data)), ctypes.create_string_buffer(16)
        call = library.gcry_cipher_encrypt if encrypt else library.gcry_cipher_decrypt
        assert call(handle, out, size(len(data)), data, size(len(data))) == 0
        if header:
            assert library.gcry_cipher_gettag(handle, tag, size(16)) == 0
        return out.raw, tag.raw


def hmac_sm3(library: ctypes.CDLL, key: bytes, data: bytes) -> bytes:
    handle = ctypes.c_void_p()
    assert library.gcry_md_open(ctypes.byref(handle), MD_SM3, MD_HMAC) == 0
    assert library.gcry_md_setkey(handle, key, ctypes.c_size_t(len(key))) == 0
    library.gcry_md_write(handle, data, ctypes.c_size_t(len(data)))
    digest = ctypes.string_at(library.gcry_md_read(handle, MD_SM3), 32)
    library.gcry_md_close(handle)
    return digest


def inner_packets(count: int) -> list[bytes]:
    rng = random.Random(3)
    lengths = [*range(40, 60), *(rng.randint(40, 1400) for _ in range(count - 20))]
    return [ipv6(n) if n % 4 == 0 else ipv4(n) for n in lengths]


@counts
def test_sm4_gcm_of_openssl_both_ways(
    gcrypt: ctypes.CDLL, packets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_libgcrypt(monkeypatch)
    assert SM4_128_GCM.library.startswith("cryptography")
    keys = keys_of(SM4_128_GCM)
    outbound, inbound = OutboundSa(SPI, keys), InboundSa(SPI, keys, inbound_selectors())
    peer = Sm4(gcrypt, MODE_GCM, keys.key)
    for inner in inner_packets(packets):
        plaintext = trailed(SM4_128_GCM, inner, 4 if inner[0] >> 4 == 4 else 41)
        packet = outbound.seal(inner)
        header, iv = packet[:8], packet[8:16]
        assert peer.run(False, keys.salt + iv, packet[16:-16], header) == (plaintext, packet[-16:])
        ciphertext, tag = peer.run(True, keys.salt + iv, plaintext, header)
        assert inbound.open(header + iv + ciphertext + tag) == inner


@counts
def test_sm4_gcm_of_libgcrypt_both_ways(gcrypt: ctypes.CDLL, packets: int) -> None:
    assert sm4_backend() == SM4_128_GCM.library
    assert sm4_backend().startswith("libgcrypt 1."), "this machine has it, so it is used"
    keys = keys_of(SM4_128_GCM)
    outbound, inbound = OutboundSa(SPI, keys), InboundSa(SPI, keys, inbound_selectors())
    for inner in inner_packets(packets):
        plaintext = trailed(SM4_128_GCM, inner, 4 if inner[0] >> 4 == 4 else 41)
        packet = outbound.seal(inner)
        peer = Cipher(SM4(keys.key), GCM(keys.salt + packet[8:16])).encryptor()
        peer.authenticate_additional_data(packet[:8])
        ciphertext = peer.update(plaintext) + peer.finalize()
        assert packet[16:] == ciphertext + peer.tag
        assert inbound.open(packet[:16] + ciphertext + peer.tag) == inner


@counts
def test_sm4_cbc_hmac_sm3_both_ways(gcrypt: ctypes.CDLL, packets: int) -> None:
    keys = keys_of(SM4_128_CBC_SM3)
    outbound, inbound = OutboundSa(SPI, keys), InboundSa(SPI, keys, inbound_selectors())
    peer = Sm4(gcrypt, MODE_CBC, keys.key)
    rng = random.Random(4)
    for inner in inner_packets(packets):
        plaintext = trailed(SM4_128_CBC_SM3, inner, 4 if inner[0] >> 4 == 4 else 41)
        packet = outbound.seal(inner)
        assert hmac_sm3(gcrypt, keys.integrity_key, packet[:-16])[:16] == packet[-16:]
        assert peer.run(False, packet[8:24], packet[24:-16])[0] == plaintext
        iv = rng.randbytes(16)
        made = packet[:8] + iv + peer.run(True, iv, plaintext)[0]
        assert inbound.open(made + hmac_sm3(gcrypt, keys.integrity_key, made)[:16]) == inner
