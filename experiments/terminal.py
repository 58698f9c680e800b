"""What a person sees in the terminal: progress, the delay budget, a run's outcome."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from experiments.budget import theoretical_rtt_ms
from experiments.report import terminal_table
from experiments.run import RunOutcome
from topo.planner import build_plan
from topo.scenario import Scenario


class TerminalReporter:
    """Progress bars on standard error; plain lines where that is no terminal. A context manager."""

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._total: float | None = None

    def __enter__(self) -> TerminalReporter:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._finish()
        self._bars.stop()

    def stage(self, name: str, total: float | None = None) -> None:
        self._finish()
        self._total = total
        self._task = self._bars.add_task(name, total=total, detail="")
        if not self._console.is_terminal:
            self._console.print(f"- {name}", highlight=False)

    def advance(self, done: float, detail: str = "") -> None:
        if self._task is not None:
            total = 1.0 if self._total is None else self._total
            self._bars.update(self._task, completed=done, total=total, detail=detail)

    def note(self, text: str) -> None:
        self._console.print(f"  {text}", highlight=False)

    def _finish(self) -> None:
        if self._task is not None:
            total = 1.0 if self._total is None else self._total
            self._bars.update(self._task, completed=total, total=total, detail="")
            self._task = None


def delay_budget(scenario: Scenario) -> dict[str, Any]:
    """The one-way delay of each hop by geometry and ground line, and the theoretical RTT, JSON-able, in ms."""
    plan = build_plan(scenario, next(iter(scenario.arms)))
    hops, rtt_ms = theoretical_rtt_ms(scenario, plan)
    return {
        "scenario": scenario.name,
        "architecture": scenario.architecture,
        "hops": [{"hop": hop, "one_way_ms": round(delay, 6)} for hop, delay in hops],
        "one_way_ms": round(rtt_ms / 2, 6),
        "rtt_ms": round(rtt_ms, 6),
    }


def print_delays(scenario: Scenario, found: dict[str, Any], arm: str | None) -> None:
    """Print the budget, and the whole plan of an arm if one is named."""
    console = Console()
    table = Table(title=f"{scenario.title}: delay budget ({scenario.architecture})")
    table.add_column("hop")
    table.add_column("one way, ms", justify="right")
    for hop in found["hops"]:
        table.add_row(hop["hop"], f"{hop['one_way_ms']:.2f}")
    table.add_section()
    table.add_row("one way, all hops", f"{found['one_way_ms']:.2f}")
    table.add_row("theoretical RTT, equation (2)", f"{found['rtt_ms']:.2f}")
    console.print(table)
    if arm is not None:
        for line in build_plan(scenario, arm).describe():
            print(line)


def print_outcome(scenario: Scenario, outcome: RunOutcome) -> None:
    """Print a run's table, its verdicts and where its folder is."""
    console = Console()
    console.print(terminal_table(outcome.summary))
    for warning in outcome.warnings:
        console.print(f"[bold red]WARNING[/] {warning}", highlight=False)
    floor = outcome.environment.noise_floor
    console.print(
        f"noise floor (control arm, no waits): emulated − planned RTT {floor.mean_error_ms:+.3f} ms in the mean, "
        f"{floor.worst_error_ms:.3f} ms at worst, J {floor.jitter_ms:.3f} ms",
        highlight=False,
    )
    sys.stdout.flush()
    console.print(f"run folder: {outcome.folder.root}", highlight=False, soft_wrap=True)
