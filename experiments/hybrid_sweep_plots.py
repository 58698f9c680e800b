"""A sweep as a picture: the threshold over what was varied first, a line for each combination of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.drawing import PALETTE, STYLE, save
from experiments.hybrid import Outcome
from experiments.hybrid_plots import new_figure
from experiments.hybrid_trade_plots import LINES, MARKS


def write_sweep(outcome: Outcome) -> None:
    """Draw `sweep.*` into the sweep's folder."""
    with mpl.rc_context(STYLE):
        save(sweep_figure(outcome.tables["sweep"], outcome.report), outcome.folder, "sweep")


def sweep_figure(points: pd.DataFrame, report: Mapping[str, Any]) -> Figure:
    """Threshold and key: means over weathers and dates, bars from the least to the most."""
    names_of_axes: list[str] = [*report["varied"], "constellation"]
    first, others = names_of_axes[0], names_of_axes[1:]
    figure = new_figure(11.5, 4.6, report)
    labels = list(dict.fromkeys(points[first]))
    where = {label: number for number, label in enumerate(labels)}
    for axis, column, scale, title in zip(
        figure.subplots(1, 2),
        ("threshold_km", "key_bits_by_satellites"),
        (1.0, 1e-15),
        ("threshold distance (km)", "key by paths with a satellite (Pbit)"),
        strict=True,
    ):
        groups = points.groupby(others, sort=False) if others else [((), points)]
        for number, (names, of) in enumerate(groups):
            values = of.assign(y=scale * of[column].astype(float)).groupby(first, sort=False)["y"]
            mean, least, most = values.mean(), values.min(), values.max()
            offset = 0.03 * (number - 0.5)
            label = ", ".join(f"{name} {value}" for name, value in zip(others, names, strict=True))
            axis.errorbar(
                [where[key] + offset for key in mean.index],
                mean,
                yerr=np.vstack([mean - least, most - mean]),
                color=PALETTE[number % len(PALETTE)],
                marker=MARKS[number % len(MARKS)],
                linestyle=LINES[number % len(LINES)],
                markersize=4,
                linewidth=1.1,
                capsize=2.5,
                label=label or None,
            )
        axis.set_xticks(range(len(labels)), [str(label) for label in labels])
        axis.set(xlabel=first, ylabel=title)
        if others:
            axis.legend(fontsize=8)
    figure.suptitle(
        f"{report['points']} points, router “{report['router']}”; bars: from the least to the most of all weathers",
        fontsize=9,
        x=0.01,
        ha="left",
    )
    return figure
