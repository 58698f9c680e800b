"""The hybrid ground/space quantum network: experiments after the figures of Photonics 11, 268 (2024).

* `run_fixed`: every pair of cities under a satellite at rest, at night (figure 5);
* `run_day`: a day minute by minute, every pair, and some pairs in detail (figure 6);
* `hybrid_filter.run_filter`: pointing and field of view against signal and stray light (figure 7);
* `hybrid_fleet.run_constellation`: the threshold distance against the number of satellites (figure 8).

Each leaves a folder: `report.json` (what was asked, what came out), CSV files whose columns carry their units, plots
as PNG and SVG. Table 1 of the paper is not available, so every output says that the model is calibrated, not
verified against it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments import hybrid_setup as setup
from experiments.folder import new_folder
from experiments.hybrid_setup import HybridOptions, Night
from experiments.progress import Reporter
from quantum.repeaters.day import Day, Watched, run
from quantum.repeaters.links import split_distance_km
from quantum.repeaters.network import Network
from quantum.repeaters.parameters import LABEL
from quantum.repeaters.routing import (
    ROUTERS,
    Comparison,
    Kind,
    Router,
    Routes,
    best_path,
    compare,
    route,
)
from quantum.repeaters.routing import Path as BestPath
from quantum.repeaters.threshold import LogNormal, Threshold, by_use
from quantum.repeaters.werner import fidelity, secret_fraction
from topo.errors import InputError


@dataclass(frozen=True)
class Outcome:
    """What an experiment left behind."""

    folder: Path
    report: Mapping[str, Any] = field(repr=False)
    tables: Mapping[str, pd.DataFrame] = field(repr=False)
    """By file stem."""


def run_fixed(
    options: HybridOptions,
    satellite: str = "fixed",
    pairs: Sequence[str] | None = None,
    *,
    reporter: Reporter,
) -> Outcome:
    """Every pair's best path at one instant, no daylight: SKR over distance, kinds, threshold; figure 5.

    Without options the satellite hangs 700 km above Zurich and the sky is clear. `pairs` are drawn on the map.
    Raises `InputError` for what cannot be, before anything is made.
    """
    net = setup.network(options)
    constellation, start_s = setup.constellation(satellite), setup.start_s(options.date)
    weather = Night(setup.weather(options.weather, net.cities, start_s, 1, options.seed))
    chosen = setup.chosen_pairs(net, pairs)
    folder = new_folder("hybrid-fixed", options.out)
    reporter.stage("best paths of all pairs")
    instant = np.array([start_s])
    view = net.view(constellation, instant, weather.at(instant))
    graph = net.hybrid_graph(net.space_graph(view))
    routes = {router: route(graph, router) for router in ROUTERS}
    ends = [(int(net.first[pair]), int(net.second[pair])) for pair in chosen]
    paths = [best_path(graph, 0, a, b, options.router) for a, b in ends]
    table = _pair_table(net, routes)
    report = {
        **setup.heading("fixed", net, options, weather, setup.describe(constellation)),
        "split_distance_km": {
            "closed_form": _split_closed_form_km(net),
            "found": _split_found_km(net),
        },
        "routers": {
            router: {
                **_kind_counts(routes[router].kind[0]),
                "threshold": threshold_report(_threshold_of(net, routes[router])),
            }
            for router in ROUTERS
        },
        "comparison": comparison_report(compare(routes["paper"], routes["safe"], graph)),
        "paths": [path_report(net, path) for path in paths],
    }
    outcome = Outcome(folder, report, {"pairs": table})
    write(outcome)
    if options.plots:
        from experiments.hybrid_map import Drawn, write_map
        from experiments.hybrid_plots import write_fixed

        reporter.stage("plots")
        write_fixed(outcome)
        hub = paths[-1].nodes[0] if paths and paths[-1].nodes else 0
        tree = [
            best_path(graph, 0, hub, city, options.router)
            for city in range(len(net.cities))
            if city != hub
        ]
        write_map(Drawn(net, constellation, paths, tree), folder, report)
    return outcome


def run_day(
    options: HybridOptions,
    constellation: str = "25",
    pairs: Sequence[str] | None = None,
    *,
    days: float = 1.0,
    step_min: float = 1.0,
    reporter: Reporter,
) -> Outcome:
    """Every pair's key over a day or more, some pairs minute by minute; figure 6.

    Raises `InputError` for what cannot be, before anything is made, and for hours that the weather does not cover.
    """
    steps = steps_of(days, step_min)
    net = setup.network(options)
    satellites, start_s = setup.constellation(constellation), setup.start_s(options.date)
    weather = setup.weather(
        options.weather, net.cities, start_s, days * setup.DAY_HOURS, options.seed
    )
    watch = setup.chosen_pairs(net, pairs)
    folder = new_folder("hybrid-day", options.out)
    reporter.stage(
        f"{steps} instants, {net.pairs} pairs, {len(satellites.names)} satellites", steps
    )
    day = run(
        net,
        satellites,
        weather,
        start_s,
        steps=steps,
        step_s=60 * step_min,
        watch=watch,
        processes=options.workers,
        progress=lambda done, _: reporter.advance(done, f"{done} of {steps}"),
    )
    router = options.router
    report = {
        **setup.heading("day", net, options, weather, setup.describe(satellites)),
        "satellites": day.satellites,
        "days": days,
        "step_min": step_min,
        "routers": {
            router: {
                "key_bits": float(day.total_bits(router).sum()),
                "key_bits_by_kind": {
                    kind.name.lower(): float(day.key_bits[router][:, kind].sum())
                    for kind in Kind
                    if kind is not Kind.FAIL
                },
                "pairs_without_key": int((day.total_bits(router) == 0).sum()),
                "share_of_time": _shares(day, router),
                "threshold": threshold_report(day.threshold(router)),
            }
            for router in ROUTERS
        },
        "comparison": None if day.comparison is None else comparison_report(day.comparison),
        "watched": [_watched_report(net, one, router, day.step_s) for one in day.watched],
    }
    tables = {"pairs": _day_table(net, day, router), "minutes": _minute_table(net, day, router)}
    tables["kinds"] = pd.DataFrame(
        {"unix_s": day.unix_s, **{k.name.lower(): day.pairs_by_kind[router][:, k] for k in Kind}}
    )
    outcome = Outcome(folder, report, tables)
    write(outcome)
    if options.plots:
        from experiments.hybrid_plots import write_day

        reporter.stage("plots")
        write_day(outcome)
    return outcome


def steps_of(days: float, step_min: float) -> int:
    """Instants in a stretch of time; `InputError` where it is shorter than one step, or without end."""
    if not 0 < step_min <= days * 1440 < inf:
        raise InputError(f"{days:g} days in steps of {step_min:g} min: at least one step, above 0")
    return round(days * 1440 / step_min)


def write(outcome: Outcome) -> None:
    """`report.json` and a CSV file a table, the label in its first line; 12 digits, so that instants keep theirs."""
    text = json.dumps(outcome.report, indent=2, allow_nan=False) + "\n"
    (outcome.folder / "report.json").write_text(text, encoding="utf-8")
    for stem, table in outcome.tables.items():
        with (outcome.folder / f"{stem}.csv").open("w", encoding="utf-8", newline="") as file:
            file.write(f"# {LABEL}; {outcome.report['weather']}\n")
            table.to_csv(file, index=False, float_format="%.12g", lineterminator="\n")


def threshold_report(found: Threshold) -> dict[str, Any]:
    """The threshold and its two fits, JSON-able."""

    def fit(one: LogNormal | None) -> dict[str, float] | None:
        return None if one is None else {"pairs": one.count, "mu": one.mu, "sigma": one.sigma}

    return {
        "distance_km": None if found.distance_km is None else round(found.distance_km, 2),
        "reason": found.reason or None,
        "ground": fit(found.ground),
        "space": fit(found.space),
    }


def comparison_report(found: Comparison) -> dict[str, Any]:
    """What `safe` gains over `paper`, JSON-able: null for a ratio to nothing."""
    plain = asdict(found)
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in plain.items()
        if name != "label"
    }


def path_report(net: Network, path: BestPath) -> dict[str, Any]:
    """A path by the names of its cities, JSON-able."""
    names = [net.cities[node].name for node in path.nodes]
    return {
        "cities": names,
        "links": ["satellite" if space else "fibre" for space in path.by_space],
        "kind": path.kind.name.lower(),
        "probability": path.probability,
        "werner": path.werner,
        "fidelity": path.fidelity,
        "skp": path.skp,
        "skr_bit_s": path.skr_bit_s,
    }


def _threshold_of(net: Network, routes: Routes) -> Threshold:
    kind = routes.kind[0]
    return by_use(net.distance_km, (kind == Kind.SPACE) | (kind == Kind.HYBRID), kind != Kind.FAIL)


def _kind_counts(kind: np.ndarray[Any, np.dtype[np.uint8]]) -> dict[str, int]:
    return {one.name.lower(): int(np.count_nonzero(kind == one)) for one in Kind}


def _split_closed_form_km(net: Network) -> float | None:
    """Distance from which two links yield more than one; None where they never do."""
    closed_form = split_distance_km(net.parameters)
    return round(closed_form, 2) if 0 < closed_form < inf else None


def _split_found_km(net: Network) -> float | None:
    """Shortest distance of two cities whose direct fibre is best cut into two links or more."""
    cut = net.distance_km[net.fibre.segments > 1]
    return round(float(cut.min()), 2) if cut.size else None


def _pair_table(net: Network, routes: Mapping[Router, Routes]) -> pd.DataFrame:
    """One row a pair: `kind`, `hops`, P, W, fidelity, SKP and SKR by router, and the direct fibre's."""
    table = _names_table(net)
    table["fibre_segments"] = net.fibre.segments
    table["fibre_skp"] = net.fibre.skp
    for router, of in routes.items():
        table[f"kind_{router}"] = [Kind(kind).name.lower() for kind in of.kind[0]]
        table[f"hops_{router}"] = of.hops[0]
        table[f"probability_{router}"] = of.probability[0]
        table[f"werner_{router}"] = of.werner[0]
        table[f"fidelity_{router}"] = of.fidelity[0]
        table[f"skp_{router}"] = of.skp[0]
        table[f"skr_bit_s_{router}"] = of.skr_bit_s[0]
    return table


def _names_table(net: Network) -> pd.DataFrame:
    names = np.array([city.name for city in net.cities])
    return pd.DataFrame(
        {"a": names[net.first], "b": names[net.second], "distance_km": net.distance_km}
    )


def _day_table(net: Network, day: Day, router: Router) -> pd.DataFrame:
    """One row a pair: key by kind of path, and instants of each kind."""
    table = _names_table(net)
    for kind in Kind:
        name = kind.name.lower()
        if kind is not Kind.FAIL:
            table[f"key_bits_{name}"] = day.key_bits[router][:, kind]
        table[f"steps_{name}"] = day.steps[router][:, kind]
    return table


def _minute_table(net: Network, day: Day, router: Router) -> pd.DataFrame:
    """One row an instant and watched pair."""
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "unix_s": day.unix_s,
                    "pair": setup.pair_name(net, one.pair),
                    "kind": [Kind(kind).name.lower() for kind in one.kind[router]],
                    "skp": one.skp[router],
                    "fidelity": np.where(one.skp[router] > 0, fidelity(one.werner[router]), np.nan),
                    "fibre_skp": one.fibre_skp,
                    "space_skp": one.space_skp,
                    "bsm_fidelity": one.bsm_fidelity,
                    "weather_loss_dB": one.weather_loss_dB,
                    "satellite": one.satellite,
                }
            )
            for one in day.watched
        ]
        or [pd.DataFrame({"unix_s": [], "pair": []})],
        ignore_index=True,
    )


def _shares(day: Day, router: Router) -> dict[str, float]:
    counts = day.steps[router].sum(axis=0)
    return {kind.name.lower(): float(counts[kind] / counts.sum()) for kind in Kind}


def _watched_report(net: Network, one: Watched, router: Router, step_s: float) -> dict[str, Any]:
    """A watched pair's day in numbers, JSON-able."""
    skp, kind, werner = one.skp[router], one.kind[router], one.werner[router]
    weight = skp.sum()
    # P of every instant with key, from SKP = P S(W).
    fraction = secret_fraction(werner, net.parameters)
    probability = np.divide(skp, fraction, out=np.zeros_like(skp), where=skp > 0)
    pairs = probability.sum()
    return {
        "pair": setup.pair_name(net, one.pair),
        "distance_km": round(one.distance_km, 2),
        "key_bits": float(skp.sum() * net.parameters.rate_hz * step_s),
        "pair_rate_hz": float(probability.mean() * net.parameters.rate_hz),
        "werner": float((werner * probability).sum() / pairs) if pairs else None,
        "share_of_time": {each.name.lower(): float((kind == each).mean()) for each in Kind},
        "under_1_bit_s": float((skp * net.parameters.rate_hz < 1).mean()),
        "satellite_in_sight": float((one.satellite >= 0).mean()),
        "fidelity": float((fidelity(werner) * skp).sum() / weight) if weight else None,
        "lowest_bsm_fidelity": _least(one.bsm_fidelity),
        "highest_weather_loss_dB": None
        if (least := _least(-one.weather_loss_dB)) is None
        else -least,
    }


def _least(values: np.ndarray[Any, np.dtype[np.float64]]) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.min()) if finite.size else None
