"""Exchanges as generators: each is written from top to bottom, and waits by yielding what it waits for.

A generator yields `Ask` (send a request; it is resumed with the peer's `Message`) or `Need` (a key of the KMS; it is
resumed with a `KeyResult`). `gateways.ike.endpoint` drives them; nothing in them knows of sockets or clocks.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gateways.ike.numbers import Exchange, Notice
from gateways.ike.payloads import Header, Notify, Payload, Payloads, parse_payloads
from topo.errors import ControlError


@dataclass(frozen=True, slots=True)
class Ask:
    """Send this request and wait for the answer."""

    exchange: Exchange
    payloads: Sequence[Payload]


@dataclass(frozen=True, slots=True)
class Need:
    """Get a key: the one that the peer named, or a new one (None)."""

    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class KeyResult:
    """What the KMS said: a key, or why there is none (`key` empty)."""

    key_id: str
    key: bytes = field(repr=False)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """A message from the peer that is genuine, as far as can be known at its stage.

    `octets` is what it contributes to AUTH if it is of an IKE_INTERMEDIATE exchange (RFC 9242 §3.3.2), and the
    datagram itself if it was not encrypted.
    """

    header: Header
    first: int
    inner: bytes = field(repr=False)
    octets: bytes = field(repr=False)

    def payloads(self) -> Payloads:
        """What is in it. Raises `ControlError`."""
        return Payloads(parse_payloads(self.first, self.inner))


def nothing() -> None:
    """Nothing more to do."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request, and what is to be done once it is on its way."""

    payloads: Sequence[Payload]
    after: Callable[[], None] = nothing


class ExchangeFailed(ControlError):
    """An exchange ended without what it was for; `retry_soon` if only the moment was wrong."""

    def __init__(self, reason: str, *, retry_soon: bool = False) -> None:
        self.retry_soon = retry_soon
        super().__init__(reason)


class Refused(ControlError):
    """A request must be answered with the error `notice`."""

    def __init__(self, notice: Notice, reason: str, data: bytes = b"") -> None:
        self.notice, self.data = notice, data
        super().__init__(reason)

    def reply(self) -> Reply:
        """The answer."""
        return Reply([Notify(self.notice, self.data).payload()])


def check_answer(payloads: Payloads) -> None:
    """Raise `ExchangeFailed` if the peer's answer is an error."""
    error = payloads.error()
    if error is not None:
        name = Notice(error.type).name if error.type in set(Notice) else str(error.type)
        raise ExchangeFailed(
            f"the peer answered {name}", retry_soon=error.type == Notice.TEMPORARY_FAILURE
        )


_T = TypeVar("_T")
Task = Generator[Ask | Need, Any, _T]
