"""The constant-rate mode as a picture: its delay, its capacity, and what is on the line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.drawing import GREY, STYLE, empty_figure, save
from experiments.tfs import PLAIN

COLOURS: Final = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS: Final = ("s", "o", "^", "D", "v", "P", "X")
BAR_GROUP: Final = 0.8
"""Width of the bars of one kind of traffic, of 1."""


def write_figure(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw `tfs.*`, PNG and SVG, into a folder; returns what was written."""
    with mpl.rc_context(STYLE):
        return save(tfs_figure(report), folder, "tfs")


def tfs_figure(report: Mapping[str, Any]) -> Figure:
    """Delay by kind of traffic, share of a full line by inner length, and the observer's guesses."""
    line = report["line"]
    figure = empty_figure(12.5, 4.2)
    delays, capacity, guesses = figure.subplots(1, 3, width_ratios=[1.3, 1.2, 0.9])
    modes = list(report["modes"])
    _delays(delays, report["delays"], modes, line["delay_ms"])
    _capacity(capacity, report["capacity"], line["suite"])
    _guesses(guesses, report["modes"])
    figure.supxlabel(
        f"simulated line of {line['rate_mbps']:g} Mbit/s and {line['delay_ms']:.1f} ms, {line['suite']}, "
        f"{report['seconds']:g} s of each kind of traffic, seed {report['seed']}",
        fontsize=7,
        color=GREY,
        x=0.01,
        ha="left",
    )
    return figure


def _delays(
    axis: Axes, rows: Sequence[Mapping[str, Any]], modes: Sequence[str], propagation_ms: float
) -> None:
    """Bars to the mean, a line on to the 99th percentile."""
    kinds = list(dict.fromkeys(row["traffic"] for row in rows))
    width = BAR_GROUP / len(modes)
    for number, mode in enumerate(modes):
        of = [row for row in rows if row["mode"] == mode]
        where = [kinds.index(row["traffic"]) - BAR_GROUP / 2 + (number + 0.5) * width for row in of]
        means = [row["mean_ms"] - propagation_ms for row in of]
        tails = [max(0.0, row["p99_ms"] - row["mean_ms"]) for row in of]
        axis.bar(
            where,
            means,
            0.9 * width,
            yerr=[[0] * len(of), tails],
            color=COLOURS[number % len(COLOURS)],
            error_kw={"elinewidth": 0.9, "ecolor": GREY, "capsize": 2},
            label=mode,
        )
    axis.set_yscale("log")
    axis.set_xticks(range(len(kinds)), kinds)
    axis.set(ylabel="one-way delay beyond propagation (ms)")
    axis.set_title("Delay: mean, and up to the 99th percentile", loc="left")
    axis.legend(fontsize=8)


def _capacity(axis: Axes, rows: Sequence[Mapping[str, Any]], suite: str) -> None:
    lengths = [row["inner_octets"] for row in rows]
    for key, label, number in (("plain_share", PLAIN, 0), ("constant_share", "constant rate", 1)):
        axis.plot(
            lengths,
            [100 * row[key] for row in rows],
            color=COLOURS[number],
            marker=MARKS[number],
            markersize=4,
            linewidth=1.2,
            label=label,
        )
    axis.axhline(
        100 * rows[0]["constant_bound"],
        color=COLOURS[1],
        linestyle=":",
        linewidth=0.9,
        label="(payload − header) / packet",
    )
    axis.set(xlabel="length of inner packets (octets)", ylabel="inner octets on a full line (%)")
    axis.set(ylim=(0, 100))
    axis.set_title(f"Capacity, {suite}", loc="left")
    axis.legend(loc="lower right", fontsize=8)


def _guesses(axis: Axes, modes: Mapping[str, Mapping[str, Any]]) -> None:
    names = list(modes)
    values = [100 * mode["guessed"] for mode in modes.values()]
    bars = axis.bar(
        range(len(names)), values, 0.6, color=[COLOURS[n % len(COLOURS)] for n in range(len(names))]
    )
    axis.bar_label(bars, [f"{value:.0f} %" for value in values], fontsize=8, padding=2)
    chance = 100 * next(iter(modes.values()))["guessed_by_chance"]
    axis.axhline(chance, color=GREY, linestyle="--", linewidth=0.9, label="by chance")
    axis.set_xticks(range(len(names)), [name.replace(" ", "\n", 1) for name in names], fontsize=8)
    axis.set(ylim=(0, 105), ylabel="kinds of traffic told right (%)")
    axis.set_title("The observer", loc="left")
    axis.legend(fontsize=8)
