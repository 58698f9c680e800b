"""What a gateway's configuration takes for a prefix, an address, a name and a PEM file; each refusal has its remedy."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Interface,
    IPv6Network,
    ip_network,
)
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate
from pydantic import AfterValidator, BeforeValidator, Field

from gateways.selectors import Network


def _prefix(value: object) -> object:
    """A prefix written down, in one place, so that what is wrong with it is said once and not for each IP version."""
    if not isinstance(value, str):
        return value
    try:
        wide = ip_network(value, strict=False)
    except ValueError:
        wide = None
    if wide is None or "%" in value:
        raise ValueError(f"{value!r} is no prefix like 10.1.0.0/24 or fd00:1::/64")
    try:
        prefix = ip_network(value)
    except ValueError as error:
        raise ValueError(f"{error}; the prefix is {wide}") from None
    if _never_routed(prefix):
        raise ValueError(f"{prefix} never leaves a host or a link; take the prefix of a LAN")
    return prefix


def _never_routed(prefix: IPv4Network | IPv6Network) -> bool:
    mapped = isinstance(prefix, IPv6Network) and prefix.subnet_of(IPv6Network("::ffff:0:0/96"))
    none = prefix.is_unspecified and prefix.prefixlen == prefix.max_prefixlen
    return prefix.is_multicast or prefix.is_loopback or prefix.is_link_local or mapped or none


def _of_a_host(address: IPv4Address) -> IPv4Address:
    if address.is_unspecified or address.is_multicast or address.is_reserved:
        raise ValueError(f"{address} is no address of one host")
    return address


def _of_a_device(value: Any) -> Any:
    if "%" in str(value):
        raise ValueError(f"{value}: without a zone, like fd00:9::1/126")
    if value.ip.is_unspecified or value.ip.is_multicast or value.ip.is_loopback:
        raise ValueError(f"{value.ip} is no address to give to a device; take one like 10.9.0.1/30")
    return value


Prefix = Annotated[Network, BeforeValidator(_prefix)]
HostAddress = Annotated[IPv4Address, AfterValidator(_of_a_host)]
DeviceAddress = Annotated[IPv4Interface, AfterValidator(_of_a_device)]
DeviceAddress6 = Annotated[IPv6Interface, AfterValidator(_of_a_device)]
Name = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""Of a gateway or an end: one line of text."""


def check_addresses(
    outer: Sequence[tuple[str, IPv4Address]],
    devices: Sequence[IPv4Interface | IPv6Interface],
    local: Sequence[Network],
    remote: Sequence[Network],
) -> None:
    """Refuse, with `ValueError`, addresses by which the tunnel would run through itself, and prefixes at both ends.

    `outer`: what the configuration calls an address outside, and the address.
    """
    inner = [("tun_address", interface.ip) for interface in devices]
    for name, address in (*outer, *inner):
        if any(address in prefix for prefix in remote):
            raise ValueError(f"remote contains {name}: the tunnel would run through itself")
    for (name, address), interface in product(outer, devices):
        if address in interface.network:
            raise ValueError(
                f"the network of tun_address {interface} contains {name}: the tunnel would run "
                "through itself; a length of 30 (IPv6: 126) does"
            )
    for mine, its in product(local, remote):
        if mine.version == its.version and mine.overlaps(its):
            raise ValueError(
                f"local {mine} and remote {its} overlap: each address is behind one gateway"
            )
    if {prefix.version for prefix in local} != {prefix.version for prefix in remote}:
        raise ValueError("local and remote must have prefixes of the same IP versions")


def wrong_files(section: str, ca: Path, cert: Path, key: Path) -> list[str]:
    """What is wrong with PEM files, each with its key in the configuration."""
    wrong = []
    for name, file, read, what in (
        ("ca", ca, load_pem_x509_certificate, "certificate"),
        ("cert", cert, load_pem_x509_certificate, "certificate"),
        (
            "key",
            key,
            lambda data: load_pem_private_key(data, None),
            "private key without a password",
        ),
    ):
        try:
            read(file.read_bytes())
        except OSError as error:
            wrong.append(f"{section}{name}: {file}: {error.strerror}")
        except (ValueError, TypeError, UnsupportedAlgorithm):
            wrong.append(f"{section}{name}: {file}: no PEM {what}")
    return wrong
