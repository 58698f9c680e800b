"""Get status against ETSI GS QKD 014 V1.1.1, clauses 4, 5.2 and 6.1 (Tables 3, 4 and 9)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from kms.api import get_key, get_status
from tests.etsi_014 import MATERIAL, NOW, Answer, Site, get, make_site, taken

REQUIRED = {
    "source_KME_ID": str,
    "target_KME_ID": str,
    "master_SAE_ID": str,
    "slave_SAE_ID": str,
    "key_size": int,
    "stored_key_count": int,
    "max_key_count": int,
    "max_key_per_request": int,
    "max_key_size": int,
    "min_key_size": int,
    "max_SAE_ID_count": int,
}


@pytest.fixture(scope="module")
def status(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answer]:
    site = make_site(tmp_path_factory.mktemp("status"), "U")
    yield site.call(get_status, "EG-U", get("EG-N"))
    site.ledger.close()


@pytest.fixture
def site_u(tmp_path: Path) -> Site:
    return make_site(tmp_path, "U")


@pytest.mark.parametrize("name", [pytest.param(name, id=f"Table 9 {name}") for name in REQUIRED])
def test_table_9_required_members_and_their_types(status: Answer, name: str) -> None:
    code, body = status
    assert code == 200
    value = json.loads(json.dumps(body))[name]
    assert type(value) is REQUIRED[name]


def test_table_9_no_member_that_is_not_in_it(status: Answer) -> None:
    assert status[1].keys() == REQUIRED.keys() | {"status_extension"}
    assert isinstance(status[1]["status_extension"], dict)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("source_KME_ID", "KME-U", id="6.1 the KME that answers"),
        pytest.param("target_KME_ID", "KME-N", id="6.1 the slave's KME"),
        pytest.param("master_SAE_ID", "EG-U", id="6.1 the caller is the master"),
        pytest.param("slave_SAE_ID", "EG-N", id="6.1 the SAE of the path"),
        pytest.param("key_size", 256, id="6.1 default key size in bits"),
        pytest.param("stored_key_count", (len(MATERIAL) - 32) // 2 // 32, id="6.1 whole keys"),
        pytest.param("max_key_count", 100_000, id="6.1 max_key_count"),
        pytest.param("max_key_per_request", 16, id="6.1 max_key_per_request"),
        pytest.param("max_key_size", 1024, id="6.1 max_key_size"),
        pytest.param("min_key_size", 64, id="6.1 min_key_size"),
        pytest.param("max_SAE_ID_count", 2, id="6.1 multicast: additional slaves"),
    ],
)
def test_6_1_values(status: Answer, name: str, value: object) -> None:
    assert status[1][name] == value


def test_6_1_vendor_names_have_a_prefix(status: Answer) -> None:
    assert all(name.startswith("qntn_") for name in status[1]["status_extension"])


def test_6_1_stored_key_count_never_exceeds_max_key_count(tmp_path: Path) -> None:
    _, body = make_site(tmp_path, "U", max_key_count=5).call(get_status, "EG-U", get("EG-N"))
    assert body["stored_key_count"] == body["max_key_count"] == 5


def test_5_2_stored_key_count_is_what_can_be_had(site_u: Site) -> None:
    _, body = site_u.call(get_status, "EG-U", get("EG-N"))
    for _ in range(body["stored_key_count"]):
        assert site_u.call(get_key, "EG-U", get("EG-N"))[0] == 200
    assert site_u.call(get_key, "EG-U", get("EG-N"))[0] == 503
    _, body = site_u.call(get_status, "EG-U", get("EG-N"))
    assert body["stored_key_count"] == 0
    assert body["status_extension"]["qntn_exhausted_in_s"] == 0


def test_5_2_status_consumes_nothing(site_u: Site) -> None:
    first = site_u.call(get_status, "EG-U", get("EG-N"))
    assert site_u.call(get_status, "EG-U", get("EG-N")) == first


def test_4_url_encoded_sae_ids_are_any_text(site_u: Site) -> None:
    code, body = site_u.call(get_status, "a/b ü", get("EH-N"))
    assert (code, body["master_SAE_ID"]) == (200, "a/b ü")


@pytest.mark.parametrize(
    ("caller", "slave", "code"),
    [
        pytest.param("EX-U", "EG-N", 401, id="Table 4 stranger"),
        pytest.param("", "EG-N", 401, id="Table 4 nobody"),
        pytest.param("EG-N", "EG-U", 401, id="Table 4 SAE of the other KME"),
        pytest.param("EH-U", "EG-N", 401, id="Table 4 slave of another SAE"),
        pytest.param("eg-u", "EG-N", 401, id="Table 4 SAE IDs are case-sensitive"),
        pytest.param("EG-U", "EX-N", 400, id="decision: unknown slave SAE"),
        pytest.param("EG-U", "EG-U", 400, id="decision: oneself as slave"),
        pytest.param("EG-U", "", 400, id="decision: empty slave SAE"),
        pytest.param("EG-U", "EG-N ", 400, id="decision: no trimming"),
    ],
)
def test_table_4_refusals(site_u: Site, caller: str, slave: str, code: int) -> None:
    answered, body = site_u.call(get_status, caller, get(slave))
    assert answered == code
    assert isinstance(body["message"], str)  # Table 13; decision: 401 has a body too


def test_forecast_follows_the_measured_consumption(site_u: Site) -> None:
    for second in range(1, 61):
        taken(site_u.at(NOW + timedelta(seconds=second)))
    _, body = site_u.at(NOW + timedelta(seconds=60)).call(get_status, "EG-U", get("EG-N"))
    extension = body["status_extension"]
    assert extension["qntn_rate_bits_per_s"] == pytest.approx(256, rel=0.06)
    left_bits = ((len(MATERIAL) - 32) // 2 // 32 - 60) * 256
    assert extension["qntn_pool_bits"] == left_bits
    assert extension["qntn_exhausted_in_s"] == pytest.approx(left_bits / 256, rel=0.06)


def test_forecast_without_consumption_is_never(status: Answer) -> None:
    assert status[1]["status_extension"]["qntn_exhausted_in_s"] is None
