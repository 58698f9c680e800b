"""The command line: `qntn`. Every command turns an error of the project into one line and its exit code."""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from experiments import cli_gateway, cli_hybrid, cli_kms, cli_missions, cli_quantum
from experiments.bench import gateways_report
from experiments.options import JsonOption, ScenarioArgument, SubstrateOption, show
from topo.errors import QntnError

# What rests on numpy or pydantic takes long to import: each command imports what it needs, `--help` none of it.
if TYPE_CHECKING:
    from experiments.run import RunOptions
    from topo.scenario import Scenario

# Typer commands are called by keyword; their many parameters are the options of one command.
# ruff: noqa: PLR0917

app = typer.Typer(
    name="qntn",
    help="A packet-level testbed for quantum-encrypted 5G non-terrestrial networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ClockOption = Annotated[
    Literal["auto", "real", "virtual"],
    typer.Option(help="Real time, or a virtual clock that jumps to the next timer (uml only)."),
]
OutOption = Annotated[
    Path | None, typer.Option(help="Run folder; by default runs/<UTC time>-<name>/.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one key of the scenario, as TOML: --set gateways.rekey_after_s=10. May be repeated.",
    ),
]
ProbesOption = Annotated[int | None, typer.Option(min=2, help="Probes an arm.")]
SeedOption = Annotated[int | None, typer.Option(min=0, help="Seed of every random draw.")]
CapturesOption = Annotated[bool, typer.Option(help="Capture at the UE and on the satellite hop.")]
PlotsOption = Annotated[bool, typer.Option(help="Draw the plots and write report.html.")]


@app.command()
def reproduce(
    substrate: SubstrateOption = "auto",
    clock: ClockOption = "auto",
    probes: ProbesOption = None,
    seed: SeedOption = None,
    changes: SetOption = None,
    out: OutOption = None,
    captures: CapturesOption = True,
    goodput: Annotated[bool, typer.Option(help="Measure iperf goodput in every arm.")] = True,
    plots: PlotsOption = True,
    as_json: JsonOption = False,
) -> None:
    """The paper's experiment: keys from two satellite passes, four arms, table, plots, captures."""
    from experiments.run import RunOptions
    from topo.scenario import SHIPPED, load

    options = RunOptions(
        substrate=substrate, clock=clock, out=out, captures=captures, goodput=goodput, plots=plots
    )
    _run(load(SHIPPED / "paper.toml", _changed(changes, probes, seed)), options, as_json)


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
    probes: ProbesOption = None,
    seed: SeedOption = None,
    changes: SetOption = None,
    out: OutOption = None,
    captures: CapturesOption = True,
    goodput: Annotated[
        bool, typer.Option(help="Measure iperf goodput, if the scenario asks.")
    ] = True,
    plots: PlotsOption = True,
    as_json: JsonOption = False,
) -> None:
    """One experiment on any scenario."""
    from experiments.run import RunOptions
    from topo.scenario import find, load

    options = RunOptions(
        substrate=substrate,
        clock=clock,
        out=out,
        arms=tuple(arm or ()),
        captures=captures,
        goodput=goodput,
        plots=plots,
    )
    _run(load(find(scenario), _changed(changes, probes, seed)), options, as_json)


def _changed(changes: list[str] | None, probes: int | None, seed: int | None) -> list[str]:
    """All that the command line says differently from the scenario file, as assignments."""
    more = {"probe.count": probes, "seed": seed}
    return [
        *(changes or ()),
        *(f"{key} = {value}" for key, value in more.items() if value is not None),
    ]


def _run(scenario: Scenario, options: RunOptions, as_json: bool) -> None:
    from experiments.run import run_scenario
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
    changes: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """The delay budget, hop by hop, and the theoretical RTT (equations 1 and 2 of the paper)."""
    from experiments.terminal import delay_budget, print_delays
    from topo.planner import build_plan
    from topo.scenario import find, load

    loaded = load(find(scenario), changes or ())
    found = delay_budget(loaded)
    if arm is not None:
        found["plan"] = list(build_plan(loaded, arm).describe())
    show(found, as_json, lambda: print_delays(loaded, found))


@app.command()
def doctor(
    noise: Annotated[
        bool, typer.Option(help="Run the control arm in every usable substrate (a minute).")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """What this machine can run, its sleep error and noise floor, what is missing and how to get it."""
    from experiments.doctor import examine, noise_floors
    from experiments.terminal import TerminalReporter, print_doctor

    found = examine()
    floors = {}
    if noise:
        with TerminalReporter(quiet=as_json) as reporter:
            floors = noise_floors(found, reporter)
    of_runs = {name: floor.model_dump() for name, floor in floors.items()}
    show({**found, "noise_floor": of_runs}, as_json, lambda: print_doctor(found, floors))
    if not any(substrate["usable"] for substrate in found["substrates"].values()):
        raise typer.Exit(1)


@app.command()
def shell(
    scenario: ScenarioArgument = "paper",
    arm: Annotated[str, typer.Option(help="Which arm's network.")] = "plain",
    changes: SetOption = None,
    substrate: SubstrateOption = "auto",
    clock: Annotated[
        Literal["real", "virtual"],
        typer.Option(help="On a virtual clock every wait at the prompt is skipped."),
    ] = "real",
) -> None:
    """Mininet's prompt inside the running network: `UE ping -c 3 DN`, `links`, `exit`."""
    from experiments.shell import prepared_shell
    from experiments.terminal import TerminalReporter
    from topo.scenario import find, load

    reporter = TerminalReporter()
    with ExitStack() as stack:
        with reporter:  # its bars must be gone before the prompt is there
            prompt = stack.enter_context(
                prepared_shell(load(find(scenario), changes or ()), arm, substrate, clock, reporter)
            )
        raise typer.Exit(prompt())


app.command()(cli_quantum.passes)
app.command()(cli_quantum.qkd)
app.command()(cli_missions.missions)
app.command()(cli_gateway.decrypt)
app.command()(cli_gateway.tfs)
app.add_typer(cli_gateway.app, name="gateway")
app.add_typer(cli_kms.app, name="kms")
app.add_typer(cli_hybrid.app, name="hybrid")

bench = typer.Typer(help="The benchmarks, each beside its peer.", no_args_is_help=True)
app.add_typer(bench, name="bench")


@bench.command("bringup")
def bench_bringup(
    hosts: Annotated[int, typer.Option(min=2, help="Hosts in the chain.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the ways take turns in each.")] = 3,
    substrate: SubstrateOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """How fast a chain of hosts comes up, beside Mininet's own start, on the same kernel."""
    from experiments.bench.bringup import run_in_substrate
    from experiments.terminal import TerminalReporter, print_bringup

    with TerminalReporter(quiet=as_json) as reporter:
        found = run_in_substrate(substrate, hosts, rounds, reporter)
    show(found, as_json, lambda: print_bringup(found))


bench.command("bb84")(cli_quantum.bench_bb84)
bench.command("kms")(cli_kms.bench)
bench.command("gateways")(gateways_report.bench_gateways)
bench.command("hybrid")(cli_hybrid.bench)


def _stop(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main() -> None:
    """Run the command line; exit 0 done, 1 failed, 2 bad usage or input."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)  # in order, so that a guest kernel does not live on
    try:
        app()
    except QntnError as error:
        print(f"qntn: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
