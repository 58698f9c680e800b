"""`qntn decrypt`: captures of ours and of scapy's opened with a run's keys, tshark as the second opinion."""

from __future__ import annotations

import json
import stat
from collections import Counter
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from scapy.contrib.gtp import GTP_U_Header
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw
from scapy.utils import EDecimal, rdpcap, wrpcap

from experiments.decrypt import Findings, decrypt_run, frames, protocol_of
from gateways.aggfrag import NEXT_AGGFRAG, Sender
from gateways.encapsulation import KEEPALIVE, NON_ESP_MARKER
from gateways.esp import NEXT_DUMMY, OutboundSa
from gateways.export import esp_sa_record
from gateways.keys import SaKeys
from gateways.suites import AES_128_CBC_SHA256, AES_128_GCM, SM4_128_CBC_SM3, SUITES, Suite
from tests.esp_packets import keys_of
from topo.errors import InputError, MeasurementError

pytestmark = pytest.mark.interop

HERE, THERE = "192.0.2.1", "192.0.2.2"
START_NS = 1_800_000_000_123_456_789
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
INNER = IP(src="10.1.0.5", dst="10.2.0.7")
INNERS = [
    bytes(INNER / ICMP(id=1, seq=1) / bytes(56)),
    bytes(INNER / TCP(sport=40001, dport=40002) / b"tcp"),
    bytes(INNER / UDP(sport=40001, dport=40002) / bytes(700)),
    bytes(INNER / UDP(sport=2152, dport=2152) / GTP_U_Header(teid=1) / INNER / ICMP(id=2)),
    bytes(IPv6(src="2001:db8:1::5", dst="2001:db8:2::7") / UDP(sport=40001, dport=40002)),
]
PROTOCOLS = Counter({"UDP": 2, "ICMP": 1, "TCP": 1, "GTP-U": 1})


def record(spi: int, keys: SaKeys, source: str = HERE, destination: str = THERE) -> str:
    return esp_sa_record(IPv4Address(source), IPv4Address(destination), spi, keys)


def in_udp(payload: bytes, source: str = HERE, destination: str = THERE) -> Packet:
    outer = IP(src=source, dst=destination, flags="DF")
    return ETHER / outer / UDP(sport=4500, dport=4500, chksum=0) / Raw(payload)


def raw_esp(payload: bytes) -> Packet:
    return ETHER / IP(src=HERE, dst=THERE, flags="DF", proto=50) / Raw(payload)


def run_with(folder: Path, packets: list[Packet], table: str) -> Findings:
    """Decrypt a run folder with one capture, in which packet i is at START_NS + i ms."""
    (folder / "captures").mkdir()
    (folder / "esp_sa").write_text(table)
    for number, packet in enumerate(packets):
        packet.time = EDecimal(START_NS + number * 1_000_000) / 10**9
    wrpcap(str(folder / "captures" / "arm-satellite.pcapng"), packets, nano=True)
    (found,) = decrypt_run(folder)
    return found


@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.name)
def test_every_suite_raw_and_in_udp(suite: Suite, tmp_path: Path) -> None:
    keys = keys_of(suite)
    sa = OutboundSa(0x1001, keys)
    sealed = [sa.seal(inner) for inner in INNERS]
    packets = [in_udp(one) for one in sealed[:3]] + [raw_esp(one) for one in sealed[3:]]
    found = run_with(tmp_path, packets, record(0x1001, keys))
    (one,) = found.sas
    assert (one.suite, one.esp_packets, one.icv_good, one.icv_bad) == (suite.name, 5, 5, 0)
    assert one.tshark == ((5, 0) if suite.wireshark else None)
    assert one.protocols == PROTOCOLS
    assert found.sound
    assert found.inner == [(START_NS + n * 1_000_000, inner) for n, inner in enumerate(INNERS)]


def test_what_is_written_can_be_read_without_a_key(tmp_path: Path) -> None:
    keys = keys_of(SM4_128_CBC_SM3)
    sa = OutboundSa(0x1001, keys)
    found = run_with(tmp_path, [in_udp(sa.seal(one)) for one in INNERS], record(0x1001, keys))
    assert found.decrypted == tmp_path / "decrypted" / "arm-satellite.pcapng"
    assert stat.S_IMODE(found.decrypted.stat().st_mode) == 0o600
    assert found.decrypted.read_bytes()[:4] == bytes.fromhex("0a0d0d0a")  # a pcapng's first block
    read = rdpcap(str(found.decrypted))
    assert [bytes(packet) for packet in read] == INNERS
    assert [int(packet.time * 10**9) for packet in read] == [at for at, _ in found.inner]
    again = json.loads(json.dumps(found.as_json()))
    assert (again["inner_packets"], again["sas"][0]["spi"]) == (5, "0x00001001")


@pytest.mark.parametrize("suite", [AES_128_GCM, AES_128_CBC_SHA256], ids=lambda suite: suite.name)
def test_packets_that_scapy_sealed(suite: Suite, tmp_path: Path) -> None:
    keys = keys_of(suite)
    cbc = {"auth_algo": "SHA2-256-128", "auth_key": keys.integrity_key} if suite.integrity else {}
    sa = SecurityAssociation(
        ESP,
        spi=0x1001,
        crypt_algo="AES-CBC" if suite.integrity else "AES-GCM",
        crypt_key=keys.key + keys.salt,
        tunnel_header=IP(src=HERE, dst=THERE),
        nat_t_header=UDP(sport=4500, dport=4500),
        **cbc,
    )
    packets = [ETHER / sa.encrypt(IP(inner)) for inner in INNERS[:4]]
    found = run_with(tmp_path, packets, record(0x1001, keys))
    assert [inner for _, inner in found.inner] == INNERS[:4]
    assert found.sound
    assert found.sas[0].tshark == (4, 0)


def test_what_is_wrong_is_told_apart(tmp_path: Path) -> None:
    """A flipped bit, a replay, a replay with a flipped bit, a dummy, an SA without a key, what is no ESP at all."""
    keys, other = keys_of(AES_128_GCM), keys_of(AES_128_GCM, 2)
    sa, unknown = OutboundSa(0x1001, keys), OutboundSa(0x2002, other)
    first, second = (sa.seal(inner) for inner in INNERS[:2])
    flipped = second[:30] + bytes((second[30] ^ 1,)) + second[31:]
    replayed_and_flipped = first[:30] + bytes((first[30] ^ 1,)) + first[31:]
    dummy = sa.seal_payload(NEXT_DUMMY, bytes(50))
    esp = [first, flipped, first, replayed_and_flipped, dummy, unknown.seal(INNERS[0])]
    noise = [
        in_udp(NON_ESP_MARKER + bytes(40)),
        in_udp(KEEPALIVE),
        ETHER / INNERS[0],
        ETHER / ARP(),
        ETHER / IP(src=HERE, dst=THERE) / UDP(sport=53, dport=53) / Raw(bytes(40)),
    ]
    found = run_with(tmp_path, [*map(in_udp, esp), *noise], record(0x1001, keys))
    known, without_key = found.sas
    assert (known.esp_packets, known.icv_good, known.icv_bad) == (5, 3, 2)
    assert (known.replays, known.dummies, known.tshark) == (2, 1, (3, 2))
    assert known.agrees
    assert (without_key.spi, without_key.suite, without_key.tshark) == (0x2002, None, None)
    assert (without_key.esp_packets, without_key.icv_good) == (1, 0)
    assert not found.sound
    assert [inner for _, inner in found.inner] == INNERS[:1]


def test_a_wrong_key(tmp_path: Path) -> None:
    sa = OutboundSa(0x1001, keys_of(AES_128_GCM))
    packets = [in_udp(sa.seal(INNERS[0])) for _ in range(10)]
    found = run_with(tmp_path, packets, record(0x1001, keys_of(AES_128_GCM, 2)))
    assert (found.sas[0].icv_bad, found.sas[0].tshark) == (10, (0, 10))
    assert (found.sound, found.inner, found.decrypted) == (False, [], None)


@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.name)
def test_the_constant_rate_mode(suite: Suite, tmp_path: Path) -> None:
    """Packets come back out of AGGFRAG payloads, at the time of the payload that completes each."""
    keys = keys_of(suite)
    sa, sender = OutboundSa(0x1001, keys), Sender(510)
    for inner in INNERS:
        sender.put(inner)
    sealed = [sa.seal_payload(NEXT_AGGFRAG, sender.next_payload()) for _ in range(5)]
    assert len({len(one) for one in sealed}) == 1
    found = run_with(tmp_path, [in_udp(one) for one in sealed], record(0x1001, keys))
    assert [inner for _, inner in found.inner] == INNERS
    (one,) = found.sas
    carrying = -(-sum(map(len, INNERS)) // 506)
    assert (one.icv_good, one.protocols, one.dummies) == (5, PROTOCOLS, 5 - carrying)
    assert found.sound


def test_both_ways_and_many_sas(tmp_path: Path) -> None:
    table, packets = "", []
    for number in range(6):
        suite = list(SUITES.values())[number % 4]
        ends = (HERE, THERE) if number % 2 else (THERE, HERE)
        keys = keys_of(suite, number)
        table += record(0x1001 + number, keys, *ends)
        packets += [in_udp(OutboundSa(0x1001 + number, keys).seal(INNERS[0]), *ends)]
    found = run_with(tmp_path, packets, table + "\n# a remark\n")
    assert [(sa.source, sa.esp_packets, sa.icv_good) for sa in found.sas] == [
        (HERE if number % 2 else THERE, 1, 1) for number in range(6)
    ]
    assert found.sound


def test_what_is_no_capture(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(MeasurementError, match="editcap: "):
        list(frames(path))
    wrpcap(str(path), [IP(INNERS[0])])
    with pytest.raises(MeasurementError, match="not a capture of Ethernet frames"):
        list(frames(path))


def test_protocols() -> None:
    later = IP(src="10.1.0.5", dst="10.2.0.7", frag=100, proto=17) / Raw(bytes(64))
    assert protocol_of(bytes(later)) == "UDP"
    assert protocol_of(bytes(IP(proto=89) / Raw(bytes(20)))) == "protocol 89"
    with pytest.raises(InputError, match="no captures"):
        decrypt_run(Path("/nonexistent"))


def test_addresses_are_part_of_an_sa(tmp_path: Path) -> None:
    """The same SPI from another gateway is another SA, for which there is no key."""
    keys = keys_of(AES_128_GCM)
    packet = in_udp(OutboundSa(0x1001, keys).seal(INNERS[0]), "192.0.2.9")
    found = run_with(tmp_path, [packet], record(0x1001, keys))
    assert found.sas[0].suite is None
    assert IPv4Address(found.sas[0].source) == IPv4Address("192.0.2.9")
