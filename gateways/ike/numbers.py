"""IKEv2's registered numbers (IANA, "Internet Key Exchange Version 2 Parameters") that are used here."""

from __future__ import annotations

from enum import IntEnum, IntFlag


class Exchange(IntEnum):
    """Exchange types (RFC 7296 §3.1, RFC 9242)."""

    IKE_SA_INIT = 34
    IKE_AUTH = 35
    CREATE_CHILD_SA = 36
    INFORMATIONAL = 37
    IKE_INTERMEDIATE = 43


class Flag(IntFlag):
    """Header flags (RFC 7296 §3.1)."""

    INITIATOR = 0x08
    RESPONSE = 0x20


class Kind(IntEnum):
    """Payload types (RFC 7296 §3.2)."""

    NONE = 0
    SA = 33
    KE = 34
    IDI = 35
    IDR = 36
    CERT = 37
    CERTREQ = 38
    AUTH = 39
    NONCE = 40
    NOTIFY = 41
    DELETE = 42
    VENDOR = 43
    TSI = 44
    TSR = 45
    SK = 46
    CONFIGURATION = 47
    EAP = 48


class Notice(IntEnum):
    """Notify message types (RFC 7296 §3.10.1 and the RFC named); below 16384 they are errors."""

    UNSUPPORTED_CRITICAL_PAYLOAD = 1
    INVALID_SYNTAX = 7
    INVALID_MESSAGE_ID = 9
    NO_PROPOSAL_CHOSEN = 14
    INVALID_KE_PAYLOAD = 17
    AUTHENTICATION_FAILED = 24
    SINGLE_PAIR_REQUIRED = 34
    NO_ADDITIONAL_SAS = 35
    TS_UNACCEPTABLE = 38
    TEMPORARY_FAILURE = 43
    CHILD_SA_NOT_FOUND = 44
    INITIAL_CONTACT = 16384
    NAT_DETECTION_SOURCE_IP = 16388
    NAT_DETECTION_DESTINATION_IP = 16389
    COOKIE = 16390
    REKEY_SA = 16393
    SIGNATURE_HASH_ALGORITHMS = 16431  # RFC 7427
    USE_PPK = 16435  # RFC 8784
    PPK_IDENTITY = 16436  # RFC 8784
    NO_PPK_AUTH = 16437  # RFC 8784
    INTERMEDIATE_EXCHANGE_SUPPORTED = 16438  # RFC 9242
    USE_PPK_INT = 16445  # RFC 9867
    PPK_IDENTITY_KEY = 16446  # RFC 9867
    QKD_KEY = 41_078
    """Private use: the ETSI key_ID of the key that a child SA is keyed with directly."""

    @staticmethod
    def is_error(number: int) -> bool:
        """Whether a notify message type says that the request has failed (RFC 7296 §3.10.1)."""
        return number < 16384


class TransformType(IntEnum):
    """Transform types (RFC 7296 §3.3.2, RFC 9370)."""

    ENCRYPTION = 1
    PRF = 2
    INTEGRITY = 3
    KEY_EXCHANGE = 4
    EXTENDED_SEQUENCE_NUMBERS = 5
    ADDITIONAL_KEY_EXCHANGE_1 = 6


class Protocol(IntEnum):
    """Security protocol identifiers (RFC 7296 §3.3.1)."""

    NONE = 0
    IKE = 1
    ESP = 3


class IdType(IntEnum):
    """Identification types (RFC 7296 §3.5)."""

    IPV4 = 1
    FQDN = 2
    EMAIL = 3
    IPV6 = 5
    DISTINGUISHED_NAME = 9
    KEY_ID = 11


class AuthMethod(IntEnum):
    """Authentication methods (RFC 7296 §3.8, RFC 7427)."""

    RSA_SIGNATURE = 1
    SHARED_KEY = 2
    ECDSA_SHA256_P256 = 9
    DIGITAL_SIGNATURE = 14


CERT_X509 = 4
"""Certificate encoding: one DER certificate (RFC 7296 §3.6)."""
TS_IPV4_RANGE, TS_IPV6_RANGE = 7, 8
"""Traffic selector types (RFC 7296 §3.13.1)."""
KEY_LENGTH_ATTRIBUTE = 14
"""The only transform attribute (RFC 7296 §3.3.5)."""
PRF_HMAC_SHA2_256 = 5
GROUP_ECP_256, GROUP_X25519, GROUP_ML_KEM_768 = 19, 31, 36
"""Key exchange methods: RFC 5903, RFC 8031, draft-ietf-ipsecme-ikev2-mlkem."""
HASH_SHA2_256, HASH_IDENTITY = 2, 5
"""Hash algorithms of `SIGNATURE_HASH_ALGORITHMS` (RFC 7427, RFC 8420)."""
PPK_ID_OPAQUE, PPK_ID_FIXED = 1, 2
"""Types of a PPK ID (RFC 8784 §5.1)."""
