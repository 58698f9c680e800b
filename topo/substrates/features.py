"""What this kernel can do for the network, found out by doing it in a throw-away network namespace."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topo.errors import FeatureMissing
from topo.namespaces import Namespace

NETEM_REMEDY = (
    "This kernel has no network emulator: load it (`modprobe sch_netem`), use a kernel with "
    "CONFIG_NET_SCH_NETEM, or take `--substrate uml`, which brings its own kernel."
)


@dataclass(frozen=True)
class Feature:
    """One thing that the network needs of a kernel; `present` says whether this kernel has it."""

    name: str
    present: bool
    remedy: str


def _root() -> Feature:
    remedy = "Run it with sudo, or take `--substrate uml`, which needs no root."
    return Feature("root", os.geteuid() == 0, remedy)


def _tun() -> Feature:
    return Feature(
        "tun", Path("/dev/net/tun").exists(), "Load it with `modprobe tun` (CONFIG_TUN)."
    )


def _takes_veth(ipr: Any) -> bool:
    return _accepted(lambda: ipr.link("add", ifname="a", kind="veth", peer="b"))


def _takes_netem(ipr: Any) -> bool:
    loopback = ipr.link_lookup(ifname="lo")[0]
    return _accepted(lambda: ipr.tc("add", "netem", index=loopback, handle="1:", delay=1000))


def _accepted(attempt: Callable[[], object]) -> bool:
    """Whether the kernel takes a netlink request; only `no such thing` counts as a no."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        attempt()
    except NetlinkError as error:
        if error.code in (errno.ENOENT, errno.EOPNOTSUPP, errno.ENODEV):
            return False
        raise
    return True


def probe() -> list[Feature]:
    """The features of the running kernel that the network needs, each tried out; needs root to look further."""
    root, tun = _root(), _tun()
    if not root.present:
        return [root, tun]
    with Namespace("probe") as scratch:
        veth = scratch.with_netlink(_takes_veth)
        netem = scratch.with_netlink(_takes_netem)
    return [
        root,
        tun,
        Feature("veth", veth, "Load it with `modprobe veth` (CONFIG_VETH)."),
        Feature("sch_netem", netem, NETEM_REMEDY),
    ]


def require(features: Iterable[Feature]) -> None:
    """Raise `FeatureMissing` for the first feature that is not there."""
    for feature in features:
        if not feature.present:
            raise FeatureMissing(feature.name, feature.remedy)
