"""How two gateways agree on keys: what both ends share. No socket, no clock.

::

    initiator                                   responder
    FetchKey from its KMS
    PROPOSE (key_ID, SPI)           ------->    FetchKeyById from its KMS
                                                installs inbound
    installs inbound and outbound   <-------    ACCEPT (SPI)
    sends on the new SA             ======>     first good packet, or
    CONFIRM                         ------->    switches outbound to the new SA
    retires the old inbound SA      <-------    DONE

Make before break: an end sends on an SA only when the other end has it installed, and an old
inbound SA outlives the switch by a grace period. The initiator alone retransmits, with exponential
back-off; the responder answers a repeated request with the same answer (as in RFC 7296 §2.1).

The machines take `now_ns` (any monotonic clock, integer nanoseconds) and give back `events`, which
the caller carries out. They stand where IKEv2 will come.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from gateways.esp import MIN_SPI
from gateways.keys import SaKeys
from gateways.messages import ControlCodec


class Policy(StrEnum):
    """What happens when an SA reaches its hard lifetime and no new key could be had."""

    FAIL_CLOSED = "fail-closed"
    """The SA ends; nothing passes until a key comes."""
    HOLD = "hold"
    """The SA is kept, beyond its time, until its sequence numbers are used up."""


class Phase(StrEnum):
    """Where the key agreement stands. A responder is always idle: it only answers."""

    IDLE = "idle"
    FETCHING = "fetching"
    PROPOSING = "proposing"
    CONFIRMING = "confirming"


@dataclass(frozen=True, slots=True)
class ControlConfig:
    """Lifetimes and timers; both ends should have the same.

    `rekey_after_ns`: age of an SA pair at which the initiator replaces it. `hard_after_ns`: age
    at which `policy` applies. `soft_packets`: packets on one SA, either direction, at which the
    initiator replaces the pair. `grace_ns`: how long an old inbound SA is kept after the switch, at
    least the network's reordering span. `retransmit_ns`: first retransmission timeout, longer than
    one round trip; it doubles with each of `attempts` transmissions.
    """

    rekey_after_ns: int
    hard_after_ns: int
    grace_ns: int
    retransmit_ns: int
    soft_packets: int = 2**31
    attempts: int = 6
    policy: Policy = Policy.FAIL_CLOSED


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
    """Send a control message to the peer."""

    message: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class InstallInbound:
    """Accept packets on this SA from now on."""

    spi: int
    key_id: str
    keys: SaKeys


@dataclass(frozen=True, slots=True)
class InstallOutbound:
    """Send on this SA from now on, and on no other."""

    spi: int
    key_id: str
    keys: SaKeys


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
    """A pair of SAs is in use both ways; `rekey` if it replaced another."""

    key_id: str
    spi_in: int
    spi_out: int
    rekey: bool


@dataclass(frozen=True, slots=True)
class Held:
    """Policy `hold` was used: an SA pair lives on past its hard lifetime."""

    key_id: str


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
    | Held
    | Failed
    | Entered
)


@dataclass(frozen=True, slots=True)
class SaPair:
    """The two SAs made from one key.

    `generation` counts agreements at this end. `born_ns` starts the pair's lifetime: for the
    initiator when it proposed the key, so that it never sends on an SA the responder has ended.
    """

    generation: int
    born_ns: int
    key_id: str
    spi_in: int
    spi_out: int
    outbound_keys: SaKeys


@dataclass(slots=True)
class _Inbound:
    generation: int
    ends_at_ns: int | None
    """None: held without a time limit."""


class Endpoint:
    """What both ends of a tunnel do: which SAs are installed, which is sent on, when each ends."""

    def __init__(
        self, config: ControlConfig, codec: ControlCodec, token_bytes: Callable[[int], bytes]
    ) -> None:
        self.config = config
        self.retransmissions = 0
        self._codec = codec
        self._token_bytes = token_bytes
        self._events: list[Event] = []
        self._current: SaPair | None = None
        self._sending_ends_ns: int | None = None
        """When the pair in use reaches its hard lifetime; None: there is none, or it is held."""
        self._generation = 0
        self._inbound: dict[int, _Inbound] = {}

    def events(self) -> list[Event]:
        """What to do now, in this order. Each event is given once."""
        events, self._events = self._events, []
        return events

    def next_deadline_ns(self) -> int | None:
        """When `tick` must be called next."""
        ends = [self._sending_ends_ns, *(sa.ends_at_ns for sa in self._inbound.values())]
        return min((at for at in ends if at is not None), default=None)

    def tick(self, now_ns: int) -> None:
        """End the SAs whose time has come; apply the policy to the pair in use."""
        if self._sending_ends_ns is not None and self._sending_ends_ns <= now_ns:
            self._hard_lifetime()
        for spi, sa in list(self._inbound.items()):
            if sa.ends_at_ns is not None and sa.ends_at_ns <= now_ns:
                del self._inbound[spi]
                self._emit(RetireInbound(spi))

    def start(self, now_ns: int) -> None:
        """Begin to agree on keys, if that is this end's part."""

    def receive(self, data: bytes, now_ns: int) -> None:
        """Take a control message from the peer. Raises `ControlError` if it is none."""
        raise NotImplementedError

    def key_fetched(self, exchange: bytes, key_id: str, key: bytes, now_ns: int) -> None:
        """Take the key that `FetchKey` or `FetchKeyById` asked for."""
        raise NotImplementedError

    def key_refused(self, exchange: bytes, reason: str, now_ns: int) -> None:
        """Take the news that the KMS has no such key."""
        raise NotImplementedError

    def good_packet(self, spi: int, now_ns: int) -> None:
        """Learn that the peer sends on our inbound SA `spi`."""
        raise NotImplementedError

    def soft_limit(self, now_ns: int) -> None:
        """Learn that an SA in use has carried `soft_packets` packets."""

    def _emit(self, event: Event) -> None:
        self._events.append(event)

    def _fresh_spi(self) -> int:
        while True:
            spi = int.from_bytes(self._token_bytes(4))
            if spi >= MIN_SPI and spi not in self._inbound:
                return spi

    def _install_inbound(self, spi: int, key_id: str, keys: SaKeys, now_ns: int) -> int:
        """Accept on `spi` from now on; the generation of the pair it belongs to.

        It outlives the peer's use of it by the grace period: the peer's clock started earlier.
        """
        self._generation += 1
        ends_at_ns = now_ns + self.config.hard_after_ns + self.config.grace_ns
        self._inbound[spi] = _Inbound(self._generation, ends_at_ns)
        self._emit(InstallInbound(spi, key_id, keys))
        return self._generation

    def _switch(self, pair: SaPair) -> None:
        """Send on `pair` from now on."""
        rekey = self._current is not None
        self._current = pair
        self._sending_ends_ns = pair.born_ns + self.config.hard_after_ns
        self._emit(InstallOutbound(pair.spi_out, pair.key_id, pair.outbound_keys))
        self._emit(Established(pair.key_id, pair.spi_in, pair.spi_out, rekey))

    def _hard_lifetime(self) -> None:
        pair, self._sending_ends_ns = self._current, None
        if pair is None:
            return
        if self.config.policy is Policy.HOLD:
            self._inbound[pair.spi_in].ends_at_ns = None
            self._emit(Held(pair.key_id))
        else:
            self._current = None
            self._emit(RetireOutbound(pair.spi_out))
            self._emit(Failed("hard lifetime reached without a new key"))

    def _retire_older(self, now_ns: int) -> None:
        """Let the inbound SAs older than the pair in use end after the grace period."""
        if self._current is None:
            return
        grace_end = now_ns + self.config.grace_ns
        for sa in self._inbound.values():
            if sa.generation < self._current.generation:
                ends_at_ns = grace_end if sa.ends_at_ns is None else sa.ends_at_ns
                sa.ends_at_ns = min(ends_at_ns, grace_end)
