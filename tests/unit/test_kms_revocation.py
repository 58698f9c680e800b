"""Revocation: the CRL against OpenSSL's view of it, the list that a KME follows, new certificates."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from kms.pki import SiteFiles, init_site, issue_sae, revoke
from kms.revocation import RevocationList, load_authorities
from topo.errors import InputError

NOW = datetime.now(UTC)


@pytest.fixture
def site(tmp_path: Path) -> SiteFiles:
    return init_site(tmp_path / "site", "KME-U", ["localhost"], ["EG-U", "a/b"], NOW)


def following(site: SiteFiles) -> RevocationList:
    return RevocationList(site.crl, load_authorities(site.ca.certificate))


def revoked(crl: RevocationList, certificate: Path, now: datetime = NOW) -> bool:
    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    return crl.is_revoked(loaded.issuer.public_bytes(), loaded.serial_number, now)


def accepted_by_openssl(site: SiteFiles, sae: str) -> bool:
    """A handshake with OpenSSL's own revocation check at the server."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.verify_mode = ssl.CERT_REQUIRED
    server.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    server.load_verify_locations(site.ca.certificate)
    server.load_verify_locations(site.crl)
    server.load_cert_chain(site.server.certificate, site.server.key)
    client = ssl.create_default_context(cafile=site.ca.certificate)
    client.load_cert_chain(site.saes[sae].certificate, site.saes[sae].key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    done = [False, False]
    while not all(done):
        for number, end in enumerate(ends):
            try:
                end.do_handshake()
                done[number] = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                assert "revoked" in str(error)
                return False
    return True


def test_revocation_as_openssl_sees_it(site: SiteFiles) -> None:
    assert accepted_by_openssl(site, "EG-U")
    revoke(site.crl.parent, "EG-U", NOW)
    assert not accepted_by_openssl(site, "EG-U")
    assert accepted_by_openssl(site, "a/b")


def test_the_list_follows_its_file(site: SiteFiles) -> None:
    crl = following(site)
    for sae, credentials in site.saes.items():
        assert not revoked(crl, credentials.certificate)
        assert revoke(site.crl.parent, sae, NOW) == site.crl
        assert revoked(crl, credentials.certificate)
    with pytest.raises(InputError, match="revoked already"):
        revoke(site.crl.parent, "a/b", NOW)


def test_a_new_certificate_after_revocation(site: SiteFiles) -> None:
    folder, old = site.crl.parent, site.saes["EG-U"].certificate.read_bytes()
    with pytest.raises(InputError, match="still good; revoke it first"):
        issue_sae(folder, "EG-U", NOW)
    revoke(folder, "EG-U", NOW)
    new = issue_sae(folder, "EG-U", NOW)
    assert new == site.saes["EG-U"]
    assert new.certificate.read_bytes() != old
    assert not revoked(following(site), new.certificate)
    assert issue_sae(folder, "one more", NOW).certificate.exists()


def test_a_list_that_cannot_be_relied_on_refuses(site: SiteFiles, tmp_path: Path) -> None:
    crl = following(site)
    sae = site.saes["EG-U"].certificate
    with pytest.raises(InputError, match="has run out"):
        revoked(crl, sae, NOW + timedelta(days=4000))

    other = init_site(tmp_path / "other", "KME-U", ["localhost"], [], NOW)
    for content, said in (
        (other.crl.read_bytes(), "signed"),
        (b"", "holds no"),
        (b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "not a certificate rev"),
    ):
        site.crl.unlink()
        site.crl.write_bytes(content)
        with pytest.raises(InputError, match=said):
            revoked(crl, sae)
    site.crl.unlink()
    with pytest.raises(InputError, match="No such file"):
        revoked(crl, sae)


@pytest.mark.parametrize("missing", ["ca.key", "ca.pem", "crl.pem", "sae-EG-U.pem"])
def test_a_folder_that_is_no_site(site: SiteFiles, missing: str) -> None:
    (site.crl.parent / missing).unlink()
    with pytest.raises(InputError, match=missing):
        revoke(site.crl.parent, "EG-U", NOW)
