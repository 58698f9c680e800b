"""Get key with key IDs against ETSI GS QKD 014 V1.1.1, clauses 5.4 and 6.4 (Tables 7, 8 and 12)."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kms.api import Request, get_key, get_key_with_key_ids
from tests.etsi_014 import ANY_ID, KNOWN, MATERIAL, NOW, Site, get, ids, make_site, post, taken

NOT_FOUND = "one or more keys specified are not found on KME"


@pytest.fixture
def site_u(tmp_path: Path) -> Site:
    return make_site(tmp_path, "U")


@pytest.fixture
def site_n(tmp_path: Path) -> Site:
    return make_site(tmp_path, "N")


def test_5_4_same_keys_same_ids_once(site_u: Site, site_n: Site) -> None:
    first, *others = taken(site_u, 4)
    one = get("EG-U", key_ID=first["key_ID"])
    many = post("EG-U", ids(*(key["key_ID"] for key in others)))
    assert site_n.call(get_key_with_key_ids, "EG-N", one) == (200, {"keys": [first]})
    assert site_n.call(get_key_with_key_ids, "EG-N", many) == (200, {"keys": others})
    for again in (one, many):
        refused = site_n.call(get_key_with_key_ids, "EG-N", again)
        assert refused == (400, {"message": NOT_FOUND})


def test_both_directions_share_no_key(site_u: Site, site_n: Site) -> None:
    outward = taken(site_u, 5)
    code, body = site_n.call(get_key, "EG-N", get("EG-U", number=5))
    assert code == 200
    assert not {key["key_ID"] for key in outward} & {key["key_ID"] for key in body["keys"]}
    request = post("EG-N", ids(*(key["key_ID"] for key in body["keys"])))
    assert site_u.call(get_key_with_key_ids, "EG-U", request) == (200, body)


def test_6_4_extensions_of_key_ids_are_read_over(site_u: Site, site_n: Site) -> None:
    [key] = taken(site_u)
    body = {
        "key_IDs": [{"key_ID": key["key_ID"], "key_ID_extension": {"abc_x": 1}}],
        "key_IDs_extension": {"abc_y": [2]},
    }
    assert site_n.call(get_key_with_key_ids, "EG-N", post("EG-U", body)) == (200, {"keys": [key]})


def test_decision_upper_case_key_id(site_u: Site, site_n: Site) -> None:
    [key] = taken(site_u)
    request = get("EG-U", key_ID=key["key_ID"].upper())
    assert site_n.call(get_key_with_key_ids, "EG-N", request) == (200, {"keys": [key]})


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
        pytest.param("EG-N", "EG-U", None, 400, None, id="body null"),
        pytest.param("EG-N", "EG-U", {"key_IDs": None}, 400, None, id="Table 12 key_IDs null"),
        pytest.param("EG-N", "EG-U", {"key_IDs": [{}]}, 400, None, id="Table 12 key_ID required"),
        pytest.param("EG-N", "EG-U", {"key_IDs": [None]}, 400, None, id="Table 12 element null"),
        pytest.param(
            "EG-N", "EG-U", {"key_ids": [{"key_ID": KNOWN}]}, 400, None, id="Table 12 key_ids"
        ),
        pytest.param(
            "EG-N", "EG-U", {"key_IDs": [{"key_id": KNOWN}]}, 400, None, id="Table 12 key_id"
        ),
        pytest.param("EG-N", "EG-U", ids(None), 400, None, id="Table 12 key_ID null"),
        pytest.param("EG-N", "EG-U", ids(""), 400, None, id="Table 12 key_ID empty"),
        pytest.param(
            "EG-N", "EG-U", ids(KNOWN + " "), 400, None, id="Table 12 key_ID with a blank"
        ),
        pytest.param("EG-N", "EG-U", ids("urn:uuid:" + ANY_ID), 400, None, id="Table 12 urn"),
        pytest.param(
            "EG-N", "EG-U", ids(ANY_ID.replace("-", "")), 400, None, id="Table 12 no dashes"
        ),
        pytest.param(
            "EG-N",
            "EG-U",
            ids("0" * 8 + "-0000-0000-0000-" + "0" * 12),
            400,
            NOT_FOUND,
            id="6.4 nil UUID",
        ),
        pytest.param(
            "EG-N",
            "EG-U",
            {"key_IDs": [{"key_ID": KNOWN, "key_ID_extension": 1}]},
            400,
            None,
            id="Table 12 key_ID_extension no object",
        ),
        pytest.param(
            "EG-N",
            "EG-U",
            {**ids(KNOWN), "key_IDs_extension": []},
            400,
            None,
            id="Table 12 key_IDs_extension no object",
        ),
        pytest.param("", "EG-U", ids(KNOWN), 401, None, id="5.4 nobody"),
        pytest.param("eg-n", "EG-U", ids(KNOWN), 401, None, id="5.4 SAE IDs are case-sensitive"),
        pytest.param("EG-N", "", ids(KNOWN), 400, NOT_FOUND, id="decision: empty master"),
        pytest.param(
            "EG-N", "EG-N", ids(KNOWN), 400, NOT_FOUND, id="decision: the slave as master"
        ),
    ],
)
def test_dec_keys_refuses_and_consumes_nothing(
    site_u: Site,
    site_n: Site,
    *,
    caller: str,
    master: str,
    body: object,
    code: int,
    message: str | None,
) -> None:
    [key] = taken(site_u)
    sent = json.dumps(body).replace(KNOWN, key["key_ID"])
    answered, refusal = site_n.call(
        get_key_with_key_ids, caller, Request("POST", master, body=sent.encode())
    )
    assert answered == code
    assert message is None or refusal["message"] == message
    assert key["key"] not in json.dumps(refusal)
    good = site_n.call(get_key_with_key_ids, "EG-N", get("EG-U", key_ID=key["key_ID"]))
    assert good == (200, {"keys": [key]})


def test_5_4_the_master_at_its_own_kme(site_u: Site) -> None:
    [key] = taken(site_u)
    for named in ("EG-U", "EG-N"):
        request = get(named, key_ID=key["key_ID"])
        assert site_u.call(get_key_with_key_ids, "EG-U", request)[0] == 401


def test_5_4_others_are_unauthorised_also_after_delivery(site_u: Site, site_n: Site) -> None:
    [key] = taken(site_u)
    request = get("EG-U", key_ID=key["key_ID"])
    assert site_n.call(get_key_with_key_ids, "EG-N", request)[0] == 200
    assert site_n.call(get_key_with_key_ids, "EH-N", request)[0] == 401


@pytest.mark.parametrize(
    "query",
    [
        pytest.param((("key_ID", f"{ANY_ID},{ANY_ID}"),), id="6.4 GET with a list"),
        pytest.param((("key_IDs", ANY_ID),), id="6.4 GET with the name of the array"),
        pytest.param((("key_ID", ANY_ID), ("extension", "1")), id="6.4 GET with an extension"),
        pytest.param((), id="6.4 GET without key_ID"),
        pytest.param((("key_ID", ANY_ID), ("key_ID", ANY_ID)), id="6.4 GET with two"),
        pytest.param((("key_ID", ANY_ID), ("number", "1")), id="6.4 GET with more"),
        pytest.param((("key_id", ANY_ID),), id="6.4 GET misspelt"),
        pytest.param((("key_ID", ""),), id="6.4 GET with an empty one"),
    ],
)
def test_dec_keys_get_takes_exactly_one_key_id(site_n: Site, query: Any) -> None:
    code, body = site_n.call(get_key_with_key_ids, "EG-N", Request("GET", "EG-U", query))
    assert code == 400
    assert "bad request format" in body["message"]


def test_5_4_wrong_size_or_place_in_a_key_id_is_not_found(site_u: Site, site_n: Site) -> None:
    """A key_ID with any one hexadecimal digit changed names no key, and costs none."""
    [key] = taken(site_u)
    name = key["key_ID"]
    for at, digit in enumerate(name):
        if digit == "-":
            continue
        forged = f"{name[:at]}{int(digit, 16) ^ 1:x}{name[at + 1 :]}"
        answer = site_n.call(get_key_with_key_ids, "EG-N", get("EG-U", key_ID=forged))
        assert answer == (400, {"message": NOT_FOUND}), forged
    good = site_n.call(get_key_with_key_ids, "EG-N", get("EG-U", key_ID=name))
    assert good == (200, {"keys": [key]})


def test_decision_an_expired_key_is_not_found(tmp_path: Path, site_u: Site) -> None:
    site_n = make_site(tmp_path, "N")
    end = NOW + timedelta(hours=1)
    for site in (site_u, site_n):
        site.ledger.add_block(2, MATERIAL[::-1], "expires", NOW, expires=end)
    while (key := taken(site_u)[0])["key_ID"][:4] != "0002":  # see kms.key_id
        pass
    assert site_n.ledger.expire(end) > 0
    fetch = get("EG-U", key_ID=key["key_ID"])
    late = site_n.at(end).call(get_key_with_key_ids, "EG-N", fetch)
    assert late == (400, {"message": NOT_FOUND})


def test_a_pair_only_the_other_kme_knows_is_not_served(site_u: Site, site_n: Site) -> None:
    [(name, _)] = site_u.ledger.take("EX-U", "EG-N", 256, 1, NOW)
    code, body = site_n.call(get_key_with_key_ids, "EG-N", get("EX-U", key_ID=name))
    assert (code, body) == (400, {"message": NOT_FOUND})
