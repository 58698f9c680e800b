"""From photons to two filled ledgers: two satellite passes, the relay between them, and the sites' certificates.

The first pass leaves K1 with the satellite and its station. A week later the second pass gives K2 to the other
station; the satellite sends K' = K1 xor K2, and from then on both stations hold K1 (paper, sections 3.2 and 4).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from experiments.folder import RunFolder
from experiments.passes import PassOptions, best_pass
from experiments.progress import Reporter
from experiments.qkd_input import FlownPass, circular, of_contact
from kms.ledger import Ledger
from kms.ledger_store import Site
from kms.pki import init_site
from kms.relay import RelayMessage, encrypt_relay, receive_relay
from quantum.bb84 import source
from quantum.bb84.eavesdropper import Eavesdropper
from quantum.bb84.session import PassKey, run_pass
from quantum.optics import preset
from topo.planner import KEY_SITES, build_plan
from topo.scenario import QuantumPass, Scenario
from topo.space.stations import Station
from topo.substrates import Clock

BLOCK_NUMBER = 1
PSK_BYTES = 32
SITE_OF_STATION = {"user": "KMS-U", "core": "KMS-N"}
SITE_LETTER: dict[str, Site] = {"KMS-U": "U", "KMS-N": "N"}

Progress = Callable[[str, float], None]
"""(what is being done, share of it done)."""


@dataclass(frozen=True)
class Supply:
    """What the two passes gave."""

    first: PassKey
    second: PassKey
    message: RelayMessage

    @property
    def relayed_bits(self) -> int:
        """Bits of K1 that both stations hold in the end."""
        return 8 * self.message.block_bytes

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


def _flight(scenario: Scenario, quantum_pass: QuantumPass) -> FlownPass:
    """The pass that the scenario means: found in the satellite's elements, or that of a circular orbit."""
    keys = scenario.keys
    if keys.elements is None:
        assert quantum_pass.culmination_deg is not None
        return circular(keys.altitude_km, quantum_pass.culmination_deg, keys.mask_deg)
    site = getattr(scenario.sites, quantum_pass.station)
    options = PassOptions(
        tles=(keys.elements,),
        stations=(Station(site.name, site.latitude_deg, site.longitude_deg, site.altitude_m),),
        night=quantum_pass.night,
        mask_deg=keys.mask_deg,
    )
    return of_contact(best_pass(options))


def _distil(
    scenario: Scenario, quantum_pass: QuantumPass, label: str, progress: Progress
) -> PassKey:
    """The key of one of the scenario's passes. Each has a seed of its own, or both would give the same bits."""
    keys = scenario.keys
    flown = _flight(scenario, quantum_pass)
    distilled = run_pass(
        flown.geometry,
        preset(keys.channel),
        source.PRESETS[keys.channel],
        seed=2 * scenario.seed + int(label == "K2"),
        eavesdropper=Eavesdropper(**keys.eavesdropper.model_dump()),
        progress=lambda stage, done: progress(f"{label}: {stage}", done),
    )
    origin = {"title": flown.title, "origin": dict(flown.origin)}
    return replace(distilled, report=origin | distilled.report)


def issued_at(scenario: Scenario, clock: Clock) -> datetime:
    """The present time on the clock that the network will have."""
    return scenario.start if clock == "virtual" else datetime.now(UTC)


def provide_for(
    scenario: Scenario,
    arms: Sequence[str],
    folder: RunFolder,
    reporter: Reporter,
    issued: datetime,
) -> Supply | None:
    """Fill the run folder with what the tunnels of these arms need; None where no arm has a tunnel.

    Two passes and the relay, the two ledgers, the sites' certificates (issued at `issued`, on the clock of the
    network), the gateways' pre-shared key.
    """
    with_tunnel = [name for name in arms if scenario.arms[name].tunnel]
    if not with_tunnel:
        return None
    reporter.stage("quantum keys: two satellite passes and the relay")
    supply = _run_passes(scenario, lambda stage, done: reporter.advance(done, stage))
    _fill_ledgers(scenario, supply, folder)
    plan = build_plan(scenario, with_tunnel[0])
    for kms, gateway in KEY_SITES.items():
        address = plan.link(kms, gateway).address(kms)
        init_site(folder.private / kms, kms, [address], [gateway], issued)
    psk = folder.private / "gateways.psk"
    psk.touch(mode=0o600)
    psk.write_text(secrets.token_hex(PSK_BYTES))
    reporter.note(f"{supply.relayed_bits} secret bits at both sites: K1, relayed under K2")
    return supply


def _run_passes(scenario: Scenario, progress: Progress) -> Supply:
    first = _distil(scenario, scenario.keys.first, "K1", progress)
    second = _distil(scenario, scenario.keys.second, "K2", progress)
    # At the satellite: K1 as it kept it, under K2 as it has just made it.
    message = encrypt_relay(first.key_alice, second.key_alice, BLOCK_NUMBER, "K1 by relay")
    return Supply(first, second, message)


def _fill_ledgers(scenario: Scenario, supply: Supply, folder: RunFolder) -> None:
    """The first station stores its K1, the second one what it decrypts out of K'."""
    supply.message.save(folder.ledgers / "relay.json")
    home = SITE_OF_STATION[scenario.keys.first.station]
    away = SITE_OF_STATION[scenario.keys.second.station]
    with Ledger.create(folder.ledger(home), SITE_LETTER[home]) as ledger:
        common = supply.first.key_bob[: supply.message.block_bytes]
        ledger.add_block(BLOCK_NUMBER, common, supply.message.label, scenario.start)
    with Ledger.create(folder.ledger(away), SITE_LETTER[away]) as ledger:
        received = RelayMessage.load(folder.ledgers / "relay.json")
        receive_relay(ledger, received, supply.second.key_bob, scenario.start)
