"""From a path of the hybrid network to key: what pairs it brings to two cities, and the block they give.

The rate is the model's R P and the fidelity its W; the bits are drawn: every pair that is simulated is measured at both
ends and goes through sifting, error correction, verification and privacy amplification (`quantum.bbm92`). The
model's own secret key rate times the duration, its limit for long blocks, stands beside what the block gave.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from quantum.bb84.session import PassKey
from quantum.bb84.stages import Progress, silent
from quantum.bbm92 import PairSource, make_key
from quantum.repeaters.cities import find_city, plain_name, read_cities
from quantum.repeaters.constellation import FixedSatellite
from quantum.repeaters.network import Network
from quantum.repeaters.parameters import LABEL, Parameters
from quantum.repeaters.routing import best_path
from quantum.repeaters.weather import steady_weather
from quantum.repeaters.werner import secret_fraction
from topo.errors import InputError, NoKeyFromPass
from topo.scenario import EntangledPairs

HOW: Final = {"ground": "over fibre", "space": "by satellite", "hybrid": "by fibre and satellite"}


@dataclass(frozen=True)
class FoundPairs:
    """What reaches two cities."""

    source: PairSource
    parameters: Parameters
    how: str
    """One line."""


def collect_pairs(wanted: EntangledPairs, seed: int, progress: Progress = silent) -> PassKey:
    """The key of entangled pairs between two cities, as each end has it; its report has a `title` and the `label`.

    Raises `NoKeyFromPass` where the path or the block gives no key, `InputError` for cities or a run that cannot be
    used.
    """
    found = find_pairs(wanted)
    key = make_key(
        found.source,
        wanted.duration_s,
        seed=seed,
        max_pairs=wanted.max_pairs,
        progress=progress,
    )
    limit = float(secret_fraction(found.source.werner, found.parameters))
    rate_bit_s = found.source.pair_rate_hz * limit
    report = {
        "title": f"entangled pairs ({wanted.cities[0]}–{wanted.cities[1]})",
        "label": LABEL,
        "origin": {"cities": list(wanted.cities), "how": found.how},
        "model_skr_bit_s": rate_bit_s,
        "model_bits": rate_bit_s * wanted.duration_s,
        "model_bits_of_simulated": rate_bit_s * key.report["simulated_s"],
        **key.report,
    }
    return replace(key, report=report)


def find_pairs(wanted: EntangledPairs) -> FoundPairs:
    """Rate and fidelity of the pairs, from where the scenario says; see `collect_pairs`."""
    if wanted.pair_rate_hz is not None and wanted.werner is not None:
        source = PairSource(wanted.pair_rate_hz, wanted.werner)
        return FoundPairs(source, Parameters(), "rate and fidelity as given")
    if wanted.run is not None:
        return _of_run(Path(wanted.run), wanted.cities)
    return _below_fixed_satellite(wanted.cities)


def _below_fixed_satellite(cities: tuple[str, str]) -> FoundPairs:
    """The best path of `qntn hybrid fixed` without options."""
    net = Network(read_cities(), Parameters())
    a, b = (find_city(net.cities, name) for name in cities)
    if a == b:
        raise InputError(f"keys.hybrid.cities: two different cities, not {cities[0]} twice")
    instant = np.zeros(1)
    view = net.view(FixedSatellite(), instant, steady_weather(net.cities).at(instant))
    path = best_path(net.hybrid_graph(net.space_graph(view)), 0, a, b, "safe")
    _check_key(path.skp, cities)
    names = " – ".join(net.cities[node].name for node in path.nodes)
    source = PairSource(net.parameters.rate_hz * path.probability, path.werner)
    return FoundPairs(
        source,
        net.parameters,
        f"{names}, {HOW[path.kind.name.lower()]}: one satellite at rest above Zurich, clear night",
    )


def _of_run(folder: Path, cities: tuple[str, str]) -> FoundPairs:
    """What a run of `qntn hybrid fixed` or `day` found for a pair of cities."""
    report_file = folder / "report.json"
    try:
        report = json.loads(report_file.read_text(encoding="utf-8"))
        experiment, given = report["experiment"], report["parameters"]
        powers = ("ground_powers", "space_powers")
        parameters = Parameters(**{**given, **{name: tuple(given[name]) for name in powers}})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"keys.hybrid.run: {report_file} is no report of a hybrid run: make one with `qntn hybrid fixed --out DIR`"
        ) from error
    if experiment == "fixed":
        probability, werner = _row(folder / "pairs.csv", report["router"], cities)
        rate_hz = parameters.rate_hz * probability
    elif experiment == "day":
        watched = _watched(report["watched"], cities)
        rate_hz, werner = watched["pair_rate_hz"], watched["werner"] or 0.0
    else:
        raise InputError(f"keys.hybrid.run: {folder} is a {experiment} run: needs a fixed or a day")
    _check_key(rate_hz, cities)
    how = f"{report['constellation']}, {report['weather']}"
    return FoundPairs(PairSource(rate_hz, werner), parameters, how)


def _row(path: Path, router: str, cities: tuple[str, str]) -> tuple[float, float]:
    """P and W of a pair in the table of a fixed run; P 0 where it has no key."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"keys.hybrid.run: {path}: {error.strerror}") from error
    for row in csv.DictReader(line for line in lines if not line.startswith("#")):
        if _same(cities, (row["a"], row["b"])):
            if float(row[f"skp_{router}"]) == 0:
                return 0.0, 0.0
            return float(row[f"probability_{router}"]), float(row[f"werner_{router}"])
    raise InputError(f"keys.hybrid.cities: {path} has no pair {cities[0]} and {cities[1]}")


def _watched(watched: Iterable[Mapping[str, Any]], cities: tuple[str, str]) -> Mapping[str, Any]:
    names = []
    for one in watched:
        a, _, b = one["pair"].partition("–")
        if _same(cities, (a, b)):
            return one
        names.append(one["pair"])
    raise InputError(
        f"keys.hybrid.cities: {cities[0]} and {cities[1]} were not watched in that day "
        f"(there is: {', '.join(names) or 'none'}): run it with --pair {cities[0]}-{cities[1]}"
    )


def _same(wanted: tuple[str, str], there: tuple[str, str]) -> bool:
    return {plain_name(name) for name in wanted} == {plain_name(name) for name in there}


def _check_key(amount: float, cities: tuple[str, str]) -> None:
    if not amount > 0:
        raise NoKeyFromPass(f"no key: no path between {cities[0]} and {cities[1]} has any")
