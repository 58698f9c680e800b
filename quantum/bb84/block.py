"""A block after error correction, and the key lengths both ends work out from it alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from quantum.bb84.detections import Bits, Indices
from quantum.bb84.finite_key import (
    BasisCounts,
    KeyLength,
    binary_entropy,
    secret_key_length,
)
from quantum.bb84.sifting import RawKey
from quantum.bb84.source import BASES, Bb84Parameters
from topo.errors import NoKeyFromPass, ProtocolError


def agreed(parameters: Bb84Parameters) -> bytes:
    """What both ends know before the pass, for the head of their transcripts."""
    return json.dumps(asdict(parameters), sort_keys=True).encode()


@dataclass(frozen=True, eq=False)
class CorrectedBasis:
    """One basis after verified error correction, as one end holds it."""

    bits: Bits
    counts: BasisCounts
    leakage_bits: int

    @classmethod
    def of(cls, raw: RawKey, bits: Bits, errors: Indices, leakage_bits: int) -> CorrectedBasis:
        """From the raw key, its corrected bits and the errors by intensity.

        Raises `ProtocolError` when there are more errors than bits.
        """
        counts = np.bincount(raw.intensity, minlength=len(errors))
        if (errors > counts).any():
            raise ProtocolError("more errors were announced than there are bits")
        return cls(bits, BasisCounts.of(counts, errors), leakage_bits)

    @property
    def qber(self) -> float:
        """Share of the raw key's bits that were wrong."""
        return float(self.counts.errors.sum() / self.counts.detections.sum())

    @property
    def shannon_limit_bits(self) -> float:
        """n h(QBER): what error correction must disclose at least."""
        return len(self.bits) * binary_entropy(self.qber)


def check_qber(basis: str, qber: float, limit: float, about: str = "is") -> None:
    """Raises `NoKeyFromPass` for an error rate above the limit."""
    if qber > limit:
        raise NoKeyFromPass(f"no key: QBER in basis {basis} {about} {qber:.1%}, limit {limit:.1%}")


def key_lengths(
    corrected: Mapping[str, CorrectedBasis], parameters: Bb84Parameters
) -> dict[str, KeyLength]:
    """Key lengths by basis, each basis being the test of the other.

    Raises `NoKeyFromPass`, saying why, for a QBER too high and for fewer than 8 secret bits.
    """
    for basis, of in corrected.items():
        check_qber(basis, of.qber, parameters.max_qber)
    x, z = BASES
    lengths = {
        key: secret_key_length(
            corrected[key].counts, corrected[test].counts, parameters, corrected[key].leakage_bits
        )
        for key, test in ((x, z), (z, x))
    }
    if sum(length.whole_bits for length in lengths.values()) < 8:
        why = "; ".join(
            f"{basis}: {len(corrected[basis].bits)} sifted bits, "
            f"QBER {corrected[basis].qber:.1%}, "
            f"phase error up to {length.phase_error:.1%}, length {length.bits:.0f}"
            for basis, length in lengths.items()
        )
        raise NoKeyFromPass(f"no key: the block holds no secret bits ({why})")
    return lengths
