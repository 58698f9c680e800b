"""Pictures of what can be traded: field of view for stray light (figure 7), satellites for distance (figure 8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from experiments.drawing import GREY, PALETTE, STYLE, save
from experiments.hybrid import Outcome
from experiments.hybrid_filter import SHOWN_POINTINGS_URAD
from experiments.hybrid_fleet import REACH_KM
from experiments.hybrid_plots import new_figure

LINES: Final = ("-", "--", "-.", ":")
MARKS: Final = ("o", "s", "^", "D", "v", "P", "X")


def write_filter(outcome: Outcome) -> None:
    """Draw `filter.*` into the run's folder."""
    with mpl.rc_context(STYLE):
        figure = filter_figure(outcome.tables["filter"], outcome.report)
        save(figure, outcome.folder, "filter")


def write_constellation(outcome: Outcome) -> None:
    """Draw `constellation.*` into the run's folder."""
    with mpl.rc_context(STYLE):
        figure = constellation_figure(outcome.tables["constellation"], outcome.report)
        save(figure, outcome.folder, "constellation")


def filter_figure(table: pd.DataFrame, report: Mapping[str, Any]) -> Figure:
    """Signal and stray light over the field of view, what they leave of the BSM, and key over both errors."""
    figure = new_figure(11.5, 7.6, report)
    (signal, stray), (bsm, key) = figure.subplots(2, 2)
    light, own = report["irradiance_W_m2"], report["parameters"]["pointing_urad"]
    by_day = table[table["irradiance_W_m2"] == light]
    shown = sorted({*SHOWN_POINTINGS_URAD, own})
    for number, pointing in enumerate(shown):
        of = by_day[by_day["pointing_urad"] == pointing]
        style = {"color": PALETTE[number], "linestyle": LINES[number % len(LINES)]}
        x = of["field_of_view_urad"]
        signal.plot(x, 10 * np.log10(of["signal_efficiency"]), label=f"{pointing:g} µrad", **style)
        bsm.plot(x, of["bsm_fidelity"], label=f"{pointing:g} µrad", **style)
    at_own = table[table["pointing_urad"] == own]
    for number, (of_light, of) in enumerate(at_own.groupby("irradiance_W_m2")):
        if of["stray_rate_hz"].max() > 0:
            stray.plot(
                of["field_of_view_urad"],
                of["stray_rate_hz"],
                color=PALETTE[number % len(PALETTE)],
                linewidth=2.0 if of_light == light else 1.0,
                label=f"{of_light:g} W/m²",
            )
    signal.set(ylabel="signal, one downlink (dB)", title="Signal that the filter leaves")
    stray.set(
        ylabel="stray photons (1/s)", yscale="log", title="Stray light, by diffuse irradiance"
    )
    bsm.set(ylabel="BSM fidelity, one station", title=f"What {light:g} W/m² leaves of the BSM")
    _map(figure, key, by_day, report)
    for axis in (signal, stray, bsm):
        axis.set(xscale="log", xlabel="field of view, full angle (µrad)")
        _plain_ticks(axis.xaxis)
        axis.axvline(
            report["parameters"]["field_of_view_urad"], color=GREY, linewidth=0.8, linestyle=":"
        )
        axis.title.set_ha("left")
        axis.title.set_x(0)
        axis.legend(
            fontsize=8, title="pointing error" if axis is not stray else None, title_fontsize=8
        )
    figure.suptitle(
        f"Two like stations, satellite at {report['elevation_deg']:g}° and {report['range_km']:.0f} km; ratio of "
        f"coincidences to accidentals: “{report['parameters']['car_model']}”",
        fontsize=9,
        x=0.01,
        ha="left",
    )
    return figure


def _plain_ticks(axis: Axis) -> None:
    """1, 2, 5, 10 ... instead of powers."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


def _map(figure: Figure, axis: Axes, by_day: pd.DataFrame, report: Mapping[str, Any]) -> None:
    """Key over field of view and pointing error, with the best point."""
    grid = by_day.pivot_table(index="pointing_urad", columns="field_of_view_urad", values="skp")
    values = np.ma.masked_less_equal(grid.to_numpy(), 0.0)
    axis.set_facecolor("#dddddd")
    if values.count():
        highest = float(values.max())
        mesh = axis.pcolormesh(
            grid.columns,
            grid.index,
            values,
            norm=LogNorm(max(float(values.min()), highest / 1e4), highest),
            cmap="viridis",
            shading="nearest",
            rasterized=True,
        )
        figure.colorbar(mesh, ax=axis, label="secret bits per attempt (SKP)")
        best = report["best_at_own_pointing"]
        if best is not None:
            place = (best["field_of_view_urad"], best["pointing_urad"])
            axis.plot(*place, "*", color="white", markeredgecolor="black", markersize=12)
            axis.annotate(
                f"best at {place[1]:g} µrad:\n{place[0]:.3g} µrad",
                place,
                (8, 8),
                textcoords="offset points",
                fontsize=8,
                color="black",
            )
    own = (report["parameters"]["field_of_view_urad"], report["parameters"]["pointing_urad"])
    axis.plot(*own, "o", color="#D55E00", markeredgecolor="white", markersize=7)
    axis.annotate(
        "as set", own, (-6, -12), textcoords="offset points", fontsize=8, color="black", ha="right"
    )
    axis.set(xscale="log", yscale="log", xlabel="field of view, full angle (µrad)")
    axis.set_ylabel("pointing error (µrad)")
    if not values.count():
        axis.set(xlim=(grid.columns[0], grid.columns[-1]), ylim=(grid.index[0], grid.index[-1]))
    _plain_ticks(axis.xaxis)
    _plain_ticks(axis.yaxis)
    axis.set_title(f"Key at {report['irradiance_W_m2']:g} W/m²; grey: none", loc="left")
    axis.grid(visible=False)


def constellation_figure(table: pd.DataFrame, report: Mapping[str, Any]) -> Figure:
    """Threshold, key and cost against the number of satellites, a curve for each number of planes."""
    figure = new_figure(12.5, 4.6, report)
    threshold, key, cost = figure.subplots(1, 3)
    for number, (planes, of) in enumerate(table.groupby("planes")):
        style = {
            "color": PALETTE[number % len(PALETTE)],
            "marker": MARKS[number % len(MARKS)],
            "markersize": 3.5,
            "linewidth": 1.1,
            "label": f"{planes} plane{'s' if planes != 1 else ''}",
        }
        x = of["satellites"]
        threshold.plot(x, of["threshold_km"].astype(float), **style)
        key.plot(x, of["key_bits_by_satellites"] / 1e15, **style)
        cost.plot(x, 1e3 * of["cost_per_Tbit"].astype(float), **style)
        reached = report["reaches_fixed_at"][str(planes)]
        if reached is not None:
            height = float(of.loc[of["satellites"] == reached, "threshold_km"].iloc[0])
            threshold.plot(
                reached, height, "o", color="none", markeredgecolor=style["color"], markersize=10
            )
            threshold.plot([], [], " ", label=f"   within {REACH_KM:g} km of it from {reached} on")
    fixed = report["fixed_satellite"]["threshold"]["distance_km"]
    if fixed is not None:
        threshold.axhline(fixed, color=GREY, linestyle=":", label="one at rest above Zurich")
    threshold.set(ylabel="threshold distance (km)")
    threshold.set_title("Distance from which satellites win", loc="left")
    key.set(ylabel="key by paths with a satellite (Pbit a day)")
    key.set_title("Key of all pairs together", loc="left")
    costs = report["cost"]
    cost.set(ylabel="cost per Pbit a day", ylim=(0, None))
    cost.set_title(
        f"Cost: {costs['per_satellite']:g} a satellite"
        + (f" and {costs['fixed']:g}" if costs["fixed"] else ""),
        loc="left",
    )
    for axis in (threshold, key, cost):
        axis.set_xlabel("satellites")
        axis.set_xlim(left=0)
        axis.legend(fontsize=8)
    figure.suptitle(
        f"{report['constellation']}; router “{report['router']}”, steps of {report['step_min']:g} min",
        fontsize=9,
        x=0.01,
        ha="left",
    )
    return figure
