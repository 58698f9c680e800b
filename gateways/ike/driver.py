"""How exchanges are driven: our own one after the other, the peer's as they come, keys fetched in between.

The window of an IKE SA is one (RFC 7296 §2.3), so it has at most one exchange under way each way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateways.events import Entered, Event, Failed, FetchKey, FetchKeyById, Phase, SendControl
from gateways.ike.config import IkeConfig
from gateways.ike.numbers import Notice
from gateways.ike.payloads import Notify, Payloads, UnknownPayload
from gateways.ike.sa import IkeSa
from gateways.ike.tasks import KeyResult, Message, Need, Refused, Reply, Task
from topo.errors import ControlError

ESTABLISH = "establish"
_TOKEN_OCTETS = 16
_COLLISIONS = frozenset((Notice.TEMPORARY_FAILURE, Notice.CHILD_SA_NOT_FOUND))
"""Refusals that are nobody's failure: both ends changed something at once, and one was late (RFC 7296 §2.25)."""


class Driver:
    """The IKE SAs of an endpoint and what is under way on each."""

    def __init__(self, config: IkeConfig, token_bytes: Callable[[int], bytes]) -> None:
        self.config = config
        self.token_bytes = token_bytes
        self.now_ns = 0
        self._events: list[Event] = []
        self._sas: dict[bytes, IkeSa] = {}
        """By own SPI."""
        self._fetches: dict[bytes, tuple[IkeSa, bool]] = {}
        """By token: whose key it is, and whether for the answer to a request of the peer."""
        self._phase = Phase.IDLE

    def events(self) -> list[Event]:
        """What to do now, in this order. Each event is given once."""
        events, self._events = self._events, []
        return events

    def key_fetched(self, exchange: bytes, key_id: str, key: bytes, now_ns: int) -> None:
        """Take the key that `FetchKey` or `FetchKeyById` asked for."""
        self._key(exchange, KeyResult(key_id, key), now_ns)

    def key_refused(self, exchange: bytes, reason: str, now_ns: int) -> None:
        """Take the news that the KMS has no such key."""
        self._key(exchange, KeyResult("", b"", reason), now_ns)

    def enqueue(self, sa: IkeSa, name: str, make: Callable[[IkeSa], Task[Any]]) -> None:
        """Do this once what is under way is done."""
        sa.waiting.append((name, make))
        self._next(sa)

    def fresh_ike_spi(self) -> bytes:
        """An SPI of 8 octets that is not in use."""
        while True:
            spi = self.token_bytes(8)
            if spi != bytes(8) and spi not in self._sas:
                return spi

    def _next(self, sa: IkeSa) -> None:
        if sa.task is None and sa.waiting:
            sa.doing, make = sa.waiting.popleft()
            sa.task = make(sa)
            self._resume(sa, None)

    def _resume(self, sa: IkeSa, value: Message | KeyResult | None) -> None:
        """Go on with what this end is doing on `sa`, up to the next thing to wait for."""
        task = sa.task
        if task is None:
            return
        try:
            wish = task.send(value)
        except StopIteration:
            self._done(sa)
        except ControlError as error:
            self._failed(sa, error)
        else:
            if isinstance(wish, Need):
                self._fetch(sa, wish, answering=False)
            else:
                self._enter(Phase.ESTABLISHING if sa.doing == ESTABLISH else Phase.REKEYING)
                self._emit(SendControl(sa.request(wish, self.now_ns)))

    def _fetch(self, sa: IkeSa, need: Need, *, answering: bool) -> None:
        token = self.token_bytes(_TOKEN_OCTETS)
        self._fetches[token] = sa, answering
        if need.key_id is None:
            self._enter(Phase.FETCHING)
            self._emit(FetchKey(token))
        else:
            self._emit(FetchKeyById(token, need.key_id))

    def _key(self, token: bytes, result: KeyResult, now_ns: int) -> None:
        self.now_ns = now_ns
        sa, answering = self._fetches.pop(token, (None, False))
        if sa is not None:
            (self._answer if answering else self._resume)(sa, result)

    def _handle(self, sa: IkeSa, message: Message) -> None:
        try:
            handler = self._handler(sa, message, message.payloads())
        except UnknownPayload as error:
            kind = bytes((error.kind,))
            notify = Notify(Notice.UNSUPPORTED_CRITICAL_PAYLOAD, kind)
            self._send_answer(sa, Reply([notify.payload()]))
        except ControlError as error:
            self._refuse(sa, Refused(Notice.INVALID_SYNTAX, str(error)))
        else:
            sa.handler = handler
            self._answer(sa, None)

    def _answer(self, sa: IkeSa, value: KeyResult | None) -> None:
        """Go on with the answer to the peer's request, up to the next thing to wait for."""
        if sa.handler is None:
            return
        try:
            need = sa.handler.send(value)
        except StopIteration as stop:
            self._send_answer(sa, stop.value)
        except Refused as refusal:
            self._refuse(sa, refusal)
        except ControlError as error:
            self._refuse(sa, Refused(Notice.INVALID_SYNTAX, str(error)))
        else:
            assert isinstance(need, Need)
            self._fetch(sa, need, answering=True)

    def _refuse(self, sa: IkeSa, refusal: Refused) -> None:
        if refusal.notice not in _COLLISIONS:
            self._emit(Failed(f"request refused: {refusal}"))
        self._send_answer(sa, refusal.reply())
        if not sa.authenticated:
            sa.closing = True

    def _send_answer(self, sa: IkeSa, reply: Reply) -> None:
        message = sa.handled
        assert message is not None
        self._emit(SendControl(sa.answer(sa.handling, message, reply)))
        sa.handler, sa.handled, sa.handling = None, None, b""
        reply.after()

    def _enter(self, phase: Phase) -> None:
        if phase is not self._phase:
            self._phase = phase
            self._emit(Entered(phase))

    def _emit(self, event: Event) -> None:
        self._events.append(event)

    def _handler(self, sa: IkeSa, message: Message, payloads: Payloads) -> Task[Reply]:
        """What makes the answer to a request. Raises `ControlError` for an unknown kind."""
        raise NotImplementedError

    def _done(self, sa: IkeSa) -> None:
        """What is to be done when an exchange of ours has ended well."""
        raise NotImplementedError

    def _failed(self, sa: IkeSa, error: ControlError) -> None:
        """What is to be done when an exchange of ours has failed."""
        raise NotImplementedError
