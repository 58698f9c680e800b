"""How long a hybrid network's day takes: every pair of cities, every minute; and how that grows.

Three measurements:

* `day`: the whole day on all cores, by either router, with peak memory, each in processes of its own;
* `sizes`: fewer minutes, fewer and more satellites, on one core: cost should be proportional to minutes, and to
  satellites beyond what there is without any;
* `peer`: the plain way. A networkx graph each minute, its edges one pair at a time, then `dijkstra_path` for every
  pair; and, kinder, `single_source_dijkstra_path` from every city. It takes the project's own link equations, so that
  the results must agree, and is done for a minute or a few, then scaled.

`python -m experiments.bench.hybrid MINUTES SATELLITES PROCESSES ROUTER` is the day of one router; it prints seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib import import_module
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Any, Final

import numpy as np

from experiments.hybrid_setup import PAPER_DATE, start_s
from experiments.progress import Reporter
from quantum.repeaters.cities import read_cities
from quantum.repeaters.constellation import Walker
from quantum.repeaters.day import run as run_day
from quantum.repeaters.links import (
    chain_probability,
    chain_werner,
    secret_key_probability,
    space_link,
)
from quantum.repeaters.network import Network, View
from quantum.repeaters.parameters import LABEL, Parameters
from quantum.repeaters.routing import ROUTERS, Router, route
from quantum.repeaters.weather import synthetic_weather
from topo.errors import MeasurementError

ROOT: Final = Path(__file__).resolve().parents[2]
PLANES: Final = 5
SEED: Final = 1
SIZES: Final = ((60, 25), (120, 25), (240, 25), (480, 25), (240, 0), (240, 50), (240, 100))
"""(minutes, satellites)."""
OWN_MINUTES: Final = 120
"""So many are measured for the ratio to the peer."""
SAMPLE_S: Final = 0.05
PAGE_KiB: Final = os.sysconf("SC_PAGE_SIZE") // 1024
REMEDY: Final = "`pip install networkx` gets it"
ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def run(
    minutes: int, satellites: int, processes: int | None, peer_minutes: int, reporter: Reporter
) -> dict[str, Any]:
    """All three measurements, JSON-able. Without networkx, `peer` says what is missing."""
    cores = processes or len(os.sched_getaffinity(0))
    rows = []
    for router in ROUTERS:
        reporter.stage(f"a day, router {router}")
        rows.append(_own_process(minutes, satellites, cores, router))
    reporter.stage("sizes", len(SIZES))
    sizes = []
    for number, (some, fleet) in enumerate(SIZES):
        seconds = measure(some, fleet, 1, "paper")
        sizes.append({"minutes": some, "satellites": fleet, "seconds": seconds})
        reporter.advance(number + 1, f"{some} min, {fleet} satellites")
    reporter.stage(f"networkx, {peer_minutes} min")
    network = Network(read_cities(), Parameters())
    return {
        "label": LABEL,
        "day": {
            "minutes": minutes,
            "pairs": network.pairs,
            "satellites": satellites,
            "processes": cores,
            "rows": rows,
        },
        "sizes": sizes,
        "peer": _peer(network, minutes, satellites, peer_minutes, reporter),
    }


def measure(minutes: int, satellites: int, processes: int, router: Router) -> float:
    """Seconds from the list of cities to every pair's key over the first minutes of the day."""
    begin = time.perf_counter()
    cities, start = read_cities(), start_s(PAPER_DATE)
    weather = synthetic_weather(cities, start, -(-minutes // 60), seed=SEED)
    run_day(
        Network(cities, Parameters()),
        Walker(satellites, PLANES),
        weather,
        start,
        steps=minutes,
        routers=(router,),
        processes=processes,
    )
    return time.perf_counter() - begin


def _own_process(minutes: int, satellites: int, processes: int, router: Router) -> dict[str, Any]:
    """`measure` in a session of its own, and the most memory that all its processes had at once."""
    argv = [sys.executable, "-m", "experiments.bench.hybrid"]
    argv += [str(minutes), str(satellites), str(processes), router]
    peak_KiB = 0
    with subprocess.Popen(
        argv,
        cwd=ROOT,
        env={**os.environ, **ONE_THREAD},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as child:
        while child.poll() is None:
            peak_KiB = max(peak_KiB, _session_KiB(child.pid))
            time.sleep(SAMPLE_S)
        out, errors = child.communicate()
    if child.returncode != 0:
        last = (errors.strip().splitlines() or [f"status {child.returncode}"])[-1]
        raise MeasurementError(f"the benchmark's process: {last}")
    return {"router": router, "seconds": float(out), "peak_MiB": peak_KiB / 1024}


def _session_KiB(session: int) -> int:
    """Resident memory of all processes of a session now; pages that they share count for each."""
    total = 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            # After the name in brackets: state, parent, group, session ... and resident pages.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[3]) == session:
            total += int(fields[21]) * PAGE_KiB
    return total


def _peer(
    network: Network, minutes: int, satellites: int, peer_minutes: int, reporter: Reporter
) -> dict[str, Any]:
    """The same minutes by networkx and by us on one core."""
    try:
        nx = import_module("networkx")
    except ImportError:
        return {"name": "networkx", "missing": f"networkx: not installed; {REMEDY}"}
    start = start_s(PAPER_DATE)
    weather = synthetic_weather(network.cities, start, 1 + peer_minutes // 60, seed=SEED)
    fleet = Walker(satellites, PLANES)
    unix_s = start + 60.0 * np.arange(peer_minutes, dtype=np.float64)
    view = network.view(fleet, unix_s, weather.at(unix_s))

    ours = route(network.hybrid_graph(network.space_graph(view)), "paper").skp
    own_s = measure(OWN_MINUTES, satellites, 1, "paper") * peer_minutes / OWN_MINUTES
    seconds = {"build": 0.0, "pairs": 0.0, "sources": 0.0}
    different = 0
    for minute in range(peer_minutes):
        begin = time.perf_counter()
        graph = _plain_graph(nx, network, view, minute)
        seconds["build"] += time.perf_counter() - begin
        begin = time.perf_counter()
        plain = np.array(
            [
                _plain_path(nx, graph, int(a), int(b), network.parameters)
                for a, b in zip(network.first, network.second, strict=True)
            ]
        )
        seconds["pairs"] += time.perf_counter() - begin
        begin = time.perf_counter()
        for city in graph:
            nx.single_source_dijkstra_path(graph, city)
        seconds["sources"] += time.perf_counter() - begin
        same = np.isclose(plain, ours[minute], rtol=1e-9, atol=0.0)
        different += int(np.count_nonzero(~same))
        reporter.advance((minute + 1) / peer_minutes)
    pair_by_pair = seconds["build"] + seconds["pairs"]
    by_source = seconds["build"] + seconds["sources"]
    return {
        "name": "networkx",
        "version": nx.__version__,
        "minutes": peer_minutes,
        "seconds": pair_by_pair,
        "by_source_s": by_source,
        "own_s": own_s,
        "day_s": pair_by_pair * minutes / peer_minutes,
        "scaled": True,
        "ratio": pair_by_pair / own_s,
        "ratio_by_source": by_source / own_s,
        "pairs_that_differ": different,
    }


def _plain_graph(nx: Any, network: Network, view: View, minute: int) -> Any:
    """One minute's graph, edge by edge: the better of fibre and best satellite."""
    graph = nx.Graph()
    graph.add_nodes_from(range(len(network.cities)))
    fibre = network.fibre
    for pair, (a, b) in enumerate(
        zip(network.first.tolist(), network.second.tolist(), strict=True)
    ):
        best = float(fibre.skp[pair]), float(fibre.werner[pair]), float(fibre.probability[pair])
        for satellite in range(view.efficiency.shape[1]):
            eta_a, eta_b = view.efficiency[minute, satellite, [a, b]].tolist()
            if eta_a > 0 and eta_b > 0:
                stray = view.stray[minute, a], view.stray[minute, b]
                link = space_link(eta_a, eta_b, *stray, network.parameters)
                best = max(best, (float(link.skp), float(link.werner), float(link.probability)))
        skp, werner, probability = best
        if skp > 0:
            graph.add_edge(a, b, weight=-log(skp), werner=werner, probability=probability)
    return graph


def _plain_path(nx: Any, graph: Any, a: int, b: int, p: Parameters) -> float:
    """SKP of the shortest path of one pair, 0 where there is none."""
    try:
        nodes = nx.dijkstra_path(graph, a, b)
    except nx.NetworkXNoPath:
        return 0.0
    links = [graph.edges[ends] for ends in pairwise(nodes)]
    probability = chain_probability([link["probability"] for link in links], p)
    werner = chain_werner([link["werner"] for link in links], p)
    return float(secret_key_probability(probability, werner, p))


def main() -> int:
    minutes, satellites, processes = (int(argument) for argument in sys.argv[1:4])
    router: Router = "safe" if sys.argv[4] == "safe" else "paper"
    print(measure(minutes, satellites, processes, router))
    return 0


if __name__ == "__main__":
    sys.exit(main())
