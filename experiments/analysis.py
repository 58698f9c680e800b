"""What came of a run: the raw files of its folder turned into samples, statistics, verdicts, plots and a report."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from experiments import budget, captures, plots, published, report, samples, statistics
from experiments.decrypt import decrypt_capture, read_esp_sa
from experiments.environment import Environment
from experiments.folder import RunFolder
from experiments.key_supply import Supply
from experiments.points import sealed_point
from experiments.summary import (
    Arm,
    CaptureVerdict,
    Goodput,
    Keys,
    ProbeNoise,
    SiteLedger,
    Summary,
    write_summary,
)
from gateways.suites import SUITES
from kms.ledger import Ledger
from topo.planner import KEY_SITES, build_plan
from topo.scenario import Scenario

Floats = npt.NDArray[np.float64]

LEAST_SPREAD_MS = 0.01
"""RTTs within this are one and the same: a test of their spread would test rounding."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


def collect_samples(arms: tuple[str, ...], folder: RunFolder) -> pd.DataFrame:
    """Join the arms' samples into `samples.csv` and return them."""
    table = samples.read_samples(folder.arm(arm) / "samples.csv" for arm in arms)
    samples.write_samples(folder.samples, table)
    return table


def summarise(
    scenario: Scenario,
    arms: tuple[str, ...],
    table: pd.DataFrame,
    folder: RunFolder,
    supply: Supply | None,
    *,
    with_captures: bool,
) -> Summary:
    """Evaluate a run and write `summary.json`."""
    rtts = samples.rtts_ms(table)
    summary = Summary(
        arms={name: _arm(scenario, name, rtts[name], folder) for name in arms},
        overhead=_compare(rtts, "encrypted", statistics.overhead, scenario.seed),
        tunnel_overhead=_compare(
            rtts, "encrypted_same_radio", statistics.paired_overhead, scenario.seed
        ),
        jitter=_compare(rtts, "encrypted", statistics.jitter_test, scenario.seed),
        keys=_keys(scenario, arms, folder, supply),
        captures=_captures(scenario, arms, folder) if with_captures else {},
    )
    write_summary(folder.summary, summary)
    return summary


def _arm(scenario: Scenario, name: str, rtt_ms: Floats, folder: RunFolder) -> Arm:
    arm, plan = scenario.arms[name], build_plan(scenario, name)
    goodput = folder.arm(name) / "goodput.json"
    status = json.loads((folder.arm(name) / "samples.status.json").read_text())
    of_mean, of_jitter = statistics.confidence_intervals(rtt_ms, seed=scenario.seed)
    return Arm(
        **statistics.rtt_statistics(rtt_ms).model_dump(),
        mean_ci95_ms=of_mean,
        jitter_ci95_ms=of_jitter,
        published=published.ARMS[arm.published].rtt if arm.published else None,
        predicted=budget.predicted(scenario, plan, arm),
        budget=budget.budget(scenario, plan, arm),
        goodput=tuple(Goodput(**g) for g in json.loads(goodput.read_text()))
        if goodput.exists()
        else (),
        noise=ProbeNoise(
            worst_lateness_ns=status["worst_lateness_ns"], p99_lateness_ns=status["p99_lateness_ns"]
        ),
    )


class Test(Protocol[T_co]):
    """A test of one arm's RTTs against another's."""

    def __call__(self, plain_ms: Floats, encrypted_ms: Floats, *, seed: int) -> T_co: ...


def _compare(rtts: dict[str, Floats], arm: str, test: Test[T], seed: int) -> T | None:
    """A test of an arm against the plain one; None unless both ran and both have RTTs that vary."""
    plain, other = rtts.get("plain"), rtts.get(arm)
    if plain is None or other is None:
        return None
    if min(_spread_ms(plain), _spread_ms(other)) < LEAST_SPREAD_MS:
        return None
    return test(plain, other, seed=seed)


def _spread_ms(rtt_ms: Floats) -> float:
    """From the least to the greatest RTT that came back; 0 where fewer than two did."""
    answered = rtt_ms[~np.isnan(rtt_ms)]
    return float(np.ptp(answered)) if answered.size > 1 else 0.0


def _keys(
    scenario: Scenario, arms: tuple[str, ...], folder: RunFolder, supply: Supply | None
) -> Keys:
    if supply is None:
        return Keys()
    statuses = [
        json.loads((folder.arm(name) / "gateway-EG-U.status.json").read_text())
        for name in arms
        if scenario.arms[name].tunnel
    ]
    passes = {
        name: {
            "detections": full["detections"],
            "sifted_bits": full["sifted_bits"],
            "qber": round(full["qber"], 6),
            "error_correction_efficiency": round(full["efficiency"], 4),
            "secret_bits": full["secret_bits"],
        }
        for name, full in supply.reports(scenario).items()
    }
    (folder.ledgers / "passes.json").write_text(json.dumps(supply.reports(scenario), indent=1))
    return Keys(
        passes=passes,
        relayed_bits=supply.relayed_bits,
        sites={kms: _site(kms, folder) for kms in KEY_SITES},
        session_keys=sum(status["keys"] for status in statuses),
        rekeys=sum(status["rekeys"] for status in statuses),
    )


def _site(kms: str, folder: RunFolder) -> SiteLedger:
    """A site's ledger at the end: what it took as master and what it handed out as slave."""
    with Ledger(folder.ledger(kms)) as ledger:
        counts = ledger.counts()
        trail = [entry.detail.get("key_IDs") for entry in ledger.audit_trail()]
        delivered = [key_ids for key_ids in trail if isinstance(key_ids, list)]
    delivered_bytes = counts.own_bytes - counts.own_free_bytes + counts.peer_fetched_bytes
    total = counts.own_bytes + counts.peer_bytes
    return SiteLedger(
        received_bits=8 * total,
        delivered_keys=sum(len(keys) for keys in delivered),
        delivered_bits=8 * delivered_bytes,
        remaining_bits=8 * (total - delivered_bytes),
    )


def _captures(
    scenario: Scenario, arms: tuple[str, ...], folder: RunFolder
) -> dict[str, CaptureVerdict]:
    """The verdict on the capture between the gateways, for every arm with a tunnel: tshark's where it knows the suite,
    else that of our own ESP with the same table (`experiments.decrypt`); what is in clear, tshark says in any case."""
    table, known = read_esp_sa(folder.esp_sa) if folder.esp_sa.exists() else ([], [])
    esp_sa = [line for line in table if not line.startswith("#")]
    in_wireshark = SUITES[scenario.gateways.suite].wireshark is not None

    def verdict(name: str) -> CaptureVerdict:
        plan, arm = build_plan(scenario, name), scenario.arms[name]
        hosts = ("UE", "DN", arm.source, arm.destination)
        protected = {IPv4Address(plan.address(host)) for host in hosts}
        capture = folder.capture(name, sealed_point(scenario))
        seen = captures.analyse(capture, esp_sa, protected)
        if in_wireshark:
            return seen
        sas = decrypt_capture(capture, table, known).sas
        return CaptureVerdict(
            esp_packets=seen.esp_packets,
            icv_good=sum(sa.icv_good for sa in sas),
            icv_bad=sum(sa.icv_bad for sa in sas),
            inner_icmp=sum(sa.protocols["ICMP"] for sa in sas),
            plaintext_packets=seen.plaintext_packets,
        )

    with_tunnel = [name for name in arms if scenario.arms[name].tunnel]
    with ThreadPoolExecutor() as pool:  # each waits for its own tshark
        return dict(zip(with_tunnel, pool.map(verdict, with_tunnel), strict=True))


def warnings(scenario: Scenario, summary: Summary, folder: RunFolder) -> list[str]:
    """What a reader must know before trusting the run, one line each; empty when all is well."""
    said = []
    for name, arm in summary.arms.items():
        if arm.lost:
            said.append(f"{name}: {arm.lost} of {arm.n} probes lost{_why(scenario, name, folder)}")
        for transfer in arm.goodput:
            if transfer.goodput_mbps == 0:
                said.append(
                    f"{name}: iperf {transfer.protocol} {transfer.direction}: nothing came through"
                )
    for name, verdict in summary.captures.items():
        if not verdict.esp_packets:
            said.append(f"{name}: no ESP packet between the gateways")
        if verdict.plaintext_packets:
            said.append(
                f"{name}: {verdict.plaintext_packets} packets in clear between the gateways"
            )
        if verdict.icv_good != verdict.esp_packets:
            bad = verdict.esp_packets - verdict.icv_good
            said.append(f"{name}: {bad} of {verdict.esp_packets} ESP packets do not decrypt")
    return said


def _why(scenario: Scenario, name: str, folder: RunFolder) -> str:
    """What the gateways' counters say about an arm's lost probes."""
    if not scenario.arms[name].tunnel:
        return ""
    reasons = []
    for gateway in KEY_SITES.values():
        status = json.loads((folder.arm(name) / f"gateway-{gateway}.status.json").read_text())
        failures = sum(sa["icv_failures"] for sa in status["sas"])
        if failures:
            reasons.append(
                f"{gateway} refused {failures} ESP packets whose integrity check failed: "
                "the two gateways hold different keys"
            )
    return f" ({'; '.join(reasons)})" if reasons else ""


def publish(
    scenario: Scenario,
    table: pd.DataFrame,
    summary: Summary,
    ran_on: Environment,
    folder: RunFolder,
) -> None:
    """Draw the plots and write the report."""
    report.write_report(
        folder.report,
        summary,
        title=scenario.title,
        environment=ran_on.model_dump(),
        figures=plots.write_figures(folder.root, table, summary),
        warnings=warnings(scenario, summary, folder),
        scenario_toml=folder.scenario.read_text(encoding="utf-8"),
    )
