"""The command line: `qntn`. Every command turns an error of the project into one line and its exit code."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from experiments.run import RunOptions, run_scenario
from topo.errors import QntnError
from topo.scenario import Scenario, find, load

# Typer commands are called by keyword; their many parameters are the options of one command.
# ruff: noqa: PLR0917

app = typer.Typer(
    name="qntn",
    help="A packet-level testbed for quantum-encrypted 5G non-terrestrial networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

SubstrateOption = Annotated[
    Literal["auto", "host", "uml"],
    typer.Option(help="Kernel that runs the network: this machine's own, or User Mode Linux."),
]
ClockOption = Annotated[
    Literal["auto", "real", "virtual"],
    typer.Option(help="Real time, or a virtual clock that jumps to the next timer (uml only)."),
]
OutOption = Annotated[
    Path | None, typer.Option(help="Run folder; by default runs/<UTC time>-<name>/.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
ScenarioArgument = Annotated[
    str, typer.Argument(help="A scenario file, or the name of a shipped one.")
]


@app.command()
def reproduce(
    substrate: SubstrateOption = "auto",
    clock: ClockOption = "auto",
    probes: Annotated[int, typer.Option(min=2, help="Probes an arm.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random draw.")] = 1,
    out: OutOption = None,
    captures: Annotated[
        bool, typer.Option(help="Capture at the UE and on the satellite hop.")
    ] = True,
    goodput: Annotated[bool, typer.Option(help="Measure iperf goodput in every arm.")] = True,
    plots: Annotated[bool, typer.Option(help="Draw the plots and write report.html.")] = True,
    as_json: JsonOption = False,
) -> None:
    """The paper's experiment: keys from two satellite passes, four arms, table, plots, captures."""
    options = RunOptions(
        substrate=substrate, clock=clock, out=out, captures=captures, goodput=goodput, plots=plots
    )
    _run(_with(load(find("paper")), probes, seed), options, as_json)


@app.command()
def run(
    scenario: ScenarioArgument,
    experiment: Annotated[
        Literal["rtt"], typer.Argument(help="rtt: probe every arm of the scenario.")
    ] = "rtt",
    arm: Annotated[
        list[str] | None, typer.Option("--arm", help="Only this arm; may be repeated.")
    ] = None,
    substrate: SubstrateOption = "auto",
    clock: ClockOption = "auto",
    probes: Annotated[int | None, typer.Option(min=2, help="Probes an arm.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of every random draw.")] = None,
    out: OutOption = None,
    captures: Annotated[
        bool, typer.Option(help="Capture at the UE and on the satellite hop.")
    ] = True,
    goodput: Annotated[
        bool, typer.Option(help="Measure iperf goodput, if the scenario asks.")
    ] = True,
    plots: Annotated[bool, typer.Option(help="Draw the plots and write report.html.")] = True,
    as_json: JsonOption = False,
) -> None:
    """One experiment on any scenario."""
    options = RunOptions(
        substrate=substrate,
        clock=clock,
        out=out,
        arms=tuple(arm or ()),
        captures=captures,
        goodput=goodput,
        plots=plots,
    )
    _run(_with(load(find(scenario)), probes, seed), options, as_json)


def _with(scenario: Scenario, probes: int | None, seed: int | None) -> Scenario:
    """The scenario with what the command line says differently."""
    probe = (
        scenario.probe if probes is None else scenario.probe.model_copy(update={"count": probes})
    )
    return scenario.model_copy(
        update={"probe": probe, "seed": scenario.seed if seed is None else seed}
    )


def _run(scenario: Scenario, options: RunOptions, as_json: bool) -> None:
    from experiments.terminal import TerminalReporter, print_outcome

    with TerminalReporter(quiet=as_json) as reporter:
        outcome = run_scenario(scenario, options, reporter)
    if as_json:
        typer.echo(outcome.summary.model_dump_json(indent=2))
    else:
        print_outcome(scenario, outcome)
    if any(arm.lost == arm.n for arm in outcome.summary.arms.values()):
        raise typer.Exit(1)


@app.command()
def delays(
    scenario: ScenarioArgument = "paper",
    arm: Annotated[str | None, typer.Option(help="Print this arm's whole plan.")] = None,
    as_json: JsonOption = False,
) -> None:
    """The delay budget, hop by hop, and the theoretical RTT (equations 1 and 2 of the paper)."""
    from experiments.terminal import delay_budget, print_delays

    loaded = load(find(scenario))
    found = delay_budget(loaded)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_delays(loaded, found, arm)


def main() -> None:
    """Run the command line; exit 0 done, 1 failed, 2 bad usage or input."""
    try:
        app()
    except QntnError as error:
        print(f"qntn: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("qntn: interrupted", file=sys.stderr)
        sys.exit(130)
