"""From one ETSI GS QKD 014 key to the keying material of two security associations."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ENCR_AES_GCM_16 = 20
"""IKEv2 transform identifier of AES-GCM with a 16-octet ICV (IANA; RFC 4106 §8.2)."""

KEY_OCTETS = 16
SALT_OCTETS = 4
_LABEL = b"qntn ESP keying material 1"


class Direction(StrEnum):
    """Who sends on the SA. Each direction has a key of its own, so no nonce is ever shared."""

    TO_RESPONDER = "initiator to responder"
    TO_INITIATOR = "responder to initiator"


@dataclass(frozen=True, slots=True)
class SaKeys:
    """KEYMAT of one SA (RFC 4106 §8.1): cipher key 16 octets, nonce salt 4. Hidden in `repr`."""

    key: bytes = field(repr=False)
    salt: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) != KEY_OCTETS or len(self.salt) != SALT_OCTETS:
            raise ValueError(f"AES-128-GCM takes {KEY_OCTETS}+{SALT_OCTETS} octets of KEYMAT")


def derive_sa_keys(
    secret: bytes,
    *,
    key_id: str,
    direction: Direction,
    spi: int,
    freshness: bytes,
    algorithm: int = ENCR_AES_GCM_16,
) -> SaKeys:
    """Keying material of one SA from a QKD key by HKDF-SHA256 (RFC 5869).

    `secret` is the key as the KMS delivered it, `key_id` its ETSI key_ID, `spi` the receiver's SPI,
    `freshness` what both ends contributed to this exchange and nobody repeats (the HKDF salt): even
    a key delivered twice gives new keying material, so GCM's nonces stay unique.
    """
    fields = (
        _LABEL,
        key_id.encode(),
        direction.encode(),
        spi.to_bytes(4),
        algorithm.to_bytes(2),
    )
    # Every field with its length before it: no two different inputs give one info string.
    info = b"".join(len(part).to_bytes(2) + part for part in fields)
    material = HKDF(SHA256(), KEY_OCTETS + SALT_OCTETS, freshness, info).derive(secret)
    return SaKeys(material[:KEY_OCTETS], material[KEY_OCTETS:])
