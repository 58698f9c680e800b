"""Which certificates an authority has taken back: X.509 CRLs (RFC 5280 §5), read from a file.

The file is PEM, one or more CRLs, each signed by one of the authorities given. It is looked at for
every request (one `stat`) and read again when it has been replaced, so a revocation counts at once,
also on connections that are open. A CRL that cannot be read, that nobody here has signed or that
has run out refuses everybody: it might be hiding the one revocation that matters.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509

from topo.errors import InputError

Revoked = frozenset[tuple[bytes, int]]
"""(issuer's name in DER, serial number)."""


@dataclass
class RevocationList:
    """The CRL file of one KME and what it said when last read."""

    path: Path
    authorities: Sequence[x509.Certificate]
    _seen: tuple[int, int, int] | None = None
    _revoked: Revoked = frozenset()
    _next_update: datetime | None = field(default=None)

    def is_revoked(self, issuer: bytes, serial: int, now: datetime) -> bool:
        """Whether that certificate is on the list; `InputError` if the list cannot be relied on."""
        try:
            about = self.path.stat()
        except OSError as error:
            raise InputError(f"{self.path}: {error.strerror}") from error
        seen = (about.st_mtime_ns, about.st_size, about.st_ino)
        if seen != self._seen:
            self._revoked, self._next_update = _read(self.path, self.authorities)
            self._seen = seen
        if self._next_update is not None and now > self._next_update:
            raise InputError(f"{self.path}: has run out on {self._next_update}; issue a new one")
        return (issuer, serial) in self._revoked


def _read(path: Path, authorities: Sequence[x509.Certificate]) -> tuple[Revoked, datetime | None]:
    """What the CRLs in a file revoke, and when the first of them runs out."""
    try:
        parts = path.read_bytes().split(b"-----BEGIN X509 CRL-----")[1:]
        crls = [x509.load_pem_x509_crl(b"-----BEGIN X509 CRL-----" + part) for part in parts]
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a certificate revocation list: {error}") from error
    if not crls:
        raise InputError(f"{path}: holds no certificate revocation list")
    revoked = set()
    for crl in crls:
        signer = next((ca for ca in authorities if ca.subject == crl.issuer), None)
        if signer is None or not crl.is_signature_valid(signer.public_key()):  # type: ignore[arg-type]
            raise InputError(
                f"{path}: a revocation list that none of the site's authorities signed"
            )
        issuer = crl.issuer.public_bytes()
        revoked |= {(issuer, entry.serial_number) for entry in crl}
    ends = [crl.next_update_utc for crl in crls if crl.next_update_utc is not None]
    return frozenset(revoked), min(ends, default=None)


def load_authorities(path: Path) -> list[x509.Certificate]:
    """The authorities' certificates in a PEM file; `InputError` if there is none."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no authority's certificate: {error}") from error


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` in the place of a file: whoever reads it sees the old or the new one, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)
