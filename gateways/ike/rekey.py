"""CREATE_CHILD_SA and INFORMATIONAL: new child SAs, a new IKE SA, deletes, probes (RFC 7296 §1.3, §1.4, §2.8).

Where both ends know RFC 9867, each of these exchanges mixes in a PPK of its own.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.constant_time import bytes_eq

from gateways.ike.children import Child
from gateways.ike.config import Keying
from gateways.ike.crypto import DiffieHellman, SessionKeys, prf
from gateways.ike.handshake import NONCE_OCTETS
from gateways.ike.host import (
    SPI_OCTETS,
    Host,
    agreed_child,
    answer_child,
    direct_notice,
    group_of,
    make_child,
    named_direct_key,
    named_key,
    offer_child,
    own_key,
)
from gateways.ike.numbers import Exchange, Kind, Notice, Protocol
from gateways.ike.payloads import (
    Delete,
    KeyExchange,
    Notify,
    Payload,
    Payloads,
    parse_sa,
    sa_payload,
)
from gateways.ike.ppk import (
    confirmation,
    identity_key,
    parse_identity_key,
    ppk_identity,
    sk_d_with_ppk,
)
from gateways.ike.proposals import (
    IkeChoice,
    accepted,
    child_choices,
    choose,
    ike_choices,
    proposals,
)
from gateways.ike.sa import IkeSa
from gateways.ike.tasks import (
    Ask,
    ExchangeFailed,
    KeyResult,
    Message,
    Refused,
    Reply,
    Task,
    check_answer,
)

_IKE_SPI_OCTETS = 8
REKEY_IKE = "rekey IKE"
REKEY_CHILD = "rekey child"


def _fresh_key(host: Host, sa: IkeSa) -> Task[KeyResult | None]:
    """A key of its own for this exchange, where the two ends can use one."""
    if host.config.keying is Keying.DIRECT or sa.peer.ppk_int:
        return (yield from own_key(host))
    _note_lack(host, sa)
    return None


def _note_lack(host: Host, sa: IkeSa) -> None:
    """Without fresh PPKs (RFC 9867) the exchange rests on the one in SK_d; there may be none under policy `hybrid`."""
    if host.config.keying is Keying.PPK and not sa.key_id:
        host.policy_used("the peer does not take PPKs, or has taken none")


def _offer_ppk(sa: IkeSa, key: KeyResult | None, nonce: bytes) -> list[Payload]:
    if key is None or not sa.peer.ppk_int:
        return []
    return [identity_key(key.key_id, confirmation(key.key, nonce, sa.spi_i, sa.spi_r))]


def _taken(host: Host, key: KeyResult | None, payloads: Payloads) -> KeyResult | None:
    """Our PPK or, in mode `direct`, our key if the peer has taken it; None if it has not and need not."""
    if key is None:
        return None
    direct = host.config.keying is Keying.DIRECT
    taken = payloads.notify(Notice.QKD_KEY if direct else Notice.PPK_IDENTITY)
    if taken is not None and (direct or taken.data == ppk_identity(key.key_id)):
        return key
    if host.config.key_required:
        raise ExchangeFailed("the peer did not take the key, and it is required")
    host.policy_used("the peer did not take the key")
    return None


def _mixed(host: Host, sa: IkeSa, key: KeyResult | None) -> bytes:
    """SK_d, with the PPK if there is one."""
    sk_d = sa.secrets().d
    if key is None or host.config.keying is Keying.DIRECT:
        return sk_d
    return sk_d_with_ppk(sk_d, key.key)


def _named_ppk(host: Host, sa: IkeSa, payloads: Payloads, nonce: bytes) -> Task[KeyResult | None]:
    """The PPK that the peer offers in CREATE_CHILD_SA; None where it cannot, or `hybrid` goes on without."""
    if not sa.peer.ppk_int:
        _note_lack(host, sa)
        return None
    offered = parse_identity_key(payloads)
    if offered is None:
        if host.config.key_required:
            raise Refused(Notice.NO_PROPOSAL_CHOSEN, "the peer offers no PPK, one is required")
        host.policy_used("the peer offers no PPK")
        return None
    key_id, shown = offered
    key = yield from named_key(host, key_id)
    if key is not None and not bytes_eq(shown, confirmation(key.key, nonce, sa.spi_i, sa.spi_r)):
        raise Refused(Notice.NO_PROPOSAL_CHOSEN, f"our key {key_id} is not the peer's")
    return key


def _took(sa: IkeSa, key: KeyResult | None) -> list[Payload]:
    if key is None or not sa.peer.ppk_int:
        return []
    return [Notify(Notice.PPK_IDENTITY, ppk_identity(key.key_id)).payload()]


def create_child(host: Host, sa: IkeSa, old: Child | None) -> Task[None]:
    """A new pair of child SAs, in place of `old` if there is one."""
    config, children = host.config, host.children
    key = yield from _fresh_key(host, sa)
    if old is not None and (old.leaving or old.ike is not sa):
        return  # meanwhile the peer has replaced it
    made_ns, spi = host.now_ns, children.fresh_spi()
    choices = child_choices(config.suites, config.child_groups)
    nonce = host.token_bytes(NONCE_OCTETS)
    dh = DiffieHellman(config.child_groups[0]) if config.child_groups else None
    direct = key if config.keying is Keying.DIRECT else None
    request = [] if old is None else [_rekeyed(old)]
    offered = offer_child(config, choices, spi)
    request += [offered[0], Payload(Kind.NONCE, nonce)]
    if dh is not None:
        request.append(KeyExchange(dh.group, dh.public).payload())
    request += [*offered[1:], *_offer_ppk(sa, key, nonce), *direct_notice(direct)]
    answer: Message = yield Ask(Exchange.CREATE_CHILD_SA, request)
    payloads = answer.payloads()
    if old is not None and old.leaving and payloads.error() is not None:
        return
    if old is not None and payloads.notify(Notice.CHILD_SA_NOT_FOUND) is not None:
        host.unknown(old)
        return
    check_answer(payloads)
    agreed = agreed_child(config, payloads, choices, spi)
    shared, peer_nonce = b"", payloads.nonce()
    if dh is not None:
        exchange = group_of(payloads)
        if exchange is None or not exchange[0] == dh.group == agreed.choice.group:
            raise ExchangeFailed("the peer chose what was not offered")
        shared = dh.shared(exchange[1])
    key = _taken(host, key, payloads)
    child = make_child(
        host,
        sa,
        agreed,
        nonces=(nonce, peer_nonce),
        sk_d=_mixed(host, sa, key),
        shared=shared,
        key=key,
        asked=True,
        made_ns=made_ns,
    )
    late = children.late(made_ns, host.now_ns)
    if late or _redundant(child, old, children.current):
        host.enqueue(sa, "delete redundant child", lambda ike: delete_child(host, ike, child))
        if late:
            raise ExchangeFailed("the answer came after the hard lifetime of what it agrees to")
        return
    children.install(child, host.now_ns)
    children.use(child)
    if old is not None:
        old.leaving = True
        host.enqueue(sa, "delete child", lambda ike: delete_child(host, ike, old))


def _redundant(child: Child, old: Child | None, current: Child | None) -> bool:
    """Whether the pair made in place of `old` is not wanted any more; its maker deletes it (RFC 7296 §2.8.1)."""
    rival = None if old is None else old.rival
    if current not in (None, old, rival):
        return True  # the answer was so long under way that there is a newer pair
    return rival is not None and child.nonce < rival.nonce  # both ends began: the lowest nonce goes


def _rekeyed(old: Child) -> Payload:
    spi = old.spi_in.to_bytes(SPI_OCTETS)
    return Notify(Notice.REKEY_SA, protocol=Protocol.ESP, spi=spi).payload()


def delete_child(host: Host, sa: IkeSa, child: Child) -> Task[None]:
    """Tell the peer that a pair of child SAs is done with; keep its inbound half until the peer has left it."""
    spi = child.spi_in.to_bytes(SPI_OCTETS)
    yield Ask(Exchange.INFORMATIONAL, [Delete(Protocol.ESP, (spi,)).payload()])
    host.children.leave((child,), host.now_ns)


def delete_ike(host: Host, sa: IkeSa, reason: str = "") -> Task[None]:
    """Tell the peer that an IKE SA is done with, and all that is still its own."""
    sa.closing = True
    yield Ask(Exchange.INFORMATIONAL, [Delete(Protocol.IKE).payload()])
    host.drop(sa, reason)


def probe(host: Host, sa: IkeSa) -> Task[None]:
    """Ask whether the peer lives (RFC 7296 §2.4)."""
    yield Ask(Exchange.INFORMATIONAL, [])


def rekey_ike(host: Host, sa: IkeSa) -> Task[None]:
    """A new IKE SA in place of this one; the child SAs move over (RFC 7296 §1.3.2, §2.18)."""
    config = host.config
    key = yield from _fresh_key(host, sa) if config.keying is Keying.PPK else _no_key()
    choices = ike_choices(config.ike_suites, config.groups, ml_kem=False)
    nonce, spi = host.token_bytes(NONCE_OCTETS), host.fresh_ike_spi()
    dh = DiffieHellman(config.groups[0])
    request = [
        sa_payload(proposals(choices, Protocol.IKE, spi)),
        Payload(Kind.NONCE, nonce),
        KeyExchange(dh.group, dh.public).payload(),
        *_offer_ppk(sa, key, nonce),
    ]
    answer: Message = yield Ask(Exchange.CREATE_CHILD_SA, request)
    payloads = answer.payloads()
    check_answer(payloads)
    chosen = parse_sa(payloads.one(Kind.SA))
    found = choose(chosen, choices, Protocol.IKE, _IKE_SPI_OCTETS)
    exchange = group_of(payloads)
    if found is None or len(chosen) != 1 or exchange is None or exchange[0] != dh.group:
        raise ExchangeFailed("the peer chose what was not offered")
    choice, proposal = found
    key = _taken(host, key, payloads)
    new = IkeSa(config, host.token_bytes, spi, proposal.spi, began=True)
    _succeed(
        sa,
        new,
        choice=choice,
        sk_d=_mixed(host, sa, key),
        shared=dh.shared(exchange[1]),
        nonces=(nonce, payloads.nonce()),
        key=key,
    )
    host.adopt(sa, new)
    host.enqueue(sa, "delete IKE", lambda ike: delete_ike(host, ike))


def _no_key() -> Task[None]:
    return None
    yield  # a generator that never waits


def _succeed(
    sa: IkeSa,
    new: IkeSa,
    *,
    choice: IkeChoice,
    sk_d: bytes,
    shared: bytes,
    nonces: tuple[bytes, bytes],
    key: KeyResult | None,
) -> None:
    """SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr) and the keys of the new IKE SA."""
    new.ni, new.nr = nonces
    new.reauth_ns = sa.reauth_ns
    new.peer, new.key_id = sa.peer, key.key_id if key is not None else sa.key_id
    skeyseed = prf(sk_d, shared + new.ni + new.nr)
    new.protect(choice.suite, SessionKeys.derive(choice.suite, skeyseed, new.seed))


def answer_create_child(host: Host, sa: IkeSa, message: Message, payloads: Payloads) -> Task[Reply]:
    """The answer to CREATE_CHILD_SA: a new IKE SA, or a pair of child SAs, new or in place of an old one."""
    if not sa.authenticated:
        raise Refused(Notice.INVALID_SYNTAX, "CREATE_CHILD_SA before IKE_AUTH")
    _refuse_if_closing(sa)
    offered = parse_sa(payloads.one(Kind.SA))
    if any(proposal.protocol == Protocol.IKE for proposal in offered):
        return (yield from _answer_rekey_ike(host, sa, payloads))
    return (yield from _answer_child(host, sa, payloads))


def _refuse_if_closing(sa: IkeSa) -> None:
    """Ask again when a key has come: meanwhile another IKE SA may have been established, and this one goes."""
    if sa.closing:
        raise Refused(Notice.TEMPORARY_FAILURE, "the IKE SA is being replaced or deleted")


def _answer_rekey_ike(host: Host, sa: IkeSa, payloads: Payloads) -> Task[Reply]:
    if sa.task is not None:
        # What is under way here belongs to this IKE SA; both ends try again after a random time (§2.25.2).
        raise Refused(Notice.TEMPORARY_FAILURE, f"this end is busy: {sa.doing}")
    config = host.config
    choices = ike_choices(config.ike_suites, config.groups, ml_kem=False)
    offered = parse_sa(payloads.one(Kind.SA))
    found = choose(offered, choices, Protocol.IKE, _IKE_SPI_OCTETS)
    exchange, nonce = group_of(payloads), payloads.nonce()
    if found is None or exchange is None:
        raise Refused(Notice.NO_PROPOSAL_CHOSEN, "no proposal for IKE is acceptable")
    if exchange[0] != found[0].group:
        same = [choice for choice in choices if choice.group == exchange[0]]
        again = choose(offered, same, Protocol.IKE, _IKE_SPI_OCTETS)
        if again is None:
            wanted = found[0].group.to_bytes(2)
            raise Refused(Notice.INVALID_KE_PAYLOAD, "another key exchange is wanted", wanted)
        found = again
    choice, proposal = found
    key = yield from _named_ppk(host, sa, payloads, nonce)
    _refuse_if_closing(sa)
    dh = DiffieHellman(choice.group)
    own_nonce, spi = host.token_bytes(NONCE_OCTETS), host.fresh_ike_spi()
    new = IkeSa(config, host.token_bytes, proposal.spi, spi, began=False)
    _succeed(
        sa,
        new,
        choice=choice,
        sk_d=_mixed(host, sa, key),
        shared=dh.shared(exchange[1]),
        nonces=(nonce, own_nonce),
        key=key,
    )
    answer = [
        sa_payload([accepted(choice, proposal, spi)]),
        Payload(Kind.NONCE, own_nonce),
        KeyExchange(dh.group, dh.public).payload(),
        *_took(sa, key),
    ]
    return Reply(answer, lambda: host.adopt(sa, new))


def _answer_child(host: Host, sa: IkeSa, payloads: Payloads) -> Task[Reply]:
    config, children = host.config, host.children
    if sa.doing == REKEY_IKE:
        raise Refused(Notice.TEMPORARY_FAILURE, "this end is rekeying the IKE SA")
    rekeyed = payloads.notify(Notice.REKEY_SA)
    if rekeyed is not None:
        _replaceable(host, sa, rekeyed.spi)
    nonce, spi = payloads.nonce(), children.fresh_spi()
    groups = config.child_groups
    exchange = group_of(payloads)
    if exchange is not None and exchange[0] in config.groups and not groups:
        groups = (exchange[0],)  # the peer wants more than we asked for
    choices = child_choices(config.suites, groups)
    agreed, said = answer_child(config, payloads, choices, spi)
    shared = b""
    kept: list[Payload] = []
    group = agreed.choice.group
    if group is not None:
        if exchange is None or exchange[0] != group:
            wanted = group.to_bytes(2)
            raise Refused(Notice.INVALID_KE_PAYLOAD, "another key exchange is wanted", wanted)
        dh = DiffieHellman(group)
        shared = dh.shared(exchange[1])
        kept = [KeyExchange(dh.group, dh.public).payload()]
    if config.keying is Keying.DIRECT:
        key = yield from named_direct_key(host, payloads)
    else:
        key = yield from _named_ppk(host, sa, payloads, nonce)
    _refuse_if_closing(sa)
    old = None if rekeyed is None else _replaceable(host, sa, rekeyed.spi)
    own_nonce = host.token_bytes(NONCE_OCTETS)
    child = make_child(
        host,
        sa,
        agreed,
        nonces=(nonce, own_nonce),
        sk_d=_mixed(host, sa, key),
        shared=shared,
        key=key,
        asked=False,
        made_ns=host.now_ns,
    )
    children.install(child, host.now_ns)
    if old is not None:
        old.rival, old.soft_ns = child, None
    named = direct_notice(key) if config.keying is Keying.DIRECT else _took(sa, key)
    answer = [said[0], Payload(Kind.NONCE, own_nonce), *kept, *said[1:], *named]

    def after() -> None:
        if children.current is None:
            children.use(child)

    return Reply(answer, after)


def _replaceable(host: Host, sa: IkeSa, spi: bytes) -> Child:
    old = host.children.by_peer_spi(sa, spi)
    if old is None:
        raise Refused(Notice.CHILD_SA_NOT_FOUND, "no such child SA")
    if old.leaving:
        raise Refused(Notice.TEMPORARY_FAILURE, "that child SA is being deleted")
    return old


def answer_informational(
    host: Host, sa: IkeSa, message: Message, payloads: Payloads
) -> Task[Reply]:
    """The answer to INFORMATIONAL: what the peer deletes is left, the rest is noted and acknowledged."""
    answer: list[Payload] = []
    for body in payloads.bodies(Kind.DELETE):
        delete = Delete.parse(body)
        if delete.protocol == Protocol.IKE:
            # A successor has taken the child SAs over; what is left here goes with the IKE SA.
            return Reply(
                [], lambda: host.drop(sa, "" if sa.closing else "the peer ended the IKE SA")
            )
        ours = []
        for spi in delete.spis if delete.protocol == Protocol.ESP else ():
            child = host.children.by_peer_spi(sa, spi)
            if child is not None:
                ours.append(child.spi_in.to_bytes(SPI_OCTETS))
                host.deleted(child)
        if ours:
            answer.append(Delete(Protocol.ESP, tuple(ours)).payload())
    return Reply(answer)
    yield  # a generator that never waits
