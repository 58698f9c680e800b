"""What a ledger tells about itself: levels, consumption, its audit trail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from kms.blocks import Block
from kms.ledger_store import StoreState
from kms.ranges import RangeState

Direction = Literal["own", "peer"]
"""A half of every block: "own" for this site's masters, "peer" for the other site's."""


@dataclass(frozen=True)
class AuditEntry:
    """One line of the audit trail: what happened, when, to which keys. Never key material."""

    sequence: int
    at: str
    event: str
    detail: Mapping[str, object]


@dataclass(frozen=True)
class LedgerCounts:
    """How full a ledger is, in bytes: `own` is for this site's masters, `peer` for the other's."""

    blocks: int
    own_bytes: int
    own_free_bytes: int
    peer_bytes: int
    peer_fetched_bytes: int


@dataclass(frozen=True)
class PoolLevel:
    """One direction's pool, in bytes by state (`kms.ranges`); the states add up to the total."""

    total_bytes: int
    free_bytes: int
    reserved_bytes: int
    delivered_bytes: int
    destroyed_bytes: int


@dataclass(frozen=True)
class Consumption:
    """What has left the store since it was made; differences over time are rates.

    A key for several slaves counts as fetched each time in `fetched_keys`, and once, when all have
    it, in `fetched_bytes`.
    """

    taken_keys: int
    taken_bytes: int
    fetched_keys: int
    fetched_bytes: int
    pad_bytes: int
    destroyed_bytes: int


@dataclass(frozen=True)
class Pad:
    """A piece of one-time pad: where it lies (what the other site is told) and its bytes."""

    block_number: int
    offset_bytes: int
    material: bytes = field(repr=False)

    @property
    def place(self) -> tuple[int, int, int]:
        """(block number, offset in bytes, length in bytes)"""
        return self.block_number, self.offset_bytes, len(self.material)


def level_of(blocks: Iterable[Block], direction: Direction) -> PoolLevel:
    """The level of one half of all `blocks`."""
    totals = [(block.own if direction == "own" else block.peer).totals for block in blocks]
    by_state = [sum(total[state] for total in totals) for state in RangeState]
    return PoolLevel(sum(by_state), *by_state)


def consumption_of(state: StoreState) -> Consumption:
    """The counters of a store that measure consumption."""
    return Consumption(
        state.taken_keys,
        state.taken_bytes,
        state.fetched_keys,
        state.fetched_bytes,
        state.pad_bytes,
        state.destroyed_bytes,
    )
