"""Blocks for tests: a second of a pass over a link without most of its loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from quantum.bb84.detections import Detections, ReceiverRecord, SenderRecord, simulate
from quantum.bb84.source import Bb84Parameters
from quantum.optics import JINAN1_CLEAR
from topo.space.passes import circular_pass

SMALL = Bb84Parameters(8e3, (0.8, 0.1, 0.0), (0.5, 0.25, 0.25), bound="asymptotic")
"""No finite statistics: a few hundred bits hold a key."""


def detected(parameters: Bb84Parameters, seed: int, loss_less_dB: float = 35.0) -> Detections:
    """One second near culmination, over a link without most of its loss."""
    near = replace(JINAN1_CLEAR, residual_dB=JINAN1_CLEAR.residual_dB - loss_less_dB)
    second = circular_pass(511, 77.9, 10).window(0, 1)
    return simulate(second, near, parameters, np.random.default_rng(seed))


def with_errors(detections: Detections, qber: float, seed: int) -> Detections:
    """The same clicks, more of them wrong."""
    rng = np.random.default_rng(seed)
    receiver = detections.receiver
    flips = (rng.random(len(receiver.bit)) < qber).astype(np.uint8)
    noisy = ReceiverRecord(receiver.pulse_index, receiver.basis, receiver.bit ^ flips)
    return replace(detections, receiver=noisy)


def first_clicks(detections: Detections, count: int) -> Detections:
    """Only the first clicks of a pass."""
    s, r = detections.sender, detections.receiver
    sender = SenderRecord(*(a[:count] for a in (s.pulse_index, s.basis, s.bit, s.intensity)))
    receiver = ReceiverRecord(*(a[:count] for a in (r.pulse_index, r.basis, r.bit)))
    return replace(detections, sender=sender, receiver=receiver)
