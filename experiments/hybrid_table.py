"""What a hybrid network experiment found, in the terminal. Every table ends with what its numbers are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.hybrid import Outcome
from experiments.hybrid_setup import KIND_NAMES, bits
from experiments.tables import print_table


def print_fixed(outcome: Outcome) -> None:
    """Counts and thresholds by router, then the chosen paths."""
    report = outcome.report
    console = Console()
    table = _table(
        f"{report['pairs']} pairs of {report['cities']} cities, {report['constellation']}",
        ["router"],
        [*KIND_NAMES.values(), "threshold"],
    )
    for router, found in report["routers"].items():
        table.add_row(
            router, *(str(found[kind]) for kind in KIND_NAMES), _threshold(found["threshold"])
        )
    _print(console, table)
    _print_paths(console, report["paths"])
    split = report["split_distance_km"]
    found = "no pair's" if split["found"] is None else f"from {split['found']:.1f} km on a pair's"
    closed_form = "never" if split["closed_form"] is None else f"{split['closed_form']:.1f} km"
    console.print(f"{found} fibre is cut in two; closed form {closed_form}", highlight=False)
    _print_comparison(console, report["comparison"])
    _print_end(console, outcome)


def print_day(outcome: Outcome) -> None:
    """The network's key by router, then the watched pairs."""
    report = outcome.report
    console = Console()
    table = _table(
        f"{report['days']:g} d of {report['pairs']} pairs, {report['constellation']}",
        ["router"],
        ["key", *(f"{name}, of the time" for name in KIND_NAMES.values()), "threshold"],
    )
    for router, found in report["routers"].items():
        shares = found["share_of_time"]
        table.add_row(
            router,
            bits(found["key_bits"]),
            *(f"{shares[kind]:.1%}" for kind in KIND_NAMES),
            _threshold(found["threshold"]),
        )
    _print(console, table)
    table = _table(
        f"watched pairs, router {report['router']}",
        ["pair"],
        ["km", "key", *KIND_NAMES.values(), "under 1 bit/s", "satellite in sight", "fidelity"],
    )
    for one in report["watched"]:
        table.add_row(
            one["pair"],
            f"{one['distance_km']:.0f}",
            bits(one["key_bits"]),
            *(f"{one['share_of_time'][kind]:.1%}" for kind in KIND_NAMES),
            f"{one['under_1_bit_s']:.1%}",
            f"{one['satellite_in_sight']:.1%}",
            "-" if one["fidelity"] is None else f"{one['fidelity']:.4f}",
        )
    if report["watched"]:
        _print(console, table)
    if report["comparison"] is not None:
        _print_comparison(console, report["comparison"])
    _print_end(console, outcome)


def print_filter(outcome: Outcome) -> None:
    """The points that matter: as set, best field of view, best of all."""
    report = outcome.report
    console = Console()
    table = _table(
        f"a downlink at {report['elevation_deg']:g}°, {report['irradiance_W_m2']:g} W/m² of diffuse light",
        [""],
        ["pointing, µrad", "field of view, µrad", "signal", "stray, 1/s", "BSM fidelity", "SKP"],
    )
    points = {
        "as set": report["as_set"],
        "best field of view": report["best_at_own_pointing"],
        "best of all": report["best"],
    }
    for name, point in points.items():
        if point is None:
            table.add_row(name, "no key", *[""] * 5)
            continue
        table.add_row(
            name,
            f"{point['pointing_urad']:.3g}",
            f"{point['field_of_view_urad']:.3g}",
            f"{point['signal_efficiency']:.3e}",
            f"{point['stray_rate_hz']:.3g}",
            f"{point['bsm_fidelity']:.4f}",
            f"{point['skp']:.3e}",
        )
    _print(console, table)
    _print_end(console, outcome)


def print_constellation(outcome: Outcome) -> None:
    """One row a fleet."""
    report = outcome.report
    console = Console()
    table = _table(
        f"{report['constellation']}, router {report['router']}",
        [],
        [
            "planes",
            "satellites",
            "threshold, km",
            "key a day",
            "of it by satellites",
            "cost",
            "cost per Pbit",
            "per extra Pbit",
            "per km won",
        ],
    )
    before = None
    for row in report["rows"]:
        if before not in {None, row["planes"]}:
            table.add_section()
        before = row["planes"]
        table.add_row(
            str(row["planes"]),
            str(row["satellites"]),
            _number(row["threshold_km"], ".0f"),
            bits(row["key_bits"]),
            bits(row["key_bits_by_satellites"]),
            f"{row['cost']:g}",
            _number(row["cost_per_Tbit"], ".3g", 1e3),
            _number(row["cost_per_extra_Tbit"], ".3g", 1e3),
            _number(row["cost_per_km"], ".3g"),
        )
    _print(console, table)
    fixed = report["fixed_satellite"]["threshold"]
    console.print(f"one satellite at rest above Zurich: {_threshold(fixed)}", highlight=False)
    for planes, number in report["reaches_fixed_at"].items():
        text = "no number tried is" if number is None else f"{number} satellites and more are"
        console.print(f"planes {planes}: {text} within 25 km of it", highlight=False)
    _print_end(console, outcome)


def print_sweep(outcome: Outcome) -> None:
    """One row a point."""
    console = Console()
    points = outcome.tables["sweep"]
    varied = outcome.report["varied"]
    table = _table(
        f"{len(points)} points, router {outcome.report['router']}",
        ["weather", "constellation", *varied],
        ["threshold, km", "key", "of it by satellites", "pairs without key"],
    )
    for row in points.to_dict("records"):
        table.add_row(
            str(row["weather"]),
            str(row["constellation"]),
            *(str(row[name]) for name in varied),
            _number(row["threshold_km"], ".0f"),
            bits(row["key_bits"]),
            bits(row["key_bits_by_satellites"]),
            str(row["pairs_without_key"]),
        )
    _print(console, table)
    _print_end(console, outcome)


def print_bench(found: Mapping[str, Any]) -> None:
    """What `qntn bench hybrid` measured."""
    console = Console()
    day = found["day"]
    table = _table(
        f"{day['minutes']} min, {day['pairs']} pairs, {day['satellites']} satellites on {day['processes']} processes",
        ["router"],
        ["seconds", "ms a minute", "peak memory, MiB"],
    )
    for row in day["rows"]:
        table.add_row(
            row["router"],
            f"{row['seconds']:.1f}",
            f"{1e3 * row['seconds'] / day['minutes']:.2f}",
            f"{row['peak_MiB']:.0f}",
        )
    _print(console, table)
    table = _table(
        "cost over size, one process, router paper",
        [],
        ["minutes", "satellites", "seconds", "ms a minute"],
    )
    for row in found["sizes"]:
        table.add_row(
            str(row["minutes"]),
            str(row["satellites"]),
            f"{row['seconds']:.2f}",
            f"{1e3 * row['seconds'] / row['minutes']:.2f}",
        )
    _print(console, table)
    peer = found["peer"]
    if "missing" in peer:
        console.print(peer["missing"], highlight=False, soft_wrap=True)
    else:
        minutes = day["minutes"]
        console.print(
            f"networkx {peer['version']}, pair by pair: {peer['seconds']:.1f} s for {peer['minutes']} min, scaled to "
            f"{minutes} min {peer['day_s'] / 60:.0f} min: {peer['ratio']:.0f} times qntn on one core; from every city "
            f"at once: {peer['ratio_by_source']:.0f} times; {peer['pairs_that_differ']} pairs differ",
            highlight=False,
            soft_wrap=True,
        )
    console.print(found["label"], style="italic", highlight=False)


def _print_paths(console: Console, paths: Sequence[Mapping[str, Any]]) -> None:
    if not paths:
        return
    table = _table("best paths", ["path", "kind"], ["SKR", "fidelity"])
    for path in paths:
        text = path["cities"][0] if path["cities"] else "none"
        for city, link in zip(path["cities"][1:], path["links"], strict=True):
            text += f" {'⇡' if link == 'satellite' else '─'} {city}"
        table.add_row(
            text,
            KIND_NAMES[path["kind"]],
            f"{bits(path['skr_bit_s'])}/s" if path["skr_bit_s"] else "-",
            f"{path['fidelity']:.4f}" if path["skr_bit_s"] else "-",
        )
    _print(console, table)


def _print_comparison(console: Console, found: Mapping[str, Any]) -> None:
    ratio = "-" if found["key_ratio"] is None else f"{found['key_ratio']:.3f}"
    console.print(
        f"router safe against paper: {found['rescued']} without key by paper have some by safe "
        f"({found['rescued_by_direct_link']} of them over their direct link), {found['improved']} have more, "
        f"{found['worse']} less; all key together {ratio} times",
        highlight=False,
        soft_wrap=True,
    )


def _print_end(console: Console, outcome: Outcome) -> None:
    console.print(outcome.report["weather"], highlight=False, soft_wrap=True)
    for note in outcome.report.get("notes", ()):
        console.print(note, highlight=False, soft_wrap=True)
    console.print(outcome.report["label"], style="italic", highlight=False)
    console.print(f"run folder: {outcome.folder}", highlight=False, soft_wrap=True)


def _threshold(found: Mapping[str, Any]) -> str:
    return found["reason"] or f"{found['distance_km']:.0f} km"


def _number(value: float | None, form: str, factor: float = 1.0) -> str:
    # A NaN of a table is nothing too.
    return "-" if value is None or value != value else format(factor * value, form)  # noqa: PLR0124


def _print(console: Console, table: Table) -> None:
    print_table(console, table)
    console.print()


def _table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for column in left:
        table.add_column(column, overflow="fold")
    for column in right:
        table.add_column(column, justify="right")
    return table
