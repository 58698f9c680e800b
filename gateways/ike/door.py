"""IKE_SA_INIT requests: the one thing that a stranger gets an answer to (RFC 7296 §2.6)."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.constant_time import bytes_eq

from gateways.events import Event, SendControl
from gateways.ike.crypto import prf
from gateways.ike.host import Host
from gateways.ike.initial_responder import answer_init
from gateways.ike.numbers import Exchange, Flag, Notice
from gateways.ike.payloads import (
    Header,
    Notify,
    Payload,
    Payloads,
    UnknownPayload,
    pack_payloads,
)
from gateways.ike.sa import Handshake, IkeSa
from gateways.ike.tasks import Message, Refused

_COOKIE_KEY_OCTETS = 32
_NO_SPI = bytes(8)


class Door:
    """Lets strangers in as half-open IKE SAs; each must return a cookie when there are many."""

    def __init__(self, host: Host, emit: Callable[[Event], None]) -> None:
        self._host = host
        self._emit = emit
        self._key = host.token_bytes(_COOKIE_KEY_OCTETS)

    def answer(self, message: Message, half_open: int) -> IkeSa | None:
        """A half-open IKE SA, or None: the stranger must return a cookie first. Raises `ControlError` for nonsense."""
        try:
            payloads = message.payloads()
            cookie = self._cookie(message, payloads, half_open)
            if cookie is not None:
                self._send(message, [Notify(Notice.COOKIE, cookie).payload()], _NO_SPI)
                return None
            sa, answer = answer_init(self._host, message, payloads)
        except UnknownPayload as error:
            notify = Notify(Notice.UNSUPPORTED_CRITICAL_PAYLOAD, bytes((error.kind,)))
            self._send(message, [notify.payload()], _NO_SPI)
            raise
        except Refused as refusal:
            self._send(message, list(refusal.reply().payloads), _NO_SPI)
            raise
        sa.made_ns = sa.heard_ns = self._host.now_ns
        sa.begin_at(request_id=0, expected_id=1)
        response = self._send(message, answer, sa.spi_r)
        sa.handshake = Handshake(message.octets, response)
        sa.answered(message.octets, response)
        return sa

    def _cookie(self, message: Message, payloads: Payloads, half_open: int) -> bytes | None:
        """The cookie that must come back first: it costs us nothing to have given it."""
        if half_open < self._host.config.cookies_from:
            return None
        cookie = prf(self._key, payloads.nonce() + message.header.spi_i)
        given = payloads.notify(Notice.COOKIE)
        return None if given is not None and bytes_eq(given.data, cookie) else cookie

    def _send(self, message: Message, payloads: list[Payload], spi_r: bytes) -> bytes:
        first, chain = pack_payloads(payloads)
        header = Header(message.header.spi_i, spi_r, Exchange.IKE_SA_INIT, Flag.RESPONSE, 0)
        response = header.pack(first, len(chain)) + chain
        self._emit(SendControl(response))
        return response
