"""What the constant-rate mode (RFC 9347) costs on a satellite link, and what an observer of the link still sees.

Plain ESP and constant-rate ESP carry the same inner packets over the same simulated line (`experiments.tfs_line`).
Three questions:

* delay: from an inner packet's arrival at one gateway to its departure from the other, for several kinds of traffic;
* capacity: how much of a full line is inner packets, by their length;
* the observer: lengths and gaps of what is on the line, and how often it tells the kind of traffic by them.

The scenario's waits (frames, scheduling) are left out: they come on top of either mode, and would hide from the
observer a little of what plain ESP shows. A real gateway's timer adds its own jitter, which is here none.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from experiments.tfs_line import (
    NS_PER_S,
    TRAFFIC,
    Arrivals,
    Passage,
    TfsLine,
    arrivals,
    constant,
    inner_packet,
    plain,
)
from gateways.aggfrag import HEADER_OCTETS
from gateways.encapsulation import outer_length

Floats = npt.NDArray[np.float64]

WINDOW_S: Final = 5.0
"""What an observer looks at before it guesses."""
PLAIN: Final = "plain ESP"
INNER_OCTETS: Final = (40, 64, 100, 200, 400, 576, 800, 1000, 1200, 1400)
SHARES: Final = (0.25, 0.5, 1.0)
"""Constant rates by default, shares of the line's."""


# -- the observer ---------------------------------------------------------------------------------


def entropy_bits(values: Sequence[int]) -> float:
    """Shannon entropy of how often each value occurs, bits; 0 for none."""
    shares = np.array(list(Counter(values).values()), dtype=np.float64) / max(1, len(values))
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def gaps_us(sent: Sequence[tuple[int, int]]) -> list[int]:
    """Times between the starts of neighbouring packets, to the microsecond."""
    starts = [at_ns for at_ns, _ in sent]
    return [round((b - a) / 1e3) for a, b in pairwise(starts)]


def windows(sent: Sequence[tuple[int, int]], seconds: float) -> Floats:
    """What an observer notes of each `WINDOW_S`, rows: packets, octets, longest packet, spread of the gaps (logs)."""
    count = max(1, math.floor(seconds / WINDOW_S))
    of: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for at_ns, octets in sent:
        number = int(at_ns / NS_PER_S / WINDOW_S)
        if number < count:
            of[number].append((at_ns, octets))
    rows = []
    for seen in of:
        lengths = [octets for _, octets in seen]
        spread = float(np.std(gaps_us(seen))) if len(seen) > 1 else 0.0
        rows.append([len(seen), sum(lengths), max(lengths, default=0), round(spread)])
    return np.log1p(np.array(rows, dtype=np.float64))


def share_guessed(learnt: Mapping[str, Floats], seen: Mapping[str, Floats]) -> float:
    """How often an observer that knows the mean window of every kind of traffic names the kind of a new one.

    Where kinds look the same, each counts for its share: that is guessing.
    """
    means = np.array([rows.mean(axis=0) for rows in learnt.values()])
    right = total = 0.0
    for number, rows in enumerate(seen.values()):
        for row in rows:
            distance = ((means - row) ** 2).sum(axis=1)
            nearest = np.flatnonzero(np.isclose(distance, distance.min(), rtol=0, atol=1e-6))
            right += (number in nearest) / len(nearest)
            total += 1
    return right / total


# -- the experiment -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TfsOptions:
    """`rates_bps`: constant rates, of the outer packets; each at most the line's."""

    rates_bps: tuple[int, ...]
    seconds: float = 60.0
    seed: int = 1
    capacity_octets: int = 1_000_000
    """Inner octets behind each figure of the capacity."""


def measure(line: TfsLine, options: TfsOptions) -> dict[str, Any]:
    """Delay, capacity and the observer's view in both modes, JSON-able.

    Raises `InputError` for a rate above the line's.
    """
    seconds = options.seconds
    modes: dict[str, Callable[[Arrivals], Passage]] = {PLAIN: partial(plain, line)}
    for rate_bps in options.rates_bps:
        modes[mode_name(rate_bps)] = partial(constant, line, rate_bps=rate_bps, seconds=seconds)
    packets = {kind: arrivals(kind, seconds, options.seed) for kind in TRAFFIC}
    others = {kind: arrivals(kind, seconds, options.seed + 1) for kind in TRAFFIC}
    seen = {mode: {kind: carry(packets[kind]) for kind in TRAFFIC} for mode, carry in modes.items()}
    learnt = {
        mode: {kind: windows(carry(others[kind]).sent, seconds) for kind in TRAFFIC}
        for mode, carry in modes.items()
    }
    rates = dict(zip(list(modes)[1:], options.rates_bps, strict=True))
    return {
        "line": {
            "rate_mbps": line.rate_bps / 1e6,
            "delay_ms": line.delay_ns / 1e6,
            "suite": line.suite.name,
            "payload_octets": line.payload_octets,
            "outer_octets": line.slot_octets,
        },
        "seconds": seconds,
        "seed": options.seed,
        "modes": {
            mode: _mode(line, of, learnt[mode], seconds, rates.get(mode))
            for mode, of in seen.items()
        },
        "delays": [
            _delay(line, mode, kind, of[kind], beside=seen[PLAIN][kind], rate_bps=rates.get(mode))
            for mode, of in seen.items()
            for kind in TRAFFIC
            if of[kind].delays_ns
        ],
        "capacity": [capacity(line, octets, options.capacity_octets) for octets in _lengths(line)],
    }


def mode_name(rate_bps: int) -> str:
    """The name of a constant rate."""
    return f"{rate_bps / 1e6:g} Mbit/s"


def _mode(
    line: TfsLine,
    of: Mapping[str, Passage],
    learnt: Mapping[str, Floats],
    seconds: float,
    rate_bps: int | None,
) -> dict[str, Any]:
    """What an observer has of one mode, all kinds of traffic together."""
    end_ns = round(seconds * NS_PER_S)
    traces = {
        kind: [one for one in passage.sent if one[0] < end_ns] for kind, passage in of.items()
    }
    guessed = share_guessed(learnt, {kind: windows(sent, seconds) for kind, sent in traces.items()})
    lengths = [octets for sent in traces.values() for _, octets in sent]
    gaps = [gap for sent in traces.values() for gap in gaps_us(sent)]
    return {
        "interval_ms": line.interval_ns(rate_bps) / 1e6 if rate_bps else None,
        "length_entropy_bits": entropy_bits(lengths),
        "gap_entropy_bits": entropy_bits(gaps),
        "traces": len({tuple(sent) for sent in traces.values()}),
        "kinds": len(traces),
        "guessed": guessed,
        "guessed_by_chance": 1 / len(traces),
        "idle_gbyte_per_day": (rate_bps or 0) / 8 * 86400 / 1e9,
    }


def _delay(
    line: TfsLine,
    mode: str,
    kind: str,
    passage: Passage,
    *,
    beside: Passage,
    rate_bps: int | None,
) -> dict[str, Any]:
    """One-way delays of one kind of traffic in one mode, and what the mode adds to plain ESP's mean."""
    delays_ms = np.array(passage.delays_ns) / 1e6
    p50, p99 = np.quantile(delays_ms, (0.5, 0.99))
    added = float(delays_ms.mean()) - float(np.mean(beside.delays_ns)) / 1e6
    return {
        "mode": mode,
        "traffic": kind,
        "packets": len(delays_ms),
        "dropped": passage.dropped,
        "mean_ms": float(delays_ms.mean()),
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "max_ms": float(delays_ms.max()),
        "added_mean_ms": added if rate_bps else None,
        "predicted_added_ms": predicted_added_ms(line, rate_bps, 100)
        if rate_bps and kind == "sensor"
        else None,
    }


def predicted_added_ms(line: TfsLine, rate_bps: int, octets: int) -> float:
    """What a constant rate adds to the mean delay of lone packets of `octets` that come at random, ms.

    Half a slot of waiting, and the serialisation of a full payload instead of a short packet.
    """
    longer = line.serialisation_ns(line.slot_octets) - line.serialisation_ns(
        outer_length(octets, line.suite)
    )
    return (line.interval_ns(rate_bps) / 2 + longer) / 1e6


def capacity(line: TfsLine, octets: int, total_octets: int) -> dict[str, Any]:
    """Share of a full line that inner packets of one length are, in both modes."""
    packets = [(0, inner_packet(octets, number)) for number in range(total_octets // octets)]
    wide = TfsLine(10**12, 0, line.suite)  # nothing is dropped: only the shares are wanted
    both = plain(wide, packets), constant(wide, packets, 10**12, 0.0)
    return {
        "inner_octets": octets,
        "plain_share": both[0].useful_share,
        "constant_share": both[1].useful_share,
        "constant_bound": (line.payload_octets - HEADER_OCTETS) / line.slot_octets,
    }


def _lengths(line: TfsLine) -> list[int]:
    """Inner lengths that plain ESP carries unfragmented."""
    longest = line.payload_octets
    return sorted({min(octets, longest) for octets in INNER_OCTETS} | {longest})


def write_report(report: Mapping[str, Any], folder: Path) -> Path:
    """Write `tfs.json`."""
    path = folder / "tfs.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return path
