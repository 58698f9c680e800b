"""A KME at work: its ledger, what it was told, and what it watches and remembers over its requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from kms.alarms import AlarmKind, AlarmLog
from kms.configuration import KmsConfiguration
from kms.forecast import ConsumptionRate, Forecast, forecast
from kms.ledger import Ledger
from kms.limits import Allowances
from topo.errors import LedgerError


@dataclass(frozen=True)
class Kme:
    """A KME at work: what it was told, its ledger, and what it remembers of its SAEs' appetite."""

    ledger: Ledger
    configuration: KmsConfiguration
    allowances: Allowances
    consumption: ConsumptionRate
    alarms: AlarmLog = field(default_factory=AlarmLog)
    alarmed: set[AlarmKind] = field(default_factory=set)
    """What holds now and has been alarmed of."""

    @classmethod
    def start(cls, ledger: Ledger, configuration: KmsConfiguration, now: datetime) -> Kme:
        """A KME whose limits are untouched and whose consumption is measured from `now` on."""
        if ledger.site != configuration.site:
            raise LedgerError(
                f"{ledger.path}: belongs to site {ledger.site}, this KME is at {configuration.site}"
            )
        rate = ConsumptionRate(configuration.rate_over_s, now.timestamp())
        return cls(ledger, configuration, Allowances(configuration.sae_limits), rate)

    def level_bits(self) -> int:
        """What this site's masters can still get, in keys of the default size."""
        size_bits = self.configuration.default_key_size_bits
        return size_bits * self.ledger.stored_key_count(size_bits)

    def watch(self, refused: bool, now: datetime) -> None:
        """Sound the alarms of the pool: once when it falls below its mark, once when it fails."""
        level_bits, mark_bits = self.level_bits(), self.configuration.low_water_bits
        states = {AlarmKind.LOW_WATER: level_bits < mark_bits, AlarmKind.EXHAUSTED: refused}
        for kind, holds in states.items():
            if holds and kind not in self.alarmed:
                self.alarms.sound(kind, self.configuration.kme_id, f"{level_bits} bits left", now)
                self.alarmed.add(kind)
            elif not holds:
                self.alarmed.discard(kind)

    def forecast(self, now: datetime) -> Forecast:
        """When the key for this site's masters will have run out, at the measured rate."""
        return forecast(
            self.level_bits(),
            self.consumption.bits_per_s(now.timestamp()),
            self.configuration.low_water_bits,
        )
