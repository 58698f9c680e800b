"""Pictures of a hybrid network: the scatter of all pairs (figure 5), and a day minute by minute (figure 6).

Figures are made without pyplot. Colours are the paper's: blue for fibre alone, light blue where it is cut into several
links, black for satellites alone, red for both; marks repeat what colour says. Every figure's foot says what the
numbers are worth and whether the weather was made up.
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import Any, Final

import matplotlib as mpl
import matplotlib.dates as mdates
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.drawing import GREY, STYLE, empty_figure, save
from experiments.hybrid import Outcome
from experiments.hybrid_setup import KIND_NAMES
from quantum.repeaters.threshold import LogNormal

GROUND, SEGMENTED, SPACE, HYBRID, FAIL = "#0072B2", "#56B4E9", "#000000", "#D55E00", "#bbbbbb"
COLOURS: Final = {"ground": GROUND, "space": SPACE, "hybrid": HYBRID, "fail": FAIL}
MARKS: Final = {"ground": "o", "space": "s", "hybrid": "^", "fail": "x"}
BIN_KM: Final = 50.0
STRETCHES: Final = 96
LEAST_SKP: Final = 1e-11
"""Lowest drawn: a tenth of a bit per second at 10 GHz."""


def new_figure(width_in: float, height_in: float, report: Mapping[str, Any]) -> Figure:
    """An empty figure with the foot that says what the numbers are worth."""
    figure = empty_figure(width_in, height_in)
    foot = f"{report['label']}; {report['weather']}"
    figure.supxlabel(fill(foot, round(14 * width_in)), fontsize=7, color=GREY, x=0.01, ha="left")
    return figure


def write_fixed(outcome: Outcome) -> None:
    """Draw `fixed.*` into the run's folder."""
    with mpl.rc_context(STYLE):
        save(fixed_figure(outcome.tables["pairs"], outcome.report), outcome.folder, "fixed")


def write_day(outcome: Outcome) -> None:
    """Draw `day.*` (the watched pairs) and `day-kinds.*` (all pairs) into the run's folder."""
    with mpl.rc_context(STYLE):
        if outcome.report["watched"]:
            figure = day_figure(outcome.tables["minutes"], outcome.report)
            save(figure, outcome.folder, "day")
        save(kinds_figure(outcome.tables, outcome.report), outcome.folder, "day-kinds")


def fixed_figure(pairs: pd.DataFrame, report: Mapping[str, Any]) -> Figure:
    """SKR of every pair over distance, the histogram with its fits, and the counts of each kind of path."""
    router = report["router"]
    figure = new_figure(11.5, 5.4, report)
    grid = figure.add_gridspec(2, 2, width_ratios=[1.7, 1], height_ratios=[1.6, 1])
    scatter = figure.add_subplot(grid[:, 0])
    histogram = figure.add_subplot(grid[0, 1])
    counts = figure.add_subplot(grid[1, 1])
    _scatter(scatter, pairs, report)
    _histogram(histogram, pairs, report["routers"][router]["threshold"], router)
    _counts(counts, report)
    return figure


def _scatter(axis: Axes, pairs: pd.DataFrame, report: Mapping[str, Any]) -> None:
    router = report["router"]
    kind, skr = pairs[f"kind_{router}"], pairs[f"skr_bit_s_{router}"]
    cut = (pairs["fibre_segments"] > 1) | (pairs[f"hops_{router}"] > 1)
    groups = {
        ("space", SPACE, KIND_NAMES["space"]): kind == "space",
        ("hybrid", HYBRID, KIND_NAMES["hybrid"]): kind == "hybrid",
        ("ground", GROUND, "fibre only, one link"): (kind == "ground") & ~cut,
        ("ground", SEGMENTED, "fibre only, several links"): (kind == "ground") & cut,
    }
    for (name, colour, label), mine in groups.items():
        if mine.any():
            axis.plot(
                pairs["distance_km"][mine],
                skr[mine],
                MARKS[name],
                color=colour,
                markersize=3 if name != "space" else 1.8,
                markeredgewidth=0,
                alpha=0.8 if name != "space" else 0.35,
                label=f"{label} ({int(mine.sum())})",
            )
    split = report["split_distance_km"]["found"]
    if split is not None:
        label = f"{split:.0f} km: shortest fibre cut in two"
        axis.axvline(split, color=SEGMENTED, linewidth=0.9, linestyle=":", label=label)
    _threshold_line(axis, report["routers"][router]["threshold"]["distance_km"])
    axis.set_title(f"Every pair's best path, router “{router}”", loc="left")
    axis.set(xlabel="distance of the two cities (km)", ylabel="secret key rate (bit/s)")
    axis.set(yscale="log", xlim=(0, None))
    if not axis.lines:  # no pair has key
        return
    legend = axis.legend(loc="upper right", markerscale=2.2, fontsize=8)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)


def _histogram(axis: Axes, pairs: pd.DataFrame, found: Mapping[str, Any], router: str) -> None:
    distance, kind = pairs["distance_km"], pairs[f"kind_{router}"]
    edges = np.arange(0, distance.max() + BIN_KM, BIN_KM).tolist()
    sides = {
        "ground": (kind == "ground", GROUND, "fibre only"),
        "space": (kind.isin(["space", "hybrid"]), SPACE, "with a satellite"),
    }
    x = np.linspace(1, edges[-1], 600)
    for side, (mine, colour, label) in sides.items():
        axis.hist(distance[mine], edges, color=colour, alpha=0.3, label=label)
        if (fit := found[side]) is not None:
            curve = LogNormal(fit["pairs"], fit["mu"], fit["sigma"]).density(x) * BIN_KM
            axis.plot(x, curve, color=colour, linewidth=1.2)
    _threshold_line(axis, found["distance_km"], text=False)
    title = found["reason"] or f"threshold {found['distance_km']:.0f} km"
    axis.set_title(f"Log-normal fits by count: {title}", loc="left", fontsize=9)
    axis.set(xlabel="distance (km)", ylabel=f"pairs in {BIN_KM:.0f} km", xlim=(0, edges[-1]))
    axis.legend(loc="upper right", fontsize=8)


def _counts(axis: Axes, report: Mapping[str, Any]) -> None:
    """Counts of each kind, both routers: the chosen one full, the other hatched."""
    kinds = list(KIND_NAMES)
    height = 0.38
    for place, (router, found) in enumerate(sorted(report["routers"].items(), reverse=True)):
        y = np.arange(len(kinds)) + (place - 0.5) * height
        values = [found[kind] for kind in kinds]
        own = router == report["router"]
        axis.barh(
            y,
            values,
            height * 0.92,
            color=[COLOURS[kind] if own else "white" for kind in kinds],
            edgecolor=[COLOURS[kind] for kind in kinds],
            hatch="" if own else "////",
            linewidth=0.8,
        )
        for at, value in zip(y, values, strict=True):
            axis.annotate(
                f"{value}  {router}",
                (value, at),
                (3, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
            )
    axis.set_yticks(range(len(kinds)), [KIND_NAMES[kind] for kind in kinds])
    axis.invert_yaxis()
    axis.set(xlabel="pairs")
    axis.set_xlim(
        0, 1.25 * max(max(found[kind] for kind in kinds) for found in report["routers"].values())
    )
    axis.grid(visible=False, axis="y")
    axis.grid(visible=True, axis="x")


def _threshold_line(axis: Axes, distance_km: float | None, *, text: bool = True) -> None:
    if distance_km is None:
        return
    axis.axvline(distance_km, color="#CC0000", linewidth=1.1, linestyle="--")
    if text:
        axis.annotate(
            f"threshold {distance_km:.0f} km",
            (distance_km, 1),
            (4, -3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            fontsize=8,
            color="#CC0000",
            va="top",
        )


def day_figure(minutes: pd.DataFrame, report: Mapping[str, Any]) -> Figure:
    """SKP, BSM fidelity and weather loss of the watched pairs over time, a pair a column."""
    watched = report["watched"]
    figure = new_figure(4.4 * len(watched) + 0.6, 7.4, report)
    grid = figure.subplots(3, len(watched), sharex=True, sharey="row", squeeze=False)
    for column, one in enumerate(watched):
        of = minutes[minutes["pair"] == one["pair"]]
        when = pd.to_datetime(of["unix_s"], unit="s", utc=True)
        top, middle, bottom = grid[:, column]
        top.plot(when, of["fibre_skp"].where(of["fibre_skp"] > 0), color=SEGMENTED, linewidth=0.9)
        for name in COLOURS:
            mine = of["kind"] == name
            if name != "fail":
                _dots(top, when[mine], of["skp"][mine], name)
            _dots(middle, when[mine], of["bsm_fidelity"][mine], name)
            _dots(bottom, when[mine], of["weather_loss_dB"][mine], name)
        top.set(yscale="log", ylim=(LEAST_SKP, 1.0))
        shares = one["share_of_time"]
        top.set_title(
            f"{one['pair']}, {one['distance_km']:.0f} km\n"
            + ", ".join(
                f"{KIND_NAMES[kind]} {share:.0%}" for kind, share in shares.items() if share
            )
            + (f"; under 1 bit/s {dry:.0%}" if (dry := one["under_1_bit_s"]) else ""),
            loc="left",
            fontsize=9,
        )
        locator = mdates.AutoDateLocator()  # type: ignore[no-untyped-call]
        bottom.xaxis.set_major_locator(locator)
        bottom.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        bottom.set(xlabel="UTC", xlim=_span(when, margin=0.03))
    grid[0, 0].set_ylabel("secret bits per attempt (SKP)")
    grid[1, 0].set_ylabel("BSM fidelity")
    grid[2, 0].set_ylabel("weather loss (dB)")
    for name in ("ground", "space", "hybrid", "fail"):
        grid[0, -1].plot(
            [], [], MARKS[name], color=COLOURS[name], markersize=4, label=KIND_NAMES[name]
        )
    grid[0, -1].plot([], [], color=SEGMENTED, label="direct fibre")
    figure.legend(*grid[0, -1].get_legend_handles_labels(), loc="outside upper right", ncols=5)
    figure.suptitle(
        f"{report['constellation']}, router “{report['router']}”: the colour is "
        "the end-to-end choice,\nfidelity and loss are those of the direct satellite link, both stations together",
        fontsize=9,
        x=0.01,
        ha="left",
    )
    return figure


def kinds_figure(tables: Mapping[str, pd.DataFrame], report: Mapping[str, Any]) -> Figure:
    """How many pairs have which kind of path over time; and every pair's key of the whole stretch."""
    kinds, pairs = _thinned(tables["kinds"]), tables["pairs"]
    figure = new_figure(11.5, 4.4, report)
    left, right = figure.subplots(1, 2, width_ratios=[1.3, 1])
    when = pd.to_datetime(kinds["unix_s"], unit="s", utc=True)
    left.stackplot(
        when,
        *(kinds[name] for name in KIND_NAMES),
        colors=[COLOURS[name] for name in KIND_NAMES],
        labels=list(KIND_NAMES.values()),
        alpha=0.85,
        linewidth=0,
    )
    locator = mdates.AutoDateLocator()  # type: ignore[no-untyped-call]
    left.xaxis.set_major_locator(locator)
    left.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    left.set(xlabel="UTC", ylabel="pairs", xlim=_span(when))
    left.set_ylim(0, kinds[list(KIND_NAMES)].sum(axis=1).max())
    left.set_title(f"Best path of every pair, router “{report['router']}”", loc="left")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4)
    by_space = pairs["key_bits_space"] + pairs["key_bits_hybrid"]
    total = by_space + pairs["key_bits_ground"]
    mostly = by_space > pairs["key_bits_ground"]
    for mine, name, how in ((~mostly, "ground", "fibre"), (mostly, "space", "satellite")):
        with_key = mine & (total >= 1)
        label = f"mostly by {how} ({int(with_key.sum())})"
        _dots(right, pairs["distance_km"][with_key], total[with_key], name, label)
    found = report["routers"][report["router"]]["threshold"]
    _threshold_line(right, found["distance_km"])
    right.set(yscale="log", xlabel="distance of the two cities (km)", xlim=(0, None))
    right.set_ylabel("secret bits")
    right.set_title(f"Key of every pair over {report['days']:g} d", loc="left")
    if right.lines:
        right.legend(loc="lower left", fontsize=8, markerscale=2)
    return figure


def _span(when: pd.Series, margin: float = 0.0) -> tuple[pd.Timestamp, pd.Timestamp]:
    """Limits of a time axis, also where nothing is drawn or there is one instant only."""
    first, last = when.min(), when.max()
    beyond = margin * (last - first) if first < last else pd.Timedelta(minutes=30)
    return first - beyond, last + beyond


def _thinned(kinds: pd.DataFrame) -> pd.DataFrame:
    """Means over stretches of equal length, at most `STRETCHES` of them: satellites come and go in minutes."""
    length = -(-len(kinds) // STRETCHES)
    return kinds.groupby(np.arange(len(kinds)) // length).mean()


def _dots(axis: Axes, x: Any, y: Any, kind: str, label: str = "") -> None:
    """Points of one kind of path, if there are any."""
    if np.isfinite(np.asarray(y, dtype=np.float64)).any():
        style: dict[str, Any] = {"color": COLOURS[kind], "markersize": 1.8, "markeredgewidth": 0.3}
        axis.plot(x, y, MARKS[kind], label=label, **style)
