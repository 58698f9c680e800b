"""Get key against ETSI GS QKD 014 V1.1.1, clauses 5.3, 6.2 and 6.3 (Tables 5, 6, 10, 11 and 13)."""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from kms.alarms import AlarmKind
from kms.api import Request, get_key, get_key_with_key_ids, get_status
from tests.etsi_014 import ANY_ID, NOW, Site, get, key_lengths, make_site, post, raw, taken
from topo.errors import LedgerError

MANDATORY = "not all extension_mandatory parameters are supported"
UNMET = "not all extension_mandatory request options could be met"
BYTES = "size shall be a multiple of 8"


@pytest.fixture
def site_u(tmp_path: Path) -> Site:
    return make_site(tmp_path, "U")


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site that only refuses, so one does for all."""
    site = make_site(tmp_path_factory.mktemp("refusing"), "U")
    yield site
    site.ledger.close()


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
        pytest.param(get("EG-N", number=1, size=256), [256], id="6.2 GET, both said"),
        pytest.param(post("EG-N", {"number": 1}), [256], id="Table 10 number alone"),
        pytest.param(post("EG-N", {"number": 16}), [256] * 16, id="Table 9 max_key_per_request"),
        pytest.param(post("EG-N", {"size": 1024}), [1024], id="Table 9 max_key_size"),
        pytest.param(post("EG-N", {"size": 64}), [64], id="Table 9 min_key_size"),
        pytest.param(post("EG-N", {"size": None}), [256], id="Table 10 size null: key_size"),
        pytest.param(
            post("EG-N", {"extension_optional": [{"abc_a": {"b": [1]}}, {"abc_c": None}]}),
            [256],
            id="Table 10 extension values are of any type",
        ),
        pytest.param(
            post("EG-N", {"extension_optional": [{"qntn_max_age_s": "soon"}]}),
            [256],
            id="decision: an optional extension that cannot be read is ignored",
        ),
        pytest.param(raw(b' {\n"number" : 2}\r\n'), [256, 256], id="4 RFC 8259 white space"),
        pytest.param(raw(b'{"\\u006eumber": 2}'), [256, 256], id="4 RFC 8259 escaped names"),
    ],
)
def test_enc_keys_delivers(site_u: Site, request_: Request, expected: list[int]) -> None:
    answer = site_u.call(get_key, "EG-U", request_)
    assert key_lengths(answer) == expected
    assert set(answer[1]) == {"keys"}
    assert all(set(key) == {"key_ID", "key"} for key in answer[1]["keys"])


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
            post("EG-N", {"additional_slave_SAE_IDs": ["EH-N", "a", "b"]}),
            400,
            None,
            id="Table 10 more SAEs than max_SAE_ID_count",
        ),
        *(
            pytest.param(
                "EG-U",
                post("EG-N", {"additional_slave_SAE_IDs": value}),
                400,
                None,
                id=f"Table 10 {why}",
            )
            for value, why in (
                (["EG-N"], "additional slave is the slave of the path"),
                (["EH-N", "EH-N"], "additional slave twice"),
                (["EX-N"], "additional slave unknown"),
                (["EG-U"], "additional slave is the master"),
                ([""], "additional slave empty"),
                ("EH-N", "additional slaves no array"),
                ([1], "additional slave no text"),
                ([None], "additional slave null"),
                ({"EH-N": 1}, "additional slaves an object"),
            )
        ),
        pytest.param(
            "EH-U",
            post("EH-N", {"additional_slave_SAE_IDs": ["EG-N"]}),
            401,
            None,
            id="Table 6 additional slave of another SAE",
        ),
        *(
            pytest.param(
                "EG-U",
                post("EG-N", {"extension_mandatory": value}),
                400,
                text,
                id=f"Table 10 {why}",
            )
            for value, text, why in (
                ([{"abc_a": 1}, {"qntn_max_age_s": 1e6}], MANDATORY, "one of two not supported"),
                ([{"qntn_max_age_s": 1e6, "abc_a": 1}], MANDATORY, "two in one object"),
                ([{"QNTN_max_age_s": 5}], MANDATORY, "names are case-sensitive"),
                ([{"qntn_max_age_s": "5"}], None, "value no number"),
                ([{"qntn_max_age_s": True}], None, "value a bool"),
                ([{"qntn_max_age_s": 0}], None, "value zero"),
                ([{"qntn_max_age_s": -1}], None, "value negative"),
                ([{"qntn_max_age_s": None}], None, "value null"),
                ([{"qntn_max_age_s": 1e99}], None, "value beyond all time"),
                ([None], None, "extension null"),
                ([[]], None, "extension an array"),
                ("abc", None, "extensions no array"),
            )
        ),
        pytest.param("EG-U", post("EG-N", []), 400, None, id="body no object"),
        pytest.param("EG-U", post("EG-N", "x"), 400, None, id="body a string"),
        pytest.param("EG-U", post("EG-N", None), 400, None, id="body null"),
        pytest.param("EG-U", raw(b"\xef\xbb\xbf{}"), 400, None, id="4 body with byte order mark"),
        pytest.param("EG-U", raw("{}".encode("utf-16")), 400, None, id="4 body in UTF-16"),
        pytest.param("EG-U", raw(b"{} {}"), 400, None, id="4 body with a second value"),
        pytest.param("EG-U", raw(b"{'number': 1}"), 400, None, id="4 body with single quotes"),
        pytest.param("EG-U", raw(b'{"number": 1,}'), 400, None, id="4 body with a last comma"),
        pytest.param("EG-U", raw(b'{"number": NaN}'), 400, None, id="4 NaN is no JSON"),
        pytest.param("EG-U", raw(b'{"x": NaN}'), 400, None, id="4 NaN anywhere"),
        pytest.param("EG-U", raw(b'{"x": [-Infinity]}'), 400, None, id="4 Infinity anywhere"),
        pytest.param(
            "EG-U", raw(b'{"number": 1, "number": 2}'), 400, None, id="decision: a name twice"
        ),
        pytest.param(
            "EG-U",
            raw(b'{"extension_optional": [{"x": 1, "\\u0078": 1}]}'),
            400,
            None,
            id="decision: a name twice, written differently",
        ),
        pytest.param("EG-U", raw(b'{"number": 1e0}'), 400, None, id="Table 10 integer: exponent"),
        pytest.param("EG-U", raw(b'{"number": 01}'), 400, None, id="4 leading zero"),
        pytest.param("EG-U", raw(b"number=1"), 400, None, id="4 body a form"),
        pytest.param("EG-U", raw(b"\x00"), 400, None, id="4 body a NUL"),
        pytest.param("EG-U", get("EG-N", number="+1"), 400, None, id="number with a sign"),
        pytest.param("EG-U", get("EG-N", number="1.0"), 400, None, id="number real"),
        pytest.param("EG-U", get("EG-N", number=" 1"), 400, None, id="number with a blank"),
        pytest.param("EG-U", get("EG-N", number="0x1"), 400, None, id="number hexadecimal"),
        pytest.param("EG-U", get("EG-N", Number=1), 400, None, id="6.2 GET misspelt"),
        pytest.param("EG-U", get("EG-N", size="256 "), 400, None, id="size with a blank"),
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
        pytest.param("EH-U", get("EG-N"), 401, None, id="Table 6 slave of another SAE"),
        pytest.param("EX-U", get("EG-N"), 401, None, id="Table 6 stranger"),
        pytest.param("EG-N", get("EG-U"), 401, None, id="Table 6 SAE of the other KME"),
        pytest.param("", get("EG-N"), 401, None, id="Table 6 nobody"),
    ],
)
def test_enc_keys_refuses_and_consumes_nothing(
    untouched: Site, caller: str, request_: Request, code: int, message: str | None
) -> None:
    before = untouched.ledger.counts()
    answered, body = untouched.call(get_key, caller, request_)
    assert answered == code
    assert isinstance(body["message"], str)
    assert message is None or body["message"] == message
    assert untouched.ledger.counts() == before
    if code == 401:
        assert set(body) <= {"message", "details"}


def test_6_2_details_name_the_unsupported_extensions(untouched: Site) -> None:
    request = post("EG-N", {"extension_mandatory": [{"abc_a": 1}, {"abc_b": {"c": 2}}]})
    _, body = untouched.call(get_key, "EG-U", request)
    assert body["details"] == [
        {"extension_mandatory_unsupported": "abc_a"},
        {"extension_mandatory_unsupported": "abc_b"},
    ]


def test_6_3_key_container(site_u: Site) -> None:
    """Table 11: `keys` in lower case, distinct UUIDs, RFC 4648 base64 with padding, distinct keys."""
    _, body = site_u.call(get_key, "EG-U", get("EG-N", number=16, size=200))
    names = [key["key_ID"] for key in body["keys"]]
    assert all(str(uuid.UUID(name)) == name for name in names)
    assert len(set(names)) == 16
    assert all(re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", key["key"]) for key in body["keys"])
    assert len({base64.b64decode(key["key"], validate=True) for key in body["keys"]}) == 16


def test_decision_too_few_keys_is_503_and_consumes_nothing(site_u: Site) -> None:
    stored = site_u.ledger.stored_key_count(256)
    for _ in range(stored // 16):
        site_u.call(get_key, "EG-U", get("EG-N", number=16))
    left = stored % 16
    assert 0 < left < 16
    assert site_u.call(get_key, "EG-U", get("EG-N", number=left + 1))[0] == 503
    assert site_u.ledger.stored_key_count(256) == left
    assert len(site_u.call(get_key, "EG-U", get("EG-N", number=left))[1]["keys"]) == left


def test_k13_exhaustion_and_recovery(site_u: Site) -> None:
    """Drained: 503, nothing consumed, status 0, one alarm; served again after the next block."""
    while site_u.call(get_key, "EG-U", get("EG-N"))[0] == 200:
        pass
    before = site_u.ledger.counts()
    for _ in range(5):
        assert site_u.call(get_key, "EG-U", get("EG-N")) == (503, {"message": "not enough keys"})
    assert site_u.ledger.counts() == before
    assert site_u.call(get_status, "EG-U", get("EG-N"))[1]["stored_key_count"] == 0
    assert site_u.kme.alarms.counts[AlarmKind.EXHAUSTED] == 1
    site_u.ledger.add_block(2, bytes(1000), "the next pass", NOW)
    assert key_lengths(site_u.call(get_key, "EG-U", get("EG-N", number=10))) == [256] * 10


def test_table_6_a_failing_store_is_503_and_says_no_more(
    site_u: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **more: object) -> None:
        raise LedgerError("/secret/path: disk I/O error")

    monkeypatch.setattr(site_u.ledger.stock, "audit", fail)
    code, body = site_u.call(get_key, "EG-U", get("EG-N"))
    assert (code, body) == (503, {"message": "key store failure"})


# --- multicast: additional_slave_SAE_IDs, clause 6.2, Annex B -------------------------------------


def test_6_2_additional_slaves_get_the_same_keys(tmp_path: Path, site_u: Site) -> None:
    site_n = make_site(tmp_path, "N")
    request = post("EG-N", {"number": 2, "additional_slave_SAE_IDs": ["EH-N"]})
    code, body = site_u.call(get_key, "EG-U", request)
    assert code == 200
    names = [{"key_ID": key["key_ID"]} for key in body["keys"]]
    fetch = post("EG-U", {"key_IDs": names})
    for slave in ("EH-N", "EG-N"):
        assert site_n.call(get_key_with_key_ids, slave, fetch) == (200, body)
        refused = site_n.call(get_key_with_key_ids, slave, fetch)
        assert refused == (400, {"message": "one or more keys specified are not found on KME"})
    assert site_n.call(get_key_with_key_ids, "a/b ü", fetch)[0] == 401


def test_6_2_without_additional_slaves_only_the_slave_gets_the_key(
    tmp_path: Path, site_u: Site
) -> None:
    site_n = make_site(tmp_path, "N")
    [key] = taken(site_u)
    fetch = get("EG-U", key_ID=key["key_ID"])
    assert site_n.call(get_key_with_key_ids, "EH-N", fetch)[0] == 401
    assert site_n.call(get_key_with_key_ids, "EG-N", fetch) == (200, {"keys": [key]})


def test_decision_multicast_may_be_off(tmp_path: Path) -> None:
    site = make_site(tmp_path, "U", max_additional_slaves=0)
    request = post("EG-N", {"additional_slave_SAE_IDs": ["EH-N"]})
    assert site.call(get_key, "EG-U", request)[0] == 400
    assert site.call(get_status, "EG-U", get("EG-N"))[1]["max_SAE_ID_count"] == 0


# --- qntn_max_age_s, a mandatory extension that is supported --------------------------------------


@pytest.fixture
def aged(tmp_path: Path) -> Site:
    """A site with a block of ten days' age, one of an hour's, and its clock after them."""
    site = make_site(tmp_path, "U").at(NOW + timedelta(days=10))
    site.ledger.add_block(2, bytes(range(200))[::-1], "fresh", site.now - timedelta(hours=1))
    return site


def with_age(kind: str, *ages_s: float, number: int = 1) -> Request:
    extensions = [{"qntn_max_age_s": age_s} for age_s in ages_s]
    return post("EG-N", {"number": number, kind: extensions})


def block_of(answer: tuple[int, dict[str, list[dict[str, str]]]]) -> set[int]:
    assert answer[0] == 200, answer
    return {int(key["key_ID"][:4], 16) for key in answer[1]["keys"]}  # see kms.key_id


@pytest.mark.parametrize(
    ("request_", "blocks"),
    [
        pytest.param(with_age("extension_mandatory", 7200), {2}, id="mandatory: fresh key"),
        pytest.param(with_age("extension_mandatory", 1e6), {1}, id="mandatory: any will do"),
        pytest.param(with_age("extension_mandatory", 1e6, 7200), {2}, id="twice: the strictest"),
        pytest.param(with_age("extension_optional", 7200), {2}, id="optional: fresh key"),
        pytest.param(with_age("extension_optional", 60), {1}, id="optional: not met, ignored"),
        pytest.param(get("EG-N"), {1}, id="not asked: oldest first"),
    ],
)
def test_max_age_chooses_the_block(aged: Site, request_: Request, blocks: set[int]) -> None:
    assert block_of(aged.call(get_key, "EG-U", request_)) == blocks


@pytest.mark.parametrize(("age_s", "number"), [(60, 1), (7200, 3)])
def test_6_2_supported_but_not_met(aged: Site, age_s: float, number: int) -> None:
    before = aged.ledger.counts()
    request = with_age("extension_mandatory", age_s, number=number)
    code, body = aged.call(get_key, "EG-U", request)
    assert (code, body["message"]) == (400, UNMET)
    assert body["details"] == [{"extension_mandatory_unmet": "qntn_max_age_s"}]
    assert aged.ledger.counts() == before
