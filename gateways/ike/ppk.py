"""The KMS's keys in IKE: PPK IDs, PPK confirmation, keys mixed in (RFC 8784, RFC 9867).

RFC 9867 numbers its notifications USE_PPK_INT 16445 and PPK_IDENTITY_KEY 16446 (IANA; libreswan has the same). In
IKE_INTERMEDIATE the keys are SKEYSEED' = prf+(PPK, SK_d) and from it the usual seven, the confirmation the first
8 octets of prf(PPK, Ni | Nr | SPIi | SPIr), as libreswan has them too. In CREATE_CHILD_SA, SK_d' = prf+(PPK, SK_d)
stands for SK_d in that one exchange; as Nr is not known when the request is made, its confirmation is over
Ni | SPIi | SPIr.
"""

from __future__ import annotations

from gateways.ike.crypto import PRF_OCTETS, IkeSuite, SessionKeys, prf, prf_plus
from gateways.ike.numbers import PPK_ID_FIXED, Notice
from gateways.ike.payloads import Notify, Payload, Payloads
from topo.errors import ControlError

CONFIRMATION_OCTETS = 8
MAX_KEY_ID_OCTETS = 255


def ppk_identity(key_id: str) -> bytes:
    """A PPK ID of fixed type: the ETSI key_ID as it is (RFC 8784 §5.1)."""
    return bytes((PPK_ID_FIXED,)) + key_id.encode()


def key_id_of(identity: bytes) -> str:
    """The ETSI key_ID in a PPK ID. Raises `ControlError` for a PPK ID of another type."""
    if identity[:1] != bytes((PPK_ID_FIXED,)):
        raise ControlError("PPK ID of an unknown type")
    return key_id_text(identity[1:])


def key_id_text(data: bytes) -> str:
    """A key_ID. Raises `ControlError` if it is not text of 1 to 255 octets."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ControlError("key_ID is not UTF-8") from None
    if not 0 < len(data) <= MAX_KEY_ID_OCTETS or not text.isprintable():
        raise ControlError("key_ID is empty, too long or not printable")
    return text


def confirmation(ppk: bytes, nonces: bytes, spi_i: bytes, spi_r: bytes) -> bytes:
    """What shows, before any key is changed, that both ends mean the same PPK."""
    return prf(ppk, nonces + spi_i + spi_r)[:CONFIRMATION_OCTETS]


def identity_key(key_id: str, confirmed: bytes) -> Payload:
    """A PPK_IDENTITY_KEY notification."""
    return Notify(Notice.PPK_IDENTITY_KEY, ppk_identity(key_id) + confirmed).payload()


def parse_identity_key(payloads: Payloads) -> tuple[str, bytes] | None:
    """key_ID and confirmation of the first PPK that the peer offers; None if it offers none."""
    notify = payloads.notify(Notice.PPK_IDENTITY_KEY)
    if notify is None:
        return None
    if len(notify.data) <= CONFIRMATION_OCTETS:
        raise ControlError("PPK_IDENTITY_KEY cut short")
    return key_id_of(notify.data[:-CONFIRMATION_OCTETS]), notify.data[-CONFIRMATION_OCTETS:]


def keys_with_ppk(suite: IkeSuite, keys: SessionKeys, seed: bytes, ppk: bytes) -> SessionKeys:
    """The keys of an IKE SA after a PPK came in IKE_INTERMEDIATE (RFC 9867)."""
    return SessionKeys.derive(suite, sk_d_with_ppk(keys.d, ppk), seed)


def sk_d_with_ppk(sk_d: bytes, ppk: bytes) -> bytes:
    """SK_d' = prf+(PPK, SK_d)."""
    return prf_plus(ppk, sk_d, PRF_OCTETS)
