"""A gateway's counters over HTTP on this machine: `/metrics` for Prometheus, `/status` as JSON.

Only where the configuration names a port, and only on 127.0.0.1. No key material is among it; SPIs and key_IDs are.
The gateway's own thread makes the status, between packets: a thread that answers asks for it, wakes the gateway, and
waits. An answer is good for a fifth of a second and connections are taken at a measured pace, so that no number of
readers keeps packets waiting.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Final

from gateways.esp import Refusal
from topo.errors import InputError

if TYPE_CHECKING:  # imported where it is used: a gateway without a port does without the library
    from prometheus_client.core import Metric

Status = Mapping[str, Any]
"""`Tunnel.status()` with the gateway's `name`, as a status file has it."""

HOST: Final = "127.0.0.1"
PATIENCE_S: Final = 2.0
"""How long an answer waits for the gateway's own thread."""
FRESH_S: Final = 0.2
"""How long an answer is given again."""
PAUSE_S: Final = 0.01
"""Between two connections: the thread that carries packets shares the interpreter with those that answer."""
_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
_REFUSALS: Final = tuple(reason for reason in Refusal if reason is not Refusal.UNKNOWN_SPI)


def exposition(status: Status) -> bytes:
    """All counters of a gateway's status in the Prometheus text format 0.0.4."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.registry import Collector

    class AtScrape(Collector):
        def collect(self) -> Iterator[Metric]:
            yield from _of_gateway(status)
            yield from _of_sas(status)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(AtScrape())
    return bytes(generate_latest(registry))


def _of_gateway(status: Status) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    name = status["name"]
    usable = GaugeMetricFamily(
        "qntn_gateway_usable", "Whether there is an SA to send on.", labels=["gateway"]
    )
    usable.add_metric([name], float(status["usable"]))
    yield usable
    for metric, text, number in (
        ("rekeys", "Pairs of SAs replaced.", status["rekeys"]),
        ("held", "Times an SA was kept beyond its hard lifetime.", status["held"]),
        ("control_retransmissions", "Control messages sent again.", status["retransmissions"]),
    ):
        counter = CounterMetricFamily(f"qntn_gateway_{metric}", text, labels=["gateway"])
        counter.add_metric([name], number)
        yield counter
    for metric, text, label, numbers in (
        ("drops", "Packets dropped before any SA saw them.", "reason", status["drops"]),
        ("policy_uses", "Uses of a key exhaustion policy.", "policy", status["policies_used"]),
        ("errors", "Errors of the outer socket and the TUN device.", "error", status["errors"]),
        ("constant_rate", "Of the AGGFRAG payloads.", "what", status.get("constant_rate", {})),
    ):
        counter = CounterMetricFamily(f"qntn_gateway_{metric}", text, labels=["gateway", label])
        for value, number in numbers.items():
            counter.add_metric([name, value], number)
        yield counter


def _of_sas(status: Status) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    labels = ["gateway", "direction", "spi"]
    packets = CounterMetricFamily("qntn_gateway_sa_packets", "Packets that passed.", labels=labels)
    octets = CounterMetricFamily("qntn_gateway_sa_bytes", "Their inner octets.", labels=labels)
    refused = CounterMetricFamily(
        "qntn_gateway_sa_refused", "Packets refused on an SA.", labels=[*labels, "reason"]
    )
    for sa in status["sas"]:
        of = [status["name"], sa["direction"], sa["spi"]]
        packets.add_metric(of, sa["packets"])
        octets.add_metric(of, sa["bytes"])
        for reason in _REFUSALS:
            refused.add_metric([*of, reason.value], sa[reason.value])
    yield from (packets, octets, refused)


_FORMS: Final[Mapping[str, tuple[str, Callable[[Status], bytes]]]] = {
    "/metrics": (_TEXT, exposition),
    "/status": ("application/json", lambda status: json.dumps(status).encode() + b"\n"),
}
"""Path -> content type, and what writes it."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def process_request(self, request: Any, client_address: Any) -> None:
        super().process_request(request, client_address)
        time.sleep(PAUSE_S)


class StatusServer:
    """Answers on 127.0.0.1 in threads of its own, with what the gateway's thread says when asked.

    `wake` is called whenever somebody asks; the gateway then calls `answer`. Port 0 takes any that is free. Raises
    `InputError` if the port cannot be had.
    """

    def __init__(self, port: int, wake: Callable[[], None]) -> None:
        self._asked: SimpleQueue[SimpleQueue[Status]] = SimpleQueue()
        self._wake = wake
        self._turn = Lock()
        self._answers: dict[str, tuple[float, tuple[int, str, bytes]]] = {}
        server = self

        class Handler(BaseHTTPRequestHandler):
            timeout = PATIENCE_S

            def do_GET(self) -> None:
                code, kind, body = server._response(self.path)
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: the log is the gateway's."""

        try:
            self._http = _Server((HOST, port), Handler)
        except OSError as error:
            raise InputError(
                f"metrics_port: {HOST}:{port}: {error.strerror}; choose another, or null"
            ) from None
        self._thread = Thread(target=self._http.serve_forever, name="status", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._http.server_port

    def answer(self, status: Callable[[], Status]) -> None:
        """Give the status to those who asked for it; from the gateway's own thread."""
        while not self._asked.empty():
            self._asked.get().put(status())

    def close(self) -> None:
        """Stop answering."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _response(self, path: str) -> tuple[int, str, bytes]:
        form = _FORMS.get(path)
        if form is None:
            return 404, _TEXT, f"there is {' and '.join(_FORMS)}\n".encode()
        with self._turn:
            made_s, answer = self._answers.get(path, (-math.inf, (0, "", b"")))
            if time.monotonic() - made_s >= FRESH_S:
                answer = self._ask(*form)
                self._answers[path] = time.monotonic(), answer
            return answer

    def _ask(self, kind: str, write: Callable[[Status], bytes]) -> tuple[int, str, bytes]:
        mine: SimpleQueue[Status] = SimpleQueue()
        self._asked.put(mine)
        self._wake()
        try:
            return 200, kind, write(mine.get(timeout=PATIENCE_S))
        except Empty:
            return 503, _TEXT, b"the gateway does not answer\n"
