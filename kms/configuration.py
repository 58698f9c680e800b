"""What one KMS site is told at start: a JSON file, checked, then never changed."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic import model_validator as checked

from kms.key_id import MAX_KEY_BYTES
from kms.ledger_store import Site
from topo.errors import InputError


class SaePair(BaseModel):
    """Two SAEs that may share keys: `local` is served by this KME, `remote` by the other one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    local: str = Field(min_length=1)
    remote: str = Field(min_length=1)


class KmsConfiguration(BaseModel):
    """One KMS site. Relative paths in a file are taken from the file's own folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kme_id: str = Field(min_length=1)
    peer_kme_id: str = Field(min_length=1)
    site: Site
    """Which half of every block this site's masters draw from; must match the ledger."""
    listen_host: str
    listen_port: int = Field(ge=0, le=65535)
    """TCP port; 0 lets the system choose (the choice is logged)."""
    ca_path: Path
    """PEM: the authority that signs this site's SAE certificates."""
    certificate_path: Path
    key_path: Path
    ledger_path: Path
    sae_pairs: tuple[SaePair, ...]
    default_key_size_bits: int = 256
    min_key_size_bits: int = 64
    max_key_size_bits: int = 1024
    max_key_per_request: int = Field(default=128, ge=1)
    max_key_count: int = Field(default=100_000, ge=1)
    """The most that `status` reports as stored, in keys of the default size."""

    @field_validator("ca_path", "certificate_path", "key_path", "ledger_path")
    @classmethod
    def _from_folder(cls, path: Path, info: ValidationInfo) -> Path:
        folder: Path | None = (info.context or {}).get("folder")
        return path if folder is None else folder / path

    @field_validator("default_key_size_bits", "min_key_size_bits", "max_key_size_bits")
    @classmethod
    def _whole_bytes(cls, bits: int) -> int:
        if bits % 8 or not 8 <= bits <= 8 * MAX_KEY_BYTES:
            raise ValueError(f"a key has a multiple of 8 bits, 8 to {8 * MAX_KEY_BYTES}")
        return bits

    @checked(mode="after")
    def _sizes_in_order(self) -> Self:
        if not self.min_key_size_bits <= self.default_key_size_bits <= self.max_key_size_bits:
            raise ValueError("key sizes: min ≤ default ≤ max")
        return self

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """The configuration in the JSON file `path`; `InputError` names the file and the key."""
        path = Path(path)
        try:
            text = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error
        try:
            return cls.model_validate_json(text, context={"folder": path.absolute().parent})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            raise InputError(f"{path}: {key or 'whole file'}: {first['msg']}") from error

    def is_local(self, sae_id: str) -> bool:
        return any(pair.local == sae_id for pair in self.sae_pairs)

    def is_remote(self, sae_id: str) -> bool:
        return any(pair.remote == sae_id for pair in self.sae_pairs)

    def may_share(self, local: str, remote: str) -> bool:
        return SaePair(local=local, remote=remote) in self.sae_pairs
