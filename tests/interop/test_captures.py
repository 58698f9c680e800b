"""tshark, as `experiments.captures` drives it, on captures that scapy built and encrypted."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from scapy.contrib.gtp import GTP_U_Header
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.layers.l2 import Ether
from scapy.packet import Packet
from scapy.utils import EDecimal, wrpcap

from experiments.captures import analyse, rtts_from_capture
from topo.errors import MeasurementError

pytestmark = pytest.mark.interop

UE, DN = "10.45.0.2", "10.60.0.2"
EG_U, EG_N = "10.0.1.1", "10.0.1.2"
PROTECTED = [IPv4Address(UE), IPv4Address(DN)]
KEY, SALT, SPI = bytes(range(16)), b"salt", 0x1001
GCM = "AES-GCM with 16 octet ICV [RFC4106]"
START_NS = 1_800_000_000_123_456_789
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")


def record(key: bytes = KEY) -> str:
    return f'"IPv4","{EG_U}","{EG_N}","{SPI:#x}","{GCM}","0x{(key + SALT).hex()}","NULL",""'


def request(sequence: int, identifier: int = 7) -> Packet:
    return IP(src=UE, dst=DN) / ICMP(type=8, id=identifier, seq=sequence) / bytes(56)


def reply(sequence: int, identifier: int = 7) -> Packet:
    return IP(src=DN, dst=UE) / ICMP(type=0, id=identifier, seq=sequence) / bytes(56)


def sealed(inner: Sequence[Packet]) -> list[Packet]:
    """Each packet in UDP-encapsulated tunnel-mode ESP."""
    sa = SecurityAssociation(
        ESP,
        spi=SPI,
        crypt_algo="AES-GCM",
        crypt_key=KEY + SALT,
        tunnel_header=IP(src=EG_U, dst=EG_N),
        nat_t_header=UDP(sport=4500, dport=4500),
    )
    return [ETHER / sa.encrypt(packet) for packet in inner]


def write(path: Path, packets: Sequence[Packet], at_ns: Sequence[int] | None = None) -> Path:
    for i, packet in enumerate(packets):
        stamp_ns = at_ns[i] if at_ns is not None else START_NS + i * 1_000_000
        packet.time = EDecimal(stamp_ns) / 10**9  # a decimal: nanoseconds survive
    wrpcap(str(path), list(packets), nano=True)
    return path


def test_every_sealed_packet_verifies_and_shows_its_icmp(tmp_path: Path) -> None:
    capture = write(tmp_path / "outer.pcap", sealed([request(i) for i in range(20)]))
    verdict = analyse(capture, [record()], PROTECTED)
    assert verdict.model_dump() == {
        "esp_packets": 20,
        "icv_good": 20,
        "icv_bad": 0,
        "inner_icmp": 20,
        "plaintext_packets": 0,
    }
    assert verdict.sealed


def test_a_wrong_key_verifies_nothing(tmp_path: Path) -> None:
    """In 1 of 40 packets the garbage looks like a protocol in whose midst tshark gives up."""
    capture = write(tmp_path / "outer.pcap", sealed([request(i) for i in range(400)]))
    verdict = analyse(capture, [record(key=bytes(16))], PROTECTED)
    assert (verdict.esp_packets, verdict.icv_good, verdict.icv_bad) == (400, 0, 400)
    assert verdict.inner_icmp == 0
    assert not verdict.sealed


def test_garbage_that_looks_like_esp_again_is_one_bad_packet(tmp_path: Path) -> None:
    """A wrong key decrypts to anything; here to a next header of ESP and something like one."""
    (packet,) = sealed([request(0)])
    iv = bytes(8)
    like_esp = SPI.to_bytes(4, "big") + bytes(44)
    header = SPI.to_bytes(4, "big") + (1).to_bytes(4, "big")
    text = AESGCM(KEY).encrypt(SALT + iv, like_esp + bytes((1, 2, 2, 50)), header)
    packet[ESP].data = iv + text[:-1] + bytes((text[-1] ^ 1,))
    for field in (packet[UDP], packet[IP]):
        del field.chksum, field.len
    verdict = analyse(write(tmp_path / "outer.pcap", [packet]), [record()], PROTECTED)
    assert (verdict.esp_packets, verdict.icv_good, verdict.icv_bad) == (1, 0, 1)


def test_an_sa_missing_from_the_table_is_neither_good_nor_bad(tmp_path: Path) -> None:
    capture = write(tmp_path / "outer.pcap", sealed([request(0)]))
    verdict = analyse(capture, [], PROTECTED)
    assert (verdict.esp_packets, verdict.icv_good, verdict.icv_bad) == (1, 0, 0)
    assert not verdict.sealed


def test_one_flipped_byte_fails_one_packet(tmp_path: Path) -> None:
    packets = sealed([request(i) for i in range(5)])
    esp = packets[3][ESP]
    data = bytearray(esp.data)
    data[20] ^= 0x01
    esp.data = bytes(data)
    del packets[3][UDP].chksum
    verdict = analyse(write(tmp_path / "outer.pcap", packets), [record()], PROTECTED)
    assert (verdict.esp_packets, verdict.icv_good, verdict.icv_bad) == (5, 4, 1)
    assert not verdict.sealed


@pytest.mark.parametrize(
    "leak",
    [
        request(0),
        reply(0),
        IP(src="10.9.9.9", dst=UE) / UDP(sport=1, dport=2) / b"downlink",
        IP(src="10.45.1.1", dst="10.45.1.2")
        / UDP(sport=2152, dport=2152)
        / GTP_U_Header(teid=1)
        / request(0),
        IP(src="10.0.1.9", dst=EG_U) / ICMP(type=3, code=4) / request(0),
    ],
    ids=["uplink", "downlink", "other-peer", "bare-gtp-u", "quoted-by-icmp-error"],
)
def test_an_unprotected_packet_is_counted(tmp_path: Path, leak: Packet) -> None:
    packets = [*sealed([request(i) for i in range(3)]), ETHER / leak]
    verdict = analyse(write(tmp_path / "outer.pcap", packets), [record()], PROTECTED)
    assert verdict.plaintext_packets == 1
    assert verdict.esp_packets == verdict.icv_good == verdict.inner_icmp == 3
    assert not verdict.sealed


def test_packets_of_the_gateways_themselves_are_not_plaintext(tmp_path: Path) -> None:
    control = ETHER / IP(src=EG_U, dst=EG_N) / UDP(sport=4500, dport=4500) / (bytes(4) + b"control")
    keepalive = ETHER / IP(src=EG_U, dst=EG_N) / UDP(sport=4500, dport=4500) / b"\xff"
    packets = [control, keepalive, *sealed([request(0)])]
    verdict = analyse(write(tmp_path / "outer.pcap", packets), [record()], PROTECTED)
    assert verdict.sealed
    assert verdict.esp_packets == 1


def test_the_users_own_profile_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = tmp_path / "profile"
    profile.mkdir()
    (profile / "esp_sa").write_text(record() + "\n", encoding="ascii")
    (profile / "preferences").write_text("esp.enable_encryption_decode: TRUE\n", encoding="ascii")
    monkeypatch.setenv("WIRESHARK_CONFIG_DIR", str(profile))
    capture = write(tmp_path / "outer.pcap", sealed([request(0)]))
    verdict = analyse(capture, [], PROTECTED)
    assert (verdict.icv_good, verdict.plaintext_packets) == (0, 0)


def test_a_malformed_key_table_is_an_error(tmp_path: Path) -> None:
    capture = write(tmp_path / "outer.pcap", sealed([request(0)]))
    with pytest.raises(MeasurementError, match="esp_sa"):
        analyse(capture, ['"IPv4","unfinished'], PROTECTED)


def test_a_truncated_capture_is_an_error(tmp_path: Path) -> None:
    capture = write(tmp_path / "outer.pcap", sealed([request(0)]))
    capture.write_bytes(capture.read_bytes()[:-10])
    with pytest.raises(MeasurementError, match="cut short"):
        analyse(capture, [record()], PROTECTED)
    with pytest.raises(MeasurementError, match="tshark"):
        analyse(tmp_path / "absent.pcap", [record()], PROTECTED)


def test_rtts_come_out_to_the_nanosecond(tmp_path: Path) -> None:
    packets = [request(0), request(1), reply(0), reply(1), request(2), reply(0)]
    at_ns = [START_NS + offset for offset in (0, 10, 544_584_001, 544_584_011, 10**9, 2 * 10**9)]
    capture = write(tmp_path / "ue.pcap", [ETHER / packet for packet in packets], at_ns)
    assert rtts_from_capture(capture) == {0: 544_584_001, 1: 544_584_001, 2: None}


def test_rtts_of_one_prober_among_two(tmp_path: Path) -> None:
    packets = [ETHER / p for p in (request(0, 1), request(0, 2), reply(0, 2), reply(0, 1))]
    capture = write(tmp_path / "ue.pcap", packets)
    with pytest.raises(MeasurementError, match="several probers"):
        rtts_from_capture(capture)
    assert rtts_from_capture(capture, identifier=1) == {0: 3_000_000}
    assert rtts_from_capture(capture, identifier=2) == {0: 1_000_000}
    assert rtts_from_capture(capture, identifier=3) == {}
