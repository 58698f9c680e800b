"""From photons to two filled ledgers: two satellite passes, the relay between them, and the sites' certificates.

The first pass leaves K1 with the satellite and its station. A week later the second pass gives K2 to the other
station; the satellite sends K' = K1 xor K2, and from then on both stations hold K1 (paper, sections 3.2 and 4).

Instead of the passes or beside them, entangled pairs that a path of the hybrid network brings to both sites fill a pool
of their own (`experiments.hybrid_keys`): a block of the ledgers like the other, that nobody had to relay.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from experiments.folder import RunFolder
from experiments.hybrid_keys import collect_pairs
from experiments.passes import PassOptions, best_pass
from experiments.progress import Reporter
from experiments.qkd_input import FlownPass, circular, of_contact
from kms.health import require_healthy
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
PAIRS_BLOCK_NUMBER = 2
PSK_BYTES = 32
SITE_OF_STATION = {"user": "KMS-U", "core": "KMS-N"}
SITE_LETTER: dict[str, Site] = {"KMS-U": "U", "KMS-N": "N"}

Progress = Callable[[str, float], None]
"""(what is being done, share of it done)."""


@dataclass(frozen=True)
class Relayed:
    """What the two passes gave."""

    passes: tuple[QuantumPass, QuantumPass]
    first: PassKey
    second: PassKey
    message: RelayMessage


@dataclass(frozen=True)
class Supply:
    """Where the key of a run came from."""

    relayed: Relayed | None
    pairs: PassKey | None
    """Of entangled pairs."""

    @property
    def relayed_bits(self) -> int:
        """Bits of K1 that both stations hold in the end."""
        return 0 if self.relayed is None else 8 * self.relayed.message.block_bytes

    def reports(self, scenario: Scenario) -> dict[str, dict[str, Any]]:
        """The reports of all sources: the passes named as the paper names their keys, then the pairs."""
        found = {}
        if (relayed := self.relayed) is not None:
            both = zip("12", relayed.passes, (relayed.first, relayed.second), strict=True)
            for number, quantum_pass, key in both:
                place = station_name(scenario, quantum_pass)
                found[f"K{number} ({place}, {quantum_pass.night})"] = key.report
        if self.pairs is not None:
            found[self.pairs.report["title"]] = self.pairs.report
        return found


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

    Two passes and the relay or entangled pairs, the two ledgers, the sites' certificates (issued at `issued`, on the
    clock of the network), the gateways' pre-shared key.
    """
    with_tunnel = [name for name in arms if scenario.arms[name].tunnel]
    if not with_tunnel:
        return None
    supply = _make_keys(scenario, reporter)
    _fill_ledgers(scenario, supply, folder)
    plan = build_plan(scenario, with_tunnel[0])
    for kms, gateway in KEY_SITES.items():
        address = plan.link(kms, gateway).address(kms)
        init_site(folder.private / kms, kms, [address], [gateway], issued)
    psk = folder.private / "gateways.psk"
    psk.touch(mode=0o600)
    psk.write_text(secrets.token_hex(PSK_BYTES))
    return supply


def _make_keys(scenario: Scenario, reporter: Reporter) -> Supply:
    """Fly the passes, collect the pairs, or both, as the scenario says."""

    def progress(stage: str, done: float) -> None:
        reporter.advance(done, stage)

    relayed, pairs = None, None
    if scenario.keys.passes is not None:
        reporter.stage("quantum keys: two satellite passes and the relay")
        relayed = _run_passes(scenario, scenario.keys.passes, progress)
        bits = 8 * relayed.message.block_bytes
        reporter.note(f"{bits} secret bits at both sites: K1, relayed under K2")
    if scenario.keys.source != "passes" and scenario.keys.hybrid is not None:
        reporter.stage("quantum keys: entangled pairs")
        pairs = collect_pairs(scenario.keys.hybrid, scenario.seed, progress)
        report = pairs.report
        reporter.note(
            f"{report['secret_bits']} secret bits at both sites: {report['title']}, {report['label']}"
        )
    return Supply(relayed, pairs)


def _run_passes(
    scenario: Scenario, passes: tuple[QuantumPass, QuantumPass], progress: Progress
) -> Relayed:
    first = _distil(scenario, passes[0], "K1", progress)
    second = _distil(scenario, passes[1], "K2", progress)
    # At the satellite: K1 as it kept it, under K2 as it has just made it.
    message = encrypt_relay(first.key_alice, second.key_alice, BLOCK_NUMBER, "K1 by relay")
    return Relayed(passes, first, second, message)


def _fill_ledgers(scenario: Scenario, supply: Supply, folder: RunFolder) -> None:
    """The block of K1 where there is one, and that of the pairs, each end's own bytes."""
    ledgers = {
        kms: Ledger.create(folder.ledger(kms), letter) for kms, letter in SITE_LETTER.items()
    }
    with ledgers["KMS-U"], ledgers["KMS-N"]:
        if supply.relayed is not None:
            _store_relayed(supply.relayed, ledgers, folder, scenario.start)
        if supply.pairs is not None:
            label = supply.pairs.report["title"]
            for kms, key in (("KMS-U", supply.pairs.key_alice), ("KMS-N", supply.pairs.key_bob)):
                require_healthy(key, f"{kms}: key of {label}")
                ledgers[kms].add_block(PAIRS_BLOCK_NUMBER, key, label, scenario.start)


def _store_relayed(
    relayed: Relayed, ledgers: Mapping[str, Ledger], folder: RunFolder, now: datetime
) -> None:
    """The first station stores its K1, the second one what it decrypts out of K'."""
    relayed.message.save(folder.ledgers / "relay.json")
    home, away = (ledgers[SITE_OF_STATION[one.station]] for one in relayed.passes)
    common = relayed.first.key_bob[: relayed.message.block_bytes]
    require_healthy(common, f"block {BLOCK_NUMBER}")
    home.add_block(BLOCK_NUMBER, common, relayed.message.label, now)
    received = RelayMessage.load(folder.ledgers / "relay.json")
    receive_relay(away, received, relayed.second.key_bob, now)
