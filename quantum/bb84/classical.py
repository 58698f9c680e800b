"""The public channel between the ends: everybody may read it, its length is what counts here.

The security of BB84 needs this channel authenticated, and here it is taken to be so: tags and the
key they use up belong in `ClassicalChannel.send`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

Payload = TypeVar("Payload")


@dataclass
class Traffic:
    """Messages of one kind so far."""

    messages: int = 0
    bits: int = 0


@dataclass
class ClassicalChannel:
    """Carries messages from one end to the other and counts them by kind."""

    traffic: dict[str, Traffic] = field(default_factory=dict)

    def send(self, kind: str, payload: Payload, size_bits: int) -> Payload:
        """What the other end receives; `size_bits` is the message's length on the wire."""
        counter = self.traffic.setdefault(kind, Traffic())
        counter.messages += 1
        counter.bits += size_bits
        return payload
