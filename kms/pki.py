"""A small PKI for one KMS site: an authority, a certificate for the KME and one for each SAE.

ECDSA P-256, X.509 v3 (RFC 5280). Server certificates serve only for servers, SAE certificates only
for clients. Validity starts a day before `now` and lasts ten years, so that a guest whose clock
shows another year can make its own. IDs sit in the certificates as `kms.identity` says.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kms.identity import Role, urn
from topo.errors import InputError

_BEFORE = timedelta(days=1)
_VALIDITY = timedelta(days=3652)  # ten years
_MAX_COMMON_NAME = 64  # X.520 ub-common-name
_DNS_NAME = re.compile(r"[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")


@dataclass(frozen=True)
class Credentials:
    """Two PEM files that belong together."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class SiteFiles:
    """The PEM files of one site; an SAE needs its own two and `ca.certificate`."""

    ca: Credentials
    server: Credentials
    saes: dict[str, Credentials]


def init_site(
    directory: Path | str,
    kme_id: str,
    server_names: Sequence[str],
    sae_ids: Sequence[str],
    now: datetime,
) -> SiteFiles:
    """Make a site's certificates and keys as PEM files in `directory` and say where they are.

    `server_names` are the IP addresses and DNS names under which the KME is reached. Keys get mode
    0600. Existing files are never replaced: `InputError`.
    """
    if not server_names:
        raise InputError("a KME needs at least one server name (IP address or DNS name)")
    for identity in (kme_id, *sae_ids):
        if not 1 <= len(identity) <= _MAX_COMMON_NAME:
            raise InputError(f"ID {identity!r}: 1 to {_MAX_COMMON_NAME} characters")
    if len(set(sae_ids)) < len(sae_ids):
        raise InputError("an SAE ID is given twice")
    addresses = [_address(name) for name in server_names]
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)

    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = _name(f"{kme_id} CA"[:_MAX_COMMON_NAME])
    ca_certificate = (
        _builder(ca_name, ca_name, ca_key, ca_key, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .sign(ca_key, SHA256())
    )

    def issue(
        file_name: str, role: Role, identity: str, addresses: Sequence[x509.GeneralName]
    ) -> Credentials:
        key = ec.generate_private_key(ec.SECP256R1())
        purpose = (
            ExtendedKeyUsageOID.SERVER_AUTH if role == "kme" else ExtendedKeyUsageOID.CLIENT_AUTH
        )
        alternatives = [x509.UniformResourceIdentifier(urn(role, identity)), *addresses]
        certificate = (
            _builder(_name(identity), ca_name, key, ca_key, now)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .sign(ca_key, SHA256())
        )
        return _save(directory, file_name, certificate, key)

    return SiteFiles(
        ca=_save(directory, "ca", ca_certificate, ca_key),
        server=issue("server", "kme", kme_id, addresses),
        saes={
            sae_id: issue(f"sae-{quote(sae_id, safe='')}", "sae", sae_id, ()) for sae_id in sae_ids
        },
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + _VALIDITY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _address(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        if not _DNS_NAME.fullmatch(name):
            raise InputError(f"{name!r} is no IP address and no DNS name") from None
        return x509.DNSName(name)


def _key_usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _save(
    directory: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> Credentials:
    files = Credentials(directory / f"{name}.pem", directory / f"{name}.key")
    key_text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for path, text, mode in (
        (files.key, key_text, 0o600),
        (files.certificate, certificate.public_bytes(Encoding.PEM), 0o644),
    ):
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
        except FileExistsError as error:
            raise InputError(f"{path}: exists already; a site is made once") from error
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
    return files
