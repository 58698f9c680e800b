"""Sifting: the public talk that turns two records of a pass into two raw keys, one a basis.

The receiver announces which pulses it saw and in which basis; the sender answers which of these it
had prepared in the same basis, and with which intensity. Neither says a bit value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantum.bb84.detections import Bits, ReceiverRecord, SenderRecord
from quantum.bb84.messages import Clicks, Kept
from quantum.bb84.source import BASES
from topo.errors import NoKeyFromPass, ProtocolError


@dataclass(frozen=True, eq=False)
class RawKey:
    """One end's bits in one basis, with the intensity each pulse was sent at; shape (n,) each."""

    bits: Bits
    intensity: Bits


def announce(record: ReceiverRecord) -> Clicks:
    """What the receiver says of its clicks."""
    return Clicks(record.pulse_index, record.basis)


def reply(record: SenderRecord, said: Clicks, shuffle_seeds: tuple[int, ...]) -> Kept:
    """What the sender answers. Raises `ProtocolError` when told of pulses it has no record of.

    (A simulated sender keeps a record of the pulses that clicked only.)
    """
    if not np.array_equal(record.pulse_index, said.pulse_index):
        raise ProtocolError("sifting: the receiver announced clicks on pulses that were not sent")
    kept = record.basis == said.basis
    return Kept(kept, record.intensity[kept], shuffle_seeds)


def raw_keys(
    record: SenderRecord | ReceiverRecord, said: Kept, intensities: int
) -> dict[str, RawKey]:
    """One end's raw key in each basis, by basis name, after the sender's reply.

    Raises `ProtocolError` for a reply that does not fit the record, `NoKeyFromPass` when a basis has
    no bits.
    """
    if len(said.kept) != len(record.bit):
        raise ProtocolError("sifting: the sender's reply does not fit the clicks announced")
    if len(said.intensity) and said.intensity.max() >= intensities:
        raise ProtocolError("sifting: a click was sent at an intensity that does not exist")
    basis, bit = record.basis[said.kept], record.bit[said.kept]
    keys = {}
    for index, name in enumerate(BASES):
        mine = basis == index
        keys[name] = RawKey(bit[mine], said.intensity[mine])
        if not mine.any():
            raise NoKeyFromPass(f"no key: nothing was sifted in basis {name}")
    return keys
