"""What a key agreement tells the data plane, and what the data plane carries out.

`gateways.ike` gives these; `gateways.tunnel` installs and retires the SAs, the shell sends the messages and asks
the KMS.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from gateways.esp import Lifetime, OutboundSa
from gateways.keys import SaKeys
from gateways.selectors import TrafficSelectors


class Policy(StrEnum):
    """What happens when a new key is due and the KMS has none."""

    FAIL_CLOSED = "fail-closed"
    """The SA ends at its hard lifetime; nothing passes until a key comes."""
    HOLD = "hold"
    """The SA is kept beyond its hard lifetime, until its sequence numbers are used up."""
    HYBRID = "hybrid"
    """The SA is replaced with keys from Diffie-Hellman (and ML-KEM) alone; also the first one."""


class Phase(StrEnum):
    """Where the key agreement stands."""

    IDLE = "idle"
    FETCHING = "fetching"
    ESTABLISHING = "establishing"
    REKEYING = "rekeying"


@dataclass(frozen=True, slots=True)
class FetchKey:
    """Get a new key from our KMS; answer with `key_fetched` or `key_refused`."""

    exchange: bytes


@dataclass(frozen=True, slots=True)
class FetchKeyById:
    """Get the key the peer names from our KMS; answer with `key_fetched` or `key_refused`."""

    exchange: bytes
    key_id: str


@dataclass(frozen=True, slots=True)
class SendControl:
    """Send an IKE message to the peer."""

    message: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class InstallInbound:
    """Accept packets on this SA from now on. `selectors`: the traffic it may carry, as agreed."""

    spi: int
    key_id: str
    keys: SaKeys
    selectors: TrafficSelectors
    lifetime: Lifetime


@dataclass(frozen=True, slots=True)
class InstallOutbound:
    """Send on this SA from now on, and on no other.

    `sa` is the one object that seals with `keys`, and counts. `keys` are to be told, never to be sealed with.
    """

    spi: int
    key_id: str
    keys: SaKeys
    selectors: TrafficSelectors
    sa: OutboundSa


@dataclass(frozen=True, slots=True)
class RetireInbound:
    """Accept packets on this SA no longer and forget its key."""

    spi: int


@dataclass(frozen=True, slots=True)
class RetireOutbound:
    """Send on this SA no longer; there is no other."""

    spi: int


@dataclass(frozen=True, slots=True)
class Established:
    """A pair of SAs is in use both ways; `rekey` if it replaced another.

    `key_id` names the QKD key in its keying material, empty if there is none.
    """

    key_id: str
    spi_in: int
    spi_out: int
    rekey: bool


@dataclass(frozen=True, slots=True)
class Worn:
    """An SA in use has carried its soft limit of packets or octets: its pair is to be replaced."""

    spi_in: int
    spi_out: int


@dataclass(frozen=True, slots=True)
class Held:
    """Policy `hold` was used: an SA pair lives on past its hard lifetime."""

    key_id: str


@dataclass(frozen=True, slots=True)
class PolicyUsed:
    """No key was to be had and the policy said what to do: which, and why it was needed."""

    policy: Policy
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A key agreement failed, or an SA ended without a successor, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Entered:
    """The key agreement moved to `phase`."""

    phase: Phase


Event = (
    FetchKey
    | FetchKeyById
    | SendControl
    | InstallInbound
    | InstallOutbound
    | RetireInbound
    | RetireOutbound
    | Established
    | Worn
    | Held
    | PolicyUsed
    | Failed
    | Entered
)
