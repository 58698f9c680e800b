"""Self-describing key_IDs: UUIDs that say where a key lies, and that cannot be forged.

ETSI GS QKD 014 wants a UUID for every key and leaves the rest open. Two sites that hold identical
blocks need no message at request time if the key_ID itself names the bytes. A version 8 UUID
(RFC 9562 §5.8) leaves 122 bits to its maker, used here wholly::

    48 bits custom_a   block number (16) | offset in the block, bytes (32)
     4 bits version    8
    12 bits custom_b   key size, bytes
     2 bits variant    0b10
    62 bits custom_c   HMAC-SHA256(naming key; block, offset, size, master SAE, slave SAE), cut

The naming key is derived (HKDF) from the first bytes of the block, which no key is ever cut from.
So the slave's site resolves a key_ID without asking, a key_ID is bound to its master and slave, and
nobody without the block can forge one: a guess succeeds with probability 2^-62.

A key for several slaves has the sum of their tags modulo 2^62. The slaves' site looks for the group
among the SAEs that the master may share with, as two halves that meet in the middle: the work grows
with the number of half groups (`half_groups`), which a KME bounds, for anybody may send a key_ID that
names nobody. A guess succeeds with as many times 2^-62 as there are whole groups (255 for 8
candidates, 36 000 for 31 of which at most 4 share a key).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, combinations
from math import comb
from uuid import UUID

from cryptography.hazmat.primitives import constant_time
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from topo.errors import ProtocolError

NAMING_AREA_BYTES = 32
MAX_BLOCK_NUMBER = 2**16 - 1
MAX_BLOCK_BYTES = 2**32
MAX_KEY_BYTES = 2**12 - 1

_UUID_TEXT = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_TAG_MASK = 2**62 - 1


@dataclass(frozen=True)
class KeyLocation:
    """Where a key lies: `size_bytes` bytes from `offset_bytes` on, in block `block_number`."""

    block_number: int
    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True)
class KeyName:
    """A parsed key_ID: the location it claims and its 62-bit `tag`, which `find_slaves` checks."""

    location: KeyLocation
    tag: int


def derive_naming_key(naming_area: bytes) -> bytes:
    """The 32-byte naming key of a block, from its naming area (HKDF-SHA256, RFC 5869)."""
    return HKDF(SHA256(), length=32, salt=None, info=b"qntn key_ID naming v1").derive(naming_area)


def format_key_id(
    location: KeyLocation, master: str, slaves: str | Iterable[str], naming_key: bytes
) -> str:
    """The key_ID of the key at `location`, issued by `master` for `slaves`: a lower-case UUID."""
    members = [slaves] if isinstance(slaves, str) else sorted(set(slaves))
    tag = _sum(_tag(location, master, slave, naming_key) for slave in members)
    return str(
        UUID(
            int=location.block_number << 112
            | location.offset_bytes << 80
            | 8 << 76
            | location.size_bytes << 64
            | 0b10 << 62
            | tag
        )
    )


def is_uuid(text: str) -> bool:
    """Whether `text` is a UUID in the usual 8-4-4-4-12 form, of any version, in either case."""
    return _UUID_TEXT.fullmatch(text) is not None


def parse_key_id(text: str) -> KeyName:
    """What a key_ID claims, true or not; `ProtocolError` if it is no version 8 UUID."""
    if not is_uuid(text):
        raise ProtocolError("key_ID is not a UUID")
    value = UUID(text).int
    if value >> 76 & 0xF != 8 or value >> 62 & 0b11 != 0b10:
        raise ProtocolError("key_ID is not a version 8 UUID")
    location = KeyLocation(
        block_number=value >> 112,
        offset_bytes=value >> 80 & 0xFFFF_FFFF,
        size_bytes=value >> 64 & 0xFFF,
    )
    return KeyName(location, value & _TAG_MASK)


def find_slaves(
    name: KeyName, master: str, candidates: Iterable[str], naming_key: bytes, most: int
) -> frozenset[str]:
    """For which of the `candidates`, at `most` so many at once, a holder of the block issued a name.

    Empty if for none of them, or by another master. Takes `half_groups(candidates, most)` steps.
    """
    tags = {slave: _tag(name.location, master, slave, naming_key) for slave in set(candidates)}
    for slave, tag in tags.items():
        if constant_time.bytes_eq(tag.to_bytes(8, "big"), name.tag.to_bytes(8, "big")):
            return frozenset((slave,))
    most = min(most, len(tags))
    halves = {
        _sum(tags[slave] for slave in members): members
        for members in chain(*(combinations(sorted(tags), size) for size in _half_sizes(most)))
    }
    for tag, members in halves.items():
        found = {*members, *halves.get((name.tag - tag) & _TAG_MASK, members)}
        if len(members) < len(found) <= most and _sum(tags[slave] for slave in found) == name.tag:
            return frozenset(found)
    return frozenset()


def half_groups(candidates: int, most: int) -> int:
    """How many halves of groups `find_slaves` makes for so many candidates, in the worst case."""
    return sum(comb(candidates, size) for size in _half_sizes(min(most, candidates)))


def _sum(tags: Iterable[int]) -> int:
    return sum(tags) & _TAG_MASK


def _half_sizes(most: int) -> range:
    return range(1, (most + 1) // 2 + 1) if most > 1 else range(0)


def _tag(location: KeyLocation, master: str, slave: str, naming_key: bytes) -> int:
    mac = HMAC(naming_key, SHA256())
    mac.update(
        struct.pack("!HIH", location.block_number, location.offset_bytes, location.size_bytes)
    )
    for sae_id in (master, slave):  # length first, so that no two pairs share an encoding
        encoded = sae_id.encode()
        mac.update(struct.pack("!I", len(encoded)) + encoded)
    return int.from_bytes(mac.finalize()[:8], "big") & _TAG_MASK
