"""An encryption gateway: `python -m gateways.gateway CONFIG.json`.

A thin shell: one loop that waits for the TUN device, the UDP socket, the KMS and the next timer,
and hands everything to a `Tunnel`. Prints `LISTENING` when packets can arrive and `READY` when the
first pair of SAs is in use both ways; SIGTERM ends it. The log on standard error has one line an
event: monotonic clock in ns, event, key=value; never a key.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import secrets
import select
import signal
import socket
import sys
import time
from collections import Counter, deque
from contextlib import ExitStack, suppress
from dataclasses import fields
from ipaddress import IPv4Address
from pathlib import Path
from types import FrameType
from typing import Any

from gateways.config import GatewayConfig, load_config
from gateways.control import (
    Entered,
    Established,
    Event,
    Failed,
    FetchKey,
    FetchKeyById,
    Held,
    InstallInbound,
    InstallOutbound,
    RetireOutbound,
    SendControl,
)
from gateways.encapsulation import NON_ESP_MARKER
from gateways.export import append_private, esp_sa_record, write_status
from gateways.initiator import Initiator
from gateways.keysource import EtsiKeySource, Fetched, KeyFetcher, KeySource, WrongKeys
from gateways.responder import Responder
from gateways.tun import open_tun
from gateways.tunnel import Tunnel
from kms.client import Kms014Client
from topo.errors import InputError, NetworkError, QntnError

_BURST_PACKETS = 64
"""Packets taken from one side before the other has its turn."""
_MAX_PACKET_OCTETS = 65536
_BUFFER_OCTETS = 4 * 2**20
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_IP_MTU_DISCOVER = 10
_IP_PMTUDISC_DO = 2
_PR_SET_DUMPABLE = 4
_PR_SET_TIMERSLACK = 29
_HISTORY_KEPT = 1000
_PATH_ERRORS = {
    errno.EMSGSIZE,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENOBUFS,
}
"""What a send may say of a network that is not (yet) as it should be: the packet is lost."""


def log(event: str, **values: object) -> None:
    """Write one structured line to standard error."""
    pairs = (f"{name}={_one_word(str(value))}" for name, value in values.items())
    print(time.monotonic_ns(), event, *pairs, file=sys.stderr, flush=True)


def _one_word(text: str) -> str:
    return text if text.isprintable() and " " not in text else json.dumps(text)


class Gateway:
    """One running gateway. `keys` is where its keys come from; `run` returns on SIGTERM."""

    def __init__(self, config: GatewayConfig, keys: KeySource) -> None:
        self._config = config
        kind = Initiator if config.role == "initiator" else Responder
        endpoint = kind(config.control(), config.codec(), secrets.token_bytes)
        self._tunnel = Tunnel(endpoint, config.selectors(), config.window)
        if config.fault == "wrong-key":
            log("fault", kind="wrong-key", note="every key of this gateway is wrong in one bit")
            keys = WrongKeys(keys)
        self._keys = keys
        self._ready = False
        self._stopping = False
        self._errors: Counter[str] = Counter()
        self._history: deque[dict[str, object]] = deque(maxlen=_HISTORY_KEPT)

    def run(self) -> None:
        """Carry packets until SIGTERM or SIGINT. Raises `QntnError` if the network fails."""
        config = self._config
        with ExitStack() as stack:
            self._wake_in, self._wake_out = socket.socketpair()
            for end in (self._wake_in, self._wake_out):
                stack.enter_context(end)
                end.setblocking(False)
            for number in (signal.SIGTERM, signal.SIGINT):
                stack.callback(signal.signal, number, signal.signal(number, self._stop))
            wake_fd = self._wake_in.fileno()
            previous_fd = signal.set_wakeup_fd(wake_fd, warn_on_full_buffer=False)
            stack.callback(signal.set_wakeup_fd, previous_fd)
            self._fetcher = KeyFetcher(self._keys, self._wake)
            stack.callback(self._fetcher.close)
            # First of all, so that from here on nothing protected leaves in the clear.
            self._tun = open_tun(config.tun_name, config.tun_address, config.tun_mtu, config.remote)
            stack.callback(os.close, self._tun)
            self._socket = stack.enter_context(_udp_socket(config))
            stack.callback(self._write_status)
            self._announce("LISTENING")
            self._tunnel.start(time.monotonic_ns())
            self._carry_out()
            self._loop()

    def _loop(self) -> None:
        sources: list[Any] = [self._tun, self._socket, self._wake_out]
        while not self._stopping:
            deadline_ns = self._tunnel.next_deadline_ns()
            timeout_s = None
            if deadline_ns is not None:
                timeout_s = max(0, deadline_ns - time.monotonic_ns()) / 1e9
            readable, _, _ = select.select(sources, [], [], timeout_s)
            if self._socket in readable:
                self._from_outside()
            if self._tun in readable:
                self._from_inside()
            if self._wake_out in readable:
                self._from_kms()
            now_ns = time.monotonic_ns()
            if deadline_ns is not None and deadline_ns <= now_ns:
                self._tunnel.tick(now_ns)
            self._carry_out()

    def _from_inside(self) -> None:
        now_ns = time.monotonic_ns()
        for _ in range(_BURST_PACKETS):
            try:
                packet = os.read(self._tun, _MAX_PACKET_OCTETS)
            except BlockingIOError:
                return
            except OSError as error:
                raise NetworkError(
                    f"TUN device {self._config.tun_name}: {error.strerror}"
                ) from None
            datagram = self._tunnel.from_inside(packet, now_ns)
            if datagram is not None:
                self._send(datagram)

    def _from_outside(self) -> None:
        now_ns = time.monotonic_ns()
        for _ in range(_BURST_PACKETS):
            try:
                datagram = self._socket.recv(_MAX_PACKET_OCTETS)
            except BlockingIOError:
                return
            except ConnectionRefusedError:  # an ICMP message: the peer is not up (yet)
                self._errors["peer_refused"] += 1
                continue
            packet = self._tunnel.from_outside(datagram, now_ns)
            if packet is not None:
                self._deliver(packet)

    def _from_kms(self) -> None:
        try:
            self._wake_out.recv(_MAX_PACKET_OCTETS)
        except BlockingIOError:
            return
        for result in self._fetcher.results():
            now_ns = time.monotonic_ns()
            if isinstance(result, Fetched):
                self._tunnel.key_fetched(result.exchange, result.key_id, result.key, now_ns)
            else:
                self._tunnel.key_refused(result.exchange, result.reason, now_ns)

    def _send(self, datagram: bytes) -> None:
        for _ in range(2):
            try:
                self._socket.send(datagram)
                return
            except ConnectionRefusedError:  # about an earlier datagram; this one was not sent
                self._errors["peer_refused"] += 1
            except BlockingIOError:
                self._errors["send_buffer_full"] += 1
                return
            except OSError as error:
                if error.errno not in _PATH_ERRORS:
                    raise NetworkError(f"sending to the peer: {error.strerror}") from None
                self._errors[errno.errorcode[error.errno]] += 1
                return

    def _deliver(self, packet: bytes) -> None:
        try:
            os.write(self._tun, packet)
        except OSError as error:
            # The device is down, or the kernel finds fault with the packet: that packet is lost.
            self._errors[f"tun_{errno.errorcode.get(error.errno or 0, 'error')}"] += 1

    def _carry_out(self) -> None:
        for event in self._tunnel.events():
            match event:
                case SendControl(message):
                    self._send(NON_ESP_MARKER + message)
                    continue
                case FetchKey() | FetchKeyById():
                    self._fetcher.submit(event)
                case InstallInbound():
                    self._export(self._config.outer_peer, self._config.outer_local, event)
                case InstallOutbound():
                    self._export(self._config.outer_local, self._config.outer_peer, event)
                case Established():
                    if not self._ready:
                        self._ready = True
                        self._announce("READY")
                    self._write_status()
            self._tell(event)

    def _export(
        self, source: IPv4Address, destination: IPv4Address, sa: InstallInbound | InstallOutbound
    ) -> None:
        if self._config.esp_sa is not None:
            record = esp_sa_record(source, destination, sa.spi, sa.keys)
            append_private(self._config.esp_sa, record)
            log("SESSION-KEY-EXPORTED", spi=f"{sa.spi:#010x}", path=self._config.esp_sa)

    def _tell(self, event: Event) -> None:
        """Log an event, and keep it if it changes what the gateway can do."""
        values = {
            field.name: f"{value:#010x}" if field.name.startswith("spi") else value
            for field in fields(event)
            if isinstance(value := getattr(event, field.name), str | int)
        }
        log(type(event).__name__, gateway=self._config.name, **values)
        if isinstance(event, Entered | Established | RetireOutbound | Held | Failed):
            self._history.append(
                {"ns": time.monotonic_ns(), "event": type(event).__name__} | values
            )

    def _announce(self, word: str) -> None:
        print(word, flush=True)
        log(word, gateway=self._config.name)

    def _write_status(self) -> None:
        if self._config.status is not None:
            write_status(
                self._config.status,
                {
                    "name": self._config.name,
                    "role": self._config.role,
                    "fault": self._config.fault,
                    **self._tunnel.status(),
                    "errors": dict(self._errors),
                    "state_changes": list(self._history),
                },
            )

    def _wake(self) -> None:
        # Full: a wake-up is already on its way. Closed: the gateway is going, nobody need wake.
        with suppress(OSError):
            self._wake_in.send(b"k")

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True


def _udp_socket(config: GatewayConfig) -> socket.socket:
    """UDP between the two gateways only, never fragmented (DF), with room for bursts."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        udp.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER_OCTETS)
        udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_OCTETS)
        udp.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
        udp.bind((str(config.outer_local), config.port))
        udp.connect((str(config.outer_peer), config.port))
    except OSError as error:
        udp.close()
        local, peer = config.outer_local, config.outer_peer
        raise NetworkError(f"UDP {local} to {peer}, {config.port}: {error.strerror}") from None
    udp.setblocking(False)
    return udp


def harden() -> None:
    """Keep keys out of core dumps and other processes' sight; make timers exact to 1 ns."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for option, value in ((_PR_SET_DUMPABLE, 0), (_PR_SET_TIMERSLACK, 1)):
        if prctl(option, value, 0, 0, 0):
            raise NetworkError(f"prctl({option}, {value}): {os.strerror(ctypes.get_errno())}")


def main(arguments: list[str]) -> int:
    """Run the gateway of a configuration file; the process's exit code."""
    try:
        if len(arguments) != 1:
            raise InputError("usage: python -m gateways.gateway CONFIG.json")
        config = load_config(Path(arguments[0]))
        kms = config.kms
        client = Kms014Client(
            kms.base_url, kms.ca, kms.cert, kms.key, kme_id=kms.kme_id, timeout_s=kms.timeout_s
        )
        harden()
        Gateway(config, EtsiKeySource(client, config.peer_sae, kms.key_bits)).run()
    except QntnError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
