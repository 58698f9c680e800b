"""The JSON bodies of ETSI GS QKD 014 V1.1.1, as pydantic models named after its tables.

Requests are read strictly (a JSON integer is an integer, not "3", 3.0 or true); members the
document does not name are ignored, and `null` stands for an absent member. Answers leave absent
members out.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

JsonObject = dict[str, Any]


def _from_base64(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError("not a base64 string")
    try:
        decoded = base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
    if base64.b64encode(decoded).decode() != value:
        raise ValueError("not canonical base64")  # one encoding per value: nothing to tamper with
    return decoded


def _to_base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


Base64 = Annotated[
    bytes,
    BeforeValidator(_from_base64),
    PlainSerializer(_to_base64, return_type=str, when_used="json"),
]
"""Bytes that travel as RFC 4648 base64: standard alphabet, padded, canonical."""


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def to_json(self) -> JsonObject:
        return self.model_dump(mode="json", exclude_none=True)


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", hide_input_in_errors=True)


class Status(_Answer):
    """Table 9. Sizes in bits; `master_SAE_ID` is the caller."""

    source_KME_ID: str
    target_KME_ID: str
    master_SAE_ID: str
    slave_SAE_ID: str
    key_size: int
    stored_key_count: int
    max_key_count: int
    max_key_per_request: int
    max_key_size: int
    min_key_size: int
    max_SAE_ID_count: int
    status_extension: JsonObject | None = None


class KeyRequest(_Request):
    """Table 10: what POST enc_keys asks for. `size` in bits."""

    number: int | None = None
    size: int | None = None
    additional_slave_SAE_IDs: list[str] | None = None
    extension_mandatory: list[JsonObject] | None = None
    extension_optional: list[JsonObject] | None = None


class Key(_Answer):
    """One element of Table 11's `keys`."""

    key_ID: str
    key: Base64 = Field(repr=False)


class KeyContainer(_Answer):
    """Table 11: delivered keys."""

    keys: list[Key]


class KeyId(_Request):
    """One element of Table 12's `key_IDs`."""

    key_ID: str
    key_ID_extension: JsonObject | None = None


class KeyIds(_Request):
    """Table 12: what POST dec_keys asks for."""

    key_IDs: list[KeyId]
    key_IDs_extension: JsonObject | None = None


class Error(_Answer):
    """Table 13."""

    message: str
    details: list[JsonObject] | None = None
