"""Runs in a User Mode Linux guest, shared by the tests that only look at what one left."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from experiments.run import RunOptions, RunOutcome, run_scenario
from topo.errors import FeatureMissing
from topo.scenario import Scenario, find, load
from topo.substrates import Clock, Job
from topo.substrates.kernel import find_kernel
from topo.substrates.uml import UmlSubstrate

GUEST_SCRIPTS = Path(__file__).parent / "guest"


class Silent:
    """A reporter that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def stage(self, name: str, total: float | None = None) -> None:
        pass

    def advance(self, done: float, detail: str = "") -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


@dataclass(frozen=True)
class GuestRun:
    """What a script inside a guest did."""

    status: int
    lines: list[str]
    folder: Path

    @property
    def errors(self) -> str:
        return (self.folder / "guest" / "stderr").read_text()


@pytest.fixture(scope="session", autouse=True)
def _kernel() -> None:
    try:
        find_kernel()
    except FeatureMissing as error:
        pytest.skip(str(error))  # `--require emulation` makes this a failure


@pytest.fixture
def in_guest(tmp_path: Path) -> Callable[..., GuestRun]:
    """Run a script of `tests/emulation/guest` in a guest of its own."""

    def run(script: str, *arguments: str, clock: Clock = "virtual") -> GuestRun:
        lines: list[str] = []
        argv = (sys.executable, str(GUEST_SCRIPTS / script), *arguments)
        job = Job(argv=argv, folder=tmp_path, clock=clock, time_limit_s=300, silence_limit_s=200)
        status = UmlSubstrate().run(job, lines.append)
        return GuestRun(status, lines, tmp_path)

    return run


def smaller(scenario: Scenario, probes: int, **gateways: object) -> Scenario:
    """The scenario with fewer probes, and with other settings of the gateways."""
    return scenario.model_copy(
        update={
            "probe": scenario.probe.model_copy(update={"count": probes}),
            "gateways": scenario.gateways.model_copy(update=gateways),
        }
    )


def run(
    scenario: Scenario, out: Path, *arms: str, goodput: bool = False, plots: bool = False
) -> RunOutcome:
    """Run a scenario in a guest with a virtual clock."""
    options = RunOptions(
        substrate="uml", clock="virtual", out=out, arms=arms, goodput=goodput, plots=plots
    )
    return run_scenario(scenario, options, Silent())


@pytest.fixture(scope="session")
def paper() -> Scenario:
    """The paper's scenario, small: 20 probes an arm, a rekey every 8 s."""
    return smaller(load(find("paper")), 20, rekey_after_s=8.0)


@pytest.fixture(scope="session")
def paper_run(paper: Scenario, tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    """One whole run of it, goodput, plots and report included."""
    return run(paper, tmp_path_factory.mktemp("paper") / "run", goodput=True, plots=True)
