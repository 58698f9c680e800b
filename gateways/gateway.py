"""An encryption gateway: `python -m gateways.gateway CONFIG.json`.

A thin shell: one loop that waits for the TUN device, the UDP socket, the KMS and the next timer,
and hands everything to a `Tunnel`. Prints `LISTENING` when packets can arrive and `READY` when the
first pair of SAs is in use both ways; SIGTERM ends it. The log on standard error has one line an
event: monotonic clock in ns, event, key=value; never a key.

One process carries both directions. A process for each was measured beside it, on two cores that also ran the
traffic's ends: a fifth to a third more CPU time, 150 µs more round trip, no more throughput.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import json
import os
import resource
import secrets
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields
from ipaddress import IPv4Address
from pathlib import Path
from types import FrameType
from typing import Any

from gateways.config import GatewayConfig, load_config
from gateways.constant_rate import ConstantRate
from gateways.encapsulation import NON_ESP_MARKER, Encapsulation, inner_mtu
from gateways.events import (
    Entered,
    Established,
    Event,
    Failed,
    FetchKey,
    FetchKeyById,
    Held,
    InstallInbound,
    InstallOutbound,
    PolicyUsed,
    RetireOutbound,
    SendControl,
)
from gateways.export import append_private, check_writable, esp_sa_record, write_status
from gateways.fast import vnet
from gateways.fast.core import Core
from gateways.fast.inbound import Inbound
from gateways.fast.outbound import Outbound
from gateways.fast.wire import Wire, udp_socket
from gateways.ike.endpoint import IkeEndpoint
from gateways.keysource import EtsiKeySource, Fetched, KeyFetcher, KeySource, WrongKeys
from gateways.metrics import StatusServer
from gateways.mtu import MIN_IPV6_MTU, PathMtu
from gateways.raw import RawWire, raw_socket
from gateways.suites import AES_128_GCM, SUITES
from gateways.timer import Timer
from gateways.tun import open_tun
from gateways.tunnel import Tunnel
from gateways.watch import Watch
from topo.errors import InputError, NetworkError, QntnError

_PR_SET_DUMPABLE = 4
_PR_SET_TIMERSLACK = 29
_HISTORY_KEPT = 1000
_WAKE_OCTETS = 4096
_READS_BETWEEN_SLOTS = 4
"""System calls in a direction until a constant rate's next slot is looked for, whatever the load."""
_CALM_NS = 100_000
"""About as long as they take: so long before a slot nothing is begun."""
_SWITCH_INTERVAL_S = 0.0005
"""As long as packets wait for a thread that talks to the KMS or tells the status; Python's own is 5 ms."""
_SHORTEST_GAP_NS, _LONGEST_GAP_NS = 10_000_000, 1_000_000_000
"""Between two times that rules and routes are put back: ever longer while somebody takes them as fast."""
_LONGEST_WAIT_S = 86400.0
"""Of epoll, which counts its milliseconds in 31 bits."""


def log(event: str, **values: object) -> None:
    """Write one structured line to standard error."""
    pairs = (f"{name}={_one_word(str(value))}" for name, value in values.items())
    print(time.monotonic_ns(), event, *pairs, file=sys.stderr, flush=True)


def _one_word(text: str) -> str:
    return text if text.isprintable() and " " not in text else json.dumps(text)


class Gateway:
    """One running gateway; `run` returns on SIGTERM.

    `keys` is where its keys come from. With `offloads` it takes and gives super-packets wherever the kernel can; on
    emulated links, which must see every packet by itself, without. The constant-rate mode has none either.
    """

    def __init__(self, config: GatewayConfig, keys: KeySource, *, offloads: bool = False) -> None:
        self._config = config
        self._offloads = offloads and config.constant_rate_bps is None
        endpoint = IkeEndpoint(config.ike(), secrets.token_bytes)
        self._tunnel = Tunnel(endpoint, config.selectors(), config.window)
        self._constant: ConstantRate | None = None
        if config.constant_rate_bps is not None:
            self._constant = ConstantRate(
                self._tunnel,
                config.constant_rate_bps,
                config.path_mtu,
                config.payload_octets,
                encapsulation=config.encapsulation,
            )
        self._metrics: StatusServer | None = None
        if config.fault == "wrong-key":
            log("fault", kind="wrong-key", note="every key of this gateway is wrong in one bit")
            keys = WrongKeys(keys)
        self._keys = keys
        self._ready = False
        self._restored_ns, self._gap_ns = 0, _SHORTEST_GAP_NS
        self._restore_at_ns: int | None = None
        self._stopping = False
        self._suite = AES_128_GCM
        longest = max(
            (SUITES[name] for name in config.suites),
            key=lambda suite: suite.esp_octets(MIN_IPV6_MTU),
        )
        ipv6 = any(prefix.version == 6 for prefix in config.remote)
        self._path = PathMtu(
            config.path_mtu, longest, config.encapsulation, MIN_IPV6_MTU if ipv6 else 0
        )
        self._history: deque[dict[str, object]] = deque(maxlen=_HISTORY_KEPT)

    def run(self) -> None:
        """Carry packets until SIGTERM or SIGINT. Raises `QntnError` if the network fails."""
        config = self._config
        for key, path in (("status", config.status), ("esp_sa", config.esp_sa)):
            if path is not None:
                check_writable(key, path)
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
            offloads = self._offloads
            self._tun = open_tun(
                config.tun_name,
                config.tun_addresses,
                config.tun_mtu,
                config.local,
                config.remote,
                offloads=offloads,
            )
            stack.callback(self._tun.close)
            self._watch = Watch(self._tun.index)
            stack.callback(self._watch.close)
            udp = stack.enter_context(
                udp_socket(config.outer_local, config.outer_peer, config.port)
            )
            self._wire = wire = self._open_wire(udp, stack)
            core: Core = self._constant or self._tunnel
            self._outbound = Outbound(self._tun.fd, wire, core, config.tun_mtu)
            self._inbound = Inbound(
                self._tun.fd, wire, core, merge=offloads, merge_udp=self._tun.uso
            )
            if self._constant is not None:
                self._outbound.reads = self._inbound.reads = _READS_BETWEEN_SLOTS
            self._timer = Timer()
            stack.callback(self._timer.close)
            if config.metrics_port is not None:
                self._metrics = StatusServer(config.metrics_port, self._wake)
                stack.callback(self._metrics.close)
            log(
                "offloads", tso=self._tun.tso, uso=self._tun.uso, segment=wire.segment, gro=wire.gro
            )
            stack.callback(self._write_status)
            self._restore()
            self._announce("LISTENING")
            log("policy", gateway=config.name, policy=config.policy, keying=config.keying)
            for name in config.suites:
                log("suite", gateway=config.name, name=name, library=SUITES[name].library)
            stack.callback(self._farewell)
            self._tunnel.start(time.monotonic_ns())
            self._carry_out()
            gc.freeze()  # what has been made so far lives as long as we do: no use in looking it through again
            self._loop()

    def _open_wire(self, udp: socket.socket, stack: ExitStack) -> Wire:
        config = self._config
        if config.encapsulation is Encapsulation.UDP:
            return Wire(udp, offloads=self._offloads)
        raw = stack.enter_context(raw_socket(config.outer_local, config.outer_peer))
        wire = RawWire(raw, udp)
        stack.callback(wire.close)
        return wire

    def _loop(self) -> None:
        tun, wire = self._tun.fd, self._wire.fileno()
        with select.epoll() as poll:
            for fd in (
                tun,
                wire,
                self._wake_out.fileno(),
                self._watch.fileno(),
                self._timer.fileno(),
            ):
                poll.register(fd, select.EPOLLIN)
            blocked = False
            deadline_ns = self._deadline_ns()
            while not self._stopping:
                timeout_s = None
                if deadline_ns is not None:
                    left_ns = max(0, deadline_ns - time.monotonic_ns())
                    timeout_s = min(left_ns / 1e9, _LONGEST_WAIT_S)
                ready = poll.poll(timeout_s)
                now_ns = time.monotonic_ns()
                for fd, what in ready:
                    self._take(fd, what, now_ns)
                if blocked != self._wire.blocked:  # what comes from inside waits in the device
                    blocked = not blocked
                    poll.modify(tun, 0 if blocked else select.EPOLLIN)
                    poll.modify(wire, select.EPOLLIN | (select.EPOLLOUT if blocked else 0))
                changed = self._attend(deadline_ns is not None and deadline_ns <= now_ns, now_ns)
                if (
                    self._constant is not None
                ):  # after that: no payload before the answer that installs its SA
                    self._keep_rate(self._constant)
                    changed |= self._carry_out()
                if changed:
                    deadline_ns = self._deadline_ns()

    def _take(self, fd: int, what: int, now_ns: int) -> None:
        """Do what a descriptor is ready for."""
        if fd == self._wire.fileno():
            if what & select.EPOLLOUT:
                self._wire.flush()
            self._inbound.carry(now_ns)
        elif fd == self._tun.fd:
            if not self._slot_is_near(now_ns):
                self._from_inside(now_ns)
        elif fd == self._wake_out.fileno():
            self._from_kms()
        elif fd == self._watch.fileno() and self._watch.concerned():
            self._restore_at_ns = max(now_ns, self._restored_ns + self._gap_ns)

    def _attend(self, due: bool, now_ns: int) -> bool:
        """Do what is to be done besides carrying packets; whether the next deadline may be another now."""
        if due:
            self._tunnel.tick(now_ns)
            if self._path.tick(now_ns):
                self._fit()
        if self._wire.path_mtu is not None:
            self._path_changed(self._wire.path_mtu)
            due = True
        if self._inbound.control:
            self._inbound.control = False
            due = True
        if self._restore_at_ns is not None:
            if self._restore_at_ns <= now_ns:
                calm = now_ns - self._restored_ns > 8 * self._gap_ns
                self._gap_ns = _SHORTEST_GAP_NS if calm else min(2 * self._gap_ns, _LONGEST_GAP_NS)
                self._restore_at_ns, self._restored_ns = None, now_ns
                self._restore()
            due = True
        return self._carry_out() or due

    def _slot_is_near(self, now_ns: int) -> bool:
        """Whether what comes from inside has to wait, so that a payload of the constant rate is not late."""
        if self._constant is None:
            return False
        slot_ns = self._constant.next_slot_ns(now_ns)
        return slot_ns is not None and slot_ns - time.monotonic_ns() < _CALM_NS

    def _keep_rate(self, constant: ConstantRate) -> None:
        """Send the slot that is due, let out what has come, and wait for the next slot."""
        self._timer.clear()
        now_ns = time.monotonic_ns()
        datagram = constant.slot(now_ns)
        if datagram is not None:
            self._wire.send(datagram, len(datagram))
        for packet in constant.arrived():
            try:
                os.writev(self._tun.fd, (vnet.PLAIN, packet))
            except OSError as error:
                self._wire.errors[f"tun_{errno.errorcode.get(error.errno or 0, 'error')}"] += 1
        self._timer.set(constant.next_slot_ns(now_ns))

    def _deadline_ns(self) -> int | None:
        ends_ns = (
            self._tunnel.next_deadline_ns(),
            self._path.next_deadline_ns(),
            self._restore_at_ns,
        )
        return min((at for at in ends_ns if at is not None), default=None)

    def _farewell(self) -> None:
        """Tell the peer that this end goes, so that it need not find out."""
        self._tunnel.stop(time.monotonic_ns())
        self._carry_out()

    def _from_inside(self, now_ns: int) -> None:
        try:
            self._outbound.carry(now_ns)
        except OSError as error:
            raise NetworkError(f"TUN device {self._config.tun_name}: {error.strerror}") from None

    def _from_kms(self) -> None:
        try:
            self._wake_out.recv(_WAKE_OCTETS)
        except BlockingIOError:
            return
        self._inbound.control = True
        if self._metrics is not None:
            self._metrics.answer(self._status)
        for result in self._fetcher.results():
            now_ns = time.monotonic_ns()
            if isinstance(result, Fetched):
                self._tunnel.key_fetched(result.exchange, result.key_id, result.key, now_ns)
            else:
                self._tunnel.key_refused(result.exchange, result.reason, now_ns)

    def _path_changed(self, path_mtu: int) -> None:
        """The kernel knows a smaller MTU of the path: from now on the senders inside are told of it."""
        self._wire.path_mtu = None
        if self._path.report(path_mtu, time.monotonic_ns()):
            self._fit()

    def _fit(self) -> None:
        """Let no packet enter that would not fit the path with the suite in use."""
        mtu = inner_mtu(self._path.outer, self._suite, self._config.encapsulation)
        if mtu != self._outbound.mtu:
            log("mtu", gateway=self._config.name, outer=self._path.outer, inner=mtu)
            self._tun.set_mtu(mtu)
            self._outbound.mtu = mtu
        if self._constant is not None:
            self._constant.fit(self._path.outer, time.monotonic_ns())

    def _restore(self) -> None:
        """Put back what others took of the rules, addresses and routes; without them protected packets are dropped."""
        for complaint in self._tun.restore():
            self._wire.errors["routes"] += 1
            log("routes", gateway=self._config.name, complaint=complaint)

    def _carry_out(self) -> bool:
        """Carry out what the tunnel asks for; whether there was anything."""
        events = self._tunnel.events()
        for event in events:
            match event:
                case SendControl(message):
                    self._wire.send_control(NON_ESP_MARKER + message)
                    continue
                case FetchKey() | FetchKeyById():
                    self._fetcher.submit(event)
                case InstallInbound():
                    self._export(self._config.outer_peer, self._config.outer_local, event)
                case InstallOutbound():
                    self._suite = event.keys.suite
                    self._fit()
                    self._export(self._config.outer_local, self._config.outer_peer, event)
                case Established():
                    if not self._ready:
                        self._ready = True
                        self._announce("READY")
                    self._write_status()
            self._tell(event)
        return bool(events)

    def _export(
        self, source: IPv4Address, destination: IPv4Address, sa: InstallInbound | InstallOutbound
    ) -> None:
        if self._config.esp_sa is not None:
            record = esp_sa_record(source, destination, sa.spi, sa.keys)
            with self._surviving("esp_sa"):
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
        if isinstance(event, Entered | Established | RetireOutbound | Held | PolicyUsed | Failed):
            self._history.append(
                {"ns": time.monotonic_ns(), "event": type(event).__name__} | values
            )

    def _announce(self, word: str) -> None:
        print(word, flush=True)
        log(word, gateway=self._config.name)

    def _write_status(self) -> None:
        if self._config.status is not None:
            with self._surviving("status"):
                write_status(self._config.status, self._status())

    @contextmanager
    def _surviving(self, key: str) -> Iterator[None]:
        """Log and count that a file cannot be written any more, as on a full disk: the packets go on."""
        try:
            yield
        except InputError as error:
            self._wire.errors[f"{key}_not_written"] += 1
            log("not-written", key=key, reason=error)

    def _status(self) -> dict[str, Any]:
        """Counters, ready for JSON; no key material."""
        return {
            "name": self._config.name,
            "role": self._config.role,
            "fault": self._config.fault,
            **self._tunnel.status(),
            "constant_rate": self._constant.status() if self._constant else {},
            "errors": dict(self._wire.errors),
            "state_changes": list(self._history),
        }

    def _wake(self) -> None:
        # Full: a wake-up is already on its way. Closed: the gateway is going, nobody need wake.
        with suppress(OSError):
            self._wake_in.send(b"k")

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True


def harden() -> None:
    """Keep keys out of core dumps and other processes' sight; make timers exact to 1 ns, and threads give way soon."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
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
        path = Path(arguments[0])
        config = load_config(path)
        client = config.kms.client(path)
        harden()
        offloads = config.fast == "auto"
        source = EtsiKeySource(client, config.peer_sae, config.kms.key_bits)
        Gateway(config, source, offloads=offloads).run()
    except QntnError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
