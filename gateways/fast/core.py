"""What the packet path asks of the tunnel whose packets it carries."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from gateways.esp import InboundSa, OutboundSa
from gateways.selectors import TrafficSelectors


class Core(Protocol):
    """A tunnel's SAs and policy, one packet at a time or, with `outbound` and `inbound`, many."""

    drops: Counter[str]

    @property
    def selectors(self) -> TrafficSelectors:
        """What may enter the tunnel."""

    @property
    def outbound(self) -> OutboundSa | None:
        """The SA to send on."""

    def inbound(self, spi: int) -> InboundSa | None:
        """The SA that receives on an SPI."""

    def sealed(self, now_ns: int) -> None:
        """Learn that packets were sealed on the outbound SA."""

    def opened(self, sa: InboundSa, now_ns: int) -> None:
        """Learn that good packets came on an SA."""

    def from_inside(self, packet: bytes, now_ns: int) -> bytes | None:
        """The datagram that carries one inner packet, or None."""

    def from_outside(self, datagram: bytes, now_ns: int) -> bytes | None:
        """The inner packet of one datagram, or None."""
