"""The ciphers an ESP security association may use: four suites, one cipher object for each SA.

::

    name                          IKEv2 transforms   key + second part       IV  ICV  alignment
    AES-128-GCM                   20                 16 + salt 4              8   16   4   RFC 4106
    SM4-128-GCM                   1032 (private)     16 + salt 4              8   16   4   RFC 8998
    AES-128-CBC+HMAC-SHA-256-128  12, 12             16 + integrity key 32   16   16  16   RFC 3602, 4868
    SM4-128-CBC+HMAC-SM3-128      1031, 1031 (pr.)   16 + integrity key 32   16   16  16   GB/T 32907, 32905

IANA has no transform identifiers for SM4 and SM3: draft-guo-ipsecme-ikev2-using-shangmi defines the transforms
and leaves their numbers open. Ours are of the private-use range (1024 to 65535, RFC 7296 §3.3.2), the ones
strongSwan's ShangMi forks took; both ends must agree on what they mean.

A cipher object holds one key. It knows nothing of sequence numbers, windows or policy: `gateways.esp` does.
Every primitive and every comparison of tags is `cryptography`'s, but that SM4-GCM is libgcrypt's where there is
one (`gateways.sm4_gcrypt`), several times as fast; `sm4_backend` tells which.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm, Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES128, SM4
from cryptography.hazmat.primitives.ciphers.modes import CBC, GCM
from cryptography.hazmat.primitives.constant_time import bytes_eq
from cryptography.hazmat.primitives.hashes import SHA256, SM3, HashAlgorithm
from cryptography.hazmat.primitives.hmac import HMAC

from gateways import sm4_gcrypt
from topo.errors import FeatureMissing

ESP_HEADER_OCTETS = 8
"""SPI and sequence number (RFC 4303 §2)."""
TRAILER_OCTETS = 2
"""Pad length and next header; both are encrypted."""
KEY_OCTETS = 16
"""Of every suite's cipher key."""


class PacketCipher(Protocol):
    """The cipher of one SA. Not for two threads at once: it keeps working state."""

    def protect(self, header: bytes, counter: int, plaintext: bytes) -> bytes:
        """The ESP packet: `header` (authenticated), IV, ciphertext of `plaintext`, ICV.

        `counter` names the packet: the caller never gives one twice. `plaintext` ends on the suite's alignment.
        """

    def unprotect(self, packet: bytes) -> bytes:
        """The plaintext of an ESP packet. Raises `InvalidTag` if one bit of it was changed.

        The caller has checked that the ciphertext is not empty and ends on the suite's alignment.
        """


class AesGcm16:
    """AES-GCM, the packet's number as 8-octet IV, 16-octet ICV (RFC 4106).

    `aead` and `salt` are for callers that place many packets in one buffer (`AESGCM.encrypt_into`).
    """

    __slots__ = ("aead", "salt")

    def __init__(self, key: bytes, salt: bytes) -> None:
        self.aead = AESGCM(key)
        self.salt = salt

    def protect(self, header: bytes, counter: int, plaintext: bytes) -> bytes:
        iv = counter.to_bytes(8)
        return header + iv + self.aead.encrypt(self.salt + iv, plaintext, header)

    def unprotect(self, packet: bytes) -> bytes:
        return self.aead.decrypt(self.salt + packet[8:16], packet[16:], packet[:8])


class Sm4Gcm16:
    """SM4-GCM in the shape of RFC 4106, SM4-GCM itself as in RFC 8998 §3; for machines without libgcrypt.

    It makes a context for each packet: `cryptography` has no one-shot class for SM4-GCM, and `reset_nonce` works
    for CTR only, which would leave GHASH to us.
    """

    __slots__ = ("_algorithm", "_salt")

    def __init__(self, key: bytes, salt: bytes) -> None:
        self._algorithm = SM4(key)
        self._salt = salt

    def protect(self, header: bytes, counter: int, plaintext: bytes) -> bytes:
        iv = counter.to_bytes(8)
        context = Cipher(self._algorithm, GCM(self._salt + iv)).encryptor()
        context.authenticate_additional_data(header)
        ciphertext = context.update(plaintext)
        context.finalize()
        return header + iv + ciphertext + context.tag

    def unprotect(self, packet: bytes) -> bytes:
        mode = GCM(self._salt + packet[8:16], packet[-16:])
        context = Cipher(self._algorithm, mode).decryptor()
        context.authenticate_additional_data(packet[:8])
        plaintext = context.update(packet[16:-16])
        context.finalize()  # raises InvalidTag: what was decrypted before it is never returned
        return plaintext


class CbcHmac:
    """A block cipher in CBC mode, then HMAC over header, IV and ciphertext, cut to 16 octets.

    The two contexts live as long as the SA: making one costs more than a short packet. CBC chains on, so an IV
    is made by encrypting 16 random octets in front of the plaintext: that block, a random one XORed with the
    last ciphertext block and permuted, is uniform and unpredictable to whoever has seen all before it (what
    RFC 3602 §3 and NIST SP 800-38A appendix C ask for). The receiver decrypts IV and ciphertext and drops the
    IV's block. The packet's number is not used: nothing here depends on a nonce that must not repeat.
    """

    __slots__ = ("_decrypt", "_encrypt", "_hmac")

    def __init__(
        self,
        algorithm: Callable[[bytes], BlockCipherAlgorithm],
        digest: HashAlgorithm,
        key: bytes,
        integrity_key: bytes,
    ) -> None:
        cipher = Cipher(algorithm(key), CBC(os.urandom(16)))
        self._encrypt = cipher.encryptor().update
        self._decrypt = cipher.decryptor().update
        self._hmac = HMAC(integrity_key, digest)

    def protect(self, header: bytes, counter: int, plaintext: bytes) -> bytes:
        packet = header + self._encrypt(os.urandom(16) + plaintext)
        mac = self._hmac.copy()
        mac.update(packet)
        return packet + mac.finalize()[:16]

    def unprotect(self, packet: bytes) -> bytes:
        mac = self._hmac.copy()
        mac.update(packet[:-16])
        if not bytes_eq(mac.finalize()[:16], packet[-16:]):
            raise InvalidTag
        return self._decrypt(packet[8:-16])[16:]


@cache
def sm4_library() -> sm4_gcrypt.Library | FeatureMissing:
    """libgcrypt, or why it cannot be used; looked for once."""
    try:
        return sm4_gcrypt.load()
    except FeatureMissing as lacking:
        return lacking


def sm4_backend() -> str:
    """The library that SM4-GCM is computed by; where that is the slower one, why, and the remedy."""
    library = sm4_library()
    if isinstance(library, FeatureMissing):
        return f"cryptography ({library})"
    return f"libgcrypt {library.version}"


def _sm4_gcm(key: bytes, salt: bytes) -> PacketCipher:
    library = sm4_library()
    if isinstance(library, FeatureMissing):
        return Sm4Gcm16(key, salt)
    return sm4_gcrypt.Sm4GcmGcrypt(library, key, salt)


def _aes_cbc_sha256(key: bytes, integrity_key: bytes) -> CbcHmac:
    return CbcHmac(AES128, SHA256(), key, integrity_key)


def _sm4_cbc_sm3(key: bytes, integrity_key: bytes) -> CbcHmac:
    return CbcHmac(SM4, SM3(), key, integrity_key)


@dataclass(frozen=True, slots=True)
class Suite:
    """An ESP cipher suite: its identifiers, its lengths in octets, and how its cipher is made.

    `encryption` and `integrity` are IKEv2 transform identifiers of types 1 and 3; `integrity` is 0 for an AEAD,
    which is proposed without one. `wireshark` are the names of encryption and authentication in Wireshark's
    `esp_sa` table, None where it has none.
    """

    name: str
    encryption: int
    integrity: int
    salt_octets: int
    integrity_key_octets: int
    iv_octets: int
    icv_octets: int
    alignment: int
    wireshark: tuple[str, str] | None
    make: Callable[[bytes, bytes], PacketCipher]

    @property
    def keymat_octets(self) -> int:
        """Keying material of one SA: encryption key, then salt or integrity key (RFC 7296 §2.17)."""
        return KEY_OCTETS + self.salt_octets + self.integrity_key_octets

    @property
    def library(self) -> str:
        """The library that computes the suite on this machine."""
        return sm4_backend() if self is SM4_128_GCM else "cryptography"

    @property
    def overhead(self) -> int:
        """What an ESP packet has besides its ciphertext, octets."""
        return ESP_HEADER_OCTETS + self.iv_octets + self.icv_octets

    def cipher(self, keymat: bytes) -> PacketCipher:
        """The cipher of one SA with this keying material. Raises `ValueError` for a wrong length."""
        if len(keymat) != self.keymat_octets:
            raise ValueError(f"{self.name} takes {self.keymat_octets} octets of KEYMAT")
        return self.make(keymat[:KEY_OCTETS], keymat[KEY_OCTETS:])

    def esp_octets(self, inner_octets: int) -> int:
        """Length of the ESP packet that carries an inner packet of `inner_octets`, octets."""
        return (
            self.overhead + -(-(inner_octets + TRAILER_OCTETS) // self.alignment) * self.alignment
        )

    def inner_octets(self, esp_octets: int) -> int:
        """The longest inner packet that an ESP packet of `esp_octets` can carry, octets."""
        ciphertext = (esp_octets - self.overhead) // self.alignment * self.alignment
        return ciphertext - TRAILER_OCTETS


AES_128_GCM = Suite(
    name="AES-128-GCM",
    encryption=20,
    integrity=0,
    salt_octets=4,
    integrity_key_octets=0,
    iv_octets=8,
    icv_octets=16,
    alignment=4,
    wireshark=("AES-GCM with 16 octet ICV [RFC4106]", "NULL"),
    make=AesGcm16,
)
SM4_128_GCM = Suite(
    name="SM4-128-GCM",
    encryption=1032,
    integrity=0,
    salt_octets=4,
    integrity_key_octets=0,
    iv_octets=8,
    icv_octets=16,
    alignment=4,
    wireshark=None,
    make=_sm4_gcm,
)
AES_128_CBC_SHA256 = Suite(
    name="AES-128-CBC+HMAC-SHA-256-128",
    encryption=12,
    integrity=12,
    salt_octets=0,
    integrity_key_octets=32,
    iv_octets=16,
    icv_octets=16,
    alignment=16,
    wireshark=("AES-CBC [RFC3602]", "HMAC-SHA-256-128 [RFC4868]"),
    make=_aes_cbc_sha256,
)
SM4_128_CBC_SM3 = Suite(
    name="SM4-128-CBC+HMAC-SM3-128",
    encryption=1031,
    integrity=1031,
    salt_octets=0,
    integrity_key_octets=32,
    iv_octets=16,
    icv_octets=16,
    alignment=16,
    wireshark=None,
    make=_sm4_cbc_sm3,
)

SUITES = {
    suite.name: suite for suite in (AES_128_GCM, SM4_128_GCM, AES_128_CBC_SHA256, SM4_128_CBC_SM3)
}
"""Every suite by its name."""


def suite_of(encryption: int, integrity: int = 0) -> Suite | None:
    """The suite with these IKEv2 transform identifiers (key length 128 bits), or None."""
    for suite in SUITES.values():
        if (suite.encryption, suite.integrity) == (encryption, integrity):
            return suite
    return None
