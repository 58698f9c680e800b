"""What a person sees in the terminal: progress, the delay budget, a run's outcome."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from experiments.budget import theoretical_rtt_ms
from experiments.comparison import terminal_table
from topo.planner import build_plan
from topo.scenario import Scenario

# pandas, scipy and matplotlib take seconds to import, and most commands that show progress need none of them.
if TYPE_CHECKING:
    from experiments.environment import NoiseFloor
    from experiments.run import RunOutcome


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
    in_space = [link.number for link in plan.links if {"user", "feeder"} & set(link.kinds)]
    return {
        "scenario": scenario.name,
        "architecture": scenario.architecture,
        "hops": [{"hop": hop, "one_way_ms": round(delay, 6)} for hop, delay in hops],
        "satellite_one_way_ms": round(sum(hops[number][1] for number in in_space), 6),
        "one_way_ms": round(rtt_ms / 2, 6),
        "rtt_ms": round(rtt_ms, 6),
    }


def print_delays(scenario: Scenario, found: dict[str, Any]) -> None:
    """Print the budget, and the whole plan of an arm if it is among what was found."""
    console = Console()
    table = Table(title=f"{scenario.title}: delay budget ({scenario.architecture})")
    table.add_column("hop")
    table.add_column("one way, ms", justify="right")
    for hop in found["hops"]:
        table.add_row(hop["hop"], f"{hop['one_way_ms']:.2f}")
    table.add_section()
    table.add_row("one way, satellite hops", f"{found['satellite_one_way_ms']:.2f}")
    table.add_row("one way, all hops", f"{found['one_way_ms']:.2f}")
    table.add_row("theoretical RTT, equation (2)", f"{found['rtt_ms']:.2f}")
    console.print(table)
    for line in found.get("plan", ()):
        print(line)


def print_outcome(scenario: Scenario, outcome: RunOutcome) -> None:
    """Print a run's table, its verdicts and where its folder is."""
    console = Console()
    console.print(terminal_table(outcome.summary))
    for warning in outcome.warnings:
        console.print(f"[bold red]WARNING[/] {warning}", highlight=False)
    console.print(noise_line(outcome.environment.noise_floor), highlight=False)
    sys.stdout.flush()
    console.print(f"run folder: {outcome.folder.root}", highlight=False, soft_wrap=True)


def noise_line(floor: NoiseFloor) -> str:
    """The noise floor in one line."""
    ping = (
        ""
        if floor.stock_ping_mean_ms is None
        else f"; stock ping {floor.stock_ping_mean_ms:.3f} ms"
    )
    return (
        f"noise floor (control arm, no waits, planned {floor.planned_rtt_ms:.3f} ms): emulated − planned RTT "
        f"{floor.mean_error_ms:+.3f} ms in the mean, {floor.worst_error_ms:.3f} ms at worst, "
        f"J {floor.jitter_ms:.3f} ms{ping}"
    )


def print_doctor(found: dict[str, Any], floors: dict[str, NoiseFloor]) -> None:
    """Print what `qntn doctor` found."""
    console = Console()
    error = found["sleep_error_us"]
    console.print(f"kernel {found['kernel']}, {found['cpus']} processors", highlight=False)
    for name, substrate in found["substrates"].items():
        verdict = "usable" if substrate["usable"] else "[bold red]not usable[/]"
        console.print(f"substrate {name}: {verdict}", highlight=False)
        _print_findings(console, substrate["findings"])
    console.print("programs")
    _print_findings(console, found["programs"])
    console.print(
        f"a sleep of 10 ms ends late by {error['median']:.0f} µs in the median, {error['p99']:.0f} µs at the 99th "
        f"percentile, {error['worst']:.0f} µs at worst: a real-time run is no more exact",
        highlight=False,
    )
    for name, floor in floors.items():
        console.print(f"{name}: {noise_line(floor)}", highlight=False)


def _print_findings(console: Console, findings: list[dict[str, Any]]) -> None:
    for finding in findings:
        remedy = "" if finding["ok"] else f". {finding['remedy']}"
        console.print(
            f"  {finding['subject']}: {finding['found']}{remedy}", highlight=False, soft_wrap=True
        )


def print_bringup(found: dict[str, Any]) -> None:
    """Print what `qntn bench bringup` measured."""
    table = Table(title=f"chain of {found['hosts']} hosts, median of {found['rounds']} rounds")
    for column in ("", "up, s", "down, s", "up, times qntn", "down, times qntn"):
        table.add_column(column, justify="right" if column else "left")
    for name, times in found["medians"].items():
        ratio = found["ratios_to_qntn"].get(name)
        ratios = ("", "") if ratio is None else (f"{ratio['up_s']:.1f}", f"{ratio['down_s']:.1f}")
        table.add_row(name, f"{times['up_s']:.3f}", f"{times['down_s']:.3f}", *ratios)
    Console().print(table)
