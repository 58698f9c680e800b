"""How the two ends prove who they are: pre-shared key or certificate (RFC 7296 §2.15, RFC 7427)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.constant_time import bytes_eq
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, Hash
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import (
    Certificate,
    DNSName,
    ExtensionNotFound,
    IPAddress,
    RFC822Name,
    SubjectAlternativeName,
    load_der_x509_certificate,
)

from gateways.ike.crypto import prf
from gateways.ike.numbers import CERT_X509, AuthMethod, IdType, Kind
from gateways.ike.payloads import Payload, Payloads, Typed
from topo.errors import ControlError

_KEY_PAD = b"Key Pad for IKEv2"
_ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
_RSA_SHA256 = bytes.fromhex("300d06092a864886f70d01010b0500")
_ED25519 = bytes.fromhex("300506032b6570")
"""AlgorithmIdentifiers in DER (RFC 7427 appendix A, RFC 8420)."""

SigningKey = EllipticCurvePrivateKey | Ed25519PrivateKey | RSAPrivateKey


def identity(name: str) -> Typed:
    """The identification of a name: an address, an e-mail address, or else a domain name (FQDN)."""
    for kind, address in ((IdType.IPV4, IPv4Address), (IdType.IPV6, IPv6Address)):
        try:
            return Typed(kind, address(name).packed)
        except AddressValueError:
            continue
    return Typed(IdType.EMAIL if "@" in name else IdType.FQDN, name.encode())


@dataclass(frozen=True, slots=True)
class Psk:
    """A key that both ends know."""

    key: bytes = field(repr=False)

    def prove(self, octets: bytes, *, digital: bool) -> Typed:
        """The AUTH payload's content over `octets`."""
        return Typed(AuthMethod.SHARED_KEY, prf(prf(self.key, _KEY_PAD), octets))

    def check(self, peer_id: Typed, message: Payloads, auth: Typed, octets: bytes) -> None:
        """Raise `ControlError` unless `auth` proves that the peer knows the key."""
        expected = self.prove(octets, digital=False)
        if auth.type != expected.type or not bytes_eq(auth.data, expected.data):
            raise ControlError("the peer does not know the pre-shared key, or the PPK is another")

    def certificate(self) -> list[Payload]:
        """No CERT payload."""
        return []

    def request(self) -> list[Payload]:
        """No CERTREQ payload."""
        return []


@dataclass(frozen=True, slots=True)
class Certified:
    """Our certificate and key, and the authority that signed the peer's certificate.

    `utc_now` tells whether the peer's certificate is within its time.
    """

    own: Certificate
    key: SigningKey = field(repr=False)
    authority: Certificate
    utc_now: Callable[[], datetime]

    def prove(self, octets: bytes, *, digital: bool) -> Typed:
        """The AUTH payload's content; `digital`: the peer announced RFC 7427, else the older methods."""
        key = self.key
        if isinstance(key, Ed25519PrivateKey):
            return _digital(_ED25519, key.sign(octets))
        if isinstance(key, RSAPrivateKey):
            if digital:
                return _digital(_RSA_SHA256, key.sign(octets, PKCS1v15(), SHA256()))
            return Typed(AuthMethod.RSA_SIGNATURE, key.sign(octets, PKCS1v15(), SHA1()))
        signature = key.sign(octets, ECDSA(SHA256()))
        if digital:
            return _digital(_ECDSA_SHA256, signature)
        raise ControlError("the peer does not take digital signatures (RFC 7427)")

    def check(self, peer_id: Typed, message: Payloads, auth: Typed, octets: bytes) -> None:
        """Raise `ControlError` unless a certificate in `message` vouches for `peer_id` and `auth`."""
        encoded = next((body for body in message.bodies(Kind.CERT) if body[:1] == b"\x04"), None)
        if encoded is None:
            raise ControlError("the peer sent no certificate")
        try:
            certificate = load_der_x509_certificate(encoded[1:])
            certificate.verify_directly_issued_by(self.authority)
            names = _names(certificate)
        except (ValueError, TypeError, InvalidSignature):
            raise ControlError("the peer's certificate is not one of our authority") from None
        now = self.utc_now()
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise ControlError("the peer's certificate is not within its time")
        if (peer_id.type, peer_id.data) not in names:
            raise ControlError("the peer's certificate is for another name")
        _verify(certificate, auth, octets)

    def certificate(self) -> list[Payload]:
        """Our certificate."""
        encoded = self.own.public_bytes(Encoding.DER)
        return [Payload(Kind.CERT, bytes((CERT_X509,)) + encoded)]

    def request(self) -> list[Payload]:
        """Whose certificates we take: the SHA-1 of the authority's public key (RFC 7296 §3.7)."""
        digest = Hash(SHA1())
        digest.update(
            self.authority.public_key().public_bytes(
                Encoding.DER, PublicFormat.SubjectPublicKeyInfo
            )
        )
        return [Payload(Kind.CERTREQ, bytes((CERT_X509,)) + digest.finalize())]


Credentials = Psk | Certified


def _digital(algorithm: bytes, signature: bytes) -> Typed:
    return Typed(AuthMethod.DIGITAL_SIGNATURE, bytes((len(algorithm),)) + algorithm + signature)


def _names(certificate: Certificate) -> set[tuple[int, bytes]]:
    """What the certificate is for, as identification payloads have it."""
    names = {(int(IdType.DISTINGUISHED_NAME), certificate.subject.public_bytes())}
    try:
        alternative = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    except ExtensionNotFound:
        return names
    names |= {(IdType.FQDN, dns.encode()) for dns in alternative.get_values_for_type(DNSName)}
    names |= {(IdType.EMAIL, box.encode()) for box in alternative.get_values_for_type(RFC822Name)}
    for address in alternative.get_values_for_type(IPAddress):
        if isinstance(address, IPv4Address):
            names.add((IdType.IPV4, address.packed))
        elif isinstance(address, IPv6Address):
            names.add((IdType.IPV6, address.packed))
    return names


def _verify(certificate: Certificate, auth: Typed, octets: bytes) -> None:
    key, method, data = certificate.public_key(), auth.type, auth.data
    algorithm = signature = b""
    if method == AuthMethod.DIGITAL_SIGNATURE and data:
        algorithm, signature = data[1 : 1 + data[0]], data[1 + data[0] :]
    try:
        if isinstance(key, Ed25519PublicKey) and algorithm == _ED25519:
            key.verify(signature, octets)
        elif isinstance(key, RSAPublicKey) and algorithm == _RSA_SHA256:
            key.verify(signature, octets, PKCS1v15(), SHA256())
        elif isinstance(key, RSAPublicKey) and method == AuthMethod.RSA_SIGNATURE:
            key.verify(data, octets, PKCS1v15(), SHA1())
        elif (
            isinstance(key, EllipticCurvePublicKey)
            and isinstance(key.curve, SECP256R1)
            and algorithm == _ECDSA_SHA256
        ):
            key.verify(signature, octets, ECDSA(SHA256()))
        else:
            raise ControlError(f"signature of method {method} does not suit the certificate")
    except InvalidSignature:
        raise ControlError("the peer's signature is wrong") from None
