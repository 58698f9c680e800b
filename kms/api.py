"""The three methods of ETSI GS QKD 014 V1.1.1 as pure functions over a KME's state.

(KME, caller, request, now) → answer. No socket, no clock, no certificate: the caller's SAE ID has
been authenticated, `now` is given. An answer is the HTTP code with the JSON body; only 200, 400,
401 and 503 exist (Tables 4, 6, 8). A refusal consumes nothing. Where the document leaves a choice:

======================================================  ==========================================
not enough keys                                         503, nothing consumed
an SAE over its rate limit                              503, nothing consumed
caller is no SAE of this KME, or not paired with slave  401 with an Error body (clients read JSON)
slave SAE that nobody here is paired with               400
dec_keys of a key issued to others, or by the caller    401 (clause 5.4 says shall)
dec_keys with the wrong master in the path              400, "… not found on KME"
known and unknown key_IDs in one request                400, the known ones stay
one key_ID twice in one request                         400
letter case of a key_ID                                 either is read, lower case is answered
a key that has expired                                  400, "… not found on KME"
additional slave SAEs                                   of the same two KMEs; each fetches once
extensions                                              `kms.extensions`; others if optional ignored
NaN, Infinity, one name twice in an object              400: RFC 8259 knows neither, a name is unique
======================================================  ==========================================
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from math import isfinite
from typing import Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from kms import extensions
from kms.configuration import KmsConfiguration
from kms.key_id import is_uuid
from kms.kme import Kme
from kms.messages import Error, JsonObject, Key, KeyContainer, KeyIds, KeyRequest, Status
from kms.places import KeyNotFound, PoolExhausted
from topo.errors import KmsRefused, LedgerError

Answer = tuple[int, JsonObject]

# The texts that clause 6 fixes word for word.
SIZE_NOT_BYTES = "size shall be a multiple of 8"
EXTENSION_UNSUPPORTED = "not all extension_mandatory parameters are supported"
EXTENSION_UNMET = "not all extension_mandatory request options could be met"
KEYS_NOT_FOUND = "one or more keys specified are not found on KME"

_Body = TypeVar("_Body", bound=BaseModel)


@dataclass(frozen=True)
class Request:
    """An HTTP request as the API sees it; the path's `sae_id` and `query` are percent-decoded."""

    method: Literal["GET", "POST"]
    sae_id: str
    query: Sequence[tuple[str, str]] = ()
    body: bytes = b""


Handler = Callable[[Kme, str, Request, datetime], Answer]


class Refusal(KmsRefused):
    """Raised inside this module; becomes the answer."""

    def __init__(self, status: int, message: str, details: list[JsonObject] | None = None) -> None:
        self.body = Error(message=message, details=details).to_json()
        super().__init__(status, message)


def _answering(handler: Handler) -> Handler:
    """A refused request, or one the store fails, is answered too."""

    @wraps(handler)
    def answer(kme: Kme, caller: str, request: Request, now: datetime) -> Answer:
        try:
            _admit(kme, caller, now)
            return handler(kme, caller, request, now)
        except Refusal as refusal:
            return refusal.status, refusal.body
        except LedgerError:  # what failed is the operator's business, not the caller's
            return 503, Error(message="key store failure").to_json()

    return answer


@_answering
def get_status(kme: Kme, caller: str, request: Request, now: datetime) -> Answer:
    """Get status (clause 5.2): what the caller can get to share with the slave in the path."""
    configuration = kme.configuration
    _authorise_master(configuration, caller, request.sae_id)
    stored = kme.ledger.stored_key_count(configuration.default_key_size_bits)
    outlook = kme.forecast(now)
    status = Status(
        source_KME_ID=configuration.kme_id,
        target_KME_ID=configuration.peer_kme_id,
        master_SAE_ID=caller,
        slave_SAE_ID=request.sae_id,
        key_size=configuration.default_key_size_bits,
        stored_key_count=min(stored, configuration.max_key_count),
        max_key_count=configuration.max_key_count,
        max_key_per_request=configuration.max_key_per_request,
        max_key_size=configuration.max_key_size_bits,
        min_key_size=configuration.min_key_size_bits,
        max_SAE_ID_count=configuration.max_additional_slaves,
        status_extension={
            "qntn_pool_bits": int(outlook.level_bits),
            "qntn_rate_bits_per_s": outlook.rate_bits_per_s,
            "qntn_exhausted_in_s": _finite(outlook.exhausted_in_s),
            "qntn_low_water": configuration.low_water_bits > 0 and outlook.is_low,
        },
    )
    return 200, status.to_json()


@_answering
def get_key(kme: Kme, caller: str, request: Request, now: datetime) -> Answer:
    """Get key (clause 5.3): fresh keys for the caller to share with the slave in the path."""
    configuration = kme.configuration
    _authorise_master(configuration, caller, request.sae_id)
    wanted = (
        _read(KeyRequest, request.body) if request.method == "POST" else _key_query(request.query)
    )
    order = _order(configuration, wanted)
    slaves = _slaves(configuration, caller, request.sae_id, wanted.additional_slave_SAE_IDs or ())
    _check_key_bits(kme, caller, order.bits, now)
    keys = _take(kme, caller, slaves, order, now)
    kme.allowances.key_bits.spend(caller, order.bits, now)
    kme.consumption.record(order.bits, now.timestamp())
    kme.watch(refused=False, now=now)
    return 200, _container(keys)


@_answering
def get_key_with_key_ids(kme: Kme, caller: str, request: Request, now: datetime) -> Answer:
    """Get key with key IDs (clause 5.4): keys that the path's master shares with the caller."""
    configuration = kme.configuration
    if not configuration.is_local(caller):
        raise Refusal(401, "unauthorised")
    master = request.sae_id
    if request.method == "POST":
        key_ids = [item.key_ID for item in _read(KeyIds, request.body).key_IDs]
    else:
        key_ids = [_one_key_id(request.query)]
    _check_key_ids(configuration, key_ids)

    verdicts = {_verdict(kme, key_id, master, caller) for key_id in key_ids}
    if 401 in verdicts:  # clause 5.4: also if only one of the keys is another's
        raise Refusal(401, "unauthorised")
    if 400 in verdicts:
        raise Refusal(400, KEYS_NOT_FOUND)
    others = configuration.slaves_of(master) - {caller}
    try:
        keys = kme.ledger.fetch(
            master, caller, key_ids, now, others=sorted(others), most=configuration.max_slaves
        )
    except KeyNotFound as error:
        raise Refusal(400, KEYS_NOT_FOUND) from error
    return 200, _container(keys)


def _verdict(kme: Kme, key_id: str, master: str, caller: str) -> Literal[200, 400, 401]:
    """401 if the key was issued to others than `caller`, 400 if not by `master` or not at all.

    A key's recipients do not change when it is delivered, so a stranger learns nothing of that.
    """
    configuration = kme.configuration
    for issuer in (master, *(each for each in configuration.masters() if each != master)):
        slaves = kme.ledger.recipients(
            key_id, issuer, configuration.slaves_of(issuer), configuration.max_slaves
        )
        if slaves:
            if caller not in slaves:
                return 401
            return 200 if issuer == master else 400
    return 400


def _admit(kme: Kme, caller: str, now: datetime) -> None:
    """Charge one request; only SAEs of this KME are remembered, others are refused anyway."""
    if not kme.configuration.is_local(caller):
        return
    wait_s = kme.allowances.requests.wait_s(caller, 1, now)
    if wait_s > 0:
        raise _slow_down("requests", wait_s)
    kme.allowances.requests.spend(caller, 1, now)


def _authorise_master(configuration: KmsConfiguration, caller: str, slave: str) -> None:
    if not configuration.is_local(caller):
        raise Refusal(401, "unauthorised")
    if not configuration.is_remote(slave):
        raise Refusal(400, "slave SAE is not known to this KME")
    if not configuration.may_share(caller, slave):
        raise Refusal(401, "unauthorised")


def _slaves(
    configuration: KmsConfiguration, caller: str, slave: str, additional: Sequence[str]
) -> tuple[str, ...]:
    """All slave SAEs of a request (Table 10); each must be one that the caller may share with."""
    if len(additional) > configuration.max_additional_slaves:
        raise Refusal(
            400,
            f"additional_slave_SAE_IDs shall be at most {configuration.max_additional_slaves}"
            " (max_SAE_ID_count)",
        )
    slaves = (slave, *additional)
    if len(set(slaves)) < len(slaves):
        raise Refusal(400, "a slave SAE is given more than once")
    for each in additional:
        _authorise_master(configuration, caller, each)
    return slaves


def _take(
    kme: Kme, master: str, slaves: Sequence[str], order: _Order, now: datetime
) -> list[tuple[str, bytes]]:
    """Take the keys, as fresh as asked: what is mandatory must be, what is optional may be."""
    for added_after in order.freshness(now):
        try:
            return kme.ledger.take(
                master, slaves, order.size_bits, order.number, now, added_after=added_after
            )
        except PoolExhausted:
            continue
    if order.must.max_age_s is not None:
        stored = kme.ledger.stored_key_count(order.size_bits)
        if stored >= order.number:
            raise Refusal(400, EXTENSION_UNMET, [{"extension_mandatory_unmet": extensions.MAX_AGE}])
    kme.watch(refused=True, now=now)
    raise Refusal(503, "not enough keys")


def _check_key_bits(kme: Kme, caller: str, bits: int, now: datetime) -> None:
    if kme.allowances.key_bits.never(bits):
        raise Refusal(400, "more key in one request than the rate limit of this SAE ever allows")
    wait_s = kme.allowances.key_bits.wait_s(caller, bits, now)
    if wait_s > 0:
        raise _slow_down("key", wait_s)


def _slow_down(what: str, wait_s: float) -> Refusal:
    details: list[JsonObject] = [{"qntn_retry_after_s": round(wait_s, 3)}]
    return Refusal(503, f"{what} rate limit of this SAE reached", details)


def _finite(seconds: float) -> float | None:
    return seconds if isfinite(seconds) else None


@dataclass(frozen=True)
class _Order:
    """A Get key request that this KME can serve if it has the keys."""

    number: int
    size_bits: int
    must: extensions.Wishes
    would: extensions.Wishes

    @property
    def bits(self) -> int:
        return self.number * self.size_bits

    def freshness(self, now: datetime) -> list[datetime | None]:
        """Since when a block must have been in store, in the order to be tried; None is ever."""
        must, would = self.must.added_after(now), self.would.added_after(now)
        strictest = max((at for at in (must, would) if at is not None), default=None)
        return list(dict.fromkeys((strictest, must)))


def _order(configuration: KmsConfiguration, wanted: KeyRequest) -> _Order:
    """Read a request's parameters; refuse what this KME cannot meet (Tables 9 and 10)."""
    number = 1 if wanted.number is None else wanted.number
    size_bits = configuration.default_key_size_bits if wanted.size is None else wanted.size
    if not 1 <= number <= configuration.max_key_per_request:
        raise Refusal(400, f"number shall be from 1 to {configuration.max_key_per_request}")
    if size_bits % 8:
        raise Refusal(400, SIZE_NOT_BYTES)
    smallest, largest = configuration.min_key_size_bits, configuration.max_key_size_bits
    if not smallest <= size_bits <= largest:
        raise Refusal(400, f"size shall be from {smallest} to {largest}")
    unknown = extensions.unknown(wanted.extension_mandatory)
    if unknown:
        details = [{"extension_mandatory_unsupported": name} for name in unknown]
        raise Refusal(400, EXTENSION_UNSUPPORTED, details)
    for name in extensions.malformed(wanted.extension_mandatory):
        raise Refusal(400, f"bad request format: {name} is not what it takes")
    return _Order(
        number,
        size_bits,
        extensions.wishes(wanted.extension_mandatory),
        extensions.wishes(wanted.extension_optional),
    )


def _check_key_ids(configuration: KmsConfiguration, key_ids: Sequence[str]) -> None:
    if not 1 <= len(key_ids) <= configuration.max_key_per_request:
        raise Refusal(400, f"key_IDs shall be from 1 to {configuration.max_key_per_request}")
    if not all(is_uuid(key_id) for key_id in key_ids):
        raise Refusal(400, "bad request format: key_ID shall be a UUID")
    if len({key_id.lower() for key_id in key_ids}) < len(key_ids):
        raise Refusal(400, "a key_ID is given more than once")


def _read(model: type[_Body], body: bytes) -> _Body:
    try:
        content = json.loads(
            body.decode(), object_pairs_hook=_unique_names, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"bad request format: body: no JSON: {error}") from error
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise Refusal(400, f"bad request format: {where}: {first['msg']}") from error


def _unique_names(pairs: list[tuple[str, Any]]) -> JsonObject:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name is given more than once")
    return content


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _key_query(query: Sequence[tuple[str, str]]) -> KeyRequest:
    """GET enc_keys: `number` and `size`, each at most once, nothing else (clause 6.2)."""
    values = _single_values(query, ("number", "size"))
    for name, text in values.items():
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise Refusal(400, f"bad request format: {name} shall be an integer")
    return KeyRequest.model_validate({name: int(text) for name, text in values.items()})


def _one_key_id(query: Sequence[tuple[str, str]]) -> str:
    """GET dec_keys: exactly one `key_ID`, nothing else (clause 6.4)."""
    values = _single_values(query, ("key_ID",))
    if "key_ID" not in values:
        raise Refusal(400, "bad request format: key_ID is missing")
    return values["key_ID"]


def _single_values(query: Sequence[tuple[str, str]], allowed: Sequence[str]) -> dict[str, str]:
    for name, times in Counter(name for name, _ in query).items():
        if name not in allowed:
            raise Refusal(400, f"bad request format: only {' and '.join(allowed)} can be in a GET")
        if times > 1:
            raise Refusal(400, f"bad request format: {name} is given more than once")
    return dict(query)


def _container(keys: list[tuple[str, bytes]]) -> JsonObject:
    """The answer with these keys; takes them out of the list."""
    count, size_bytes = len(keys), max(len(key) for _, key in keys)
    body = KeyContainer(keys=[Key(key_ID=key_id, key=key) for key_id, key in keys]).to_json()
    keys.clear()
    _overwrite_freed(count, size_bytes)
    return body


def _overwrite_freed(count: int, size_bytes: int) -> None:
    """Fill the memory that `count` objects of `bytes` had until now, as far as CPython lets us.

    They cannot be overwritten themselves; but what is made next, of the same size, lies there.
    """
    _ = [bytes(size_bytes) for _ in range(4 * count)]
