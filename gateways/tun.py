"""The TUN device; `gateways.routes` has what leads protected traffic into it.

Every read and every write carries a virtio header (`gateways.fast.vnet`). With offloads the kernel hands over
super-packets and leaves their checksums to us: TCP on any kernel, UDP since Linux 6.2.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from gateways.mtu import MIN_IPV6_MTU
from gateways.routes import Interface, guard, lead
from gateways.selectors import Network
from topo.errors import FeatureMissing, NetworkError

_CLONE_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_TUNSETOFFLOAD = 0x400454D0
_TUN_F_CSUM, _TUN_F_TSO4, _TUN_F_TSO6, _TUN_F_USO4, _TUN_F_USO6 = 0x01, 0x02, 0x04, 0x20, 0x40
_TSO = _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6
_USO = _TUN_F_USO4 | _TUN_F_USO6
_SIOCSIFMTU = 0x8922
_ADDR_GEN_MODE_NONE = 1
_QUEUE_PACKETS = 4096


@dataclass(frozen=True, slots=True)
class Tun:
    """An open TUN device: its non-blocking descriptor, and whether it hands over super-packets of TCP and of UDP."""

    name: str
    index: int
    fd: int
    tso: bool
    uso: bool
    addresses: tuple[Interface, ...]
    remote: tuple[Network, ...]

    def set_mtu(self, mtu: int) -> None:
        """Set the longest packet that may enter, octets; the kernel tells senders of longer ones.

        Below 1280 the kernel takes IPv6 from the device, and nothing of it leaves; from there on it is back.
        """
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            request = struct.pack("16si20x", self.name.encode(), mtu)
            try:
                fcntl.ioctl(any_socket, _SIOCSIFMTU, request)
            except OSError as error:
                raise NetworkError(f"TUN device {self.name}, MTU {mtu}: {error.strerror}") from None
        if mtu >= MIN_IPV6_MTU and any(prefix.version == 6 for prefix in self.remote):
            self.lead()

    def lead(self) -> None:
        """Put the addresses and the routes back, which the device loses whenever it goes down; if it is up."""
        with IPRoute() as netlink:
            try:
                lead(netlink, self.index, self.addresses, self.remote)
            except NetlinkError as error:
                if error.code not in (errno.ENETDOWN, errno.ENODEV):
                    raise NetworkError(f"TUN device {self.name}: {error}") from None

    def close(self) -> None:
        """Let the device go, and its routes with it; the rules stay, and nothing to `remote` leaves."""
        os.close(self.fd)


def open_tun(
    name: str,
    addresses: Sequence[Interface],
    mtu: int,
    local: Sequence[Network],
    remote: Sequence[Network],
    *,
    offloads: bool,
) -> Tun:
    """A new TUN device that carries traffic from `local` to `remote`, with the offloads that the kernel has, if wanted.

    One read is one packet or super-packet, one write another. Made in the current network namespace; it vanishes
    with the descriptor, and its routes with it. The rules of `gateways.routes` are installed first and stay, even
    after the process: protected traffic has never another way out. Raises `FeatureMissing` without TUN or policy
    rules in the kernel, `NetworkError` when netlink refuses.
    """
    with IPRoute() as netlink:
        try:
            guard(netlink, name, local, remote)
            fd = _attach(name)
            try:
                tso = offloads and _offloads(fd, _TSO)
                uso = tso and _offloads(fd, _TSO | _USO)
                (index,) = netlink.link_lookup(ifname=name)
                _configure(netlink, index, mtu)
                lead(netlink, index, addresses, remote)
            except BaseException:
                os.close(fd)
                raise
        except NetlinkError as error:
            raise NetworkError(f"TUN device {name}: {error}") from None
    return Tun(name, index, fd, tso, uso, tuple(addresses), tuple(remote))


def _offloads(fd: int, flags: int) -> bool:
    """Ask for offloads: all of them, or False and those there were."""
    try:
        fcntl.ioctl(fd, _TUNSETOFFLOAD, flags)
    except OSError:
        return False
    return True


def _attach(name: str) -> int:
    try:
        fd = os.open(_CLONE_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise FeatureMissing(
            "TUN", f"{_CLONE_DEVICE}: {error.strerror}; needs CONFIG_TUN (`modprobe tun`) and root"
        ) from None
    try:
        fcntl.ioctl(
            fd,
            _TUNSETIFF,
            struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR),
        )
    except OSError as error:
        os.close(fd)
        raise NetworkError(
            f"TUN device {name}: {error.strerror}; choose a tun_name that no other device has"
        ) from None
    return fd


def _configure(netlink: IPRoute, index: int, mtu: int) -> None:
    if Path("/proc/net/if_inet6").exists():
        # No link-local address: the kernel's own router solicitations have no place in the tunnel.
        no_address = {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_MODE_NONE]]}
        netlink.link("set", index=index, IFLA_AF_SPEC={"attrs": [["AF_INET6", no_address]]})
    netlink.link("set", index=index, mtu=mtu, txqlen=_QUEUE_PACKETS, state="up")
