"""What an exchange may ask of the endpoint that drives it, and what several exchanges share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gateways.esp import MIN_SPI, OutboundSa
from gateways.ike.children import Child, Children
from gateways.ike.config import IkeConfig, Keying
from gateways.ike.crypto import prf_plus
from gateways.ike.numbers import Kind, Notice
from gateways.ike.numbers import Protocol as IkeProtocol
from gateways.ike.payloads import (
    KeyExchange,
    Notify,
    Payload,
    Payloads,
    parse_sa,
    parse_selectors,
    sa_payload,
    selectors_payload,
)
from gateways.ike.ppk import key_id_text
from gateways.ike.proposals import (
    ChildChoice,
    accepted,
    choose,
    narrowed,
    proposals,
    selectors_of,
)
from gateways.ike.sa import IkeSa
from gateways.ike.tasks import ExchangeFailed, KeyResult, Need, Refused, Task
from gateways.keys import Direction, SaKeys, derive_sa_keys
from gateways.selectors import TrafficSelectors
from topo.errors import ControlError

SPI_OCTETS = 4


class Host(Protocol):
    """The endpoint, as an exchange sees it."""

    config: IkeConfig
    token_bytes: Callable[[int], bytes]
    children: Children
    now_ns: int

    def policy_used(self, reason: str) -> None:
        """Note that policy `hybrid` goes on without a key."""

    def established(self, sa: IkeSa, *, initial_contact: bool, childless: bool = False) -> None:
        """Take an IKE SA that is now authenticated into use."""

    def adopt(self, sa: IkeSa, successor: IkeSa) -> None:
        """Move the child SAs of `sa` to the IKE SA that replaces it."""

    def unknown(self, child: Child) -> None:
        """Leave a pair of child SAs that the peer does not have, and make a new one."""

    def deleted(self, child: Child) -> None:
        """Leave a pair of child SAs that the peer has deleted."""

    def alone(self) -> bool:
        """Whether there is no authenticated IKE SA."""

    def drop(self, sa: IkeSa, reason: str) -> None:
        """End an IKE SA and its child SAs; `reason` empty: as it was meant to."""

    def enqueue(self, sa: IkeSa, name: str, make: Callable[[IkeSa], Task[Any]]) -> None:
        """Do this once what is under way is done."""

    def fresh_ike_spi(self) -> bytes:
        """An SPI of 8 octets that is not in use."""


def own_key(host: Host) -> Task[KeyResult | None]:
    """A new key of our KMS, or None where policy `hybrid` goes on without."""
    result: KeyResult = yield Need()
    if result.key:
        return result
    if host.config.key_required:
        raise ExchangeFailed(f"no key: {result.reason}")
    host.policy_used(result.reason)
    return None


def named_key(
    host: Host, key_id: str, refusal: Notice = Notice.NO_PROPOSAL_CHOSEN
) -> Task[KeyResult | None]:
    """The key the peer names; None if our KMS does not have it and the policy is `hybrid`, else `refusal`."""
    result: KeyResult = yield Need(key_id)
    if result.key:
        return result
    if host.config.key_required:
        raise Refused(refusal, f"no key {key_id}: {result.reason}")
    host.policy_used(result.reason)
    return None


def direct_notice(key: KeyResult | None) -> list[Payload]:
    """What names the key that a pair of child SAs is keyed with directly."""
    return [] if key is None else [Notify(Notice.QKD_KEY, key.key_id.encode()).payload()]


def named_direct_key(host: Host, payloads: Payloads) -> Task[KeyResult | None]:
    """The key that the peer wants a pair of child SAs keyed with directly; None where `hybrid` goes on without."""
    notify = payloads.notify(Notice.QKD_KEY)
    if notify is not None:
        return (yield from named_key(host, key_id_text(notify.data)))
    if host.config.key_required:
        raise Refused(Notice.NO_PROPOSAL_CHOSEN, "the peer names no key, and one is required")
    host.policy_used("the peer names no key")
    return None


def offer_child(config: IkeConfig, choices: Sequence[ChildChoice], spi: int) -> list[Payload]:
    """SA, TSi and TSr payloads of an initiator."""
    offered = proposals(choices, IkeProtocol.ESP, spi.to_bytes(SPI_OCTETS))
    return [sa_payload(offered), *_selectors(config.local, config.remote)]


def _selectors(initiator: Any, responder: Any) -> list[Payload]:
    return [
        selectors_payload(Kind.TSI, selectors_of(initiator)),
        selectors_payload(Kind.TSR, selectors_of(responder)),
    ]


@dataclass(frozen=True, slots=True)
class Agreed:
    """A pair of child SAs as both ends want it: algorithms, SPIs (inbound, outbound), the traffic."""

    choice: ChildChoice
    spis: tuple[int, int]
    selectors: TrafficSelectors


def agreed_child(
    config: IkeConfig, payloads: Payloads, choices: Sequence[ChildChoice], spi: int
) -> Agreed:
    """What the responder chose, `spi` being ours. Raises `ExchangeFailed`."""
    chosen = parse_sa(payloads.one(Kind.SA))
    found = choose(chosen, choices, IkeProtocol.ESP, SPI_OCTETS)
    if found is None or len(chosen) != 1:
        raise ExchangeFailed("the peer chose what was not offered")
    selectors = _narrow(config, payloads, Kind.TSI, Kind.TSR)
    if selectors is None:
        raise ExchangeFailed("the peer chose traffic selectors that were not offered")
    return Agreed(found[0], (spi, int.from_bytes(found[1].spi)), selectors)


def answer_child(
    config: IkeConfig, payloads: Payloads, choices: Sequence[ChildChoice], spi: int
) -> tuple[Agreed, list[Payload]]:
    """A responder's choice, `spi` being ours, and the payloads SA, TSi and TSr that tell it. Raises `Refused`."""
    found = choose(parse_sa(payloads.one(Kind.SA)), choices, IkeProtocol.ESP, SPI_OCTETS)
    if found is None:
        raise Refused(Notice.NO_PROPOSAL_CHOSEN, "no proposal for ESP is acceptable")
    choice, proposal = found
    selectors = _narrow(config, payloads, Kind.TSR, Kind.TSI)
    if selectors is None:
        raise Refused(Notice.TS_UNACCEPTABLE, "no traffic selector is acceptable")
    answer = sa_payload([accepted(choice, proposal, spi.to_bytes(SPI_OCTETS))])
    traffic = _selectors(selectors.remote, selectors.local)
    return Agreed(choice, (spi, int.from_bytes(proposal.spi)), selectors), [answer, *traffic]


def _narrow(
    config: IkeConfig, payloads: Payloads, ours: Kind, theirs: Kind
) -> TrafficSelectors | None:
    local = narrowed(parse_selectors(payloads.one(ours)), config.local)
    remote = narrowed(parse_selectors(payloads.one(theirs)), config.remote)
    return TrafficSelectors(local, remote) if local and remote else None


def make_child(
    host: Host,
    sa: IkeSa,
    agreed: Agreed,
    *,
    nonces: tuple[bytes, bytes],
    sk_d: bytes,
    shared: bytes,
    key: KeyResult | None,
    asked: bool,
    made_ns: int,
) -> Child:
    """A pair of child SAs (RFC 7296 §2.17). `asked`: this end began the exchange.

    KEYMAT is the asking end's sending keys, then the other's. In mode `direct` each half comes from the QKD key. The
    pair goes by the name of `key`; without one, by that of the PPK in SK_d where the peer knows no fresher (RFC 8784).
    """
    suite, (spi_in, spi_out) = agreed.choice.suite, agreed.spis
    expect(spi_out >= MIN_SPI, f"SPI {spi_out} is reserved")
    key_id = sa.key_id if sa.peer.ppk else ""
    directions = Direction.TO_RESPONDER, Direction.TO_INITIATOR
    if host.config.keying is Keying.DIRECT and key is not None:
        receivers = (spi_out, spi_in) if asked else (spi_in, spi_out)
        keys = [
            derive_sa_keys(
                key.key,
                key_id=key.key_id,
                direction=direction,
                spi=spi,
                freshness=nonces[0] + nonces[1],
                suite=suite,
            )
            for direction, spi in zip(directions, receivers, strict=True)
        ]
    else:
        n = suite.keymat_octets
        material = prf_plus(sk_d, shared + nonces[0] + nonces[1], 2 * n)
        keys = [SaKeys.from_keymat(suite, material[at : at + n]) for at in (0, n)]
    outbound, inbound = keys if asked else reversed(keys)
    return Child(
        sa,
        spi_in,
        spi_out,
        key_id if key is None else key.key_id,
        inbound,
        outbound,
        OutboundSa(spi_out, outbound),
        agreed.selectors,
        min(nonces),
        made_ns,
    )


def make_first_child(
    host: Host, sa: IkeSa, agreed: Agreed, key: KeyResult | None, *, asked: bool, made_ns: int
) -> Child:
    """The pair of child SAs that comes with an IKE SA, out of that one's nonces."""
    child = make_child(
        host,
        sa,
        agreed,
        nonces=(sa.ni, sa.nr),
        sk_d=sa.secrets().d,
        shared=b"",
        key=key,
        asked=asked,
        made_ns=made_ns,
    )
    child.key_id = child.key_id or sa.key_id  # which was fresh
    return child


def group_of(payloads: Payloads) -> tuple[int, bytes] | None:
    """Method and public value of the KE payload, if there is one."""
    if not payloads.has(Kind.KE):
        return None
    exchange = KeyExchange.parse(payloads.one(Kind.KE))
    return exchange.group, exchange.data


def expect(condition: bool, what: str) -> None:
    """Raise `ControlError` unless `condition`."""
    if not condition:
        raise ControlError(what)
