"""Alice's and Bob's keys over many short passes: the same, or none."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from bb84_blocks import SMALL, detected, with_errors

from quantum.bb84.detections import ReceiverRecord
from quantum.bb84.session import distil
from quantum.bb84.source import Bb84Parameters
from topo.errors import NoKeyFromPass


def outcomes(seeds: range) -> Counter[str]:
    """How short passes end whose intensities, probabilities, bases and error rates vary."""
    ends: Counter[str] = Counter()
    for seed in seeds:
        rng = np.random.default_rng([seed, 77])
        mu1, mu2 = rng.uniform(0.5, 0.9), rng.uniform(0.05, 0.3)
        p1, p2 = rng.uniform(0.4, 0.7), rng.uniform(0.1, 0.25)
        one_decoy = rng.random() < 0.25
        parameters = Bb84Parameters(
            rng.uniform(3e3, 1e4),
            (mu1, mu2) if one_decoy else (mu1, mu2, 0.0),
            (p1, 1 - p1) if one_decoy else (p1, p2, 1 - p1 - p2),
            basis_x_probability=rng.uniform(0.3, 0.7),
            bound="asymptotic",
        )
        block = with_errors(detected(parameters, seed), rng.choice([0, 0.01, 0.04, 0.2]), seed)
        try:
            made = distil(block, parameters, seed=seed)
        except NoKeyFromPass as reason:
            ends[next(why for why in ("no secret bits", "QBER") if why in str(reason))] += 1
        else:
            assert made.key_alice == made.key_bob
            assert len(made.key_bob) > 0
            assert made.report["qber"] <= parameters.max_qber
            ends["key"] += 1
    return ends


def test_a_few_passes() -> None:
    ends = outcomes(range(25))
    assert ends["key"] >= 10
    assert ends["QBER"] >= 3


@pytest.mark.long
def test_a_thousand_passes() -> None:
    ends = outcomes(range(1000))
    assert ends.total() == 1000
    assert ends["key"] >= 400
    assert ends["QBER"] >= 150


def test_a_block_without_errors_still_makes_json() -> None:
    """Its error correction has no efficiency: it disclosed something where nothing was needed."""
    clean = detected(SMALL, 1)
    matched = clean.sender.basis == clean.receiver.basis
    bits = np.where(matched, clean.sender.bit, clean.receiver.bit)
    receiver = ReceiverRecord(clean.receiver.pulse_index, clean.receiver.basis, bits)
    made = distil(replace(clean, receiver=receiver), SMALL, seed=1)
    report = json.loads(json.dumps(made.report, allow_nan=False))
    assert report["qber"] == 0
    assert report["efficiency"] is None
    assert report["leakage_bits"] > 0
