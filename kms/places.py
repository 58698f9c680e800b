"""Where in a ledger's blocks keys and pad lie: what can be taken, and what a key_ID or a place names.

Looked up, and nothing is changed: giving the bytes out, durably and once, is `kms.ledger`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice, pairwise

from kms.blocks import Block
from kms.key_id import MAX_KEY_BYTES, KeyLocation, find_slaves, parse_key_id
from topo.errors import LedgerError, ProtocolError

Blocks = Mapping[int, Block]
"""The open blocks of a ledger, by number."""


class PoolExhausted(LedgerError):
    """Fewer keys are left in this direction than were asked for; nothing was consumed."""


class KeyNotFound(LedgerError):
    """A key_ID that names no key still deliverable to this slave; nothing was consumed."""


def key_bytes(size_bits: int) -> int:
    """The length of a key in bytes; `LedgerError` if no key can have that size."""
    size_bytes, odd_bits = divmod(size_bits, 8)
    if odd_bits or not 1 <= size_bytes <= MAX_KEY_BYTES:
        raise LedgerError(
            f"key size {size_bits} bits: a multiple of 8 from 8 to {8 * MAX_KEY_BYTES}"
        )
    return size_bytes


def next_keys(
    blocks: Blocks, size_bytes: int, count: int, added_after: datetime | None
) -> list[KeyLocation]:
    """The first `count` places in our own halves, lowest block number first; none spans two blocks.

    `PoolExhausted` if there are not that many in blocks stored at `added_after` or later.
    """
    places: list[KeyLocation] = []
    for block in _giving(blocks):
        if added_after is None or block.added >= added_after:
            places += islice(block.free_places(size_bytes), count - len(places))
            if len(places) == count:
                return places
    raise PoolExhausted(f"{count} keys asked for, {len(places)} in store")


def next_pad(blocks: Blocks, size_bytes: int) -> list[KeyLocation]:
    """The first `size_bytes` of our own halves, in as many pieces as they lie in; or `PoolExhausted`."""
    places, left = [], size_bytes
    for block in _giving(blocks):
        for run in block.own.free_runs():
            length = min(left, run.stop - run.start)
            if length:
                places.append(KeyLocation(block.number, run.start, length))
                left -= length
    if left:
        raise PoolExhausted(f"{size_bytes} bytes of pad asked for, {left} missing")
    return places


def recipients(
    blocks: Blocks, key_id: str, master: str, candidates: Iterable[str], most: int
) -> frozenset[str]:
    """For which of the `candidates` (`most` at once) `master` took this key, delivered or not."""
    try:
        name = parse_key_id(key_id)
    except ProtocolError:  # another KMS's UUID, perhaps: simply not one of ours
        return frozenset()
    block = blocks.get(name.location.block_number)
    if block is None:
        return frozenset()
    return find_slaves(name, master, candidates, block.keys.naming, most)


def named_key(
    blocks: Blocks, key_id: str, master: str, slave: str, *, candidates: set[str], most: int
) -> tuple[KeyLocation, frozenset[str]]:
    """The place a genuine key_ID names, and which of its slaves may still fetch it; or `KeyNotFound`."""
    slaves = recipients(blocks, key_id, master, candidates, most)
    if slave in slaves:
        at = parse_key_id(key_id).location
        waiting = blocks[at.block_number].waiting(at, slaves)
        if slave in waiting:
            return at, waiting
    raise KeyNotFound(f"no key {key_id} from {master} for {slave}")


def check_apart(places: Iterable[KeyLocation]) -> None:
    """`KeyNotFound` if a byte is asked for twice in one request."""
    ordered = sorted((at.block_number, at.offset_bytes, at.size_bytes) for at in places)
    for (number, offset, size), (next_number, next_offset, _) in pairwise(ordered):
        if number == next_number and next_offset < offset + size:
            raise KeyNotFound(f"block {number}: byte {next_offset} asked for twice")


def _giving(blocks: Blocks) -> Sequence[Block]:
    """The blocks whose own half has something to give, lowest number first."""
    return [blocks[number] for number in sorted(blocks) if blocks[number].gives]
