"""Accepting TLS connections from the Internet's worst: who may hold how many for how long.

asyncio's own server accepts a hundred connections at a go and lets them wait for ever. This one
accepts one at a time, so that a flood takes turns with the requests of others, and knows all its
connections in the order of their last sign of use: the end of the wait, that is a request whose
head is complete or an answer. Where a new connection would be one too many (of all, or of one IP
address) the longest useless one is closed for it. Half-open handshakes, silent peers and peers that
send one byte a minute thereby push out one another, never those that work.

What a connection is for is not known here: `serve` makes its protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from kms.configuration import ConnectionLimits
from topo.errors import InputError

_LOG = logging.getLogger("kms.server")
_BACKLOG = 1024
_CLOSING_S = 1.0
_PAUSE_S = 0.1
"""When the system has no file descriptor left and there is no connection to close for one."""


class _Tls(SSLProtocol):
    """asyncio's TLS, which hangs up on a failed handshake without the alert that says why."""

    def _on_handshake_complete(self, handshake_exc: BaseException | None) -> None:
        if handshake_exc is not None:
            self._process_outgoing()  # type: ignore[attr-defined]
        super()._on_handshake_complete(handshake_exc)

    @property
    def transport(self) -> asyncio.Transport:
        """What the application reads and writes."""
        transport: asyncio.Transport = self._get_app_transport()  # type: ignore[attr-defined]
        return transport


@dataclass(eq=False)
class Connection:
    """One accepted connection: its task shakes hands, then its transport carries it."""

    address: str
    task: asyncio.Task[None] | None = None
    transport: asyncio.Transport | None = None

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()
        elif self.task is not None:
            self.task.cancel()


_Queue = OrderedDict[Connection, None]
"""Connections, the longest useless one first."""


@dataclass
class Counters:
    """What became of connections so far."""

    accepted: int = 0
    handshakes_failed: int = 0
    pushed_out: int = 0


@dataclass
class Listener:
    """The listening sockets of one server and its open connections."""

    context: ssl.SSLContext
    limits: ConnectionLimits
    serve: Callable[[Connection], asyncio.Protocol]
    counters: Counters = field(default_factory=Counters)
    _all: _Queue = field(default_factory=_Queue)
    _of_address: dict[str, _Queue] = field(default_factory=dict)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def open_connections(self) -> int:
        return len(self._all)

    async def start(self, host: str, port: int) -> int:
        """Listen on every address of `host`; returns the port. `InputError` if that cannot be."""
        loop = asyncio.get_running_loop()
        sockets: list[socket.socket] = []
        try:
            found = await loop.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            for family, kind, protocol, _, address in dict.fromkeys(found):
                listening = socket.socket(family, kind, protocol)
                sockets.append(listening)
                listening.setblocking(False)
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listening.bind((address[0], port, *address[2:]))
                listening.listen(_BACKLOG)
                port = listening.getsockname()[1]
        except OSError as error:
            for listening in sockets:
                listening.close()
            raise InputError(f"cannot listen on {host} port {port}: {error.strerror}") from error
        self._tasks = [loop.create_task(self._accept_for_ever(each)) for each in sockets]
        return port

    async def close(self) -> None:
        """Accept no more; what is open stays open."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def abort(self) -> None:
        """Close what is open still."""
        shaking = [each.task for each in self._all if each.task is not None]
        for connection in list(self._all):
            connection.abort()
        await asyncio.gather(*shaking, return_exceptions=True)

    def touch(self, connection: Connection) -> None:
        """That connection has just been of use; it may be closed by now."""
        if connection in self._all:
            self._all.move_to_end(connection)
            self._of_address[connection.address].move_to_end(connection)

    def forget(self, connection: Connection) -> None:
        """That connection is closed."""
        self._all.pop(connection, None)
        queue = self._of_address.get(connection.address)
        if queue is not None:
            queue.pop(connection, None)
            if not queue:
                del self._of_address[connection.address]

    async def _accept_for_ever(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listening:
            while True:
                try:
                    accepted, address = await loop.sock_accept(listening)
                except ConnectionError:
                    continue  # went away again while it waited
                except OSError as error:  # out of file descriptors or memory
                    _LOG.warning("cannot accept: %s", error.strerror)
                    if not self._push_out(self._all):
                        await asyncio.sleep(_PAUSE_S)
                    continue
                self._admit(accepted, address[0])

    def _admit(self, accepted: socket.socket, address: str) -> None:
        self.counters.accepted += 1
        queue = self._of_address.get(address, _Queue())
        if len(queue) >= self.limits.connections_per_address:
            self._push_out(queue)
        elif len(self._all) >= self.limits.connections:
            self._push_out(self._all)
        connection = Connection(address)
        self._all[connection] = None
        self._of_address.setdefault(address, _Queue())[connection] = None
        loop = asyncio.get_running_loop()
        connection.task = loop.create_task(self._shake_hands(connection, accepted))

    def _push_out(self, queue: _Queue) -> bool:
        """Close the longest useless connection of a queue, if there is one."""
        longest = next(iter(queue), None)
        if longest is None:
            return False
        self.counters.pushed_out += 1
        self.forget(longest)
        longest.abort()
        return True

    async def _shake_hands(self, connection: Connection, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            # Also ends a peer that does not read its answers.
            patience_ms = int(self.limits.idle_s * 1000)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience_ms)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            done: asyncio.Future[None] = loop.create_future()
            tls = _Tls(
                loop,
                self.serve(connection),
                self.context,
                done,
                server_side=True,
                ssl_handshake_timeout=self.limits.handshake_s,  # type: ignore[arg-type]
                ssl_shutdown_timeout=_CLOSING_S,
            )
            carrier, _ = await loop.connect_accepted_socket(lambda: tls, accepted)
            try:
                await done
            except BaseException:
                carrier.abort()
                raise
            connection.transport = tls.transport
        except (OSError, asyncio.CancelledError) as error:  # ssl.SSLError is an OSError
            self.counters.handshakes_failed += 1
            self.forget(connection)
            with contextlib.suppress(OSError):
                accepted.close()
            _LOG.debug("%s: no TLS: %s", connection.address, error)
        finally:
            connection.task = None
