"""What one KMS site is told at start: a JSON file, checked, then never changed."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic import model_validator as checked

from kms.key_id import MAX_KEY_BYTES, half_groups
from kms.ledger_store import Site
from kms.limits import SaeLimits
from kms.vault import read_secret
from topo.errors import InputError

_BYTES_PER_KEY_ID = 128
"""More than `{"key_ID": "…"}, ` takes, however it is written."""

_ANY_ADDRESS = ("", "0.0.0.0", "::")
_MOST_HALF_GROUPS = 500
"""What one key_ID that names nobody may cost to look up: 128 of them in a request, some 50 ms."""


def most_additional_slaves(partners: int) -> int:
    """The largest `max_additional_slaves`, up to the default, for an SAE with so many partners."""
    default = 3
    return next(
        more
        for more in range(default, -1, -1)
        if half_groups(partners, 1 + more) <= _MOST_HALF_GROUPS
    )


def _in_folder(path: Path, info: ValidationInfo) -> Path:
    """A relative path in a file starts at the file's own folder."""
    folder: Path | None = (info.context or {}).get("folder")
    return path if folder is None else folder / path


class SaePair(BaseModel):
    """Two SAEs that may share keys: `local` is served by this KME, `remote` by the other one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    local: str = Field(min_length=1)
    remote: str = Field(min_length=1)


class ConnectionLimits(BaseModel):
    """What a KME bears of connections, all of them or one; times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    connections: int = Field(default=1024, ge=2)
    """Open at once. One more, and the one that has been without a request for longest is closed."""
    connections_per_address: int = Field(default=256, ge=1)
    """The same, of one IP address."""
    handshake_s: float = Field(default=10.0, gt=0)
    """For the whole TLS handshake."""
    idle_s: float = Field(default=60.0, gt=0)
    """Without a request, or with one whose head does not come to its end."""
    body_s: float = Field(default=10.0, gt=0)
    """For a request's whole body."""
    head_line_bytes: int = Field(default=8190, ge=512)
    """The request line, and each header."""
    headers: int = Field(default=64, ge=16)
    body_bytes: int = Field(default=64 * 1024, ge=1024)


class PeerConfiguration(BaseModel):
    """Where the other site's KME is, and how the two know each other (`kms.peer`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    """https://HOST:PORT"""
    ca_path: Path
    """PEM: the other site's authority."""
    certificate_path: Path
    """Our KME's own certificate as a client, of our authority."""
    key_path: Path
    reconcile_every_s: float = Field(default=300.0, gt=0)
    hear_first: bool = False
    """After each start, give out no key before the other site has been heard: only it can tell that
    all files of this site were put back to an old state."""

    @field_validator("ca_path", "certificate_path", "key_path")
    @classmethod
    def _from_folder(cls, path: Path, info: ValidationInfo) -> Path:
        return _in_folder(path, info)


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
    max_additional_slaves: int = Field(default=3, ge=0, le=7)
    """max_SAE_ID_count: how many slave SAEs besides the first may get the same key; the same at both
    sites. The more SAEs one shares keys with, the fewer of them can at once (`half_groups`)."""
    peer: PeerConfiguration | None = None
    """The other site's KME, to reconcile the ledgers with; None leaves that to others."""
    crl_path: Path | None = None
    """PEM: certificates that are revoked; read again whenever the file is replaced."""
    ledger_secret_path: Path | None = None
    """The file of the secret that opens the ledger; None is the one beside the ledger."""
    limits: ConnectionLimits = ConnectionLimits()
    sae_limits: SaeLimits = SaeLimits()
    low_water_bits: int = Field(default=0, ge=0)
    """Below so much free key for this site's masters an alarm sounds; 0 is never."""
    rate_over_s: float = Field(default=600.0, gt=0)
    """Time constant of the measured consumption rate, which the forecast of exhaustion rests on."""
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """Where Prometheus finds /metrics, over plain HTTP; None is nowhere."""

    @field_validator(
        "ca_path", "certificate_path", "key_path", "ledger_path", "crl_path", "ledger_secret_path"
    )
    @classmethod
    def _from_folder(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return None if path is None else _in_folder(path, info)

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

    @checked(mode="after")
    def _groups_are_found_soon(self) -> Self:
        for master, slaves in self._slaves.items():
            if half_groups(len(slaves), self.max_slaves) > _MOST_HALF_GROUPS:
                raise ValueError(
                    f"max_additional_slaves: {self.max_additional_slaves} is too many where {master}"
                    f" shares keys with {len(slaves)} SAEs"
                )
        return self

    @checked(mode="after")
    def _bodies_hold_the_largest_request(self) -> Self:
        if self.limits.body_bytes < _BYTES_PER_KEY_ID * self.max_key_per_request:
            raise ValueError(
                f"limits.body_bytes: {self.max_key_per_request} key_IDs in one request need "
                f"{_BYTES_PER_KEY_ID * self.max_key_per_request} bytes"
            )
        return self

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """The configuration in the JSON file `path`; `InputError` names the file and the key."""
        path = Path(path)
        try:
            return cls.parse(path.read_bytes(), path)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error

    @classmethod
    def parse(cls, text: bytes | str, path: Path) -> Self:
        """The configuration in a text that is, or will be, the file `path`."""
        try:
            return cls.model_validate_json(text, context={"folder": path.absolute().parent})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            raise InputError(f"{path}: {key or 'whole file'}: {first['msg']}") from error

    def ledger_secret(self) -> bytes | None:
        """What opens the ledger; None leaves it to the ledger to find it."""
        return None if self.ledger_secret_path is None else read_secret(self.ledger_secret_path)

    @property
    def local_url(self) -> str:
        """Where this KME is reached from its own machine."""
        host = "localhost" if self.listen_host in _ANY_ADDRESS else self.listen_host
        return f"https://{f'[{host}]' if ':' in host else host}:{self.listen_port}"

    def is_local(self, sae_id: str) -> bool:
        return any(pair.local == sae_id for pair in self.sae_pairs)

    def is_remote(self, sae_id: str) -> bool:
        return any(pair.remote == sae_id for pair in self.sae_pairs)

    @property
    def max_slaves(self) -> int:
        """How many SAEs may get the same key."""
        return 1 + self.max_additional_slaves

    def masters(self) -> list[str]:
        """All SAEs that can be the master of a key that this KME has to do with."""
        return [*self._slaves]

    def slaves_of(self, master: str) -> frozenset[str]:
        """All SAEs, here or there, that this master may share keys with."""
        return self._slaves.get(master, frozenset())

    @cached_property
    def _slaves(self) -> dict[str, frozenset[str]]:
        slaves: dict[str, set[str]] = {}
        for pair in self.sae_pairs:
            slaves.setdefault(pair.local, set()).add(pair.remote)
            slaves.setdefault(pair.remote, set()).add(pair.local)
        return {master: frozenset(those) for master, those in slaves.items()}

    def may_share(self, local: str, remote: str) -> bool:
        return SaePair(local=local, remote=remote) in self.sae_pairs
