"""What a run ran on: the noise floor of constructed samples, versions, and what is not there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import experiments
from experiments import environment
from experiments.budget import planned_rtt_ns
from experiments.control import CONTROL, control_of
from experiments.environment import PACKAGES, PROGRAMS, describe, noise_floor
from experiments.folder import RunFolder
from topo.errors import MeasurementError
from topo.planner import build_plan
from topo.scenario import find, load

PAPER = load(find("paper"))
PING = """\
PING 10.0.7.2 (10.0.7.2) 56(84) bytes of data.
64 bytes from 10.0.7.2: icmp_seq=1 ttl=57 time=562 ms

--- 10.0.7.2 ping statistics ---
1 packets transmitted, 1 received, 0% packet loss, time 0ms
rtt min/avg/max/mdev = 561.936/561.936/561.936/0.000 ms
"""


def planned_ns() -> int:
    control = control_of(PAPER)
    return planned_rtt_ns(control, build_plan(control, CONTROL), control.arms[CONTROL])


def a_run(directory: Path, *errors_ns: int | None) -> RunFolder:
    """A run folder whose control arm was off by so much, probe by probe; None is a lost one."""
    folder = RunFolder.create("run", directory / "run")
    folder.arm(CONTROL).mkdir()
    rows = [
        f"control,{seq},{seq * 200_000_000},{'' if error is None else planned_ns() + error}"
        for seq, error in enumerate(errors_ns)
    ]
    samples = folder.arm(CONTROL) / "samples.csv"
    samples.write_text("\n".join(["arm,seq,sent_ns,rtt_ns", *rows]) + "\n")
    (folder.arm(CONTROL) / "ping.txt").write_text(PING)
    return folder


def test_the_noise_floor_by_hand(tmp_path: Path) -> None:
    floor = noise_floor(PAPER, a_run(tmp_path, 6_000, None, -2_000, 8_000))
    assert (floor.probes, floor.lost) == (4, 1)
    assert floor.planned_rtt_ms == pytest.approx(planned_ns() / 1e6)
    assert floor.mean_error_ms == pytest.approx(0.004)
    assert floor.worst_error_ms == pytest.approx(0.008)
    assert floor.jitter_ms == pytest.approx((0.008 + 0.010) / 2)


def test_the_worst_probe_may_be_early(tmp_path: Path) -> None:
    assert noise_floor(PAPER, a_run(tmp_path, 1_000, -9_000)).worst_error_ms == pytest.approx(0.009)


@pytest.mark.parametrize("errors_ns", [(None, None, None), (None, 5, None)])
def test_a_control_arm_without_answers_ends_the_run(
    tmp_path: Path, errors_ns: tuple[int | None, ...]
) -> None:
    answered = sum(error is not None for error in errors_ns)
    with pytest.raises(MeasurementError, match=f"only {answered} of 3 probes of the control arm"):
        noise_floor(PAPER, a_run(tmp_path, *errors_ns))


def test_an_environment_says_all_of_it(tmp_path: Path) -> None:
    folder = a_run(tmp_path, 1, 2)
    (folder.root / "guest").mkdir()
    (folder.root / "guest" / "kernel").write_text("6.1.192\n")
    found = describe(PAPER, "uml", "virtual", folder)
    assert (found.substrate, found.clock) == ("uml", "virtual")
    assert (found.seed, found.scenario) == (PAPER.seed, "paper")
    assert found.guest_kernel == "6.1.192"
    assert found.packages.keys() == set(PACKAGES)
    assert re.fullmatch(r"\d+\.\d+.*", found.packages["numpy"])
    assert found.programs.keys() == PROGRAMS.keys()
    assert all("\n" not in version for version in found.programs.values())


def test_on_the_host_there_is_no_guest_kernel(tmp_path: Path) -> None:
    assert describe(PAPER, "host", "real", a_run(tmp_path, 1, 2)).guest_kernel is None


def test_a_program_that_is_not_there_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "PROGRAMS", {"no-such-program": "--version"})
    found = describe(PAPER, "host", "real", a_run(tmp_path, 1, 2))
    assert found.programs == {"no-such-program": "missing"}


def test_every_package_of_the_record_is_one_the_project_depends_on() -> None:
    """Or a fresh machine has run an experiment to its end, and then lacks the version of a package it never had."""
    root = Path(experiments.__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[^\w-]", line)[0] for line in project["dependencies"]}
    assert set(PACKAGES) <= wanted | {project["name"]}
