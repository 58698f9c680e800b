"""A gateway's counters over HTTP, read back by Prometheus' own parser."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateways import metrics
from gateways.esp import SaCounters
from gateways.metrics import StatusServer, exposition
from topo.errors import InputError

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

STATUS: dict[str, Any] = {
    "name": "EG-U",
    "usable": True,
    "rekeys": 3,
    "held": 1,
    "policies_used": {"hold": 2},
    "key_ids": ["a", "b"],
    "retransmissions": 4,
    "drops": {"outside_selectors": 7},
    "errors": {"send_ECONNREFUSED": 5},
    "sas": [
        {
            "direction": "in",
            "spi": "0x00001001",
            "key_id": "a",
            "state": "retired",
            **asdict(
                SaCounters(packets=10, bytes=840, replays=6, icv_failures=8, selector_drops=9)
            ),
        },
        {
            "direction": "out",
            "spi": "0xfedcba98",
            "key_id": "b",
            "state": "installed",
            **asdict(SaCounters(packets=11, bytes=924)),
        },
    ],
}


def read(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"qntn_gateway_{name}", frozenset({"gateway": "EG-U", **labels}.items())


def test_every_counter_is_there() -> None:
    samples = read(exposition(STATUS).decode())
    one = {"direction": "in", "spi": "0x00001001"}
    assert samples[of("usable")] == 1
    assert samples[of("rekeys_total")] == 3
    assert samples[of("held_total")] == 1
    assert samples[of("control_retransmissions_total")] == 4
    assert samples[of("drops_total", reason="outside_selectors")] == 7
    assert samples[of("policy_uses_total", policy="hold")] == 2
    assert samples[of("errors_total", error="send_ECONNREFUSED")] == 5
    assert samples[of("sa_packets_total", **one)] == 10
    assert samples[of("sa_bytes_total", **one)] == 840
    for reason, number in (("replays", 6), ("icv_failures", 8), ("selector_drops", 9)):
        assert samples[of("sa_refused_total", **one, reason=reason)] == number
    assert samples[of("sa_packets_total", direction="out", spi="0xfedcba98")] == 11


class Asked:
    """A gateway's thread that answers, as the packet loop does when it is woken."""

    def __init__(self) -> None:
        self.server = StatusServer(0, self.wake)
        self.times = 0

    def wake(self) -> None:
        self.times += 1
        Thread(target=self.server.answer, args=(lambda: STATUS,)).start()


@pytest.fixture
def asked() -> Iterator[Asked]:
    gateway = Asked()
    yield gateway
    gateway.server.close()


def test_status_and_metrics_over_http(asked: Asked) -> None:
    where = f"http://127.0.0.1:{asked.server.port}"
    with urlopen(f"{where}/status") as answer:
        assert answer.headers["Content-Type"] == "application/json"
        assert json.load(answer) == STATUS
    with urlopen(f"{where}/metrics") as answer:
        assert "version=0.0.4" in answer.headers["Content-Type"]
        assert read(answer.read().decode()) == read(exposition(STATUS).decode())
    assert asked.times == 2


def test_many_readers_ask_the_gateway_once(asked: Asked) -> None:
    where = f"http://127.0.0.1:{asked.server.port}/status"
    before = time.monotonic()
    for _ in range(5):
        with urlopen(where) as answer:
            assert json.load(answer) == STATUS
    assert asked.times <= 1 + (time.monotonic() - before) / metrics.FRESH_S


def test_an_answer_is_made_again_when_it_is_old(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "FRESH_S", 0)
    for times in (1, 2):
        with urlopen(f"http://127.0.0.1:{asked.server.port}/status"):
            assert asked.times == times


def test_no_other_page(asked: Asked) -> None:
    with pytest.raises(HTTPError) as refused:
        urlopen(f"http://127.0.0.1:{asked.server.port}/")
    assert refused.value.code == 404
    assert refused.value.read() == b"there is /metrics and /status\n"
    assert asked.times == 0


def test_a_gateway_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "PATIENCE_S", 0.01)
    server = StatusServer(0, lambda: None)
    with pytest.raises(HTTPError) as refused:
        urlopen(f"http://127.0.0.1:{server.port}/status")
    assert refused.value.code == 503
    server.close()


def test_a_port_that_is_taken(asked: Asked) -> None:
    with pytest.raises(InputError, match=f"127.0.0.1:{asked.server.port}: Address already in use"):
        StatusServer(asked.server.port, lambda: None)
