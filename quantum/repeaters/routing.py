"""Best paths through a hybrid network: for every pair, the links over which it gets most key.

Two routers, over the links of a `network.Graph`:

* `paper`: Dijkstra with the weight -ln SKP of every link (Photonics 11, 268 (2024), section 3). The
  sum of weights is not what the path yields: it counts neither the swaps between links nor that
  errors add up, so that a path of many links may win and then have no key at all.
* `safe`: whichever candidate yields most key as a whole: the direct link, the path of `paper`, and
  the shortest ones by -ln SKP - ln eta_BSM and by -ln P - ln eta_BSM - 30 ln W. Never worse than
  `paper` or the direct link, by construction; not always the very best: among seven cities in
  winter weather it was so for 99.7 % of all pairs (`paper`: 73 %).

`route(graph, router)` does all pairs of all minutes, `route_both` with both routers; `best_path` one
pair of one minute, link by link; `compare` says what the routers differ in. Arrays are (minutes, pairs).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import dijkstra, floyd_warshall

from quantum.repeaters.cities import pair_indices, pair_number
from quantum.repeaters.network import Graph
from quantum.repeaters.parameters import LABEL, Parameters
from quantum.repeaters.werner import (
    fidelity,
    secret_key_probability,
    secret_key_rate_bit_s,
)
from topo.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

Router = Literal["paper", "safe"]
ROUTERS: Final[tuple[Router, ...]] = get_args(Router)

_FIDELITY_PRICE: Final = 30.0
"""What a unit of -ln W costs in the last weight of `safe`: d ln S/d ln W is 8 at one link of the default
parameters, 19 at four, and grows without bound towards the last that yields key."""
_LEAST_WEIGHT: Final = 1e-7
"""For perfect links: to `scipy.sparse.csgraph`, a weight up to 1e-8 of a dense graph is no link at all."""
_NO_NODE: Final = -9999  # scipy's mark


class Kind(IntEnum):
    """What a path is made of."""

    GROUND = 0
    SPACE = 1
    HYBRID = 2
    FAIL = 3
    """No key, whatever it is made of."""


@dataclass(frozen=True)
class Routes:
    """End-to-end results of all pairs: arrays (minutes, pairs)."""

    router: Router
    probability: Floats
    """P of the whole path; 0 where there is none."""
    werner: Floats
    skp: Floats
    kind: NDArray[np.uint8]
    """A `Kind`."""
    hops: NDArray[np.uint8]
    """Edges of the path, each a fibre chain or a satellite link; 0 where there is no path."""
    parameters: Parameters
    label: str = field(default=LABEL, kw_only=True)

    @property
    def fidelity(self) -> Floats:
        return fidelity(self.werner)

    @property
    def skr_bit_s(self) -> Floats:
        return secret_key_rate_bit_s(self.skp, self.parameters)

    def count(self, kind: Kind) -> int:
        """Pairs of that kind, of all minutes together."""
        return int(np.count_nonzero(self.kind == kind))


@dataclass(frozen=True)
class Path:
    """One pair's best path."""

    router: Router
    nodes: tuple[int, ...]
    """Cities from one end to the other; empty where there is no path."""
    by_space: tuple[bool, ...]
    """Of every edge."""
    probability: float
    werner: float
    fidelity: float
    skp: float
    skr_bit_s: float
    kind: Kind
    label: str = LABEL


@dataclass(frozen=True)
class Comparison:
    """What `safe` gains over `paper`, over all pairs and minutes."""

    pairs: int
    rescued: int
    """Without key by `paper`, with key by `safe`."""
    rescued_by_direct_link: int
    """Of these, how many have key over their direct link already."""
    improved: int
    """With key by both, more by `safe`."""
    worse: int
    """Always 0."""
    key_ratio: float
    """All key by `safe` over all key by `paper`; infinite where `paper` has none."""
    largest_gain: float
    """Highest ratio of SKPs of one improved pair; 1 where there is none."""
    label: str = LABEL


def route(graph: Graph, router: Router) -> Routes:
    """The best path of every pair in every minute, as arrays.

    Shortest paths by Floyd and Warshall, which finds what Dijkstra from every city would, four times as
    quickly on graphs as dense as these.
    """
    _check_router(router)
    if router == "safe":
        return route_both(graph)["safe"]
    return _collected(graph, router, [_by_paper(links) for links in _minutes(graph)])


def route_both(graph: Graph) -> dict[Router, Routes]:
    """The same with both routers, in little more time than `safe` takes alone: it asks `paper` too."""
    paper, safe = [], []
    for links in _minutes(graph):
        paper.append(_by_paper(links))
        safe.append(_safe(links, paper[-1]))
    return {
        "paper": _collected(graph, "paper", paper),
        "safe": _collected(graph, "safe", safe),
    }


def best_path(graph: Graph, minute: int, a: int, b: int, router: Router) -> Path:
    """The best path from city a to city b in one minute, by Dijkstra's algorithm."""
    _check_router(router)
    links = _Minute(graph, minute)
    if a == b:
        raise InputError(f"a path needs two cities, not number {a} twice")
    pair_number(graph.cities, a, b)  # both exist
    candidates = [_reached(links, weights, a, b) for weights in links.weights(router)]
    if router == "safe" and graph.skp[minute, pair_number(graph.cities, a, b)] > 0:
        candidates.append([a, b])
    paths = [_path(links, nodes, router) for nodes in candidates]
    return max(paths, key=lambda path: (path.skp, path.werner))


def compare(paper: Routes, safe: Routes, graph: Graph) -> Comparison:
    """What the routers' results on one graph differ in."""
    rescued = (paper.skp == 0) & (safe.skp > 0)
    improved = (paper.skp > 0) & (safe.skp > paper.skp)
    total = float(paper.skp.sum())
    gains = safe.skp[improved] / paper.skp[improved]
    return Comparison(
        pairs=paper.skp.size,
        rescued=int(rescued.sum()),
        rescued_by_direct_link=int((rescued & (graph.skp > 0)).sum()),
        improved=int(improved.sum()),
        worse=int((safe.skp < paper.skp).sum()),
        key_ratio=float(safe.skp.sum()) / total if total else np.inf,
        largest_gain=float(gains.max(initial=1.0)),
    )


@dataclass(frozen=True)
class _Candidate:
    """Paths of all pairs by one set of weights, each array (pairs,)."""

    probability: Floats
    werner: Floats
    skp: Floats
    hops: Ints
    space_hops: Ints


class _Minute:
    """One minute's links, by pair."""

    def __init__(self, graph: Graph, minute: int) -> None:
        self.p, self.cities = graph.parameters, graph.cities
        self.first, self.second = pair_indices(self.cities)
        self.probability = graph.probability[minute]
        self.werner = graph.werner[minute]
        self.skp = graph.skp[minute]
        self.by_space = graph.by_space[minute]

    def weights(self, router: Router) -> Iterator[Floats]:
        """Of every pair's link, one array for each of the router's shortest paths; infinite: no link."""
        with np.errstate(divide="ignore", invalid="ignore"):
            by_key, by_pair = -np.log(self.skp), -np.log(self.probability)
            swap = -np.log(np.float64(self.p.bsm_efficiency))
            infidelity = -_FIDELITY_PRICE * np.log(self.werner)
            yield by_key
            if router == "safe":
                yield by_key + swap
                yield np.where(self.skp > 0, by_pair + swap + infidelity, np.inf)

    def matrix(self, weights: Floats) -> Floats:
        """Weights by pair as the symmetric matrix that graph algorithms take."""
        square = np.full((self.cities, self.cities), np.inf)
        square[self.first, self.second] = np.maximum(weights, _LEAST_WEIGHT)
        square[self.second, self.first] = square[self.first, self.second]
        return square

    def joined(
        self, probability: Floats, werner: Floats, hops: Ints
    ) -> tuple[Floats, Floats, Floats]:
        """P, W and SKP of paths from the products of their links' P and W; 0 where there is no path."""
        swaps = np.maximum(hops - 1, 0)
        some = hops > 0
        whole = some * probability * self.p.bsm_efficiency**swaps
        quality = some * werner * self.p.bsm_werner**swaps
        return whole, quality, secret_key_probability(whole, quality, self.p)


def _minutes(graph: Graph) -> Iterator[_Minute]:
    return (_Minute(graph, minute) for minute in range(len(graph.skp)))


def _by_paper(links: _Minute) -> _Candidate:
    return _shortest(links, next(links.weights("paper")))


def _safe(links: _Minute, paper: _Candidate) -> _Candidate:
    """The best of all candidates, the path of `paper` being known."""
    best = _better(_direct(links), paper)
    _, *others = links.weights("safe")
    for weights in others:
        best = _better(best, _shortest(links, weights))
    return best


def _collected(graph: Graph, router: Router, minutes: list[_Candidate]) -> Routes:
    skp = np.stack([one.skp for one in minutes])
    hops = np.stack([one.hops for one in minutes]).astype(np.uint8)
    space_hops = np.stack([one.space_hops for one in minutes]).astype(np.uint8)
    return Routes(
        router,
        np.stack([one.probability for one in minutes]),
        np.stack([one.werner for one in minutes]),
        skp,
        _kinds(skp, hops, space_hops),
        hops,
        graph.parameters,
    )


def _direct(links: _Minute) -> _Candidate:
    there = (links.skp > 0).astype(np.intp)
    return _Candidate(
        np.where(there, links.probability, 0.0),
        np.where(there, links.werner, 0.0),
        links.skp,
        there,
        there * links.by_space,
    )


def _shortest(links: _Minute, weights: Floats) -> _Candidate:
    """Shortest paths of all pairs, and what they yield as a whole."""
    _, before = floyd_warshall(links.matrix(weights), return_predecessors=True)
    pairs = len(links.first)
    number = np.zeros((links.cities, links.cities), np.intp)
    number[links.first, links.second] = number[links.second, links.first] = np.arange(pairs)
    probability, werner = np.ones(pairs), np.ones(pairs)
    hops, space_hops = np.zeros(pairs, np.intp), np.zeros(pairs, np.intp)
    # Walk back from every pair's second city at once, a link a round, until none is left on the way.
    walking = np.flatnonzero(before[links.first, links.second] != _NO_NODE)
    here = links.second[walking]
    while walking.size:
        previous = before[links.first[walking], here]
        edge = number[previous, here]
        probability[walking] *= links.probability[edge]
        werner[walking] *= links.werner[edge]
        hops[walking] += 1
        space_hops[walking] += links.by_space[edge]
        onward = previous != links.first[walking]
        walking, here = walking[onward], previous[onward]
    return _Candidate(*links.joined(probability, werner, hops), hops, space_hops)


def _better(one: _Candidate, other: _Candidate) -> _Candidate:
    """Pair by pair the one with more key; of equals the first."""
    take = other.skp > one.skp
    return _Candidate(
        np.where(take, other.probability, one.probability),
        np.where(take, other.werner, one.werner),
        np.where(take, other.skp, one.skp),
        np.where(take, other.hops, one.hops),
        np.where(take, other.space_hops, one.space_hops),
    )


def _kinds(
    skp: Floats, hops: NDArray[np.uint8], space_hops: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    kind = np.full(skp.shape, Kind.HYBRID, np.uint8)
    kind[space_hops == 0] = Kind.GROUND
    kind[space_hops == hops] = Kind.SPACE
    kind[skp == 0] = Kind.FAIL
    return kind


def _reached(links: _Minute, weights: Floats, a: int, b: int) -> list[int]:
    """Cities of the shortest path from a to b; empty where there is none."""
    _, before = dijkstra(links.matrix(weights), indices=[a], return_predecessors=True)
    if before[0, b] == _NO_NODE:
        return []
    nodes = [b]
    while nodes[-1] != a:
        nodes.append(int(before[0, nodes[-1]]))
    return nodes[::-1]


def _path(links: _Minute, nodes: list[int], router: Router) -> Path:
    """What a path along these cities yields."""
    edges = np.array(
        [pair_number(links.cities, *ends) for ends in pairwise(nodes)],
        dtype=np.intp,
    )
    hops = np.array([len(edges)])
    probability, werner, skp = links.joined(
        links.probability[edges].prod(keepdims=True), links.werner[edges].prod(keepdims=True), hops
    )
    by_space = links.by_space[edges]
    kind = _kinds(skp, hops.astype(np.uint8), np.array([by_space.sum()], np.uint8))
    return Path(
        router,
        tuple(nodes),
        tuple(bool(space) for space in by_space),
        float(probability[0]),
        float(werner[0]),
        float(fidelity(werner)[0]),
        float(skp[0]),
        float(secret_key_rate_bit_s(skp, links.p)[0]),
        Kind(int(kind[0])),
    )


def _check_router(router: str) -> None:
    if router not in ROUTERS:
        raise InputError(f"router {router!r}: {' or '.join(ROUTERS)}")
