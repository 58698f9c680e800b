"""From one ETSI GS QKD 014 key to the keying material of two security associations."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateways.suites import AES_128_GCM, KEY_OCTETS, PacketCipher, Suite

ENCR_AES_GCM_16 = AES_128_GCM.encryption
"""IKEv2 transform identifier of AES-GCM with a 16-octet ICV (IANA; RFC 4106 §8.2)."""

_LABEL = b"qntn ESP keying material 1"


class Direction(StrEnum):
    """Who sends on the SA. Each direction has a key of its own, so no nonce is ever shared."""

    TO_RESPONDER = "initiator to responder"
    TO_INITIATOR = "responder to initiator"


@dataclass(frozen=True, slots=True)
class SaKeys:
    """Keying material of one SA and the suite it is for. The keys are hidden in `repr`.

    `key` is the cipher key (16 octets); with it goes `salt` (GCM's nonce salt, 4 octets) or `integrity_key`
    (HMAC's, 32 octets), as the suite asks. Raises `ValueError` for any other lengths.
    """

    key: bytes
    salt: bytes = b""
    integrity_key: bytes = b""
    suite: Suite = AES_128_GCM

    def __post_init__(self) -> None:
        suite = self.suite
        lengths = len(self.key), len(self.salt), len(self.integrity_key)
        if lengths != (KEY_OCTETS, suite.salt_octets, suite.integrity_key_octets):
            raise ValueError(
                f"{suite.name} takes {KEY_OCTETS}+{suite.salt_octets}+{suite.integrity_key_octets} octets of KEYMAT"
            )

    def __repr__(self) -> str:
        return f"SaKeys(suite={self.suite.name!r})"

    @classmethod
    def from_keymat(cls, suite: Suite, keymat: bytes) -> SaKeys:
        """Cut keying material: encryption key, then salt or integrity key (RFC 7296 §2.17, RFC 4106 §8.1).

        Takes exactly `suite.keymat_octets`; raises `ValueError` for another length.
        """
        salt_end = KEY_OCTETS + suite.salt_octets
        return cls(keymat[:KEY_OCTETS], keymat[KEY_OCTETS:salt_end], keymat[salt_end:], suite)

    @property
    def keymat(self) -> bytes:
        """The keying material in the order of RFC 7296 §2.17."""
        return self.key + self.salt + self.integrity_key

    def cipher(self) -> PacketCipher:
        """A new cipher object with these keys."""
        return self.suite.cipher(self.keymat)


def derive_sa_keys(
    secret: bytes,
    *,
    key_id: str,
    direction: Direction,
    spi: int,
    freshness: bytes,
    suite: Suite = AES_128_GCM,
) -> SaKeys:
    """Keying material of one SA from a QKD key by HKDF-SHA256 (RFC 5869).

    `secret` is the key as the KMS delivered it, `key_id` its ETSI key_ID, `spi` the receiver's SPI,
    `freshness` what both ends contributed to this exchange and nobody repeats (the HKDF salt): even
    a key delivered twice gives new keying material, so GCM's nonces stay unique.
    """
    fields = [
        _LABEL,
        key_id.encode(),
        direction.encode(),
        spi.to_bytes(4),
        suite.encryption.to_bytes(2),
    ]
    if suite.integrity:
        fields.append(suite.integrity.to_bytes(2))
    # Every field with its length before it: no two different inputs give one info string.
    info = b"".join(len(part).to_bytes(2) + part for part in fields)
    keymat = HKDF(SHA256(), suite.keymat_octets, freshness, info).derive(secret)
    return SaKeys.from_keymat(suite, keymat)
