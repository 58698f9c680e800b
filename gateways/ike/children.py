"""The child SAs of a tunnel: which are installed, which is sent on, when each ends. Make before break.

A pair of SAs that this end asked for is sent on at once: the peer installed its inbound half before it answered. A
pair that the peer asked for is sent on when the peer shows that it has it: by a packet on it, or by deleting the old
pair. An old inbound SA outlives that by a grace period, and is then erased.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gateways.esp import MIN_SPI
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
)
from gateways.ike.config import IkeConfig
from gateways.ike.sa import IkeSa
from gateways.keys import SaKeys
from gateways.selectors import TrafficSelectors


@dataclass(slots=True, eq=False)
class Child:
    """A pair of ESP SAs. `nonce`: the lowest of the exchange that made it, which decides a collision."""

    ike: IkeSa
    spi_in: int
    spi_out: int
    key_id: str
    inbound: SaKeys
    outbound: SaKeys
    selectors: TrafficSelectors
    nonce: bytes
    made_ns: int
    generation: int = 0
    soft_ns: int | None = None
    ends_ns: int | None = None
    """When its inbound half ends; None: held without a time limit."""
    leaving: bool = False
    """Replaced or deleted: nothing is sent on it any more."""
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
            ended = self._hard_lifetime()
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
        self.installed[child.spi_in] = child
        self._emit(InstallInbound(child.spi_in, child.key_id, child.inbound, child.selectors))

    def use(self, child: Child) -> None:
        """Send on this pair from now on."""
        if child is self.current or child.leaving:
            return
        rekey = self.current is not None
        if self.current is not None:
            self.current.soft_ns = None
        self.current = child
        config = self._config
        life = config.rekey_after_ns * (1 - config.jitter * self.fraction())
        child.soft_ns = child.made_ns + round(life)
        self._hard_ns = child.made_ns + config.hard_after_ns
        self._emit(InstallOutbound(child.spi_out, child.key_id, child.outbound, child.selectors))
        self._emit(Established(child.key_id, child.spi_in, child.spi_out, rekey))

    def good_packet(self, spi: int) -> None:
        """The peer sends on our inbound SA `spi`: so it has that pair whole."""
        child = self.installed.get(spi)
        if child and (self.current is None or child.generation > self.current.generation):
            self.use(child)

    def leave(self, child: Child, now_ns: int) -> None:
        """Send on this pair no more; its inbound half ends after the grace period."""
        child.leaving, child.soft_ns = True, None
        if child is self.current:
            others = [other for other in self.installed.values() if not other.leaving]
            newest = max(others, key=lambda other: other.generation, default=None)
            if newest is not None:
                self.use(newest)
            else:
                self._stop()
        if child.spi_in in self.installed:
            grace_end = now_ns + self._config.grace_ns
            child.ends_ns = min(child.ends_ns or grace_end, grace_end)

    def of(self, ike: IkeSa) -> list[Child]:
        """The pairs made or taken over by an IKE SA."""
        return [child for child in self.installed.values() if child.ike is ike]

    def by_peer_spi(self, ike: IkeSa, spi: bytes) -> Child | None:
        """The pair whose outbound SPI is `spi`, which is how the peer names it."""
        number = int.from_bytes(spi)
        return next((child for child in self.of(ike) if child.spi_out == number), None)

    def _stop(self) -> None:
        if self.current is not None:
            spi = self.current.spi_out
            self.current, self._hard_ns = None, None
            self._emit(RetireOutbound(spi))

    def _erase(self, child: Child) -> None:
        child.leaving = True
        if child is self.current:
            self._stop()
        del self.installed[child.spi_in]
        self._emit(RetireInbound(child.spi_in))

    def _hard_lifetime(self) -> Child | None:
        child, self._hard_ns = self.current, None
        if child is None:
            return None
        policy, reason = self._config.policy, "hard lifetime reached without a new key"
        if policy is Policy.HOLD:
            child.ends_ns = None
            self._emit(PolicyUsed(policy, reason))
            self._emit(Held(child.key_id))
            return None
        child.leaving, child.soft_ns = True, None
        self._stop()
        if policy is Policy.FAIL_CLOSED:
            self._emit(PolicyUsed(policy, reason))
        self._emit(Failed(reason))
        return child
