"""The public channel between the ends: everybody may read it and change what goes over it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from quantum.bb84.messages import Kind

Hook = Callable[[int, bytes], bytes]
"""(number of the message, counted from 0; its frame) -> what arrives in its place."""


def _untouched(number: int, frame: bytes) -> bytes:
    return frame


@dataclass
class Traffic:
    """Messages of one kind so far."""

    messages: int = 0
    bits: int = 0
    """With their headers."""


@dataclass
class ClassicalChannel:
    """Carries frames from one end to the other and counts them by kind.

    `hook` sees every frame on its way and may change it.
    """

    hook: Hook = _untouched
    traffic: dict[Kind, Traffic] = field(default_factory=dict)
    messages: int = 0

    def carry(self, frame: bytes) -> bytes:
        """What arrives of a frame that an end has sent."""
        counter = self.traffic.setdefault(Kind(frame[0]), Traffic())
        counter.messages += 1
        counter.bits += 8 * len(frame)
        self.messages += 1
        return self.hook(self.messages - 1, frame)

    def report(self) -> dict[str, dict[str, Any]]:
        """Messages and bits by kind, with who sends them and at which stage; JSON-able."""
        return {
            kind.label: {
                "source": kind.source,
                "stage": kind.stage,
                "messages": of.messages,
                "bits": of.bits,
            }
            for kind, of in sorted(self.traffic.items())
        }

    def totals(self) -> dict[str, Any]:
        """Round trips and bits each way, in all and by stage; JSON-able.

        Every message of the ground station waits for the satellite's answer: a round trip.
        """
        stages = dict.fromkeys(kind.stage for kind in sorted(self.traffic))
        return {
            **self._sums(self.traffic),
            "stages": {
                stage: self._sums([kind for kind in self.traffic if kind.stage == stage])
                for stage in stages
            },
        }

    def _sums(self, kinds: Collection[Kind]) -> dict[str, int]:
        ground = [self.traffic[kind] for kind in kinds if kind.source == "ground"]
        satellite = [self.traffic[kind] for kind in kinds if kind.source == "satellite"]
        return {
            "round_trips": sum(of.messages for of in ground),
            "ground_to_satellite_bits": sum(of.bits for of in ground),
            "satellite_to_ground_bits": sum(of.bits for of in satellite),
        }
