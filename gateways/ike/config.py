"""The configuration of an IKE endpoint. Times are integer nanoseconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address

from gateways.events import Policy
from gateways.ike.auth import Credentials
from gateways.ike.crypto import IKE_SUITES, IkeSuite
from gateways.ike.numbers import GROUP_ECP_256, GROUP_X25519
from gateways.selectors import Network
from gateways.suites import AES_128_GCM, Suite

_S = 10**9
RESPONDER_PATIENCE = 1.2
"""How many times what the beginner may carry the other end lets pass before it asks for a new pair itself."""


class Keying(StrEnum):
    """How the keys of the KMS come into the child SAs."""

    PPK = "ppk"
    """Mixed into IKE's keys, a fresh one at each rekey where the peer can (RFC 8784, RFC 9867)."""
    DIRECT = "direct"
    """One key straight into each pair of child SAs, by HKDF; IKE only names it."""
    NONE = "none"
    """Not at all: a plain IKEv2 peer."""


@dataclass(frozen=True, slots=True)
class IkeConfig:
    """One end of one tunnel.

    * `credentials`: how we prove who we are, and check who the peer is.
    * `begins`: whether this end establishes the IKE SA; either end may rekey.
    * `own_address`, `peer_address`, `port`: where IKE runs, for NAT detection; `force_udp`: claim to be behind
      a NAT, so that ESP goes in UDP whether there is one or not (RFC 7296 §2.23).
    * `local`, `remote`: prefixes to protect. `suites`, `ike_suites`, `groups` by preference; `child_groups` for a
      key exchange of each child rekey's own, empty for none. `ml_kem`: ML-KEM-768 besides (RFC 9370).
    * `rekey_after_ns`, `ike_rekey_after_ns`: soft lifetimes, cut by up to `jitter` (a fraction) at random;
      `hard_after_ns`: when `policy` applies. `soft_packets`, `soft_bytes`: what either SA of a pair may carry before it
      is replaced, cut by up to `jitter` too, and `RESPONDER_PATIENCE` times that at the end that does not begin;
      `hard_bytes`: before it ends.
    * `reauth_after_ns`: when the end that begins makes a whole new IKE SA, and with it a new PPK, before it ends the
      old one: for a peer that does not know RFC 9867.
    * `grace_ns`: life of an old inbound SA after the peer has left it: two round trips and the reordering span.
    * `retransmit_ns`: first retransmission timeout, longer than one round trip; doubles up to
      `longest_retransmit_ns`, no further: a satellite link loses by noise, not by congestion. After `attempts`
      transmissions without a sign of life the peer is dead.
    * `dpd_after_ns`: silence after which the peer is asked whether it lives.
    * `half_open_ns`: longest life of an IKE SA that is not authenticated; beyond `cookies_from` of them each
      beginner must return a cookie, beyond `half_open_limit` the one that has been silent
      longest makes room.
    """

    own_id: str
    peer_id: str
    credentials: Credentials = field(repr=False)
    begins: bool
    local: tuple[Network, ...]
    remote: tuple[Network, ...]
    own_address: IPv4Address
    peer_address: IPv4Address
    port: int = 4500
    force_udp: bool = True
    keying: Keying = Keying.PPK
    policy: Policy = Policy.FAIL_CLOSED
    suites: tuple[Suite, ...] = (AES_128_GCM,)
    ike_suites: tuple[IkeSuite, ...] = IKE_SUITES
    groups: tuple[int, ...] = (GROUP_X25519, GROUP_ECP_256)
    child_groups: tuple[int, ...] = ()
    ml_kem: bool = False
    rekey_after_ns: int = 120 * _S
    hard_after_ns: int = 180 * _S
    ike_rekey_after_ns: int = 3600 * _S
    reauth_after_ns: int | None = None
    jitter: float = 0.1
    grace_ns: int = 5 * _S
    soft_packets: int = 2**31
    soft_bytes: int = 2**36
    hard_bytes: int = 2**37
    retransmit_ns: int = _S
    longest_retransmit_ns: int = 4 * _S
    attempts: int = 8
    dpd_after_ns: int = 30 * _S
    half_open_ns: int = 30 * _S
    cookies_from: int = 8
    half_open_limit: int = 64

    @property
    def key_required(self) -> bool:
        """Whether nothing may be established without a key from the KMS."""
        return self.keying is not Keying.NONE and self.policy is not Policy.HYBRID
