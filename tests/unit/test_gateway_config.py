"""A gateway's configuration file: what it takes and what it refuses, in one line."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from gateways.config import GatewayConfig, KmsConfig, load_config
from gateways.events import Policy
from gateways.gateway import Gateway, main
from gateways.ike.auth import Certified, Psk
from gateways.ike.config import Keying
from kms.pki import init_site
from topo.errors import InputError, ScenarioError

GOOD: dict[str, Any] = {
    "name": "EG-U",
    "role": "initiator",
    "outer_local": "192.0.2.1",
    "outer_peer": "192.0.2.2",
    "tun_address": "10.9.0.1/30",
    "local": ["10.1.0.0/24"],
    "remote": ["10.2.0.0/24", "10.3.0.0/16"],
    "psk": "00" * 32,
    "own_sae": "SAE-U",
    "peer_sae": "SAE-N",
    "kms": {
        "base_url": "https://10.1.0.9:8443",
        "ca": "ca.pem",
        "cert": "sae.pem",
        "key": "sae.key",
        "kme_id": "KME-U",
    },
}


def written(directory: Path, **changes: Any) -> Path:
    path = directory / "gateway.json"
    path.write_text(json.dumps(GOOD | changes))
    return path


def test_defaults(tmp_path: Path) -> None:
    config = load_config(written(tmp_path))
    assert (config.port, config.tun_mtu, config.window) == (4500, 1438, 1024)
    assert config.policy is Policy.FAIL_CLOSED
    ike = config.ike()
    assert (ike.own_id, ike.peer_id, ike.begins) == ("SAE-U", "SAE-N", True)
    assert (ike.keying, ike.key_required) == (Keying.PPK, True)
    assert ike.rekey_after_ns == 120 * 10**9
    assert ike.hard_after_ns == 180 * 10**9
    assert ike.retransmit_ns > 0.7e9
    assert isinstance(ike.credentials, Psk)
    assert (config.esp_sa, config.status, config.fault) == (None, None, None)


def test_ipv6_and_raw_esp(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        local=["10.1.0.0/24", "fd00:1::/64"],
        remote=["10.2.0.0/24", "fd00:2::/64"],
        tun_address6="fd00:9::1/126",
        encapsulation="raw",
    )
    config = load_config(path)
    assert [str(address) for address in config.tun_addresses] == ["10.9.0.1/30", "fd00:9::1/126"]
    assert config.tun_mtu == 1446
    ike = config.ike()
    assert ike.local == config.local
    assert not ike.force_udp


@pytest.mark.parametrize(
    "changes",
    [
        {"tun_address": "169.254.6.1/30", "tun_address6": "fe80::1/64"},
        {"tun_address": "10.9.0.0/31"},
        {"tun_address": "10.9.0.1/32"},
        {
            "remote": ["0.0.0.0/1", "128.0.0.0/2"],
            "local": ["203.0.113.0/24"],
            "tun_address": "198.51.100.1/30",
        },
        {"local": ["fd00:1::/64"], "remote": ["fd00:2::/64"]},
    ],
)
def test_what_is_unusual_and_right_is_taken(tmp_path: Path, changes: dict[str, Any]) -> None:
    load_config(written(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"colour": "blue"}, "colour"),
        ({"role": "both"}, "role"),
        ({"outer_peer": "192.0.2.300"}, "outer_peer"),
        ({"remote": []}, "remote"),
        ({"remote": ["10.2.0.1/24"]}, "remote.0"),
        ({"remote": ["2001:db8::1/32"]}, "remote.0"),
        ({"remote": ["2001:db8::/32"]}, "prefixes of the same IP versions"),
        (
            {"local": ["fd00:1::/64"], "remote": ["fd00:2::/64"], "path_mtu": 1300},
            "IPv6 needs 1280",
        ),
        ({"encapsulation": "gre"}, "encapsulation"),
        ({"remote": ["192.0.2.0/24"]}, "the tunnel would run through itself"),
        ({"psk": "00" * 15}, "psk"),
        ({"psk": "secret!"}, "psk"),
        ({"hard_after_s": 100}, "hard_after_s"),
        ({"policy": "open"}, "policy"),
        ({"keying": "otp"}, "keying"),
        ({"suites": ["ROT-13"]}, "suites"),
        ({"psk": ""}, "psk or certificate"),
        ({"soft_bytes": 2000, "hard_bytes": 1000}, "hard_bytes"),
        ({"fault": "slow"}, "fault"),
        ({"tun_name": "a/b"}, "tun_name"),
        ({"kms": {}}, "kms.base_url"),
        ({"remote": ["10.2.0.1/24"]}, "the prefix is 10.2.0.0/24"),
        ({"remote": ["nowhere"]}, "no prefix like"),
        ({"psk": "abc"}, "openssl rand -hex 32"),
        ({"tun_name": ".."}, "take one like qtun0"),
        ({"outer_peer": "192.0.2.1"}, "outer_peer is outer_local"),
        ({"peer_sae": "SAE-U"}, "own_sae is peer_sae"),
        ({"remote": ["192.0.2.1/32"]}, "remote contains outer_local"),
        ({"tun_address": "10.2.0.9/30"}, "remote contains tun_address"),
        ({"local": ["10.0.0.0/14"]}, "local 10.0.0.0/14 and remote 10.2.0.0/24 overlap"),
        ({"window": 2**40}, "window"),
        ({"rekey_after_s": 0.01}, "rekey_after_s"),
        *(
            ({name: value}, name)
            for name in (
                "rekey_after_s",
                "hard_after_s",
                "ike_rekey_after_s",
                "reauth_after_s",
                "dpd_after_s",
                "grace_s",
                "retransmit_s",
            )
            for value in (1e300, math.inf, math.nan)
        ),
        ({"attempts": 2**40}, "attempts"),
        ({"outer_peer": "0.0.0.0"}, "outer_peer: 0.0.0.0 is no address of one host"),
        ({"outer_local": "224.1.1.1"}, "outer_local"),
        ({"outer_peer": "255.255.255.255"}, "outer_peer"),
        ({"tun_address": "0.0.0.0/0"}, "tun_address: 0.0.0.0 is no address to give"),
        ({"tun_address": "127.0.0.1/8"}, "tun_address"),
        ({"tun_address": "224.0.0.1/4"}, "tun_address"),
        ({"tun_address": "192.0.2.1/24"}, "the network of tun_address 192.0.2.1/24 contains"),
        ({"tun_address": "10.9.0.1/0"}, "contains outer_peer"),
        ({"tun_address6": "ff02::1/64"}, "tun_address6"),
        ({"tun_address6": "fe80::1%veth/64"}, "without a zone"),
        *(
            ({"local": ["fd00:1::/64"], "remote": [prefix]}, "remote.0")
            for prefix in ("ff00::/8", "fe80::/10", "fe80::%veth/64", "::ffff:0:0/96")
        ),
        ({"remote": ["0.0.0.0/32"]}, "remote.0"),
        ({"status": "a\0b"}, "status"),
        ({"remote": ["224.0.0.0/4"]}, "never leaves a host or a link"),
        ({"local": ["127.0.0.0/8"]}, "local.0"),
        ({"remote": ["10.2.0.0/24", "10.2.0.0/24"]}, "remote names something twice"),
        ({"local": [f"10.4.{number}.0/24" for number in range(256)]}, "local"),
        ({"suites": ["AES-128-GCM", "AES-128-GCM"]}, "suites names something twice"),
        ({"payload_octets": 500}, "set constant_rate_bps"),
        ({"esp_sa": "same", "status": "same"}, "each takes a file of its own"),
        ({"status": ""}, "status: the path of a file"),
        ({"own_id": ""}, "own_id"),
        ({"name": "EG\nU"}, "name"),
        ({"peer_sae": "x" * 256}, "peer_sae"),
        ({"retransmit_s": 1e-12}, "retransmit_s"),
        ({"dpd_after_s": 1e-9}, "dpd_after_s"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, changes: dict[str, Any], key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(ScenarioError) as refused:
        load_config(path)
    assert str(path) in str(refused.value)
    assert key in str(refused.value)
    assert "secret" not in str(refused.value)
    assert main([str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_missing_file_and_missing_certificates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([]) == 2
    assert main([str(tmp_path / "none.json")]) == 2
    assert main([str(written(tmp_path))]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "sae.pem" in lines[2]
    for key in ("kms.ca: ca.pem", "kms.cert: sae.pem", "kms.key: sae.key"):
        assert f"{key}: No such file or directory" in lines[2]


def test_responder_rekeys_later_but_before_the_hard_lifetime(tmp_path: Path) -> None:
    ike = load_config(written(tmp_path, role="responder")).ike()
    assert not ike.begins
    assert 120 * 10**9 < ike.rekey_after_ns < ike.hard_after_ns
    short = load_config(written(tmp_path, role="responder", hard_after_s=121)).ike()
    assert short.rekey_after_ns <= short.hard_after_ns


def test_longest_suite_sets_the_mtu(tmp_path: Path) -> None:
    suites = ["AES-128-GCM", "SM4-128-CBC+HMAC-SM3-128"]
    assert load_config(written(tmp_path, suites=suites)).tun_mtu == 1422


def test_certificates_instead_of_a_psk(tmp_path: Path) -> None:
    files = init_site(tmp_path / "pki", "KME-U", ["127.0.0.1"], ["SAE-U"], datetime.now(UTC))
    sae = files.saes["SAE-U"]
    section = {"cert": str(sae.certificate), "key": str(sae.key), "ca": str(files.ca.certificate)}
    config = load_config(written(tmp_path, psk="", certificate=section))
    assert isinstance(config.ike().credentials, Certified)
    path = written(tmp_path, psk="", certificate=section | {"key": str(tmp_path / "none")})
    assert main([str(path)]) == 2
    wrong = GatewayConfig.model_validate(GOOD | {"certificate": section | {"key": section["cert"]}})
    with pytest.raises(InputError, match=r"^certificate\.key: \S+: no PEM private key"):
        wrong.ike()


def test_the_tls_file_that_is_wrong_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = init_site(tmp_path / "pki", "KME-U", ["127.0.0.1"], ["SAE-U"], datetime.now(UTC))
    sae = files.saes["SAE-U"]
    section = GOOD["kms"] | {"cert": str(sae.certificate), "ca": str(files.ca.certificate)}
    for key, changes in (
        ("kms.key", {"key": section["cert"]}),
        ("kms.ca", {"key": str(sae.key), "ca": str(sae.key)}),
        ("kms: TLS files", {"key": str(files.ca.key)}),
        *(
            ("kms: KME address", {"key": str(sae.key), "base_url": url})
            for url in (
                "http://10.1.0.9",
                "https://10.1.0.9:99999",
                "https://10.1.0.9:port",
                "https://10.1.0.9 :8443",
                "https://[::1:8443",
                "https://a\0b:8443",
                "https://é…:8443",
                "https://10.1.0.9:8443/?x",
            )
        ),
    ):
        assert main([str(written(tmp_path, kms=section | changes))]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert key in said


@pytest.mark.parametrize("key", ["status", "esp_sa"])
def test_a_file_that_cannot_be_written_is_found_out_before_anything_is_touched(
    tmp_path: Path, key: str
) -> None:
    for file in (tmp_path / "missing" / "file", Path("/proc/file"), tmp_path):
        config = GatewayConfig.model_validate(GOOD | {key: str(file)})
        with pytest.raises(InputError, match=f"^{key}: {file}: .*; take a file in a folder"):
            Gateway(config, NoKeys()).run()


class NoKeys:
    """No KMS."""

    def fetch(self) -> tuple[str, bytes]:
        raise AssertionError

    def fetch_by_id(self, key_id: str) -> bytes:
        raise AssertionError


def test_repr_hides_the_psk(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, psk="5ec2e7" * 8))
    assert "5ec2e7" not in f"{config!r} {config}"


@pytest.mark.parametrize("model", [GatewayConfig, KmsConfig])
def test_every_field_is_described(model: type[GatewayConfig] | type[KmsConfig]) -> None:
    fields: dict[str, FieldInfo] = model.model_fields
    assert [name for name, field in fields.items() if not field.description] == []
