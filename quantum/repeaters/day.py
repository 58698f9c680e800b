"""A day of a hybrid network: every pair, every minute, on all cores.

`run(network, constellation, weather, start_s)` sums up what each pair gets over which kind of path,
and keeps a record, minute by minute, of the pairs that one wants to watch. Cost grows in proportion
to minutes and satellites; memory hardly grows at all.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Final

import numpy as np
from numpy.typing import NDArray

from quantum.repeaters.constellation import Constellation
from quantum.repeaters.network import Network
from quantum.repeaters.parameters import LABEL
from quantum.repeaters.routing import ROUTERS, Comparison, Kind, Router, compare, route, route_both
from quantum.repeaters.threshold import Threshold, by_use
from quantum.repeaters.weather import Conditions, Weather
from quantum.repeaters.werner import fidelity
from topo.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CHUNK: Final = 30
"""Steps that are worked on at once: their arrays still fit into a core's cache."""


@dataclass(frozen=True)
class Watched:
    """One pair over the day; arrays (steps,), NaN of a satellite link while there is none."""

    pair: int
    distance_km: float
    skp: Mapping[Router, Floats]
    werner: Mapping[Router, Floats]
    kind: Mapping[Router, NDArray[np.uint8]]
    fibre_skp: float
    """Of the direct fibre."""
    space_skp: Floats
    """Of the direct satellite link."""
    satellite: NDArray[np.int16]
    """Its satellite; -1 for none."""
    bsm_fidelity: Floats
    """What stray light leaves to the two stations' BSMs together: (1 + 3 W_A W_B)/4."""
    weather_loss_dB: Floats
    """Of air and clouds on both downlinks."""
    label: str = LABEL


@dataclass(frozen=True)
class Day:
    """What a network did over some time."""

    unix_s: Floats
    step_s: float
    distance_km: Floats
    """Of every pair."""
    key_bits: Mapping[Router, Floats]
    """Secret bits of every pair by `Kind` of path, (pairs, 4); those that fail have none."""
    steps: Mapping[Router, Ints]
    """How many steps each pair spent with each `Kind`, (pairs, 4)."""
    pairs_by_kind: Mapping[Router, Ints]
    """How many pairs had each `Kind` in each step, (steps, 4)."""
    comparison: Comparison | None
    """Of both routers, where both ran."""
    watched: tuple[Watched, ...]
    satellites: int
    weather: str
    label: str = LABEL

    def total_bits(self, router: Router) -> Floats:
        """Secret bits of every pair, shape (pairs,)."""
        return np.asarray(self.key_bits[router].sum(axis=1))

    def threshold(self, router: Router) -> Threshold:
        """Where satellites win: each pair counts for whichever made it more key, fibre or satellites."""
        bits = self.key_bits[router]
        by_space = bits[:, Kind.SPACE] + bits[:, Kind.HYBRID]
        return by_use(
            self.distance_km, by_space > bits[:, Kind.GROUND], self.total_bits(router) > 0
        )


@dataclass(frozen=True)
class _Task:
    """Some steps of the day, ready to be worked on anywhere."""

    ellipsoid: bool
    position_km: Floats
    conditions: Conditions


@dataclass(frozen=True)
class _Part:
    """Their result."""

    bits_per_s: Mapping[Router, Floats]
    steps: Mapping[Router, Ints]
    pairs_by_kind: Mapping[Router, Ints]
    comparison: Comparison | None
    watched: list[Watched]


def run(
    network: Network,
    constellation: Constellation,
    weather: Weather,
    start_s: float,
    *,
    steps: int = 1440,
    step_s: float = 60.0,
    routers: Sequence[Router] = ROUTERS,
    watch: Sequence[int] = (),
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Day:
    """Route all pairs at `steps` instants from `start_s` (unix) on, `step_s` apart.

    `watch` are numbers of pairs (`cities.pair_number`); `progress` is told (done, total) steps.
    `processes` is one for each core unless given; 1 works in this process. The result does not depend
    on it. Raises `InputError` for instants that the weather or the satellites' elements do not cover.
    """
    _check(network, steps, step_s, routers, watch)
    unix_s = np.asarray(start_s + step_s * np.arange(steps), dtype=np.float64)
    tasks = (
        _Task(
            constellation.ellipsoid,
            constellation.positions_km(part),
            weather.at(part),
        )
        for part in np.split(unix_s, range(CHUNK, steps, CHUNK))
    )
    workers = min(processes or os.cpu_count() or 1, -(-steps // CHUNK))
    # Sums by pair are added up as they come: kept by part, those of a year would fill the memory.
    bits = {router: np.zeros((network.pairs, len(Kind))) for router in routers}
    spent = {router: np.zeros((network.pairs, len(Kind)), np.int64) for router in routers}
    counts: dict[Router, list[Ints]] = {router: [] for router in routers}
    watched: list[list[Watched]] = []
    compared: list[Comparison] = []
    done = 0
    for part in _worked(_Work(network, tuple(routers), tuple(watch)), tasks, workers):
        for router in routers:
            bits[router] += step_s * part.bits_per_s[router]
            spent[router] += part.steps[router]
            counts[router].append(part.pairs_by_kind[router])
        watched.append(part.watched)
        if part.comparison:
            compared.append(part.comparison)
        done += len(counts[routers[0]][-1])
        if progress:
            progress(done, steps)
    return Day(
        unix_s=unix_s,
        step_s=step_s,
        distance_km=network.distance_km,
        key_bits=bits,
        steps=spent,
        pairs_by_kind={router: np.concatenate(counts[router]) for router in routers},
        comparison=_whole_comparison(compared, bits),
        watched=tuple(_joined(parts) for parts in zip(*watched, strict=True)),
        satellites=len(constellation.names),
        weather=weather.description,
    )


@dataclass(frozen=True)
class _Work:
    """What is the same for all tasks; sent to every worker once."""

    network: Network
    routers: tuple[Router, ...]
    watch: tuple[int, ...]

    def __call__(self, task: _Task) -> _Part:
        network = self.network
        view = network.view_at(task.ellipsoid, task.position_km, task.conditions)
        space = network.space_graph(view)
        graph = network.hybrid_graph(space)
        both = all(router in self.routers for router in ROUTERS)
        routes = route_both(graph) if both else {r: route(graph, r) for r in self.routers}
        kinds = {
            router: np.stack([routes[router].kind == kind for kind in Kind], axis=-1)
            for router in self.routers
        }
        watched = []
        for pair in self.watch:
            link = network.pair_view(view, space, pair)
            watched.append(
                Watched(
                    pair=pair,
                    distance_km=float(network.distance_km[pair]),
                    skp={router: routes[router].skp[:, pair] for router in self.routers},
                    werner={router: routes[router].werner[:, pair] for router in self.routers},
                    kind={router: routes[router].kind[:, pair] for router in self.routers},
                    fibre_skp=float(network.fibre.skp[pair]),
                    space_skp=link.link.skp,
                    satellite=link.satellite,
                    bsm_fidelity=fidelity(link.bsm_werner_a * link.bsm_werner_b),
                    weather_loss_dB=link.weather_loss_dB,
                )
            )
        return _Part(
            bits_per_s={
                router: np.einsum("mp,mpk->pk", routes[router].skr_bit_s, kinds[router])
                for router in self.routers
            },
            steps={router: kinds[router].sum(axis=0) for router in self.routers},
            pairs_by_kind={router: kinds[router].sum(axis=1) for router in self.routers},
            comparison=compare(routes["paper"], routes["safe"], graph) if both else None,
            watched=watched,
        )


_work: _Work | None = None  # of a worker process


def _take(work: _Work) -> None:
    global _work  # noqa: PLW0603 (what an initializer is for)
    _work = work


def _do(task: _Task) -> _Part:
    if _work is None:
        raise RuntimeError("a worker without its network")
    return _work(task)


def _worked(work: _Work, tasks: Iterator[_Task], workers: int) -> Iterator[_Part]:
    """The results of all tasks, in their order; few tasks are in memory at a time."""
    if workers == 1:
        yield from map(work, tasks)
        return
    with ProcessPoolExecutor(
        workers, get_context("forkserver"), initializer=_take, initargs=(work,)
    ) as executor:
        waiting: deque[Future[_Part]] = deque()
        for task in tasks:
            waiting.append(executor.submit(_do, task))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _joined(parts: Sequence[Watched]) -> Watched:
    """One record of the whole day from those of its parts."""
    first = parts[0]

    def by_router(name: str) -> dict[Router, NDArray[np.generic]]:
        return {r: np.concatenate([getattr(part, name)[r] for part in parts]) for r in first.skp}

    whole = {name: by_router(name) for name in ("skp", "werner", "kind")}
    series = ("space_skp", "satellite", "bsm_fidelity", "weather_loss_dB")
    flat = {name: np.concatenate([getattr(part, name) for part in parts]) for name in series}
    return replace(first, **whole, **flat)  # type: ignore[arg-type]  # names of its own fields


def _whole_comparison(
    each: Sequence[Comparison], bits: Mapping[Router, Floats]
) -> Comparison | None:
    """The comparison of the whole time from those of its parts and from all key."""
    if not each:
        return None
    paper, safe = (float(bits[router].sum()) for router in ROUTERS)
    return Comparison(
        pairs=sum(one.pairs for one in each),
        rescued=sum(one.rescued for one in each),
        rescued_by_direct_link=sum(one.rescued_by_direct_link for one in each),
        improved=sum(one.improved for one in each),
        worse=sum(one.worse for one in each),
        key_ratio=safe / paper if paper else float("inf"),
        largest_gain=max(one.largest_gain for one in each),
    )


def _check(
    network: Network, steps: int, step_s: float, routers: Sequence[Router], watch: Sequence[int]
) -> None:
    if steps < 1 or not step_s > 0:
        raise InputError(f"a day of {steps} steps of {step_s:g} s: at least one, above 0 s")
    if not routers or any(router not in ROUTERS for router in routers):
        raise InputError(f"routers {', '.join(routers)}: {' or '.join(ROUTERS)}, or both")
    for pair in watch:
        if not 0 <= pair < network.pairs:
            raise InputError(f"pair {pair}: they are numbered 0 to {network.pairs - 1}")
