"""The prober's protocol without socket or clock; scapy builds and reads the packets."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scapy.layers.inet import ICMP, IP, UDP, IPOption_NOP
from scapy.packet import Packet

from experiments.echo import (
    ProbeConfig,
    ProbeTrain,
    build_echo_request,
    checksum,
    parse_echo_reply,
    schedule,
)
from topo.errors import ProtocolError
from topo.links.predictor import ProbeSchedule

FIRST_NS = 1_800_000_000_000_000_000
MS = 1_000_000
UE, DN = "10.45.0.2", "10.60.0.2"


def config(**changes: Any) -> ProbeConfig:
    values: dict[str, Any] = {
        "arm": "plain",
        "destination": DN,
        "count": 3,
        "interval_ms": 1000.0,
        "timeout_ms": 1500.0,
        "out": "samples.csv",
    }
    return ProbeConfig.model_validate(values | changes)


def reply_to(request: bytes, source: str = DN) -> bytes:
    """What scapy, as the other host, answers to an ICMP echo request."""
    echo = ICMP(request)
    answer = ICMP(type=0, id=echo.id, seq=echo.seq) / bytes(echo.payload)
    return bytes(IP(src=source, dst=UE) / answer)


def send_all(train: ProbeTrain, latency_ns: int = 0) -> list[bytes]:
    """Send every probe `latency_ns` after it is due; returns the requests."""
    requests = []
    for probe in train.probes:
        due = train.next_due(probe.due_ns + latency_ns)
        assert due is not None
        assert due[0] is probe
        train.sent(probe, probe.due_ns + latency_ns)
        requests.append(due[1])
    return requests


def test_request_is_what_scapy_builds() -> None:
    ours = build_echo_request(0x1234, 0xFFFE, b"odd")
    assert ours == bytes(ICMP(type=8, id=0x1234, seq=0xFFFE) / b"odd")


def test_checksum_of_rfc_1071() -> None:
    # RFC 1071 section 3: the words 0001 f203 f4f5 f6f7 sum to ddf2.
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2 ^ 0xFFFF


def test_reply_with_ip_options_is_parsed() -> None:
    packet = IP(src=DN, dst=UE, options=[IPOption_NOP()]) / ICMP(type=0, id=7, seq=9) / b"payload"
    reply = parse_echo_reply(bytes(packet))
    assert (reply.source, reply.identifier, reply.sequence) == (IPv4Address(DN), 7, 9)
    assert reply.payload == b"payload"


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "not an ICMP"),
        (bytes(IP(src=DN, dst=UE) / UDP() / b"12345678"), "not an ICMP"),
        (bytes(IP(src=DN, dst=UE) / ICMP(type=0))[:26], "cut short"),
        (bytes(IP(src=DN, dst=UE, ihl=2) / ICMP(type=0)), "cut short"),
        (bytes(IP(src=DN, dst=UE) / ICMP(type=0, chksum=1) / b"x"), "checksum"),
        (bytes(IP(src=DN, dst=UE) / ICMP(type=8) / b"x"), "type 8"),
        (bytes(IP(src=DN, dst=UE) / ICMP(type=3, code=1) / b"x"), "type 3"),
    ],
)
def test_what_is_not_a_reply_is_refused(packet: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        parse_echo_reply(packet)


def test_schedule_is_absolute_and_counts_warm_up_downwards() -> None:
    probes = schedule(config(warmup_count=2), FIRST_NS)
    assert [p.index for p in probes] == [-2, -1, 0, 1, 2]
    assert [p.due_ns - FIRST_NS for p in probes] == [i * 1000 * MS for i in (-2, -1, 0, 1, 2)]


def test_jittered_schedule_is_the_predictors_whatever_the_warm_up() -> None:
    jittered = {"count": 50, "jitter_ms": 1000.0, "seed": 5}
    offsets = [p.due_ns - FIRST_NS for p in schedule(config(**jittered), FIRST_NS)]
    predicted = ProbeSchedule(n=50, interval_ms=1000.0, jitter_ms=1000.0, seed=5).offsets_ns()
    assert offsets == predicted.tolist()
    with_warm_up = schedule(config(warmup_count=3, **jittered), FIRST_NS)[3:]
    assert [p.due_ns - FIRST_NS for p in with_warm_up] == offsets
    other_seed = schedule(config(**(jittered | {"seed": 6})), FIRST_NS)
    assert [p.due_ns - FIRST_NS for p in other_seed] != offsets
    drawn = np.array(offsets) - np.arange(50) * 1000 * MS
    assert (drawn >= 0).all()
    assert (drawn <= 1000 * MS).all()


def test_answers_become_rtts_and_lateness_is_reported() -> None:
    train = ProbeTrain(config(), FIRST_NS)
    for request, probe in zip(send_all(train, latency_ns=250), train.probes, strict=True):
        rtt_ns = 544_584_001 + probe.index
        assert probe.sent_ns is not None
        assert train.receive(reply_to(request), probe.sent_ns + rtt_ns) == ("answer", probe)
    assert train.finished
    assert [p.rtt_ns for p in train.samples()] == [544_584_001, 544_584_002, 544_584_003]
    status = train.status()
    assert (status.complete, status.sent, status.lost) == (True, 3, 0)
    assert status.worst_lateness_ns == status.p99_lateness_ns == 250
    assert status.config.first_probe_ns == FIRST_NS


def test_p99_lateness_is_the_nearest_rank() -> None:
    train = ProbeTrain(config(count=200), FIRST_NS)
    for lateness_ns, probe in enumerate(train.probes):
        train.next_due(probe.due_ns + lateness_ns)
        train.sent(probe, probe.due_ns + lateness_ns)
        train.expire(probe.due_ns + 10_000 * MS)
    status = train.status()
    assert (status.worst_lateness_ns, status.p99_lateness_ns) == (199, 197)


def test_sending_waits_for_its_time_and_for_no_reply() -> None:
    train = ProbeTrain(config(), FIRST_NS)
    assert train.next_event_ns() == FIRST_NS
    assert train.next_due(FIRST_NS - 1) is None
    for i, probe in enumerate(train.probes):
        assert train.next_due(FIRST_NS + i * 1000 * MS) is not None
        train.sent(probe, probe.due_ns)
    assert train.next_due(FIRST_NS + 10**12) is None
    assert train.next_event_ns() == FIRST_NS + 1500 * MS


def test_a_probe_is_lost_at_its_timeout_and_its_late_answer_changes_nothing() -> None:
    train = ProbeTrain(config(), FIRST_NS)
    requests = send_all(train)
    assert train.expire(FIRST_NS + 1500 * MS - 1) == []
    assert train.expire(FIRST_NS + 1500 * MS) == [train.probes[0]]
    assert train.receive(reply_to(requests[0]), FIRST_NS + 1600 * MS) == ("late", train.probes[0])
    assert train.probes[0].rtt_ns is None
    assert train.late == 1
    assert not train.finished
    assert train.expire(FIRST_NS + 10**12) == train.probes[1:]
    assert train.finished
    assert train.status().lost == 3


def test_an_answer_read_late_but_stamped_in_time_counts() -> None:
    train = ProbeTrain(config(count=1), FIRST_NS)
    (request,) = send_all(train)
    outcome, _ = train.receive(reply_to(request), FIRST_NS + 1500 * MS - 1)
    assert outcome == "answer"
    train = ProbeTrain(config(count=1), FIRST_NS)
    (request,) = send_all(train)
    outcome, _ = train.receive(reply_to(request), FIRST_NS + 1500 * MS)
    assert outcome == "late"


def test_duplicates_keep_the_first_rtt() -> None:
    train = ProbeTrain(config(count=1), FIRST_NS)
    (request,) = send_all(train)
    train.receive(reply_to(request), FIRST_NS + 5)
    outcome, _ = train.receive(reply_to(request), FIRST_NS + 9)
    assert outcome == "duplicate"
    assert (train.probes[0].rtt_ns, train.duplicates) == (5, 1)


def test_reordered_answers_match_by_sequence() -> None:
    train = ProbeTrain(config(), FIRST_NS)
    requests = send_all(train)
    for i in (2, 0, 1):
        train.receive(reply_to(requests[i]), train.probes[i].due_ns + 100 + i)
    assert [p.rtt_ns for p in train.probes] == [100, 101, 102]


@pytest.mark.parametrize(
    "stranger",
    [
        IP(src=DN, dst=UE) / ICMP(type=0, id=0x5155, seq=0) / bytes(56),
        IP(src="10.60.0.3", dst=UE) / ICMP(type=0, id=0x5154, seq=0) / bytes(56),
        IP(src=DN, dst=UE) / ICMP(type=0, id=0x5154, seq=3) / bytes(56),
        IP(src=DN, dst=UE) / ICMP(type=0, id=0x5154, seq=0xFFFF) / bytes(56),
    ],
    ids=["identifier", "source", "beyond-the-last", "warm-up-not-sent"],
)
def test_answers_to_others_are_ignored(stranger: Packet) -> None:
    train = ProbeTrain(config(), FIRST_NS)
    send_all(train)
    assert train.receive(bytes(stranger), FIRST_NS + 1) == ("foreign", None)
    assert train.corrupt == 0


def test_an_answer_before_its_request_is_foreign() -> None:
    train = ProbeTrain(config(), FIRST_NS)
    forged = reply_to(build_echo_request(0x5154, 1, bytes(range(56))))
    assert train.receive(forged, FIRST_NS) == ("foreign", None)


def test_a_changed_payload_is_corrupt_and_the_probe_stays_open() -> None:
    train = ProbeTrain(config(count=1), FIRST_NS)
    (request,) = send_all(train)
    changed = bytes(IP(src=DN, dst=UE) / ICMP(type=0, id=0x5154, seq=0) / bytes(56))
    assert train.receive(changed, FIRST_NS + 1) == ("corrupt", None)
    assert train.receive(reply_to(request), FIRST_NS + 2)[0] == "answer"
    assert train.corrupt == 1


def test_warm_up_is_reported_and_not_sampled() -> None:
    train = ProbeTrain(config(count=1, warmup_count=2), FIRST_NS)
    requests = send_all(train)
    assert [ICMP(request).seq for request in requests] == [0xFFFE, 0xFFFF, 0]
    train.receive(reply_to(requests[1]), train.probes[1].due_ns + 1_089 * MS)
    train.receive(reply_to(requests[2]), train.probes[2].due_ns + 544 * MS)
    train.expire(FIRST_NS + 10**12)
    assert [(p.index, p.rtt_ns) for p in train.samples()] == [(0, 544 * MS)]
    assert train.status().warmup_rtt_ns == [None, 1_089 * MS]


def test_stopped_early_only_known_fates_are_samples() -> None:
    train = ProbeTrain(config(), FIRST_NS)
    for probe in itertools.islice(train.probes, 2):
        due = train.next_due(probe.due_ns)
        assert due is not None
        train.sent(probe, probe.due_ns)
    train.receive(reply_to(build_echo_request(0x5154, 1, bytes(range(56)))), FIRST_NS + 2000 * MS)
    assert [p.index for p in train.samples()] == [1]
    status = train.status()
    assert (status.complete, status.sent, status.lost) == (False, 1, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"jitter_ms": 1001.0},
        {"count": 65_536, "warmup_count": 1},
        {"count": 0},
        {"interval_ms": float("nan")},
        {"destination": "10.0.0.256"},
        {"unknown": 1},
    ],
)
def test_impossible_configurations_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config(**changes)


def test_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        config().count = 7


def test_configuration_survives_json() -> None:
    written = config(source=UE, first_probe_ns=FIRST_NS, out=Path("a/b.csv"))
    assert ProbeConfig.model_validate_json(written.model_dump_json()) == written
