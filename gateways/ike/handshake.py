"""What both ends of IKE_SA_INIT, IKE_INTERMEDIATE and IKE_AUTH compute."""

from __future__ import annotations

from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey

from gateways.ike.config import IkeConfig, Keying
from gateways.ike.crypto import IkeSuite, SessionKeys, nat_hash, prf
from gateways.ike.numbers import (
    GROUP_ML_KEM_768,
    HASH_IDENTITY,
    HASH_SHA2_256,
    Notice,
)
from gateways.ike.payloads import Notify, Payload, Payloads, Typed
from gateways.ike.sa import Handshake, IkeSa, Peer
from topo.errors import ControlError

NONCE_OCTETS = 32
_ML_KEM_OCTETS = 1088
"""Length of an ML-KEM-768 ciphertext (FIPS 203)."""


def notices(config: IkeConfig, spi_i: bytes, spi_r: bytes) -> list[Payload]:
    """NAT detection and the signature hashes we take: in both messages of IKE_SA_INIT.

    With `force_udp` the source is given wrongly, so that the peer sees a NAT (RFC 7296 §2.23).
    """
    source = b"" if config.force_udp else config.own_address.packed
    hashes = b"".join(number.to_bytes(2) for number in (HASH_SHA2_256, HASH_IDENTITY))
    port, destination = config.port, config.peer_address.packed
    said = (
        (Notice.NAT_DETECTION_SOURCE_IP, nat_hash(spi_i, spi_r, source, port)),
        (Notice.NAT_DETECTION_DESTINATION_IP, nat_hash(spi_i, spi_r, destination, port)),
        (Notice.SIGNATURE_HASH_ALGORITHMS, hashes),
    )
    return [Notify(kind, data).payload() for kind, data in said]


def abilities(config: IkeConfig) -> list[Payload]:
    """What the beginner offers to do."""
    kinds = []
    if config.keying is Keying.PPK:
        kinds = [Notice.USE_PPK, Notice.USE_PPK_INT]
    if config.keying is Keying.PPK or config.ml_kem:
        kinds.append(Notice.INTERMEDIATE_EXCHANGE_SUPPORTED)
    return [Notify(kind).payload() for kind in kinds]


def common_abilities(config: IkeConfig, payloads: Payloads) -> tuple[Peer, list[Payload]]:
    """What we both can do, and how the responder says so: of the two ways of PPKs, RFC 9867's is the better."""
    intermediate = payloads.notify(Notice.INTERMEDIATE_EXCHANGE_SUPPORTED) is not None
    wanted = config.keying is Keying.PPK
    ppk_int = wanted and intermediate and payloads.notify(Notice.USE_PPK_INT) is not None
    ppk = wanted and not ppk_int and payloads.notify(Notice.USE_PPK) is not None
    said = []
    if ppk_int or (intermediate and config.ml_kem):
        said.append(Notice.INTERMEDIATE_EXCHANGE_SUPPORTED)
    said += [Notice.USE_PPK_INT] if ppk_int else [Notice.USE_PPK] if ppk else []
    peer = Peer(ppk, ppk_int, digital_signatures(payloads))
    return peer, [Notify(kind).payload() for kind in said]


def digital_signatures(payloads: Payloads) -> bool:
    """Whether the peer takes RFC 7427 signatures with a hash of ours."""
    notify = payloads.notify(Notice.SIGNATURE_HASH_ALGORITHMS)
    if notify is None:
        return False
    hashes = {int.from_bytes(notify.data[at : at + 2]) for at in range(0, len(notify.data), 2)}
    return HASH_SHA2_256 in hashes


def first_keys(sa: IkeSa, suite: IkeSuite, shared: bytes) -> None:
    """SKEYSEED = prf(Ni | Nr, g^ir) and what follows from it (RFC 7296 §2.14)."""
    skeyseed = prf(sa.ni + sa.nr, shared)
    sa.protect(suite, SessionKeys.derive(suite, skeyseed, sa.seed))


def further_keys(sa: IkeSa, suite: IkeSuite, keys: SessionKeys, shared: bytes) -> SessionKeys:
    """The keys after an additional key exchange (RFC 9370 §2.2.2)."""
    return SessionKeys.derive(suite, prf(keys.d, shared + sa.ni + sa.nr), sa.seed)


def note_intermediate(sa: IkeSa, request: bytes, response: bytes) -> None:
    """Take an IKE_INTERMEDIATE exchange into AUTH, with the keys that protected it (RFC 9242 §3.3.2)."""
    keys, handshake = sa.secrets(), the_handshake(sa)
    sa.handshake = replace(
        handshake,
        int_auth_i=prf(keys.pi, handshake.int_auth_i + request),
        int_auth_r=prf(keys.pr, handshake.int_auth_r + response),
    )


def the_handshake(sa: IkeSa) -> Handshake:
    """The handshake's messages. Raises `ControlError` once they are gone."""
    if sa.handshake is None:
        raise ControlError("the IKE SA is past its handshake")
    return sa.handshake


def signed_octets(
    sa: IkeSa, keys: SessionKeys, identity: Typed, message_id: int, *, initiator: bool
) -> bytes:
    """What AUTH covers (RFC 7296 §2.15, RFC 9242 §3.3.2). `message_id` is that of the first IKE_AUTH message."""
    handshake = the_handshake(sa)
    if initiator:
        octets = handshake.request + sa.nr + prf(keys.pi, identity.body())
    else:
        octets = handshake.response + sa.ni + prf(keys.pr, identity.body())
    if handshake.int_auth_i:
        octets += handshake.int_auth_i + handshake.int_auth_r + message_id.to_bytes(4)
    return octets


class MlKem:
    """The beginner's half of ML-KEM-768: a public key out, a ciphertext in."""

    group = GROUP_ML_KEM_768

    def __init__(self) -> None:
        self._private = MLKEM768PrivateKey.generate()
        self.public = self._private.public_key().public_bytes_raw()

    def shared(self, ciphertext: bytes) -> bytes:
        """The shared secret."""
        if len(ciphertext) != _ML_KEM_OCTETS:
            raise ControlError(f"ML-KEM ciphertext of {len(ciphertext)} octets")
        return self._private.decapsulate(ciphertext)


def ml_kem_answer(public: bytes) -> tuple[bytes, bytes]:
    """The responder's half: shared secret and ciphertext."""
    try:
        return MLKEM768PublicKey.from_public_bytes(public).encapsulate()
    except ValueError:
        raise ControlError("not an ML-KEM-768 public key") from None
