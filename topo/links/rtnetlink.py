"""Requests to the kernel's network configuration, many in one message, and what it says of its queues.

pyroute2 encodes and decodes; it would also send, one request at a time through an event loop, with a dump here and
there to find an index. A network of 64 hosts makes some 700 requests, so here each namespace gets one message with all
of its requests and answers once. Everything is sent in the namespace that the calling thread is in.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any, Literal

from topo.errors import NetworkError

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ACK = 0x4  # NLM_F_ACK
_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH
_ERROR, _DONE = 2, 3  # NLMSG_*
_GET_QDISC = 38  # RTM_GETQDISC
_TCMSG_BYTES = 20
_ANSWER_BYTES = 1 << 20

Kind = Literal["link", "addr", "route", "neigh", "tc"]


class Batch:
    """A list of requests, as pyroute2's `IPRoute` takes them, to be sent together."""

    def __init__(self) -> None:
        from pyroute2 import IPBatch

        self._encoder = IPBatch()
        self._requests: list[str] = []
        """What each request asks for, for the reader of an error."""

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._encoder.close()

    def ask(self, kind: Kind, command: str, /, *arguments: object, **options: object) -> None:
        """Add a request: `ask("link", "set", index=3, state="up")` is `IPRoute.link("set", ...)`."""
        getattr(self._encoder, kind)(command, *arguments, **options)
        said = (*arguments, *(f"{key} {value}" for key, value in options.items()))
        self._requests.append(" ".join(map(str, (kind, command, *said))))

    def send(self) -> None:
        """Send what was asked for, in its order, and forget it.

        Raises `NetworkError` for the first request that the kernel refuses; those after it have been carried out.
        """
        requests, self._requests = self._requests, []
        message = bytearray(self._encoder.asyncore.batch)
        self._encoder.reset()
        if not requests:
            return
        _number(message, len(requests))
        with _socket() as handle:
            handle.send(message)
            refused = _acknowledged(handle, len(requests))
        if refused is not None:
            number, code = refused
            raise NetworkError(f"the kernel refuses `{requests[number]}`: {os.strerror(code)}")


def qdiscs() -> list[Any]:
    """Every queueing discipline of the calling thread's namespace, as pyroute2's `tcmsg`."""
    from pyroute2.netlink.rtnl.marshal import MarshalRtnl

    request = _HEADER.pack(_HEADER.size + _TCMSG_BYTES, _GET_QDISC, _DUMP, 1, 0)
    with _socket() as handle:
        handle.send(request + bytes(_TCMSG_BYTES))
        answer = bytearray()
        while True:
            part = handle.recv(_ANSWER_BYTES)
            kind = _HEADER.unpack_from(part)[1]
            if kind == _ERROR:
                code = -struct.unpack_from("=i", part, _HEADER.size)[0]
                raise NetworkError(f"the kernel does not list its queues: {os.strerror(code)}")
            if kind == _DONE:
                break
            answer += part
    return list(MarshalRtnl().parse(bytes(answer)))


def _socket() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)


def _number(message: bytearray, requests: int) -> None:
    """Give each request its place as its sequence number; only the last one asks for an answer when all is well."""
    at = 0
    for number in range(requests):
        length, kind, flags, _, _ = _HEADER.unpack_from(message, at)
        flags = flags | _ACK if number == requests - 1 else flags & ~_ACK
        _HEADER.pack_into(message, at, length, kind, flags, number, 0)
        at += (length + 3) & ~3
    if at != len(message):
        raise NetworkError(f"a batch of {requests} requests holds more of them")


def _acknowledged(handle: socket.socket, requests: int) -> tuple[int, int] | None:
    """Wait for the last request's answer: the first refusal (its number, errno), None where there was none."""
    refused = None
    while True:
        answer = handle.recv(_ANSWER_BYTES)
        _, kind, _, number, _ = _HEADER.unpack_from(answer)
        if kind != _ERROR:
            continue
        code = -struct.unpack_from("=i", answer, _HEADER.size)[0]
        if code and refused is None:
            refused = number, code
        if number == requests - 1:
            return refused
