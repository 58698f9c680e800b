"""Alarms of the key layer: what was refused and why, counted by kind. Nothing is dropped in silence."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

_LOG = logging.getLogger(__name__)
_REMEMBERED = 1000


class AlarmKind(StrEnum):
    CORRUPTED = "corrupted"
    """A relayed block or a receipt that is not authentic."""
    REPLAYED = "replayed"
    """A block or a receipt that came before."""
    OUT_OF_ORDER = "out-of-order"
    """A block that came before its turn."""
    UNSETTLED = "unsettled"
    """Two sites cannot compare their ledgers: too many keys are under way."""
    UNHEALTHY_KEY = "unhealthy-key"
    """Key material that fails a health test (`kms.health`)."""
    LOW_WATER = "low-water"
    """A pool fell below its low-water mark."""
    EXHAUSTED = "exhausted"
    """A pool is empty."""


@dataclass(frozen=True)
class Alarm:
    """One alarm. `detail` never holds key material."""

    kind: AlarmKind
    at: datetime
    where: str
    detail: str


class AlarmLog:
    """Counts alarms by kind, keeps the latest thousand, and writes each to the log. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[AlarmKind] = Counter()
        self._latest: deque[Alarm] = deque(maxlen=_REMEMBERED)

    def sound(self, kind: AlarmKind, where: str, detail: str, now: datetime) -> Alarm:
        """Record one alarm and return it."""
        alarm = Alarm(kind, now, where, detail)
        with self._lock:
            self._counts[kind] += 1
            self._latest.append(alarm)
        _LOG.warning("%s at %s: %s", kind, where, detail)
        return alarm

    @property
    def counts(self) -> Mapping[AlarmKind, int]:
        """How many alarms of each kind there were; every kind has an entry."""
        with self._lock:
            return {kind: self._counts[kind] for kind in AlarmKind}

    @property
    def latest(self) -> tuple[Alarm, ...]:
        """The latest alarms, oldest first."""
        with self._lock:
            return tuple(self._latest)
