"""The responder's half of the key agreement (`gateways.control`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateways.control import (
    ControlConfig,
    Endpoint,
    Failed,
    FetchKeyById,
    SaPair,
    SendControl,
)
from gateways.keys import ENCR_AES_GCM_16, Direction, derive_sa_keys
from gateways.messages import NONCE_OCTETS, ControlCodec, Message, MessageType
from topo.errors import ControlError

_EXCHANGES_KEPT = 4
"""Exchanges whose answer can be repeated. The initiator has one under way at a time."""


@dataclass(slots=True)
class _Exchange:
    proposal: Message
    answer: Message | None = None
    pair: SaPair | None = None


class Responder(Endpoint):
    """Answers proposals; sends on a new SA once the initiator shows that it has it."""

    def __init__(
        self, config: ControlConfig, codec: ControlCodec, token_bytes: Callable[[int], bytes]
    ) -> None:
        super().__init__(config, codec, token_bytes)
        self._exchanges: dict[bytes, _Exchange] = {}
        self._highest_counter: dict[bytes, int] = {}
        """By session. Only authenticated messages add to it: one entry a restart of the peer."""

    def receive(self, data: bytes, now_ns: int) -> None:
        """Take a request. A repeated one gets the same answer, a replayed old one none."""
        request = self._codec.open(data)
        if request.type is MessageType.PROPOSE:
            self._proposed(request)
        elif request.type is MessageType.CONFIRM:
            self._confirmed(request, now_ns)
        else:
            raise ControlError(f"{request.type.name} is not an initiator's message")

    def key_fetched(self, exchange: bytes, key_id: str, key: bytes, now_ns: int) -> None:
        """Install the inbound SA, then accept the proposal."""
        state = self._exchanges.get(exchange)
        if state is None or state.answer is not None:
            return
        proposal = state.proposal
        spi_in, spi_out = self._fresh_spi(), proposal.spi_initiator
        nonce = self._token_bytes(NONCE_OCTETS)
        inbound, outbound = (
            derive_sa_keys(
                key, key_id=key_id, direction=direction, spi=spi, freshness=exchange + nonce
            )
            for direction, spi in (
                (Direction.TO_RESPONDER, spi_in),
                (Direction.TO_INITIATOR, spi_out),
            )
        )
        generation = self._install_inbound(spi_in, key_id, inbound, now_ns)
        state.pair = SaPair(generation, now_ns, key_id, spi_in, spi_out, outbound)
        self._answer(
            state,
            Message(
                MessageType.ACCEPT,
                exchange,
                spi_initiator=spi_out,
                spi_responder=spi_in,
                nonce_responder=nonce,
            ),
        )

    def key_refused(self, exchange: bytes, reason: str, now_ns: int) -> None:
        """Refuse the proposal."""
        state = self._exchanges.get(exchange)
        if state is not None and state.answer is None:
            self._emit(Failed(reason))
            self._reject(state, "no such key at this site")

    def good_packet(self, spi: int, now_ns: int) -> None:
        """The initiator sends on a new SA: so it has both, and we may use ours."""
        for state in self._exchanges.values():
            if state.pair is not None and state.pair.spi_in == spi:
                self._use(state.pair, now_ns)

    def _proposed(self, proposal: Message) -> None:
        known = self._exchanges.get(proposal.exchange)
        if known is not None:
            if known.answer is not None:
                self._emit(SendControl(self._codec.seal(known.answer)))
            return
        if proposal.counter <= self._highest_counter.get(proposal.session, 0):
            raise ControlError(f"replayed proposal {proposal.counter}")
        self._highest_counter[proposal.session] = proposal.counter
        state = self._exchanges[proposal.exchange] = _Exchange(proposal)
        while len(self._exchanges) > _EXCHANGES_KEPT:
            del self._exchanges[next(iter(self._exchanges))]
        if proposal.algorithm != ENCR_AES_GCM_16:
            self._reject(state, f"algorithm {proposal.algorithm} is not supported")
        else:
            self._emit(FetchKeyById(proposal.exchange, proposal.text))

    def _confirmed(self, request: Message, now_ns: int) -> None:
        state = self._exchanges.get(request.exchange)
        if state is None or state.pair is None or state.pair.spi_in != request.spi_responder:
            raise ControlError("CONFIRM of an exchange that was not accepted")
        self._use(state.pair, now_ns)
        done = Message(
            MessageType.DONE,
            request.exchange,
            spi_initiator=request.spi_initiator,
            spi_responder=request.spi_responder,
        )
        self._emit(SendControl(self._codec.seal(done)))

    def _use(self, pair: SaPair, now_ns: int) -> None:
        if pair.spi_in not in self._inbound:
            return  # its hard lifetime has passed: not to be revived by a late message
        if self._current is None or pair.generation > self._current.generation:
            self._switch(pair)
            self._retire_older(now_ns)

    def _reject(self, state: _Exchange, reason: str) -> None:
        self._answer(
            state,
            Message(
                MessageType.REJECT,
                state.proposal.exchange,
                spi_initiator=state.proposal.spi_initiator,
                text=reason,
            ),
        )

    def _answer(self, state: _Exchange, answer: Message) -> None:
        state.answer = answer
        self._emit(SendControl(self._codec.seal(answer)))
