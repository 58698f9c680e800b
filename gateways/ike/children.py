"""The child SAs of a tunnel: which are installed, which is sent on, when each ends. Make before break.

A pair of SAs that this end asked for is sent on at once: the peer installed its inbound half before it answered. A
pair that the peer asked for is sent on when the peer shows that it has it: by a packet on it, or by deleting the old
pair. An old inbound SA outlives that by a grace period, and is then erased.

A pair that was sent on once is never gone back to, whatever becomes of its successor. One that never was takes over
when the peer ends a newer one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from gateways.esp import MIN_SPI, Lifetime, OutboundSa
from gateways.events import (
    Established,
    Event,
    Failed,
    Held,
    InstallInbound,
    InstallOutbound,
    Policy,
    PolicyUsed,
    RetireInbound,
    RetireOutbound,
    Worn,
)
from gateways.ike.config import RESPONDER_PATIENCE, IkeConfig
from gateways.ike.sa import IkeSa
from gateways.keys import SaKeys
from gateways.selectors import TrafficSelectors


@dataclass(slots=True, eq=False)
class Child:
    """A pair of ESP SAs. `nonce`: the lowest of the exchange that made it, which decides a collision.

    `outbound` is made with the pair and goes with it, so that no number is ever used twice with its key.
    """

    ike: IkeSa
    spi_in: int
    spi_out: int
    key_id: str
    inbound: SaKeys
    outbound_keys: SaKeys
    outbound: OutboundSa
    selectors: TrafficSelectors
    nonce: bytes
    made_ns: int
    generation: int = 0
    share: float = 1.0
    """Of its soft lifetimes: what jitter has left of them."""
    soft_ns: int | None = None
    ends_ns: int | None = None
    """When its inbound half ends; None: held without a time limit."""
    used: bool = False
    """It is or was sent on."""
    leaving: bool = False
    """Replaced or deleted: nothing is sent on it any more."""
    worn: bool = False
    """An SA of it has carried its soft limit."""
    failures: int = 0
    """Vain attempts to replace it."""
    rival: Child | None = field(default=None, repr=False)
    """The pair that the peer made to replace this one, while we were at it too."""


class Children:
    """The pairs of SAs of one tunnel, of whichever IKE SA."""

    def __init__(
        self,
        config: IkeConfig,
        emit: Callable[[Event], None],
        token_bytes: Callable[[int], bytes],
    ) -> None:
        self.current: Child | None = None
        self.installed: dict[int, Child] = {}
        """By inbound SPI."""
        self._config = config
        self._emit = emit
        self._token_bytes = token_bytes
        self._generation = 0
        self._hard_ns: int | None = None
        """When the pair in use reaches its hard lifetime; None: there is none, or it is held."""

    def next_deadline_ns(self) -> int | None:
        """When `tick` must be called next."""
        ends = [self._hard_ns, *(child.ends_ns for child in self.installed.values())]
        return min((at for at in ends if at is not None), default=None)

    def tick(self, now_ns: int) -> Child | None:
        """End the SAs whose time has come; the pair in use if its hard lifetime ended it."""
        ended = None
        if self._hard_ns is not None and self._hard_ns <= now_ns:
            ended = self._hard_lifetime(now_ns)
        for child in list(self.installed.values()):
            if child.ends_ns is not None and child.ends_ns <= now_ns:
                self._erase(child)
        return ended

    def fresh_spi(self) -> int:
        """An inbound SPI that is not in use."""
        while True:
            spi = int.from_bytes(self._token_bytes(4))
            if spi >= MIN_SPI and spi not in self.installed:
                return spi

    def fraction(self) -> float:
        """A random number in [0, 1)."""
        return int.from_bytes(self._token_bytes(4)) / 2**32

    def install(self, child: Child, now_ns: int) -> None:
        """Accept packets on a new pair from now on."""
        self._generation += 1
        child.generation = self._generation
        child.ends_ns = now_ns + self._config.hard_after_ns + self._config.grace_ns
        child.share = 1 - self._config.jitter * self.fraction()
        child.outbound.lifetime = lifetime = self._lifetime(child.share)
        self.installed[child.spi_in] = child
        spi, key_id, selectors = child.spi_in, child.key_id, child.selectors
        self._emit(InstallInbound(spi, key_id, child.inbound, selectors, lifetime))

    def use(self, child: Child) -> None:
        """Send on this pair from now on, unless it was sent on before, soon ends with its IKE SA, or a newer one is."""
        current = self.current
        if child.leaving or child.used or child.ike.closing:
            return
        if current is not None:
            if not current.leaving and current.generation > child.generation:
                return
            current.soft_ns = None
        rekey = current is not None
        self.current, child.used = child, True
        config = self._config
        child.soft_ns = child.made_ns + round(config.rekey_after_ns * child.share)
        self._hard_ns = child.made_ns + config.hard_after_ns
        spi, key_id, selectors = child.spi_out, child.key_id, child.selectors
        self._emit(InstallOutbound(spi, key_id, child.outbound_keys, selectors, child.outbound))
        self._emit(Established(key_id, child.spi_in, spi, rekey))

    def good_packet(self, spi: int, now_ns: int) -> None:
        """The peer sends on our inbound SA `spi`: so it has that pair whole."""
        child = self.installed.get(spi)
        if child is not None and not self.late(child.made_ns, now_ns):
            self.use(child)

    def late(self, made_ns: int, now_ns: int) -> bool:
        """Whether a pair made then is not to be begun with: it would be past its hard lifetime.

        Policy `hold` takes it even then, as long as the peer has it, who erases what was never used.
        """
        config = self._config
        grace_ns = config.grace_ns if config.policy is Policy.HOLD else 0
        return made_ns + config.hard_after_ns + grace_ns <= now_ns

    def worn(self, spi: int | None, now_ns: int) -> None:
        """An SA of a pair has carried its soft limit: replace the pair, if it is the one in use.

        The end that did not begin gives the other a round trip to ask first.
        """
        child = self._pair(spi)
        if child is None or child is not self.current or child.worn:
            return
        child.worn = True
        if child.soft_ns is not None:
            wait = 0 if self._config.begins else self._config.retransmit_ns
            child.soft_ns = min(child.soft_ns, now_ns + wait)
        self._emit(Worn(child.spi_in, child.spi_out))

    def used_up(self, spi: int | None, reason: str, now_ns: int) -> Child | None:
        """An SA of a pair has carried all it may. The pair, if it was in use and nothing takes its place."""
        child = self._pair(spi)
        return child if child is not None and self.end(child, reason, now_ns) else None

    def deleted(self, child: Child, now_ns: int) -> bool:
        """Leave a pair that the peer has deleted; whether it was in use and nothing takes its place."""
        due = child.worn or child.failures > 0 or child.soft_ns is None or child.soft_ns <= now_ns
        reason = "the peer ended the SAs, and there are no newer"
        return self.end(child, reason, now_ns, for_lack_of_a_key=due)

    def end(
        self, child: Child, reason: str, now_ns: int, *, for_lack_of_a_key: bool = True
    ) -> bool:
        """Leave a pair for `reason`; whether it was in use and nothing takes its place."""
        was_used = child is self.current
        self.leave((child,), now_ns)
        if not was_used or self.current is not None:
            return False
        if for_lack_of_a_key and self._config.policy is Policy.FAIL_CLOSED:
            self._emit(PolicyUsed(Policy.FAIL_CLOSED, reason))
        self._emit(Failed(reason))
        return True

    def leave(self, pairs: Iterable[Child], now_ns: int) -> None:
        """Send on these pairs no more; their inbound halves end after the grace period."""
        pairs = tuple(pairs)
        for child in pairs:
            child.leaving, child.soft_ns = True, None
            if child.spi_in in self.installed:
                grace_end = now_ns + self._config.grace_ns
                child.ends_ns = min(child.ends_ns or grace_end, grace_end)
        if self.current in pairs:
            left = self.current
            for child in sorted(self.installed.values(), key=lambda other: -other.generation):
                if not self.late(child.made_ns, now_ns):
                    self.use(child)
            if self.current is left:
                self._stop()

    def of(self, ike: IkeSa) -> list[Child]:
        """The pairs made or taken over by an IKE SA."""
        return [child for child in self.installed.values() if child.ike is ike]

    def by_peer_spi(self, ike: IkeSa, spi: bytes) -> Child | None:
        """The pair whose outbound SPI is `spi`, which is how the peer names it."""
        number = int.from_bytes(spi)
        return next((child for child in self.of(ike) if child.spi_out == number), None)

    def _pair(self, spi: int | None) -> Child | None:
        """The pair of an inbound SPI; None: the one in use."""
        return self.current if spi is None else self.installed.get(spi)

    def _lifetime(self, share: float) -> Lifetime:
        config = self._config
        if not config.begins:
            share *= RESPONDER_PATIENCE
        return Lifetime(
            max(1, round(config.soft_packets * share)),
            min(max(1, round(config.soft_bytes * share)), config.hard_bytes),
            config.hard_bytes,
        )

    def _stop(self) -> None:
        if self.current is not None:
            spi = self.current.spi_out
            self.current, self._hard_ns = None, None
            self._emit(RetireOutbound(spi))

    def _erase(self, child: Child) -> None:
        child.leaving = True
        if child is self.current:
            self._stop()
        child.outbound.erase()
        del self.installed[child.spi_in]
        self._emit(RetireInbound(child.spi_in))

    def _hard_lifetime(self, now_ns: int) -> Child | None:
        child, self._hard_ns = self.current, None
        if child is None:
            return None
        policy, reason = self._config.policy, "hard lifetime reached without a new key"
        if policy is Policy.HOLD:
            child.ends_ns = None
            self._emit(PolicyUsed(policy, reason))
            self._emit(Held(child.key_id))
            return None
        return child if self.end(child, reason, now_ns) else None
