"""One small run of the paper's experiment, looked at from all sides."""

from __future__ import annotations

import json
import sqlite3

import numpy as np
import pytest

from experiments.budget import path_elements, planned_rtt_ns
from experiments.captures import rtts_from_capture
from experiments.control import CONTROL, control_of
from experiments.run import RunOutcome
from experiments.samples import read_samples, rtts_ms
from experiments.summary import read_summary
from tests.emulation.conftest import run
from topo.links.predictor import HopLine
from topo.planner import build_plan
from topo.scenario import Scenario, load

pytestmark = pytest.mark.emulation

ARMS = ("satellite", "plain", "encrypted", "encrypted_same_radio")
WITH_TUNNEL = ARMS[2:]
EXACT_MS = 0.05
"""How near an emulated RTT comes to the planned one on a virtual clock."""


def rtts(outcome: RunOutcome) -> dict[str, np.ndarray]:
    return rtts_ms(read_samples(outcome.folder.samples))


def test_every_probe_of_every_arm_comes_back_over_at_least_two_rekeys(
    paper_run: RunOutcome,
) -> None:
    summary = paper_run.summary
    assert {name: (arm.n, arm.lost) for name, arm in summary.arms.items()} == dict.fromkeys(
        ARMS, (20, 0)
    )
    assert paper_run.warnings == ()
    for arm in WITH_TUNNEL:
        status = json.loads((paper_run.folder.arm(arm) / "gateway-EG-U.status.json").read_text())
        assert status["rekeys"] >= 2
        assert len(set(status["key_ids"])) == len(status["key_ids"]) == status["rekeys"] + 1


def test_without_waits_every_rtt_is_the_planned_one(paper_run: RunOutcome) -> None:
    floor = paper_run.environment.noise_floor
    assert floor.lost == 0
    assert floor.worst_error_ms <= EXACT_MS
    assert floor.jitter_ms <= 0.01


def test_the_stock_ping_sees_the_same_path(paper_run: RunOutcome) -> None:
    floor = paper_run.environment.noise_floor
    assert floor.stock_ping_mean_ms == pytest.approx(floor.planned_rtt_ms, abs=EXACT_MS)


def test_with_waits_every_rtt_is_what_the_waiting_lines_say(
    paper: Scenario, paper_run: RunOutcome
) -> None:
    """The plain arm, probe by probe, against the same lines run in this process with the same seed."""
    arm, plan = paper.arms["plain"], build_plan(paper, "plain")
    config = json.loads((paper_run.folder.arm("plain") / "waiter-W0.json").read_text())
    ways = [("UE", "DN", "a_to_b"), ("DN", "UE", "b_to_a")]
    hops = []
    for source, destination, way in ways:
        elements = path_elements(paper, plan, arm, source, destination)
        links = [link for link, _, _ in plan.directions(source, destination)]
        for link, of_hop in zip(links, elements, strict=True):
            hops.append(HopLine(of_hop, paper.seed, f"plain {link.a}-{link.b} {way}"))
    samples = read_samples(paper_run.folder.samples).query("arm == 'plain'")
    for _, sample in samples.iterrows():
        begin_ns = at_ns = sample.sent_ns - config["epoch_ns"]
        for hop in hops:
            at_ns = hop.out_ns(at_ns, 98)
        assert sample.rtt_ns == pytest.approx(at_ns - begin_ns, abs=EXACT_MS * 1e6)


def test_the_tunnel_alone_costs_what_the_plan_says(paper: Scenario, paper_run: RunOutcome) -> None:
    planned = {
        name: planned_rtt_ns(paper, build_plan(paper, name), paper.arms[name]) / 1e6
        for name in ("plain", "encrypted_same_radio")
    }
    emulated = rtts(paper_run)
    cost = emulated["encrypted_same_radio"] - emulated["plain"]
    expected = planned["encrypted_same_radio"] - planned["plain"]
    # A probe that meets another frame's slot by coming a little later is the exception.
    assert np.median(cost) == pytest.approx(expected, abs=0.02)
    assert np.mean(np.abs(cost - expected) < EXACT_MS) > 0.8


@pytest.mark.parametrize("arm", WITH_TUNNEL)
def test_the_satellite_hop_carries_nothing_but_esp_that_verifies(
    paper_run: RunOutcome, arm: str
) -> None:
    verdict = paper_run.summary.captures[arm]
    assert verdict.esp_packets == verdict.icv_good == verdict.inner_icmp == 2 * 20
    assert verdict.icv_bad == verdict.plaintext_packets == 0


@pytest.mark.parametrize("arm", ARMS[1:])
def test_the_capture_at_the_ue_gives_every_rtt_again(paper_run: RunOutcome, arm: str) -> None:
    samples = read_samples(paper_run.folder.samples)
    measured = dict(samples.loc[samples["arm"] == arm, ["seq", "rtt_ns"]].itertuples(index=False))
    captured = rtts_from_capture(paper_run.folder.capture(arm, "ue"))
    assert captured.keys() == measured.keys()
    for seq, rtt_ns in measured.items():
        assert captured[seq] == pytest.approx(rtt_ns, abs=5_000)


def test_both_sites_delivered_the_same_keys_once(paper_run: RunOutcome) -> None:
    """Keys issued at N = security associations made; U may have one more an arm, of a rekey under way at its end."""
    audit = "SELECT detail FROM audit WHERE event IN ('take', 'fetch')"
    issued = {}
    for kms in ("KMS-U", "KMS-N"):
        with sqlite3.connect(paper_run.folder.ledger(kms)) as database:
            rows = [json.loads(detail) for (detail,) in database.execute(audit)]
        issued[kms] = [key_id for row in rows for key_id in row["key_IDs"]]
    assert len(set(issued["KMS-U"])) == len(issued["KMS-U"])
    assert len(set(issued["KMS-N"])) == len(issued["KMS-N"])
    assert set(issued["KMS-N"]) <= set(issued["KMS-U"])
    assert len(issued["KMS-U"]) - len(issued["KMS-N"]) <= len(WITH_TUNNEL)
    assert len(issued["KMS-N"]) == paper_run.summary.keys.session_keys


def test_each_arm_has_goodput_within_its_link_rate(paper: Scenario, paper_run: RunOutcome) -> None:
    limits = {"up": paper.links.user.rate_up_mbps, "down": paper.links.user.rate_down_mbps}
    for arm in paper_run.summary.arms.values():
        assert [(g.protocol, g.direction) for g in arm.goodput] == [
            ("tcp", "up"),
            ("tcp", "down"),
            ("udp", "up"),
        ]
        for goodput in arm.goodput:
            assert 0 < goodput.goodput_mbps < limits[goodput.direction]


def test_the_run_folder_is_complete(paper: Scenario, paper_run: RunOutcome) -> None:
    folder = paper_run.folder
    assert read_summary(folder.summary) == paper_run.summary
    assert load(folder.scenario) == paper
    environment = json.loads(folder.environment.read_text())
    assert (environment["substrate"], environment["clock"]) == ("uml", "virtual")
    assert environment["guest_kernel"]
    for name in ("report.html", "log.txt", "esp_sa", "figure-12-rtt.png", "figure-14-jitter.svg"):
        assert (folder.root / name).stat().st_size > 0
    assert not folder.arm(CONTROL).joinpath("goodput.json").exists()


@pytest.fixture(scope="module")
def quiet(paper: Scenario) -> Scenario:
    """The paper's four arms with every wait taken out: the tunnel and its rekeys stay."""
    arms = {name: arm.model_copy(update={"session": None}) for name, arm in paper.arms.items()}
    links = control_of(paper).links
    return paper.model_copy(update={"links": links, "sessions": {}, "arms": arms, "iperf": None})


def test_without_waits_every_probe_of_every_arm_is_exact(
    quiet: Scenario, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outcome = run(quiet, tmp_path_factory.mktemp("quiet") / "run")
    assert outcome.summary.keys.rekeys >= 2 * len(WITH_TUNNEL)
    for name, emulated in rtts(outcome).items():
        planned_ms = planned_rtt_ns(quiet, build_plan(quiet, name), quiet.arms[name]) / 1e6
        assert np.abs(emulated - planned_ms).max() <= EXACT_MS
        assert np.abs(np.diff(emulated)).mean() <= 0.01
        # Nothing varies, so nothing can be told in run-to-run deviations.
        assert set(outcome.summary.arms[name].deviations("published").values()) == {None}
