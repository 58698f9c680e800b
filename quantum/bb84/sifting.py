"""Sifting: the public talk that turns two records of a pass into two raw keys, one a basis.

The receiver announces which pulses it saw and in which basis; the sender answers which of these it
had prepared in the same basis, and with which intensity. Neither says a bit value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantum.bb84.detections import Bits, Indices, ReceiverRecord, SenderRecord
from quantum.bb84.source import BASES
from topo.errors import ProtocolError


@dataclass(frozen=True, eq=False)
class ClickAnnouncement:
    """Receiver to sender: clicked pulses and measured bases, shape (detections,) each."""

    pulse_index: Indices
    basis: Bits

    @property
    def size_bits(self) -> int:
        """Length on the wire: gaps between clicks Rice-coded, one bit a basis."""
        return _rice_coded_bits(np.diff(self.pulse_index, prepend=-1) - 1) + len(self.basis)


@dataclass(frozen=True, eq=False)
class SiftReply:
    """Sender to receiver: which clicks are kept, and the intensities of these."""

    kept: NDArray[np.bool_]
    """Shape (detections,)."""
    intensity: Bits
    """Shape (kept,)."""

    @property
    def size_bits(self) -> int:
        """Length on the wire: one bit a click, two bits a kept click."""
        return len(self.kept) + 2 * len(self.intensity)


@dataclass(frozen=True, eq=False)
class RawKey:
    """One end's bits in one basis, with the intensity each pulse was sent at; shape (n,) each."""

    bits: Bits
    intensity: Bits

    @property
    def counts(self) -> Indices:
        """n_k: bits by intensity, shape (3,)."""
        return np.bincount(self.intensity, minlength=3)


def announce(record: ReceiverRecord) -> ClickAnnouncement:
    """What the receiver says of its clicks."""
    return ClickAnnouncement(record.pulse_index, record.basis)


def reply(record: SenderRecord, said: ClickAnnouncement) -> SiftReply:
    """What the sender answers. Raises `ProtocolError` when told of pulses it has no record of."""
    if not np.array_equal(record.pulse_index, said.pulse_index):
        raise ProtocolError("sifting: the receiver announced clicks on pulses that were not sent")
    kept = record.basis == said.basis
    return SiftReply(kept, record.intensity[kept])


def raw_keys(record: SenderRecord | ReceiverRecord, said: SiftReply) -> dict[str, RawKey]:
    """One end's raw key in each basis, by basis name, after the sender's reply.

    Raises `ProtocolError` for a reply that does not fit the record.
    """
    if len(said.kept) != len(record.bit) or len(said.intensity) != np.count_nonzero(said.kept):
        raise ProtocolError("sifting: the sender's reply does not fit the clicks announced")
    if len(said.intensity) and said.intensity.max() > 2:
        raise ProtocolError("sifting: the sender's reply names an intensity that does not exist")
    basis, bit = record.basis[said.kept], record.bit[said.kept]
    return {
        name: RawKey(bit[basis == index], said.intensity[basis == index])
        for index, name in enumerate(BASES)
    }


def _rice_coded_bits(gaps: Indices) -> int:
    """Length of a Rice code of non-negative integers, its parameter fitted to their mean."""
    if len(gaps) == 0:
        return 0
    # For geometric gaps the best parameter is near log2(mean ln 2).
    parameter = max(0, round(float(np.log2(max(gaps.mean() * np.log(2), 1)))))
    return int((gaps >> parameter).sum()) + len(gaps) * (1 + parameter)
