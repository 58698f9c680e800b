"""Network namespaces that live exactly as long as the object that made them.

A namespace is held by a parked thread of this process: making one costs a thread, no fork and no shell, and when the
process ends, however it ends, the kernel takes the namespace and every virtual link in it away. Other programs enter
it by the thread's id (`mnexec -a ID`, `nsenter --net=/proc/ID/ns/net`).
"""

from __future__ import annotations

import ctypes
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from topo.errors import NetworkError

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


class Namespace:
    """A network namespace; all that is in it is a loopback interface, down.

    Usable as a context manager. Raises `NetworkError` where the kernel refuses (no root, no CONFIG_NET_NS).
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._live, name=f"netns {name}", daemon=True)
        self._netlink: Any = None
        self._refusal: int | None = None
        ready = threading.Event()
        self._work.put(ready.set)
        self._thread.start()
        ready.wait()
        if self._refusal is not None:
            self.close()
            raise NetworkError(f"no network namespace for {name}: {os.strerror(self._refusal)}")
        thread_id = self._thread.native_id
        assert thread_id is not None
        self.pid: int = thread_id

    def _live(self) -> None:
        if _libc.unshare(CLONE_NEWNET) != 0:
            self._refusal = ctypes.get_errno()
        while (work := self._work.get()) is not None:
            work()
        if self._netlink is not None:
            self._netlink.close()

    def run(self, work: Callable[[], T]) -> T:
        """Call `work` on the thread that lives in the namespace, and return or raise what it does.

        Sockets opened there, and files under `/proc/sys/net`, belong to the namespace. Raises `NetworkError` once the
        namespace is closed.
        """
        if not self._thread.is_alive():
            raise NetworkError(f"namespace {self.name} is closed")
        done = threading.Event()
        outcome: list[T] = []
        failure: list[BaseException] = []

        def carry_out() -> None:
            try:
                outcome.append(work())
            except BaseException as error:  # noqa: BLE001 - handed to the caller below, whatever it is
                failure.append(error)
            finally:
                done.set()

        self._work.put(carry_out)
        done.wait()
        if failure:
            raise failure[0]
        return outcome[0]

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

        def write() -> None:
            with open(f"/proc/sys/{key}", "w") as file:  # noqa: PTH123 - a kernel file, not a path
                file.write(value)

        self.run(write)

    def close(self) -> None:
        """Let the namespace go; the kernel removes it once no process is left in it."""
        if self._thread.is_alive():
            self._work.put(None)
            self._thread.join()

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


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
