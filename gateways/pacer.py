"""When the packets of a constant-rate tunnel leave: slots at absolute times, whatever the traffic. No clock."""

from __future__ import annotations

_NS_PER_S = 1_000_000_000
_BITS = 8


class Pacer:
    """Slots of a line rate: slot n is at `start_ns` + n × packet bits / rate, exactly, so that no error adds up.

    `rate_bps` counts `packet_octets` a slot: the outer IP packet's. Raises `ValueError` unless both are positive.
    """

    def __init__(self, rate_bps: int, packet_octets: int, start_ns: int) -> None:
        if rate_bps <= 0 or packet_octets <= 0:
            raise ValueError(f"{packet_octets} octets at {rate_bps} bit/s: both must be positive")
        self.rate_bps = rate_bps
        self.start_ns = start_ns
        self.skipped = 0
        """Slots that passed while nobody looked: a machine too slow, or stopped."""
        self._slot_bits = packet_octets * _BITS
        self._slot = 0

    @property
    def interval_ns(self) -> float:
        """From slot to slot, ns."""
        return self._slot_bits * _NS_PER_S / self.rate_bps

    def next_ns(self) -> int:
        """When the next slot is: a packet must leave then, with traffic or without."""
        return self.start_ns + self._slot * self._slot_bits * _NS_PER_S // self.rate_bps

    def take(self, now_ns: int) -> bool:
        """Whether a slot is due; if so it is used up.

        One at a time: slots that were missed are passed over and counted, never made up for. A burst would show that
        this machine had been busy, and the line is the rate's.
        """
        if now_ns < self.next_ns():
            return False
        # The last slot n that floor(n × bits / rate) puts no later than now.
        due = ((now_ns - self.start_ns + 1) * self.rate_bps - 1) // (self._slot_bits * _NS_PER_S)
        self.skipped += due - self._slot
        self._slot = due + 1
        return True
