"""Two real gateway processes in two network namespaces, pinged through."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest

from gateways.suites import sm4_backend
from tests.gateway_pair import (
    INNER,
    INNER6,
    PATIENCE_S,
    PSK,
    SITES,
    Pair,
    SeededKeys,
    dissected,
    give_ipv6,
    make_kms,
    pair,
    ping6,
    run,
    until,
)

pytestmark = pytest.mark.interop
__all__ = ["pair"]


def test_ping_through_rekeys_all_encrypted(pair: Pair) -> None:
    outer = pair.directory / "outer.pcap"
    pair.capture(outer)
    pair.up()
    assert pair.ping(100, 0.03) == (100, 100)
    assert pair.ping(3, 0.05, "-s", "1410", "-M", "do") == (3, 3)  # 1438: the whole TUN MTU
    until(lambda: pair.log("u").count(" Established ") >= 4, "three rekeys")
    status = {site: pair.stop(site) for site in SITES}
    pair.end_capture(outer)

    assert status["u"]["key_ids"] == status["n"]["key_ids"]
    assert status["u"]["rekeys"] == status["n"]["rekeys"] >= 3
    for site in SITES:
        sas = status[site]["sas"]
        assert sum(sa["packets"] for sa in sas if sa["direction"] == "in") == 103
        assert sum(sa["packets"] for sa in sas if sa["direction"] == "out") == 103
        refusals = ("replays", "icv_failures", "selector_drops", "unknown_spi")
        assert all(sa[name] == 0 for sa in sas for name in refusals)
        assert status[site]["drops"] == {}

    fields = ("ip.proto", "esp.spi", "esp.icv_good", "icmp.seq", "ip.flags.df", "udp.length")
    # Not the kernel's "port unreachable", when a last answer found its gateway gone: ICMP that quotes UDP.
    rows = [row for row in dissected(outer, pair.directory, *fields) if row[0] not in ("", "1,17")]
    esp = [row for row in rows if row[1]]
    assert len(esp) == 2 * 103
    assert all(row[2] == "1" and row[3] for row in esp)
    assert all(row[0].startswith("17") for row in rows)  # UDP, or UDP with what is inside
    assert all(row[4].startswith(("1", "True")) for row in rows)
    assert max(int(row[5].split(",")[0]) for row in rows) + 20 <= 1500


def test_no_key_and_no_psk_in_any_output(pair: Pair) -> None:
    pair.up()
    pair.ping()
    key_ids = pair.stop("u")["key_ids"]
    pair.stop("n")
    records = (pair.directory / "esp_sa").read_text()
    secrets = [PSK, *re.findall(r"0x([0-9a-f]{40})", records)]
    secrets += [SeededKeys().fetch_by_id(key_id).hex() for key_id in key_ids]
    assert len(secrets) >= 4
    assert (pair.directory / "esp_sa").stat().st_mode & 0o777 == 0o600
    for path in pair.directory.iterdir():
        if path.suffix in (".out", ".err") or path.name in ("u.json", "n.json"):
            text = path.read_text()
            assert not any(secret in text for secret in secrets), path.name
    assert "SESSION-KEY-EXPORTED" in pair.log("u")


def test_wrong_ppk_is_noticed_and_nothing_is_established(pair: Pair) -> None:
    pair.configure("n", fault="wrong-key")
    for site in reversed(SITES):
        pair.start(site)
        pair.wait_for(site, "LISTENING")
    until(lambda: "AUTHENTICATION_FAILED" in pair.log("u"), "the refusal")
    assert pair.ping() == (5, 0)
    assert pair.stop("u")["sas"] == pair.stop("n")["sas"] == []
    assert "is not the peer's" in pair.log("n")
    assert "fault" in pair.log("n")


def test_wrong_key_in_direct_mode_lets_nothing_pass(pair: Pair) -> None:
    pair.configure("u", keying="direct")
    pair.configure("n", keying="direct", fault="wrong-key")
    pair.up()
    assert pair.ping() == (5, 0)
    pair.stop("u")
    sas = pair.stop("n")["sas"]
    assert sum(sa["icv_failures"] for sa in sas) == 5
    assert sum(sa["packets"] for sa in sas) == 0
    assert "fault" in pair.log("n")


def test_nothing_leaves_in_clear_when_a_gateway_stops_or_dies(pair: Pair) -> None:
    outer = pair.directory / "outer.pcap"
    pair.capture(outer)
    pair.up()
    assert pair.ping() == (5, 5)
    pair.processes.pop("n").kill()
    assert pair.ping() == (5, 0)
    pair.processes["u"].kill()
    pair.processes.pop("u").wait()
    assert pair.ping() == (5, 0)
    pair.up()
    assert pair.ping() == (5, 5)
    pair.stop("u")
    assert pair.ping() == (5, 0)
    pair.end_capture(outer)
    # Nothing but UDP 4500, and ICMP from the kernel whose gateway had died, ever left.
    rows = dissected(outer, pair.directory / "none", "ip.src", "ip.dst", "ip.proto", "icmp.type")
    plain = [row for row in rows if row[0] and not row[2].startswith("17") and row[3] != "3"]
    assert plain == []
    assert not any(row[0].split(",")[0] in INNER.values() for row in rows)


def test_keys_from_two_kmss_and_an_outage(pair: Pair) -> None:
    pair.program = ("-m", "gateways.gateway")
    for site, other in (SITES, SITES[::-1]):
        kms = make_kms(pair.directory / f"kms-{site}", site, other)
        pair.configure(site, kms=kms, hard_after_s=2)
        pair.start_kms(site)
    pair.up()
    assert pair.ping(50, 0.03) == (50, 50)
    until(lambda: pair.log("n").count(" Established ") >= 3, "two rekeys")
    outage = pair.processes.pop("kms-u")
    outage.terminate()
    outage.wait(PATIENCE_S)
    for site in SITES:
        until(lambda site=site: " RetireOutbound " in pair.log(site), "the hard lifetime")  # type: ignore[misc]
    assert pair.ping() == (5, 0)
    pair.start_kms("u")
    before = pair.log("n").count(" Established ")
    until(lambda: pair.log("n").count(" Established ") > before, "a key after the outage")
    assert pair.ping() == (5, 5)
    status = {site: pair.stop(site) for site in SITES}
    assert status["u"]["key_ids"] == status["n"]["key_ids"]
    assert len(set(status["u"]["key_ids"])) == len(status["u"]["key_ids"]) >= 4
    assert any(change["event"] == "Failed" for change in status["u"]["state_changes"])


def test_gateway_that_cannot_bind_says_so_in_one_line(pair: Pair) -> None:
    pair.configure("u", outer_local="198.51.100.1")
    pair.start("u")
    assert pair.processes["u"].wait(PATIENCE_S) == 1
    assert pair.log("u").strip().count("\n") == 0
    assert "198.51.100.1" in pair.log("u")


def test_ipv6_inside_beside_ipv4_and_never_in_clear(pair: Pair) -> None:
    outer = pair.directory / "outer.pcap"
    give_ipv6(pair)
    pair.capture(outer)
    pair.up()
    assert ping6(pair, 20) == 20
    assert pair.ping() == (5, 5)
    assert ping6(pair, 3, "-s", "1390", "-M", "do") == 3  # 1438: the whole TUN MTU
    assert ping6(pair, 3, "-s", "3000") == 3  # fragments
    pair.processes["u"].kill()
    pair.processes.pop("u").wait()
    assert ping6(pair, 5) == 0
    pair.start("u")
    pair.wait_for("u", "READY")
    assert ping6(pair, 5) == 5
    status = {site: pair.stop(site) for site in SITES}
    assert ping6(pair, 5) == 0
    pair.end_capture(outer)
    for site in SITES:
        assert all(not sa["selector_drops"] for sa in status[site]["sas"])
    rows = dissected(outer, pair.directory / "none", "ipv6.src", "ipv6.dst")
    assert not any(set(row) & {*INNER6.values()} for row in rows)
    encrypted = dissected(outer, pair.directory, "esp.icv_good", "icmpv6.type")
    assert sum(row[1].split(",")[0] == "128" for row in encrypted) >= 31
    assert all(row[0] == "1" for row in encrypted if row[1] in ("128", "129"))


def test_sm4_and_the_log_names_its_library(pair: Pair) -> None:
    for site in SITES:
        pair.configure(site, suites=["SM4-128-GCM", "AES-128-GCM"], esp_sa=None)
    pair.up()
    assert pair.ping() == (5, 5)
    for site in SITES:
        said = dict(re.findall(r" suite .*name=(\S+) library=(.+)", pair.log(site)))
        assert said["SM4-128-GCM"].strip('"') == sm4_backend()
        assert said["AES-128-GCM"] == "cryptography"
        assert pair.stop(site)["sas"]


def test_ipv6_in_super_packets(pair: Pair) -> None:
    if shutil.which("iperf3") is None:
        pytest.skip("iperf3 is not installed")
    pair.arguments = ("fast",)
    give_ipv6(pair)
    pair.up()
    server = pair.inside("n", "iperf3", "-s", "-1", "-B", INNER6["n"])
    pair.processes["iperf3"] = subprocess.Popen(server, stdout=subprocess.DEVNULL)
    until(lambda: INNER6["n"] in run(*pair.inside("n", "ss", "-Hltn")), "iperf3 -s")
    client = ("iperf3", "-J", "-c", INNER6["n"], "-B", INNER6["u"], "--bidir", "-t", "1")
    result = json.loads(run(*pair.inside("u", *client)))
    assert "error" not in result
    for site in SITES:
        counters = run(*pair.inside(site, "nstat", "-asz", "TcpInCsumErrors"))
        assert re.search(r"TcpInCsumErrors +0 ", counters), counters
        status = pair.stop(site)
        assert sum(sa["packets"] for sa in status["sas"] if sa["direction"] == "in") > 100
        assert not any(name.startswith("tun_") for name in status["errors"])


NARROW_AND_WIDE = """
import subprocess
from ipaddress import ip_interface, ip_network
from gateways.tun import open_tun

addresses = [ip_interface("10.81.9.1/30"), ip_interface("fd00:81:9::1/126")]
local = [ip_network("10.81.1.0/24"), ip_network("fd00:81:1::/64")]
remote = [ip_network("10.81.2.0/24"), ip_network("fd00:81:2::/64")]
tun = open_tun("qtun6", addresses, 1438, local, remote, offloads=False)
for mtu in (1438, 1200, 1438):
    tun.set_mtu(mtu)
    tun.restore()
    for destination in ("10.81.2.1", "fd00:81:2::1"):
        ip = subprocess.run(["ip", "route", "get", destination], capture_output=True, text=True)
        print("tunnel" if "qtun6" in ip.stdout else "none", end=" ")
"""


def test_a_path_too_narrow_for_ipv6_stops_it_until_it_is_wide_again(pair: Pair) -> None:
    command = pair.inside("u", sys.executable, "-c", NARROW_AND_WIDE)
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["tunnel", "tunnel", "tunnel", "none", "tunnel", "tunnel"]


def test_raw_esp_carries_the_packets_and_udp_only_ike(pair: Pair) -> None:
    outer = pair.directory / "outer.pcap"
    for site in SITES:
        pair.configure(site, encapsulation="raw")
    pair.capture(outer)
    pair.up()
    assert pair.ping(40, 0.03) == (40, 40)
    assert pair.ping(3, 0.05, "-s", "1418", "-M", "do") == (3, 3)  # 1446: eight octets more
    assert pair.ping(5, 0.05, "-Q", "0xb8") == (5, 5)
    until(lambda: pair.log("u").count(" Established ") >= 3, "two rekeys")
    status = {site: pair.stop(site) for site in SITES}
    pair.end_capture(outer)
    for site in SITES:
        assert sum(sa["packets"] for sa in status[site]["sas"] if sa["direction"] == "in") == 48
        assert status[site]["drops"] == {}
    fields = ("ip.proto", "esp.icv_good", "ip.len", "ip.flags.df", "udp.port", "ip.dsfield")
    rows = dissected(outer, pair.directory, *fields)
    esp = [row for row in rows if row[1]]
    assert len(esp) == 2 * 48
    assert [row[5] for row in esp].count("0xb8,0xb8") == 2 * 5
    assert all(row[0].startswith("50,") and row[1] == "1" for row in esp)
    assert max(int(row[2].split(",")[0]) for row in esp) == 1500
    assert all(row[3].startswith(("1", "True")) for row in esp)
    assert {row[4] for row in rows if row[0].startswith("17")} == {"4500,4500"}
