"""The initiator's half of the key agreement (`gateways.control`)."""

from __future__ import annotations

from collections.abc import Callable

from gateways.control import (
    ControlConfig,
    Endpoint,
    Entered,
    Failed,
    FetchKey,
    Phase,
    SaPair,
    SendControl,
)
from gateways.keys import Direction, derive_sa_keys
from gateways.messages import SESSION_OCTETS, ControlCodec, Message, MessageType

_LONGEST_RETRY_NS = 60 * 10**9


class Initiator(Endpoint):
    """Fetches keys, proposes them, confirms their use; replaces them before they wear out."""

    def __init__(
        self, config: ControlConfig, codec: ControlCodec, token_bytes: Callable[[int], bytes]
    ) -> None:
        super().__init__(config, codec, token_bytes)
        self._phase = Phase.IDLE
        self._session = token_bytes(SESSION_OCTETS)
        self._counter = 0
        self._failures = 0
        self._begin_at_ns: int | None = None
        self._request = Message(MessageType.PROPOSE, bytes(16))
        self._secret = b""
        self._proposed_ns = 0
        self._transmissions = 0
        self._retransmit_at_ns = 0

    def start(self, now_ns: int) -> None:
        """Ask for the first key."""
        self._begin()

    def next_deadline_ns(self) -> int | None:
        """When `tick` must be called next."""
        own = None
        if self._phase is Phase.IDLE:
            own = self._begin_at_ns
        elif self._phase is not Phase.FETCHING:
            own = self._retransmit_at_ns
        deadlines = [at for at in (own, super().next_deadline_ns()) if at is not None]
        return min(deadlines, default=None)

    def tick(self, now_ns: int) -> None:
        """Begin, retransmit or give up, as the time says."""
        super().tick(now_ns)
        if self._phase is Phase.IDLE:
            if self._begin_at_ns is not None and self._begin_at_ns <= now_ns:
                self._begin()
        elif self._phase is not Phase.FETCHING and self._retransmit_at_ns <= now_ns:
            if self._transmissions >= self.config.attempts:
                asked = self._request.type.name
                self._fail(f"no answer to {self._transmissions} × {asked}", now_ns)
            else:
                self.retransmissions += 1
                self._transmit(now_ns)

    def key_fetched(self, exchange: bytes, key_id: str, key: bytes, now_ns: int) -> None:
        """Propose the key to the peer."""
        if self._phase is not Phase.FETCHING or exchange != self._exchange():
            return
        self._secret = key
        self._proposed_ns = now_ns
        self._request = Message(
            MessageType.PROPOSE, exchange, spi_initiator=self._fresh_spi(), text=key_id
        )
        self._enter(Phase.PROPOSING)
        self._transmissions = 0
        self._transmit(now_ns)

    def key_refused(self, exchange: bytes, reason: str, now_ns: int) -> None:
        """Try again later."""
        if self._phase is Phase.FETCHING and exchange == self._exchange():
            self._fail(reason, now_ns)

    def receive(self, data: bytes, now_ns: int) -> None:
        """Take an answer. What does not answer the request under way is of no interest."""
        answer = self._codec.open(data)
        if (
            answer.exchange != self._exchange()
            or answer.spi_initiator != self._request.spi_initiator
        ):
            return
        match self._phase, answer.type:
            case Phase.PROPOSING, MessageType.ACCEPT:
                self._accepted(answer, now_ns)
            case Phase.PROPOSING, MessageType.REJECT:
                self._fail(f"peer refused the key: {answer.text}", now_ns)
            case Phase.CONFIRMING, MessageType.DONE:
                self._done(now_ns)

    def good_packet(self, spi: int, now_ns: int) -> None:
        """A packet on the new SA says what DONE would: the responder has switched."""
        if (
            self._phase is Phase.CONFIRMING
            and self._current is not None
            and spi == self._current.spi_in
        ):
            self._done(now_ns)

    def soft_limit(self, now_ns: int) -> None:
        """Replace the pair in use now, unless a failed attempt is being waited out."""
        if self._phase is Phase.IDLE and self._failures == 0:
            self._begin()

    def _exchange(self) -> bytes:
        return self._session + self._counter.to_bytes(8)

    def _begin(self) -> None:
        self._counter += 1
        self._enter(Phase.FETCHING)
        self._emit(FetchKey(self._exchange()))

    def _accepted(self, answer: Message, now_ns: int) -> None:
        key_id, spi_in, spi_out = (
            self._request.text,
            answer.spi_initiator,
            answer.spi_responder,
        )
        freshness = answer.exchange + answer.nonce_responder
        inbound, outbound = (
            derive_sa_keys(
                self._secret, key_id=key_id, direction=direction, spi=spi, freshness=freshness
            )
            for direction, spi in (
                (Direction.TO_INITIATOR, spi_in),
                (Direction.TO_RESPONDER, spi_out),
            )
        )
        self._secret = b""
        generation = self._install_inbound(spi_in, key_id, inbound, now_ns)
        self._switch(SaPair(generation, self._proposed_ns, key_id, spi_in, spi_out, outbound))
        self._begin_at_ns = now_ns + self.config.rekey_after_ns
        self._request = Message(
            MessageType.CONFIRM,
            answer.exchange,
            spi_initiator=spi_in,
            spi_responder=spi_out,
            nonce_responder=answer.nonce_responder,
        )
        self._enter(Phase.CONFIRMING)
        self._transmissions = 0
        self._transmit(now_ns)

    def _done(self, now_ns: int) -> None:
        self._failures = 0
        self._retire_older(now_ns)
        self._enter(Phase.IDLE)

    def _fail(self, reason: str, now_ns: int) -> None:
        self._secret = b""
        self._failures += 1
        wait_ns = min(self.config.retransmit_ns << self._failures, _LONGEST_RETRY_NS)
        self._begin_at_ns = now_ns + wait_ns
        self._emit(Failed(reason))
        self._enter(Phase.IDLE)

    def _transmit(self, now_ns: int) -> None:
        self._retransmit_at_ns = now_ns + (self.config.retransmit_ns << self._transmissions)
        self._transmissions += 1
        self._emit(SendControl(self._codec.seal(self._request)))

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._emit(Entered(phase))
