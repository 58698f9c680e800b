"""K17: the KMS process's TLS, asked by OpenSSL's own client: versions, suites, renegotiation, names."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.kms_process import TIMEOUT_S, KmsProcess, make_sites, start

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl"),
]
REQUEST = "GET /api/v1/keys/EG-N/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def kms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KmsProcess]:
    site, _ = make_sites(tmp_path_factory.mktemp("tls"))
    process = start(site)
    yield process
    process.stop()


def s_client(kms: KmsProcess, *options: str, said: str = REQUEST, sae: str | None = "EG-U") -> str:
    """What `openssl s_client` shows, errors and all."""
    authority, certificate, key = kms.files(sae or "EG-U")
    known = ("-cert", certificate, "-key", key) if sae else ()
    done = subprocess.run(
        [
            *("openssl", "s_client", "-connect", f"localhost:{kms.port}", "-CAfile", authority),
            *("-ign_eof", "-no_ticket", *known, *options),
        ],
        input=said.encode(),
        capture_output=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    return (done.stdout + done.stderr).decode(errors="replace")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("-tls1_2",), id="TLS 1.2"),
        pytest.param(("-tls1_3",), id="TLS 1.3"),
        pytest.param(("-noservername",), id="no SNI: by address, as most SAEs ask"),
        pytest.param(("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"), id="TLS 1.2 AEAD"),
    ],
)
def test_accepted(kms: KmsProcess, options: tuple[str, ...]) -> None:
    seen = s_client(kms, *options)
    assert "HTTP/1.1 200" in seen, seen
    assert "Verify return code: 0 (ok)" in seen


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("-tls1", "-cipher", "ALL:@SECLEVEL=0"), id="TLS 1.0"),
        pytest.param(("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), id="TLS 1.1"),
        pytest.param(("-tls1_2", "-cipher", "eNULL:@SECLEVEL=0"), id="NULL suites"),
        pytest.param(("-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"), id="anonymous suites"),
        pytest.param(("-tls1_2", "-cipher", "PSK:@SECLEVEL=0"), id="PSK suites"),
        pytest.param(("-tls1_2", "-cipher", "AES128-SHA"), id="RSA key transport"),
    ],
)
def test_refused(kms: KmsProcess, options: tuple[str, ...]) -> None:
    seen = s_client(kms, *options)
    assert "HTTP/1.1" not in seen
    assert "alert" in seen or "no protocols available" in seen or "no ciphers available" in seen, (
        seen
    )


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_no_certificate(kms: KmsProcess, version: str) -> None:
    seen = s_client(kms, version, sae=None)
    assert "HTTP/1.1" not in seen
    assert "alert" in seen


def test_renegotiation(kms: KmsProcess) -> None:
    """`R` on a line of its own makes s_client ask for it."""
    authority, certificate, key = kms.files("EG-U")
    done = subprocess.run(
        [
            *("openssl", "s_client", "-connect", f"localhost:{kms.port}", "-CAfile", authority),
            *("-cert", certificate, "-key", key, "-tls1_2"),
        ],
        input=b"R\n",
        capture_output=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    seen = (done.stdout + done.stderr).decode(errors="replace")
    assert "RENEGOTIATING" in seen
    assert "no renegotiation" in seen
