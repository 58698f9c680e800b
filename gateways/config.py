"""The configuration of one gateway: a JSON file, checked before anything is touched."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Annotated, Literal, Self

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from gateways.aggfrag import MIN_PAYLOAD_OCTETS
from gateways.config_checks import (
    DeviceAddress,
    DeviceAddress6,
    HostAddress,
    Name,
    Prefix,
    check_addresses,
    wrong_files,
)
from gateways.encapsulation import PORT, Encapsulation, inner_mtu
from gateways.esp import MAX_SEQUENCE
from gateways.events import Policy
from gateways.ike.auth import Certified, Credentials, Psk, SigningKey
from gateways.ike.config import IkeConfig, Keying
from gateways.ike.numbers import GROUP_X25519
from gateways.ike.payloads import MAX_SELECTORS
from gateways.keysource import KEY_BITS
from gateways.mtu import MIN_IPV6_MTU
from gateways.selectors import TrafficSelectors
from gateways.suites import AES_128_GCM, SUITES
from kms.client import Kms014Client
from topo.errors import InputError, ScenarioError

_NS = 10**9
_MAX_S = 10**9
"""The longest of all times, s: thirty years, which the kernel's timers and 64 bits of nanoseconds can still hold."""
_MAX_OCTETS = 2**63 - 1
_RESPONDER_PATIENCE = 1.2
"""How much longer a responder's soft lifetime is: it rekeys only when the initiator does not."""

Seconds = Annotated[float, Field(gt=0, le=_MAX_S)]
AnswerSeconds = Annotated[float, Field(ge=0.01, le=_MAX_S)]
"""Of a peer: nearer together, requests are a flood."""
LifetimeSeconds = Annotated[float, Field(ge=0.1, le=_MAX_S)]
"""Of an SA: below this it would be over before it is agreed on."""


class KmsConfig(BaseModel):
    """The gateway's own KMS."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field(description="https://HOST:PORT of the KME beside this gateway")
    ca: Path = Field(description="PEM: the authority that signed the KME's certificate")
    cert: Path = Field(description="PEM: this SAE's certificate")
    key: Path = Field(description="PEM: this SAE's private key")
    kme_id: str = Field(description="KME ID that the KME's certificate must carry")
    key_bits: int = Field(
        KEY_BITS, ge=128, le=4096, multiple_of=8, description="length of the keys asked for, bits"
    )
    timeout_s: float = Field(5.0, gt=0, le=3600, description="longest wait for an answer, s")

    def client(self, path: Path) -> Kms014Client:
        """The way to the KMS. Raises `ScenarioError` naming `path`, the key in it and each file that cannot be used."""
        wrong = wrong_files("kms.", self.ca, self.cert, self.key)
        if wrong:
            raise ScenarioError(path, "", f"{'; '.join(wrong)}; `qntn kms init` makes these files")
        try:
            return Kms014Client(
                self.base_url,
                self.ca,
                self.cert,
                self.key,
                kme_id=self.kme_id,
                timeout_s=self.timeout_s,
            )
        except InputError as error:
            raise ScenarioError(path, "kms", str(error)) from None


class CertificateConfig(BaseModel):
    """Authentication by certificates instead of a pre-shared key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cert: Path = Field(description="PEM: our certificate; its names include own_id")
    key: Path = Field(description="PEM: its private key (ECDSA P-256, Ed25519 or RSA)")
    ca: Path = Field(description="PEM: the authority that signed the peer's certificate")

    def load(self) -> Certified:
        """The certificates and the key. Raises `InputError` naming the file."""
        wrong = wrong_files("certificate.", self.ca, self.cert, self.key)
        if wrong:
            raise InputError(f"{'; '.join(wrong)}; each takes the path of a PEM file")
        key = load_pem_private_key(self.key.read_bytes(), None)
        if not isinstance(key, SigningKey):
            raise InputError(f"certificate.key: {self.key}: not an ECDSA, Ed25519 or RSA key")
        own = load_pem_x509_certificate(self.cert.read_bytes())
        authority = load_pem_x509_certificate(self.ca.read_bytes())
        return Certified(own, key, authority, lambda: datetime.now(UTC))


class GatewayConfig(BaseModel):
    """One end of the tunnel."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = Field(description="this gateway's name in logs and status, e.g. EG-U")
    role: Literal["initiator", "responder"] = Field(description="who begins")
    outer_local: HostAddress = Field(description="address the ESP packets leave from")
    outer_peer: HostAddress = Field(description="address of the other gateway")
    port: int = Field(PORT, gt=0, lt=65536, description="UDP port at both ends (RFC 3948)")
    encapsulation: Encapsulation = Field(
        Encapsulation.UDP,
        description="udp: ESP in UDP; raw: as IP protocol 50, no super-packets. IKE is in UDP. The same at both ends",
    )
    path_mtu: int = Field(1500, ge=576, le=65535, description="MTU of the path outside, octets")
    tun_name: str = Field(
        "qtun0", pattern=r"^[A-Za-z0-9_.-]{1,15}$", description="name of the TUN device"
    )
    tun_address: DeviceAddress = Field(description="address and prefix length of the TUN device")
    tun_address6: DeviceAddress6 | None = Field(
        None, description="IPv6 address and prefix length of the TUN device; null: none"
    )
    local: tuple[Prefix, ...] = Field(
        min_length=1, max_length=MAX_SELECTORS, description="prefixes behind us, IPv4 and IPv6"
    )
    remote: tuple[Prefix, ...] = Field(
        min_length=1,
        max_length=MAX_SELECTORS,
        description="prefixes behind the peer, IPv4 and IPv6",
    )
    psk: str = Field("", repr=False, description="pre-shared key of IKE, hex")
    certificate: CertificateConfig | None = Field(
        None, description="authentication by certificates; null: by psk"
    )
    own_id: Name | None = Field(None, description="our identity in IKE; null: own_sae")
    peer_id: Name | None = Field(None, description="the peer's identity in IKE; null: peer_sae")
    keying: Keying = Field(
        Keying.PPK,
        description="ppk: QKD keys mixed into IKE's; direct: straight into the SAs; none: no QKD",
    )
    suites: tuple[str, ...] = Field(
        (AES_128_GCM.name,),
        min_length=1,
        description=f"ESP suites, best first: {', '.join(SUITES)}",
    )
    pfs: bool = Field(False, description="a key exchange of its own in each child rekey")
    ml_kem: bool = Field(False, description="ML-KEM-768 besides X25519, if the peer can")
    own_sae: Name = Field(description="our SAE ID")
    peer_sae: Name = Field(description="the peer's SAE ID")
    kms: KmsConfig = Field(description="where our keys come from")
    rekey_after_s: LifetimeSeconds = Field(120.0, description="age at which an SA is replaced, s")
    rekey_jitter: float = Field(
        0.1, ge=0, lt=1, description="up to this fraction of a lifetime is cut off at random"
    )
    hard_after_s: LifetimeSeconds | None = Field(
        None, description="age at which `policy` applies, s; null: 1.5 × rekey_after_s"
    )
    soft_packets: int = Field(
        2**31, gt=0, le=MAX_SEQUENCE, description="packets after which an SA is replaced"
    )
    soft_bytes: int = Field(
        2**36, gt=0, le=_MAX_OCTETS, description="octets after which an SA is replaced"
    )
    hard_bytes: int = Field(
        2**37, gt=0, le=_MAX_OCTETS, description="octets after which an SA ends"
    )
    ike_rekey_after_s: LifetimeSeconds = Field(
        3600.0, description="age at which the IKE SA is replaced, s"
    )
    reauth_after_s: LifetimeSeconds | None = Field(
        None,
        description="age at which a whole new IKE SA with a new PPK is made, for a peer without RFC 9867, s",
    )
    dpd_after_s: AnswerSeconds = Field(
        30.0, description="silence after which the peer is asked whether it lives, s"
    )
    attempts: int = Field(
        8, ge=1, le=32, description="transmissions of a request until the peer is given up"
    )
    grace_s: Seconds = Field(5.0, description="life of the old inbound SA after a switch, s")
    retransmit_s: AnswerSeconds = Field(
        1.0, description="first retransmission timeout, s; longer than one round trip"
    )
    policy: Policy = Field(
        Policy.FAIL_CLOSED, description="when an SA ends and no key is to be had"
    )
    window: int = Field(
        1024, ge=64, le=65536, multiple_of=64, description="anti-replay window, packets"
    )
    fast: Literal["auto", "off"] = Field(
        "auto",
        description="super-packets wherever the kernel can; off: every packet by itself, as emulated links need it",
    )
    constant_rate_bps: int | None = Field(
        None,
        ge=1000,
        le=10**11,
        description="constant-rate mode (RFC 9347) at both ends: rate of the outer packets, bit/s; null: off",
    )
    payload_octets: int | None = Field(
        None,
        ge=MIN_PAYLOAD_OCTETS,
        le=65535,
        description="length of a constant-rate payload, octets; null: as the path allows",
    )
    metrics_port: int | None = Field(
        None, gt=0, lt=65536, description="answer /metrics and /status on this port of 127.0.0.1"
    )
    esp_sa: Path | None = Field(None, description="append session keys here, for Wireshark")
    status: Path | None = Field(None, description="write counters here as JSON")
    fault: Literal["wrong-key"] | None = Field(None, description="a fault to test with")

    @field_validator("psk")
    @classmethod
    def _check_psk(cls, value: str) -> str:
        try:
            octets = len(bytes.fromhex(value))
        except ValueError:
            octets = -1
        if value and octets < 16:
            raise ValueError("at least 16 octets in hex, as `openssl rand -hex 32` makes them")
        return value

    @field_validator("esp_sa", "status")
    @classmethod
    def _check_file(cls, value: Path | None) -> Path | None:
        if value is not None and (not value.name or "\0" in str(value)):
            raise ValueError("the path of a file, or null")
        return value

    @field_validator("tun_name")
    @classmethod
    def _check_tun_name(cls, value: str) -> str:
        if value in (".", ".."):
            raise ValueError("no device can have this name; take one like qtun0")
        return value

    @field_validator("suites")
    @classmethod
    def _check_suites(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in SUITES]
        if unknown:
            raise ValueError(f"no suite {unknown[0]}; there are {', '.join(SUITES)}")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if not self.psk and self.certificate is None:
            raise ValueError("psk or certificate is needed")
        if self.hard_bytes <= self.soft_bytes:
            raise ValueError("hard_bytes must be more than soft_bytes")
        if self.hard_after_s is not None and self.hard_after_s <= self.rekey_after_s:
            raise ValueError("hard_after_s must be longer than rekey_after_s")
        if self.outer_peer == self.outer_local:
            raise ValueError("outer_peer is outer_local: it takes the address of the other gateway")
        if self.own_sae == self.peer_sae:
            raise ValueError("own_sae is peer_sae: each end has a name of its own")
        if self.payload_octets is not None and self.constant_rate_bps is None:
            raise ValueError("payload_octets is of the constant-rate mode: set constant_rate_bps")
        if self.esp_sa is not None and self.esp_sa == self.status:
            raise ValueError("esp_sa is status: each takes a file of its own")
        for name, names in (
            ("local", self.local),
            ("remote", self.remote),
            ("suites", self.suites),
        ):
            if len(set(names)) < len(names):
                raise ValueError(f"{name} names something twice")
        outer = (("outer_peer", self.outer_peer), ("outer_local", self.outer_local))
        check_addresses(outer, self.tun_addresses, self.local, self.remote)
        versions = {prefix.version for prefix in self.local}
        if 6 in versions and self.tun_mtu < MIN_IPV6_MTU:
            raise ValueError(
                f"path_mtu leaves {self.tun_mtu} octets inside; IPv6 needs {MIN_IPV6_MTU}"
            )
        return self

    @property
    def tun_addresses(self) -> tuple[IPv4Interface | IPv6Interface, ...]:
        """The addresses of the TUN device."""
        return (self.tun_address, *((self.tun_address6,) if self.tun_address6 else ()))

    @property
    def tun_mtu(self) -> int:
        """MTU of the TUN device, so that no outer packet is longer than `path_mtu`, octets."""
        return min(
            inner_mtu(self.path_mtu, SUITES[name], self.encapsulation) for name in self.suites
        )

    def selectors(self) -> TrafficSelectors:
        """What the tunnel protects."""
        return TrafficSelectors(self.local, self.remote)

    def credentials(self) -> Credentials:
        """How we and the peer prove who we are. Raises `InputError` for certificates that cannot be read."""
        if self.certificate is not None:
            return self.certificate.load()
        return Psk(bytes.fromhex(self.psk))

    def ike(self) -> IkeConfig:
        """IKE's configuration. Raises `InputError` for certificates that cannot be read."""
        begins = self.role == "initiator"
        soft_s = self.rekey_after_s * (1 if begins else _RESPONDER_PATIENCE)
        hard_s = self.hard_after_s or 1.5 * self.rekey_after_s
        reauth_ns = None if self.reauth_after_s is None else round(self.reauth_after_s * _NS)
        return IkeConfig(
            own_id=self.own_id or self.own_sae,
            peer_id=self.peer_id or self.peer_sae,
            credentials=self.credentials(),
            begins=begins,
            own_address=self.outer_local,
            peer_address=self.outer_peer,
            port=self.port,
            force_udp=self.encapsulation is Encapsulation.UDP,
            local=self.local,
            remote=self.remote,
            keying=self.keying,
            policy=self.policy,
            suites=tuple(SUITES[name] for name in self.suites),
            child_groups=(GROUP_X25519,) if self.pfs else (),
            ml_kem=self.ml_kem,
            rekey_after_ns=round(min(soft_s, hard_s) * _NS),
            hard_after_ns=round(hard_s * _NS),
            jitter=self.rekey_jitter,
            ike_rekey_after_ns=round(self.ike_rekey_after_s * _NS),
            reauth_after_ns=reauth_ns,
            grace_ns=round(self.grace_s * _NS),
            soft_packets=self.soft_packets,
            soft_bytes=self.soft_bytes,
            hard_bytes=self.hard_bytes,
            attempts=self.attempts,
            retransmit_ns=round(self.retransmit_s * _NS),
            dpd_after_ns=round(self.dpd_after_s * _NS),
        )


def load_config(path: Path) -> GatewayConfig:
    """The configuration in a JSON file. Raises `ScenarioError` naming the file and the key."""
    try:
        return GatewayConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ScenarioError(path, "", error.strerror or str(error)) from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ScenarioError(path, key, first["msg"].removeprefix("Value error, ")) from None
