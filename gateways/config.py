"""The configuration of one gateway: a JSON file, checked before anything is touched."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gateways.control import ControlConfig, Policy
from gateways.encapsulation import PORT, inner_mtu
from gateways.esp import MAX_SEQUENCE
from gateways.keysource import KEY_BITS
from gateways.messages import ControlCodec, Role
from gateways.selectors import TrafficSelectors
from topo.errors import ScenarioError

_NS = 10**9


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
    timeout_s: float = Field(5.0, gt=0, description="longest wait for an answer, s")


class GatewayConfig(BaseModel):
    """One end of the tunnel."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, description="this gateway's name in logs and status, e.g. EG-U")
    role: Literal["initiator", "responder"] = Field(description="the initiator proposes keys")
    outer_local: IPv4Address = Field(description="address the ESP packets leave from")
    outer_peer: IPv4Address = Field(description="address of the other gateway")
    port: int = Field(PORT, gt=0, lt=65536, description="UDP port at both ends (RFC 3948)")
    path_mtu: int = Field(1500, ge=576, le=65535, description="MTU of the path outside, octets")
    tun_name: str = Field(
        "qtun0", pattern=r"^[A-Za-z0-9_.-]{1,15}$", description="name of the TUN device"
    )
    tun_address: IPv4Interface = Field(description="address and prefix length of the TUN device")
    local: tuple[IPv4Network, ...] = Field(min_length=1, description="prefixes behind us")
    remote: tuple[IPv4Network, ...] = Field(min_length=1, description="prefixes behind the peer")
    psk: str = Field(repr=False, description="pre-shared key of the control messages, hex")
    own_sae: str = Field(min_length=1, max_length=255, description="our SAE ID")
    peer_sae: str = Field(min_length=1, max_length=255, description="the peer's SAE ID")
    kms: KmsConfig = Field(description="where our keys come from")
    rekey_after_s: float = Field(120.0, gt=0, description="age at which an SA is replaced, s")
    hard_after_s: float | None = Field(
        None, gt=0, description="age at which `policy` applies, s; null: 1.5 × rekey_after_s"
    )
    soft_packets: int = Field(
        2**31, gt=0, le=MAX_SEQUENCE, description="packets after which an SA is replaced"
    )
    grace_s: float = Field(5.0, gt=0, description="life of the old inbound SA after a switch, s")
    retransmit_s: float = Field(
        1.0, gt=0, description="first retransmission timeout, s; longer than one round trip"
    )
    policy: Policy = Field(
        Policy.FAIL_CLOSED, description="when an SA ends and no key is to be had"
    )
    window: int = Field(1024, ge=64, multiple_of=64, description="anti-replay window, packets")
    esp_sa: Path | None = Field(None, description="append session keys here, for Wireshark")
    status: Path | None = Field(None, description="write counters here as JSON")
    fault: Literal["wrong-key"] | None = Field(None, description="a fault to test with")

    @field_validator("psk")
    @classmethod
    def _check_psk(cls, value: str) -> str:
        if len(bytes.fromhex(value)) < 16:
            raise ValueError("at least 16 octets")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.hard_after_s is not None and self.hard_after_s <= self.rekey_after_s:
            raise ValueError("hard_after_s must be longer than rekey_after_s")
        if any(self.outer_peer in prefix for prefix in self.remote):
            raise ValueError("remote contains outer_peer: the tunnel would run through itself")
        return self

    @property
    def tun_mtu(self) -> int:
        """MTU of the TUN device, so that no outer packet is longer than `path_mtu`, octets."""
        return inner_mtu(self.path_mtu)

    def selectors(self) -> TrafficSelectors:
        """What the tunnel protects."""
        return TrafficSelectors(self.local, self.remote)

    def control(self) -> ControlConfig:
        """Lifetimes and timers in nanoseconds."""
        hard_after_s = self.hard_after_s or 1.5 * self.rekey_after_s
        return ControlConfig(
            rekey_after_ns=round(self.rekey_after_s * _NS),
            hard_after_ns=round(hard_after_s * _NS),
            grace_ns=round(self.grace_s * _NS),
            retransmit_ns=round(self.retransmit_s * _NS),
            soft_packets=self.soft_packets,
            policy=self.policy,
        )

    def codec(self) -> ControlCodec:
        """How control messages to and from the peer are authenticated."""
        psk = bytes.fromhex(self.psk)
        if self.role == "initiator":
            return ControlCodec(psk, self.own_sae, self.peer_sae, Role.INITIATOR)
        return ControlCodec(psk, self.peer_sae, self.own_sae, Role.RESPONDER)


def load_config(path: Path) -> GatewayConfig:
    """The configuration in a JSON file. Raises `ScenarioError` naming the file and the key."""
    try:
        return GatewayConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ScenarioError(path, "", error.strerror or str(error)) from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ScenarioError(path, key, first["msg"]) from None
