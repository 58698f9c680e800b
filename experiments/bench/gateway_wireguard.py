"""wireguard-go, WireGuard in user space, beside the gateways of the benchmark: another protocol, the same job.

ChaCha20-Poly1305 instead of AES-GCM, and an MTU of 1400 octets inside as all have. Its control socket has the name of
its interface in a folder that all namespaces share, so the name is one of its own.
"""

from __future__ import annotations

import base64
import re
import uuid
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from experiments.bench.gateway_chain import (
    GATEWAYS,
    INSIDE,
    OUTSIDE,
    PATIENCE_S,
    Chain,
    missing,
    until,
)

REMEDY: Final = "apt install wireguard-go wireguard-tools"
_PORT: Final = 51820
_MTU: Final = 1400
_SOCKETS: Final = Path("/var/run/wireguard")


def lacking() -> str | None:
    """Why wireguard-go cannot take part, and the remedy; None if it can."""
    gone = missing("wireguard-go", "wg")
    return f"no {' and '.join(gone)} here: {REMEDY}" if gone else None


def start(chain: Chain, folder: Path) -> dict[str, Any]:
    """Start wireguard-go on both gateways of a chain and set the tunnel up; its version."""
    keys = {site: X25519PrivateKey.generate() for site in GATEWAYS}
    tag = uuid.uuid4().hex[:8]
    for site in GATEWAYS:
        other = "b" if site == "a" else "a"
        interface = f"qwg{tag}{site}"
        argv = ["wireguard-go", "--foreground", interface]
        chain.gateways.append(chain.start(site, argv, folder / f"{site}.log"))
        socket = _SOCKETS / f"{interface}.sock"
        until(socket.exists, f"wireguard-go of gateway {site} to listen")
        config = folder / f"{site}.conf"
        config.touch(0o600)
        config.write_text(
            f"[Interface]\nPrivateKey = {_text(keys[site].private_bytes_raw())}\n"
            f"ListenPort = {_PORT}\n"
            f"[Peer]\nPublicKey = {_text(keys[other].public_key().public_bytes_raw())}\n"
            f"Endpoint = {OUTSIDE[other]}:{_PORT}\nAllowedIPs = {INSIDE[other]}\n"
        )
        chain.run(site, ["wg", "setconf", interface, str(config)], PATIENCE_S)
        chain.hosts[site].with_netlink(
            partial(_lead, interface=interface, remote=ip_network(INSIDE[other]))
        )
    return {"version": _version(chain.run("a", ["wireguard-go", "--version"], PATIENCE_S))}


def _lead(netlink: Any, interface: str, remote: Any) -> None:
    """Bring the device up and send the other side's packets into it."""
    (index,) = netlink.link_lookup(ifname=interface)
    netlink.link("set", index=index, mtu=_MTU, state="up")
    netlink.route("add", dst=str(remote), oif=index)


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode()


def _version(text: str) -> str:
    found = re.search(r"v?(\d+\.\d+\.\d+)", text)
    return found[1] if found else text.strip()
