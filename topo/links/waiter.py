"""The waiting process of one emulated hop: `python -m topo.links.waiter CONFIG.json`.

It owns two interfaces of its network namespace and carries Ethernet frames between them. An IPv4
frame waits as its direction's `WaitingLine` says, counted from the kernel's own time stamp of its
arrival; everything else (ARP, neighbour discovery) passes at once and takes no draw.

It writes ``READY`` to standard output when it carries frames, and on SIGTERM its counters to the
status file, exit code 0. Any error is one line on standard error and a non-zero exit code.

Two conditions the network around it must meet, or the process stops and says so: segmentation
offloads are off (one wait for many packets would be a wrong result), and so is transmit checksum
offload (a raw socket reads a checksum that was left to hardware as it is, and passes it on wrong).
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from topo.alarm import Alarm
from topo.errors import InputError, NetworkError, QntnError
from topo.links.delays import Element
from topo.links.waiting import WaitingLine

# Linux's numbers that Python's socket module lacks; they are the same on x86-64 and arm64.
ETH_P_ALL: Final = 0x0003  # linux/if_ether.h
SOL_PACKET: Final = 263  # linux/socket.h
PACKET_ADD_MEMBERSHIP: Final = 1  # linux/if_packet.h, this one and the next five
PACKET_STATISTICS: Final = 6
PACKET_AUXDATA: Final = 8
PACKET_IGNORE_OUTGOING: Final = 23
PACKET_MR_PROMISC: Final = 1
TP_STATUS_CSUMNOTREADY: Final = 1 << 3
SO_SNDBUFFORCE: Final = 32  # asm-generic/socket.h, this one and the next two
SO_RCVBUFFORCE: Final = 33
SO_TIMESTAMPNS: Final = 35

ETHERTYPE_IPV4: Final = b"\x08\x00"
SOCKET_BUFFER_BYTES: Final = 64 * 2**20
LONGEST_FRAME_BYTES: Final = 65536 + 14  # what a segmentation offload could hand over
TIMESPEC: Final = struct.Struct("@qq")
AUXDATA: Final = struct.Struct("@IIIHHHH")  # struct tpacket_auxdata, its status first
ANCILLARY_BYTES: Final = socket.CMSG_SPACE(TIMESPEC.size) + socket.CMSG_SPACE(AUXDATA.size)
BATCH: Final = 64  # frames read from one side before the other side and the clock get their turn


class WaiterConfig(BaseModel):
    """Everything one waiting process is told; its file is JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """The hop's name: with the direction, it picks the random streams."""
    a: str
    """The interface on one side."""
    b: str
    """The interface on the other side."""
    a_to_b: tuple[Element, ...] = ()
    """What frames that come in at `a` wait for; only elements that are not netem's."""
    b_to_a: tuple[Element, ...] = ()
    seed: Annotated[int, Field(ge=0)]
    epoch_ns: Annotated[int, Field(ge=0)]
    """The run's epoch: nanoseconds of CLOCK_REALTIME."""
    limit_packets: Annotated[int, Field(ge=1)] = 10_000
    """Frames that may wait at once in each direction; one more is dropped and counted."""
    status: Path
    """Where the counters go at the end."""

    @field_validator("a_to_b", "b_to_a")
    @classmethod
    def _only_waits(cls, elements: tuple[Element, ...]) -> tuple[Element, ...]:
        for element in elements:
            if element.realised_by != "waiting":
                raise ValueError(f"{element.law()} is netem's to give, not a waiting process's")
        return elements

    @property
    def a_to_b_name(self) -> str:
        return f"{self.name} a_to_b"

    @property
    def b_to_a_name(self) -> str:
        return f"{self.name} b_to_a"


@dataclass
class Counts:
    """What happened in one direction. Lateness is release as done minus release as due."""

    packets: int = 0
    """Frames passed on, waited or not."""
    bytes: int = 0
    waited_packets: int = 0
    dropped_queue_full: int = 0
    dropped_egress_full: int = 0
    """The kernel's queue behind the waiting line refused them."""
    dropped_ingress_full: int = 0
    """The socket's receive buffer overflowed before this process read them."""
    queued_at_exit: int = 0
    max_lateness_ns: int = 0
    lateness_us: Counter[int] = field(default_factory=Counter)

    def late(self, lateness_ns: int) -> None:
        self.max_lateness_ns = max(self.max_lateness_ns, lateness_ns)
        self.lateness_us[lateness_ns // 1000] += 1

    def p99_lateness_ns(self) -> int:
        """The least lateness that at least 99 % of the waited packets keep, rounded down to µs."""
        wanted = 0.99 * self.lateness_us.total()
        for lateness_us in sorted(self.lateness_us):
            wanted -= self.lateness_us[lateness_us]
            if wanted <= 0:
                return lateness_us * 1000
        return 0

    def summary(self) -> dict[str, int]:
        counts = {key: value for key, value in vars(self).items() if key != "lateness_us"}
        return counts | {"p99_lateness_ns": self.p99_lateness_ns()}


class Direction:
    """One direction's queue and counters, without socket or clock.

    Times are nanoseconds of one clock throughout, the one the line's epoch is on.
    """

    def __init__(self, line: WaitingLine, limit_packets: int) -> None:
        self._line = line
        self._limit = limit_packets
        self._queue: deque[tuple[int, bytes]] = deque()
        self.counts = Counts()

    def __len__(self) -> int:
        return len(self._queue)

    def arrived(self, frame: bytes, at_ns: int) -> bool:
        """Take a frame that came at `at_ns`: True if it is to pass at once, else it is queued.

        A frame that finds the queue full is dropped after its draw, as a late one would have been.
        """
        if frame[12:14] != ETHERTYPE_IPV4:
            return True
        release_ns = self._line.release_ns(at_ns, len(frame))
        if len(self._queue) < self._limit:
            self._queue.append((release_ns, frame))
        else:
            self.counts.dropped_queue_full += 1
        return False

    def due_ns(self) -> int | None:
        """When the next frame is to go; None while none waits."""
        return self._queue[0][0] if self._queue else None

    def take(self, now_ns: int) -> bytes | None:
        """The next frame that is due by `now_ns`, removed; None if there is none."""
        if not self._queue or self._queue[0][0] > now_ns:
            return None
        release_ns, frame = self._queue.popleft()
        self.counts.waited_packets += 1
        self.counts.late(now_ns - release_ns)
        return frame

    def sent(self, frame: bytes) -> None:
        self.counts.packets += 1
        self.counts.bytes += len(frame)


class Relay:
    """Carries frames between two sockets that keep message boundaries, until told to stop.

    `stop_fd` becomes readable when the relay is to end. The sockets must not block and must time
    stamp what they receive (`SO_TIMESTAMPNS`).
    """

    def __init__(
        self, a: socket.socket, b: socket.socket, a_to_b: Direction, b_to_a: Direction
    ) -> None:
        self._ways = ((a, b, a_to_b), (b, a, b_to_a))

    def run(self, stop_fd: int) -> None:
        """Carry frames; returns when `stop_fd` is readable, having counted the frames left."""
        sources = {source.fileno(): (source, out, way) for source, out, way in self._ways}
        alarm = Alarm()
        try:
            while True:
                due = [t for *_, way in self._ways if (t := way.due_ns()) is not None]
                alarm.set(min(due, default=None))
                readable, _, _ = select.select([*sources, alarm.fileno(), stop_fd], [], [])
                if stop_fd in readable:
                    break
                for fd in sources.keys() & set(readable):
                    self._receive(*sources[fd])
                self._release()
        finally:
            alarm.close()
        for *_, way in self._ways:
            way.counts.queued_at_exit = len(way)

    def _receive(self, source: socket.socket, out: socket.socket, way: Direction) -> None:
        for _ in range(BATCH):
            try:
                frame, ancillary, _, _ = source.recvmsg(LONGEST_FRAME_BYTES, ANCILLARY_BYTES)
            except BlockingIOError:
                return
            if way.arrived(frame, _arrival_ns(ancillary)):
                _send(out, frame, way)

    def _release(self) -> None:
        for _, out, way in self._ways:
            while (frame := way.take(time.time_ns())) is not None:
                _send(out, frame, way)


def _send(out: socket.socket, frame: bytes, way: Direction) -> None:
    try:
        out.send(frame)
    except OSError as error:
        if error.errno in (errno.ENOBUFS, errno.EAGAIN):
            way.counts.dropped_egress_full += 1
            return
        if error.errno == errno.EMSGSIZE:
            raise NetworkError(
                f"a frame of {len(frame)} bytes exceeds the MTU: segmentation offload is on "
                "at the other end of this hop; switch off tso, gso and gro"
            ) from error
        raise
    way.sent(frame)


def _arrival_ns(ancillary: list[tuple[int, int, bytes]]) -> int:
    """When the kernel took the frame in, on CLOCK_REALTIME; refuses a frame not fit to pass on."""
    arrival_ns = None
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, nanoseconds = TIMESPEC.unpack(data)
            arrival_ns = int(seconds) * 10**9 + int(nanoseconds)
        elif (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, *_ = AUXDATA.unpack(data)
            if status & TP_STATUS_CSUMNOTREADY:
                raise NetworkError(
                    "a frame came without its checksum: transmit checksum offload is on at the "
                    "other end of this hop; switch off tx-checksumming"
                )
    if arrival_ns is None:
        raise NetworkError("the kernel gave a frame without its arrival time (SO_TIMESTAMPNS)")
    return arrival_ns


def open_interface(name: str) -> socket.socket:
    """A raw socket that sees every frame that comes in at an interface, and none that goes out.

    Non-blocking, promiscuous, time stamping, with large buffers. Needs CAP_NET_RAW and
    CAP_NET_ADMIN; `NetworkError` names the interface if it cannot be had.
    """
    try:
        index = socket.if_nametoindex(name)
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # deaf until bound
        raw.setblocking(False)
        raw.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        raw.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        raw.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        raw.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BUFFER_BYTES)
        raw.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SOCKET_BUFFER_BYTES)
        membership = struct.pack("@iHH8s", index, PACKET_MR_PROMISC, 0, b"")
        raw.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, membership)
        raw.bind((name, ETH_P_ALL))
    except OSError as error:
        raise NetworkError(f"interface {name}: {error.strerror}") from error
    return raw


def kernel_drops(raw: socket.socket) -> int:
    """Frames an interface's socket lost to a full receive buffer since last asked."""
    _, drops = struct.unpack("@II", raw.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    return int(drops)


def stop_on_sigterm() -> int:
    """A file descriptor that becomes readable at SIGTERM or SIGINT, whatever is going on then."""
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(write_fd)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return read_fd


def load_config(path: Path) -> WaiterConfig:
    """Read and check a configuration file; `InputError` names the file and the key."""
    try:
        return WaiterConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        first: Any = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {key}: {first['msg']}") from error


def write_status(path: Path, status: dict[str, Any]) -> None:
    """Write the counters so that a reader sees all of them or none."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(status, indent=2) + "\n")
    partial.replace(path)


def serve(config: WaiterConfig) -> None:
    """Carry frames between the configuration's interfaces until SIGTERM, then write the status."""
    stop_fd = stop_on_sigterm()
    lines = [
        WaitingLine(elements, config.seed, name, config.epoch_ns)
        for elements, name in (
            (config.a_to_b, config.a_to_b_name),
            (config.b_to_a, config.b_to_a_name),
        )
    ]
    a_to_b, b_to_a = (Direction(line, config.limit_packets) for line in lines)
    with open_interface(config.a) as a, open_interface(config.b) as b:
        sys.stdout.write("READY\n")
        sys.stdout.flush()
        Relay(a, b, a_to_b, b_to_a).run(stop_fd)
        a_to_b.counts.dropped_ingress_full = kernel_drops(a)
        b_to_a.counts.dropped_ingress_full = kernel_drops(b)
    summary = {"a_to_b": a_to_b.counts.summary(), "b_to_a": b_to_a.counts.summary()}
    write_status(config.status, {"name": config.name} | summary)


def main(arguments: list[str]) -> int:
    """Run with the command line's arguments; returns the exit code."""
    try:
        if len(arguments) != 1:
            raise InputError("usage: python -m topo.links.waiter CONFIG.json")
        serve(load_config(Path(arguments[0])))
    except QntnError as error:
        sys.stderr.write(f"waiter: {error}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"waiter: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
