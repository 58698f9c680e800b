"""Network namespaces that live exactly as long as the object that made them.

A namespace is held by an open descriptor of this process: making one costs two system calls, no thread, no fork and
no shell, and when the process ends, however it ends, the kernel takes the namespace and every virtual link in it away.
Other programs enter it by a process id (`mnexec -a ID`, `nsenter --net=/proc/ID/ns/net`): that of a thread which is
parked there once somebody asks for it.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from topo.errors import NetworkError

CLONE_NEWNET = 0x40000000
_MINE = "/proc/thread-self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


class Namespace:
    """A network namespace; all that is in it is a loopback interface, down.

    Usable as a context manager. Raises `NetworkError` where the kernel refuses (no root, no CONFIG_NET_NS).
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._netlink: Any = None
        self._resident: threading.Thread | None = None
        self._leave = threading.Event()
        with _coming_back():
            if _libc.unshare(CLONE_NEWNET) != 0:
                reason = os.strerror(ctypes.get_errno())
                raise NetworkError(f"no network namespace for {name}: {reason}")
            self._descriptor: int | None = os.open(_MINE, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def pid(self) -> int:
        """An id under which other programs find the namespace, that of a thread parked in it."""
        if self._resident is None:
            arrived = threading.Event()

            def reside() -> None:
                self._enter()
                arrived.set()
                self._leave.wait()

            self._resident = threading.Thread(target=reside, name=f"netns {self.name}", daemon=True)
            self._resident.start()
            arrived.wait()
        assert self._resident.native_id is not None
        return self._resident.native_id

    def fileno(self) -> int:
        """The descriptor that holds the namespace. Raises `NetworkError` once it is closed."""
        if self._descriptor is None:
            raise NetworkError(f"namespace {self.name} is closed")
        return self._descriptor

    def run(self, work: Callable[[], T]) -> T:
        """Call `work` with the calling thread inside the namespace, and return or raise what it does.

        Sockets opened there, and files under `/proc/sys/net`, belong to the namespace, and programs started there live
        in it. Raises `NetworkError` once the namespace is closed.
        """
        with _coming_back():
            self._enter()
            return work()

    def with_netlink(self, work: Callable[[Any], T]) -> T:
        """Call `work` with this namespace's netlink handle (pyroute2's `IPRoute`), opened once and kept."""

        def carry_out() -> T:
            if self._netlink is None:
                from pyroute2 import IPRoute

                self._netlink = IPRoute()
            return work(self._netlink)

        return self.run(carry_out)

    def sysctl(self, key: str, value: str) -> None:
        """Set a setting of this namespace's network stack, e.g. `net/ipv4/ip_forward`."""
        self.run(lambda: write_sysctl(key, value))

    def close(self) -> None:
        """Let the namespace go; the kernel removes it once no process is left in it."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None
        if self._resident is not None:
            self._leave.set()
            self._resident.join()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _enter(self) -> None:
        _set_namespace(self.fileno())


@contextmanager
def namespaces(*names: str) -> Iterator[tuple[Namespace, ...]]:
    """Several namespaces at once, all let go at the end."""
    made: list[Namespace] = []
    try:
        for name in names:
            made.append(Namespace(name))
        yield tuple(made)
    finally:
        for namespace in made:
            namespace.close()


def write_sysctl(key: str, value: str) -> None:
    """Write a setting under `/proc/sys`, of the calling thread's namespace where it has one of its own."""
    descriptor = os.open(f"/proc/sys/{key}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


@contextmanager
def _coming_back() -> Iterator[None]:
    """Whatever namespace the calling thread enters meanwhile, it is where it was afterwards."""
    home = os.open(_MINE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        _set_namespace(home)
        os.close(home)


def _set_namespace(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise NetworkError(f"cannot enter a network namespace: {os.strerror(ctypes.get_errno())}")
