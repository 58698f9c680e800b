"""IKE_SA_INIT, IKE_INTERMEDIATE and IKE_AUTH as the end that begins (RFC 7296 §1.2)."""

from __future__ import annotations

from gateways.ike.auth import identity
from gateways.ike.config import Keying
from gateways.ike.crypto import DiffieHellman
from gateways.ike.handshake import (
    NONCE_OCTETS,
    MlKem,
    abilities,
    common_abilities,
    first_keys,
    further_keys,
    note_intermediate,
    notices,
    signed_octets,
)
from gateways.ike.host import (
    Host,
    agreed_child,
    direct_notice,
    group_of,
    make_first_child,
    offer_child,
    own_key,
)
from gateways.ike.numbers import Exchange, Kind, Notice, Protocol
from gateways.ike.payloads import (
    KeyExchange,
    Notify,
    Payload,
    Typed,
    parse_sa,
    sa_payload,
)
from gateways.ike.ppk import confirmation, identity_key, keys_with_ppk, ppk_identity
from gateways.ike.proposals import IkeChoice, child_choices, choose, ike_choices, proposals
from gateways.ike.sa import Handshake, IkeSa
from gateways.ike.tasks import Ask, ExchangeFailed, KeyResult, Message, Task, check_answer

_MAX_TRIES = 4
"""Of IKE_SA_INIT: with a cookie, with another group, or both."""
_AUTH_ID = 1


def establish(host: Host, sa: IkeSa) -> Task[None]:
    """An IKE SA and its first pair of child SAs.

    The key comes first: what waits for a KMS shall not hold a half-open SA at the peer.
    """
    key = None
    if host.config.keying is not Keying.NONE:
        key = yield from own_key(host)
    choice = yield from _init(host, sa)
    if (
        key is not None
        and host.config.keying is Keying.PPK
        and not (sa.peer.ppk or sa.peer.ppk_int)
    ):
        host.policy_used("the peer does not take PPKs")
        key = None
    if sa.peer.ppk_int or choice.ml_kem:
        key = yield from _intermediate(host, sa, choice, key)
    yield from _authenticate(host, sa, key)


def _init(host: Host, sa: IkeSa) -> Task[IkeChoice]:
    config = host.config
    choices = ike_choices(config.ike_suites, config.groups, ml_kem=config.ml_kem)
    sa.ni = host.token_bytes(NONCE_OCTETS)
    cookie: list[Payload] = []
    dh = DiffieHellman(config.groups[0])
    for _ in range(_MAX_TRIES):
        sa.begin_at(request_id=0, expected_id=0)
        request = [
            *cookie,
            sa_payload(proposals(choices, Protocol.IKE, b"")),
            KeyExchange(dh.group, dh.public).payload(),
            Payload(Kind.NONCE, sa.ni),
            *notices(config, sa.spi_i, sa.spi_r),
            *abilities(config),
        ]
        answer: Message = yield Ask(Exchange.IKE_SA_INIT, request)
        payloads = answer.payloads()
        wanted = payloads.notify(Notice.COOKIE)
        other = payloads.notify(Notice.INVALID_KE_PAYLOAD)
        if wanted is not None:
            cookie = [Notify(Notice.COOKIE, wanted.data).payload()]
        elif other is not None:
            group = int.from_bytes(other.data)
            if group not in config.groups or group == dh.group:
                raise ExchangeFailed(f"the peer wants key exchange method {group}")
            dh = DiffieHellman(group)
        else:
            return _agree(host, sa, answer, choices, dh)
    raise ExchangeFailed(f"the peer did not take {_MAX_TRIES} IKE_SA_INIT requests")


def _agree(
    host: Host, sa: IkeSa, answer: Message, choices: list[IkeChoice], dh: DiffieHellman
) -> IkeChoice:
    payloads = answer.payloads()
    check_answer(payloads)
    chosen = parse_sa(payloads.one(Kind.SA))
    found = choose(chosen, choices, Protocol.IKE, 0)
    exchange = group_of(payloads)
    if (
        found is None
        or len(chosen) != 1
        or exchange is None
        or not exchange[0] == dh.group == found[0].group
    ):
        raise ExchangeFailed("the peer chose what was not offered")
    sa.spi_r, sa.nr = answer.header.spi_r, payloads.nonce()
    sa.handshake = Handshake(sa.sent, answer.octets)
    sa.peer, _ = common_abilities(host.config, payloads)
    needed = host.config.keying is Keying.PPK and host.config.key_required
    if needed and not (sa.peer.ppk or sa.peer.ppk_int):
        raise ExchangeFailed("the peer does not take PPKs, and one is required")
    first_keys(sa, found[0].suite, dh.shared(exchange[1]))
    return found[0]


def _intermediate(
    host: Host, sa: IkeSa, choice: IkeChoice, key: KeyResult | None
) -> Task[KeyResult | None]:
    """One exchange for both: ML-KEM (RFC 9370) and, applied after it, the PPK (RFC 9867)."""
    kem = MlKem() if choice.ml_kem else None
    request = [] if kem is None else [KeyExchange(kem.group, kem.public).payload()]
    offers = sa.peer.ppk_int and key is not None
    if offers and key is not None:
        shown = confirmation(key.key, sa.ni + sa.nr, sa.spi_i, sa.spi_r)
        request.append(identity_key(key.key_id, shown))
    answer: Message = yield Ask(Exchange.IKE_INTERMEDIATE, request)
    payloads = answer.payloads()
    check_answer(payloads)
    note_intermediate(sa, sa.sealed_octets, answer.octets)
    keys = sa.secrets()
    if kem is not None:
        exchange = group_of(payloads)
        if exchange is None or exchange[0] != kem.group:
            raise ExchangeFailed("the peer did not answer the additional key exchange")
        keys = further_keys(sa, choice.suite, keys, kem.shared(exchange[1]))
    if offers and key is not None:
        taken = payloads.notify(Notice.PPK_IDENTITY)
        if taken is not None and taken.data == ppk_identity(key.key_id):
            keys = keys_with_ppk(choice.suite, keys, sa.seed, key.key)
            sa.key_id = key.key_id
        else:
            _untaken(host)
            key = None
    sa.protect(choice.suite, keys)
    return key


def _untaken(host: Host) -> None:
    """The peer did without our PPK."""
    if host.config.key_required:
        raise ExchangeFailed("the peer does not have the PPK, and it is required")
    host.policy_used("the peer does not have the PPK")


def _authenticate(host: Host, sa: IkeSa, key: KeyResult | None) -> Task[None]:
    config, children = host.config, host.children
    made_ns, alone = host.now_ns, host.alone()
    plain = sa.secrets()
    in_auth = sa.peer.ppk and key is not None
    mixed = plain.with_ppk(key.key) if in_auth and key is not None else plain
    own = identity(config.own_id)
    auth_id = _AUTH_ID + (1 if sa.handshake and sa.handshake.int_auth_i else 0)
    octets = signed_octets(sa, mixed, own, auth_id, initiator=True)
    digital = sa.peer.digital_signatures
    request = [
        Payload(Kind.IDI, own.body()),
        *config.credentials.certificate(),
        *config.credentials.request(),
        Payload(Kind.IDR, identity(config.peer_id).body()),
        Payload(Kind.AUTH, config.credentials.prove(octets, digital=digital).body()),
    ]
    if alone:
        request.append(Notify(Notice.INITIAL_CONTACT).payload())
    if in_auth and key is not None:
        request.append(Notify(Notice.PPK_IDENTITY, ppk_identity(key.key_id)).payload())
        if not config.key_required:
            octets = signed_octets(sa, plain, own, auth_id, initiator=True)
            without = config.credentials.prove(octets, digital=digital)
            request.append(Notify(Notice.NO_PPK_AUTH, without.data).payload())
    direct = key if config.keying is Keying.DIRECT else None
    choices = child_choices(config.suites, ())
    spi = children.fresh_spi()
    request += [*offer_child(config, choices, spi), *direct_notice(direct)]
    answer: Message = yield Ask(Exchange.IKE_AUTH, request)
    payloads = answer.payloads()
    if not payloads.has(Kind.AUTH):
        check_answer(payloads)
    if in_auth and key is not None:
        if payloads.notify(Notice.PPK_IDENTITY) is not None:
            sa.key_id = key.key_id
        else:
            _untaken(host)
            mixed = plain
    peer = Typed.parse(payloads.one(Kind.IDR))
    if peer != identity(config.peer_id):
        raise ExchangeFailed("the peer is not who it should be")
    octets = signed_octets(sa, mixed, peer, auth_id, initiator=False)
    auth = Typed.parse(payloads.one(Kind.AUTH))
    config.credentials.check(peer, payloads, auth, octets)
    sa.keys = mixed
    if payloads.error() is not None:  # the child SAs have failed, the IKE SA has not
        host.established(sa, initial_contact=alone, childless=True)
        check_answer(payloads)
    if direct is not None and payloads.notify(Notice.QKD_KEY) is None:
        _untaken(host)
        direct = None
    agreed = agreed_child(config, payloads, choices, spi)
    child = make_first_child(host, sa, agreed, direct, asked=True, made_ns=made_ns)
    children.install(child, host.now_ns)
    host.established(sa, initial_contact=alone)
    children.use(child)
