"""What Prometheus is told of a KME: pools, rates, forecast, requests, connections, alarms.

`Tally` counts while the KME works; `exposition` writes the text format at a scrape. No key material
and no key_ID is among it; the names of SAEs are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from kms.commit import CommitCounters
from kms.kme import Kme
from kms.listener import Counters, Listener

if TYPE_CHECKING:  # imported where it is used: a KME without /metrics does without the library
    from prometheus_client.core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LATENCY_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, float("inf"))


@dataclass
class Tally:
    """What one KME has answered since it started."""

    answers: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    """By (method of the API, SAE, code)."""
    keys: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Keys delivered, by (method of the API, SAE)."""
    latencies: Counter[float] = field(default_factory=Counter)
    """Answers by the upper bound of their time, seconds (`_LATENCY_S`)."""
    latency_sum_s: float = 0.0
    refused_certificates: int = 0

    def count(self, method: str, sae_id: str, code: int, keys: int, latency_s: float) -> None:
        self.answers[method, sae_id, code] += 1
        if keys:
            self.keys[method, sae_id] += keys
        self.latencies[next(bound for bound in _LATENCY_S if latency_s <= bound)] += 1
        self.latency_sum_s += latency_s


def exposition(
    kme: Kme, tally: Tally, listener: Listener, commits: CommitCounters, now: datetime
) -> bytes:
    """All metrics of a KME in the Prometheus text format 0.0.4."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.registry import Collector

    class AtScrape(Collector):
        def collect(self) -> Iterator[Metric]:
            yield from _of_pools(kme, now)
            yield from _of_requests(tally, listener.counters, listener.open_connections, commits)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(AtScrape())
    return bytes(generate_latest(registry))


def _of_pools(kme: Kme, now: datetime) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    pool = GaugeMetricFamily(
        "qntn_kms_pool_bits",
        "Key in store, by whose masters draw from it and what has become of it.",
        labels=["direction", "state"],
    )
    for direction in ("own", "peer"):
        level = kme.ledger.level(direction)
        for state, size_bytes in (
            ("free", level.free_bytes),
            ("reserved", level.reserved_bytes),
            ("delivered", level.delivered_bytes),
            ("destroyed", level.destroyed_bytes),
        ):
            pool.add_metric([direction, state], 8 * size_bytes)
    yield pool
    outlook = kme.forecast(now)
    for name, text, value in (
        ("rate_bits_per_second", "Key taken by this site's masters.", outlook.rate_bits_per_s),
        ("exhausted_seconds", "Until this site's half is empty.", outlook.exhausted_in_s),
        ("low_water_bits", "Mark of the alarm.", kme.configuration.low_water_bits),
    ):
        yield GaugeMetricFamily(f"qntn_kms_{name}", text, value=value)
    alarms = CounterMetricFamily("qntn_kms_alarms", "Alarms by kind.", labels=["kind"])
    for kind, number in kme.alarms.counts.items():
        alarms.add_metric([kind.value], number)
    yield alarms


def _of_requests(
    tally: Tally, connections: Counters, open_connections: int, commits: CommitCounters
) -> Iterator[Metric]:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    answers = CounterMetricFamily(
        "qntn_kms_answers", "Answers of the API.", labels=["method", "sae", "code"]
    )
    for (method, sae_id, code), number in tally.answers.items():
        answers.add_metric([method, sae_id, str(code)], number)
    yield answers
    keys = CounterMetricFamily(
        "qntn_kms_keys_delivered", "Keys delivered.", labels=["method", "sae"]
    )
    for (method, sae_id), number in tally.keys.items():
        keys.add_metric([method, sae_id], number)
    yield keys

    buckets, total = [], 0
    for bound in _LATENCY_S:
        total += tally.latencies[bound]
        buckets.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
    yield HistogramMetricFamily(
        "qntn_kms_answer_seconds",
        "From a request's head to its answer.",
        buckets=buckets,
        sum_value=tally.latency_sum_s,
    )
    for name, text, number in (
        ("certificates_refused", "Requests under a bad certificate.", tally.refused_certificates),
        ("connections", "Connections accepted.", connections.accepted),
        ("handshakes_failed", "Without TLS in the end.", connections.handshakes_failed),
        ("connections_pushed_out", "Closed for others.", connections.pushed_out),
        ("commits", "Durable transactions.", commits.groups),
        ("committed_requests", "Requests in them.", commits.calls),
    ):
        yield CounterMetricFamily(f"qntn_kms_{name}", text, value=number)
    yield GaugeMetricFamily("qntn_kms_open_connections", "Open now.", value=open_connections)
