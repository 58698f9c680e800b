"""AUTH: what proves an identity, and what does not."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.hashes import SHA256

from gateways.ike.auth import Certified, Psk, SigningKey, identity
from gateways.ike.crypto import prf
from gateways.ike.numbers import AuthMethod
from gateways.ike.payloads import Payloads, Typed
from topo.errors import ControlError

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
OCTETS = b"what is signed"


def certificate(
    name: str, key: SigningKey, issuer_key: SigningKey, *, until: datetime.datetime = NOW + DAY
) -> x509.Certificate:
    common = x509.oid.NameOID.COMMON_NAME
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(common, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(common, "CA")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(issuer_key, None if isinstance(issuer_key, Ed25519PrivateKey) else SHA256())
    )


CA_KEY = generate_private_key(SECP256R1())
CA = certificate("CA", CA_KEY, CA_KEY)
KEYS: dict[str, SigningKey] = {
    "ecdsa": generate_private_key(SECP256R1()),
    "ed25519": Ed25519PrivateKey.generate(),
    "rsa": generate_rsa(65537, 2048),
}


def certified(name: str, key: SigningKey) -> Certified:
    return Certified(certificate(name, key, CA_KEY), key, CA, lambda: NOW)


def sent(prover: Certified) -> Payloads:
    return Payloads(prover.certificate())


@pytest.mark.parametrize("kind", KEYS)
def test_certificate_proves_its_name_and_no_other(kind: str) -> None:
    prover = certified("EG-U", KEYS[kind])
    checker = certified("EG-N", generate_private_key(SECP256R1()))
    proof = prover.prove(OCTETS, digital=True)
    assert proof.type == AuthMethod.DIGITAL_SIGNATURE
    checker.check(identity("EG-U"), sent(prover), proof, OCTETS)
    with pytest.raises(ControlError, match="another name"):
        checker.check(identity("EG-X"), sent(prover), proof, OCTETS)
    with pytest.raises(ControlError, match="signature"):
        checker.check(identity("EG-U"), sent(prover), proof, OCTETS + b"!")
    for index in range(len(proof.data)):
        forged = bytearray(proof.data)
        forged[index] ^= 1
        with pytest.raises(ControlError):
            checker.check(
                identity("EG-U"), sent(prover), replace(proof, data=bytes(forged)), OCTETS
            )
    with pytest.raises(ControlError):
        checker.check(identity("EG-U"), sent(prover), Typed(AuthMethod.SHARED_KEY, b"x"), OCTETS)


def test_rsa_without_rfc_7427() -> None:
    prover = certified("EG-U", KEYS["rsa"])
    proof = prover.prove(OCTETS, digital=False)
    assert proof.type == AuthMethod.RSA_SIGNATURE
    certified("EG-N", KEYS["ecdsa"]).check(identity("EG-U"), sent(prover), proof, OCTETS)
    with pytest.raises(ControlError, match="RFC 7427"):
        certified("EG-U", KEYS["ecdsa"]).prove(OCTETS, digital=False)


def test_certificates_that_are_not_good_enough() -> None:
    key = KEYS["ecdsa"]
    checker = certified("EG-N", generate_private_key(SECP256R1()))
    proof = certified("EG-U", key).prove(OCTETS, digital=True)
    stranger_key = generate_private_key(SECP256R1())
    bad = {
        "authority": certificate("EG-U", key, stranger_key),
        "within its time": certificate("EG-U", key, CA_KEY, until=NOW - DAY / 2),
        "signature": certificate("EG-U", stranger_key, CA_KEY),
    }
    for reason, wrong in bad.items():
        with pytest.raises(ControlError, match=reason):
            payloads = sent(Certified(wrong, key, CA, lambda: NOW))
            checker.check(identity("EG-U"), payloads, proof, OCTETS)
    with pytest.raises(ControlError, match="no certificate"):
        checker.check(identity("EG-U"), Payloads([]), proof, OCTETS)


def test_pre_shared_key_by_the_formula_of_the_rfc() -> None:
    """RFC 7296 §2.15: AUTH = prf(prf(Shared Secret, "Key Pad for IKEv2"), <octets>)."""
    psk = Psk(b"shared secret")
    proof = psk.prove(OCTETS, digital=True)
    assert proof == Typed(2, prf(prf(b"shared secret", b"Key Pad for IKEv2"), OCTETS))
    psk.check(identity("EG-U"), Payloads([]), proof, OCTETS)
    for wrong in (replace(proof, data=bytes(32)), replace(proof, type=1), replace(proof, data=b"")):
        with pytest.raises(ControlError):
            psk.check(identity("EG-U"), Payloads([]), wrong, OCTETS)
    assert "shared" not in repr(psk)


def test_repr_shows_no_key() -> None:
    assert "PrivateKey" not in repr(certified("EG-U", KEYS["ecdsa"]))
