"""A small PKI for one KMS site: an authority, a certificate for the KME and one for each SAE.

ECDSA P-256, X.509 v3 (RFC 5280). Server certificates serve only for servers, SAE certificates only
for clients. Validity starts a day before `now` and lasts ten years, so that a guest whose clock
shows another year can make its own. IDs sit in the certificates as `kms.identity` says. What the
authority has taken back stands in its CRL, which a KME follows (`kms.revocation`).
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kms.identity import Role, urn
from kms.revocation import replace_file
from topo.errors import InputError

CRL_NAME = "crl.pem"
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
    peer: Credentials
    """The KME's as a client of the other site's."""
    saes: dict[str, Credentials]
    crl: Path
    """The authority's revocation list, at first of nobody."""


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
        _check_id(identity)
    if len(set(sae_ids)) < len(sae_ids):
        raise InputError("an SAE ID is given twice")
    addresses = [_address(name) for name in server_names]
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{directory}: {error.strerror}") from error

    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = _name(f"{kme_id} CA"[:_MAX_COMMON_NAME])
    ca_certificate = (
        _builder(ca_name, ca_name, ca_key, ca_key, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .sign(ca_key, SHA256())
    )
    authority = _Authority(directory, ca_certificate, ca_key)
    files = SiteFiles(
        ca=_save(directory, "ca", ca_certificate, ca_key),
        server=_save(directory, "server", *authority.issue("kme", kme_id, addresses, now)),
        peer=_save(directory, "peer", *authority.issue("kme", kme_id, (), now, client=True)),
        saes={
            sae_id: _save(directory, _sae_name(sae_id), *authority.issue("sae", sae_id, (), now))
            for sae_id in sae_ids
        },
        crl=directory / CRL_NAME,
    )
    authority.publish({}, now)
    return files


def issue_sae(directory: Path | str, sae_id: str, now: datetime) -> Credentials:
    """A certificate for one more SAE of the site in `directory`, or for one whose last is revoked.

    `InputError` if the SAE has one that is still good.
    """
    authority = _Authority.load(Path(directory))
    _check_id(sae_id)
    old = sae_files(authority.directory, sae_id)
    if old.certificate.exists():
        if _certificate(old.certificate).serial_number not in authority.revoked():
            raise InputError(f"{old.certificate}: still good; revoke it first")
        for path in (old.certificate, old.key):
            path.unlink(missing_ok=True)
    return _save(authority.directory, _sae_name(sae_id), *authority.issue("sae", sae_id, (), now))


def sae_files(directory: Path | str, sae_id: str) -> Credentials:
    """Where the certificate and the key of an SAE of the site in `directory` are."""
    certificate = Path(directory) / f"{_sae_name(sae_id)}.pem"
    return Credentials(certificate, certificate.with_suffix(".key"))


def revoke(directory: Path | str, sae_id: str, now: datetime) -> Path:
    """Take back the certificate of an SAE of the site in `directory`; returns the new CRL's file.

    A KME that runs on that file refuses the SAE from its next request on.
    """
    authority = _Authority.load(Path(directory))
    certificate = _certificate(sae_files(authority.directory, sae_id).certificate)
    before = authority.revoked()
    if certificate.serial_number in before:
        raise InputError(f"the certificate of {sae_id} is revoked already")
    authority.publish({**before, certificate.serial_number: now}, now)
    return authority.directory / CRL_NAME


@dataclass(frozen=True)
class _Authority:
    """A site's authority: what it has in `directory`, its certificate and its private key."""

    directory: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def load(cls, directory: Path) -> _Authority:
        path = directory / "ca.key"
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{path}: not the private key of a site made here: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise InputError(f"{path}: not an elliptic-curve key")
        return cls(directory, _certificate(directory / "ca.pem"), key)

    def issue(
        self,
        role: Role,
        identity: str,
        addresses: Sequence[x509.GeneralName],
        now: datetime,
        *,
        client: bool = False,
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """A new key with a certificate for one purpose: serving, or asking (SAEs; KMEs as `client`)."""
        key = ec.generate_private_key(ec.SECP256R1())
        asks = client or role == "sae"
        purpose = ExtendedKeyUsageOID.CLIENT_AUTH if asks else ExtendedKeyUsageOID.SERVER_AUTH
        alternatives = [x509.UniformResourceIdentifier(urn(role, identity)), *addresses]
        certificate = (
            _builder(_name(identity), self.certificate.subject, key, self.key, now)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .sign(self.key, SHA256())
        )
        return certificate, key

    def revoked(self) -> dict[int, datetime]:
        """Serial number and time of every revocation so far."""
        path = self.directory / CRL_NAME
        try:
            crl = x509.load_pem_x509_crl(path.read_bytes())
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not a certificate revocation list: {error}") from error
        return {entry.serial_number: entry.revocation_date_utc for entry in crl}

    def publish(self, revoked: Mapping[int, datetime], now: datetime) -> None:
        """Sign the list of all revocations and put it in the place of the last one."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - _BEFORE)
            .next_update(now + _VALIDITY)
            .add_extension(x509.CRLNumber(len(revoked)), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        for serial, at in revoked.items():
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at).build()
            )
        crl = builder.sign(self.key, SHA256())
        replace_file(self.directory / CRL_NAME, crl.public_bytes(Encoding.PEM))


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no certificate of this site: {error}") from error


def _sae_name(sae_id: str) -> str:
    return f"sae-{quote(sae_id, safe='')}"


def _check_id(identity: str) -> None:
    if not 1 <= len(identity) <= _MAX_COMMON_NAME:
        raise InputError(f"ID {identity!r}: 1 to {_MAX_COMMON_NAME} characters")


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
            raise InputError(f"{path}: exists already; it is not replaced") from error
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
    return files
