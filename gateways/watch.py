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
_RTM_NEWLINK, _RTM_DELADDR, _RTM_NEWROUTE, _RTM_DELROUTE, _RTM_DELRULE = 16, 21, 24, 25, 33
_IFF_UP = 1
_HEADER = struct.Struct("=IHHII")
_LINK_MESSAGE = struct.Struct("=BxHiII")
_ADDRESS_MESSAGE = struct.Struct("=BBBBI")
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
                    ours |= self._are_ours(self._netlink.recv(_READ_OCTETS))
                except BlockingIOError:
                    raise
                except OSError:  # ENOBUFS: more news than there was room for
                    ours = True
        return ours

    def _are_ours(self, messages: bytes) -> bool:
        at = 0
        while at + _HEADER.size <= len(messages):
            octets, kind, *_ = _HEADER.unpack_from(messages, at)
            if octets < _HEADER.size or self._is_ours(kind, messages[at : at + octets]):
                return True
            at += -(-octets // 4) * 4
        return False

    def _is_ours(self, kind: int, message: bytes) -> bool:
        if kind == _RTM_NEWLINK:
            _, _, index, flags, _ = _LINK_MESSAGE.unpack_from(message, _HEADER.size)
            return bool(index == self._index and flags & _IFF_UP)
        if kind == _RTM_DELADDR:
            *_, index = _ADDRESS_MESSAGE.unpack_from(message, _HEADER.size)
            return bool(index == self._index)
        if kind in (_RTM_NEWROUTE, _RTM_DELROUTE):
            route = rtmsg(message)
            route.decode()
            if route.get_attr("RTA_TABLE") != TABLE:
                return False
            return kind == _RTM_DELROUTE or route.get_attr("RTA_OIF") != self._index
        if kind == _RTM_DELRULE:
            rule = fibmsg(message)
            rule.decode()
            return bool(rule.get_attr("FRA_PROTOCOL") == PROTOCOL)
        return False
