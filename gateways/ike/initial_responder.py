"""IKE_SA_INIT, IKE_INTERMEDIATE and IKE_AUTH as the end that answers (RFC 7296 §1.2)."""

from __future__ import annotations

from cryptography.hazmat.primitives.constant_time import bytes_eq

from gateways.ike.auth import identity
from gateways.ike.children import Child
from gateways.ike.config import Keying
from gateways.ike.crypto import DiffieHellman, SessionKeys
from gateways.ike.handshake import (
    NONCE_OCTETS,
    common_abilities,
    first_keys,
    further_keys,
    ml_kem_answer,
    note_intermediate,
    notices,
    signed_octets,
)
from gateways.ike.host import (
    Host,
    answer_child,
    direct_notice,
    group_of,
    make_first_child,
    named_direct_key,
    named_key,
)
from gateways.ike.numbers import GROUP_ML_KEM_768, Kind, Notice, Protocol
from gateways.ike.payloads import (
    KeyExchange,
    Notify,
    Payload,
    Payloads,
    Typed,
    parse_sa,
    sa_payload,
)
from gateways.ike.ppk import (
    confirmation,
    key_id_of,
    keys_with_ppk,
    parse_identity_key,
    ppk_identity,
)
from gateways.ike.proposals import accepted, child_choices, choose, ike_choices
from gateways.ike.sa import IkeSa
from gateways.ike.tasks import KeyResult, Message, Refused, Reply, Task
from topo.errors import ControlError

__all__ = ["answer_auth", "answer_init", "answer_intermediate"]


def answer_init(host: Host, message: Message, payloads: Payloads) -> tuple[IkeSa, list[Payload]]:
    """A half-open IKE SA and what to answer. Raises `Refused` or `ControlError`."""
    config = host.config
    choices = ike_choices(config.ike_suites, config.groups, ml_kem=config.ml_kem)
    found = choose(parse_sa(payloads.one(Kind.SA)), choices, Protocol.IKE, 0)
    exchange, nonce = group_of(payloads), payloads.nonce()
    if found is None or exchange is None:
        raise Refused(Notice.NO_PROPOSAL_CHOSEN, "no proposal for IKE is acceptable")
    choice, proposal = found
    if exchange[0] != choice.group:
        # The guessed group will do if it is in a proposal that we take too.
        same = [c for c in choices if c.group == exchange[0]]
        again = choose([proposal], same, Protocol.IKE, 0)
        if again is None:
            wanted = choice.group.to_bytes(2)
            raise Refused(Notice.INVALID_KE_PAYLOAD, "another key exchange is wanted", wanted)
        choice = again[0]
    dh = DiffieHellman(choice.group)
    shared = dh.shared(exchange[1])
    spi_i, spi_r = message.header.spi_i, host.fresh_ike_spi()
    sa = IkeSa(config, host.token_bytes, spi_i, spi_r, began=False)
    sa.ni, sa.nr = nonce, host.token_bytes(NONCE_OCTETS)
    sa.ml_kem = choice.ml_kem
    sa.peer, said = common_abilities(config, payloads)
    first_keys(sa, choice.suite, shared)
    return sa, [
        sa_payload([accepted(choice, proposal, b"")]),
        KeyExchange(dh.group, dh.public).payload(),
        Payload(Kind.NONCE, sa.nr),
        *notices(config, spi_i, spi_r),
        *config.credentials.request(),
        *said,
    ]


def answer_intermediate(host: Host, sa: IkeSa, message: Message, payloads: Payloads) -> Task[Reply]:
    """ML-KEM and the PPK, in this order; the new keys protect from the next message on."""
    keys, suite = sa.secrets(), sa.suite
    assert suite is not None
    if sa.authenticated or not (sa.peer.ppk_int or sa.ml_kem) or sa.intermediate_done:
        raise Refused(Notice.INVALID_SYNTAX, "IKE_INTERMEDIATE out of place")
    answer: list[Payload] = []
    if sa.ml_kem:
        exchange = group_of(payloads)
        if exchange is None or exchange[0] != GROUP_ML_KEM_768:
            raise Refused(Notice.INVALID_SYNTAX, "the additional key exchange is missing")
        shared, ciphertext = ml_kem_answer(exchange[1])
        answer.append(KeyExchange(GROUP_ML_KEM_768, ciphertext).payload())
        keys = further_keys(sa, suite, keys, shared)
    key = None
    offered = parse_identity_key(payloads) if sa.peer.ppk_int else None
    if offered is not None:
        key = yield from _confirmed(host, sa, *offered)
    if sa.peer.ppk_int and offered is None:
        if host.config.key_required:
            raise Refused(Notice.AUTHENTICATION_FAILED, "the peer offers no PPK that we have")
        host.policy_used("the peer offers no PPK")
    if key is not None:
        sa.key_id = key.key_id
        answer.append(Notify(Notice.PPK_IDENTITY, ppk_identity(key.key_id)).payload())
        keys = keys_with_ppk(suite, keys, sa.seed, key.key)

    def after() -> None:
        note_intermediate(sa, message.octets, sa.sealed_octets)
        sa.protect(suite, keys)
        sa.intermediate_done = True

    return Reply(answer, after)


def _confirmed(host: Host, sa: IkeSa, key_id: str, shown: bytes) -> Task[KeyResult | None]:
    """The PPK that the peer names, if ours of that name is the same."""
    key = yield from named_key(host, key_id, Notice.AUTHENTICATION_FAILED)
    if key is None:
        return None
    if not bytes_eq(shown, confirmation(key.key, sa.ni + sa.nr, sa.spi_i, sa.spi_r)):
        raise Refused(Notice.AUTHENTICATION_FAILED, f"our key {key_id} is not the peer's")
    return key


def answer_auth(host: Host, sa: IkeSa, message: Message, payloads: Payloads) -> Task[Reply]:
    """Who the peer is, who we are, and the first pair of child SAs."""
    config = host.config
    if sa.authenticated or ((sa.peer.ppk_int or sa.ml_kem) and not sa.intermediate_done):
        raise Refused(Notice.INVALID_SYNTAX, "IKE_AUTH out of place")
    mixed, without_ppk = yield from _auth_keys(host, sa, payloads)
    peer = Typed.parse(payloads.one(Kind.IDI))
    auth = Typed.parse(payloads.one(Kind.AUTH))
    if without_ppk is not None:
        auth = Typed(auth.type, without_ppk)
    auth_id = message.header.message_id
    octets = signed_octets(sa, mixed, peer, auth_id, initiator=True)
    if peer != identity(config.peer_id):
        raise Refused(Notice.AUTHENTICATION_FAILED, "the peer is not who it should be")
    try:
        config.credentials.check(peer, payloads, auth, octets)
    except ControlError as error:
        raise Refused(Notice.AUTHENTICATION_FAILED, str(error)) from None
    own = identity(config.own_id)
    octets = signed_octets(sa, mixed, own, auth_id, initiator=False)
    proof = config.credentials.prove(octets, digital=sa.peer.digital_signatures)
    answer = [
        Payload(Kind.IDR, own.body()),
        *config.credentials.certificate(),
        Payload(Kind.AUTH, proof.body()),
    ]
    if sa.peer.ppk and sa.key_id:
        answer.append(Notify(Notice.PPK_IDENTITY).payload())
    sa.keys = mixed
    contact = payloads.notify(Notice.INITIAL_CONTACT) is not None
    try:
        child, said = yield from _first_child(host, sa, payloads)
    except Refused as refusal:
        answer += refusal.reply().payloads
        return Reply(answer, lambda: host.established(sa, initial_contact=contact))

    def after() -> None:
        host.established(sa, initial_contact=contact)
        if host.children.current is None:
            host.children.use(child)

    host.children.install(child, host.now_ns)
    return Reply(answer + said, after)


def _auth_keys(host: Host, sa: IkeSa, payloads: Payloads) -> Task[tuple[SessionKeys, bytes | None]]:
    """The keys AUTH is made with, and the AUTH data to check instead if the peer's PPK is not to be had."""
    keys, required = sa.secrets(), host.config.key_required
    named = payloads.notify(Notice.PPK_IDENTITY) if sa.peer.ppk else None
    key = None
    if named is not None:
        refusal = Notice.AUTHENTICATION_FAILED
        key = yield from named_key(host, key_id_of(named.data), refusal)
    if key is not None:
        sa.key_id = key.key_id
        return keys.with_ppk(key.key), None
    if host.config.keying is Keying.PPK and required and not sa.key_id:
        raise Refused(Notice.AUTHENTICATION_FAILED, "the peer uses no PPK, and one is required")
    if named is None:
        if host.config.keying is Keying.PPK and not sa.peer.ppk_int:
            host.policy_used("the peer uses no PPK")
        return keys, None
    without = payloads.notify(Notice.NO_PPK_AUTH)
    if without is None:
        raise Refused(Notice.AUTHENTICATION_FAILED, "the peer insists on a PPK that we lack")
    return keys, without.data


def _first_child(host: Host, sa: IkeSa, payloads: Payloads) -> Task[tuple[Child, list[Payload]]]:
    config = host.config
    key = None
    if config.keying is Keying.DIRECT:
        key = yield from named_direct_key(host, payloads)
    spi = host.children.fresh_spi()
    choices = child_choices(config.suites, ())
    agreed, said = answer_child(config, payloads, choices, spi)
    child = make_first_child(host, sa, agreed, key, asked=False, made_ns=host.now_ns)
    return child, [*said, *direct_notice(key)]
