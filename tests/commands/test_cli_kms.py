"""`qntn kms`: what it makes, what it refuses, what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.cli_kms import _described
from kms.configuration import KmsConfiguration
from kms.ledger import Ledger
from tests.command_line import Qntn, command_line

SITE = (
    *("--kme-id", "KME-A", "--peer-kme-id", "KME-B", "--server", "kme.example", "--server"),
    *("192.0.2.1", "--pair", "vpn/a=vpn/b", "--pair", "x=y", "--site", "N", "--port", "1"),
)


@pytest.fixture
def kms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Qntn:
    """Run `qntn kms` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return command_line(monkeypatch, capsys, "kms")


def opened(folder: str) -> tuple[KmsConfiguration, Ledger]:
    configuration = KmsConfiguration.load(f"{folder}/kms.json")
    return configuration, Ledger(configuration.ledger_path, configuration.ledger_secret())


def test_a_pair_shares_its_first_block(kms: Qntn) -> None:
    said = kms("init", "sites", "--key-bytes", 5000, "--port", 7000)
    assert said == (0, "sites/u/kms.json\nsites/n/kms.json\n", "")
    (at_u, u), (at_n, n) = opened("sites/u"), opened("sites/n")
    with u, n:
        assert (at_u.listen_port, at_n.listen_port) == (7000, 7001)
        assert at_u.metrics_port != at_n.metrics_port
        assert (at_u.site, at_n.site) == ("U", "N")
        from datetime import UTC, datetime

        now = datetime.now(UTC)
        keys = u.take("EG-U", "EG-N", 256, 3, now)
        assert n.fetch("EG-U", "EG-N", [name for name, _ in keys], now) == keys
    assert {p.name for p in Path("sites/u").glob("*.key")} == {
        "peer.key",
        "ca.key",
        "server.key",
        "sae-EG-U.key",
    }


def test_one_site_and_its_key(kms: Qntn, tmp_path: Path) -> None:
    assert kms("init", "a", *SITE).code == 0
    (tmp_path / "key").write_bytes(bytes(range(256)) * 4)
    said = kms("load", "a", 7, "key", "--label", "courier", "--lifetime-h", 1)
    assert (said.code, said.err) == (0, "")
    configuration, ledger = opened("a")
    with ledger:
        assert ledger.site == "N"
        assert ledger.has_block(7)
    assert configuration.may_share("vpn/a", "vpn/b")
    assert configuration.listen_host == "kme.example"
    again = kms("load", "a", 7, "key")
    assert (again.code, again.err) == (1, "qntn: block 7 is stored already\n")


def test_the_same_key_as_another_block_is_refused(kms: Qntn, tmp_path: Path) -> None:
    kms("init", "a", *SITE)
    (tmp_path / "key").write_bytes(bytes(range(256)) * 4)
    assert kms("load", "a", 9, "key").code == 0
    said = kms("load", "a", 10, "key")
    assert (said.code, said.err) == (1, "qntn: block 10: its bytes came before, as block 9\n")


def test_start_over_of_a_site_that_was_put_back(kms: Qntn, tmp_path: Path) -> None:
    kms("init", "a", *SITE)
    (tmp_path / "key").write_bytes(bytes(range(256)) * 4)
    kms("load", "a", 7, "key")
    with opened("a")[1] as ledger, ledger.stock.transaction():
        ledger.stock.state.distrust = "rolled back"
        ledger.stock.keep_state()
    assert kms("start-over", "a").out.startswith(f"{1024 - 32} bytes destroyed in ")


def test_a_block_that_is_no_key_is_refused(kms: Qntn, tmp_path: Path) -> None:
    kms("init", "a", *SITE)
    (tmp_path / "zero").write_bytes(bytes(1000))
    said = kms("load", "a", 7, "zero")
    assert (said.code, said.out) == (1, "")
    assert "block 7 fails its health test: repetition count" in said.err
    with opened("a")[1] as ledger:
        assert not ledger.has_block(7)


def test_audit_and_start_over(kms: Qntn, tmp_path: Path) -> None:
    kms("init", "a", *SITE)
    (tmp_path / "key").write_bytes(bytes(range(256)) * 4)
    kms("load", "a", 7, "key", "--label", "courier")
    refused = kms("start-over", "a")
    assert (refused.code, refused.out) == (2, "")
    assert "nothing is wrong with it; --force destroys its key all the same" in refused.err
    said = kms("start-over", "a", "--force")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"{1024 - 32} bytes destroyed in ")
    lines = [json.loads(line) for line in kms("audit", "a").out.splitlines()]
    assert [line["event"] for line in lines] == ["add_block", "destroy", "start_over"]
    assert lines[0]["detail"] == {"block": 7, "label": "courier", "length_bytes": 1024}
    with opened("a")[1]:
        assert "open in another process" in kms("audit", "a").err


def test_a_hub_gets_as_many_additional_slaves_as_can_be_found(kms: Qntn) -> None:
    pairs = [part for number in range(32) for part in ("--pair", f"hub=s{number}")]
    for folder, at_most in (("a", 30), ("b", 31), ("c", 32)):
        assert kms("init", folder, *SITE, *pairs[: 2 * at_most]).code == 0
    found = [opened(folder) for folder in "abc"]
    for _, ledger in found:
        ledger.close()
    assert [configuration.max_additional_slaves for configuration, _ in found] == [3, 3, 1]
    text = json.loads(Path("c/kms.json").read_text()) | {"max_additional_slaves": 3}
    Path("c/kms.json").write_text(json.dumps(text))
    said = kms("status", "c")
    assert (said.code, len(said.err.splitlines())) == (2, 1)
    assert "max_additional_slaves: 3 is too many where hub shares keys with 32 SAEs" in said.err


def test_serving_before_the_other_site_is_trusted_names_the_remedy(kms: Qntn) -> None:
    kms("init", "a", *SITE, "--peer-url", "https://192.0.2.2:1")
    assert "peer-ca.pem: no such file: tell this site whom to trust (`qntn kms trust`)" in (
        kms("serve", "a").err
    )


def test_revoke_and_issue(kms: Qntn) -> None:
    kms("init", "a", *SITE)
    assert "still good; revoke it first" in kms("issue", "a", "vpn/a").err
    assert kms("revoke", "a", "vpn/a") == (0, "a/crl.pem\n", "")
    assert kms("revoke", "a", "vpn/a").code == 2
    assert kms("issue", "a", "vpn/a").out == "a/sae-vpn%2Fa.pem  a/sae-vpn%2Fa.key\n"
    assert kms("issue", "a", "vpn/a").code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("init", "a", "--server", "x"), 2, "--kme-id"),
        (("init", "a", "--kme-id", "K"), 2, "--peer-kme-id"),
        (("init", "a", *SITE, "--pair", "alone"), 2, "--pair alone: HERE=THERE"),
        (("init", "a", *SITE, "--port", "70000"), 2, "listen_port"),
        (("serve", "missing"), 2, "missing"),
        (("status", "missing"), 2, "missing/kms.json: No such file"),
        (("load", "missing", "1", "no key"), 2, "no key: No such file"),
        (("revoke", "missing", "x"), 2, "ca.key"),
        (("init", "/proc/missing"), 2, "/proc/missing/u: No such file"),
    ],
)
def test_what_cannot_be_is_one_line(
    kms: Qntn, arguments: tuple[str, ...], code: int, said: str
) -> None:
    found = kms(*arguments)
    assert (found.code, found.out) == (code, "")
    assert said in found.err
    assert len(found.err.splitlines()) == 1
    assert not Path("a").exists()


def test_init_replaces_nothing(kms: Qntn) -> None:
    kms("init", "sites", "--key-bytes", 1000)
    before = Path("sites/u/ca.key").read_bytes()
    assert kms("init", "sites").code == 2
    assert Path("sites/u/ca.key").read_bytes() == before


def test_status_of_a_kme_that_is_not_there(kms: Qntn) -> None:
    kms("init", "a", *(part if part != "kme.example" else "127.0.0.1" for part in SITE))
    said = kms("status", "a")
    assert said.code == 1
    assert "KME KME-A at https://127.0.0.1:1: " in said.err
    assert kms("status", "a", "--sae", "nobody").code == 2


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "https://localhost:1"),
        ("::", "https://localhost:1"),
        ("::1", "https://[::1]:1"),
        ("192.0.2.1", "https://192.0.2.1:1"),
    ],
)
def test_where_a_kme_is_from_its_own_machine(kms: Qntn, host: str, url: str) -> None:
    kms("init", "a", *SITE)
    configuration = KmsConfiguration.load("a/kms.json").model_copy(update={"listen_host": host})
    assert configuration.local_url == url


def test_status_in_words() -> None:
    status = json.loads(
        '{"source_KME_ID": "A", "target_KME_ID": "B", "master_SAE_ID": "a", "slave_SAE_ID": "b",'
        ' "key_size": 256, "stored_key_count": 7, "max_key_count": 9, "max_key_per_request": 1,'
        ' "max_key_size": 1024, "min_key_size": 64, "max_SAE_ID_count": 0, "status_extension": {}}'
    )
    assert len(_described(status).splitlines()) == 3  # another maker's KME
    status["status_extension"] = {
        "qntn_pool_bits": 1792,
        "qntn_rate_bits_per_s": 2.0,
        "qntn_exhausted_in_s": 896.0,
        "qntn_low_water": True,
    }
    assert "1792 bits for the masters here, LOW" in _described(status)
    assert "in 896 s" in _described(status)
    status["status_extension"]["qntn_exhausted_in_s"] = None
    assert "never at that rate" in _described(status)
