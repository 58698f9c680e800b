"""What is offered and accepted: suites as proposals, prefixes as traffic selectors (RFC 7296 §2.7, §2.9, §3.3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, summarize_address_range
from typing import TypeVar

from gateways.ike.crypto import IkeSuite
from gateways.ike.numbers import (
    GROUP_ML_KEM_768,
    PRF_HMAC_SHA2_256,
    Protocol,
    TransformType,
)
from gateways.ike.payloads import Proposal, Selector, Transform
from gateways.selectors import Network
from gateways.suites import Suite

_AES_CIPHERS = frozenset((12, 20))
"""Encryption transforms of ESP whose key length must be said; SM4 has only one."""
_NONE = 0


@dataclass(frozen=True, slots=True)
class IkeChoice:
    """The algorithms of an IKE SA."""

    suite: IkeSuite
    group: int
    ml_kem: bool

    def transforms(self) -> tuple[Transform, ...]:
        suite = self.suite
        chosen = [Transform(TransformType.ENCRYPTION, suite.encryption, suite.key_bits)]
        if suite.integrity:
            chosen.append(Transform(TransformType.INTEGRITY, suite.integrity))
        chosen.append(Transform(TransformType.PRF, PRF_HMAC_SHA2_256))
        chosen.append(Transform(TransformType.KEY_EXCHANGE, self.group))
        if self.ml_kem:
            chosen.append(Transform(TransformType.ADDITIONAL_KEY_EXCHANGE_1, GROUP_ML_KEM_768))
        return tuple(chosen)


@dataclass(frozen=True, slots=True)
class ChildChoice:
    """The algorithms of a pair of ESP SAs; `group` None: no key exchange of their own."""

    suite: Suite
    group: int | None

    def transforms(self) -> tuple[Transform, ...]:
        suite = self.suite
        key_bits = 128 if suite.encryption in _AES_CIPHERS else None
        chosen = [Transform(TransformType.ENCRYPTION, suite.encryption, key_bits)]
        if suite.integrity:
            chosen.append(Transform(TransformType.INTEGRITY, suite.integrity))
        if self.group is not None:
            chosen.append(Transform(TransformType.KEY_EXCHANGE, self.group))
        chosen.append(Transform(TransformType.EXTENDED_SEQUENCE_NUMBERS, _NONE))
        return tuple(chosen)


def ike_choices(
    suites: Iterable[IkeSuite], groups: Sequence[int], *, ml_kem: bool
) -> list[IkeChoice]:
    """Every combination, best first."""
    kems = (True, False) if ml_kem else (False,)
    return [IkeChoice(suite, group, kem) for kem in kems for suite in suites for group in groups]


def child_choices(suites: Iterable[Suite], groups: Sequence[int]) -> list[ChildChoice]:
    """Every combination, best first."""
    return [ChildChoice(suite, group) for suite in suites for group in (groups or (None,))]


def proposals(
    choices: Sequence[IkeChoice] | Sequence[ChildChoice], protocol: Protocol, spi: bytes
) -> list[Proposal]:
    """One proposal for each choice that differs in more than the group, with all its groups in it."""
    merged: dict[tuple[Transform, ...], list[Transform]] = {}
    for choice in choices:
        transforms = choice.transforms()
        rest = tuple(t for t in transforms if t.type != TransformType.KEY_EXCHANGE)
        groups = merged.setdefault(rest, [])
        groups += [t for t in transforms if t.type == TransformType.KEY_EXCHANGE]
    return [
        Proposal(number, protocol, spi, (*rest, *groups))
        for number, (rest, groups) in enumerate(merged.items(), 1)
    ]


_Choice = TypeVar("_Choice", IkeChoice, ChildChoice)


def choose(
    offered: Iterable[Proposal], choices: Sequence[_Choice], protocol: Protocol, spi_octets: int
) -> tuple[_Choice, Proposal] | None:
    """The first of our choices that one of the proposals allows, and that proposal; None if there is none."""
    usable = [p for p in offered if p.protocol == protocol and len(p.spi) == spi_octets]
    for choice in choices:
        for proposal in usable:
            if _allows(proposal, choice.transforms()):
                return choice, proposal
    return None


def _allows(proposal: Proposal, wanted: tuple[Transform, ...]) -> bool:
    offered = set(proposal.transforms)
    types = {transform.type for transform in offered}
    optional = {transform.type for transform in offered if transform.id == _NONE}
    wanted_types = {transform.type for transform in wanted}
    return all(transform in offered for transform in wanted) and types - optional <= wanted_types


def accepted(choice: IkeChoice | ChildChoice, proposal: Proposal, spi: bytes) -> Proposal:
    """The proposal to answer with: what was chosen, under the number it was offered."""
    return Proposal(proposal.number, proposal.protocol, spi, choice.transforms())


def selectors_of(prefixes: Iterable[Network]) -> list[Selector]:
    """Prefixes as traffic selectors for any protocol and port."""
    return [Selector(prefix[0], prefix[-1]) for prefix in prefixes]


def narrowed(offered: Iterable[Selector], own: Sequence[Network]) -> tuple[Network, ...]:
    """The part of our prefixes that the offered selectors cover, as prefixes; empty if nothing is left.

    Selectors for certain protocols or ports are passed over: a narrowed answer (RFC 7296 §2.9) must lie within
    the offer, and ours are for whole prefixes.
    """
    common: list[Network] = []
    for selector in offered:
        if selector.protocol or (selector.first_port, selector.last_port) != (0, 65535):
            continue
        for prefix in own:
            if selector.first.version == prefix.version:
                common += _common(selector, prefix)
    return tuple(dict.fromkeys(common))


def _common(selector: Selector, prefix: Network) -> list[Network]:
    low = max(int(selector.first), int(prefix[0]))
    high = min(int(selector.last), int(prefix[-1]))
    if low > high:
        return []
    address = IPv4Address if prefix.version == 4 else IPv6Address
    return list(summarize_address_range(address(low), address(high)))
