"""The two machines of the key agreement, message by message."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import pytest

from gateways.control import (
    ControlConfig,
    Event,
    Failed,
    FetchKey,
    FetchKeyById,
    InstallInbound,
    InstallOutbound,
    RetireInbound,
    SendControl,
)
from gateways.initiator import Initiator
from gateways.messages import ControlCodec, Message, MessageType, Role
from gateways.responder import Responder
from topo.errors import ControlError

S = 10**9
CONFIG = ControlConfig(
    rekey_after_ns=100 * S, hard_after_ns=1000 * S, grace_ns=5 * S, retransmit_ns=S, attempts=4
)
T = TypeVar("T")
KEY = bytes(range(32))
TO_RESPONDER = ControlCodec(bytes(32), "SAE-U", "SAE-N", Role.INITIATOR)
TO_INITIATOR = ControlCodec(bytes(32), "SAE-U", "SAE-N", Role.RESPONDER)


def counting_tokens() -> Callable[[int], bytes]:
    numbers = itertools.count(1000)
    return lambda octets: next(numbers).to_bytes(octets)


@pytest.fixture
def initiator() -> Initiator:
    return Initiator(CONFIG, TO_RESPONDER, counting_tokens())


@pytest.fixture
def responder() -> Responder:
    return Responder(CONFIG, TO_INITIATOR, counting_tokens())


def only(kind: type[T], events: list[Event]) -> T:
    (event,) = (event for event in events if isinstance(event, kind))
    return event


def sent_by_initiator(events: list[Event]) -> Message:
    return TO_INITIATOR.open(only(SendControl, events).message)


def sent_by_responder(events: list[Event]) -> Message:
    return TO_RESPONDER.open(only(SendControl, events).message)


def proposed(initiator: Initiator, now_ns: int = 0) -> Message:
    initiator.start(now_ns)
    fetch = only(FetchKey, initiator.events())
    initiator.key_fetched(fetch.exchange, "key-1", KEY, now_ns)
    return sent_by_initiator(initiator.events())


def proposal(number: int, session: bytes = b"session1", algorithm: int = 20) -> Message:
    exchange = session + number.to_bytes(8)
    return Message(
        MessageType.PROPOSE,
        exchange,
        spi_initiator=0x1000 + number,
        text=f"key-{number}",
        algorithm=algorithm,
    )


def accepted(responder: Responder, request: Message, now_ns: int = 0) -> Message:
    responder.receive(TO_RESPONDER.seal(request), now_ns)
    fetch = only(FetchKeyById, responder.events())
    assert fetch.key_id == request.text
    responder.key_fetched(fetch.exchange, fetch.key_id, KEY, now_ns)
    events = responder.events()
    kinds = [type(event) for event in events]
    assert kinds.index(InstallInbound) < kinds.index(SendControl)
    return sent_by_responder(events)


def test_both_ends_derive_the_same_two_keys(initiator: Initiator, responder: Responder) -> None:
    initiator.start(0)
    fetch = only(FetchKey, initiator.events())
    initiator.key_fetched(fetch.exchange, "key-1", KEY, 0)
    propose = only(SendControl, initiator.events()).message
    responder.receive(propose, 0)
    fetch_by_id = only(FetchKeyById, responder.events())
    responder.key_fetched(fetch_by_id.exchange, "key-1", KEY, 0)
    answer = responder.events()
    initiator.receive(only(SendControl, answer).message, 0)
    events = initiator.events()
    responder.receive(only(SendControl, events).message, 0)
    confirmed = responder.events()
    forward = only(InstallOutbound, events), only(InstallInbound, answer)
    back = only(InstallOutbound, confirmed), only(InstallInbound, events)
    for out, inbound in (forward, back):
        assert (out.spi, out.key_id, out.keys) == (inbound.spi, inbound.key_id, inbound.keys)
    assert forward[0].keys.key != back[0].keys.key
    for event in [*events, *answer, *confirmed]:
        assert forward[0].keys.key.hex() not in repr(event)
        assert repr(forward[0].keys.key)[2:-1] not in repr(event)


def test_retransmission_doubles_and_ends(initiator: Initiator) -> None:
    first = proposed(initiator)
    times: list[int] = []
    for _ in range(CONFIG.attempts):
        deadline = initiator.next_deadline_ns()
        assert deadline is not None
        initiator.tick(deadline - 1)
        assert initiator.events() == []
        initiator.tick(deadline)
        times.append(deadline // S)
        events = initiator.events()
        if len(times) < CONFIG.attempts:
            assert sent_by_initiator(events) == first
    assert times == [1, 3, 7, 15]
    assert initiator.retransmissions == 3
    assert only(Failed, events).reason == "no answer to 4 × PROPOSE"


def test_failures_wait_longer_up_to_a_minute(initiator: Initiator) -> None:
    now, waits = 0, []
    initiator.start(now)
    for _ in range(9):
        fetch = only(FetchKey, initiator.events())
        initiator.key_refused(fetch.exchange, "503", now)
        initiator.soft_limit(now)  # a busy SA does not shorten the wait
        assert only(Failed, initiator.events()).reason == "503"
        deadline = initiator.next_deadline_ns()
        assert deadline is not None
        waits.append((deadline - now) // S)
        now = deadline
        initiator.tick(now)
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_every_attempt_has_its_own_exchange(initiator: Initiator) -> None:
    exchanges = set()
    initiator.start(0)
    for now in range(0, 1000 * S, 100 * S):
        fetch = only(FetchKey, initiator.events())
        exchanges.add(fetch.exchange)
        initiator.key_refused(fetch.exchange, "503", now)
        initiator.tick(now + 99 * S)
    assert len(exchanges) == 10


def test_answers_to_nothing_are_ignored(initiator: Initiator) -> None:
    request = proposed(initiator)
    accept = replace(request, type=MessageType.ACCEPT, spi_responder=0x2000, text="")
    for stray in (
        replace(accept, exchange=b"x" * 16),
        replace(accept, spi_initiator=0x9999),
        replace(accept, type=MessageType.DONE),
        replace(accept, type=MessageType.PROPOSE),
        replace(accept, type=MessageType.CONFIRM),
    ):
        initiator.receive(TO_INITIATOR.seal(stray), 0)
        assert initiator.events() == []
    initiator.receive(TO_INITIATOR.seal(accept), 0)
    assert sent_by_initiator(initiator.events()).type is MessageType.CONFIRM
    initiator.receive(TO_INITIATOR.seal(accept), 0)  # a copy of it
    assert initiator.events() == []


def test_late_key_of_an_earlier_attempt_is_ignored(initiator: Initiator) -> None:
    initiator.start(0)
    first = only(FetchKey, initiator.events())
    initiator.key_refused(first.exchange, "503", 0)
    initiator.tick(10 * S)
    second = only(FetchKey, initiator.events())
    initiator.key_fetched(first.exchange, "old", KEY, 10 * S)
    initiator.key_refused(first.exchange, "again", 10 * S)
    assert initiator.events() == []
    initiator.key_fetched(second.exchange, "new", KEY, 10 * S)
    assert sent_by_initiator(initiator.events()).text == "new"


def test_repeated_requests_get_the_same_answer(responder: Responder) -> None:
    request = proposal(1)
    accept = accepted(responder, request)
    responder.receive(TO_RESPONDER.seal(request), S)
    assert sent_by_responder(responder.events()) == accept
    confirm = replace(accept, type=MessageType.CONFIRM)
    for expected in (True, False):
        responder.receive(TO_RESPONDER.seal(confirm), S)
        events = responder.events()
        assert any(isinstance(event, InstallOutbound) for event in events) is expected
        assert sent_by_responder(events).type is MessageType.DONE


def test_a_request_repeated_while_the_kms_is_asked_asks_once(responder: Responder) -> None:
    for _ in range(3):
        responder.receive(TO_RESPONDER.seal(proposal(1)), 0)
    only(FetchKeyById, responder.events())


def test_replayed_proposals_are_refused(responder: Responder) -> None:
    for number in range(1, 9):
        accepted(responder, proposal(number))
    accepted(responder, proposal(1, session=b"session2"))
    for number in range(1, 5):
        with pytest.raises(ControlError, match="replayed"):
            responder.receive(TO_RESPONDER.seal(proposal(number)), 0)
    assert responder.events() == []


def test_unknown_algorithm_is_refused(responder: Responder) -> None:
    responder.receive(TO_RESPONDER.seal(proposal(1, algorithm=1025)), 0)
    reject = sent_by_responder(responder.events())
    assert reject.type is MessageType.REJECT
    assert "1025" in reject.text


@pytest.mark.parametrize(
    "change",
    [
        {"exchange": b"x" * 16},
        {"spi_responder": 0x9999},
        {"type": MessageType.ACCEPT},
        {"type": MessageType.DONE},
    ],
)
def test_confirm_of_something_else_is_refused(
    responder: Responder, change: dict[str, object]
) -> None:
    accept = accepted(responder, proposal(1))
    confirm = replace(accept, type=MessageType.CONFIRM)
    with pytest.raises(ControlError):
        responder.receive(TO_RESPONDER.seal(replace(confirm, **change)), 0)  # type: ignore[arg-type]
    assert responder.events() == []


def test_late_confirm_does_not_end_a_newer_pair(responder: Responder) -> None:
    """The initiator gave the first exchange up and proposes again; then its CONFIRM turns up."""
    first = accepted(responder, proposal(1))
    second = accepted(responder, proposal(2), 8 * S)
    responder.receive(TO_RESPONDER.seal(replace(first, type=MessageType.CONFIRM)), 9 * S)
    responder.tick(100 * S)
    assert not any(isinstance(event, RetireInbound) for event in responder.events())
    responder.receive(TO_RESPONDER.seal(replace(second, type=MessageType.CONFIRM)), 100 * S)
    assert only(InstallOutbound, responder.events()).spi == second.spi_initiator
    responder.receive(TO_RESPONDER.seal(replace(first, type=MessageType.CONFIRM)), 101 * S)
    assert not any(isinstance(event, InstallOutbound) for event in responder.events())
    responder.tick(200 * S)
    assert only(RetireInbound, responder.events()).spi == first.spi_responder


def test_half_open_inbound_ends(responder: Responder) -> None:
    accept = accepted(responder, proposal(1))
    responder.tick(CONFIG.hard_after_ns + CONFIG.grace_ns)
    assert only(RetireInbound, responder.events()).spi == accept.spi_responder
    assert responder.next_deadline_ns() is None
    responder.receive(TO_RESPONDER.seal(replace(accept, type=MessageType.CONFIRM)), 2000 * S)
    assert not any(isinstance(event, InstallOutbound) for event in responder.events())
