"""The rules and routes that lead protected traffic into the tunnel, what has come out of it to the LAN, and neither
anywhere else.

They are policy rules, looked up before the main table whatever that holds, and tied to no device. Those for a
gateway whose TUN device is `qtun0`, with 10.1.0.0/24 behind it and 10.2.0.0/24 behind its peer:

::

    156: to 10.2.0.0/24 lookup 4500 suppress_prefixlength 23   the route into the TUN device
    157: to 10.2.0.0/24 blackhole                              while that is not there
    400: iif qtun0 to 10.1.0.0/24 lookup main suppress_prefixlength 0
    401: iif qtun0 blackhole                                   no route but a default route

A gateway never takes them away: traffic of its prefixes does not leave in clear when it has stopped or died. One that
starts again finds them there.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
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
"""Marks the rules as ours (`ip rule flush protocol 145`); rtnetlink(7) leaves numbers above 4 to whoever uses them."""
_FIRST_PREFERENCE: Final = 140
"""Of a host route in IPv6; shorter prefixes come later, all before the main table's 32766."""
_LAN_PREFERENCE: Final = 400
_MAIN_TABLE: Final = 254
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_OPTIONS: Final = {4: "CONFIG_IP_MULTIPLE_TABLES", 6: "CONFIG_IPV6_MULTIPLE_TABLES"}
_NO_RULES: Final = frozenset((errno.EAFNOSUPPORT, errno.EOPNOTSUPP))

_RTMGRP_LINK, _RTMGRP_IPV6_IFINFO = 0x1, 0x800
_RTM_NEWLINK = 16
_IFF_UP = 1
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_READ_OCTETS = 65536


def guard(netlink: IPRoute, tun: str, local: Sequence[Network], remote: Sequence[Network]) -> None:
    """Install the rules of a gateway with the TUN device `tun`, where they are not there yet.

    Nothing to `remote` leaves in clear from here on. Raises `FeatureMissing` where the kernel has no policy rules of
    an IP version, `NetlinkError` where it refuses.
    """
    for version, rule in _rules(tun, local, remote):
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


def _rules(
    tun: str, local: Sequence[Network], remote: Sequence[Network]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """IP version and netlink's form of each rule, the closing ones before those that let something pass."""
    for prefix in remote:
        # Longer prefixes first, as in a routing table. Of the table only the prefix's own routes count: a wider one
        # of another gateway does not take over from a gateway that is down.
        preference = _FIRST_PREFERENCE + 2 * (prefix.max_prefixlen - prefix.prefixlen)
        to = {"dst": str(prefix.network_address), "dst_len": prefix.prefixlen}
        yield prefix.version, {"priority": preference + 1, "action": "blackhole", **to}
        only = {"suppress_prefixlen": prefix.prefixlen - 1} if prefix.prefixlen else {}
        yield prefix.version, {"priority": preference, "table": TABLE, **to, **only}
    for version in sorted({prefix.version for prefix in local}):
        out = {"iifname": tun, "priority": _LAN_PREFERENCE + 1, "action": "blackhole"}
        yield version, out
    for prefix in local:
        out = {"iifname": tun, "priority": _LAN_PREFERENCE, "table": _MAIN_TABLE}
        # A default route leads away from the LAN, unless all the world is behind this gateway.
        only = {"suppress_prefixlen": 0} if prefix.prefixlen else {}
        to = {"dst": str(prefix.network_address), "dst_len": prefix.prefixlen}
        yield prefix.version, {**out, **to, **only}


def lead(
    netlink: IPRoute, index: int, addresses: Iterable[Interface], remote: Iterable[Network]
) -> None:
    """Give the TUN device `index` its addresses, and lead what goes to `remote` into it."""
    for address in addresses:
        length = address.network.prefixlen
        netlink.addr("replace", index=index, address=str(address.ip), prefixlen=length)
    for prefix in remote:
        netlink.route("replace", dst=str(prefix), oif=index, table=TABLE)


class LinkWatch:
    """Tells when a device has come up, which takes its routes with it whenever it goes down."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        try:
            self._netlink.setblocking(False)
            self._netlink.bind((0, _RTMGRP_LINK | _RTMGRP_IPV6_IFINFO))
        except OSError as error:
            self._netlink.close()
            raise NetworkError(f"netlink: {error.strerror}") from None

    def fileno(self) -> int:
        """The descriptor, readable when there is news."""
        return self._netlink.fileno()

    def close(self) -> None:
        """Watch no longer."""
        self._netlink.close()

    def is_up(self) -> bool:
        """Read the news; whether any says that the device is up, or news were lost."""
        up = False
        with suppress(BlockingIOError):
            while True:
                try:
                    up |= self._says_up(self._netlink.recv(_READ_OCTETS))
                except BlockingIOError:
                    raise
                except OSError:  # ENOBUFS: more news than there was room for
                    up = True
        return up

    def _says_up(self, messages: bytes) -> bool:
        at = 0
        while at + _HEADER.size <= len(messages):
            octets, kind, *_ = _HEADER.unpack_from(messages, at)
            if kind == _RTM_NEWLINK and octets >= _HEADER.size + _LINK.size:
                _, _, index, flags, _ = _LINK.unpack_from(messages, at + _HEADER.size)
                if index == self._index and flags & _IFF_UP:
                    return True
            at += max(-(-octets // 4) * 4, _HEADER.size)
        return False
