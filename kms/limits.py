"""How much one SAE may ask of a KME: token buckets, pure (`now` is given), one pair for each SAE.

A bucket holds at most `burst` tokens and gains `rate` of them a second; what is admitted takes its
cost out. Time that runs backwards adds nothing, and time that jumps ahead adds no more than a
burst, so that a stepped clock neither locks an SAE out nor sets it free.

ETSI GS QKD 014 has no code 429: at its limit an SAE is answered 503 (`kms.api`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Rate(BaseModel):
    """So many a second in the long run, and `burst` at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    per_s: float = Field(gt=0, allow_inf_nan=False)
    burst: float = Field(ge=1, allow_inf_nan=False)


class SaeLimits(BaseModel):
    """What each SAE may ask; `None` is no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: Rate | None = None
    """Requests of any kind."""
    key_bits: Rate | None = None
    """Bits of key handed out by Get key: the pool's supply, shared out."""

    @model_validator(mode="after")
    def _whole_keys(self) -> Self:
        if self.key_bits is not None and self.key_bits.burst < 8:
            raise ValueError("key_bits.burst is less than the shortest key")
        return self


@dataclass(frozen=True)
class Bucket:
    """`tokens` that were in it at `at`."""

    tokens: float
    at: datetime

    @classmethod
    def full(cls, rate: Rate, now: datetime) -> Self:
        return cls(rate.burst, now)

    def refilled(self, rate: Rate, now: datetime) -> Bucket:
        elapsed_s = max(0.0, (now - self.at).total_seconds())
        return Bucket(min(rate.burst, self.tokens + elapsed_s * rate.per_s), now)

    def wait_s(self, cost: float, rate: Rate) -> float:
        """How long until `cost` can be paid, seconds; 0 if it can be now."""
        return max(0.0, (cost - self.tokens) / rate.per_s)

    def less(self, cost: float) -> Bucket:
        return Bucket(self.tokens - cost, self.at)


@dataclass
class Allowance:
    """One kind of limit with the buckets of all SAEs that have asked; without a rate, no limit."""

    rate: Rate | None
    _buckets: dict[str, Bucket] = field(default_factory=dict)

    def wait_s(self, sae_id: str, cost: float, now: datetime) -> float:
        """How long `sae_id` must wait before it may spend `cost`, seconds; spends nothing."""
        if self.rate is None:
            return 0.0
        bucket = self._buckets.get(sae_id) or Bucket.full(self.rate, now)
        self._buckets[sae_id] = bucket = bucket.refilled(self.rate, now)
        return bucket.wait_s(cost, self.rate)

    def spend(self, sae_id: str, cost: float, now: datetime) -> None:
        if self.rate is not None:
            bucket = self._buckets.get(sae_id) or Bucket.full(self.rate, now)
            self._buckets[sae_id] = bucket.refilled(self.rate, now).less(cost)

    def never(self, cost: float) -> bool:
        """Whether `cost` is more than a full bucket: waiting does not help."""
        return self.rate is not None and cost > self.rate.burst


class Allowances:
    """What the SAEs of one KME may still ask."""

    def __init__(self, limits: SaeLimits) -> None:
        self.requests = Allowance(limits.requests)
        self.key_bits = Allowance(limits.key_bits)
