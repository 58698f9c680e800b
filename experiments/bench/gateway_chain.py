"""The network of the gateway benchmark: client, two gateways, server, in namespaces of their own.

::

    client 10.81.1.2 ── 10.81.1.1 gateway A 192.0.2.1 ── 192.0.2.2 gateway B 10.81.2.1 ── 10.81.2.2 server

Each contender has a chain of its own, so that they can take turns without being started again. What is started in a
chain ends with it, by its process id; the kernel takes interfaces, routes and rules away with the namespaces.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from topo.errors import MeasurementError
from topo.links.rtnetlink import Batch
from topo.namespaces import Namespace

CLIENT, SERVER = "10.81.1.2", "10.81.2.2"
INSIDE: Final = {"a": "10.81.1.0/24", "b": "10.81.2.0/24"}
OUTSIDE: Final = {"a": "192.0.2.1", "b": "192.0.2.2"}
GATEWAYS: Final = ("a", "b")
_ADDRESSES: Final = {
    ("client", "c0"): "10.81.1.2",
    ("a", "c1"): "10.81.1.1",
    ("a", "o0"): "192.0.2.1",
    ("b", "o1"): "192.0.2.2",
    ("b", "s1"): "10.81.2.1",
    ("server", "s0"): "10.81.2.2",
}
_LINKS: Final = (
    (("client", "c0"), ("a", "c1")),
    (("a", "o0"), ("b", "o1")),
    (("b", "s1"), ("server", "s0")),
)
_ROUTES: Final = (
    ("client", "10.81.1.1"),
    ("server", "10.81.2.1"),
    ("a", "192.0.2.2"),
    ("b", "192.0.2.1"),
)
PATIENCE_S = 20.0
_END_S = 5.0
_RETRY_S = 0.1


class Chain:
    """The four namespaces, linked and routed; without a tunnel, A and B forward in clear. A context manager."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.hosts: dict[str, Namespace] = {}
        self.gateways: list[subprocess.Popen[bytes]] = []
        """The processes whose CPU time is the gateways'."""
        self.programs: list[subprocess.Popen[bytes]] = []
        """All that `start` started."""

    def __enter__(self) -> Chain:
        try:
            for name in ("client", "a", "b", "server"):
                self.hosts[name] = self._stack.enter_context(Namespace(name))
            self._wire()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def start(
        self, host: str, argv: Sequence[str], log: Path, environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program in a host; what it says goes to `log`. It ends with the chain."""

        def popen() -> subprocess.Popen[bytes]:
            with log.open("wb") as out:
                return subprocess.Popen(
                    list(argv),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env=os.environ | (environment or {}),
                )

        process = self.hosts[host].run(popen)
        self.programs.append(process)
        self._stack.callback(end, process)
        return process

    def run(
        self,
        host: str,
        argv: Sequence[str],
        timeout_s: float,
        environment: dict[str, str] | None = None,
        *,
        failing: bool = False,
    ) -> str:
        """Run a program in a host to its end; its standard output.

        Raises `MeasurementError` if it does not end in time or, unless that is no surprise (`failing`), fails.
        """

        def call() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                list(argv),
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
                env=os.environ | (environment or {}),
            )

        try:
            done = self.hosts[host].run(call)
        except subprocess.TimeoutExpired:
            raise MeasurementError(f"{argv[0]}: no end after {timeout_s:g} s") from None
        if done.returncode and not failing:
            words = (done.stderr or done.stdout).strip().splitlines()
            raise MeasurementError(f"{argv[0]}: {words[-1] if words else done.returncode}")
        return done.stdout

    def serve(self, log: Path) -> None:
        """Start iperf3's server and wait for it to listen."""
        self.start("server", ["iperf3", "-s", "--forceflush"], log)
        until(lambda: "listening" in log.read_text(), "iperf3 to listen")

    def iperf3(self, *options: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """iperf3's report of one transfer from client to server. Raises `MeasurementError` with what it says."""
        argv = ["iperf3", "-c", SERVER, "-J", *options]
        end_s = time.monotonic() + PATIENCE_S
        while True:
            report: dict[str, Any] = json.loads(self.run("client", argv, timeout_s, failing=True))
            error = report.get("error", "")
            if not error:
                return report
            if "busy" not in error or time.monotonic() > end_s:  # with the end of the last transfer
                raise MeasurementError(f"iperf3: {error}")
            time.sleep(_RETRY_S)

    def segmented(self, on: bool) -> None:
        """Let every wire carry single packets, as real ones do (segmentation offloads off, receive offload on)."""
        cut, merge = ("off", "on") if on else ("on", "off")
        features = ["tso", cut, "gso", cut, "tx-udp-segmentation", cut, "gro", merge]
        for host, interface in _ADDRESSES:
            self.run(host, ["ethtool", "-K", interface, *features], PATIENCE_S)

    def _wire(self) -> None:
        with Batch() as batch:
            for (host, interface), (other, peer) in _LINKS:
                batch.ask(
                    "link",
                    "add",
                    kind="veth",
                    ifname=interface,
                    net_ns_fd=self.hosts[host].fileno(),
                    peer={"ifname": peer, "net_ns_fd": self.hosts[other].fileno()},
                )
            batch.send()
        for host, namespace in self.hosts.items():
            namespace.sysctl("net/ipv4/ip_forward", "1")
            namespace.with_netlink(partial(_address, host=host))


def _address(netlink: Any, host: str) -> None:
    """Give a host its addresses and its route to the other side."""
    for (where, interface), address in _ADDRESSES.items():
        if where == host:
            (index,) = netlink.link_lookup(ifname=interface)
            netlink.addr("add", index=index, address=address, prefixlen=24)
            netlink.link("set", index=index, state="up")
    (loopback,) = netlink.link_lookup(ifname="lo")
    netlink.link("set", index=loopback, state="up")
    for where, router in _ROUTES:
        if where == host:
            netlink.route("add", dst="10.81.0.0/16", gateway=router)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a program with SIGTERM, or SIGKILL where it does not listen."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition. Raises `MeasurementError` after `PATIENCE_S`."""
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end_s:
            raise MeasurementError(f"waited {PATIENCE_S:g} s for {what}")
        time.sleep(0.02)


def missing(*programs: str) -> list[str]:
    """Which of these programs the machine lacks."""
    paths = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [program for program in programs if shutil.which(program, path=paths) is None]
