"""One end of a tunnel's key agreement: IKE SAs, their timers, the KMS, the policy. No socket, no clock.

Datagrams, keys and time go in; `events` come out, and the caller carries them out. Whatever is not genuine raises
`ControlError` and changes nothing. An unauthenticated sender gets an answer to one thing alone: a well-formed
IKE_SA_INIT request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from gateways.events import Event, Failed, Phase, Policy, PolicyUsed, SendControl
from gateways.ike.children import Child, Children
from gateways.ike.config import IkeConfig
from gateways.ike.door import Door
from gateways.ike.driver import ESTABLISH, Driver
from gateways.ike.initial_initiator import establish
from gateways.ike.initial_responder import answer_auth, answer_intermediate
from gateways.ike.numbers import Exchange
from gateways.ike.payloads import HEADER_OCTETS, Header, Payloads, parse_header
from gateways.ike.rekey import (
    REKEY_CHILD,
    REKEY_IKE,
    answer_create_child,
    answer_informational,
    create_child,
    delete_child,
    delete_ike,
    probe,
    rekey_ike,
)
from gateways.ike.sa import IkeSa
from gateways.ike.tasks import ExchangeFailed, Message, Reply, Task
from topo.errors import ControlError

_LONGEST_RETRY_NS = 60 * 10**9
_PATIENCE = 1.25
"""How much longer the end that did not begin an IKE SA waits before it replaces it: ends that are in step collide."""


class IkeEndpoint(Driver):
    """IKEv2 with one peer."""

    def __init__(self, config: IkeConfig, token_bytes: Callable[[int], bytes]) -> None:
        super().__init__(config, token_bytes)
        self.used: Counter[Policy] = Counter()
        """How often each policy had to be used."""
        self.heard_ns = 0
        """When the peer last showed that it lives; the data plane sets it at an authentic ESP packet."""
        self.children = Children(config, self._emit, token_bytes)
        self._begin_at_ns: int | None = None
        self._stopped = False
        self._failures = 0
        self._retransmissions = 0
        self._door = Door(self, self._emit)

    # What the caller asks and tells.

    @property
    def retransmissions(self) -> int:
        """Requests sent again."""
        return self._retransmissions + sum(sa.retransmissions for sa in self._sas.values())

    @property
    def half_open(self) -> int:
        """IKE SAs that are not authenticated yet."""
        return sum(not sa.authenticated for sa in self._sas.values())

    def start(self, now_ns: int) -> None:
        """Begin to agree on keys, if that is this end's part."""
        self.now_ns = now_ns
        if self.config.begins:
            self._establish()

    def receive(self, datagram: bytes, now_ns: int) -> None:
        """Take an IKE message. Raises `ControlError` for what is not the peer's, or comes at a wrong time."""
        self.now_ns = now_ns
        header = parse_header(datagram)
        if header.exchange == Exchange.IKE_SA_INIT:
            self._init_message(datagram, header)
            return
        sa = self._sas.get(header.spi_r if header.from_initiator else header.spi_i)
        if sa is None:
            raise ControlError("message of an unknown IKE SA")
        if header.is_response:
            message = sa.accept_response(datagram, header)
            if message is not None:
                self._heard(sa)
                self._resume(sa, message)
            return
        answer = sa.repeated(datagram)
        if answer is not None:
            self._emit(SendControl(answer))
        elif not sa.authenticated and (sa.began or sa.closing):
            # Not established yet, and the peer will ask again; or refused, and it need not.
            raise ControlError("request on an IKE SA that is not established")
        elif datagram != sa.handling:
            message = sa.accept_request(datagram, header, now_ns)
            self._heard(sa)
            self._handle(sa, message)

    def good_packet(self, spi: int, now_ns: int) -> None:
        """Learn that the peer sends on our inbound SA `spi`."""
        self.now_ns = self.heard_ns = now_ns
        self.children.good_packet(spi, now_ns)

    def soft_limit(self, spi: int | None, now_ns: int) -> None:
        """Learn that an SA has carried its soft limit; `spi` is the inbound one of its pair, None the pair in use."""
        self.now_ns = now_ns
        self.children.worn(spi, now_ns)

    def hard_limit(self, spi: int | None, reason: str, now_ns: int) -> None:
        """Learn that an SA has carried all it may, and which of the limits it was; `spi` as for `soft_limit`."""
        self.now_ns = now_ns
        child = self.children.used_up(spi, reason, now_ns)
        if child is not None:
            self._child_ended(child)

    def rekey(self, now_ns: int) -> None:
        """Replace the pair of child SAs in use now."""
        if self.children.current is not None:
            self.children.current.soft_ns = now_ns

    def rekey_ike(self, now_ns: int) -> None:
        """Replace the IKE SA now."""
        for sa in self._established():
            sa.soft_ns = now_ns

    def stop(self, now_ns: int) -> None:
        """Tell the peer that this end goes; sent once, as there will be nobody to hear the answer."""
        self.now_ns = now_ns
        self._begin_at_ns, self._stopped = None, True
        for sa in self._established():
            if sa.pending is None:
                sa.waiting.clear()
                sa.task = None
                self.enqueue(sa, "delete IKE", lambda ike: delete_ike(self, ike))

    def next_deadline_ns(self) -> int | None:
        """When `tick` must be called next."""
        deadlines = [self._begin_at_ns, self.children.next_deadline_ns()]
        for sa in self._sas.values():
            deadlines.append(sa.pending.again_ns if sa.pending else None)
            if not sa.authenticated or (sa.closing and sa.task is None):
                deadlines.append(sa.made_ns + self.config.half_open_ns)
            elif not sa.closing and sa.task is None:
                deadlines += [sa.soft_ns, sa.reauth_ns, self._probe_at_ns(sa)]
        child = self.children.current
        if child is not None and not child.ike.closing and child.ike.task is None:
            deadlines.append(child.soft_ns)
        return min((at for at in deadlines if at is not None), default=None)

    def tick(self, now_ns: int) -> None:
        """Retransmit, replace, end, begin again, as the time says."""
        self.now_ns = now_ns
        ended = self.children.tick(now_ns)
        if ended is not None:
            self._child_ended(ended)
        for sa in list(self._sas.values()):
            self._tick_sa(sa)
        child = self.children.current
        if child is not None and child.soft_ns is not None and child.soft_ns <= now_ns:
            sa = child.ike
            if sa.task is None and not sa.closing:
                child.soft_ns = None
                self.enqueue(sa, REKEY_CHILD, lambda ike: create_child(self, ike, child))
        if self._begin_at_ns is not None and self._begin_at_ns <= now_ns:
            self._establish()

    # What the exchanges ask (`gateways.ike.host.Host`).

    def policy_used(self, reason: str) -> None:
        """Note that policy `hybrid` goes on without a key."""
        self._emit(PolicyUsed(self.config.policy, reason))

    def established(self, sa: IkeSa, *, initial_contact: bool, childless: bool = False) -> None:
        """Take an IKE SA that is now authenticated into use; one that has no child SAs only where there is no other."""
        self._live(sa)
        sa.handshake = None
        others = [other for other in self._established() if other is not sa]
        if childless and others:  # whose child SAs are better than none
            self.enqueue(sa, "delete IKE", lambda ike: delete_ike(self, ike))
            return
        for other in others:
            if initial_contact:
                self.drop(other, "")
            elif sa.began:
                self.enqueue(other, "delete IKE", lambda ike: delete_ike(self, ike))
        self._begin_at_ns = None

    def adopt(self, sa: IkeSa, successor: IkeSa) -> None:
        """Move the child SAs and what waits to be done to the IKE SA that replaces `sa`."""
        self._sas[successor.own_spi] = successor
        for child in self.children.of(sa):
            child.ike = successor
        successor.waiting, sa.waiting = sa.waiting, type(sa.waiting)()
        self._live(successor)
        sa.closing, sa.soft_ns, sa.made_ns = True, None, self.now_ns
        self._next(successor)

    def unknown(self, child: Child) -> None:
        """Leave a pair of child SAs that the peer does not have, and make a new one from scratch (RFC 7296 §2.25.1)."""
        sa = child.ike
        if self.children.end(child, "the peer does not have the SAs", self.now_ns):
            self.enqueue(sa, REKEY_CHILD, lambda ike: create_child(self, ike, None))

    def deleted(self, child: Child) -> None:
        """Leave a pair of child SAs that the peer has deleted."""
        if self.children.deleted(child, self.now_ns):
            self._begin_again()

    def alone(self) -> bool:
        """Whether there is no authenticated IKE SA."""
        return not self._established()

    def drop(self, sa: IkeSa, reason: str) -> None:
        """End an IKE SA and its child SAs. For a while it still answers what the peer sends again."""
        sa.closing, sa.closed, sa.made_ns = True, True, self.now_ns
        sa.task, sa.handler, sa.pending = None, None, None
        sa.waiting.clear()
        sa.erase()
        self._fetches = {token: of for token, of in self._fetches.items() if of[0] is not sa}
        self.children.leave(self.children.of(sa), self.now_ns)
        if reason and self.alone():  # else another has taken its place
            self._emit(Failed(reason))
        if self.children.current is None:
            self._begin_again()

    # Exchanges of our own.

    def _established(self) -> list[IkeSa]:
        return [sa for sa in self._sas.values() if sa.authenticated and not sa.closing]

    def _establish(self) -> None:
        self._begin_at_ns = None
        sa = IkeSa(self.config, self.token_bytes, self.fresh_ike_spi(), bytes(8), began=True)
        sa.made_ns = self.now_ns
        self._sas[sa.own_spi] = sa
        self.enqueue(sa, ESTABLISH, lambda ike: establish(self, ike))

    def _done(self, sa: IkeSa) -> None:
        if sa.doing in (ESTABLISH, REKEY_CHILD):
            self._failures = 0
        sa.task, sa.doing = None, ""
        self._enter(Phase.IDLE)
        self._next(sa)

    def _failed(self, sa: IkeSa, error: ControlError) -> None:
        doing = sa.doing
        sa.task, sa.doing = None, ""
        self._enter(Phase.IDLE)
        soon = isinstance(error, ExchangeFailed) and error.retry_soon
        if not soon:
            self._emit(Failed(f"{doing}: {error}"))
        if doing == ESTABLISH and not sa.authenticated:
            self.drop(sa, "")
            self._begin_again()
            return
        if doing == REKEY_IKE:
            sa.failures += not soon
            sa.soft_ns = self._retry_at_ns(sa.failures + (1 if sa.began else 3))
        elif doing == REKEY_CHILD or (doing == ESTABLISH and self.children.current is None):
            self._child_failed(soon=soon)
        self._next(sa)

    def _child_failed(self, *, soon: bool) -> None:
        child = self.children.current
        if child is None:
            self._begin_again()
        elif not child.leaving and child.rival is None:
            child.failures += not soon
            child.soft_ns = self._retry_at_ns(child.failures)

    def _child_ended(self, child: Child) -> None:
        """A pair of child SAs has ended without a successor: tell the peer, and try to have another."""
        sa = child.ike
        self._begin_again()
        if not sa.closing:
            self.enqueue(sa, "delete child", lambda ike: delete_child(self, ike, child))

    def _begin_again(self) -> None:
        """Establish a new IKE SA after a while; longer after each failure."""
        establishing = any(sa.doing == ESTABLISH and not sa.closed for sa in self._sas.values())
        idle = self._begin_at_ns is None and not establishing
        if self.config.begins and idle and not self._stopped:
            self._failures += 1
            self._begin_at_ns = self._retry_at_ns(self._failures)

    def _retry_at_ns(self, failures: int) -> int:
        wait = min(self.config.retransmit_ns << failures, _LONGEST_RETRY_NS)
        return self.now_ns + round(wait * (0.5 + 0.5 * self.children.fraction()))

    # The peer's exchanges.

    def _init_message(self, datagram: bytes, header: Header) -> None:
        message = Message(header, header.first, datagram[HEADER_OCTETS:], datagram)
        if header.is_response:
            sa = self._sas.get(header.spi_i)
            if (
                sa is None
                or sa.pending is None
                or sa.pending.exchange != Exchange.IKE_SA_INIT
                or header.from_initiator
                or header.message_id
            ):
                raise ControlError("answer to no IKE_SA_INIT request of ours")
            payloads = message.payloads()
            if header.spi_r == bytes(8) and not payloads.notifies:
                raise ControlError("responder's SPI is zero")
            sa.pending = None
            self._resume(sa, message)
            return
        if header.message_id or header.spi_r != bytes(8) or not header.from_initiator:
            raise ControlError("IKE_SA_INIT request with a wrong header")
        for sa in self._sas.values():
            answer = sa.repeated(datagram)
            if answer is not None:
                self._emit(SendControl(answer))
                return
        sa = self._door.answer(message, self.half_open)
        if sa is not None:
            self._make_room()
            self._sas[sa.own_spi] = sa

    def _make_room(self) -> None:
        """End the half-open IKE SA that has been silent longest, if there are as many as may be.

        Who sees our cookies can fill all the room there is, and shall not keep the peer out by that.
        """
        if self.half_open >= self.config.half_open_limit:
            others = [sa for sa in self._sas.values() if not sa.authenticated and not sa.began]
            silent = min(others, key=lambda sa: sa.heard_ns, default=None)
            if silent is not None:
                self.drop(silent, "")
                del self._sas[silent.own_spi]

    def _handler(self, sa: IkeSa, message: Message, payloads: Payloads) -> Task[Reply]:
        match message.header.exchange:
            case Exchange.IKE_INTERMEDIATE:
                return answer_intermediate(self, sa, message, payloads)
            case Exchange.IKE_AUTH:
                return answer_auth(self, sa, message, payloads)
            case Exchange.CREATE_CHILD_SA:
                return answer_create_child(self, sa, message, payloads)
            case Exchange.INFORMATIONAL:
                return answer_informational(self, sa, message, payloads)
            case other:
                raise ControlError(f"exchange of type {other}")

    # Time.

    def _live(self, sa: IkeSa) -> None:
        config = self.config
        sa.authenticated, sa.made_ns, sa.heard_ns = True, self.now_ns, self.now_ns
        life = config.ike_rekey_after_ns * (1 - config.jitter * self.children.fraction())
        if not sa.began:
            life *= _PATIENCE
        sa.soft_ns = self.now_ns + round(life)
        if sa.began and config.reauth_after_ns is not None and sa.reauth_ns is None:
            sa.reauth_ns = self.now_ns + config.reauth_after_ns

    def _heard(self, sa: IkeSa) -> None:
        sa.heard_ns = self.heard_ns = self.now_ns

    def _probe_at_ns(self, sa: IkeSa) -> int:
        return max(sa.heard_ns, self.heard_ns) + self.config.dpd_after_ns

    def _tick_sa(self, sa: IkeSa) -> None:
        now_ns, config = self.now_ns, self.config
        ends = not sa.authenticated or (sa.closing and sa.task is None)
        if ends and sa.made_ns + config.half_open_ns <= now_ns:
            late = sa.began and not sa.closed and not sa.authenticated
            self.drop(sa, "the IKE SA was not established in time" if late else "")
            self._retransmissions += sa.retransmissions
            del self._sas[sa.own_spi]
        elif sa.pending is not None:
            if sa.pending.again_ns <= now_ns:
                self._again(sa)
        elif sa.authenticated and not sa.closing and sa.task is None:
            if sa.soft_ns is not None and sa.soft_ns <= now_ns:
                sa.soft_ns = None
                self.enqueue(sa, REKEY_IKE, lambda ike: rekey_ike(self, ike))
            elif sa.reauth_ns is not None and sa.reauth_ns <= now_ns:
                sa.reauth_ns = now_ns + _LONGEST_RETRY_NS
                self._establish()
            elif self._probe_at_ns(sa) <= now_ns:
                self.enqueue(sa, "probe", lambda ike: probe(self, ike))

    def _again(self, sa: IkeSa) -> None:
        """Retransmit, or give up a peer that gives no sign of life by any way."""
        assert sa.pending is not None
        if sa.pending.transmissions < self.config.attempts or (
            sa.authenticated and self.heard_ns > self.now_ns - self.config.dpd_after_ns
        ):
            self._emit(SendControl(sa.retransmit(self.now_ns)))
            return
        what = f"no answer to {sa.pending.transmissions} transmissions: {sa.doing}"
        closing = sa.closing
        self.drop(sa, "")
        if not closing:
            self._emit(Failed(what))
            self._begin_again()

    def _emit(self, event: Event) -> None:
        if isinstance(event, PolicyUsed):
            self.used[event.policy] += 1
        super()._emit(event)
