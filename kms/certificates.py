"""Whose request it is: the SAE ID out of a connection's certificate, checked anew for each request.

TLS has verified the chain, the purpose and the dates once, when the connection was made. Dates go
by and certificates are revoked while connections stay open, so both are looked at again whenever
something is asked (the clock being the KME's, not the system's).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from kms.identity import Role, identity
from kms.revocation import RevocationList
from topo.errors import ProtocolError


@dataclass(frozen=True)
class Caller:
    """What a connection's certificate says."""

    name: str
    issuer: bytes
    serial: int
    not_before: datetime
    not_after: datetime

    @classmethod
    def of(
        cls,
        decoded: Mapping[str, Any],
        der: bytes,
        role: Role = "sae",
        authorities: Sequence[x509.Certificate] = (),
    ) -> Caller:
        """From the two forms of `ssl.SSLObject.getpeercert`; `ProtocolError` if it names none such.

        With `authorities`, one of them must have issued it: TLS trusts others for other roles.
        """
        name = identity(decoded, role)
        try:
            certificate = x509.load_der_x509_certificate(der)
            if authorities and not any(_issued(certificate, by) for by in authorities):
                raise ProtocolError(f"the certificate's authority makes no {role.upper()} here")
            return cls(
                name=name,
                issuer=certificate.issuer.public_bytes(),
                serial=certificate.serial_number,
                not_before=certificate.not_valid_before_utc,
                not_after=certificate.not_valid_after_utc,
            )
        except ValueError as error:  # stricter than TLS, which has accepted it
            raise ProtocolError(f"the certificate cannot be read: {error}") from error

    def check(self, revocations: RevocationList | None, now: datetime) -> None:
        """`ProtocolError` if the certificate is not good now; `InputError` if nobody can say."""
        if not self.not_before <= now <= self.not_after:
            raise ProtocolError("the certificate is not valid now")
        if revocations is not None and revocations.is_revoked(self.issuer, self.serial, now):
            raise ProtocolError("the certificate is revoked")


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
