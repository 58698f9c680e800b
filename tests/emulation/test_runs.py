"""Whole runs: the same twice, in every architecture, with the wrong key, and on the `host` substrate."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.budget import planned_rtt_ns
from experiments.samples import read_samples, rtts_ms
from tests.emulation.conftest import GuestRun, run, smaller
from topo.planner import build_plan
from topo.scenario import Scenario, find, load

pytestmark = pytest.mark.emulation

QNTN = Path(sys.executable).parent / "qntn"


def test_the_same_seed_gives_the_same_samples(paper: Scenario, tmp_path: Path) -> None:
    short = smaller(paper, 6)
    seeds = {"one": 1, "again": 1, "other": 2}
    samples = {
        name: run(
            short.model_copy(update={"seed": seed}), tmp_path / name, "plain", "encrypted"
        ).folder.samples.read_bytes()
        for name, seed in seeds.items()
    }
    assert samples["one"] == samples["again"]
    assert samples["one"] != samples["other"]


@pytest.mark.parametrize("name", ["transparent", "regenerative", "leo"])
def test_every_architecture_carries_packets_end_to_end(name: str, tmp_path: Path) -> None:
    scenario = smaller(load(find(name)), 5, rekey_after_s=60.0)
    outcome = run(scenario, tmp_path / "run")
    assert outcome.warnings == ()
    assert outcome.environment.noise_floor.worst_error_ms <= 0.05
    emulated = rtts_ms(read_samples(outcome.folder.samples))
    for arm_name, arm in scenario.arms.items():
        planned_ms = planned_rtt_ns(scenario, build_plan(scenario, arm_name), arm) / 1e6
        waited_ms = emulated[arm_name] - planned_ms
        assert (waited_ms >= -0.05).all()
        assert (waited_ms <= 10 + 4 + 2 * 16 + 0.05).all()  # grid, grant, two retransmissions
    verdict = outcome.summary.captures["encrypted"]
    assert verdict.esp_packets == verdict.icv_good == 2 * 5
    assert verdict.plaintext_packets == 0


def test_with_a_wrong_key_nothing_passes_and_the_run_says_so(
    paper: Scenario, tmp_path: Path
) -> None:
    outcome = run(smaller(paper, 4, fault="wrong-key"), tmp_path / "run", "encrypted")
    assert outcome.summary.arms["encrypted"].lost == 4
    (lost,) = outcome.warnings
    assert lost.startswith("encrypted: 4 of 4 probes lost (EG-N refused 4 ESP packets whose")
    assert lost.endswith("the two gateways hold different keys)")


def test_a_wrong_key_ends_the_command_with_exit_1(tmp_path: Path) -> None:
    scenario = tmp_path / "wrong.toml"
    text = find("paper").read_text()
    scenario.write_text(text.replace("[gateways]", '[gateways]\nfault = "wrong-key"'))
    command = [QNTN, "run", scenario, "--arm", "encrypted", "--clock", "virtual", "--probes", "2"]
    command += ["--no-plots", "--out", tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no goodput measured: no probe came back" in done.stderr
    assert "hold different keys" in done.stdout


def test_the_host_substrate_runs_where_the_kernel_has_netem(
    in_guest: Callable[..., GuestRun],
) -> None:
    """A guest is a host with netem: as root, on its own kernel, the same command does the same."""
    done = in_guest("as_host.py")
    assert done.status == 0, done.errors
    samples = rtts_ms(read_samples(done.folder / "run" / "samples.csv"))
    scenario = load(find("paper"))
    assert samples["plain"].size == 3
    planned = planned_rtt_ns(scenario, build_plan(scenario, "plain"), scenario.arms["plain"]) / 1e6
    assert (samples["plain"] > planned - 0.05).all()
    assert '"substrate": "host"' in (done.folder / "run" / "environment.json").read_text()


def test_a_real_clock_prints_its_noise_floor(tmp_path: Path) -> None:
    command = [QNTN, "run", "paper", "--arm", "satellite", "--substrate", "uml", "--clock", "real"]
    command += ["--probes", "3", "--no-goodput", "--no-plots", "--out", tmp_path / "run"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "300"}
    )
    assert "noise floor (control arm, no waits, planned 561.929 ms)" in done.stdout


def test_a_link_that_carries_nothing_one_way_ends_no_run(paper: Scenario, tmp_path: Path) -> None:
    """Probes come back now and then, TCP never gets anywhere: goodput 0 is a result."""
    lossy = paper.links.feeder.model_copy(update={"loss_up": 0.7})
    links = paper.links.model_copy(update={"feeder": lossy})
    outcome = run(
        smaller(paper.model_copy(update={"links": links}), 20),
        tmp_path / "run",
        "plain",
        goodput=True,
    )
    arm = outcome.summary.arms["plain"]
    assert 0 < arm.lost < arm.n
    assert len(arm.goodput) == 3
