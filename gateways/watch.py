"""What others change about a gateway's device, rules and routes, as the kernel tells of it.

A device that goes down loses its routes, a lost address takes routes with it, `ip rule flush` takes rules. The gateway
puts back what is missing.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import Final

from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from gateways.routes import PROTOCOL, TABLE
from topo.errors import NetworkError

_LINK, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV4_RULE = 1, 5, 7, 8
_IPV6_ADDRESS, _IPV6_ROUTE, _IPV6_INFO, _IPV6_RULE = 9, 11, 12, 19
_GROUPS: Final = sum(
    1 << (group - 1)
    for group in (
        _LINK,
        _IPV4_ADDRESS,
        _IPV4_ROUTE,
        _IPV4_RULE,
        _IPV6_ADDRESS,
        _IPV6_ROUTE,
        _IPV6_INFO,
        _IPV6_RULE,
    )
)
_RTM_NEWLINK, _RTM_DELADDR, _RTM_NEWROUTE, _RTM_DELROUTE = 16, 21, 24, 25
_RTM_NEWRULE, _RTM_DELRULE = 32, 33
_RT_TABLE_COMPAT = 252
"""In a route's header, for a table whose number is above 255, as ours."""
_KERNEL = 0
"""Its netlink port."""
_IFF_UP = 1
_HEADER = struct.Struct("=IHHII")
_LINK_MESSAGE = struct.Struct("=BxHiII")
_ADDRESS_MESSAGE = struct.Struct("=BBBBI")
_ROUTE_TABLE = _HEADER.size + 4
_READ_OCTETS = 65536


class Watch:
    """Tells when something that leads to the TUN device `index`, or from it, may be missing."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        try:
            self._netlink.setblocking(False)
            self._netlink.bind((0, _GROUPS))
        except OSError as error:
            self._netlink.close()
            raise NetworkError(f"netlink: {error.strerror}") from None

    def fileno(self) -> int:
        """The descriptor, readable when there is news."""
        return self._netlink.fileno()

    def close(self) -> None:
        """Watch no longer."""
        self._netlink.close()

    def concerned(self) -> bool:
        """Read the news; whether any is about what is ours, or news were lost."""
        ours = False
        with suppress(BlockingIOError):
            while True:
                try:
                    messages, (port, _) = self._netlink.recvfrom(_READ_OCTETS)
                    ours |= port == _KERNEL and self.are_ours(messages)
                except BlockingIOError:
                    raise
                except OSError:  # ENOBUFS: more news than there was room for
                    ours = True
        return ours

    def are_ours(self, messages: bytes) -> bool:
        """Whether any of these messages of the kernel is."""
        at = 0
        while at + _HEADER.size <= len(messages):
            octets, kind, *_ = _HEADER.unpack_from(messages, at)
            if octets < _HEADER.size or self._is_ours(kind, messages[at : at + octets]):
                return True
            at += -(-octets // 4) * 4
        return False

    def _is_ours(self, kind: int, message: bytes) -> bool:
        if kind == _RTM_NEWLINK and len(message) >= _HEADER.size + _LINK_MESSAGE.size:
            _, _, index, flags, _ = _LINK_MESSAGE.unpack_from(message, _HEADER.size)
            return bool(index == self._index and flags & _IFF_UP)
        if kind == _RTM_DELADDR and len(message) >= _HEADER.size + _ADDRESS_MESSAGE.size:
            *_, index = _ADDRESS_MESSAGE.unpack_from(message, _HEADER.size)
            return bool(index == self._index)
        if kind in (_RTM_NEWROUTE, _RTM_DELROUTE):
            return self._is_our_route(kind, message)
        if kind in (_RTM_NEWRULE, _RTM_DELRULE):
            rule = fibmsg(message)
            rule.decode()
            ours = rule.get_attr("FRA_PROTOCOL") == PROTOCOL
            return ours if kind == _RTM_DELRULE else not ours
        return False

    def _is_our_route(self, kind: int, message: bytes) -> bool:
        # Most routes are others', and there may be many: a look at the header does for them.
        if message[_ROUTE_TABLE : _ROUTE_TABLE + 1] != bytes((_RT_TABLE_COMPAT,)):
            return False
        route = rtmsg(message)
        route.decode()
        if route.get_attr("RTA_TABLE") != TABLE:
            return False
        return kind == _RTM_DELROUTE or route.get_attr("RTA_OIF") != self._index
