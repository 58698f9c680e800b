"""One arm of an experiment, inside the substrate: the network up, probes through it, the network down."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from experiments.folder import RunFolder
from experiments.goodput import measure_goodput
from experiments.ping import ping_command
from experiments.points import capture_points
from experiments.services import Service, start_module, start_program
from topo.errors import MeasurementError
from topo.network import Network
from topo.plan import LinkPlan, Plan, interface_name
from topo.planner import KEY_SITES, build_plan
from topo.scenario import Scenario

LEAD_S = 8
"""From the network's readiness to the arm's epoch, whole seconds: time to start everything and to agree on keys over
330 ms one way. The first probe leaves at the epoch, so that arms of one session meet the same waits."""
START_TIMEOUT_S = 60.0
STOCK_PINGS = 5
CAPTURE_FLUSH_S = 1.0
"""From the last probe to the end of a capture: the kernel hands packets to dumpcap in blocks, four a second."""
KMS_PORT = 8443
NS_PER_S = 1_000_000_000

Emit = Callable[..., None]
"""Called with an event's name and its fields; what it says reaches the person outside."""


@dataclass(frozen=True)
class ArmOptions:
    """What of an arm is to be done."""

    captures: bool = True
    goodput: bool = True
    stock_ping: bool = False
    """Probe with iputils' ping too, a second opinion on the prober."""


class ArmRun:
    """The run of one arm. `run` leaves samples, captures, logs and counters in the run folder."""

    def __init__(
        self, scenario: Scenario, name: str, folder: RunFolder, options: ArmOptions, emit: Emit
    ) -> None:
        self.scenario, self.name, self.folder = scenario, name, folder
        self.arm = scenario.arms[name]
        self.plan: Plan = build_plan(scenario, name)
        self._options, self._emit = options, emit
        self._logs = folder.arm(name)
        self._logs.mkdir(parents=True, exist_ok=True)
        self._answered = 0

    def run(self) -> None:
        """Probe the network, measure its goodput; leave samples, captures, logs and counters."""
        with self.up() as (network, epoch_ns):
            with ExitStack() as captures:
                if self._options.captures:
                    points = capture_points(self.scenario, self.plan, self.arm)
                    for point, interface in points.items():
                        captures.callback(self._start_capture(network, point, interface).finish)
                self._probe(network, epoch_ns)
                time.sleep(CAPTURE_FLUSH_S)
            for capture in self.folder.captures.glob(f"{self.name}-*"):
                capture.chmod(0o644)
            if self._options.stock_ping:
                self._ping(network)
            goodput = self.scenario.iperf if self._options.goodput else None
            if goodput is not None and not self._answered:
                self._emit("note", text="no goodput measured: no probe came back")
            elif goodput is not None:
                ends = (self.arm.source, self.arm.destination)
                measured = measure_goodput(network, ends, goodput, self._logs)
                found = json.dumps([m.model_dump() for m in measured], indent=1)
                (self._logs / "goodput.json").write_text(found)

    @contextmanager
    def up(self) -> Iterator[tuple[Network, int]]:
        """The network with its waits and, if the arm has one, its tunnel, running; and the arm's epoch, Unix ns."""
        with Network(self.plan) as network, ExitStack() as services:
            # On a whole second, so that the same run on a virtual clock has the same times throughout.
            epoch_ns = (time.time_ns() // NS_PER_S + LEAD_S) * NS_PER_S
            for link in self.plan.links:
                if link.middle:
                    services.callback(self._start_waiter(network, link, epoch_ns).finish)
            if self.arm.tunnel:
                for kms in KEY_SITES:
                    services.callback(self._start_kms(network, kms).finish)
                self._start_gateways(network, services)
            yield network, epoch_ns

    # -- what runs in the network -------------------------------------------------------------------

    def _service(self, network: Network, host: str, module: str, config: dict[str, Any]) -> Service:
        """Start one of this project's own processes with its configuration file."""
        label = f"{module.rsplit('.', 1)[-1]}-{host}"
        path = self._logs / f"{label}.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(config, indent=1))
        return start_module(network, host, module, path, self._logs / f"{label}.log")

    def _start_waiter(self, network: Network, link: LinkPlan, epoch_ns: int) -> Service:
        assert link.waiter is not None
        config = {
            "name": wait_stream(self.arm.session, link),
            "a": interface_name(link.waiter, link.a),
            "b": interface_name(link.waiter, link.b),
            "a_to_b": [element.model_dump() for element in link.up.waits],
            "b_to_a": [element.model_dump() for element in link.down.waits],
            "seed": self.scenario.seed,
            "epoch_ns": epoch_ns,
            "limit_packets": max(link.up.netem.limit_packets, link.down.netem.limit_packets),
            "status": str(self._logs / f"waiter-{link.waiter}.status.json"),
        }
        waiter = self._service(network, link.waiter, "topo.links.waiter", config)
        waiter.wait_for("READY", START_TIMEOUT_S)
        return waiter

    def _start_kms(self, network: Network, kms: str) -> Service:
        gateway = KEY_SITES[kms]
        peer_kms, peer_gateway = next(item for item in KEY_SITES.items() if item[0] != kms)
        pki = self.folder.private / kms
        config = {
            "kme_id": kms,
            "peer_kme_id": peer_kms,
            "site": kms[-1],
            "listen_host": self.plan.link(kms, gateway).address(kms),
            "listen_port": KMS_PORT,
            "ca_path": str(pki / "ca.pem"),
            "certificate_path": str(pki / "server.pem"),
            "key_path": str(pki / "server.key"),
            "ledger_path": str(self.folder.ledger(kms)),
            "sae_pairs": [{"local": gateway, "remote": peer_gateway}],
            "default_key_size_bits": self.scenario.keys.key_size_bits,
            "max_key_size_bits": max(1024, self.scenario.keys.key_size_bits),
        }
        server = self._service(network, kms, "kms.server", config)
        server.wait_for("READY", START_TIMEOUT_S)
        return server

    def _start_gateways(self, network: Network, services: ExitStack) -> None:
        running = []
        for kms, gateway in reversed(KEY_SITES.items()):  # the responder listens first
            config = self._gateway_config(kms, gateway)
            running.append(self._service(network, gateway, "gateways.gateway", config))
            services.callback(running[-1].finish)
            running[-1].wait_for("LISTENING", START_TIMEOUT_S)
        for service in running:
            service.wait_for("READY", START_TIMEOUT_S)
        self._emit("note", text="tunnel up: both gateways hold keys from their own KMS")

    def _gateway_config(self, kms: str, gateway: str) -> dict[str, Any]:
        settings = self.scenario.gateways
        peer = next(other for other in KEY_SITES.values() if other != gateway)
        user_side = gateway == "EG-U"
        own_link, peer_link = self._outer_link(gateway), self._outer_link(peer)
        before, behind = self._protected(gateway), self._protected(peer)
        pki = self.folder.private / kms
        return {
            "name": gateway,
            "role": "initiator" if user_side else "responder",
            "outer_local": own_link.address(gateway),
            "outer_peer": peer_link.address(peer),
            "tun_address": "10.2.0.1/30" if user_side else "10.2.0.2/30",
            "local": before,
            "remote": behind,
            "psk": (self.folder.private / "gateways.psk").read_text().strip(),
            "own_sae": gateway,
            "peer_sae": peer,
            "kms": {
                "base_url": f"https://{self.plan.link(kms, gateway).address(kms)}:{KMS_PORT}",
                "ca": str(pki / "ca.pem"),
                "cert": str(pki / f"sae-{gateway}.pem"),
                "key": str(pki / f"sae-{gateway}.key"),
                "kme_id": kms,
                "key_bits": self.scenario.keys.key_size_bits,
            },
            "keying": "direct" if settings.fault else settings.keying,
            "suites": [settings.suite],
            "pfs": settings.policy == "hybrid",
            "fast": "off",  # on an emulated link one packet is one packet
            "rekey_after_s": settings.rekey_after_s,
            "rekey_jitter": 0.0,  # the scenario says when, and the same seed means the same run
            "hard_after_s": 2 * settings.rekey_after_s + settings.grace_s,
            "grace_s": settings.grace_s,
            "retransmit_s": settings.retransmit_s,
            "policy": settings.policy,
            # One end knows the keys of both directions; both writing would list each twice.
            "esp_sa": str(self.folder.esp_sa) if user_side else None,
            "status": str(self._logs / f"gateway-{gateway}.status.json"),
            "fault": settings.fault if not user_side else None,
        }

    def _outer_link(self, gateway: str) -> LinkPlan:
        """The link by which a gateway's sealed packets leave."""
        order = [host.name for host in self.plan.hosts]
        peer = next(other for other in KEY_SITES.values() if other != gateway)
        step = 1 if order.index(peer) > order.index(gateway) else -1
        return self.plan.link(gateway, order[order.index(gateway) + step])

    def _protected(self, gateway: str) -> list[str]:
        """The subnets on a gateway's own side, which the tunnel protects."""
        order = [host.name for host in self.plan.hosts]
        at = order.index(gateway)
        outwards = order.index(next(o for o in KEY_SITES.values() if o != gateway)) > at
        inner = {name for name in order if (order.index(name) <= at) == outwards or name == gateway}
        return [
            link.subnet
            for link in self.plan.links
            if {link.a, link.b} <= inner and "keys" not in link.kinds
        ]

    def _start_capture(self, network: Network, point: str, interface: str) -> Service:
        """Capture both ways on an interface; dumpcap writes pcapng with nanoseconds."""
        host = next(h.name for h in self.plan.hosts if interface in self._interfaces(h.name))
        out = self.folder.capture(self.name, point)
        # dumpcap gives up all rights but capturing before it opens its file, which in a guest may belong to somebody
        # else than root: to whoever started the guest.
        out.touch()
        out.chmod(0o666)
        argv = ["dumpcap", "-q", "-p", "-i", interface, "-w", str(out)]
        log = self._logs / f"dumpcap-{point}.log"
        capture = start_program(network, host, argv, log, merge=True)
        capture.wait_for("File:", START_TIMEOUT_S)
        return capture

    def _interfaces(self, host: str) -> list[str]:
        return [link.interface(host) for link in self.plan.links_of(host)]

    def _probe(self, network: Network, epoch_ns: int) -> None:
        probe, arm = self.scenario.probe, self.arm
        interval_ms = arm.interval_ms or probe.interval_ms
        config = {
            "arm": self.name,
            "source": self.plan.address(arm.source),
            "destination": self.plan.address(arm.destination),
            "count": probe.count,
            "interval_ms": interval_ms,
            "jitter_ms": probe.jitter_ms,
            "seed": self.scenario.seed,
            "first_probe_ns": epoch_ns,
            "payload_bytes": probe.payload_bytes,
            "timeout_ms": probe.timeout_ms,
            "out": str(self._logs / "samples.csv"),
        }
        duration_s = (probe.count * interval_ms + probe.timeout_ms) / 1e3 + 2 * LEAD_S
        prober = self._service(network, arm.source, "experiments.prober", config)
        status = prober.lines_until_exit(duration_s + START_TIMEOUT_S, self._tell_probe)
        if status != 0:
            raise MeasurementError(f"{prober.name}: {prober.last_words()}")

    def _ping(self, network: Network) -> None:
        """Leave what the stock ping prints in `ping.txt`."""
        destination = IPv4Address(self.plan.address(self.arm.destination))
        command = ping_command(destination, count=STOCK_PINGS)
        with (self._logs / "ping.txt").open("w") as output:
            log = self._logs / "ping.log"
            ping = start_program(network, self.arm.source, command, log)
            ping.lines_until_exit(
                STOCK_PINGS + START_TIMEOUT_S, lambda line: print(line, file=output)
            )

    def _tell_probe(self, line: str) -> None:
        match line.split():
            case ["PROBE", seq, rtt]:
                self._answered += rtt != "lost"
                self._emit("probe", arm=self.name, seq=int(seq), rtt=rtt)


def wait_stream(session: str | None, link: LinkPlan) -> str:
    """The name that picks the random stream of a link's waits: two arms of one session share its luck."""
    return f"{session or 'no session'} {link.a}-{link.b}"
