"""What the gateway benchmark found, as a table and as bars; and its command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from experiments.options import JsonOption, show

COLUMNS: Final = (
    ("tcp1", "mbit_per_s", "TCP 1, Mbit/s", "{:.0f}"),
    ("tcp8", "mbit_per_s", "TCP 8, Mbit/s", "{:.0f}"),
    ("tcp1", "cpu_s_per_gbit", "CPU s/Gbit", "{:.2f}"),
    ("udp64", "pps", "UDP 64 B, kpps", "{:.1f}"),
    ("udp1300", "pps", "UDP 1300 B, kpps", "{:.1f}"),
    ("rtt_idle", "added_p50_us", "added RTT p50, µs", "{:.0f}"),
    ("rtt_idle", "added_p99_us", "p99, µs", "{:.0f}"),
    ("rtt_idle", "pass_us", "one gateway's pass, µs", "{:.0f}"),
    ("rtt_loaded", "added_p50_us", "loaded p50, µs", "{:.0f}"),
    ("rtt_loaded", "added_p99_us", "p99, µs", "{:.0f}"),
    ("tcp1_segmented", "mbit_per_s", "TCP 1 segmented, Mbit/s", "{:.0f}"),
    ("udp64_segmented", "pps", "UDP 64 B segmented, kpps", "{:.1f}"),
)
"""Test, figure, heading, format; what is counted in packets a second is shown in thousands."""
_BARS: Final = (0, 1, 2, 3, 4, 5)
_PEER: Final = "strongSwan"


def bench_gateways(
    seconds: Annotated[float, typer.Option(min=0.5, help="Of each single measurement.")] = 3.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; contenders take turns in each.")] = 3,
    plot: Annotated[Path | None, typer.Option(help="Draw the medians as bars, a PNG file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """How fast our gateways are, each suite, beside strongSwan and wireguard-go in user space and no tunnel at all."""
    from experiments.bench.gateways import run
    from experiments.terminal import TerminalReporter

    with TerminalReporter(quiet=as_json) as reporter:
        found = run(seconds, rounds, reporter)
    if plot is not None:
        draw(found, plot)
    show(found, as_json, lambda: print_table(found))


def print_table(found: dict[str, Any]) -> None:
    """Medians of every contender, below each its ratio to strongSwan; how strongSwan was set up."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"gateways, medians of {found['rounds']} rounds of {found['seconds']:g} s")
    names = list(found["contenders"])
    table.add_column("")
    for name in names:
        table.add_column(name.removeprefix("qntn "), justify="right", overflow="fold")
    for test, figure, heading, form in COLUMNS:
        cells = []
        for name in names:
            value = value_of(found, name, test, figure)
            text = form.format(value)
            if name not in {"direct", _PEER} and _PEER in names:
                peer = value_of(found, _PEER, test, figure)
                text += f"\n× {value / peer:.2f}" if peer else ""
            cells.append(text)
        table.add_row(heading, *cells)
    fractions = [found["contenders"][name]["medians"]["tcp1"].get("of_cipher") for name in names]
    table.add_row(
        "TCP 1, of the cipher's own speed", *("" if f is None else f"{f:.0%}" for f in fractions)
    )
    busy = [found["contenders"][name]["medians"]["tcp1"]["external"] for name in names]
    table.add_row("others' share of the cores", *(f"{share:.0%}" for share in busy))
    console.print(table)
    for name, lacking in found["left_out"].items():
        console.print(f"{name} is left out: {lacking}")
    if _PEER not in found["left_out"]:
        info = found["contenders"][_PEER]["info"]
        text = f"strongSwan {info['version']}; plugins in order: {' '.join(info['plugins'])}\n"
        text += f"its AEADs: {' '.join(info['esp_aead'])}; × is the ratio to it"
        console.print(text, markup=False, highlight=False)


def value_of(found: dict[str, Any], name: str, test: str, figure: str) -> float:
    """One median, packets a second in thousands."""
    value = float(found["contenders"][name]["medians"][test][figure])
    return value / 1e3 if figure == "pps" else value


def draw(found: dict[str, Any], path: Path) -> None:
    """Bars of the medians, one panel a figure."""
    from experiments.drawing import DPI, GREY, PALETTE, empty_figure

    names = [name for name in found["contenders"] if name != "direct"]
    figure = empty_figure(14, 6)
    panels = figure.subplots(2, 3, sharey=True)
    for panel, column in zip(panels.flat, _BARS, strict=True):
        test, key, heading, form = COLUMNS[column]
        values = [value_of(found, name, test, key) for name in names]
        shown = [PALETTE[0] if name.startswith("qntn ") else GREY for name in names]
        bars = panel.barh([name.removeprefix("qntn ") for name in names], values, color=shown)
        panel.bar_label(bars, [form.format(value) for value in values], padding=3)
        panel.set_xlim(0, 1.3 * max(values))
        panel.set_title(heading)
    panels.flat[0].invert_yaxis()
    figure.savefig(path, dpi=DPI)
