"""The site's PKI (names, purposes, validity from a given clock, modes) and configuration file."""

from __future__ import annotations

import json
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509 import verification

from kms.configuration import KmsConfiguration
from kms.identity import identity
from kms.pki import SiteFiles, init_site
from topo.errors import InputError, ProtocolError

NOW = datetime(2024, 11, 22, 14, 40, tzinfo=UTC)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SiteFiles:
    folder = tmp_path_factory.mktemp("pki") / "site"
    return init_site(folder, "KME-U", ["10.0.0.2", "kme.example"], ["EG-U", "a/b é"], NOW)


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_chains_verify_by_rfc_5280(site: SiteFiles) -> None:
    """Against the path validation of `cryptography`, at both ends of the validity."""
    store = verification.Store([load(site.ca.certificate)])
    for at in (NOW, NOW + timedelta(days=3651)):
        builder = verification.PolicyBuilder().store(store).time(at)
        server = builder.build_server_verifier(x509.DNSName("kme.example"))
        server.verify(load(site.server.certificate), [])
        for credentials in site.saes.values():
            builder.build_client_verifier().verify(load(credentials.certificate), [])
            with pytest.raises(verification.VerificationError):
                server.verify(load(credentials.certificate), [])
        with pytest.raises(verification.VerificationError):
            builder.build_client_verifier().verify(load(site.server.certificate), [])
    late = verification.PolicyBuilder().store(store).time(NOW + timedelta(days=3700))
    with pytest.raises(verification.VerificationError):
        late.build_client_verifier().verify(load(site.saes["EG-U"].certificate), [])


def test_validity_starts_the_day_before(site: SiteFiles) -> None:
    for credentials in (site.ca, site.server, *site.saes.values()):
        assert load(credentials.certificate).not_valid_before_utc == NOW - timedelta(days=1)


def test_ids_are_read_as_openssl_shows_them(site: SiteFiles) -> None:
    """Through the same `getpeercert` dictionary that a connection gives."""

    def decoded(path: Path) -> Any:
        return ssl._ssl._test_decode_cert(str(path))  # type: ignore[attr-defined]

    assert identity(decoded(site.server.certificate), "kme") == "KME-U"
    for sae_id, credentials in site.saes.items():
        assert identity(decoded(credentials.certificate), "sae") == sae_id
        with pytest.raises(ProtocolError, match="contradict"):
            identity(decoded(credentials.certificate), "kme")


def certificate(names: list[str], uris: list[str]) -> dict[str, Any]:
    return {
        "subject": tuple((("commonName", name),) for name in names),
        "subjectAltName": tuple(("URI", uri) for uri in uris),
    }


@pytest.mark.parametrize(
    ("names", "uris", "expected"),
    [
        (["EG-U"], [], "EG-U"),
        (["EG-U"], ["https://example.org/"], "EG-U"),
        (["EG-U"], ["urn:qntn:sae:EG-U"], "EG-U"),
        (["EG-U"], ["urn:qntn:sae:EG-N"], None),
        (["EG-U"], ["urn:qntn:sae:EG-U", "urn:qntn:sae:EG-N"], None),
        (["EG-U"], ["urn:qntn:kme:EG-U"], None),
        (["EG-U", "EG-N"], [], None),
        ([""], [], None),
        ([], ["urn:qntn:sae:EG-U"], None),
    ],
)
def test_a_certificate_names_exactly_one(
    names: list[str], uris: list[str], expected: str | None
) -> None:
    if expected is not None:
        assert identity(certificate(names, uris), "sae") == expected
    else:
        with pytest.raises(ProtocolError):
            identity(certificate(names, uris), "sae")


def test_no_certificate_is_nobody() -> None:
    with pytest.raises(ProtocolError):
        identity(None, "sae")


def test_keys_are_private_and_stay_in_the_folder(site: SiteFiles) -> None:
    folder = site.ca.key.parent
    for credentials in (site.ca, site.server, *site.saes.values()):
        assert stat.S_IMODE(credentials.key.stat().st_mode) == 0o600
        assert credentials.key.parent == credentials.certificate.parent == folder
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(credentials.certificate, credentials.key)


def test_a_site_is_made_once(site: SiteFiles) -> None:
    before = site.ca.key.read_bytes()
    with pytest.raises(InputError, match="exists already"):
        init_site(site.ca.key.parent, "KME-U", ["10.0.0.2"], [], NOW)
    assert site.ca.key.read_bytes() == before


@pytest.mark.parametrize(
    ("kme_id", "names", "sae_ids"),
    [
        ("", ["10.0.0.2"], ["a"]),
        ("K", [], ["a"]),
        ("K", ["10.0.0.2"], ["a" * 65]),
        ("K", ["10.0.0.2"], ["a", "a"]),
        ("K", ["no host name é"], ["a"]),
    ],
)
def test_impossible_sites(
    tmp_path: Path, kme_id: str, names: list[str], sae_ids: list[str]
) -> None:
    with pytest.raises(InputError):
        init_site(tmp_path / "site", kme_id, names, sae_ids, NOW)
    assert not (tmp_path / "site").exists()


CONFIGURATION: dict[str, object] = {
    "kme_id": "KME-U",
    "peer_kme_id": "KME-N",
    "site": "U",
    "listen_host": "127.0.0.1",
    "listen_port": 8443,
    "ca_path": "ca.pem",
    "certificate_path": "server.pem",
    "key_path": "server.key",
    "ledger_path": "/elsewhere/u.ledger",
    "sae_pairs": [{"local": "EG-U", "remote": "EG-N"}],
}


def test_configuration_file(tmp_path: Path) -> None:
    path = tmp_path / "kms.json"
    path.write_text(json.dumps(CONFIGURATION))
    configuration = KmsConfiguration.load(path)
    assert configuration.ca_path == tmp_path / "ca.pem"
    assert configuration.ledger_path == Path("/elsewhere/u.ledger")
    assert configuration.default_key_size_bits == 256
    assert configuration.may_share("EG-U", "EG-N")
    assert not configuration.may_share("EG-N", "EG-U")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"typo": 1}, "typo"),
        ({"site": "X"}, "site"),
        ({"listen_port": 65536}, "listen_port"),
        ({"default_key_size_bits": 250}, "default_key_size_bits"),
        ({"max_key_size_bits": 40_000}, "max_key_size_bits"),
        ({"min_key_size_bits": 512}, "min ≤ default ≤ max"),
        ({"sae_pairs": [{"local": "EG-U"}]}, "sae_pairs.0.remote"),
        ({"kme_id": None}, "kme_id"),
    ],
)
def test_configuration_faults_name_the_file_and_the_key(
    tmp_path: Path, change: dict[str, object], named: str
) -> None:
    path = tmp_path / "kms.json"
    path.write_text(json.dumps(CONFIGURATION | change))
    with pytest.raises(InputError) as caught:
        KmsConfiguration.load(path)
    assert str(path) in str(caught.value)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_configuration_missing_or_no_json(tmp_path: Path) -> None:
    path = tmp_path / "kms.json"
    with pytest.raises(InputError, match="No such file"):
        KmsConfiguration.load(path)
    path.write_text("{")
    with pytest.raises(InputError, match="whole file"):
        KmsConfiguration.load(path)
