"""Waiting lines, and the waiting process around them, without a network."""

from __future__ import annotations

import json
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from topo.alarm import Alarm
from topo.errors import InputError, NetworkError
from topo.links.delays import Empirical, Fixed, FrameWait, Retransmission, SchedulingRequest
from topo.links.waiter import (
    SO_TIMESTAMPNS,
    Counts,
    Direction,
    Relay,
    load_config,
    main,
    write_status,
)
from topo.links.waiting import WaitingLine, direction_rng

MS = 10**6  # ns
FRAME = FrameWait(period_ms=13.4)
RADIO = (SchedulingRequest(period_ms=102.0), Retransmission(probability=0.5, min_ms=1, max_ms=9))
IPV4 = bytes(12) + b"\x08\x00" + bytes(84)
ARP = bytes(12) + b"\x08\x06" + bytes(46)


def releases(line: WaitingLine, n: int = 50, step_ns: int = 1000 * MS) -> list[int]:
    return [line.release_ns(i * step_ns, 98) for i in range(n)]


def test_a_line_is_a_function_of_seed_and_name() -> None:
    waits = releases(WaitingLine(RADIO, 1, "UE-gNB a_to_b"))
    assert waits == releases(WaitingLine(RADIO, 1, "UE-gNB a_to_b"))
    assert waits != releases(WaitingLine(RADIO, 2, "UE-gNB a_to_b"))
    assert waits != releases(WaitingLine(RADIO, 1, "UE-gNB b_to_a"))


def test_the_stream_of_a_name_never_changes() -> None:
    """Numbers pinned: published runs must stay repeatable with later versions."""
    draws = direction_rng(1, "UE-gNB a_to_b").random(3)
    assert draws.tolist() == pytest.approx(
        [0.5197903786711655, 0.2825047527622305, 0.6826922877202712], abs=1e-15
    )


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(InputError, match="seed -1 is negative"):
        WaitingLine([FRAME], -1, "hop")


def test_what_netem_realises_does_not_wait_here() -> None:
    with pytest.raises(InputError, match=r"hop: fixed 14 ms is netem's"):
        WaitingLine([FRAME, Fixed(delay_ms=14.0)], 1, "hop")


def test_an_empty_line_holds_nothing() -> None:
    assert releases(WaitingLine([], 1, "hop"), 3) == [0, 1000 * MS, 2000 * MS]


def test_each_element_sees_the_frame_when_the_one_before_lets_it_go() -> None:
    grids = (
        SchedulingRequest(period_ms=10.0, phase_ms=3.0, grant_delay_ms=1.0),  # 3, 13, 23 ..., + 1
        FrameWait(period_ms=20.0, phase_ms=0.0),
    )
    line = WaitingLine(grids, 1, "hop")
    assert line.release_ns(1 * MS, 98) == 20 * MS  # 3 + 1, then the frame at 20
    assert line.release_ns(12 * MS, 98) == 20 * MS  # 13 + 1, same frame
    assert line.release_ns(14 * MS, 98) == 40 * MS  # 23 + 1 has missed it


def test_no_frame_overtakes_a_retransmitted_one() -> None:
    line = WaitingLine([Retransmission(probability=0.3, min_ms=30, max_ms=60)], 4, "hop")
    out = releases(line, 500, step_ns=2 * MS)
    assert out == sorted(out)
    waits = [release - i * 2 * MS for i, release in enumerate(out)]
    assert min(waits) == 0
    assert any(0 < wait < 30 * MS for wait in waits)  # held back by the one ahead alone


def test_the_epoch_only_shifts_the_clock() -> None:
    epoch_ns = 1_732_286_401_000_000_007
    elements = (SchedulingRequest(period_ms=87.7, phase_ms=0.0), FRAME)
    here, there = WaitingLine(elements, 1, "hop"), WaitingLine(elements, 1, "hop", epoch_ns)
    for i in range(20):
        at_ns = i * 975_400_000
        assert there.release_ns(epoch_ns + at_ns, 98) - epoch_ns == here.release_ns(at_ns, 98)


def test_only_ipv4_waits_and_draws() -> None:
    plain = Direction(WaitingLine([FRAME], 1, "hop"), 10)
    mixed = Direction(WaitingLine([FRAME], 1, "hop"), 10)
    for i in range(5):
        assert not plain.arrived(IPV4, i * 1000 * MS)
        assert mixed.arrived(ARP, i * 1000 * MS)
        assert not mixed.arrived(IPV4, i * 1000 * MS)
    for _ in range(5):
        assert plain.due_ns() == mixed.due_ns()
        assert plain.take(10**12) == mixed.take(10**12) == IPV4
    assert mixed.due_ns() is None
    assert mixed.take(10**12) is None


def test_frames_leave_when_due_and_lateness_is_counted() -> None:
    way = Direction(WaitingLine([FrameWait(period_ms=20.0, phase_ms=0.0)], 1, "hop"), 10)
    way.arrived(IPV4, 1 * MS)
    assert way.due_ns() == 20 * MS
    assert way.take(20 * MS - 1) is None
    assert way.take(20 * MS + 3500) == IPV4
    assert (way.counts.waited_packets, way.counts.max_lateness_ns) == (1, 3500)


def test_a_full_queue_drops_and_counts_without_shifting_the_draws() -> None:
    roomy, tight = (Direction(WaitingLine([FRAME], 1, "hop"), limit) for limit in (100, 2))
    for i in range(4):
        roomy.arrived(IPV4, i)
        tight.arrived(IPV4, i)
    assert (len(tight), tight.counts.dropped_queue_full) == (2, 2)
    for way in (roomy, tight):
        while way.take(10**12):
            pass
        way.arrived(IPV4, 1000 * MS)
    assert roomy.due_ns() == tight.due_ns()


def test_p99_of_lateness() -> None:
    counts = Counts()
    assert counts.p99_lateness_ns() == 0
    for lateness_us in [*[5] * 98, 70, 900]:
        counts.late(lateness_us * 1000 + 1)
    assert counts.p99_lateness_ns() == 70_000
    assert counts.max_lateness_ns == 900_001
    assert counts.summary()["p99_lateness_ns"] == 70_000


def test_an_alarm_is_readable_from_its_time_on_only() -> None:
    alarm = Alarm()

    def rings_within(seconds: float) -> bool:
        return bool(select.select([alarm], [], [], seconds)[0])

    assert not rings_within(0)
    alarm.set(1)  # long past
    assert rings_within(10)
    alarm.set(time.time_ns() + 3600 * 10**9)
    assert not rings_within(0)
    due_ns = time.time_ns() + 2 * MS
    alarm.set(due_ns)
    assert rings_within(10)
    assert time.time_ns() >= due_ns
    alarm.set(None)
    assert not rings_within(0)
    alarm.close()


@contextmanager
def relay(a_to_b: Direction, b_to_a: Direction) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The outer ends of two sockets that a running relay joins; at the end it has stopped."""
    (left, a), (right, b) = (socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in "ab")
    for inner in (a, b):
        inner.setblocking(False)
        inner.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    for outer in (left, right):
        outer.settimeout(10)
    stop_fd, stop_writer = os.pipe()
    thread = threading.Thread(target=Relay(a, b, a_to_b, b_to_a).run, args=(stop_fd,))
    thread.start()
    yield left, right
    os.write(stop_writer, b"x")
    thread.join(10)
    assert not thread.is_alive()
    for end in (left, a, right, b):
        end.close()
    os.close(stop_fd)
    os.close(stop_writer)


def test_the_relay_carries_both_ways_in_order() -> None:
    a_to_b = Direction(WaitingLine([FrameWait(period_ms=1.0, phase_ms=0.0)], 1, "hop a_to_b"), 100)
    b_to_a = Direction(WaitingLine([], 1, "hop b_to_a"), 100)
    there = [IPV4 + bytes([i]) for i in range(50)]
    with relay(a_to_b, b_to_a) as (left, right):
        for frame in there:
            left.send(frame)
        assert [right.recv(2000) for _ in there] == there
        right.send(ARP)
        right.send(IPV4)
        assert [left.recv(2000), left.recv(2000)] == [ARP, IPV4]
    assert (a_to_b.counts.waited_packets, b_to_a.counts.waited_packets) == (50, 1)
    assert a_to_b.counts.bytes == 50 * len(there[0])
    assert b_to_a.counts.bytes == len(ARP) + len(IPV4)


def test_frames_still_waiting_at_the_end_are_counted() -> None:
    hour = Direction(WaitingLine([Empirical(samples_ms=(3.6e6,))], 1, "hop a_to_b"), 100)
    nothing = Direction(WaitingLine([], 1, "hop b_to_a"), 100)
    with relay(hour, nothing) as (left, right):
        left.send(IPV4)
        left.send(ARP)  # passes at once, and shows that the frame ahead of it was read
        assert right.recv(2000) == ARP
    assert (hour.counts.queued_at_exit, hour.counts.packets) == (1, 1)


def test_a_frame_without_time_stamp_is_an_error_not_a_guess() -> None:
    (left, a), (right, b) = (socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in "ab")
    a.setblocking(False)
    stop_fd, stop_writer = os.pipe()
    line = WaitingLine([FRAME], 1, "hop")
    left.send(IPV4)
    with pytest.raises(NetworkError, match="SO_TIMESTAMPNS"):
        Relay(a, b, Direction(line, 1), Direction(line, 1)).run(stop_fd)
    for end in (left, a, right, b):
        end.close()
    os.close(stop_fd)
    os.close(stop_writer)


CONFIG = {
    "name": "ue-gnb",
    "a": "no-such-if0",
    "b": "no-such-if1",
    "a_to_b": [{"kind": "scheduling_request", "period_ms": 87.7, "phase_ms": 0.0}],
    "seed": 1,
    "epoch_ns": 0,
    "status": "status.json",
}


def test_the_configuration_file(tmp_path: Path) -> None:
    path = tmp_path / "waiter.json"
    path.write_text(json.dumps(CONFIG))
    config = load_config(path)
    assert config.a_to_b == (SchedulingRequest(period_ms=87.7, phase_ms=0.0),)
    assert (config.b_to_a, config.limit_packets) == ((), 10_000)
    assert config.a_to_b_name != config.b_to_a_name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sede": 1}, "sede"),
        ({"seed": -1}, "seed"),
        ({"limit_packets": 0}, "limit_packets"),
        ({"a_to_b": [{"kind": "fixed", "delay_ms": 1.0}]}, "netem's to give"),
        ({"b_to_a": [{"kind": "frame_wait", "period": 1.0}]}, "b_to_a.0.frame_wait.period_ms"),
    ],
)
def test_a_wrong_configuration_is_one_line_and_exit_2(
    change: dict[str, object],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "waiter.json"
    path.write_text(json.dumps(CONFIG | change))
    assert main([str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_missing_file_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.json")]) == 2
    assert "none.json: No such file or directory" in capsys.readouterr().err
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err


def test_the_status_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    write_status(path, {"name": "hop", "a_to_b": Counts().summary()})
    assert json.loads(path.read_text())["a_to_b"]["packets"] == 0
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]
