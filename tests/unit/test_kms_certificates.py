"""K3, K18, K10: who is let in over TLS, on a clock that can be set; the metrics; what the logs say."""

from __future__ import annotations

import base64
import http.client
import json
import logging
import re
import ssl
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kms.configuration import KmsConfiguration
from kms.ledger import Ledger
from kms.pki import Credentials, init_site, issue_sae, revoke, sae_files
from kms.site import HERE, SitePlan, load_block, make_site
from tests.kms_process import served

TIMEOUT_S = 20.0
ENC_KEYS = "/api/v1/keys/EG-N/enc_keys"


@dataclass
class Kme:
    """A KME served from a thread of this process, its clock set by the test."""

    folder: Path
    offset: timedelta = timedelta()
    port: int = 0

    def clock(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def connect(self, sae: Credentials | None) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=self.folder / "ca.pem")
        if sae is not None:
            context.load_cert_chain(sae.certificate, sae.key)
        return http.client.HTTPSConnection(
            "127.0.0.1", self.port, context=context, timeout=TIMEOUT_S
        )

    def stored(self) -> int:
        status = ask(self.connect(sae_files(self.folder, "EG-U")), "/api/v1/keys/EG-N/status")
        return int(status[1]["stored_key_count"])


def ask(connection: http.client.HTTPSConnection, path: str) -> tuple[int, dict[str, Any]]:
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


@contextmanager
def serving(
    folder: Path, material: bytes, *, expires: datetime | None = None, **changes: object
) -> Iterator[Kme]:
    """A site with one block of key, its configuration changed."""
    plan = SitePlan("U", "KME-U", "KME-N", HERE, 0, [("EG-U", "EG-N"), ("EH-U", "EH-N")], 0)
    path = make_site(folder, plan, datetime.now(UTC))
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    configuration = KmsConfiguration.load(path)
    load_block(configuration, 1, material, "test", now=datetime.now(UTC), expires=expires)
    kme = Kme(folder)
    with (
        Ledger(configuration.ledger_path, configuration.ledger_secret()) as ledger,
        served(ledger, configuration, kme.clock) as kme.port,
    ):
        yield kme


@pytest.fixture(scope="module")
def kme(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kme]:
    with serving(tmp_path_factory.mktemp("kme") / "site", Random(1).randbytes(20_000)) as kme:
        yield kme


@pytest.fixture(autouse=True)
def right_clock(kme: Kme) -> None:
    kme.offset = timedelta()


Make = Callable[[Kme, Path], Credentials | None]


def foreign(kme: Kme, folder: Path) -> Credentials:
    """The same SAE ID, the same name of the authority, another authority."""
    return init_site(folder, "KME-U", HERE, ["EG-U"], datetime.now(UTC)).saes["EG-U"]


def server_s(kme: Kme, folder: Path) -> Credentials:
    return Credentials(kme.folder / "server.pem", kme.folder / "server.key")


def expired(kme: Kme, folder: Path) -> Credentials:
    return issue_sae(kme.folder, "expired", datetime.now(UTC) - timedelta(days=4000))


def not_yet(kme: Kme, folder: Path) -> Credentials:
    return issue_sae(kme.folder, "not yet", datetime.now(UTC) + timedelta(days=2))


@pytest.mark.parametrize("make", [lambda *_: None, foreign, server_s, expired, not_yet])
def test_k3_no_tls_without_a_good_certificate(kme: Kme, tmp_path: Path, make: Make) -> None:
    before = kme.stored()
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        ask(kme.connect(make(kme, tmp_path)), ENC_KEYS)
    assert kme.stored() == before


def test_k3_revoked_while_the_connection_is_open(kme: Kme) -> None:
    sae = issue_sae(kme.folder, "soon revoked", datetime.now(UTC))
    connection = kme.connect(sae)
    assert ask(connection, ENC_KEYS) == (401, {"message": "unauthorised"})  # of no pair, but known
    revoke(kme.folder, "soon revoked", datetime.now(UTC))
    assert ask(connection, ENC_KEYS) == (401, {"message": "the certificate is revoked"})
    assert ask(kme.connect(sae), ENC_KEYS) == (401, {"message": "the certificate is revoked"})


def test_k3_a_list_that_is_gone_lets_nobody_in(kme: Kme) -> None:
    crl, content = kme.folder / "crl.pem", (kme.folder / "crl.pem").read_bytes()
    connection = kme.connect(sae_files(kme.folder, "EG-U"))
    crl.unlink()
    assert ask(connection, ENC_KEYS) == (503, {"message": "certificates cannot be checked"})
    crl.write_bytes(content)
    assert ask(connection, ENC_KEYS)[0] == 200


@pytest.mark.parametrize("jump", [timedelta(days=-2), timedelta(days=4000)])
def test_k18_dates_are_checked_for_each_request(kme: Kme, jump: timedelta) -> None:
    before = kme.stored()
    connection = kme.connect(sae_files(kme.folder, "EG-U"))
    assert ask(connection, ENC_KEYS)[0] == 200
    kme.offset = jump
    code, body = ask(connection, ENC_KEYS)
    assert (code, body) == (401, {"message": "the certificate is not valid now"})
    kme.offset = timedelta()
    assert kme.stored() == before - 1


@pytest.mark.parametrize("jump", [timedelta(days=1), timedelta(hours=-23)])
def test_k18_no_key_twice_when_the_clock_jumps(kme: Kme, jump: timedelta) -> None:
    connection = kme.connect(sae_files(kme.folder, "EG-U"))
    seen = [ask(connection, ENC_KEYS)]
    kme.offset = jump
    seen += [ask(connection, ENC_KEYS) for _ in range(3)]
    kme.offset = timedelta()
    seen.append(ask(connection, ENC_KEYS))
    assert [code for code, _ in seen] == [200] * 5
    assert len({body["keys"][0]["key_ID"] for _, body in seen}) == 5
    assert len({body["keys"][0]["key"] for _, body in seen}) == 5


def test_k10_logs_at_debug_level_hold_no_key(kme: Kme, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    connection = kme.connect(sae_files(kme.folder, "EG-U"))
    _, body = ask(connection, f"{ENC_KEYS}?number=20")
    assert "enc_keys?number=20 200" in caplog.text
    for item in body["keys"]:
        key = base64.b64decode(item["key"])
        for form in (item["key"], key.hex(), repr(key), repr(list(key)), str(int.from_bytes(key))):
            assert form not in caplog.text


def test_what_is_low_at_the_start_or_by_expiry_is_said_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without any SAE asking: the alarm at the start, the expiry at a scrape."""
    caplog.set_level(logging.INFO)
    block, now = bytes(range(256)) * 9, datetime.now(UTC)
    with serving(tmp_path / "site", block, expires=now, low_water_bits=10_000):
        assert "low-water at KME-U: 8960 bits left" in caplog.text
        url = re.search(r"http://\S+/metrics", caplog.text)
        assert url is not None
        with urllib.request.urlopen(url[0], timeout=TIMEOUT_S) as answer:
            text = answer.read().decode()
    assert 'qntn_kms_pool_bits{direction="own",state="free"} 0.0' in text
    assert 'qntn_kms_alarms_total{kind="low-water"} 1.0' in text


def test_metrics_are_what_prometheus_reads(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with serving(tmp_path / "site", bytes(range(256)) * 9) as site:
        connection = site.connect(sae_files(site.folder, "EG-U"))
        keys = [ask(connection, ENC_KEYS)[1]["keys"][0] for _ in range(3)]
        assert ask(connection, f"{ENC_KEYS}?size=3")[0] == 400
        url = next(
            record.getMessage().split()[-1]
            for record in caplog.records
            if record.getMessage().startswith("metrics at")
        )
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            text = answer.read().decode()
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    half_bits = 8 * ((256 * 9 - 32) // 2)
    assert samples["qntn_kms_pool_bits", "free", "own"] == half_bits - 3 * 256
    assert samples["qntn_kms_pool_bits", "free", "peer"] == half_bits
    for half in ("own", "peer"):  # the states add up
        states = [value for (name, *labels), value in samples.items() if half in labels]
        assert (len(states), sum(states)) == (4, half_bits)
    assert samples["qntn_kms_answers_total", "200", "EG-U", "enc_keys"] == 3
    assert samples["qntn_kms_answers_total", "400", "EG-U", "enc_keys"] == 1
    assert samples["qntn_kms_keys_delivered_total", "EG-U", "enc_keys"] == 3
    assert samples["qntn_kms_answer_seconds_count",] == 4
    assert samples["qntn_kms_rate_bits_per_second",] > 0
    assert samples["qntn_kms_open_connections",] == 1
    for key in keys:
        assert key["key"] not in text
        assert key["key_ID"] not in text
