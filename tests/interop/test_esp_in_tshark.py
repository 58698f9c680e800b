"""tshark decrypts a capture of ours, with the key file a gateway writes."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

from gateways.encapsulation import NON_ESP_MARKER
from gateways.esp import OutboundSa
from gateways.export import append_private, esp_sa_record
from gateways.keys import SaKeys

pytestmark = pytest.mark.interop

HERE, THERE = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
PACKETS = 400


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


def test_every_packet_decrypts_and_verifies(tmp_path: Path) -> None:
    keys = {spi: SaKeys(random.Random(spi).randbytes(16), b"salt") for spi in (0x1001, 0xFEDCBA98)}
    directions = {0x1001: (HERE, THERE), 0xFEDCBA98: (THERE, HERE)}
    capture = []
    for spi, (source, destination) in directions.items():
        append_private(tmp_path / "esp_sa", esp_sa_record(source, destination, spi, keys[spi]))
        sa = OutboundSa(spi, keys[spi])
        for number in range(1, PACKETS + 1):
            esp = sa.seal(echo("10.1.0.5", "10.2.0.7", number, number % 1400))
            capture.append(outer(source, destination, in_udp(esp)))
    # The control messages between them must not be taken for ESP.
    capture.append(outer(HERE, THERE, in_udp(NON_ESP_MARKER + bytes(100))))
    wrpcap(str(tmp_path / "outer.pcap"), capture)

    *packets, control = decoded(tmp_path / "outer.pcap", tmp_path)
    assert len(packets) == 2 * PACKETS
    for index, packet in enumerate(packets):
        assert packet["esp.icv_good"] == "1"
        assert packet["esp.icv_bad"] == "0"
        assert packet["frame.protocols"].startswith("eth:ethertype:ip:udp:udpencap:esp:ip:icmp")
        assert packet["esp.sequence"] == packet["icmp.seq"] == str(index % PACKETS + 1)
    assert control["esp.spi"] == ""


def test_raw_esp_and_a_flipped_bit(tmp_path: Path) -> None:
    keys = SaKeys(bytes(range(16)), b"salt")
    append_private(tmp_path / "esp_sa", esp_sa_record(HERE, THERE, 0x1001, keys))
    esp = OutboundSa(0x1001, keys).seal(echo("10.1.0.5", "10.2.0.7", 5, 56))
    flipped = esp[:40] + bytes((esp[40] ^ 1,)) + esp[41:]
    wrpcap(str(tmp_path / "raw.pcap"), [outer(HERE, THERE, d, 50) for d in (esp, flipped)])
    good, bad = decoded(tmp_path / "raw.pcap", tmp_path)
    assert (good["esp.icv_good"], good["icmp.seq"]) == ("1", "5")
    assert (bad["esp.icv_good"], bad["esp.icv_bad"]) == ("0", "1")
