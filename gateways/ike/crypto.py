"""IKEv2's keys and its encrypted payload: prf+, SKEYSEED, SK_*, key exchange (RFC 7296 §2.13 to 2.18, §3.14).

One PRF, HMAC-SHA2-256; its prf+ is what RFC 5869 calls HKDF-Expand. The encrypted payload is AES-GCM (RFC 5282)
or AES-CBC with HMAC-SHA2-256-128 (RFC 4868).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDH,
    SECP256R1,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.constant_time import bytes_eq
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, Hash
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateways.ike.numbers import GROUP_ECP_256, GROUP_X25519, Kind
from gateways.ike.payloads import GENERIC_OCTETS, HEADER_OCTETS, Header
from topo.errors import ControlError

PRF_OCTETS = 32
"""Key and output length of the PRF."""
_GCM_SALT_OCTETS, _GCM_IV_OCTETS, _ICV_OCTETS = 4, 8, 16
_CBC_BLOCK_OCTETS = 16
_ECP_UNCOMPRESSED = b"\x04"


def prf(key: bytes, data: bytes) -> bytes:
    """PRF_HMAC_SHA2_256 of `data`, 32 octets (RFC 4868)."""
    mac = HMAC(key, SHA256())
    mac.update(data)
    return mac.finalize()


def prf_plus(key: bytes, seed: bytes, octets: int) -> bytes:
    """prf+ (RFC 7296 §2.13): `octets` octets of keying material."""
    return HKDFExpand(SHA256(), octets, seed).derive(key)


def nat_hash(spi_i: bytes, spi_r: bytes, address: bytes, port: int) -> bytes:
    """What the NAT_DETECTION notifications carry (RFC 7296 §2.23)."""
    digest = Hash(SHA1())
    digest.update(spi_i + spi_r + address + port.to_bytes(2))
    return digest.finalize()


class DiffieHellman:
    """One end of an ephemeral Diffie-Hellman exchange: X25519 (RFC 8031) or ECP-256 (RFC 5903)."""

    def __init__(self, group: int) -> None:
        self.group = group
        self._shared: Callable[[bytes], bytes]
        if group == GROUP_X25519:
            mine = X25519PrivateKey.generate()
            self.public = mine.public_key().public_bytes_raw()
            self._shared = lambda peer: mine.exchange(X25519PublicKey.from_public_bytes(peer))
        elif group == GROUP_ECP_256:
            own = generate_private_key(SECP256R1())
            point = own.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            self.public = point[len(_ECP_UNCOMPRESSED) :]
            self._shared = lambda peer: own.exchange(
                ECDH(),
                EllipticCurvePublicKey.from_encoded_point(SECP256R1(), _ECP_UNCOMPRESSED + peer),
            )
        else:
            raise ControlError(f"key exchange method {group} is not supported")

    def shared(self, peer_public: bytes) -> bytes:
        """The shared secret. Raises `ControlError` for a public value that is none."""
        try:
            return self._shared(peer_public)
        except ValueError:
            raise ControlError(f"public value is not one of group {self.group}") from None


@dataclass(frozen=True, slots=True)
class IkeSuite:
    """How an IKE SA protects its messages; lengths in octets. `integrity` 0: an AEAD."""

    name: str
    encryption: int
    key_bits: int
    integrity: int = 0

    @property
    def encryption_octets(self) -> int:
        """Length of SK_ei and SK_er; an AEAD's salt is part of it (RFC 5282 §7.1)."""
        return self.key_bits // 8 + (0 if self.integrity else _GCM_SALT_OCTETS)

    @property
    def integrity_octets(self) -> int:
        """Length of SK_ai and SK_ar."""
        return PRF_OCTETS if self.integrity else 0


IKE_SUITES = (
    IkeSuite("AES-128-GCM", 20, 128),
    IkeSuite("AES-256-GCM", 20, 256),
    IkeSuite("AES-128-CBC+HMAC-SHA-256-128", 12, 128, 12),
)


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """The seven secrets of an IKE SA (RFC 7296 §2.14); hidden in `repr`."""

    d: bytes = field(repr=False)
    ai: bytes = field(repr=False)
    ar: bytes = field(repr=False)
    ei: bytes = field(repr=False)
    er: bytes = field(repr=False)
    pi: bytes = field(repr=False)
    pr: bytes = field(repr=False)

    @classmethod
    def derive(cls, suite: IkeSuite, skeyseed: bytes, seed: bytes) -> SessionKeys:
        """{SK_d | SK_ai | … | SK_pr} = prf+(SKEYSEED, Ni | Nr | SPIi | SPIr); `seed` is the latter."""
        a, e, p = suite.integrity_octets, suite.encryption_octets, PRF_OCTETS
        lengths = (p, a, a, e, e, p, p)
        material = prf_plus(skeyseed, seed, sum(lengths))
        ends = [sum(lengths[: index + 1]) for index in range(len(lengths))]
        return cls(*(material[end - n : end] for end, n in zip(ends, lengths, strict=True)))

    def with_ppk(self, ppk: bytes) -> SessionKeys:
        """The keys with a PPK mixed into SK_d, SK_pi and SK_pr (RFC 8784 §3)."""
        d, pi, pr = (prf_plus(ppk, key, PRF_OCTETS) for key in (self.d, self.pi, self.pr))
        return SessionKeys(d, self.ai, self.ar, self.ei, self.er, pi, pr)


class Protection:
    """The encrypted payload in one direction: what one end seals and the other opens."""

    def __init__(
        self,
        suite: IkeSuite,
        encryption_key: bytes,
        integrity_key: bytes,
        token_bytes: Callable[[int], bytes],
    ) -> None:
        self._aead = not suite.integrity
        self._token_bytes = token_bytes
        self._sealed = 0
        if self._aead:
            self._salt = encryption_key[-_GCM_SALT_OCTETS:]
            self._gcm = AESGCM(encryption_key[:-_GCM_SALT_OCTETS])
        else:
            self._cbc = AES(encryption_key)
            self._hmac = HMAC(integrity_key, SHA256())

    def seal(self, header: Header, first: int, inner: bytes) -> bytes:
        """The message whose only payload is SK around `inner`, which begins with a payload of type `first`."""
        if self._aead:
            self._sealed += 1
            iv = self._sealed.to_bytes(_GCM_IV_OCTETS)
            head = _heads(header, first, _GCM_IV_OCTETS + len(inner) + 1 + _ICV_OCTETS)
            return head + iv + self._gcm.encrypt(self._salt + iv, inner + b"\0", head)
        iv = self._token_bytes(_CBC_BLOCK_OCTETS)
        pad = -(len(inner) + 1) % _CBC_BLOCK_OCTETS
        encryptor = Cipher(self._cbc, CBC(iv)).encryptor()
        ciphertext = encryptor.update(inner + bytes(pad) + bytes((pad,))) + encryptor.finalize()
        message = _heads(header, first, len(iv) + len(ciphertext) + _ICV_OCTETS) + iv + ciphertext
        return message + self._icv(message)

    def open(self, datagram: bytes) -> tuple[int, bytes]:
        """Type of the first payload inside and their octets. Raises `ControlError` unless all is genuine.

        The datagram's header has been parsed.
        """
        body = HEADER_OCTETS + GENERIC_OCTETS
        if len(datagram) < body or datagram[16] != Kind.SK:
            raise ControlError("message is not encrypted")
        if int.from_bytes(datagram[HEADER_OCTETS + 2 : body]) != len(datagram) - HEADER_OCTETS:
            raise ControlError("SK payload does not end with the message")
        plaintext = self._open_gcm(datagram) if self._aead else self._open_cbc(datagram)
        pad = plaintext[-1] if plaintext else 0
        if pad + 1 > len(plaintext):
            raise ControlError("padding of the SK payload does not fit")
        return datagram[HEADER_OCTETS], plaintext[: len(plaintext) - 1 - pad]

    def _open_gcm(self, datagram: bytes) -> bytes:
        start = HEADER_OCTETS + GENERIC_OCTETS
        text = start + _GCM_IV_OCTETS
        if len(datagram) < text + 1 + _ICV_OCTETS:
            raise ControlError("SK payload cut short")
        nonce = self._salt + datagram[start:text]
        try:
            return self._gcm.decrypt(nonce, datagram[text:], datagram[:start])
        except InvalidTag:
            raise ControlError("message with a wrong ICV") from None

    def _open_cbc(self, datagram: bytes) -> bytes:
        text = HEADER_OCTETS + GENERIC_OCTETS + _CBC_BLOCK_OCTETS
        octets = len(datagram) - text - _ICV_OCTETS
        if octets <= 0 or octets % _CBC_BLOCK_OCTETS:
            raise ControlError("SK payload cut short")
        if not bytes_eq(self._icv(datagram[:-_ICV_OCTETS]), datagram[-_ICV_OCTETS:]):
            raise ControlError("message with a wrong ICV")
        iv = datagram[text - _CBC_BLOCK_OCTETS : text]
        decryptor = Cipher(self._cbc, CBC(iv)).decryptor()
        return decryptor.update(datagram[text:-_ICV_OCTETS]) + decryptor.finalize()

    def _icv(self, message: bytes) -> bytes:
        mac = self._hmac.copy()
        mac.update(message)
        return mac.finalize()[:_ICV_OCTETS]


def _heads(header: Header, first: int, sk_octets: int) -> bytes:
    """IKE header and the SK payload's generic header, whose body takes `sk_octets`."""
    payload_octets = GENERIC_OCTETS + sk_octets
    generic = bytes((first, 0)) + payload_octets.to_bytes(2)
    return header.pack(Kind.SK, payload_octets) + generic


def intermediate_octets(header: Header, first: int, inner: bytes) -> bytes:
    """What an IKE_INTERMEDIATE message contributes to AUTH: IntAuth_*A | IntAuth_*P (RFC 9242 §3.3.2).

    Both lengths are those the message would have without IV, padding and ICV.
    """
    return _heads(header, first, len(inner)) + inner
