"""One run of a scenario, from photons to the report: what `qntn reproduce` and `qntn run` do.

Keys first, on this machine: two satellite passes, the relay, two ledgers. Then the network, in a substrate. Then, out
here again, what came of it: samples, statistics, predictions, captures decrypted by tshark, plots, the report.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments import analysis, environment
from experiments.budget import check_arm
from experiments.control import CONTROL, control_of
from experiments.folder import RunFolder
from experiments.key_supply import Supply, issued_at, provide_for
from experiments.progress import Listener, Log, Reporter
from experiments.summary import Summary
from experiments.timetable import slot_s
from topo.errors import GuestFailed, QntnError
from topo.planner import build_plan
from topo.scenario import Scenario
from topo.substrates import Clock, Job, Substrate, choose

MODULE = "experiments.inside"
WALL_S_PER_ARM = 300.0
"""Wall-clock allowance of an arm beyond its probes, seconds: bring-up, goodput, a slow machine."""


@dataclass(frozen=True)
class RunOptions:
    """What of a scenario is run, and where."""

    substrate: Literal["auto", "host", "uml"] = "auto"
    clock: Literal["auto", "real", "virtual"] = "auto"
    out: Path | None = None
    arms: tuple[str, ...] = ()
    """Empty: every arm of the scenario."""
    captures: bool = True
    goodput: bool = True
    plots: bool = True


@dataclass(frozen=True)
class RunOutcome:
    """What a run left."""

    folder: RunFolder
    summary: Summary
    environment: environment.Environment
    warnings: tuple[str, ...]
    """What went wrong without stopping the run: lost probes, packets in clear, wrong keys."""


def run_scenario(scenario: Scenario, options: RunOptions, reporter: Reporter) -> RunOutcome:
    """Run a scenario's arms and evaluate them; see the module's docstring.

    Raises `FeatureMissing` before anything is made where the machine cannot run it, `GuestFailed` or the error from
    inside where the network fails, `NoKeyFromPass` where a satellite pass yields no key.
    """
    arms = options.arms or tuple(scenario.arms)
    control_of(scenario)
    for name in arms:  # what cannot work is said before anything starts
        check_arm(scenario, build_plan(scenario, name), name)
    substrate, clock = choose(options.substrate, options.clock)
    folder = RunFolder.create(scenario.name, options.out)
    folder.write_scenario(scenario)
    log = Log(folder.log, reporter)
    log.note(f"substrate {substrate.name}, {clock} clock, seed {scenario.seed}")
    try:
        return _Run(scenario, arms, options, substrate, clock, folder, log).carry_out()
    except QntnError as error:
        log.keep(f"ERROR {error}")
        raise


def run_control(
    scenario: Scenario, substrate: Substrate, clock: Clock, out: Path, reporter: Reporter
) -> environment.NoiseFloor:
    """Run only the control arm of a scenario, and say how far its RTTs stray from the plan."""
    folder = RunFolder.create(CONTROL, out)
    folder.write_scenario(scenario)
    log = Log(folder.log, reporter)
    _Run(scenario, (), RunOptions(), substrate, clock, folder, log).run_inside()
    return environment.noise_floor(scenario, folder)


@dataclass
class _Run:
    """One run under way."""

    scenario: Scenario
    arms: tuple[str, ...]
    options: RunOptions
    substrate: Substrate
    clock: Clock
    folder: RunFolder
    log: Log

    def carry_out(self) -> RunOutcome:
        supply = provide_for(
            self.scenario, self.arms, self.folder, self.log, issued_at(self.scenario, self.clock)
        )
        self.run_inside()
        return self._evaluate(supply)

    def run_inside(self) -> None:
        """Run every arm in the substrate."""
        argv = [sys.executable, "-m", MODULE, str(self.folder.root), CONTROL, *self.arms]
        argv += [] if self.options.captures else ["--no-captures"]
        argv += [] if self.options.goodput else ["--no-goodput"]
        job = Job(
            argv=tuple(argv),
            folder=self.folder.root,
            clock=self.clock,
            start_unix_ns=round(self.scenario.start.timestamp()) * 1_000_000_000,
            time_limit_s=self._time_limit_s(),
        )
        listener = Listener(self.scenario, self.log)
        status = self.substrate.run(job, listener.hear)
        listener.raise_error()
        if status != 0:
            errors = self.folder.root / "guest" / "stderr"
            words = errors.read_text(errors="replace").strip().splitlines()
            last = words[-1] if words else "no word on standard error"
            raise GuestFailed(f"the run inside ended with status {status}: {last}", errors)

    def _time_limit_s(self) -> float:
        """More than a run of these arms can take on the clock of whoever watches it, seconds.

        That is the wall's, but where this process is itself in a guest with a virtual clock.
        """
        return (1 + len(self.arms)) * (WALL_S_PER_ARM + slot_s(self.scenario))

    def _evaluate(self, supply: Supply | None) -> RunOutcome:
        """Turn what the run left into its results."""
        self.log.stage("evaluation: statistics, predictions, captures")
        samples = analysis.collect_samples(self.arms, self.folder)
        summary = analysis.summarise(
            self.scenario,
            self.arms,
            samples,
            self.folder,
            supply,
            with_captures=self.options.captures,
        )
        ran_on = environment.describe(self.scenario, self.substrate.name, self.clock, self.folder)
        self.folder.environment.write_text(ran_on.model_dump_json(indent=2), encoding="utf-8")
        if self.options.plots:
            self.log.stage("plots and report")
            analysis.publish(self.scenario, samples, summary, ran_on, self.folder)
        warnings = tuple(analysis.warnings(self.scenario, summary, self.folder))
        for warning in warnings:
            self.log.keep(f"WARNING {warning}")
        return RunOutcome(self.folder, summary, ran_on, warnings)
