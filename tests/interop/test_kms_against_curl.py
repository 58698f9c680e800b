"""The KMS as a process, asked by curl over mutual TLS; certificates made by OpenSSL's command."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kms.ledger import Ledger
from kms.pki import Credentials, init_site

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl"),
]
NOW = datetime.now(UTC)
TIMEOUT_S = 60


@dataclass
class Kms:
    process: subprocess.Popen[str]
    port: int
    folder: Path
    saes: dict[str, Credentials]

    def curl(self, sae: Credentials | None, path: str, *options: str) -> tuple[int, int, bytes]:
        """curl's exit code, the HTTP code (0 without an answer) and the body."""
        body = self.folder / "body"
        body.unlink(missing_ok=True)
        known = ["--cert", str(sae.certificate), "--key", str(sae.key)] if sae else []
        done = subprocess.run(
            [
                *("curl", "--silent", "--cacert", str(self.folder / "ca.pem"), *known),
                *(
                    "--max-time",
                    str(TIMEOUT_S),
                    "--output",
                    str(body),
                    "--write-out",
                    "%{http_code}",
                ),
                *options,
                f"https://localhost:{self.port}{path}",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, int(done.stdout), body.read_bytes() if body.exists() else b""

    def ask(self, sae_id: str, path: str, *options: str) -> tuple[int, dict[str, Any]]:
        exit_code, code, body = self.curl(self.saes[sae_id], f"/api/v1/keys/{path}", *options)
        assert exit_code == 0
        return code, json.loads(body)


def start(folder: Path, here: str, there: str) -> Kms:
    files = init_site(folder, f"KME-{here}", ["localhost"], [f"EG/{here}", "EX"], NOW)
    with Ledger.create(folder / "ledger", "U" if here == "U" else "N") as ledger:
        ledger.add_block(3, Random(8).randbytes(40_000), "test", NOW)
    (folder / "kms.json").write_text(
        json.dumps(
            {
                "kme_id": f"KME-{here}",
                "peer_kme_id": f"KME-{there}",
                "site": here,
                "listen_host": "localhost",
                "listen_port": 0,
                "ca_path": "ca.pem",
                "certificate_path": "server.pem",
                "key_path": "server.key",
                "ledger_path": "ledger",
                "sae_pairs": [{"local": f"EG/{here}", "remote": f"EG/{there}"}],
            }
        )
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "kms.server", str(folder / "kms.json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "READY\n"
    address = re.search(r"https://localhost:(\d+)", process.stderr.readline())
    assert address is not None
    return Kms(process, int(address[1]), folder, files.saes)


def stop(kms: Kms) -> str:
    """End the process as its runner does; what it wrote to standard error."""
    kms.process.send_signal(signal.SIGTERM)
    _, log = kms.process.communicate(timeout=TIMEOUT_S)
    assert kms.process.returncode == 0
    return log


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kms, Kms]]:
    folder = tmp_path_factory.mktemp("sites")
    both = start(folder / "u", "U", "N"), start(folder / "n", "N", "U")
    yield both
    for kms in both:
        log = stop(kms)
        assert "Traceback" not in log
        assert "c_keys" in log


def test_keys_cross(sites: tuple[Kms, Kms]) -> None:
    site_u, site_n = sites
    code, status = site_u.ask("EG/U", "EG%2FN/status")
    assert (code, status["slave_SAE_ID"], status["key_size"]) == (200, "EG/N", 256)

    code, one = site_u.ask("EG/U", "EG%2FN/enc_keys")
    assert code == 200
    assert site_n.ask("EG/N", f"EG%2FU/dec_keys?key_ID={one['keys'][0]['key_ID']}") == (200, one)

    code, many = site_u.ask("EG/U", "EG%2FN/enc_keys", "--json", '{"number": 4, "size": 128}')
    assert code == 200
    assert [len(base64.b64decode(key["key"])) for key in many["keys"]] == [16] * 4
    ids = json.dumps({"key_IDs": [{"key_ID": key["key_ID"]} for key in many["keys"]]})
    assert site_n.ask("EG/N", "EG%2FU/dec_keys", "--json", ids) == (200, many)
    assert site_n.ask("EG/N", "EG%2FU/dec_keys", "--json", ids)[0] == 400


def test_answers_are_json_and_not_cached(sites: tuple[Kms, Kms]) -> None:
    site_u, _ = sites
    headers = site_u.folder / "headers"
    site_u.ask("EG/U", "EG%2FN/enc_keys", "--dump-header", str(headers))
    lines = headers.read_text().lower().splitlines()
    assert "content-type: application/json; charset=utf-8" in lines
    assert "cache-control: no-store" in lines


def stored(kms: Kms) -> int:
    code, status = kms.ask("EG/U", "EG%2FN/status")
    assert code == 200
    return int(status["stored_key_count"])


def test_head_and_other_verbs_consume_nothing(sites: tuple[Kms, Kms]) -> None:
    site_u, _ = sites
    sae = site_u.saes["EG/U"]
    before = stored(site_u)
    for path, options, expected in (
        ("/api/v1/keys/EG%2FN/enc_keys", ("--head",), 405),
        ("/api/v1/keys/EG%2FN/enc_keys", ("--request", "PUT", "--data", "{}"), 405),
        ("/api/v1/keys/EG%2FN/status", ("--json", "{}"), 405),
        ("/api/v1/keys/EG/N/enc_keys", (), 404),
        ("/api/v2/keys/EG%2FN/enc_keys", (), 404),
    ):
        exit_code, code, _ = site_u.curl(sae, path, *options)
        assert (exit_code, code) == (0, expected), path
    assert stored(site_u) == before


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--data-binary", "@large"), id="body over the limit"),
        pytest.param(("--data-binary", "@large", "-H", "Transfer-Encoding: chunked"), id="chunked"),
        pytest.param(("--data-binary", "@gzip", "-H", "Content-Encoding: gzip"), id="gzip"),
        pytest.param(("--data-binary", "\udcff"), id="not UTF-8"),
        pytest.param(("--data", ""), id="empty"),
    ],
)
def test_bodies_that_cannot_be_read_are_400(
    sites: tuple[Kms, Kms], options: tuple[str, ...]
) -> None:
    site_u, _ = sites
    (site_u.folder / "large").write_bytes(b" " * (64 * 1024 + 1) + b"{}")
    before = stored(site_u)
    (site_u.folder / "gzip").write_bytes(gzip.compress(b"{}"))
    filled = [option.replace("@", f"@{site_u.folder}/") for option in options]
    _, code, _ = site_u.curl(site_u.saes["EG/U"], "/api/v1/keys/EG%2FN/enc_keys", *filled)
    assert code == 400
    assert stored(site_u) == before


def test_paths_that_are_no_text(sites: tuple[Kms, Kms]) -> None:
    site_u, _ = sites
    for slave in ("%FF", "%00", "%", "EG%252FN", "%F0%9F%9B%B0"):
        _, code, _ = site_u.curl(site_u.saes["EG/U"], f"/api/v1/keys/{slave}/enc_keys")
        assert code == 400, slave


def test_a_registered_stranger_is_401(sites: tuple[Kms, Kms]) -> None:
    code, body = sites[0].ask("EX", "EG%2FN/enc_keys")
    assert (code, body) == (401, {"message": "unauthorised"})


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def signed_by_openssl(kms: Kms, name: str, extensions: str) -> Credentials:
    """A certificate of the site's authority with other contents than `kms.pki` would make."""
    files = Credentials(kms.folder / f"{name}.pem", kms.folder / f"{name}.key")
    request, settings = kms.folder / f"{name}.csr", kms.folder / f"{name}.cnf"
    settings.write_text(extensions)
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout")
    openssl("req", "-new", *key, str(files.key), "-subj", "/CN=EG\\/U", "-out", str(request))
    openssl(
        *("x509", "-req", "-in", str(request), "-CA", str(kms.folder / "ca.pem")),
        *("-CAkey", str(kms.folder / "ca.key"), "-CAcreateserial", "-days", "1"),
        *("-extfile", str(settings), "-out", str(files.certificate)),
    )
    return files


def test_certificates_of_another_tool(sites: tuple[Kms, Kms]) -> None:
    """A foreign tool's certificate with the SAE ID as its common name is as good as ours."""
    site_u, _ = sites
    plain = signed_by_openssl(site_u, "plain", "extendedKeyUsage=clientAuth\n")
    assert site_u.curl(plain, "/api/v1/keys/EG%2FN/status")[:2] == (0, 200)
    twofold = signed_by_openssl(site_u, "twofold", "subjectAltName=URI:urn:qntn:sae:EG%2FN\n")
    assert site_u.curl(twofold, "/api/v1/keys/EG%2FN/status")[:2] == (0, 401)


def test_wrong_certificates_get_no_answer(sites: tuple[Kms, Kms], tmp_path: Path) -> None:
    site_u, site_n = sites
    foreign = init_site(tmp_path, "KME-U", ["localhost"], ["EG/U"], NOW)
    expired = init_site(
        tmp_path / "old", "KME-U", ["localhost"], ["EG/U"], NOW - timedelta(days=4000)
    )
    for sae in (
        None,
        foreign.saes["EG/U"],
        expired.saes["EG/U"],
        site_n.saes["EG/N"],
        Credentials(site_u.folder / "server.pem", site_u.folder / "server.key"),
        signed_by_openssl(site_u, "purpose", "extendedKeyUsage=serverAuth\n"),
    ):
        exit_code, code, body = site_u.curl(sae, "/api/v1/keys/EG%2FN/enc_keys")
        assert exit_code != 0
        assert (code, body) == (0, b"")


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_tls_versions_offered(sites: tuple[Kms, Kms], tls: str) -> None:
    code, _ = sites[0].ask("EG/U", "EG%2FN/status", f"--tlsv{tls}", "--tls-max", tls)
    assert code == 200


@pytest.mark.parametrize("tls", ["1.0", "1.1"])
def test_tls_versions_refused(sites: tuple[Kms, Kms], tls: str) -> None:
    options = ("--tlsv1.0", "--tls-max", tls, "--ciphers", "ALL:@SECLEVEL=0")
    sae = sites[0].saes["EG/U"]
    exit_code, code, _ = sites[0].curl(sae, "/api/v1/keys/EG%2FN/status", *options)
    assert (exit_code, code) == (35, 0)  # curl: TLS connect error


def test_plain_http_is_no_way_in(sites: tuple[Kms, Kms]) -> None:
    url = f"http://localhost:{sites[0].port}/api/v1/keys/EG%2FN/status"
    done = subprocess.run(["curl", "--silent", url], capture_output=True, check=False)
    assert done.returncode != 0
    assert done.stdout == b""


@pytest.mark.parametrize(
    ("change", "exit_code", "said"),
    [
        ({"ledger_path": "missing"}, 1, "no such ledger"),
        ({"site": "N"}, 1, "belongs to site U"),
        ({"key_path": "missing.key"}, 2, "TLS files"),
        ({"listen_host": "192.0.2.1"}, 2, "cannot listen"),
        ({"colour": "red"}, 2, "colour"),
    ],
)
def test_a_kms_that_cannot_start_says_why_in_one_line(
    tmp_path: Path, change: dict[str, str], exit_code: int, said: str
) -> None:
    kms = start(tmp_path, "U", "N")
    stop(kms)
    path = tmp_path / "kms.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    done = subprocess.run(
        [sys.executable, "-m", "kms.server", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert (done.returncode, done.stdout) == (exit_code, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
