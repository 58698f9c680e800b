"""From photons to two filled ledgers: two satellite passes, the relay between them, and the sites' certificates.

The first pass leaves K1 with the satellite and its station. A week later the second pass gives K2 to the other
station; the satellite sends K' = K1 xor K2, and from then on both stations hold K1 (paper, sections 3.2 and 4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from experiments.folder import RunFolder
from kms.ledger import Ledger
from kms.ledger_store import Site
from kms.pki import init_site
from kms.relay import RelayMessage, encrypt_relay, receive_relay
from quantum.bb84 import source
from quantum.bb84.detections import Eavesdropper
from quantum.bb84.session import PassKey, run_pass
from quantum.optics import preset
from topo.plan import Plan
from topo.planner import KEY_SITES
from topo.scenario import QuantumPass, Scenario
from topo.space.passes import circular_pass

BLOCK_NUMBER = 1
SITE_OF_STATION = {"user": "KMS-U", "core": "KMS-N"}
SITE_LETTER: dict[str, Site] = {"KMS-U": "U", "KMS-N": "N"}

Progress = Callable[[str, float], None]
"""(what is being done, share of it done)."""


@dataclass(frozen=True)
class Supply:
    """What the two passes gave."""

    first: PassKey
    second: PassKey
    relayed_bits: int

    def reports(self, scenario: Scenario) -> dict[str, dict[str, Any]]:
        """The passes' reports, named as the paper names the keys."""
        keys = scenario.keys
        return {
            f"K1 ({station_name(scenario, keys.first)}, {keys.first.night})": self.first.report,
            f"K2 ({station_name(scenario, keys.second)}, {keys.second.night})": self.second.report,
        }


def station_name(scenario: Scenario, quantum_pass: QuantumPass) -> str:
    """The place of the quantum ground station of a pass."""
    return getattr(scenario.sites, quantum_pass.station).name  # type: ignore[no-any-return]


def distil(
    scenario: Scenario, quantum_pass: QuantumPass, label: str, progress: Progress
) -> PassKey:
    """Simulate one pass of the quantum satellite and distil its key; `NoKeyFromPass` says why there is none."""
    keys = scenario.keys
    geometry = circular_pass(keys.altitude_km, quantum_pass.culmination_deg, keys.mask_deg)
    return run_pass(
        geometry,
        preset(keys.channel),
        source.PRESETS[keys.channel],
        seed=scenario.seed * 2 + int(label == "K2"),
        eavesdropper=Eavesdropper(keys.eavesdropper_fraction),
        progress=lambda stage, done: progress(f"{label}: {stage}", done),
    )


def provide(scenario: Scenario, plan: Plan, folder: RunFolder, progress: Progress) -> Supply:
    """Run both passes and the relay, fill the two ledgers, and make the two sites' certificates."""
    first = distil(scenario, scenario.keys.first, "K1", progress)
    second = distil(scenario, scenario.keys.second, "K2", progress)
    # At the satellite: K1 as it kept it, under K2 as it has just made it.
    message = encrypt_relay(first.key_alice, second.key_alice, BLOCK_NUMBER, "K1 by relay")
    message.save(folder.ledgers / "relay.json")
    common = first.key_bob[: message.block_bytes]
    home = SITE_OF_STATION[scenario.keys.first.station]
    away = SITE_OF_STATION[scenario.keys.second.station]
    with Ledger.create(folder.ledger(home), SITE_LETTER[home]) as ledger:
        ledger.add_block(BLOCK_NUMBER, common, message.label, scenario.start)
    with Ledger.create(folder.ledger(away), SITE_LETTER[away]) as ledger:
        received = RelayMessage.load(folder.ledgers / "relay.json")
        receive_relay(ledger, received, second.key_bob, scenario.start)
    for kms, gateway in KEY_SITES.items():
        address = plan.link(kms, gateway).address(kms)
        init_site(folder.private / kms, kms, [address], [gateway], scenario.start)
    return Supply(first, second, 8 * message.block_bytes)
