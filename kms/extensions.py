"""The extension parameters of Get key (ETSI GS QKD 014 Table 10) that this KME knows.

Vendor names carry a prefix that ends in `_`; ours is `qntn_`:

`qntn_max_age_s` (number, seconds, over 0)
    Only keys of blocks that came into this KME's store at most so long ago. For a user who will
    not protect fresh traffic with key that has lain about for weeks waiting for a satellite.
    Mandatory: refused if such key does not suffice. Optional: older key is given then.

A mandatory parameter that is not known refuses the request, an optional one is passed over. One
that is given twice holds in its strictest form.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from kms.messages import JsonObject

MAX_AGE = "qntn_max_age_s"
KNOWN = frozenset({MAX_AGE})
_LONGEST_S = 1e9


@dataclass(frozen=True)
class Wishes:
    """What the known parameters of one list ask for."""

    max_age_s: float | None = None

    def added_after(self, now: datetime) -> datetime | None:
        """The earliest time of storing that will do; None if any will."""
        return None if self.max_age_s is None else now - timedelta(seconds=self.max_age_s)


def unknown(extensions: Iterable[JsonObject] | None) -> list[str]:
    """The names in a list of extension parameters that this KME does not know, in order."""
    return [name for name, _ in _pairs(extensions) if name not in KNOWN]


def malformed(extensions: Iterable[JsonObject] | None) -> list[str]:
    """The names of known parameters whose values are none, in order."""
    return [
        name for name, value in _pairs(extensions) if name == MAX_AGE and _seconds(value) is None
    ]


def wishes(extensions: Iterable[JsonObject] | None) -> Wishes:
    """What the known, well-formed parameters of a list ask for; the strictest of each."""
    ages = [_seconds(value) for name, value in _pairs(extensions) if name == MAX_AGE]
    return Wishes(max_age_s=min((age for age in ages if age is not None), default=None))


def _pairs(extensions: Iterable[JsonObject] | None) -> Iterator[tuple[str, object]]:
    for extension in extensions or ():
        yield from extension.items()


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value <= _LONGEST_S else None
