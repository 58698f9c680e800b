"""`qntn gateway` (an encryption gateway on its own), `qntn decrypt`, `qntn tfs`. `experiments.cli` registers them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from experiments.options import JsonOption, ScenarioArgument, show
from topo.errors import InputError, MeasurementError

# Typer commands are called by keyword; their many parameters are the options of one command.
# ruff: noqa: PLR0917

STATUS_TIMEOUT_S = 5.0
_STATUS_KEYS = {"usable", "sas", "drops", "rekeys", "policies_used", "retransmissions"}


class _RunByDefault(TyperGroup):
    """`qntn gateway CONFIG` is `qntn gateway run CONFIG`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunByDefault,
    help="An encryption gateway on its own. `qntn gateway CONFIG` is short for `qntn gateway run CONFIG`.",
    no_args_is_help=True,
)


@app.command("run")
def run(
    config: Annotated[Path, typer.Argument(help="Its configuration, a JSON file.")],
) -> None:
    """An encryption gateway until SIGTERM."""
    from gateways.gateway import main as run_gateway

    raise typer.Exit(run_gateway([str(config)]))


@app.command("status")
def status(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|URL",
            help="The gateway's status file, or http://127.0.0.1:PORT where PORT is its metrics_port.",
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """What a gateway has carried and refused, SA by SA; exit 1 if it has no SA to send on."""
    from experiments.gateway_table import print_status

    found = _status(source)
    show(found, as_json, lambda: print_status(found))
    if not found["usable"]:
        raise typer.Exit(1)


def _status(source: str) -> dict[str, Any]:
    """The status in a file, or of a running gateway."""
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        if source.startswith("http://"):
            with urlopen(f"{source.rstrip('/')}/status", timeout=STATUS_TIMEOUT_S) as answer:
                text = answer.read()
        else:
            text = Path(source).read_bytes()
        found = json.loads(text)
    except (URLError, TimeoutError) as error:
        raise MeasurementError(
            f"{source}: {getattr(error, 'reason', error)}; is the gateway up, with this metrics_port?"
        ) from None
    except OSError as error:
        raise InputError(
            f"{source}: {error.strerror}; the file is `status` of its configuration"
        ) from None
    except ValueError:
        raise InputError(f"{source}: not a gateway's status: no JSON") from None
    if not isinstance(found, dict):
        raise InputError(f"{source}: not a gateway's status")
    missing = _STATUS_KEYS - found.keys()
    if missing:
        raise InputError(
            f"{source}: not a gateway's status, or of another version: no {', '.join(sorted(missing))}"
        )
    return found


def decrypt(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run's folder, with captures and esp_sa.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the captures of inner packets; by default RUN/decrypted/."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What is inside a run's captures: ESP packets of each SA, how many verify (tshark asked too), what they carry.

    Writes the inner packets as pcapng. Exit 1 if a packet does not verify, or tshark sees it differently.
    """
    from experiments.decrypt import decrypt_run
    from experiments.gateway_table import print_findings, warn_of_keys

    found = decrypt_run(run, out)
    warn_of_keys(run, [one.decrypted for one in found if one.decrypted])
    show([one.as_json() for one in found], as_json, lambda: print_findings(found))
    if not all(one.sound for one in found):
        raise typer.Exit(1)


def tfs(
    scenario: ScenarioArgument = "paper",
    rate_mbps: Annotated[
        list[float] | None,
        typer.Option(
            min=0.001,
            help="Constant rate of the outer packets; may be repeated. By default a quarter, a half and all of the "
            "line's.",
        ),
    ] = None,
    way: Annotated[
        Literal["up", "down"], typer.Option(help="Which way of the line between the gateways.")
    ] = "up",
    suite: Annotated[str, typer.Option(help="ESP suite, by its name.")] = "AES-128-GCM",
    seconds: Annotated[
        float, typer.Option(min=10, max=3600, help="Of each kind of traffic.")
    ] = 60.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the traffic.")] = 1,
    plot: Annotated[
        bool, typer.Option("--plot", help="Write tfs.json and the plot, PNG and SVG.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the files (implies --plot); by default runs/<UTC time>-tfs/."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change one key of the scenario. May be repeated."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The constant-rate mode (RFC 9347) beside plain ESP: its delay, its capacity, what an observer sees.

    Simulated on the scenario's line between the gateways, with the gateways' own ESP and AGGFRAG.
    """
    from experiments.folder import new_folder
    from experiments.terminal import TerminalReporter
    from experiments.tfs import SHARES, TfsOptions, measure, write_report
    from experiments.tfs_line import line_of
    from experiments.tfs_table import print_report
    from gateways.suites import SUITES
    from topo.scenario import find, load

    if suite not in SUITES:
        raise InputError(f"--suite {suite}: no such suite; there are {', '.join(SUITES)}")
    line = line_of(load(find(scenario), changes or ()), way, SUITES[suite])
    rates = [round(1e6 * rate) for rate in rate_mbps or ()]
    rates = rates or [round(share * line.rate_bps) for share in SHARES]
    options = TfsOptions(tuple(dict.fromkeys(rates)), seconds, seed)
    folder = new_folder("tfs", out) if plot or out is not None else None
    with TerminalReporter(quiet=as_json) as reporter:
        reporter.stage("packets through both modes")
        report = measure(line, options)
    written = []
    if folder is not None:
        from experiments.tfs_plots import write_figure

        written = [write_report(report, folder), *write_figure(report, folder)]
    show(report, as_json, lambda: print_report(report), written)
