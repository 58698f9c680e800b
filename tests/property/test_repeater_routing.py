"""Routers of the hybrid network on random networks: no path worse than it must be."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantum.repeaters.cities import pair_indices, pair_number
from quantum.repeaters.network import Graph
from quantum.repeaters.parameters import LABEL, Parameters
from quantum.repeaters.routing import (
    ROUTERS,
    Kind,
    Path,
    best_path,
    compare,
    route,
    route_both,
)
from quantum.repeaters.werner import secret_key_probability
from topo.errors import InputError


def random_graphs(
    rng: np.random.Generator,
    graphs: int,
    cities: int,
    *,
    missing: float = 0.2,
    least_werner: float = 0.75,
    bsm_efficiency: float = 0.5,
    bsm_werner: float = 1.0,
) -> Graph:
    """So many independent random networks, each in place of a minute.

    Probabilities over six decades, Werner parameters about where key ends, some links missing.
    """
    p = Parameters().changed(bsm_efficiency=bsm_efficiency, bsm_werner=bsm_werner)
    shape = (graphs, cities * (cities - 1) // 2)
    there = rng.random(shape) >= missing
    probability = np.where(there, 10 ** rng.uniform(-6, 0, shape), 0.0)
    werner = np.where(there, rng.uniform(least_werner, 1, shape), 0.0)
    skp = secret_key_probability(probability, werner, p)
    return Graph(probability, werner, skp, rng.random(shape) < 0.5, p, cities)


def check_never_worse(graph: Graph) -> None:
    both = route_both(graph)
    paper, safe = both["paper"], both["safe"]
    assert np.all(safe.skp >= paper.skp)
    assert np.all(safe.skp >= graph.skp)
    # What is said of a path belongs together, whichever candidate it came from.
    for routes in (paper, safe):
        expected = secret_key_probability(routes.probability, routes.werner, graph.parameters)
        assert np.allclose(routes.skp, expected, rtol=1e-9, atol=0)
        assert np.array_equal(routes.kind == Kind.FAIL, routes.skp == 0)
    assert compare(paper, safe, graph).worse == 0


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cities=st.integers(2, 8),
    missing=st.sampled_from([0.0, 0.2, 0.7, 1.0]),
    least_werner=st.sampled_from([0.5, 0.8, 0.95, 1.0]),
    bsm_efficiency=st.sampled_from([0.05, 0.5, 1.0]),
    bsm_werner=st.sampled_from([0.9, 1.0]),
)
def test_safe_is_never_worse_than_paper_nor_than_the_direct_link(
    *,
    seed: int,
    cities: int,
    missing: float,
    least_werner: float,
    bsm_efficiency: float,
    bsm_werner: float,
) -> None:
    """20 x 100 networks."""
    graph = random_graphs(
        np.random.default_rng(seed),
        100,
        cities,
        missing=missing,
        least_werner=least_werner,
        bsm_efficiency=bsm_efficiency,
        bsm_werner=bsm_werner,
    )
    check_never_worse(graph)


@pytest.mark.long
def test_safe_is_never_worse_on_a_hundred_thousand_networks() -> None:
    rng = np.random.default_rng(20240101)
    for _ in range(1000):
        check_never_worse(
            random_graphs(
                rng,
                100,
                int(rng.integers(3, 9)),
                missing=rng.uniform(0, 0.6),
                least_werner=rng.choice([0.5, 0.8, 0.9, 0.97]),
                bsm_efficiency=rng.choice([0.1, 0.5, 0.9]),
                bsm_werner=rng.choice([0.97, 1.0]),
            )
        )


def all_paths(graph: Graph, minute: int, a: int, b: int) -> list[tuple[float, float]]:
    """(sum of -ln SKP, SKP of the whole) of every simple path, by enumeration and products."""
    p = graph.parameters
    others = [city for city in range(graph.cities) if city not in (a, b)]
    found = []
    for count in range(len(others) + 1):
        for between in permutations(others, count):
            edges = [pair_number(graph.cities, *ends) for ends in pairwise((a, *between, b))]
            skp = graph.skp[minute, edges]
            if not skp.all():
                continue
            probability = graph.probability[minute, edges].prod() * p.bsm_efficiency**count
            werner = graph.werner[minute, edges].prod() * p.bsm_werner**count
            whole = float(secret_key_probability(probability, werner, p))
            found.append((float(-np.log(skp).sum()), whole))
    return found


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), bsm_werner=st.sampled_from([0.95, 1.0]))
def test_routers_against_all_paths_there_are(seed: int, bsm_werner: float) -> None:
    graph = random_graphs(np.random.default_rng(seed), 1, 5, bsm_werner=bsm_werner)
    both = route_both(graph)
    for pair, (a, b) in enumerate(zip(*pair_indices(5), strict=True)):
        paths = all_paths(graph, 0, int(a), int(b))
        for router in ROUTERS:
            routed = both[router].skp[0, pair]
            if not paths:
                assert routed == 0
                assert both[router].hops[0, pair] == 0
                continue
            assert routed <= max(whole for _, whole in paths) * (1 + 1e-9)
        if paths:
            # `paper` is the path of least weight, whatever it yields.
            _, whole = min(paths)
            assert both["paper"].skp[0, pair] == pytest.approx(whole, rel=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cities=st.integers(2, 9))
def test_all_pairs_at_once_are_dijkstras_paths_one_by_one(seed: int, cities: int) -> None:
    graph = random_graphs(np.random.default_rng(seed), 2, cities)
    for router in ROUTERS:
        routes = route(graph, router)
        for minute in range(2):
            for pair, (a, b) in enumerate(zip(*pair_indices(cities), strict=True)):
                path = best_path(graph, minute, int(a), int(b), router)
                assert path.skp == pytest.approx(routes.skp[minute, pair], rel=1e-9)
                assert path.kind == routes.kind[minute, pair]
                check_path(graph, minute, path, int(a), int(b))


def check_path(graph: Graph, minute: int, path: Path, a: int, b: int) -> None:
    """What a path says of itself follows from its links."""
    p = graph.parameters
    assert path.label == LABEL
    if not path.nodes:
        assert path.skp == path.probability == 0
        return
    assert (path.nodes[0], path.nodes[-1]) == (a, b)
    assert len(set(path.nodes)) == len(path.nodes)
    edges = [pair_number(graph.cities, *ends) for ends in pairwise(path.nodes)]
    swaps = len(edges) - 1
    assert path.by_space == tuple(graph.by_space[minute, edges])
    probability = graph.probability[minute, edges].prod() * p.bsm_efficiency**swaps
    assert path.probability == pytest.approx(probability)
    assert path.werner == pytest.approx(graph.werner[minute, edges].prod() * p.bsm_werner**swaps)
    assert path.fidelity == pytest.approx((1 + 3 * path.werner) / 4)
    assert path.skr_bit_s == pytest.approx(10e9 * path.skp)


def chain(links: list[tuple[int, int, float, float]], cities: int = 3) -> Graph:
    """A network of the links (a, b, P, W), the first over fibre, all others over satellites."""
    p = Parameters()
    pairs = cities * (cities - 1) // 2
    probability, werner = np.zeros((1, pairs)), np.zeros((1, pairs))
    by_space = np.zeros((1, pairs), dtype=bool)
    for number, (a, b, chance, quality) in enumerate(links):
        pair = pair_number(cities, a, b)
        probability[0, pair], werner[0, pair], by_space[0, pair] = chance, quality, number > 0
    return Graph(
        probability, werner, secret_key_probability(probability, werner, p), by_space, p, cities
    )


def test_the_defect_of_the_paper_and_its_cure() -> None:
    # Two good links look better than the direct one: 0.6 x 0.6 against 0.2. Joined they have W = 0.79,
    # below the 0.804 where key ends.
    graph = chain([(0, 1, 0.9, 0.89), (1, 2, 0.9, 0.89), (0, 2, 0.2, 0.88)])
    assert graph.skp[0, pair_number(3, 0, 1)] ** 2 > graph.skp[0, pair_number(3, 0, 2)]
    paper, safe = (best_path(graph, 0, 0, 2, router) for router in ROUTERS)
    assert paper.nodes == (0, 1, 2)
    assert paper.kind == Kind.FAIL
    assert safe.nodes == (0, 2)
    assert safe.kind == Kind.SPACE
    both = route_both(graph)
    told = compare(both["paper"], both["safe"], graph)
    assert (told.pairs, told.rescued, told.rescued_by_direct_link, told.worse) == (3, 1, 1, 0)


def test_classes_of_paths() -> None:
    graph = chain([(0, 1, 0.9, 0.99), (1, 2, 0.9, 0.99)], cities=4)
    routes = route(graph, "paper")
    kinds = {
        (a, b): Kind(int(routes.kind[0, pair_number(4, a, b)]))
        for a, b in ((0, 1), (1, 2), (0, 2), (0, 3))
    }
    assert kinds == {
        (0, 1): Kind.GROUND,
        (1, 2): Kind.SPACE,
        (0, 2): Kind.HYBRID,
        (0, 3): Kind.FAIL,
    }
    assert routes.hops[0, pair_number(4, 0, 2)] == 2
    assert routes.hops[0, pair_number(4, 0, 3)] == 0
    assert routes.label == LABEL


def test_perfect_links_are_links() -> None:
    # Weight 0, which sparse graphs take for no link at all.
    graph = chain([(0, 1, 1.0, 1.0), (1, 2, 1.0, 1.0)])
    for router in ROUTERS:
        path = best_path(graph, 0, 0, 2, router)
        assert path.nodes == (0, 1, 2)
        assert path.skp == pytest.approx(0.5)
        assert route(graph, router).skp[0, pair_number(3, 0, 2)] == pytest.approx(0.5)


def test_a_network_without_any_link_fails() -> None:
    graph = chain([])
    for router in ROUTERS:
        assert route(graph, router).count(Kind.FAIL) == 3
        assert best_path(graph, 0, 0, 2, router).nodes == ()


def test_unknown_routers_and_cities_are_refused() -> None:
    graph = chain([(0, 1, 0.9, 0.99)])
    with pytest.raises(InputError, match="paper or safe"):
        route(graph, "fast")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="twice"):
        best_path(graph, 0, 1, 1, "paper")
    with pytest.raises(InputError, match="numbered 0 to 2"):
        best_path(graph, 0, 0, 3, "paper")
