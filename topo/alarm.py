"""A Linux timer that `select` can wait for, exact to the nanosecond of an absolute time."""

from __future__ import annotations

import ctypes
import os
import struct
import time

from topo.errors import FeatureMissing

_TFD_TIMER_ABSTIME = 1  # linux/timerfd.h
_ITIMERSPEC = struct.Struct("@qqqq")  # interval, then first expiry
_NS_PER_S = 1_000_000_000


class Alarm:
    """A file descriptor that is readable from a given CLOCK_REALTIME on: a timerfd.

    Not a timeout of `select`: the kernel lets that come late by a thousandth of the time waited
    (84 µs in 84 ms; fs/select.c, __estimate_accuracy), and no timer slack setting changes it.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        self._fd = self._checked(self._libc.timerfd_create(time.CLOCK_REALTIME, flags))
        self._at_ns: int | None = None

    def fileno(self) -> int:
        """The descriptor, for `select`."""
        return self._fd

    def set(self, at_ns: int | None) -> None:
        """Be readable from `at_ns` on, at once if that has passed; never for None."""
        if at_ns != self._at_ns:
            expiry = (0, 0) if at_ns is None else divmod(max(at_ns, 1), _NS_PER_S)  # zero disarms
            timer = _ITIMERSPEC.pack(0, 0, *expiry)
            self._checked(self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, timer, None))
            self._at_ns = at_ns

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            raise FeatureMissing(
                "timerfd", f"The kernel refuses: {os.strerror(ctypes.get_errno())}."
            )
        return result
