"""Routes of all kinds beside a running gateway: nothing protected is ever in clear on the wire between two of them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway_pair import (
    INNER,
    INNER6,
    PREFIX,
    SITES,
    Pair,
    dissected,
    give_ipv6,
    pair,
    ping6,
    run,
    until,
)

pytestmark = pytest.mark.interop
__all__ = ["pair"]

DOCS = Path(__file__).parents[2] / "docs" / "gateways.md"


@pytest.fixture(autouse=True)
def steady(pair: Pair) -> None:
    """No rekey while routes change."""
    for site in SITES:
        pair.configure(site, rekey_after_s=60)


@pytest.fixture
def outer(pair: Pair) -> Path:
    """Where all is captured that is on the wire outside."""
    path = pair.directory / "outer.pcap"
    pair.capture(path)
    return path


@pytest.fixture
def lan(pair: Pair) -> Iterator[None]:
    """EG-N as a router, as it is in life: its user on a wire of its own, the default route to the wire outside."""
    host = pair.namespace("h")
    run("ip", "netns", "add", host)
    try:
        do(
            pair,
            "n",
            "sysctl -qw net.ipv4.ip_forward=1",
            f"ip address del {INNER['n']}/32 dev lo",
            f"ip link add lan type veth peer name lan netns {host}",
            "ip address add 10.81.2.254/24 dev lan",
            "ip link set lan up",
            "ip route add default via 192.0.2.1",
        )
        do(
            pair,
            "h",
            f"ip address add {INNER['n']}/24 dev lan",
            "ip link set lan up",
            "ip route add default via 10.81.2.254",
        )
        yield
    finally:
        run("ip", "netns", "del", host)


def do(pair: Pair, site: str, *commands: str) -> str:
    return run(*pair.inside(site, "sh", "-ec", "\n".join(commands)))


def in_clear(pair: Pair, outer: Path) -> list[list[str]]:
    """What was captured with an inner address outside."""
    pair.end_capture(outer)
    fields = ("ip.src", "ip.dst", "ipv6.src", "ipv6.dst")
    rows = dissected(outer, pair.directory / "none", *fields)
    assert any("192.0.2.1" in row[0] for row in rows)
    inner = {*INNER.values(), *INNER6.values()}
    return [row for row in rows if inner & {address.split(",")[0] for address in row}]


def test_other_routes_to_the_prefix_lead_nothing_around_the_tunnel(pair: Pair, outer: Path) -> None:
    do(pair, "u", "ip route add 10.81.2.1/32 via 192.0.2.2 dev veth")
    pair.up()
    assert pair.ping() == (5, 5)
    do(pair, "u", "ip route replace 10.81.2.0/24 via 192.0.2.2 dev veth")
    assert pair.ping() == (5, 5)
    pair.stop("u")
    assert pair.ping() == (5, 0)
    assert in_clear(pair, outer) == []


@pytest.mark.usefixtures("lan")
def test_what_came_out_of_the_tunnel_goes_to_the_lan_or_nowhere(pair: Pair, outer: Path) -> None:
    for site in ("u", "n"):
        do(pair, site, "sysctl -qw net.ipv4.conf.all.rp_filter=1")
    pair.up()
    assert pair.ping() == (5, 5)
    do(pair, "n", "ip link set lan down")
    assert pair.ping() == (5, 0)
    assert in_clear(pair, outer) == []


def test_ipv6_stays_inside_while_the_loopback_and_the_device_go_down_and_up(
    pair: Pair, outer: Path
) -> None:
    give_ipv6(pair, rekey_after_s=60)
    pair.up()
    assert ping6(pair, 5) == 5
    do(pair, "u", "ip link set lo down", "ip link set lo up", f"ip a add {INNER6['u']} dev lo")
    do(pair, "u", "ip link set qtun0 down")
    assert pair.ping() == (5, 0)
    assert ping6(pair, 5) == 0
    do(pair, "u", "ip link set qtun0 up")
    for version in ("-4", "-6"):
        routes = ("ip", version, "route", "show", "table", "4500")
        until(lambda routes=routes: "qtun0" in run(*pair.inside("u", *routes)), "the routes")  # type: ignore[misc]
    assert pair.ping() == (5, 5)
    assert ping6(pair, 5) == 5
    pair.processes["u"].kill()
    pair.processes.pop("u").wait()
    assert pair.ping() == (5, 0)
    assert ping6(pair, 5) == 0
    assert in_clear(pair, outer) == []


def test_a_gateway_that_starts_again_finds_its_rules_there(pair: Pair) -> None:
    pair.up()
    rules = do(pair, "u", "ip rule")
    assert rules.count("proto 145") == 7
    pair.stop("u")
    assert do(pair, "u", "ip rule").replace(" [detached]", "") == rules
    pair.stop("n")
    pair.up()
    assert do(pair, "u", "ip rule") == rules
    assert pair.ping() == (5, 5)
    for site in SITES:
        pair.stop(site)
    others = "ip rule; ip -6 rule"
    documented = re.search("```sh\n(for ip in.*?)```", DOCS.read_text(), re.DOTALL)
    assert documented
    do(pair, "u", documented[1])
    assert not re.search("4500|qtun0|145", do(pair, "u", others))
    assert do(pair, "u", others).count("lookup local") == 2


def test_routes_that_refuse_the_peer_lose_packets_and_nothing_else(pair: Pair) -> None:
    pair.up()
    for kind in ("blackhole", "prohibit", "unreachable"):
        do(pair, "u", f"ip route add {kind} 192.0.2.2")
        assert pair.ping() == (5, 0)
        do(pair, "u", f"ip route del {kind} 192.0.2.2")
        assert pair.ping() == (5, 5)
    assert {"EINVAL", "EACCES", "EHOSTUNREACH"} <= pair.stop("u")["errors"].keys()


FORGED_ICMP = """
import socket, struct, sys

def checked(message):
    total = sum(struct.unpack(f"!{len(message) // 2}H", message))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return message[:2] + struct.pack("!H", ~total & 0xFFFF) + message[4:]

kind, code, mtu = map(int, sys.argv[1:])
ours, peer = socket.inet_aton("192.0.2.1"), socket.inet_aton("192.0.2.2")
quoted = struct.pack("!BBHHHBBH", 0x45, 0, 1500, 1, 0x4000, 64, 17, 0) + ours + peer
quoted += struct.pack("!HHHH", 4500, 4500, 1480, 0)
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp:
    icmp.sendto(checked(struct.pack("!BBHHH", kind, code, 0, 0, mtu) + quoted), ("192.0.2.1", 0))
"""


def forge(pair: Pair, kind: int, code: int, mtu: int = 0) -> None:
    """Send EG-U a message as from a router on the path, about a datagram of its own."""
    numbers = [str(number) for number in (kind, code, mtu)]
    run(*pair.inside("n", sys.executable, "-c", FORGED_ICMP, *numbers))


def test_no_forged_icmp_message_ends_a_gateway_or_takes_ipv6_away(pair: Pair) -> None:
    give_ipv6(pair, rekey_after_s=60)
    pair.up()
    for kind, code in ((3, 7), (3, 8), (3, 5), (3, 2), (12, 0)):
        forge(pair, kind, code)
        assert pair.ping() == (5, 5)
    forge(pair, 3, 4, 600)
    assert ping6(pair, 5, "-s", "1200") == 5
    assert pair.ping(5, 0.05, "-s", "1100") == (5, 5)
    errors = pair.stop("u")["errors"]
    assert {"EHOSTDOWN", "ENONET", "EPROTO", "EMSGSIZE"} <= errors.keys()
    assert re.search(r" mtu .*inner=128\d$", pair.log("u"), re.MULTILINE)


def test_what_others_do_with_rules_addresses_and_names_leads_nothing_around_the_tunnel(
    pair: Pair, outer: Path
) -> None:
    def routes() -> str:
        return do(pair, "u", "ip route show table 4500")

    pair.up()
    do(
        pair,
        "u",
        "ip route add default via 192.0.2.2 table 100",
        "ip rule add from 10.81.1.0/24 table 100",  # without a preference, as wg-quick's
    )
    assert pair.ping() == (5, 5)
    for change in (
        "ip route flush table 4500",
        "ip route replace 10.81.2.0/24 via 192.0.2.2 dev veth table 4500",
        "ip route prepend 10.81.2.0/24 via 192.0.2.2 dev veth table 4500",
        "ip address flush dev qtun0",
        "ip link set qtun0 down; ip link set qtun0 name other; ip link set other up",
    ):
        do(pair, "u", change)
        until(lambda: re.fullmatch(r"10.81.2.0/24 dev (qtun0|other) .*\s*", routes()), "the route")
        assert pair.ping() == (5, 5)
    rules = do(pair, "u", "ip rule")
    assert "iif other" in rules
    pair.stop("u")
    assert pair.ping() == (5, 0)
    assert in_clear(pair, outer) == []


def test_rules_that_somebody_flushed_are_put_back_and_that_is_said(pair: Pair) -> None:
    pair.up()
    rules = do(pair, "u", "ip rule").splitlines()
    do(
        pair,
        "u",
        "ip rule add preference 0 from 192.0.2.99 table 100",
        "ip rule del preference 0 to 10.81.2.0/24",
        "ip rule del preference 0 iif qtun0",
        "ip rule flush proto 145",
    )
    until(lambda: do(pair, "u", "ip rule").count("proto 145") == 7, "the rules")
    assert pair.ping() == (5, 5)
    do(pair, "u", "ip rule del preference 0 from 192.0.2.99")
    assert sorted(do(pair, "u", "ip rule").splitlines()) == sorted(rules)
    do(pair, "u", "ip rule add preference 150 from 192.0.2.99 table 100")
    until(lambda: " at 150 " in pair.log("u"), "a complaint")
    assert pair.stop("u")["errors"]["routes"] >= 3
    said = re.findall(' routes .* complaint="(.*)"', pair.log("u"))
    assert any("rules were gone and are back" in line for line in said)
    assert "IPv4 rule 2 at 0 of somebody else comes before this gateway's" in said


def test_ipv6_taken_from_the_host_leaves_ipv4_running(pair: Pair, outer: Path) -> None:
    give_ipv6(pair, rekey_after_s=60)
    pair.up()
    routes = ("ip", "-6", "route", "show", "table", "4500")
    do(pair, "u", "sysctl -qw net.ipv6.conf.qtun0.disable_ipv6=1")
    assert pair.ping() == (5, 5)
    assert ping6(pair, 5) == 0
    do(pair, "u", "sysctl -qw net.ipv6.conf.qtun0.disable_ipv6=0")
    until(lambda: "qtun0" in run(*pair.inside("u", *routes)), "the routes")
    assert ping6(pair, 5) == 5
    assert in_clear(pair, outer) == []


OPEN_TUN = """
import sys
from ipaddress import ip_interface, ip_network
from gateways.tun import open_tun
from topo.errors import NetworkError

def opened(name, remote):
    try:
        return open_tun(name, [ip_interface("10.81.9.1/30")], 1438, [ip_network("10.81.1.0/24")],
                        [ip_network(remote)], offloads=False)
    except NetworkError as error:
        print(error)

opened("lo", "10.81.2.0/24")
first = opened("qtun0", "10.81.2.0/24")
opened("qtun1", "10.81.2.0/24")
wider = opened("qtun1", "10.81.0.0/16")
"""


def test_a_device_or_a_prefix_that_is_taken_is_refused_and_left_as_it_was(pair: Pair) -> None:
    said = run(*pair.inside("u", sys.executable, "-c", OPEN_TUN)).splitlines()
    assert len(said) == 2
    assert "choose a tun_name that no other device has" in said[0]
    assert said[1] == "10.81.2.0/24 leads into qtun0 already: a prefix of `remote` is one gateway's"
    assert "iif lo" not in do(pair, "u", "ip rule")


@pytest.mark.parametrize("encapsulation", ["udp", "raw"])
def test_an_ike_message_longer_than_the_path_is_fragmented_and_no_esp_packet_is(
    pair: Pair, outer: Path, encapsulation: str
) -> None:
    many = [f"10.90.{number}.0/24" for number in range(150)]
    for site, key in (("u", "remote"), ("n", "local")):
        changes = {key: [*many, PREFIX["n"]], "encapsulation": encapsulation}
        pair.configure(site, rekey_after_s=60, **changes)
    pair.up()
    assert pair.ping() == (5, 5)
    assert pair.ping(5, 0.05, "-s", "1400") == (5, 5)
    pair.end_capture(outer)
    fields = ("ip.flags.mf", "ip.frag_offset", "ip.proto", "udp.length", "isakmp.exchangetype")
    rows = dissected(outer, pair.directory / "none", *fields)
    cut = [row for row in rows if row[0] == "1" or row[1] not in ("", "0")]
    assert cut
    assert {row[2] for row in cut} == {"17"}
    assert all(row[4] for row in cut if row[3]), "the last fragment shows whose it is"
