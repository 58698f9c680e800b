"""One IKE SA: its SPIs, keys and the message layer with its window of one (RFC 7296 §2.1 to 2.3)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateways.ike.config import IkeConfig
from gateways.ike.crypto import IkeSuite, Protection, SessionKeys, intermediate_octets
from gateways.ike.numbers import Exchange, Flag
from gateways.ike.payloads import Header, Payload, pack_payloads
from gateways.ike.tasks import Ask, Message, Reply, Task
from topo.errors import ControlError


@dataclass(slots=True)
class Pending:
    """A request under way."""

    exchange: int
    message_id: int
    datagram: bytes = field(repr=False)
    first_ns: int
    again_ns: int
    transmissions: int = 1


@dataclass(slots=True)
class Handshake:
    """What IKE_SA_INIT and IKE_INTERMEDIATE leave for AUTH (RFC 7296 §2.15, RFC 9242 §3.3)."""

    request: bytes = field(repr=False)
    response: bytes = field(repr=False)
    int_auth_i: bytes = field(default=b"", repr=False)
    int_auth_r: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Peer:
    """What the two ends agreed to be able to do."""

    ppk: bool = False
    """PPK in IKE_AUTH (RFC 8784)."""
    ppk_int: bool = False
    """PPK in IKE_INTERMEDIATE and CREATE_CHILD_SA (RFC 9867)."""
    digital_signatures: bool = False
    """RFC 7427."""


class IkeSa:
    """An IKE SA at one end. `began`: whether this end is its original initiator."""

    def __init__(
        self,
        config: IkeConfig,
        token_bytes: Callable[[int], bytes],
        spi_i: bytes,
        spi_r: bytes,
        *,
        began: bool,
    ) -> None:
        self.spi_i, self.spi_r, self.began = spi_i, spi_r, began
        self.keys: SessionKeys | None = None
        self.suite: IkeSuite | None = None
        self.ni = self.nr = b""
        """The nonces of the exchange that made this SA."""
        self.sent = b""
        """Our last request."""
        self.handshake: Handshake | None = None
        self.peer = Peer()
        self.ml_kem = False
        """Whether ML-KEM-768 was agreed."""
        self.intermediate_done = False
        self.key_id = ""
        """The KMS's key that is in SK_d, if any."""
        self.authenticated = False
        self.closing = False
        """Replaced, refused or being deleted: it carries no new exchange."""
        self.closed = False
        """Gone, but for answering once more what it has answered."""
        self.made_ns = 0
        self.heard_ns = 0
        self.soft_ns: int | None = None
        self.reauth_ns: int | None = None
        self.failures = 0
        """Vain attempts to replace it."""
        self.pending: Pending | None = None
        self.task: Task[Any] | None = None
        """What this end is doing as the initiator of an exchange."""
        self.doing = ""
        """Its name."""
        self.waiting: deque[tuple[str, Callable[[IkeSa], Task[Any]]]] = deque()
        self.handler: Task[Reply] | None = None
        """The answer under way to a request of the peer."""
        self.handled: Message | None = None
        """The request that it answers, and its datagram."""
        self.handling = b""
        self.retransmissions = 0
        self.sealed_octets = b""
        """What our last message contributes to AUTH, were it of an IKE_INTERMEDIATE exchange."""
        self._config = config
        self._token_bytes = token_bytes
        self._next_id = self._expected_id = 0
        self._answered: tuple[bytes, bytes] = b"", b""
        self._seal: Protection | None = None
        self._open: Protection | None = None

    @property
    def own_spi(self) -> bytes:
        """The SPI that the peer's messages carry for us."""
        return self.spi_i if self.began else self.spi_r

    @property
    def seed(self) -> bytes:
        """Ni | Nr | SPIi | SPIr."""
        return self.ni + self.nr + self.spi_i + self.spi_r

    def protect(self, suite: IkeSuite, keys: SessionKeys) -> None:
        """Use these keys from the next message on."""
        self.suite, self.keys = suite, keys
        ends = [
            Protection(suite, keys.ei, keys.ai, self._token_bytes),
            Protection(suite, keys.er, keys.ar, self._token_bytes),
        ]
        self._seal, self._open = ends if self.began else reversed(ends)

    def erase(self) -> None:
        """Let go of the keys: from now on only what was answered before is answered again."""
        self.keys = self.handshake = self._seal = self._open = None

    def secrets(self) -> SessionKeys:
        """The keys. Raises `ControlError` if there are none yet."""
        if self.keys is None or self.suite is None:
            raise ControlError("the IKE SA has no keys yet")
        return self.keys

    def begin_at(self, *, request_id: int, expected_id: int) -> None:
        """Number the messages from here."""
        self._next_id, self._expected_id = request_id, expected_id

    def request(self, ask: Ask, now_ns: int) -> bytes:
        """The datagram of a new request; it is retransmitted until it is answered."""
        datagram = self._pack(ask.exchange, self._next_id, ask.payloads, response=False)
        again = now_ns + self._config.retransmit_ns
        self.pending = Pending(ask.exchange, self._next_id, datagram, now_ns, again)
        self._next_id += 1
        self.sent = datagram
        return datagram

    def retransmit(self, now_ns: int) -> bytes:
        """The request under way once more; the time until the next transmission doubles."""
        pending = self.pending
        assert pending is not None
        config = self._config
        wait = min(config.retransmit_ns << pending.transmissions, config.longest_retransmit_ns)
        pending.again_ns = now_ns + wait
        pending.transmissions += 1
        self.retransmissions += 1
        return pending.datagram

    def answer(self, request: bytes, message: Message, reply: Reply) -> bytes:
        """The datagram that answers a request; it is given again if the request comes again."""
        header = message.header
        datagram = self._pack(header.exchange, header.message_id, reply.payloads, response=True)
        self._answered = request, datagram
        return datagram

    def answered(self, request: bytes, response: bytes) -> None:
        """Note an answer that was made elsewhere."""
        self._answered = request, response

    def repeated(self, request: bytes) -> bytes | None:
        """The answer that this very request has had, if it was the last one."""
        return self._answered[1] if request == self._answered[0] else None

    def accept_response(self, datagram: bytes, header: Header) -> Message | None:
        """The answer to the request under way, or None: an answer that comes once more.

        Raises `ControlError` for a message that is not genuine.
        """
        pending = self.pending
        if pending is None or header.message_id != pending.message_id:
            return None
        message = self._accept(datagram, header)
        if header.exchange != pending.exchange:
            raise ControlError("answer of another exchange type than its request")
        self.pending = None
        return message

    def accept_request(self, datagram: bytes, header: Header, now_ns: int) -> Message:
        """The peer's next request. Raises `ControlError` for anything else."""
        if header.message_id != self._expected_id:
            raise ControlError(f"request {header.message_id} where {self._expected_id} is next")
        message = self._accept(datagram, header)
        self._expected_id += 1
        self.handling, self.handled, self.heard_ns = datagram, message, now_ns
        return message

    def _accept(self, datagram: bytes, header: Header) -> Message:
        if header.from_initiator == self.began or (header.spi_i, header.spi_r) != (
            self.spi_i,
            self.spi_r,
        ):
            raise ControlError("message of another IKE SA")
        if self._open is None:
            raise ControlError("encrypted message before there are keys")
        first, inner = self._open.open(datagram)
        return Message(header, first, inner, intermediate_octets(header, first, inner))

    def _pack(
        self, exchange: int, message_id: int, payloads: Sequence[Payload], *, response: bool
    ) -> bytes:
        flags = (Flag.INITIATOR if self.began else 0) | (Flag.RESPONSE if response else 0)
        header = Header(self.spi_i, self.spi_r, exchange, flags, message_id)
        first, inner = pack_payloads(payloads)
        if exchange == Exchange.IKE_SA_INIT:
            return header.pack(first, len(inner)) + inner
        if self._seal is None:
            raise ControlError("encrypted message before there are keys")
        self.sealed_octets = intermediate_octets(header, first, inner)
        return self._seal.seal(header, first, inner)
