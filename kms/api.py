"""The three methods of ETSI GS QKD 014 V1.1.1 as pure functions over a ledger.

(ledger, configuration, caller, request, now) → answer. No socket, no clock, no certificate: the
caller's SAE ID has been authenticated, `now` is given. An answer is the HTTP code with the JSON
body; only 200, 400, 401 and 503 exist (Tables 4, 6, 8). A refusal consumes nothing. Where the
document leaves a choice:

======================================================  ==========================================
not enough keys                                         503, nothing consumed
caller is no SAE of this KME, or not paired with slave  401 with an Error body (clients read JSON)
slave SAE that nobody here is paired with               400
dec_keys of a key issued to others, or by the caller    401 (clause 5.4 says shall)
dec_keys with the wrong master in the path              400, "… not found on KME"
known and unknown key_IDs in one request                400, the known ones stay
one key_ID twice in one request                         400
letter case of a key_ID                                 either is read, lower case is answered
additional slave SAEs                                   none (max_SAE_ID_count is 0), so 400
extensions                                              none; optional ones are ignored
======================================================  ==========================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError

from kms.configuration import KmsConfiguration
from kms.key_id import is_uuid
from kms.ledger import KeyNotFound, Ledger, PoolExhausted
from kms.messages import Error, JsonObject, Key, KeyContainer, KeyIds, KeyRequest, Status
from topo.errors import KmsRefused, LedgerError

Answer = tuple[int, JsonObject]

# The texts that clause 6 fixes word for word.
SIZE_NOT_BYTES = "size shall be a multiple of 8"
EXTENSION_UNSUPPORTED = "not all extension_mandatory parameters are supported"
KEYS_NOT_FOUND = "one or more keys specified are not found on KME"

_Body = TypeVar("_Body", bound=BaseModel)


@dataclass(frozen=True)
class Request:
    """An HTTP request as the API sees it; the path's `sae_id` and `query` are percent-decoded."""

    method: Literal["GET", "POST"]
    sae_id: str
    query: Sequence[tuple[str, str]] = ()
    body: bytes = b""


Handler = Callable[[Ledger, KmsConfiguration, str, Request, datetime], Answer]


class Refusal(KmsRefused):
    """Raised inside this module; becomes the answer."""

    def __init__(self, status: int, message: str, details: list[JsonObject] | None = None) -> None:
        self.body = Error(message=message, details=details).to_json()
        super().__init__(status, message)


def _answering(handler: Handler) -> Handler:
    """A refused request, or one the store fails, is answered too."""

    @wraps(handler)
    def answer(
        ledger: Ledger,
        configuration: KmsConfiguration,
        caller: str,
        request: Request,
        now: datetime,
    ) -> Answer:
        try:
            return handler(ledger, configuration, caller, request, now)
        except Refusal as refusal:
            return refusal.status, refusal.body
        except LedgerError:  # what failed is the operator's business, not the caller's
            return 503, Error(message="key store failure").to_json()

    return answer


@_answering
def get_status(
    ledger: Ledger, configuration: KmsConfiguration, caller: str, request: Request, now: datetime
) -> Answer:
    """Get status (clause 5.2): what the caller can get to share with the slave in the path."""
    _authorise_master(configuration, caller, request.sae_id)
    stored = ledger.stored_key_count(configuration.default_key_size_bits)
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
        max_SAE_ID_count=0,
    )
    return 200, status.to_json()


@_answering
def get_key(
    ledger: Ledger, configuration: KmsConfiguration, caller: str, request: Request, now: datetime
) -> Answer:
    """Get key (clause 5.3): fresh keys for the caller to share with the slave in the path."""
    _authorise_master(configuration, caller, request.sae_id)
    wanted = (
        _read(KeyRequest, request.body) if request.method == "POST" else _key_query(request.query)
    )
    number = 1 if wanted.number is None else wanted.number
    size_bits = configuration.default_key_size_bits if wanted.size is None else wanted.size
    _check_request(configuration, wanted, number, size_bits)
    try:
        keys = ledger.take(caller, request.sae_id, size_bits, number, now)
    except PoolExhausted as error:
        raise Refusal(503, "not enough keys") from error
    return 200, _container(keys)


@_answering
def get_key_with_key_ids(
    ledger: Ledger, configuration: KmsConfiguration, caller: str, request: Request, now: datetime
) -> Answer:
    """Get key with key IDs (clause 5.4): keys that the path's master shares with the caller."""
    if not configuration.is_local(caller):
        raise Refusal(401, "unauthorised")
    master = request.sae_id
    if request.method == "POST":
        key_ids = [item.key_ID for item in _read(KeyIds, request.body).key_IDs]
    else:
        key_ids = [_one_key_id(request.query)]
    _check_key_ids(configuration, key_ids)

    pairs = [(pair.remote, pair.local) for pair in configuration.sae_pairs]
    pairs += [(slave, its_master) for its_master, slave in pairs]
    owners = [ledger.owner(key_id, pairs) for key_id in key_ids]
    if any(owner is not None and owner[1] != caller for owner in owners):
        raise Refusal(401, "unauthorised")
    if any(owner != (master, caller) for owner in owners):
        raise Refusal(400, KEYS_NOT_FOUND)
    try:
        keys = ledger.fetch(master, caller, key_ids, now)
    except KeyNotFound as error:
        raise Refusal(400, KEYS_NOT_FOUND) from error
    return 200, _container(keys)


def _authorise_master(configuration: KmsConfiguration, caller: str, slave: str) -> None:
    if not configuration.is_local(caller):
        raise Refusal(401, "unauthorised")
    if not configuration.is_remote(slave):
        raise Refusal(400, "slave SAE is not known to this KME")
    if not configuration.may_share(caller, slave):
        raise Refusal(401, "unauthorised")


def _check_request(
    configuration: KmsConfiguration, wanted: KeyRequest, number: int, size_bits: int
) -> None:
    """Refuse what this KME cannot meet, in the order of Table 10."""
    if not 1 <= number <= configuration.max_key_per_request:
        raise Refusal(400, f"number shall be from 1 to {configuration.max_key_per_request}")
    if size_bits % 8:
        raise Refusal(400, SIZE_NOT_BYTES)
    smallest, largest = configuration.min_key_size_bits, configuration.max_key_size_bits
    if not smallest <= size_bits <= largest:
        raise Refusal(400, f"size shall be from {smallest} to {largest}")
    if wanted.additional_slave_SAE_IDs:
        raise Refusal(400, "additional_slave_SAE_IDs are not supported: max_SAE_ID_count is 0")
    unsupported = [name for extension in wanted.extension_mandatory or () for name in extension]
    if wanted.extension_mandatory:
        details = [{"extension_mandatory_unsupported": name} for name in unsupported]
        raise Refusal(400, EXTENSION_UNSUPPORTED, details or None)


def _check_key_ids(configuration: KmsConfiguration, key_ids: Sequence[str]) -> None:
    if not 1 <= len(key_ids) <= configuration.max_key_per_request:
        raise Refusal(400, f"key_IDs shall be from 1 to {configuration.max_key_per_request}")
    if not all(is_uuid(key_id) for key_id in key_ids):
        raise Refusal(400, "bad request format: key_ID shall be a UUID")
    if len({key_id.lower() for key_id in key_ids}) < len(key_ids):
        raise Refusal(400, "a key_ID is given more than once")


def _read(model: type[_Body], body: bytes) -> _Body:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise Refusal(400, f"bad request format: {where}: {first['msg']}") from error


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


def _container(keys: Sequence[tuple[str, bytes]]) -> JsonObject:
    return KeyContainer(keys=[Key(key_ID=key_id, key=key) for key_id, key in keys]).to_json()
