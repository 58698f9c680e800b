"""The rules and routes that lead protected traffic into the tunnel, what has come out of it to the LAN, and neither
anywhere else.

They are policy rules, looked up before the main table whatever that holds, and tied to no device. Those for a
gateway whose TUN device is `qtun0`, with 10.1.0.0/24 behind it and 10.2.0.0/24 behind its peer:

::

    0:   to 10.2.0.0/24 goto 139                               past all rules of others
    0:   iif qtun0 goto 139
    139: nop
    156: to 10.2.0.0/24 lookup 4500 suppress_prefixlength 23   the route into the TUN device
    157: to 10.2.0.0/24 blackhole                              while that is not there
    400: iif qtun0 to 10.1.0.0/24 lookup main suppress_prefixlength 0
    401: iif qtun0 blackhole                                   no route but a default route

A gateway never takes them away: traffic of its prefixes does not leave in clear when it has stopped or died. One that
starts again finds them there; `gateways.watch` tells a running one when somebody else has taken something away.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Interface, IPv6Interface
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from gateways.selectors import Network
from topo.errors import FeatureMissing, NetworkError

Interface = IPv4Interface | IPv6Interface

TABLE: Final = 4500
"""The routing table of all gateways in a namespace; the rules keep them apart."""
PROTOCOL: Final = 145
"""Marks the rules as ours; rtnetlink(7) leaves numbers above 4 to whoever uses them."""
_GATE: Final = 139
"""Where our rules begin. Those at 0 lead here: the kernel puts a rule without a preference before all but those at 0,
so one of somebody else's would come first otherwise, and find a way in clear."""
_FIRST_PREFERENCE: Final = 140
"""Of a host route in IPv6; shorter prefixes come later, all before the main table's 32766."""
_LAN_PREFERENCE: Final = 400
_MAIN_TABLE: Final = 254
_LOCAL_TABLE: Final = 255
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_OPTIONS: Final = {4: "CONFIG_IP_MULTIPLE_TABLES", 6: "CONFIG_IPV6_MULTIPLE_TABLES"}
_ROUTES_TAKEN_BACK: Final = 16
"""To one prefix; somebody who adds more does it on purpose."""
_PLACE: Final = ("priority", "iifname", "dst", "dst_len")
_Place = tuple[Any, ...]
"""Of a rule of ours, what these are; the rest follows."""
_NO_RULES: Final = frozenset((errno.EAFNOSUPPORT, errno.EOPNOTSUPP))


def guard(netlink: IPRoute, tun: str, local: Sequence[Network], remote: Sequence[Network]) -> int:
    """Install the rules of a gateway with the TUN device `tun`, where they are not there yet; how many were not.

    Nothing to `remote` leaves in clear from here on. Raises `FeatureMissing` where the kernel has no policy rules of
    an IP version, `NetlinkError` where it refuses.
    """
    there: dict[int, set[_Place]] = {}
    missing = 0
    for version, rule in _rules(tun, local, remote):
        if version not in there:
            there[version] = set(_places(netlink, version))
        place = tuple(rule.get(name) for name in _PLACE)
        if place in there[version]:
            continue
        try:
            netlink.rule("add", family=_FAMILIES[version], protocol=PROTOCOL, **rule)
        except NetlinkError as error:
            if error.code in _NO_RULES:
                raise FeatureMissing(
                    f"policy routing for IPv{version}",
                    f"Use a kernel with {_OPTIONS[version]}: without it packets could leave in clear.",
                ) from None
            if error.code != errno.EEXIST:
                raise
        else:
            missing += 1
    return missing


def _places(netlink: IPRoute, version: int) -> Iterator[_Place]:
    """What tells our rules that are there from each other."""
    try:
        rules = netlink.get_rules(family=_FAMILIES[version])
    except NetlinkError as error:
        if error.code in _NO_RULES:
            return  # adding one says so
        raise
    for rule in rules:
        if rule.get_attr("FRA_PROTOCOL") == PROTOCOL:
            destination = rule.get_attr("FRA_DST")
            length = rule["dst_len"] if destination else None
            priority = rule.get_attr("FRA_PRIORITY") or 0
            yield priority, rule.get_attr("FRA_IIFNAME"), destination, length


def _rules(
    tun: str, local: Sequence[Network], remote: Sequence[Network]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """IP version and netlink's form of each rule, the closing ones before those that let something pass."""
    versions = sorted({prefix.version for prefix in (*local, *remote)})
    for prefix in remote:
        # Longer prefixes first, as in a routing table. Of the table only the prefix's own routes count: a wider one
        # of another gateway does not take over from a gateway that is down.
        preference = _FIRST_PREFERENCE + 2 * (prefix.max_prefixlen - prefix.prefixlen)
        to = {"dst": str(prefix.network_address), "dst_len": prefix.prefixlen}
        yield prefix.version, {"priority": preference + 1, "action": "blackhole", **to}
        only = {"suppress_prefixlen": prefix.prefixlen - 1} if prefix.prefixlen else {}
        yield prefix.version, {"priority": preference, "table": TABLE, **to, **only}
    for version in versions:
        out = {"iifname": tun, "priority": _LAN_PREFERENCE + 1, "action": "blackhole"}
        yield version, out
    for prefix in local:
        out = {"iifname": tun, "priority": _LAN_PREFERENCE, "table": _MAIN_TABLE}
        # A default route leads away from the LAN, unless all the world is behind this gateway.
        only = {"suppress_prefixlen": 0} if prefix.prefixlen else {}
        to = {"dst": str(prefix.network_address), "dst_len": prefix.prefixlen}
        yield prefix.version, {**out, **to, **only}
    gate = {"priority": 0, "action": "goto", "goto": _GATE}
    for version in versions:
        yield version, {"priority": _GATE, "action": "nop"}
        yield version, {**gate, "iifname": tun}
    for prefix in remote:
        to = {"dst": str(prefix.network_address), "dst_len": prefix.prefixlen}
        yield prefix.version, {**gate, **to}


def foreign_before_ours(netlink: IPRoute, versions: Iterable[int]) -> list[str]:
    """The rules of others that may come before ours, as `IPv4 rule 2 at 0`; that for this host's own addresses may."""
    found = []
    for version in sorted(set(versions)):
        ours = False
        for place, rule in enumerate(netlink.get_rules(family=_FAMILIES[version])):
            preference = rule.get_attr("FRA_PRIORITY") or 0
            if rule.get_attr("FRA_PROTOCOL") == PROTOCOL:
                ours = True
            elif rule.get_attr("FRA_TABLE") != _LOCAL_TABLE and (
                not ours or _GATE <= preference <= _LAN_PREFERENCE + 1
            ):
                found.append(f"IPv{version} rule {place + 1} at {preference}")
    return found


def lead(
    netlink: IPRoute,
    index: int,
    version: int,
    addresses: Iterable[Interface],
    remote: Iterable[Network],
    *,
    take_back: bool = False,
) -> None:
    """Give the TUN device `index` its addresses of one IP version, and lead what goes to `remote` into it.

    Raises `NetworkError` where a prefix leads into another device already, unless that is to be taken back, and
    `NetlinkError` where the kernel refuses.
    """
    for address in addresses:
        if address.version == version:
            length = address.network.prefixlen
            netlink.addr("replace", index=index, address=str(address.ip), prefixlen=length)
    for prefix in remote:
        if prefix.version != version:
            continue
        route = {"dst": str(prefix), "oif": index, "table": TABLE}
        if take_back:
            _take_back(netlink, route)
            continue
        try:
            netlink.route("add", **route)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise
            raise NetworkError(
                f"{prefix} leads into {_device(netlink, prefix)} already: "
                "a prefix of `remote` is one gateway's"
            ) from None


def _take_back(netlink: IPRoute, route: dict[str, Any]) -> None:
    """Make this the route to its prefix, whatever else leads there."""
    for _ in range(_ROUTES_TAKEN_BACK):
        try:
            netlink.route("replace", **route)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise
            # Ours is there, behind another, which the kernel would have replaced by a second one of ours.
            netlink.route("del", dst=route["dst"], table=TABLE)
        else:
            return


def _device(netlink: IPRoute, prefix: Network) -> str:
    """The device that a prefix leads into in our table."""
    place = str(prefix.network_address) if prefix.prefixlen else None, prefix.prefixlen
    for route in netlink.get_routes(family=_FAMILIES[prefix.version], table=TABLE):
        device = route.get_attr("RTA_OIF")
        if device is not None and (route.get_attr("RTA_DST"), route["dst_len"]) == place:
            link = next(iter(netlink.get_links(device)))
            return str(link.get_attr("IFLA_IFNAME"))
    return "another route"
