"""The kernel's network emulator on one interface: complete attribute sets over netlink, read back and compared.

`netem_change` in the kernel merges: an attribute that a message leaves out keeps its old value, and `tc` never shows
some of them. So every message here carries every attribute, and after each one the kernel's own dump is compared
with what was asked. pyroute2's plugin for netem lacks the 64-bit attributes; this module brings a complete one.
Jitter, correlation and slots are not offered: the first reorders, the second does nothing at these time scales, the
third has no frame clock. A delay that varies belongs to a waiting line (`topo.links.waiting`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from topo.errors import NetworkError
from topo.links.rtnetlink import Batch

MTU_BYTES = 1500
NS_PER_S = 1_000_000_000
LIMIT_MIN_PACKETS = 1000
LIMIT_SAFETY = 1.5
"""Queue limit over bandwidth-delay product: 1.0 loses the packets that wait while the pipe is exactly full."""


@dataclass(frozen=True, kw_only=True)
class NetemSpec:
    """What netem does to packets that leave by one interface."""

    delay_ns: int
    """Constant delay of every packet, ns."""
    rate_bps: int
    """Line rate, bit/s: packets are serialised at it, one after another, in order. A multiple of 8."""
    loss: float = 0.0
    """Probability that a packet is lost, independent of the others."""

    @property
    def limit_packets(self) -> int:
        """Packets the queue holds: 1.5 × rate × delay in full-size packets, at least 1000."""
        product = self.rate_bps * self.delay_ns / NS_PER_S / (8 * MTU_BYTES)
        return max(LIMIT_MIN_PACKETS, math.ceil(LIMIT_SAFETY * product))

    def serialisation_ns(self, frame_bytes: int) -> int:
        """Time on the line of a frame of this length (Ethernet header included), ns, as the kernel rounds it."""
        return frame_bytes * NS_PER_S // (self.rate_bps // 8)

    def __str__(self) -> str:
        loss = f" loss {self.loss:.3%}" if self.loss else ""
        return (
            f"netem delay {self.delay_ns / 1e6:.3f} ms rate {self.rate_bps / 1e6:g} Mbit/s "
            f"limit {self.limit_packets}{loss}"
        )


def _attributes(spec: NetemSpec) -> dict[str, Any]:
    """The complete attribute set of `struct tc_netem_qopt` and its nested attributes (linux/pkt_sched.h)."""
    return {
        "delay": 0,  # in ticks of 64 ns; TCA_NETEM_LATENCY64 below takes its place
        "limit": spec.limit_packets,
        "loss": round(spec.loss * 0xFFFFFFFF),
        "gap": 0,
        "duplicate": 0,
        "jitter": 0,
        "attrs": [
            ("TCA_NETEM_CORR", {"delay_corr": 0, "loss_corr": 0, "dup_corr": 0}),
            ("TCA_NETEM_REORDER", {"prob_reorder": 0, "corr_reorder": 0}),
            ("TCA_NETEM_CORRUPT", {"prob_corrupt": 0, "corr_corrupt": 0}),
            (
                "TCA_NETEM_RATE",
                {
                    "rate": min(spec.rate_bps // 8, 0xFFFFFFFF),
                    "packet_overhead": 0,
                    "cell_size": 0,
                    "cell_overhead": 0,
                },
            ),
            ("TCA_NETEM_RATE64", spec.rate_bps // 8),
            ("TCA_NETEM_LATENCY64", spec.delay_ns),
            ("TCA_NETEM_JITTER64", 0),
            ("TCA_NETEM_ECN", 0),
        ],
    }


def _register_complete_plugin() -> None:
    """Give pyroute2 a netem plugin with all of the kernel's attributes."""
    from pyroute2.netlink import nla
    from pyroute2.netlink.rtnl import TC_H_ROOT
    from pyroute2.netlink.rtnl.tcmsg import plugins, sched_netem

    class CompleteNetemOptions(nla):  # type: ignore[misc]
        fields = sched_netem.options.fields
        nla_map = (
            ("TCA_NETEM_UNSPEC", "none"),
            ("TCA_NETEM_CORR", "netem_corr"),
            ("TCA_NETEM_DELAY_DIST", "hex"),
            ("TCA_NETEM_REORDER", "netem_reorder"),
            ("TCA_NETEM_CORRUPT", "netem_corrupt"),
            ("TCA_NETEM_LOSS", "hex"),
            ("TCA_NETEM_RATE", "netem_rate"),
            ("TCA_NETEM_ECN", "uint32"),
            ("TCA_NETEM_RATE64", "uint64"),
            ("TCA_NETEM_PAD", "hex"),
            ("TCA_NETEM_LATENCY64", "int64"),
            ("TCA_NETEM_JITTER64", "int64"),
            ("TCA_NETEM_SLOT", "hex"),
        )
        netem_corr = sched_netem.options.netem_corr
        netem_reorder = sched_netem.options.netem_reorder
        netem_corrupt = sched_netem.options.netem_corrupt
        netem_rate = sched_netem.options.netem_rate

    plugins["netem"] = SimpleNamespace(
        parent=TC_H_ROOT,
        options=CompleteNetemOptions,
        get_parameters=lambda arguments: _attributes(arguments["spec"]),
    )


def ask(batch: Batch, interface_index: int, spec: NetemSpec) -> None:
    """Ask for netem on an interface, in place of whatever is there; `compare` tells whether the kernel took it."""
    _register_complete_plugin()
    batch.ask("tc", "replace", "netem", index=interface_index, handle="1:", spec=spec)


def compare(qdiscs: Iterable[Any], wanted: Mapping[int, NetemSpec]) -> None:
    """Raise `NetworkError` unless the kernel's queues are the wanted ones, by interface index, to the last attribute.

    `qdiscs` is the kernel's own list, `topo.links.rtnetlink.qdiscs`.
    """
    found = read_back(qdiscs)
    for index, spec in wanted.items():
        if found.get(index) != spec:
            raise NetworkError(
                f"interface {index}: asked for {spec}, the kernel has {found.get(index)}"
            )


def read_back(qdiscs: Iterable[Any]) -> dict[int, NetemSpec]:
    """What netem the kernel says is on each interface, by interface index.

    Raises `NetworkError` where it holds an attribute that this project never sets (jitter, reordering, slots, ...).
    """
    return {
        qdisc["index"]: _spec_of(qdisc.get_attr("TCA_OPTIONS"))
        for qdisc in qdiscs
        if qdisc.get_attr("TCA_KIND") == "netem"
    }


def _spec_of(options: Any) -> NetemSpec:
    rate = options.get_attr("TCA_NETEM_RATE")
    spec = NetemSpec(
        delay_ns=options.get_attr("TCA_NETEM_LATENCY64"),
        rate_bps=(options.get_attr("TCA_NETEM_RATE64") or rate["rate"]) * 8,
        loss=options["loss"] / 0xFFFFFFFF,
    )
    foreign = {
        "gap": options["gap"],
        "duplicate": options["duplicate"],
        "jitter": options.get_attr("TCA_NETEM_JITTER64"),
        "slot": options.get_attr("TCA_NETEM_SLOT"),
        "limit": options["limit"] - spec.limit_packets,
        "correlation": _any(options.get_attr("TCA_NETEM_CORR")),
        "reordering": _any(options.get_attr("TCA_NETEM_REORDER")),
        "corruption": _any(options.get_attr("TCA_NETEM_CORRUPT")),
        "overhead": rate["packet_overhead"] or rate["cell_size"] or rate["cell_overhead"],
        "loss model": options.get_attr("TCA_NETEM_LOSS"),
        "marking": options.get_attr("TCA_NETEM_ECN"),
    }
    unasked = [name for name, value in foreign.items() if value]
    if unasked:
        raise NetworkError(f"netem holds what was never asked for: {', '.join(unasked)}")
    return NetemSpec(delay_ns=spec.delay_ns, rate_bps=spec.rate_bps, loss=round(spec.loss, 9))


def _any(fields: Any) -> bool:
    return any(fields[name] for name, _ in fields.fields)
