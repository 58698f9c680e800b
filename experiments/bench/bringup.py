"""How long a chain of hosts takes to come up and go down, beside Mininet's own way, on the same kernel.

`python -m experiments.bench.bringup HOSTS ROUNDS` measures in the kernel it runs in (root, netem) and prints JSON;
`qntn bench bringup` runs it in a substrate, on a real clock, and prints the table. Three ways take turns in each round:

* `qntn`: namespaces, links, addresses of every interface, neighbours and netem queues, read back, as a run has them;
* `mininet`: `Mininet(topo).start()` with plain links: less, since only the first interface of a host is addressed;
* `mininet-tc`: the same with `TCLink` and a delay, which is what a Mininet user would write for such a network.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from experiments.progress import Reporter
from topo.errors import MeasurementError
from topo.links.delays import Fixed
from topo.network import Network
from topo.plan import DirectionPlan, HostPlan, LinkPlan, Plan
from topo.substrates import Job, choose

DELAY_MS = 1.0
RATE_BPS = 100_000_000

Way = Callable[[int], tuple[float, float]]
"""Brings a chain of so many hosts up and down and returns both times in seconds."""


def chain_plan(hosts: int) -> Plan:
    """A plan of a chain of hosts, 1 ms and 100 Mbit/s a hop. No routes: Mininet's own chain has none either."""
    names = [f"h{number}" for number in range(1, hosts + 1)]
    way = DirectionPlan((Fixed(delay_ms=DELAY_MS),), RATE_BPS)
    links = tuple(
        LinkPlan(number, names[number], names[number + 1], way, way, ("local",))
        for number in range(hosts - 1)
    )
    return Plan("chain", tuple(HostPlan(name, "here", forwards=True) for name in names), links, ())


def qntn_way(hosts: int) -> tuple[float, float]:
    """This project's network."""
    plan = chain_plan(hosts)
    begin = time.perf_counter()
    with Network(plan):
        up = time.perf_counter()
    return up - begin, time.perf_counter() - up


def mininet_way(hosts: int, **link_options: Any) -> tuple[float, float]:
    """Mininet's own network of the same chain."""
    from mininet.link import Link, TCLink
    from mininet.net import Mininet
    from mininet.topo import Topo

    class Chain(Topo):  # type: ignore[misc]
        def build(self) -> None:
            names = [self.addHost(f"h{number}") for number in range(1, hosts + 1)]
            for a, b in pairwise(names):
                self.addLink(a, b, **link_options)

    begin = time.perf_counter()
    net = Mininet(topo=Chain(), controller=None, link=TCLink if link_options else Link)
    net.start()
    up = time.perf_counter()
    net.stop()
    return up - begin, time.perf_counter() - up


WAYS: dict[str, Way] = {
    "qntn": qntn_way,
    "mininet": mininet_way,
    "mininet-tc": lambda hosts: mininet_way(hosts, delay=f"{DELAY_MS:g}ms", bw=RATE_BPS / 1e6),
}


def measure(hosts: int, rounds: int) -> dict[str, Any]:
    """Median up and down times in seconds of each way, and the ratios of each peer to `qntn`, JSON-able."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for number in range(rounds):
        for name, way in WAYS.items():
            times[name].append(way(hosts))
            print(f"round {number + 1}: {name} up in {times[name][-1][0]:.3f} s", flush=True)
    medians = {
        name: {
            "up_s": statistics.median(up for up, _ in taken),
            "down_s": statistics.median(down for _, down in taken),
        }
        for name, taken in times.items()
    }
    ratios = {
        name: {key: value / medians["qntn"][key] for key, value in of.items()}
        for name, of in medians.items()
        if name != "qntn"
    }
    return {"hosts": hosts, "rounds": rounds, "medians": medians, "ratios_to_qntn": ratios}


def run_in_substrate(
    name: Literal["auto", "host", "uml"], hosts: int, rounds: int, reporter: Reporter
) -> dict[str, Any]:
    """`measure` in a substrate, on a real clock."""
    substrate, clock = choose(name, "real")
    reporter.stage(f"{hosts} hosts, {rounds} rounds, in {substrate.name}", rounds * len(WAYS))
    found: list[dict[str, Any]] = []
    done = 0

    def hear(line: str) -> None:
        nonlocal done
        if line.startswith("{"):
            found.append(json.loads(line))
        else:
            done += 1
            reporter.advance(done, line)

    with tempfile.TemporaryDirectory(prefix="qntn-bench-") as scratch:
        argv = (sys.executable, "-m", "experiments.bench.bringup", str(hosts), str(rounds))
        status = substrate.run(Job(argv=argv, folder=Path(scratch), clock=clock), hear)
        if status != 0 or not found:
            words = (Path(scratch) / "guest" / "stderr").read_text().strip().splitlines()
            raise MeasurementError(f"the benchmark failed: {words[-1] if words else status}")
    return found[0]


def main() -> int:
    hosts, rounds = (int(argument) for argument in sys.argv[1:3])
    print(json.dumps(measure(hosts, rounds)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
