"""Our gateway and Debian's strongSwan: IKE_SA_INIT to delete, as initiator and as responder, with PPK."""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from gateways.ike.auth import SigningKey
from tests.interop.strongswan import (
    CHARON,
    OUR_USER,
    PPK_ID,
    SWANCTL,
    THEIR_USER,
    Peers,
    run,
    until,
)

pytestmark = pytest.mark.interop

SUMS = "sum_received", "sum_received_bidir_reverse"
"""Where iperf3's report has what arrived, of each direction."""


@pytest.fixture
def peers(tmp_path: Path) -> Iterator[Peers]:
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
        pytest.skip("needs root and /dev/net/tun")
    if CHARON is None or SWANCTL is None:
        pytest.skip("charon-systemd or swanctl is not installed")
    peers = Peers(tmp_path)
    try:
        peers.build()
        yield peers
    finally:
        peers.destroy()


def both_ways(peers: Peers) -> None:
    """Pings from either side, once one has come through: a busy charon may still be installing what it has agreed to.

    Not while our rekey is under way: asked to delete the old pair of SAs, charon takes its outbound half away before it
    installs that of the new pair, and what it would send in between is lost.
    """
    for site in "us":
        until(lambda site=site: peers.ping(site, count=1) == 1, peers.swan_log)  # type: ignore[misc]
        assert peers.ping(site) == 5, f"{site}\n{peers.log()}\n{peers.swan_log()}"


def assert_no_refusals(status: dict[str, object]) -> None:
    for sa in status["sas"]:  # type: ignore[attr-defined]
        refused = ("icv_failures", "replays", "selector_drops", "bad_padding", "malformed")
        assert not any(sa[name] for name in refused), sa
    assert "control_refused" not in status["drops"]  # type: ignore[operator]


def test_as_initiator_with_ppk_rekeys_from_both_ends_and_delete(peers: Peers) -> None:
    peers.start_strongswan()
    peers.start_gateway("initiator", rekey_after_s=4.0, hard_after_s=60.0, ike_rekey_after_s=1.5)
    peers.wait_for_us("READY")
    assert "/PPK" in peers.swanctl("--list-sas")
    both_ways(peers)
    peers.swanctl("--rekey", "--child", "net")
    both_ways(peers)
    peers.swanctl("--rekey", "--ike", "qntn")
    both_ways(peers)
    peers.wait_for_log("RetireInbound", 2)  # after charon's rekey and one of ours
    both_ways(peers)
    until(
        lambda: (
            "parsed CREATE_CHILD_SA request" in peers.swan_log()
            and re.search(r"IKE_SA qntn\[\d+\] rekeyed", peers.swan_log())
        ),
        peers.swan_log,
    )
    status = peers.stop_gateway()
    assert status["rekeys"] >= 2
    assert set(status["key_ids"]) == {PPK_ID}
    assert_no_refusals(status)
    until(lambda: "ESTABLISHED" not in peers.swanctl("--list-sas"), peers.swan_log)
    assert "received DELETE for IKE_SA" in peers.swan_log()


def test_as_responder_with_ppk_rekeys_and_delete(peers: Peers) -> None:
    peers.start_strongswan()
    peers.start_gateway("responder", rekey_after_s=3.0, hard_after_s=60.0)
    peers.swanctl("--initiate", "--child", "net")
    peers.wait_for_us("READY")
    assert f"using PPK for PPK_ID '{PPK_ID}'" in peers.swan_log()
    both_ways(peers)
    peers.swanctl("--rekey", "--child", "net")
    both_ways(peers)
    peers.wait_for_log("RetireInbound", 2)  # ours after 3.6 s
    both_ways(peers)
    peers.swanctl("--rekey", "--ike", "qntn")
    both_ways(peers)
    peers.swanctl("--terminate", "--ike", "qntn")
    peers.wait_for_log("RetireOutbound")
    assert peers.ping("u", count=2) == 0
    peers.swanctl("--initiate", "--child", "net")
    both_ways(peers)
    assert_no_refusals(peers.stop_gateway())


def test_other_algorithms(peers: Peers) -> None:
    peers.start_strongswan(
        ike="aes128-sha256-ecp256", esp="aes128-sha256-x25519,aes128-sha256", ppk=False
    )
    peers.start_gateway(
        "initiator",
        keying="none",
        pfs=True,
        suites=["AES-128-CBC+HMAC-SHA-256-128"],
        rekey_after_s=3.0,
        hard_after_s=60.0,
    )
    peers.wait_for_us("READY")
    both_ways(peers)
    peers.wait_for_log("RetireInbound")
    both_ways(peers)
    peers.swanctl("--rekey", "--child", "net")
    both_ways(peers)
    sas = peers.swanctl("--list-sas")
    assert "AES_CBC-128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/ECP_256" in sas
    assert "ESP:AES_CBC-128/HMAC_SHA2_256_128/CURVE_25519" in sas
    assert_no_refusals(peers.stop_gateway())


def test_wrong_ppk_is_refused_by_strongswan(peers: Peers) -> None:
    peers.start_strongswan(wrong_ppk=True)
    peers.start_gateway("initiator")
    peers.wait_for_log("Failed .*AUTHENTICATION_FAILED")
    assert "READY" not in peers.says()
    assert peers.ping("u", count=2) == 0
    assert peers.stop_gateway()["sas"] == []


def test_wrong_ppk_is_refused_by_us(peers: Peers) -> None:
    peers.start_strongswan(wrong_ppk=True)
    peers.start_gateway("responder")
    peers.swanctl("--initiate", "--child", "net", "--timeout", "5", fails=True)
    peers.wait_for_log("Failed .*PPK is another")
    assert "READY" not in peers.says()
    assert peers.stop_gateway()["sas"] == []


def test_without_ppk_nothing_is_established_unless_the_policy_is_hybrid(peers: Peers) -> None:
    peers.start_strongswan(ppk=False)
    peers.start_gateway("responder")
    peers.swanctl("--initiate", "--child", "net", "--timeout", "5", fails=True)
    peers.wait_for_log("Failed .*the peer uses no PPK")
    assert peers.stop_gateway()["sas"] == []
    peers.start_gateway("responder", policy="hybrid")
    peers.swanctl("--initiate", "--child", "net")
    both_ways(peers)
    assert peers.stop_gateway()["key_ids"] == [""]


@pytest.mark.parametrize(
    ("ours_s", "theirs_s", "probed"), [(0.5, 60, "request"), (3.0, 1, "response")]
)
def test_dead_peer_is_noticed(peers: Peers, ours_s: float, theirs_s: int, probed: str) -> None:
    """Probes of the end that is more impatient: the other then hears enough to need none of its own."""
    peers.start_strongswan(extra=f"dpd_delay = {theirs_s}s")
    peers.start_gateway("initiator", dpd_after_s=ours_s, attempts=3, retransmit_s=1.0)
    peers.wait_for_us("READY")
    until(lambda: f"parsed INFORMATIONAL {probed}" in peers.swan_log(), peers.swan_log)
    peers.processes.pop("charon").kill()
    peers.wait_for_log("Failed .*no answer to 3 transmissions: probe")
    peers.wait_for_log("RetireOutbound")
    assert peers.ping("u", count=2) == 0


def test_new_ppk_by_a_new_ike_sa_without_a_break(peers: Peers) -> None:
    peers.start_strongswan(extra="unique = never")
    peers.start_gateway("initiator", reauth_after_s=1.0)
    peers.wait_for_us("READY")
    peers.wait_for_log(" FetchKey ", 3)
    assert peers.ping("u", count=50) == 50
    peers.wait_for_log(" Established ", 3)
    assert "RetireOutbound" not in peers.log()
    assert_no_refusals(peers.stop_gateway())
    assert peers.swan_log().count("using PPK for PPK_ID") >= 3


@pytest.mark.parametrize(
    ("kind", "role"),
    [
        ("ecdsa", "initiator"),
        ("ecdsa", "responder"),
        ("rsa", "responder"),
        ("ed25519", "initiator"),
    ],
)
def test_certificates(peers: Peers, kind: str, role: str) -> None:
    files = issue(peers.directory, kind)
    peers.start_strongswan(certificates=True)
    peers.start_gateway(role, psk="", certificate=files)
    if role == "responder":
        peers.swanctl("--initiate", "--child", "net")
    peers.wait_for_us("READY")
    both_ways(peers)
    log = peers.swan_log()
    expected = {
        "ecdsa": "ECDSA_WITH_SHA256_DER",
        "rsa": "RSA_EMSA_PKCS1_SHA2_256",
        "ed25519": "ED25519",
    }
    assert log.count(f"with {expected[kind]} successful") == 2, log
    peers.stop_gateway()


@pytest.mark.parametrize(
    ("seconds", "soft_s", "theirs_s"),
    [(10, 3.0, 5), pytest.param(600, 45.0, 60, marks=pytest.mark.long)],
)
def test_iperf_and_ping_at_once_through_rekeys_of_both_ends(
    peers: Peers, seconds: int, soft_s: float, theirs_s: int
) -> None:
    """TCP both ways at 100 Mbit/s each, and 20 pings a second: no packet that either end finds fault with."""
    peers.start_strongswan()
    peers.start_gateway("initiator", rekey_after_s=soft_s, hard_after_s=600.0)
    peers.wait_for_us("READY")
    server = peers.inside("s", "iperf3", "-s", "-1", "-B", THEIR_USER)
    peers.processes["server"] = subprocess.Popen(server, stdout=subprocess.DEVNULL)
    until(lambda: THEIR_USER in run(*peers.inside("s", "ss", "-Hltn")), lambda: "iperf3 -s")
    report = peers.directory / "iperf.json"
    client = ("iperf3", "-J", "-c", THEIR_USER, "-B", OUR_USER, "--bidir", "-b", "100M")
    with report.open("w") as out:
        load = subprocess.Popen(peers.inside("u", *client, "-t", str(seconds)), stdout=out)
    peers.processes["client"] = load
    pings, received = 0, 0
    while load.poll() is None:
        peers.swanctl("--rekey", "--child", "net")
        until_ns = time.monotonic_ns() + theirs_s * 10**9
        while load.poll() is None and time.monotonic_ns() < until_ns:
            pings, received = pings + 20, received + peers.ping("u", count=20, interval_s=0.05)
    result = json.loads(report.read_text())
    assert "error" not in result, result["error"]
    status = peers.stop_gateway()
    print(
        f"{status['rekeys']} rekeys, {pings - received} of {pings} pings lost;",
        *(f"{key}: {result['end'][key]['bits_per_second'] / 1e6:.0f} Mbit/s" for key in SUMS),
        f"packets in: {sum(sa['packets'] for sa in status['sas'] if sa['direction'] == 'in')}",
        f"drops: {status['drops']}, errors: {status['errors']}",
    )
    assert_no_refusals(status)
    assert "parsed CREATE_CHILD_SA request" in peers.swan_log()
    assert "parsed CREATE_CHILD_SA response" in peers.swan_log()
    assert [line for line in peers.swan_log().splitlines() if "[ESP]" in line] == []
    assert pings - received <= 3 * status["rekeys"]


def new_key(kind: str) -> SigningKey:
    if kind == "rsa":
        return generate_rsa(65537, 2048)
    return generate_ec(SECP256R1()) if kind == "ecdsa" else Ed25519PrivateKey.generate()


def issue(folder: Path, kind: str) -> dict[str, str]:
    """An authority and two certificates; our `certificate` section, strongSwan's in its own folders."""
    authority_key = new_key(kind)
    authority = certificate("qntn test CA", authority_key, authority_key, "qntn test CA", ca=True)
    swan = folder / "swan"
    for part in ("x509ca", "x509", "private"):
        (swan / part).mkdir(parents=True)
    names = {"ours": "EG-U", "peer": "EG-N"}
    for who, name in names.items():
        key = new_key(kind)
        at = swan / "private" if who == "peer" else folder
        (at / f"{who}.key").write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        signed = certificate(name, key, authority_key, "qntn test CA", ca=False)
        at = swan / "x509" if who == "peer" else folder
        (at / f"{who}.pem").write_bytes(signed.public_bytes(Encoding.PEM))
    pem = authority.public_bytes(Encoding.PEM)
    (swan / "x509ca" / "ca.pem").write_bytes(pem)
    (folder / "ca.pem").write_bytes(pem)
    return {
        "cert": str(folder / "ours.pem"),
        "key": str(folder / "ours.key"),
        "ca": str(folder / "ca.pem"),
    }


def certificate(
    name: str, key: SigningKey, issuer_key: SigningKey, issuer: str, *, ca: bool
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    common_name = x509.oid.NameOID.COMMON_NAME
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(common_name, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(common_name, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if not ca:
        names = [x509.DNSName(name), x509.IPAddress(IPv4Address("192.0.2.250"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    digest = None if isinstance(issuer_key, Ed25519PrivateKey) else SHA256()
    return builder.sign(issuer_key, digest)
