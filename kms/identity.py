"""How an X.509 certificate carries a KME or SAE ID (ETSI GS QKD 014 clause 4 leaves it open).

The subject's one common name is the ID. A certificate of our PKI says it a second time in a URI
subject alternative name, `urn:qntn:sae:<ID>` or `urn:qntn:kme:<ID>` (percent-encoded); where a
certificate has such a name, it must agree. Certificates are read in the form of
`ssl.SSLSocket.getpeercert`, verified already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote

from topo.errors import ProtocolError

Role = Literal["kme", "sae"]


def urn(role: Role, identity: str) -> str:
    return f"urn:qntn:{role}:{quote(identity, safe='')}"


def identity(certificate: Mapping[str, Any] | None, role: Role) -> str:
    """The KME or SAE ID in a peer's certificate; `ProtocolError` unless it names exactly one."""
    subject = (certificate or {}).get("subject", ())
    names = [value for part in subject for key, value in part if key == "commonName"]
    if len(names) != 1 or not names[0]:
        raise ProtocolError(f"the certificate does not name one {role.upper()}")
    name = str(names[0])
    alternatives = (certificate or {}).get("subjectAltName", ())
    urns = [
        value for kind, value in alternatives if kind == "URI" and value.startswith("urn:qntn:")
    ]
    if urns not in ([], [urn(role, name)]):
        raise ProtocolError(f"the certificate's names contradict each other on the {role.upper()}")
    return name
