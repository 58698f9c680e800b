"""What the commands of `qntn` share: options of one meaning and one help text, and how they print what they found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
ScenarioArgument = Annotated[
    str, typer.Argument(help="A scenario file, or the name of a shipped one.")
]
SubstrateOption = Annotated[
    Literal["auto", "host", "uml"],
    typer.Option(help="Kernel that runs the network: this machine's own, or User Mode Linux."),
]
Channel = Literal["micius2017", "jinan1-clear", "jinan1-typical"]
ChannelOption = Annotated[
    Channel, typer.Option(help="Optical downlink, and the source that goes with it.")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of every random draw.")]
CloudSeedOption = Annotated[int, typer.Option(min=0, help="Seed of the clouds.")]
PersistenceOption = Annotated[
    float, typer.Option(help="Correlation of cloud from one night to the next, from 0 to below 1.")
]
SunOption = Annotated[
    float,
    typer.Option(
        min=-90, max=90, help="A pass is dark while the Sun is below this elevation at the station."
    ),
]
GuardOption = Annotated[
    float, typer.Option(min=0, max=86400, help="Time a terminal needs to turn to another partner.")
]

# What the help of several commands' own options begins with.
TLE_HELP = (
    "File of two-line element sets, or a shipped one: jinan1-a (default), jinan1-b, both synthetic."
)
STATION_HELP = (
    "Ground station: degrees north and east (WGS 84), metres of altitude. May be repeated; "
    "by default "
)
STATION_FORM = "NAME=LAT,LON[,ALT_M]"


def show(
    found: Any, as_json: bool, to_people: Callable[[], object], files: Iterable[Path] = ()
) -> None:
    """Print what was found as JSON, or else to people, and then the files that were written."""
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    to_people()
    for path in files:
        typer.echo(str(path))
