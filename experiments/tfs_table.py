"""The constant-rate experiment in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.tables import new_table, print_table

_CAPACITY_SHOWN = (40, 64, 200, 576, 1000, 1400)


def print_report(report: Mapping[str, Any]) -> None:
    """Print delay, capacity and the observer's view."""
    line = report["line"]
    console = Console()
    console.print(
        f"line between the gateways: {line['rate_mbps']:g} Mbit/s, {line['delay_ms']:.3f} ms one way; {line['suite']}; "
        f"constant-rate packets of {line['outer_octets']} octets, payload {line['payload_octets']}",
        highlight=False,
        soft_wrap=True,
    )
    for table in (_delays(report), _capacity(report), _observer(report)):
        console.print()
        print_table(console, table)
    chance = next(iter(report["modes"].values()))["guessed_by_chance"]
    console.print(
        "lengths, gaps: entropy. traces: how many of the kinds of traffic look different. "
        f"told right: by whoever knows the mean of each kind; {100 * chance:.0f} % is chance.\n"
        "GB a day: what the line carries without any traffic.",
        highlight=False,
        soft_wrap=True,
    )


def _delays(report: Mapping[str, Any]) -> Table:
    table = new_table(
        "One-way delay, ms",
        ["traffic", "mode"],
        ["mean", "p50", "p99", "added", "predicted", "dropped"],
    )
    rows = sorted(report["delays"], key=lambda row: str(row["traffic"]))
    before = None
    for row in rows:
        is_first, before = row["traffic"] != before, row["traffic"]
        table.add_row(
            row["traffic"] if is_first else "",
            row["mode"],
            *(f"{row[key]:.2f}" for key in ("mean_ms", "p50_ms", "p99_ms")),
            *(_signed(row[key]) for key in ("added_mean_ms", "predicted_added_ms")),
            f"{row['dropped']}" if row["dropped"] else "",
        )
    return table


def _capacity(report: Mapping[str, Any]) -> Table:
    rows = [row for row in report["capacity"] if row["inner_octets"] in _CAPACITY_SHOWN]
    table = new_table(
        "Inner octets on a full line, %",
        ["inner packets of, octets"],
        [str(row["inner_octets"]) for row in rows],
    )
    for label, key in (("plain ESP", "plain_share"), ("constant rate", "constant_share")):
        table.add_row(label, *(f"{100 * row[key]:.1f}" for row in rows))
    return table


def _observer(report: Mapping[str, Any]) -> Table:
    table = new_table(
        "What an observer of the line sees",
        ["mode"],
        [
            "slot, ms",
            "lengths, bits",
            "gaps, bits",
            "traces",
            "told right",
            "GB a day",
        ],
    )
    for name, mode in report["modes"].items():
        table.add_row(
            name,
            f"{mode['interval_ms']:.3f}" if mode["interval_ms"] else "",
            f"{mode['length_entropy_bits']:.2f}",
            f"{mode['gap_entropy_bits']:.2f}",
            f"{mode['traces']} of {mode['kinds']}",
            f"{100 * mode['guessed']:.0f} %",
            f"{mode['idle_gbyte_per_day']:.1f}",
        )
    return table


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"
