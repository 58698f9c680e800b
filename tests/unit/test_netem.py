"""Netem's queue sizes and attribute sets, against a fake kernel that speaks pyroute2's own encoding."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.tcmsg import plugins, tcmsg

from topo.errors import NetworkError
from topo.links.delays import Serialise
from topo.links.netem import LIMIT_MIN_PACKETS, NetemSpec, ask, compare, read_back
from topo.links.predictor import HopLine
from topo.links.rtnetlink import Batch

EVERY_ATTRIBUTE = {
    "TCA_NETEM_CORR",
    "TCA_NETEM_REORDER",
    "TCA_NETEM_CORRUPT",
    "TCA_NETEM_RATE",
    "TCA_NETEM_RATE64",
    "TCA_NETEM_LATENCY64",
    "TCA_NETEM_JITTER64",
    "TCA_NETEM_ECN",
}
"""Of linux/pkt_sched.h, without the loss models, distribution tables and slots that nothing here ever sets."""

Options = dict[str, Any]


class FakeKernel:
    """Keeps the last message as bytes and dumps it as sch_netem.c does; `tamper` is what else it does to it."""

    def __init__(self, tamper: Callable[[Options], None] = lambda options: None) -> None:
        self.tamper = tamper
        self.commands: list[tuple[str, str, dict[str, Any]]] = []
        self.sent: bytes | None = None

    def ask(self, what: str, command: str, kind: str, /, **arguments: Any) -> None:
        """What `Batch.ask` would send."""
        assert what == "tc"
        self.commands.append((command, kind, arguments))
        self.sent = encoded(arguments["index"], kind, plugins[kind].get_parameters(arguments))

    def qdiscs(self, index: int) -> Iterator[Any]:
        """What `rtnetlink.qdiscs` would read."""
        yield decoded(encoded(index + 1, "noqueue", None))
        if self.sent is not None:
            (message,) = [decoded(self.sent)]
            taken = plain(message.get_attr("TCA_OPTIONS"))
            rate = taken.pop("TCA_NETEM_RATE64")
            if rate >= 1 << 32:  # otherwise the kernel dumps the 32-bit attribute only
                taken["TCA_NETEM_RATE64"] = rate
            self.tamper(taken)
            yield decoded(encoded(message["index"], "netem", parameters(taken)))


def apply(kernel: FakeKernel, index: int, spec: NetemSpec) -> None:
    """As a network does it: ask, then compare."""
    ask(cast(Batch, kernel), index, spec)
    compare(kernel.qdiscs(index), {index: spec})


def encoded(index: int, kind: str, options: Any) -> bytes:
    message = tcmsg()
    message["index"] = index
    message["attrs"] = [("TCA_KIND", kind)]
    if options is not None:
        message["attrs"].append(("TCA_OPTIONS", options))
    message.encode()
    return bytes(message.data)


def decoded(data: bytes) -> Any:
    message = tcmsg(data)
    message.decode()
    return message


def plain(options: Any) -> Options:
    """Decoded options as one flat dictionary: fields and attributes."""
    found = {name: options[name] for name, _ in options.fields}
    for name, value in options["attrs"]:
        fields = getattr(value, "fields", None)
        found[name] = {n: value[n] for n, _ in fields} if fields else value
    return found


def parameters(options: Options) -> Options:
    attributes = [(k, v) for k, v in options.items() if k.startswith("TCA_")]
    return {k: v for k, v in options.items() if not k.startswith("TCA_")} | {"attrs": attributes}


def sent_by(spec: NetemSpec) -> Options:
    kernel = FakeKernel()
    apply(kernel, 7, spec)
    assert kernel.sent is not None
    return plain(decoded(kernel.sent).get_attr("TCA_OPTIONS"))


GEO = NetemSpec(delay_ns=122_958_199, rate_bps=20_000_000, loss=0.01)

specs = st.builds(
    NetemSpec,
    delay_ns=st.integers(0, 10**11),
    rate_bps=st.integers(1, 100_000_000_000 // 8).map(lambda octets: 8 * octets),
    loss=st.integers(0, 10**9).map(lambda parts: parts / 1e9),
)


# -- the queue -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate_bps", "delay_ms", "in_flight"), [(100_000_000, 267, 2_225), (1_000_000_000, 267, 22_250)]
)
def test_the_queue_holds_half_as_much_again_as_is_under_way(
    rate_bps: int, delay_ms: int, in_flight: int
) -> None:
    """Packets of 1500 octets under way on the paper's 267 ms: `limit` below that loses them."""
    spec = NetemSpec(delay_ns=delay_ms * 1_000_000, rate_bps=rate_bps)
    assert spec.limit_packets == -(-3 * in_flight // 2)


def test_the_queue_is_never_shorter_than_the_kernels_own() -> None:
    assert NetemSpec(delay_ns=0, rate_bps=8).limit_packets == LIMIT_MIN_PACKETS == 1000
    assert NetemSpec(delay_ns=122_958_199, rate_bps=20_000_000).limit_packets == 1000


@given(specs)
def test_a_full_pipe_fits(spec: NetemSpec) -> None:
    full_size_frame_ns = spec.serialisation_ns(1500)
    assert spec.limit_packets * max(full_size_frame_ns, 1) >= spec.delay_ns


def test_time_on_the_line() -> None:
    assert NetemSpec(delay_ns=0, rate_bps=5_000_000).serialisation_ns(98) == 156_800
    assert NetemSpec(delay_ns=0, rate_bps=1_000_000_000).serialisation_ns(1514) == 12_112
    # The kernel counts bytes a second and rounds down (packet_time_ns).
    assert NetemSpec(delay_ns=0, rate_bps=24).serialisation_ns(1) == 333_333_333


@given(specs, st.integers(60, 1514))
def test_the_predictors_line_is_as_slow_as_the_kernels(spec: NetemSpec, frame_bytes: int) -> None:
    line = HopLine([Serialise(rate_mbps=spec.rate_bps / 1e6)], seed=0, name="hop")
    kernel_ns = spec.serialisation_ns(frame_bytes)
    assert abs(line.out_ns(0, frame_bytes) - kernel_ns) <= 1 + kernel_ns * 1e-15


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (GEO, "netem delay 122.958 ms rate 20 Mbit/s limit 1000 loss 1.000%"),
        (
            NetemSpec(delay_ns=20_000_000, rate_bps=1_000_000_000),
            "netem delay 20.000 ms rate 1000 Mbit/s limit 2500",
        ),
        (
            NetemSpec(delay_ns=0, rate_bps=8_000),
            "netem delay 0.000 ms rate 0.008 Mbit/s limit 1000",
        ),
    ],
)
def test_printed(spec: NetemSpec, text: str) -> None:
    assert str(spec) == text


# -- the attributes --------------------------------------------------------------------------------


@given(specs)
def test_what_goes_to_the_kernel_comes_back(spec: NetemSpec) -> None:
    kernel = FakeKernel()
    apply(kernel, 7, spec)
    assert read_back(kernel.qdiscs(7))[7] == spec


@given(specs)
def test_every_attribute_is_in_every_message(spec: NetemSpec) -> None:
    """netem_change keeps what a message leaves out."""
    options = sent_by(spec)
    assert {name for name in options if name.startswith("TCA_")} == EVERY_ATTRIBUTE
    assert options["limit"] == spec.limit_packets
    assert options["TCA_NETEM_LATENCY64"] == spec.delay_ns
    assert options["TCA_NETEM_RATE64"] == spec.rate_bps // 8
    assert options["TCA_NETEM_RATE"]["rate"] == min(spec.rate_bps // 8, 0xFFFFFFFF)
    assert options["loss"] / 0xFFFFFFFF == pytest.approx(spec.loss, abs=2**-32)


def test_nothing_but_delay_rate_loss_and_limit_is_asked_for() -> None:
    options = sent_by(GEO)
    rest = {
        name: value
        for name, value in options.items()
        if name not in {"limit", "loss", "TCA_NETEM_LATENCY64", "TCA_NETEM_RATE64"}
    }
    rest["TCA_NETEM_RATE"]["rate"] = 0
    values = [v for x in rest.values() for v in (x.values() if isinstance(x, dict) else [x])]
    assert len(values) > len(rest)
    assert not any(values)


def test_the_message_is_the_kernels_structure() -> None:
    """struct tc_netem_qopt, then the 64-bit latency, by hand (linux/pkt_sched.h)."""
    kernel = FakeKernel()
    apply(kernel, 7, GEO)
    assert kernel.sent is not None
    qopt = struct.pack("<6I", 0, 1000, round(0.01 * 0xFFFFFFFF), 0, 0, 0)
    latency64 = struct.pack("<HHq", 12, 10, 122_958_199)
    rate = struct.pack("<HHIiIi", 20, 6, 2_500_000, 0, 0, 0)
    at = kernel.sent.index(qopt)
    assert latency64 in kernel.sent[at:]
    assert rate in kernel.sent[at:]
    assert struct.pack("<HH", 4 + len(kernel.sent[at:]), 2) == kernel.sent[at - 4 : at]


def test_the_queue_replaces_whatever_was_at_the_root() -> None:
    kernel = FakeKernel()
    apply(kernel, 7, GEO)
    ((command, kind, arguments),) = kernel.commands
    assert (command, kind) == ("replace", "netem")
    assert (arguments["index"], arguments["handle"]) == (7, "1:")
    assert plugins["netem"].parent == 0xFFFFFFFF


def test_no_netem_is_none() -> None:
    assert read_back(FakeKernel().qdiscs(7)) == {}


def test_netem_of_another_interface_is_not_this_ones() -> None:
    kernel = FakeKernel()
    apply(kernel, 8, GEO)
    assert read_back(kernel.qdiscs(7)) == {8: GEO}


def test_a_kernel_that_forgets_is_an_error() -> None:
    class Forgetful(FakeKernel):
        def qdiscs(self, index: int) -> Iterator[Any]:
            return iter(())

    with pytest.raises(NetworkError, match=r"asked for netem delay 122.958 ms .* has None"):
        apply(Forgetful(), 7, GEO)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("gap", 5, "gap"),
        ("duplicate", 1, "duplicate"),
        ("limit", 999, "limit"),
        ("TCA_NETEM_JITTER64", 10_000_000, "jitter"),
        ("TCA_NETEM_SLOT", "01:00:00:00", "slot"),
        ("TCA_NETEM_CORR", {"delay_corr": 25, "loss_corr": 0, "dup_corr": 0}, "correlation"),
        ("TCA_NETEM_REORDER", {"prob_reorder": 1, "corr_reorder": 0}, "reordering"),
        ("TCA_NETEM_CORRUPT", {"prob_corrupt": 1, "corr_corrupt": 0}, "corruption"),
        ("TCA_NETEM_LOSS", "08:00:01:00:00:00:00:00", "loss model"),
        ("TCA_NETEM_ECN", 1, "marking"),
        (
            "TCA_NETEM_RATE",
            {"rate": 2_500_000, "packet_overhead": 38, "cell_size": 0, "cell_overhead": 0},
            "overhead",
        ),
    ],
)
def test_what_was_never_asked_for_is_an_error(key: str, value: Any, named: str) -> None:
    kernel = FakeKernel(lambda options: options.update({key: value}))
    with pytest.raises(NetworkError, match=f"never asked for: {named}$"):
        apply(kernel, 7, GEO)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("TCA_NETEM_LATENCY64", 122_958_200),
        ("loss", 0),
        ("TCA_NETEM_RATE", {"rate": 1, "packet_overhead": 0, "cell_size": 0, "cell_overhead": 0}),
    ],
)
def test_a_kernel_that_takes_something_else_is_an_error(key: str, value: Any) -> None:
    kernel = FakeKernel(lambda options: options.update({key: value}))
    with pytest.raises(NetworkError, match=r"interface 7: asked for netem delay 122.958 ms"):
        apply(kernel, 7, GEO)
