"""tshark decrypts a capture of ours, with the key file a gateway writes: every suite that it knows."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

from gateways.encapsulation import NON_ESP_MARKER, inner_mtu
from gateways.esp import OutboundSa
from gateways.export import append_private, esp_sa_record
from gateways.keys import SaKeys
from gateways.suites import AES_128_CBC_SHA256, AES_128_GCM, Suite
from tests.esp_packets import keys_of

pytestmark = pytest.mark.interop

HERE, THERE = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")


def outer(
    source: IPv4Address, destination: IPv4Address, payload: bytes, protocol: int = 17
) -> Packet:
    ip = IP(src=str(source), dst=str(destination), flags="DF", proto=protocol)
    return Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / ip / payload


def in_udp(payload: bytes) -> bytes:
    return bytes(UDP(sport=4500, dport=4500, chksum=0) / Raw(payload))


def echo(source: str, destination: str, number: int, octets: int) -> bytes:
    data = random.Random(number).randbytes(octets)
    return bytes(IP(src=source, dst=destination) / ICMP(id=1, seq=number) / Raw(data))


def decoded(capture: Path, profile: Path) -> list[dict[str, str]]:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    fields = (
        "frame.protocols",
        "esp.spi",
        "esp.sequence",
        "esp.icv_good",
        "esp.icv_bad",
        "icmp.seq",
    )
    command = ["tshark", "-r", str(capture), "-T", "fields"]
    for option in ("esp.enable_encryption_decode", "esp.enable_authentication_check"):
        command += ["-o", f"{option}:TRUE"]
    for field in fields:
        command += ["-e", field]
    done = subprocess.run(
        command,
        env=os.environ | {"WIRESHARK_CONFIG_DIR": str(profile)},
        capture_output=True,
        text=True,
        check=True,
    )
    return [dict(zip(fields, line.split("\t"), strict=True)) for line in done.stdout.splitlines()]


def record(source: IPv4Address, destination: IPv4Address, spi: int, keys: SaKeys) -> str:
    """A line of `esp_sa`: for AES-GCM as a gateway writes it, for CBC by the names in the suite."""
    if keys.suite is AES_128_GCM:
        return esp_sa_record(source, destination, spi, keys)
    assert keys.suite.wireshark is not None
    encryption, authentication = keys.suite.wireshark
    where = ("IPv4", source, destination, f"{spi:#010x}")
    key, integrity_key = f"0x{keys.key.hex()}", f"0x{keys.integrity_key.hex()}"
    fields = (*where, encryption, key, authentication, integrity_key)
    return ",".join(f'"{field}"' for field in fields) + "\n"


@pytest.mark.parametrize("suite", [AES_128_GCM, AES_128_CBC_SHA256], ids=lambda suite: suite.name)
@pytest.mark.parametrize("packets", [400, pytest.param(10_000, marks=pytest.mark.long)])
def test_every_packet_decrypts_and_verifies(suite: Suite, packets: int, tmp_path: Path) -> None:
    keys = {spi: keys_of(suite, spi) for spi in (0x1001, 0xFEDCBA98)}
    directions = {0x1001: (HERE, THERE), 0xFEDCBA98: (THERE, HERE)}
    longest = inner_mtu(1500, suite)
    capture = []
    for spi, (source, destination) in directions.items():
        append_private(tmp_path / "esp_sa", record(source, destination, spi, keys[spi]))
        sa = OutboundSa(spi, keys[spi])
        for number in range(1, packets + 1):
            octets = number % (longest - 28 + 1)
            esp = sa.seal(echo("10.1.0.5", "10.2.0.7", number, octets))
            capture.append(outer(source, destination, in_udp(esp)))
    # The control messages between them must not be taken for ESP.
    capture.append(outer(HERE, THERE, in_udp(NON_ESP_MARKER + bytes(100))))
    wrpcap(str(tmp_path / "outer.pcap"), capture)

    *decrypted, control = decoded(tmp_path / "outer.pcap", tmp_path)
    assert len(decrypted) == 2 * packets
    for index, packet in enumerate(decrypted):
        assert packet["esp.icv_good"] == "1"
        assert packet["esp.icv_bad"] == "0"
        assert packet["frame.protocols"].startswith("eth:ethertype:ip:udp:udpencap:esp:ip:icmp")
        assert packet["esp.sequence"] == packet["icmp.seq"] == str(index % packets + 1)
    assert control["esp.spi"] == ""


def test_ipv6_inside(tmp_path: Path) -> None:
    keys = keys_of(AES_128_GCM)
    append_private(tmp_path / "esp_sa", esp_sa_record(HERE, THERE, 0x1001, keys))
    sa = OutboundSa(0x1001, keys)
    # Ports that tshark has no dissector for: where one fails, it leaves the ICV's verdict out.
    head = IPv6(src="2001:db8:1::5", dst="2001:db8:2::7") / UDP(sport=40001, dport=40002)
    inners = [bytes(head / Raw(bytes(octets))) for octets in (0, 1, 2, 3, 1390)]
    capture = [outer(HERE, THERE, sa.seal(inner), 50) for inner in inners]
    wrpcap(str(tmp_path / "six.pcap"), capture)
    decrypted = decoded(tmp_path / "six.pcap", tmp_path)
    assert len(decrypted) == len(inners)
    for packet in decrypted:
        assert packet["esp.icv_good"] == "1"
        assert packet["frame.protocols"].startswith("eth:ethertype:ip:esp:ipv6:udp")


def test_raw_esp_and_a_flipped_bit(tmp_path: Path) -> None:
    keys = SaKeys(bytes(range(16)), b"salt")
    append_private(tmp_path / "esp_sa", esp_sa_record(HERE, THERE, 0x1001, keys))
    esp = OutboundSa(0x1001, keys).seal(echo("10.1.0.5", "10.2.0.7", 5, 56))
    flipped = esp[:40] + bytes((esp[40] ^ 1,)) + esp[41:]
    wrpcap(str(tmp_path / "raw.pcap"), [outer(HERE, THERE, d, 50) for d in (esp, flipped)])
    good, bad = decoded(tmp_path / "raw.pcap", tmp_path)
    assert (good["esp.icv_good"], good["icmp.seq"]) == ("1", "5")
    assert (bad["esp.icv_good"], bad["esp.icv_bad"]) == ("0", "1")
