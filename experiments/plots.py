"""The paper's figures 12 and 14, from this run's samples, beside prediction and publication.

Every arm has its own look (`experiments.looks`): line style and hatch repeat what colour says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from string import ascii_lowercase
from typing import Any, Final, Literal

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from experiments.drawing import GREY, STYLE, empty_figure, save
from experiments.looks import Look, looks
from experiments.samples import rtts_ms
from experiments.statistics import jitter
from experiments.summary import Arm, Summary

FloatArray = npt.NDArray[np.float64]

BAND_ALPHA: Final = 0.1
CONSTANT_WITHIN_MS: Final = 0.01
"""RTTs closer together than this are drawn as one level."""


def rtt_figure(samples: pd.DataFrame, summary: Summary) -> Figure:
    """Figure 12 a-c and one panel more: RTT in ms of every probe, an arm a panel.

    Lines mark the emulated minimum, mean and maximum; the grey band spans the published minimum to
    maximum, its dotted line is the published mean; crosses on the lower edge are lost probes.
    """
    rtts = rtts_ms(samples)
    styles = looks(list(rtts))
    columns = min(2, len(rtts))
    rows = -(-len(rtts) // columns)
    figure = empty_figure(5.2 * columns, 3.0 * rows + 0.3)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for letter, axis, (arm, rtt) in zip(ascii_lowercase, axes, rtts.items(), strict=False):
        lost = int(np.isnan(rtt).sum())
        suffix = f" – {lost} of {rtt.size} lost" if lost else ""
        axis.set_title(f"({letter}) {styles[arm].title}{suffix}", loc="left")
        _probes(axis, rtt, styles[arm])
        _levels(axis, summary.arms[arm], styles[arm])
        axis.set(xlabel="probe", ylabel="RTT (ms)")
    for axis in axes[len(rtts) :]:
        axis.remove()
    if any(arm.published for arm in summary.arms.values()):
        figure.legend(
            handles=[
                Line2D([], [], color=GREY, linestyle=":", label="published mean"),
                Patch(facecolor=GREY, alpha=BAND_ALPHA, label="published minimum to maximum"),
            ],
            loc="outside lower center",
            ncols=2,
        )
    return figure


def comparison_figure(samples: pd.DataFrame, summary: Summary) -> Figure:
    """Figure 12 d: RTT in ms of all arms in one line chart, and their means as bars."""
    rtts = rtts_ms(samples)
    figure = empty_figure(11.0, 4.2)
    lines, bars = figure.subplots(1, 2, width_ratios=[3, 2])
    _line_chart(lines, rtts, "RTT (ms)")
    _bar_chart(bars, summary, "mean_ms", "mean RTT (ms)")
    return figure


def jitter_figure(samples: pd.DataFrame, summary: Summary) -> Figure:
    """Figure 14: jitter |T_i - T_(i-1)| in ms of every probe, and its mean as bars."""
    rtts = rtts_ms(samples)
    figure = empty_figure(11.0, 4.2)
    lines, bars = figure.subplots(1, 2, width_ratios=[3, 2])
    _line_chart(lines, {arm: jitter(rtt) for arm, rtt in rtts.items()}, "jitter (ms)", first=1)
    _bar_chart(bars, summary, "jitter_ms", "mean jitter (ms)")
    return figure


def ecdf_figure(samples: pd.DataFrame, summary: Summary) -> Figure:
    """Share of probes answered within an RTT, all arms; a lost probe is never answered.

    Triangles mark the published minimum and maximum, whose distributions nobody has published.
    """
    rtts = rtts_ms(samples)
    figure = empty_figure(7.5, 4.2)
    axis = figure.subplots()
    for arm, look in looks(list(rtts)).items():
        answered = np.sort(rtts[arm][np.isfinite(rtts[arm])])
        if answered.size == 0:
            continue
        share = np.arange(answered.size + 1) / rtts[arm].size
        axis.step(
            np.r_[answered[0], answered],
            share,
            where="post",
            color=look.colour,
            linestyle=look.line,
            label=look.title,
        )
        published = summary.arms[arm].published
        if published is not None:
            marks: dict[str, Any] = {
                "color": look.colour,
                "linestyle": "none",
                "clip_on": False,
                "zorder": 5,
            }
            axis.plot(published.min_ms, 0, marker=">", **marks)
            axis.plot(published.max_ms, 1, marker="<", **marks)
    axis.plot([], [], color=GREY, marker=">", linestyle="none", label="published minimum")
    axis.plot([], [], color=GREY, marker="<", linestyle="none", label="published maximum")
    axis.set(xlabel="RTT (ms)", ylabel="share of probes answered within it", ylim=(0, 1))
    axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


FIGURES: Final[dict[str, Callable[[pd.DataFrame, Summary], Figure]]] = {
    "figure-12-rtt": rtt_figure,
    "figure-12d-comparison": comparison_figure,
    "figure-14-jitter": jitter_figure,
    "rtt-distribution": ecdf_figure,
}
"""File stem -> what draws it."""

CAPTIONS: Final = {
    "figure-12-rtt": "RTT of every probe (the paper's figure 12 a–c, and the fourth arm).",
    "figure-12d-comparison": "RTT of all arms, and their means (figure 12 d).",
    "figure-14-jitter": "Jitter |Tᵢ − Tᵢ₋₁| of every probe, and its mean (figure 14).",
    "rtt-distribution": "Distribution of the RTT of all arms.",
}
"""File stem -> caption in the report."""


def write_figures(folder: Path, samples: pd.DataFrame, summary: Summary) -> list[Path]:
    """Draw every figure as PNG (150 dpi) and SVG into `folder`; returns the PNGs."""
    written = []
    for stem, draw in FIGURES.items():
        with mpl.rc_context(STYLE):
            png, _ = save(draw(samples, summary), folder, stem)
        written.append(png)
    return written


def _probes(axis: Axes, rtt_ms: FloatArray, look: Look) -> None:
    number = np.arange(rtt_ms.size)
    size = 3.0 if rtt_ms.size <= 200 else 1.5
    axis.plot(number, rtt_ms, color=look.colour, linewidth=0.6, alpha=0.55)
    axis.plot(number, rtt_ms, look.marker, color=look.colour, markersize=size, markeredgewidth=0)
    lost = number[np.isnan(rtt_ms)]
    if lost.size:  # an empty line would have no extent, which the layout cannot place
        on_the_edge = axis.get_xaxis_transform()
        cross: dict[str, Any] = {
            "color": "black",
            "markersize": 4,
            "linestyle": "none",
            "clip_on": False,
        }
        axis.plot(lost, np.zeros(lost.size), marker="x", transform=on_the_edge, **cross)


def _levels(axis: Axes, arm: Arm, look: Look) -> None:
    """Horizontal lines at the emulated extremes and mean, named at the right edge."""
    if arm.min_ms is None or arm.mean_ms is None or arm.max_ms is None:
        axis.text(0.5, 0.5, "no probe was answered", ha="center", transform=axis.transAxes)
        return
    levels = {"max": arm.max_ms, "mean": arm.mean_ms, "min": arm.min_ms}
    if arm.max_ms - arm.min_ms < CONSTANT_WITHIN_MS:
        levels = {"all": arm.mean_ms}
        axis.set_ylim(arm.mean_ms - 1, arm.mean_ms + 1)
        axis.ticklabel_format(useOffset=False)
    for name, level in levels.items():
        axis.axhline(level, color=look.colour, linewidth=0.8 if name in {"min", "max"} else 1.2)
        axis.annotate(
            f"{name} {level:.1f}" if len(levels) > 1 else f"{name} {level:.3f}",
            (1.01, level),
            xycoords=("axes fraction", "data"),
            va="center",
            color=look.colour,
            fontsize=8,
            annotation_clip=False,
        )
    if arm.published is not None:
        band = arm.published
        axis.axhspan(band.min_ms, band.max_ms, color=GREY, alpha=BAND_ALPHA, lw=0)
        axis.axhline(band.mean_ms, color=GREY, linestyle=":", linewidth=1.2)


def _line_chart(axis: Axes, values: Mapping[str, FloatArray], label: str, first: int = 0) -> None:
    for arm, look in looks(list(values)).items():
        number = np.arange(values[arm].size) + first
        axis.plot(
            number,
            values[arm],
            color=look.colour,
            linestyle=look.line,
            linewidth=1.2,
            label=look.title,
        )
    axis.set(xlabel="probe", ylabel=label)
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.2)


def _bar_chart(
    axis: Axes, summary: Summary, figure: Literal["mean_ms", "jitter_ms"], label: str
) -> None:
    """Predicted, emulated and published bars side by side, an arm a group, from zero."""
    width = 0.27
    styles = looks(list(summary.arms))
    for group, (name, arm) in enumerate(summary.arms.items()):
        colour = styles[name].colour
        bars: list[tuple[float, float | None, dict[str, Any]]] = [
            (
                -width,
                getattr(arm.predicted, figure, None),
                {"facecolor": "white", "edgecolor": colour, "hatch": "///"},
            ),
            (0, getattr(arm, figure), {"facecolor": colour, "edgecolor": colour}),
            (
                width,
                getattr(arm.published, figure, None),
                {"facecolor": "#bbbbbb", "edgecolor": GREY},
            ),
        ]
        for offset, height, look in bars:
            if height is None:
                continue
            axis.bar(group + offset, height, width * 0.92, linewidth=0.8, **look)
            text = f"{height:.0f}" if height >= 100 else f"{height:.1f}"
            axis.annotate(
                text,
                (group + offset, height),
                (0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=7,
            )
    axis.bar(0, 0, facecolor="white", edgecolor=GREY, hatch="///", label="predicted")
    axis.bar(0, 0, facecolor=GREY, edgecolor=GREY, label="emulated")
    axis.bar(0, 0, facecolor="#bbbbbb", edgecolor=GREY, label="published")
    labels = [f"{look.name}\n{look.detail}" for look in styles.values()]
    axis.set_xticks(range(len(styles)), labels, fontsize=7.5)
    axis.tick_params(axis="x", length=0)
    axis.set_ylabel(label)
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.2)
