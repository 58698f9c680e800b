"""What came of a run: samples, verdicts and warnings of constructed run folders."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import analysis, budget, captures
from experiments.analysis import collect_samples, summarise, warnings
from experiments.folder import RunFolder
from experiments.points import sealed_point
from experiments.statistics import overhead, rtt_statistics
from experiments.summary import Arm, CaptureVerdict, Summary, read_summary
from topo.errors import InputError
from topo.planner import build_plan
from topo.scenario import Scenario, find, load

PAPER = load(find("paper"))
ALL = tuple(PAPER.arms)
SEALED = CaptureVerdict(esp_packets=200, icv_good=200, icv_bad=0, plaintext_packets=0)

RTTS_MS = {
    "satellite": [563.8, 575.2, 588.0, 570.0],
    "plain": [601.1, 661.4, 765.0, 650.0],
    "encrypted": [617.2, 664.3, 711.2, 670.0],
    "encrypted_same_radio": [601.9, 662.2, 765.8, 650.8],
}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create("run", tmp_path / "run")


@pytest.fixture
def few_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions from two simulated runs: here it matters that they are there, not how good they are."""
    monkeypatch.setattr(budget, "predicted", partial(budget.predicted, runs=2))


def leave_samples(folder: RunFolder, arm: str, rtts_ms: list[float | None]) -> None:
    """What the prober leaves of an arm."""
    folder.arm(arm).mkdir(exist_ok=True)
    rows = [
        f"{arm},{seq},{seq * 10**9},{'' if rtt is None else round(rtt * 1e6)}"
        for seq, rtt in enumerate(rtts_ms)
    ]
    samples = folder.arm(arm) / "samples.csv"
    samples.write_text("\n".join(["arm,seq,sent_ns,rtt_ns", *rows]) + "\n")
    status = {"worst_lateness_ns": 512, "p99_lateness_ns": 256}
    (folder.arm(arm) / "samples.status.json").write_text(json.dumps(status))


def leave_all(folder: RunFolder, **instead: list[float | None]) -> None:
    for arm in ALL:
        leave_samples(folder, arm, instead.get(arm, list(RTTS_MS[arm])))


def evaluate(folder: RunFolder, *arms: str, scenario: Scenario = PAPER) -> Summary:
    names = arms or ALL
    table = collect_samples(names, folder)
    return summarise(scenario, names, table, folder, None, with_captures=False)


# -- samples and statistics ------------------------------------------------------------------------


def test_the_arms_samples_are_joined_in_the_order_they_ran(folder: RunFolder) -> None:
    leave_all(folder, plain=[601.1, None, 765.0])
    table = collect_samples(("plain", "satellite"), folder)
    lines = folder.samples.read_text().splitlines()
    assert lines[0] == "arm,seq,sent_ns,rtt_ns"
    assert [line.split(",")[0] for line in lines[1:]] == ["plain"] * 3 + ["satellite"] * 4
    assert lines[2] == "plain,1,1000000000,"
    assert len(table) == 7


def test_an_arm_that_left_no_samples_is_an_error(folder: RunFolder) -> None:
    leave_samples(folder, "plain", [1.0, 2.0])
    with pytest.raises(InputError, match=r"encrypted/samples\.csv: No such file"):
        collect_samples(("plain", "encrypted"), folder)


@pytest.mark.usefixtures("few_runs")
def test_a_summary_has_each_arm_beside_prediction_and_publication(folder: RunFolder) -> None:
    leave_all(folder)
    summary = evaluate(folder)
    assert read_summary(folder.summary) == summary
    assert list(summary.arms) == list(ALL)
    for name, arm in summary.arms.items():
        found = rtt_statistics(np.array(RTTS_MS[name]))
        assert {k: v for k, v in arm.model_dump().items() if k in found.model_dump()} == (
            pytest.approx(found.model_dump())
        )
        assert arm.predicted is not None
        assert (arm.published is None) == (name == "encrypted_same_radio")
        assert arm.noise is not None
        assert (arm.noise.worst_lateness_ns, arm.noise.p99_lateness_ns) == (512, 256)
        assert arm.budget == budget.budget(PAPER, build_plan(PAPER, name), PAPER.arms[name])
    assert (summary.captures, summary.keys.session_keys) == ({}, 0)


@pytest.mark.usefixtures("few_runs")
def test_the_claims_are_tested_between_the_right_arms(folder: RunFolder) -> None:
    leave_all(folder)
    summary = evaluate(folder)
    plain, encrypted = np.array(RTTS_MS["plain"]), np.array(RTTS_MS["encrypted"])
    assert summary.overhead == overhead(plain, encrypted, seed=PAPER.seed)
    assert summary.tunnel_overhead is not None
    assert summary.tunnel_overhead.mean_ms == pytest.approx(0.8)  # probe by probe
    assert summary.tunnel_overhead.standard_error_ms < 1e-6
    assert summary.jitter is not None
    assert summary.jitter.jitter_ratio < 1


@pytest.mark.usefixtures("few_runs")
@pytest.mark.parametrize(
    ("arms", "lost"),
    [
        (("satellite", "encrypted"), {}),
        (("plain", "satellite"), {}),
        (("plain", "encrypted"), {"encrypted": [None, 664.3, None]}),
        (("plain", "encrypted"), {"plain": [None, None, None]}),
        (("plain", "encrypted"), {"encrypted": [660.001, 660.002, 660.003, 660.002]}),
    ],
)
def test_no_claim_is_tested_where_an_arm_is_missing_or_does_not_vary(
    folder: RunFolder, arms: tuple[str, ...], lost: dict[str, list[float | None]]
) -> None:
    leave_all(folder, **lost)
    summary = evaluate(folder, *arms)
    assert (summary.overhead, summary.tunnel_overhead, summary.jitter) == (None, None, None)
    for name, rtts in lost.items():
        assert summary.arms[name].lost == rtts.count(None)


@pytest.mark.usefixtures("few_runs")
def test_goodput_is_taken_where_it_was_measured(folder: RunFolder) -> None:
    leave_all(folder)
    transfer = {"protocol": "tcp", "direction": "up", "goodput_mbps": 3.7, "duration_s": 9.6}
    (folder.arm("plain") / "goodput.json").write_text(json.dumps([transfer]))
    summary = evaluate(folder, "plain", "satellite")
    assert [g.goodput_mbps for g in summary.arms["plain"].goodput] == [3.7]
    assert summary.arms["satellite"].goodput == ()


@pytest.mark.usefixtures("few_runs")
def test_captures_of_tunnels_are_judged_with_the_keys_and_the_ends(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_all(folder)
    gcm = "AES-GCM with 16 octet ICV [RFC4106]"
    line = f'"IPv4","10.0.2.1","10.0.5.2","0x00001001","{gcm}","0x{bytes(20).hex()}","NULL",""'
    folder.esp_sa.write_text(f"# a remark\n{line}\n")
    seen: dict[str, tuple[list[str], set[str]]] = {}

    def analyse(capture: Path, esp_sa: list[str], protected: set[Any]) -> CaptureVerdict:
        seen[capture.name] = esp_sa, {str(address) for address in protected}
        return SEALED

    monkeypatch.setattr(captures, "analyse", analyse)
    table = collect_samples(ALL, folder)
    summary = summarise(PAPER, ALL, table, folder, None, with_captures=True)
    ends, keys = {"10.0.0.1", "10.0.7.2"}, [line]
    sealed = sealed_point(PAPER)
    assert seen == {
        f"{arm}-{sealed}.pcapng": (keys, ends) for arm in ("encrypted", "encrypted_same_radio")
    }
    assert summary.captures == {"encrypted": SEALED, "encrypted_same_radio": SEALED}


@pytest.mark.usefixtures("few_runs")
def test_the_ends_of_the_arm_are_protected_too(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm = PAPER.arms["encrypted"].model_copy(update={"source": "gNB", "destination": "5GC"})
    scenario = PAPER.model_copy(update={"arms": {"encrypted": arm}})
    leave_samples(folder, "encrypted", [600.0, 601.0])
    seen: list[set[str]] = []

    def analyse(_capture: Path, _esp_sa: list[str], protected: set[Any]) -> CaptureVerdict:
        seen.append({str(address) for address in protected})
        return SEALED

    monkeypatch.setattr(captures, "analyse", analyse)
    table = collect_samples(("encrypted",), folder)
    summarise(scenario, ("encrypted",), table, folder, None, with_captures=True)
    assert seen == [{"10.0.0.1", "10.0.0.2", "10.0.6.2", "10.0.7.2"}]


# -- warnings --------------------------------------------------------------------------------------


def summary_of(
    arm: str = "encrypted", lost: int = 0, verdict: CaptureVerdict | None = None
) -> Summary:
    figures = rtt_statistics(np.array([np.nan] * lost + [600.0] * (100 - lost)))
    seen = {} if verdict is None else {arm: verdict}
    return Summary(arms={arm: Arm(**figures.model_dump())}, captures=seen)


def leave_status(folder: RunFolder, gateway: str, *icv_failures: int) -> None:
    """What a gateway leaves: one security association a number."""
    folder.arm("encrypted").mkdir(exist_ok=True)
    sas = [{"direction": "in", "icv_failures": failures} for failures in icv_failures]
    path = folder.arm("encrypted") / f"gateway-{gateway}.status.json"
    path.write_text(json.dumps({"name": gateway, "sas": sas}))


def test_a_good_run_has_no_warnings(folder: RunFolder) -> None:
    assert warnings(PAPER, summary_of(verdict=SEALED), folder) == []
    assert warnings(PAPER, summary_of("plain"), folder) == []


def test_lost_probes_are_told(folder: RunFolder) -> None:
    assert warnings(PAPER, summary_of("plain", lost=3), folder) == ["plain: 3 of 100 probes lost"]


def test_lost_probes_of_a_tunnel_whose_gateways_refused_nothing(folder: RunFolder) -> None:
    leave_status(folder, "EG-U", 0, 0)
    leave_status(folder, "EG-N")
    said = warnings(PAPER, summary_of(lost=1, verdict=SEALED), folder)
    assert said == ["encrypted: 1 of 100 probes lost"]


def test_different_keys_are_told(folder: RunFolder) -> None:
    leave_status(folder, "EG-U", 0)
    leave_status(folder, "EG-N", 60, 40)
    (said,) = warnings(PAPER, summary_of(lost=100, verdict=SEALED), folder)
    assert said == (
        "encrypted: 100 of 100 probes lost (EG-N refused 100 ESP packets whose integrity check "
        "failed: the two gateways hold different keys)"
    )


def test_both_gateways_may_refuse(folder: RunFolder) -> None:
    leave_status(folder, "EG-U", 2)
    leave_status(folder, "EG-N", 1)
    (said,) = warnings(PAPER, summary_of(lost=3, verdict=SEALED), folder)
    assert said.index("EG-U refused 2") < said.index("; EG-N refused 1")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"plaintext_packets": 2}, ["2 packets in clear between the gateways"]),
        ({"icv_good": 150}, ["50 of 200 ESP packets do not decrypt"]),
        ({"icv_good": 0, "icv_bad": 200}, ["200 of 200 ESP packets do not decrypt"]),
        ({"esp_packets": 0, "icv_good": 0}, ["no ESP packet between the gateways"]),
        (
            {"esp_packets": 0, "icv_good": 0, "plaintext_packets": 200},
            ["no ESP packet between the gateways", "200 packets in clear between the gateways"],
        ),
    ],
)
def test_what_a_capture_shows_is_told(
    folder: RunFolder, changes: dict[str, int], said: list[str]
) -> None:
    verdict = SEALED.model_copy(update=changes)
    assert not verdict.sealed
    found = warnings(PAPER, summary_of(verdict=verdict), folder)
    assert found == [f"encrypted: {line}" for line in said]


def test_whatever_is_not_sealed_is_told(folder: RunFolder) -> None:
    """The verdict of one word and the warnings agree, over all small counts."""
    for esp in range(3):
        for good in range(esp + 1):
            for plaintext in range(2):
                verdict = CaptureVerdict(
                    esp_packets=esp, icv_good=good, icv_bad=0, plaintext_packets=plaintext
                )
                said = analysis.warnings(PAPER, summary_of(verdict=verdict), folder)
                assert verdict.sealed == (said == [])
