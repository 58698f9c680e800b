"""The TUN device; `gateways.routes` has what leads protected traffic into it.

Every read and every write carries a virtio header (`gateways.fast.vnet`). With offloads the kernel hands over
super-packets and leaves their checksums to us: TCP on any kernel, UDP since Linux 6.2.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from gateways.routes import Interface, foreign_before_ours, guard, lead
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
_ADDR_GEN_MODE_NONE = 1
_QUEUE_PACKETS = 4096


@dataclass(slots=True)
class Tun:
    """An open TUN device: its non-blocking descriptor, and whether it hands over super-packets of TCP and of UDP."""

    name: str
    index: int
    fd: int
    tso: bool
    uso: bool
    addresses: tuple[Interface, ...]
    local: tuple[Network, ...]
    remote: tuple[Network, ...]

    def set_mtu(self, mtu: int) -> None:
        """Set the longest packet that may enter, octets; the kernel tells senders of longer ones.

        Below 1280 the kernel takes IPv6 from the device, and nothing of it leaves; `restore` brings it back.
        """
        with IPRoute() as netlink:
            try:
                netlink.link("set", index=self.index, mtu=mtu)
            except NetlinkError as error:
                raise NetworkError(f"TUN device {self.name}, MTU {mtu}: {error}") from None

    def restore(self) -> list[str]:
        """Put back the rules, addresses and routes that are missing, under the name that the device has now.

        Returns what there is to complain of, a line each: rules that were gone, what the kernel refuses, and rules of
        others before ours.
        The device loses its routes whenever it goes down; while it is down there is nothing to put back.
        """
        try:
            return self._restore()
        except OSError as error:  # no descriptor for netlink, say
            return [f"cannot look after rules and routes: {error.strerror}"]

    def _restore(self) -> list[str]:
        complaints: list[str] = []
        with IPRoute() as netlink:
            with suppress(
                NetlinkError
            ):  # ENODEV: it is in another namespace now; its rules are not
                (link,) = netlink.get_links(self.index)
                self.name = link.get_attr("IFLA_IFNAME")
            try:
                missing = guard(netlink, self.name, self.local, self.remote)
                if missing:
                    complaints.append(
                        f"{missing} rules were gone and are back; see what leaves in clear"
                    )
                for rule in foreign_before_ours(netlink, self.versions):
                    complaints.append(f"{rule} of somebody else comes before this gateway's")
            except NetlinkError as error:
                complaints.append(f"rules: {error}")
            for version in self.versions:
                try:
                    lead(netlink, self.index, version, self.addresses, self.remote, take_back=True)
                except NetlinkError as error:
                    if error.code not in (errno.ENETDOWN, errno.ENODEV):
                        complaints.append(f"routes of IPv{version}: {error}")
        return complaints

    @property
    def versions(self) -> list[int]:
        """The IP versions that the tunnel carries."""
        return sorted({prefix.version for prefix in self.remote})

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
    with the descriptor, and its routes with it. The rules of `gateways.routes` stay, even after the process:
    protected traffic has never another way out. Raises `FeatureMissing` without TUN or policy rules in the kernel,
    `NetworkError` when netlink refuses or another device has a prefix of `remote`.
    """
    with IPRoute() as netlink:
        fd = _attach(name)
        try:
            guard(netlink, name, local, remote)
            tso = offloads and _offloads(fd, _TSO)
            uso = tso and _offloads(fd, _TSO | _USO)
            (index,) = netlink.link_lookup(ifname=name)
            _configure(netlink, index, mtu)
            tun = Tun(name, index, fd, tso, uso, tuple(addresses), tuple(local), tuple(remote))
            for version in tun.versions:
                _lead_first(netlink, tun, version)
        except NetlinkError as error:
            os.close(fd)
            raise NetworkError(f"TUN device {name}: {error}") from None
        except BaseException:
            os.close(fd)
            raise
    return tun


def _lead_first(netlink: IPRoute, tun: Tun, version: int) -> None:
    try:
        lead(netlink, tun.index, version, tun.addresses, tun.remote)
    except NetlinkError as error:
        if version == 6 and error.code in (errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP):
            raise NetworkError(
                f"TUN device {tun.name}: no IPv6 on it ({error}); set net.ipv6.conf.all.disable_ipv6 "
                "and net.ipv6.conf.default.disable_ipv6 to 0, or leave IPv6 out of local and remote"
            ) from None
        raise


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
