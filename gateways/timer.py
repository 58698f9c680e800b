"""A timer that a loop can wait for beside its sockets, to the nanosecond where `epoll` knows milliseconds."""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import suppress

from topo.errors import NetworkError

_CLOCK_MONOTONIC = 1
_TFD_NONBLOCK, _TFD_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1
_ITIMERSPEC = struct.Struct("@qqqq")
_NS_PER_S = 1_000_000_000
_EXPIRATIONS_OCTETS = 8


class Timer:
    """Linux's timerfd on the monotonic clock (`os` has it from Python 3.13 on); readable once its time has come.

    Raises `NetworkError` where the kernel refuses.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._checked(
            self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
        )
        self._at_ns: int | None = None

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._fd

    def set(self, at_ns: int | None) -> None:
        """Expire at `at_ns` of the monotonic clock, at once if that is past; None: never."""
        if at_ns == self._at_ns:
            return
        self._at_ns = at_ns
        # 0 would disarm it.
        when = (0, 0) if at_ns is None else divmod(max(at_ns, 1), _NS_PER_S)
        spec = _ITIMERSPEC.pack(0, 0, *when)
        self._checked(self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, spec, None))

    def clear(self) -> None:
        """Take note that it expired; it is then not set."""
        with suppress(BlockingIOError):
            os.read(self._fd, _EXPIRATIONS_OCTETS)
            self._at_ns = None

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            raise NetworkError(f"timerfd: {os.strerror(ctypes.get_errno())}")
        return result
