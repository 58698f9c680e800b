"""A gateway's status, and what was found in captures, in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from experiments.tables import new_table, print_table
from gateways.esp import Refusal

if TYPE_CHECKING:  # `gateway status` decrypts nothing
    from experiments.decrypt import Findings, SaFindings

_LATEST = 20
"""SAs shown: a gateway that has rekeyed all night has replaced hundreds."""


def print_status(status: Mapping[str, Any]) -> None:
    """Print the latest SAs of a gateway, then its totals."""
    console = Console()
    sas = status["sas"][-_LATEST:]
    table = new_table(
        f"{status.get('name', 'gateway')}: {'up' if status['usable'] else 'NO SA TO SEND ON'}",
        ["", "SPI", "state", "key_ID"],
        ["packets", "octets"],
        ["refused"],
    )
    for sa in sas:
        refused = {reason.value: sa.get(reason.value, 0) for reason in Refusal}
        table.add_row(
            sa["direction"],
            sa["spi"],
            sa["state"],
            sa["key_id"],
            str(sa["packets"]),
            str(sa["bytes"]),
            _counts(refused),
        )
    print_table(console, table)
    if len(sas) < len(status["sas"]):
        console.print(f"the latest {len(sas)} of {len(status['sas'])} SAs", highlight=False)
    for label, value in (
        ("rekeys", str(status["rekeys"])),
        ("dropped before any SA", _counts(status["drops"]) or "none"),
        ("exhaustion policy used", _counts(status["policies_used"]) or "never"),
        ("control messages sent again", str(status["retransmissions"])),
        ("socket and device errors", _counts(status.get("errors", {})) or "none"),
        ("constant rate", _counts(status.get("constant_rate", {}))),
    ):
        if value:
            console.print(f"{label:<28}{value}", highlight=False, soft_wrap=True)


def print_findings(found: Sequence[Findings]) -> None:
    """Print what each capture holds, an SA a line."""
    console = Console()
    table = new_table(
        "ESP in the captures",
        ["capture", "from", "to", "SPI", "suite"],
        ["ESP packets", "ICV good", "bad"],
        ["tshark", "inside"],
    )
    for one in found:
        for number, sa in enumerate(one.sas):
            table.add_row(
                one.capture if not number else "",
                sa.source,
                sa.destination,
                f"{sa.spi:#010x}",
                sa.suite or "no key for it",
                str(sa.esp_packets),
                str(sa.icv_good),
                str(sa.icv_bad),
                _second_opinion(sa),
                _inside(sa),
            )
        if not one.sas:
            table.add_row(one.capture, *[""] * 4, "0", "", "", "", "no ESP here")
    print_table(console, table)
    for one in found:
        if one.decrypted:
            console.print(
                f"{len(one.inner)} inner packets: {one.decrypted}", highlight=False, soft_wrap=True
            )


def warn_of_keys(run: Path, written: Iterable[Path]) -> None:
    """Say on standard error what must not be passed on."""
    console = Console(stderr=True)
    console.print(
        f"WARNING: {run}/esp_sa holds the SESSION KEYS of this run: whoever has them reads every capture of it.",
        style="bold red",
        highlight=False,
        soft_wrap=True,
    )
    folders = sorted({str(path.parent) for path in written})
    if folders:
        console.print(
            f"WARNING: {', '.join(folders)} holds what was encrypted, IN CLEAR. Pass on neither.",
            style="bold red",
            highlight=False,
            soft_wrap=True,
        )


def _second_opinion(sa: SaFindings) -> str:
    if sa.tshark is None:
        return "knows no SM4" if sa.suite else ""
    good, bad = sa.tshark
    return "agrees" if sa.agrees else f"SAYS {good} good, {bad} bad"


def _inside(sa: SaFindings) -> str:
    carried = dict(sa.protocols.most_common())
    return _counts({**carried, "empty": sa.dummies, "captured twice": sa.replays})


def _counts(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in numbers.items() if number)
