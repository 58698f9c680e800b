"""The API against ETSI GS QKD 014 V1.1.1, clause by clause, and the decisions it leaves open.

Site U serves EG-U (paired with EG-N) and EH-U (paired with EH-N); site N the other ends.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from kms import api
from kms.api import Request, get_key, get_key_with_key_ids, get_status
from kms.configuration import KmsConfiguration, SaePair
from kms.ledger import Ledger

NOW = datetime(2024, 11, 29, 22, 40, tzinfo=UTC)
MATERIAL = bytes(range(256)) * 40
ANY_ID = "0b9b1f3c-55e3-4a6f-9f4e-3f8f3c8f1f10"
NOT_FOUND = "one or more keys specified are not found on KME"
Answer = tuple[int, dict[str, Any]]


@dataclass(frozen=True)
class Kme:
    ledger: Ledger
    configuration: KmsConfiguration

    def call(self, handler: api.Handler, caller: str, request: Request) -> Answer:
        return handler(self.ledger, self.configuration, caller, request, NOW)


def make_kme(folder: Path, site: Literal["U", "N"]) -> Kme:
    here, there = ("U", "N") if site == "U" else ("N", "U")
    configuration = KmsConfiguration(
        kme_id=f"KME-{here}",
        peer_kme_id=f"KME-{there}",
        site=site,
        listen_host="127.0.0.1",
        listen_port=0,
        ca_path=folder / "unused",
        certificate_path=folder / "unused",
        key_path=folder / "unused",
        ledger_path=folder / f"{here}.ledger",
        sae_pairs=tuple(
            SaePair(local=f"{name}-{here}", remote=f"{name}-{there}") for name in ("EG", "EH")
        ),
        max_key_per_request=16,
    )
    ledger = Ledger.create(configuration.ledger_path, site)
    ledger.add_block(1, MATERIAL, "test", NOW)
    return Kme(ledger, configuration)


@pytest.fixture
def kme_u(tmp_path: Path) -> Kme:
    return make_kme(tmp_path, "U")


@pytest.fixture
def kme_n(tmp_path: Path) -> Kme:
    return make_kme(tmp_path, "N")


def get(sae_id: str, **query: object) -> Request:
    return Request("GET", sae_id, tuple((name, str(value)) for name, value in query.items()))


def post(sae_id: str, body: object) -> Request:
    return Request("POST", sae_id, body=json.dumps(body).encode())


def raw(body: bytes) -> Request:
    return Request("POST", "EG-N", body=body)


def key_lengths(answer: Answer) -> list[int]:
    code, body = answer
    assert code == 200, body
    return [8 * len(base64.b64decode(key["key"], validate=True)) for key in body["keys"]]


def ids(*key_ids: object) -> dict[str, object]:
    return {"key_IDs": [{"key_ID": key_id} for key_id in key_ids]}


# --- Get status: clauses 5.2, 6.1 -----------------------------------------------------------------


def test_6_1_status_has_exactly_the_required_members(kme_u: Kme) -> None:
    code, status = kme_u.call(get_status, "EG-U", get("EG-N"))
    assert (code, status) == (
        200,
        {
            "source_KME_ID": "KME-U",
            "target_KME_ID": "KME-N",
            "master_SAE_ID": "EG-U",
            "slave_SAE_ID": "EG-N",
            "key_size": 256,
            "stored_key_count": (len(MATERIAL) - 32) // 2 // 32,
            "max_key_count": 100_000,
            "max_key_per_request": 16,
            "max_key_size": 1024,
            "min_key_size": 64,
            "max_SAE_ID_count": 0,
        },
    )


def test_6_1_stored_key_count_never_exceeds_max_key_count(kme_u: Kme) -> None:
    small = replace(
        kme_u, configuration=kme_u.configuration.model_copy(update={"max_key_count": 5})
    )
    _, status = small.call(get_status, "EG-U", get("EG-N"))
    assert status["stored_key_count"] == status["max_key_count"] == 5


def test_5_2_stored_key_count_is_what_can_be_had(kme_u: Kme) -> None:
    _, status = kme_u.call(get_status, "EG-U", get("EG-N"))
    for _ in range(status["stored_key_count"]):
        assert kme_u.call(get_key, "EG-U", get("EG-N"))[0] == 200
    assert kme_u.call(get_key, "EG-U", get("EG-N"))[0] == 503
    _, status = kme_u.call(get_status, "EG-U", get("EG-N"))
    assert status["stored_key_count"] == 0


# --- Get key that succeeds: clauses 5.3, 6.2, 6.3 -------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        pytest.param(get("EG-N"), [256], id="6.2 GET without query: defaults"),
        pytest.param(get("EG-N", number=3), [256] * 3, id="6.2 GET number"),
        pytest.param(get("EG-N", size=64), [64], id="6.2 GET size, the smallest"),
        pytest.param(get("EG-N", number=16, size=1024), [1024] * 16, id="6.2 GET, the largest"),
        pytest.param(post("EG-N", {}), [256], id="Table 10: all items optional"),
        pytest.param(post("EG-N", {"number": 2, "size": 72}), [72, 72], id="Table 10"),
        pytest.param(post("EG-N", {"number": None}), [256], id="decision: null is absent"),
        pytest.param(
            post("EG-N", {"extension_optional": [{"abc_x": 1}]}), [256], id="6.2 optional"
        ),
        pytest.param(post("EG-N", {"extension_mandatory": []}), [256], id="6.2 empty extension"),
        pytest.param(post("EG-N", {"additional_slave_SAE_IDs": []}), [256], id="6.2 no more SAEs"),
        pytest.param(post("EG-N", {"unknown": 1}), [256], id="decision: unknown members ignored"),
    ],
)
def test_enc_keys_delivers(kme_u: Kme, request_: Request, expected: list[int]) -> None:
    answer = kme_u.call(get_key, "EG-U", request_)
    assert key_lengths(answer) == expected
    assert set(answer[1]) == {"keys"}
    assert all(set(key) == {"key_ID", "key"} for key in answer[1]["keys"])


# --- Get key that is refused: clauses 5.3, 6.2, Table 6 -------------------------------------------

MANDATORY = "not all extension_mandatory parameters are supported"
BYTES = "size shall be a multiple of 8"


@pytest.mark.parametrize(
    ("caller", "request_", "code", "message"),
    [
        pytest.param("EG-U", get("EG-N", size=255), 400, BYTES, id="6.2 fixed text, GET"),
        pytest.param("EG-U", post("EG-N", {"size": 257}), 400, BYTES, id="6.2 fixed text, POST"),
        pytest.param(
            "EG-U",
            post("EG-N", {"extension_mandatory": [{"abc_route_type": "direct"}]}),
            400,
            MANDATORY,
            id="6.2 fixed text, extension",
        ),
        pytest.param("EG-U", get("EG-N", size=56), 400, None, id="Table 9 below min_key_size"),
        pytest.param("EG-U", get("EG-N", size=1032), 400, None, id="Table 9 above max_key_size"),
        pytest.param("EG-U", get("EG-N", size=0), 400, None, id="size 0"),
        pytest.param("EG-U", get("EG-N", number=17), 400, None, id="Table 9 max_key_per_request"),
        pytest.param("EG-U", get("EG-N", number=0), 400, None, id="number 0"),
        pytest.param("EG-U", get("EG-N", number=-1), 400, None, id="number negative"),
        pytest.param("EG-U", get("EG-N", number="two"), 400, None, id="number no integer"),
        pytest.param("EG-U", get("EG-N", number="²"), 400, None, id="number in another script"),
        pytest.param("EG-U", get("EG-N", number="9" * 5000), 400, None, id="number huge"),
        pytest.param("EG-U", get("EG-N", size=""), 400, None, id="size empty"),
        pytest.param("EG-U", get("EG-N", key_ID=ANY_ID), 400, None, id="6.2 only number and size"),
        pytest.param("EG-U", get("EG-N", extension_mandatory="x"), 400, None, id="6.2 shall POST"),
        pytest.param(
            "EG-U",
            Request("GET", "EG-N", (("number", "1"), ("number", "2"))),
            400,
            None,
            id="number twice",
        ),
        pytest.param("EG-U", post("EG-N", {"number": "2"}), 400, None, id="Table 10 integer: text"),
        pytest.param("EG-U", post("EG-N", {"number": 2.0}), 400, None, id="Table 10 integer: real"),
        pytest.param(
            "EG-U", post("EG-N", {"number": True}), 400, None, id="Table 10 integer: bool"
        ),
        pytest.param("EG-U", post("EG-N", {"number": 10**30}), 400, None, id="number huge, POST"),
        pytest.param("EG-U", post("EG-N", {"number": -3}), 400, None, id="number negative, POST"),
        pytest.param("EG-U", post("EG-N", {"extension_optional": {}}), 400, None, id="no array"),
        pytest.param(
            "EG-U", post("EG-N", {"extension_mandatory": ["x"]}), 400, None, id="no object"
        ),
        pytest.param(
            "EG-U",
            post("EG-N", {"additional_slave_SAE_IDs": ["EH-N"]}),
            400,
            None,
            id="Table 10 more SAEs than max_SAE_ID_count",
        ),
        pytest.param("EG-U", post("EG-N", []), 400, None, id="body no object"),
        pytest.param("EG-U", raw(b""), 400, None, id="body empty"),
        pytest.param("EG-U", raw(b"{"), 400, None, id="body no JSON"),
        pytest.param("EG-U", raw(b'{"number": 1'), 400, None, id="body cut"),
        pytest.param("EG-U", raw(b'\xff{"number": 1}'), 400, None, id="body no UTF-8"),
        pytest.param("EG-U", raw(b'{"size":' + b"[" * 9999), 400, None, id="body nested deeply"),
        pytest.param(
            "EG-U", raw(b'{"size":' + b"9" * 9999 + b"}"), 400, None, id="body huge number"
        ),
        pytest.param("EG-U", get("EX-N"), 400, None, id="decision: unknown slave SAE"),
        pytest.param("EG-U", get("EG-U"), 400, None, id="oneself as slave"),
        pytest.param("EG-U", get("EH-N"), 401, None, id="Table 6 slave of another SAE"),
        pytest.param("EX-U", get("EG-N"), 401, None, id="Table 6 stranger"),
        pytest.param("EG-N", get("EG-U"), 401, None, id="Table 6 SAE of the other KME"),
        pytest.param("", get("EG-N"), 401, None, id="Table 6 nobody"),
    ],
)
def test_enc_keys_refuses_and_consumes_nothing(
    kme_u: Kme, caller: str, request_: Request, code: int, message: str | None
) -> None:
    before = kme_u.ledger.counts()
    answered, body = kme_u.call(get_key, caller, request_)
    assert answered == code
    assert isinstance(body["message"], str)
    assert message is None or body["message"] == message
    assert kme_u.ledger.counts() == before
    if code == 401:
        assert kme_u.call(get_status, caller, get(request_.sae_id))[0] == 401


def test_6_2_details_name_the_unsupported_extensions(kme_u: Kme) -> None:
    request = post("EG-N", {"extension_mandatory": [{"abc_a": 1}, {"abc_b": {"c": 2}}]})
    _, body = kme_u.call(get_key, "EG-U", request)
    assert body["details"] == [
        {"extension_mandatory_unsupported": "abc_a"},
        {"extension_mandatory_unsupported": "abc_b"},
    ]


def test_decision_too_few_keys_is_503_and_consumes_nothing(kme_u: Kme) -> None:
    stored = kme_u.ledger.stored_key_count(256)
    for _ in range(stored // 16):
        kme_u.call(get_key, "EG-U", get("EG-N", number=16))
    left = stored % 16
    assert 0 < left < 16
    assert kme_u.call(get_key, "EG-U", get("EG-N", number=left + 1))[0] == 503
    assert kme_u.ledger.stored_key_count(256) == left
    assert len(kme_u.call(get_key, "EG-U", get("EG-N", number=left))[1]["keys"]) == left


def test_table_6_a_failing_store_is_503_and_says_no_more(kme_u: Kme) -> None:
    kme_u.ledger._db.execute("DROP TABLE audit")
    code, body = kme_u.call(get_key, "EG-U", get("EG-N"))
    assert (code, body) == (503, {"message": "key store failure"})


# --- Get key with key IDs: clauses 5.4, 6.4, 6.5 --------------------------------------------------


def taken(kme: Kme, number: int = 1) -> list[dict[str, str]]:
    code, body = kme.call(get_key, "EG-U", get("EG-N", number=number))
    assert code == 200
    keys: list[dict[str, str]] = body["keys"]
    return keys


def test_5_4_same_keys_same_ids_once(kme_u: Kme, kme_n: Kme) -> None:
    first, *others = taken(kme_u, 4)
    one = get("EG-U", key_ID=first["key_ID"])
    many = post("EG-U", ids(*(key["key_ID"] for key in others)))
    assert kme_n.call(get_key_with_key_ids, "EG-N", one) == (200, {"keys": [first]})
    assert kme_n.call(get_key_with_key_ids, "EG-N", many) == (200, {"keys": others})
    for again in (one, many):
        refused = kme_n.call(get_key_with_key_ids, "EG-N", again)
        assert refused == (400, {"message": NOT_FOUND})


def test_both_directions_share_no_key(kme_u: Kme, kme_n: Kme) -> None:
    outward = taken(kme_u, 5)
    code, body = kme_n.call(get_key, "EG-N", get("EG-U", number=5))
    assert code == 200
    assert not {key["key_ID"] for key in outward} & {key["key_ID"] for key in body["keys"]}
    request = post("EG-N", ids(*(key["key_ID"] for key in body["keys"])))
    assert kme_u.call(get_key_with_key_ids, "EG-U", request) == (200, body)


def test_6_4_extensions_of_key_ids_are_read_over(kme_u: Kme, kme_n: Kme) -> None:
    [key] = taken(kme_u)
    body = {
        "key_IDs": [{"key_ID": key["key_ID"], "key_ID_extension": {"abc_x": 1}}],
        "key_IDs_extension": {"abc_y": [2]},
    }
    assert kme_n.call(get_key_with_key_ids, "EG-N", post("EG-U", body)) == (200, {"keys": [key]})


def test_decision_upper_case_key_id(kme_u: Kme, kme_n: Kme) -> None:
    [key] = taken(kme_u)
    request = get("EG-U", key_ID=key["key_ID"].upper())
    assert kme_n.call(get_key_with_key_ids, "EG-N", request) == (200, {"keys": [key]})


KNOWN = "KNOWN"  # stands for the key_ID of a key that EG-U got for EG-N


@pytest.mark.parametrize(
    ("caller", "master", "body", "code", "message"),
    [
        pytest.param("EH-N", "EG-U", ids(KNOWN), 401, None, id="5.4 another SAE of the KME"),
        pytest.param("EH-N", "EH-U", ids(KNOWN), 401, None, id="5.4 another SAE, its own master"),
        pytest.param("EX-N", "EG-U", ids(KNOWN), 401, None, id="5.4 stranger"),
        pytest.param(
            "EG-U", "EG-U", ids(KNOWN), 401, None, id="5.4 the master, at the slave's KME"
        ),
        pytest.param("EH-N", "EG-U", ids(ANY_ID, KNOWN), 401, None, id="5.4 one of two"),
        pytest.param("EG-N", "EH-U", ids(KNOWN), 400, NOT_FOUND, id="decision: wrong master"),
        pytest.param("EG-N", "EX-U", ids(KNOWN), 400, NOT_FOUND, id="decision: unknown master"),
        pytest.param("EG-N", "EG-U", ids(ANY_ID), 400, NOT_FOUND, id="6.4 fixed text"),
        pytest.param("EG-N", "EG-U", ids(KNOWN, ANY_ID), 400, NOT_FOUND, id="decision: atomic"),
        pytest.param("EG-N", "EG-U", ids(KNOWN, KNOWN), 400, None, id="decision: twice"),
        pytest.param("EG-N", "EG-U", ids(KNOWN, "no UUID"), 400, None, id="Table 12 UUID"),
        pytest.param("EG-N", "EG-U", ids(KNOWN, 7), 400, None, id="Table 12 string"),
        pytest.param("EG-N", "EG-U", ids("{" + ANY_ID + "}"), 400, None, id="Table 12 bare UUID"),
        pytest.param("EG-N", "EG-U", ids(), 400, None, id="Table 12 none"),
        pytest.param("EG-N", "EG-U", ids(*[KNOWN] * 17), 400, None, id="Table 9 too many"),
        pytest.param("EG-N", "EG-U", {}, 400, None, id="Table 12 key_IDs required"),
        pytest.param("EG-N", "EG-U", {"key_IDs": [KNOWN]}, 400, None, id="Table 12 objects"),
        pytest.param("EG-N", "EG-U", {"key_IDs": KNOWN}, 400, None, id="Table 12 array"),
        pytest.param("EG-N", "EG-U", [], 400, None, id="body no object"),
    ],
)
def test_dec_keys_refuses_and_consumes_nothing(
    kme_u: Kme,
    kme_n: Kme,
    *,
    caller: str,
    master: str,
    body: object,
    code: int,
    message: str | None,
) -> None:
    [key] = taken(kme_u)
    sent = json.dumps(body).replace(KNOWN, key["key_ID"])
    answered, refusal = kme_n.call(
        get_key_with_key_ids, caller, Request("POST", master, body=sent.encode())
    )
    assert answered == code
    assert message is None or refusal["message"] == message
    assert key["key"] not in json.dumps(refusal)
    good = kme_n.call(get_key_with_key_ids, "EG-N", get("EG-U", key_ID=key["key_ID"]))
    assert good == (200, {"keys": [key]})


def test_5_4_the_master_at_its_own_kme(kme_u: Kme) -> None:
    [key] = taken(kme_u)
    for named in ("EG-U", "EG-N"):
        request = get(named, key_ID=key["key_ID"])
        assert kme_u.call(get_key_with_key_ids, "EG-U", request)[0] == 401


def test_5_4_others_are_unauthorised_also_after_delivery(kme_u: Kme, kme_n: Kme) -> None:
    [key] = taken(kme_u)
    request = get("EG-U", key_ID=key["key_ID"])
    assert kme_n.call(get_key_with_key_ids, "EG-N", request)[0] == 200
    assert kme_n.call(get_key_with_key_ids, "EH-N", request)[0] == 401


@pytest.mark.parametrize(
    "query",
    [
        pytest.param((), id="6.4 GET without key_ID"),
        pytest.param((("key_ID", ANY_ID), ("key_ID", ANY_ID)), id="6.4 GET with two"),
        pytest.param((("key_ID", ANY_ID), ("number", "1")), id="6.4 GET with more"),
        pytest.param((("key_id", ANY_ID),), id="6.4 GET misspelt"),
        pytest.param((("key_ID", ""),), id="6.4 GET with an empty one"),
    ],
)
def test_dec_keys_get_takes_exactly_one_key_id(kme_n: Kme, query: Any) -> None:
    code, body = kme_n.call(get_key_with_key_ids, "EG-N", Request("GET", "EG-U", query))
    assert code == 400
    assert "bad request format" in body["message"]


def test_a_pair_only_the_other_kme_knows_is_not_served(kme_u: Kme, kme_n: Kme) -> None:
    [(name, _)] = kme_u.ledger.take("EX-U", "EG-N", 256, 1, NOW)
    code, body = kme_n.call(get_key_with_key_ids, "EG-N", get("EX-U", key_ID=name))
    assert (code, body) == (400, {"message": NOT_FOUND})
