"""How many BB84 pulses a second SeQUeNCe simulates: run by an interpreter that has it, prints JSON.

`PYTHON sequence_peer.py LOSS_DB PULSE_RATE_HZ MEAN_PHOTONS PULSES`, of its own BB84 protocol between two `QKDNode`s
over one `QuantumChannel` of that loss, ideal detectors (their efficiency is in the loss), no dark counts, no decoys
(it has none). It imports nothing of this project, whose environment SeQUeNCe does not share.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time

from sequence.components.optical_channel import (  # type: ignore[import-not-found]
    ClassicalChannel,
    QuantumChannel,
)
from sequence.kernel.timeline import Timeline  # type: ignore[import-not-found]
from sequence.qkd.BB84 import pair_bb84_protocols  # type: ignore[import-not-found]
from sequence.topology.node import QKDNode  # type: ignore[import-not-found]

DISTANCE_M = 1.0
"""Short: what a photon costs to simulate does not depend on how long it flies, and the bursts follow close."""
MESSAGE_PS = 1000

BURST_PULSES = 50_000
"""The protocol sends in bursts and sifts between them; memory grows with a burst."""


def main(loss_dB: float, pulse_rate_hz: float, mean_photons: float, pulses: int) -> None:
    begin = time.perf_counter()
    bursts = max(1, round(pulses / BURST_PULSES))
    timeline = Timeline()
    alice, bob = (QKDNode(name, timeline, stack_size=1, seed=1) for name in ("alice", "bob"))
    pair_bb84_protocols(alice.protocol_stack[0], bob.protocol_stack[0])
    for sender, receiver in ((alice, bob), (bob, alice)):
        photons = QuantumChannel(
            f"{sender.name} light",
            timeline,
            loss_dB / DISTANCE_M,
            DISTANCE_M,
            frequency=pulse_rate_hz,
        )
        photons.set_ends(sender, receiver.name)
        talk = ClassicalChannel(f"{sender.name} talk", timeline, DISTANCE_M, delay=MESSAGE_PS)
        talk.set_ends(sender, receiver.name)
    alice.update_lightsource_params("frequency", pulse_rate_hz)
    alice.update_lightsource_params("mean_photon_num", mean_photons)
    for detector in (0, 1):
        for name, value in (("efficiency", 1.0), ("count_rate", pulse_rate_hz)):
            bob.update_detector_params(detector, name, value)
    timeline.init()
    light_ps = round(BURST_PULSES / pulse_rate_hz * 1e12)
    # It takes the length of a burst from the key length asked for, and sends until the time is over.
    alice.protocol_stack[0].push(
        round(BURST_PULSES * mean_photons), sys.maxsize, run_time=bursts * light_ps - light_ps // 2
    )
    timeline.run()
    received = bob.components["bob.qsdetector"].detectors
    source = alice.components["alice.lightsource"]
    print(
        json.dumps(
            {
                "version": importlib.metadata.version("sequence"),
                "pulses": bursts * BURST_PULSES,
                "photons": source.photon_counter,
                "detections": sum(detector.photon_counter for detector in received),
                "seconds": time.perf_counter() - begin,
            }
        )
    )


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
