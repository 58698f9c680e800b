"""A quantum pass at a glance: elevation, loss, counts, QBER and key along it.

Everything is drawn from the table that `experiments.qkd` writes to `pass.csv`, one row a slot, and
the report beside it. Figures are made without pyplot, as in `experiments.plots`, whose colours and
style they share.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.drawing import GREY, STYLE, empty_figure, save

FloatArray = npt.NDArray[np.float64]

BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
"""Signal, decoy, vacuum (Okabe and Ito)."""
TERM_COLOURS: Final = {
    "detector": "#bbbbbb",
    "gate": "#888888",
    "optics": "#E69F00",
    "receiver": "#E69F00",
    "pointing": "#CC79A7",
    "residual": "#F0E442",
    "atmosphere": "#56B4E9",
    "diffraction": "#0072B2",
}
"""From the bottom up, what changes along the pass last; a link may have any of them."""
QBER_BIN_SIFTED: Final = 20_000
"""Sifted bits a QBER point rests on: at 1 % its standard error is 0.07 %."""
QBER_BINS: Final = 60
MARKER_SCALE: Final = 3
"""By how much the legend's dots are larger than those of the crowded counts."""

Report = dict[str, Any]
Panel = Callable[[Axes, pd.DataFrame, Report], None]


def elevation_panel(axis: Axes, table: pd.DataFrame, report: Report) -> None:
    """Elevation in degrees, and the slant range in km at its ends and culmination."""
    elevation, t_s = table["elevation_deg"], table["t_s"]
    axis.plot(t_s, elevation, color=BLUE)
    top = int(elevation.to_numpy().argmax())
    for row, align, shift in ((0, "left", 4), (top, "center", 4), (len(table) - 1, "right", 4)):
        axis.annotate(
            f"{table['range_km'].iloc[row]:.0f} km",
            (t_s.iloc[row], elevation.iloc[row]),
            (0, shift),
            textcoords="offset points",
            ha=align,
            va="bottom",
            color=GREY,
        )
    axis.set(ylabel="elevation (°)", ylim=(0, 100), yticks=[0, 30, 60, 90])


def loss_panel(axis: Axes, table: pd.DataFrame, report: Report) -> None:
    """Mean loss in dB, stacked by term; a negative one (a gain) is taken off the terms below it."""
    t_s = table["t_s"]
    floor: FloatArray = np.zeros(len(table))
    terms = [
        name[5:-3] for name in map(str, table) if name.startswith("loss_") and name != "loss_dB"
    ]
    bottom_up = [*(name for name in terms if name not in TERM_COLOURS), *TERM_COLOURS]
    for name in sorted(terms, key=bottom_up.index):
        term = table[f"loss_{name}_dB"].to_numpy()
        if np.abs(term).max() < 0.005:
            continue
        colour = TERM_COLOURS.get(name, GREY)
        axis.fill_between(t_s, floor, floor + term, color=colour, alpha=0.75, lw=0, label=name)
        floor = floor + term
    axis.plot(t_s, table["loss_dB"], color="black", linewidth=1.2, label="sum")
    lowest = int(table["loss_dB"].to_numpy().argmin())
    axis.annotate(
        f"{table['loss_dB'].iloc[lowest]:.1f} dB",
        (t_s.iloc[lowest], table["loss_dB"].iloc[lowest]),
        (0, 4),
        textcoords="offset points",
        ha="center",
    )
    axis.set(ylabel="loss (dB)", ylim=(0, float(table["loss_dB"].max()) * 1.08))


def counts_panel(axis: Axes, table: pd.DataFrame, report: Report) -> None:
    """Clicks per second by intensity: dots as simulated, lines as expected; log scale."""
    slot_s = report["pass"]["slot_s"]
    intensities = report["parameters"]["intensities"]
    looks = (("signal", BLUE, "o"), ("decoy", VERMILION, "s"), ("vacuum", GREEN, "^"))
    # A source with one decoy has two intensities.
    for k, ((name, colour, marker), mu) in enumerate(zip(looks, intensities, strict=False), 1):
        what = name if mu == 0 or name != "vacuum" else "weak decoy"
        label = f"{what}, μ = {mu:.3g}"
        axis.plot(table["t_s"], table[f"expected_clicks_{k}"] / slot_s, color=colour, lw=1)
        clicks = table[f"clicks_{k}"] / slot_s
        axis.plot(
            table["t_s"],
            clicks.where(clicks > 0),
            marker,
            color=colour,
            markersize=2,
            markeredgewidth=0,
            alpha=0.6,
            label=label,
        )
    axis.set(ylabel="clicks per second", yscale="log")


def qber_panel(axis: Axes, table: pd.DataFrame, report: Report) -> None:
    """QBER in % of the sifted bits, as simulated with one standard error, and as expected."""
    expected = 100 * table["expected_errors"] / table["expected_sifted"]
    axis.plot(
        table["t_s"], expected, color="black", lw=1, label="expected, nobody listening", zorder=3
    )
    t_s, qber, error = qber_points(table)
    axis.errorbar(
        t_s, 100 * qber, 100 * error, fmt="o", color=BLUE, ms=2.5, lw=0.8, label="simulated"
    )
    mean = report["qber"]
    if mean is not None:
        axis.axhline(100 * mean, color=BLUE, lw=0.8, ls=":", label=f"mean {100 * mean:.2f} %")
    limit = 100 * report["parameters"]["max_qber"]
    highest = max([float(expected.max()), *(100 * qber)])
    if highest > 0.6 * limit:
        axis.axhline(limit, color=VERMILION, lw=1, ls="--", label=f"limit {limit:.0f} %")
        highest = max(highest, limit)
    axis.set(ylabel="QBER (%)", ylim=(0, 1.1 * highest))


def qber_points(table: pd.DataFrame) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Time, QBER and its standard error of stretches of the pass with about equal sifted bits."""
    used = table[table["used"] == 1]
    sifted = used["sifted"].to_numpy(dtype=np.float64)
    total = sifted.sum()
    if not total:
        nothing: FloatArray = np.empty(0)
        return nothing, nothing, nothing
    bins = int(np.clip(total // QBER_BIN_SIFTED, 1, QBER_BINS))
    # A slot belongs to the stretch its middle bit falls into.
    stretch = np.minimum(((sifted.cumsum() - sifted / 2) / total * bins).astype(int), bins - 1)
    n, errors, t_sum = (
        np.bincount(stretch, weights, bins)
        for weights in (sifted, used["errors"], sifted * used["t_s"])
    )
    held = n > 0
    n, errors, t_sum = n[held], errors[held], t_sum[held]
    qber = errors / n
    # With no error seen, the error bar of one error.
    return t_sum / n, qber, np.sqrt(np.maximum(qber * (1 - qber), 1 / n) / n)


def key_panel(axis: Axes, table: pd.DataFrame, report: Report) -> None:
    """Secret key in kbit had the pass ended there: of expected counts, one block from its start."""
    axis.plot(
        table["t_s"],
        table["expected_key_bits"] / 1e3,
        color=BLUE,
        label="expected, nobody listening",
    )
    if "baseline_key_bits" in table:
        gain = report["optimum"]["gain"]
        label = "before optimising" + ("" if gain is None else f" (gain {gain:.2f} ×)")
        axis.plot(table["t_s"], table["baseline_key_bits"] / 1e3, color=GREY, ls="--", label=label)
    end = float(table.loc[table["used"] == 1, "t_s"].iloc[-1])
    made = report["secret_bits"] / 1e3
    label = f"distilled: {made:,.1f} kbit" if made else "no key was distilled"
    axis.plot(
        [end],
        [made],
        "D" if made else "X",
        color=GREEN if made else VERMILION,
        ms=6,
        label=label,
        clip_on=False,
        zorder=4,
    )
    axis.set(ylabel="secret key (kbit)")
    axis.set_ylim(bottom=0)


class Drawn(NamedTuple):
    """A panel as it is drawn."""

    title: str
    draw: Panel
    height: float
    """Against the other panels of the overview."""


PANELS: Final[dict[str, Drawn]] = {
    "elevation": Drawn("Elevation and slant range", elevation_panel, 0.8),
    "loss": Drawn("Loss, source to click, by term", loss_panel, 1.2),
    "counts": Drawn("Clicks by intensity", counts_panel, 1.2),
    "qber": Drawn("Quantum bit error rate", qber_panel, 1.0),
    "key": Drawn("Secret key had the pass ended here", key_panel, 1.0),
}
"""By file stem."""

OVERVIEW: Final = "pass"


def overview_figure(table: pd.DataFrame, report: Report) -> Figure:
    """All panels above one another over one time axis."""
    figure = empty_figure(10.5, 12.0)
    heights = [panel.height for panel in PANELS.values()]
    axes = figure.subplots(len(PANELS), 1, sharex=True, height_ratios=heights)
    for axis, panel in zip(axes, PANELS.values(), strict=True):
        _draw(axis, panel, table, report)
    for axis in axes[:-1]:
        axis.set_xlabel("")
    figure.suptitle(report["title"], fontsize=11, x=0.01, ha="left")
    figure.align_ylabels(axes)
    return figure


def panel_figure(name: str, table: pd.DataFrame, report: Report) -> Figure:
    """One panel by itself."""
    figure = empty_figure(9.5, 3.6)
    _draw(figure.subplots(), PANELS[name], table, report)
    figure.suptitle(report["title"], fontsize=9, x=0.01, ha="left", color=GREY)
    return figure


def write_figures(folder: Path, table: pd.DataFrame, report: Report) -> list[Path]:
    """Draw the overview and every panel as PNG (150 dpi) and SVG into `folder`; returns the PNGs."""
    written = []
    with mpl.rc_context(STYLE):
        for stem in (OVERVIEW, *PANELS):
            overview = stem == OVERVIEW
            figure = (
                overview_figure(table, report) if overview else panel_figure(stem, table, report)
            )
            png, _ = save(figure, folder, stem)
            written.append(png)
    return written


def _draw(axis: Axes, panel: Drawn, table: pd.DataFrame, report: Report) -> None:
    panel.draw(axis, table, report)
    axis.set_title(panel.title, loc="left", fontsize=9.5)
    t_s = table["t_s"].to_numpy()
    axis.set(xlabel="time from culmination (s)", xlim=(t_s[0], t_s[-1]))
    used = table["used"].to_numpy() == 1
    for first, last in _stretches(~used):
        axis.axvspan(t_s[first], t_s[last], color=GREY, alpha=0.12, lw=0, label="not used")
    _legend(axis)


def _stretches(flags: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last index of every run of true flags."""
    edges = np.flatnonzero(np.diff(np.r_[False, flags, False].astype(int)))
    return [(int(first), int(last) - 1) for first, last in edges.reshape(-1, 2)]


def _legend(axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    entries = dict(zip(labels, handles, strict=True))  # one for all stretches of a kind
    if entries:
        axis.legend(
            list(entries.values()),
            list(entries),
            loc="center left",
            bbox_to_anchor=(1.01, 0.5),
            fontsize=8,
            borderaxespad=0,
            markerscale=MARKER_SCALE if axis.get_yscale() == "log" else 1,
        )
